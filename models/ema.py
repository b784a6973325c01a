"""Moving average of the weights (KAIR's netE)."""

import copy

import torch
from torch import nn

PAST_WARMUP = 10**9  # updates, after which decay_at is any decay in use


class MovingAverage:
    """A network whose weights follow those of another one, an average over about 1 / (1 - decay) updates.

    A young average forgets faster, see `decay_at`: else a short run would end near the weights that it began with.

    Args:
        net: the network to follow; the average starts from its weights.
        decay: what is kept of the average in an update, once it is old enough.

    Attributes:
        net: the averaged network, in evaluation mode and without gradients.
        updates: how often it has been updated; belongs to a checkpoint, the weights alone do not make a resumed
            average exact.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    def update(self, net: nn.Module) -> None:
        """Take in the weights of `net` after a training step."""
        update(self.net, net, decay_at(self.updates, self.decay))
        self.updates += 1

    def restart(self, net: nn.Module) -> None:
        """Begin anew from the weights of `net`."""
        self.net.load_state_dict(net.state_dict())
        self.updates = 0

    def skip_warmup(self) -> None:
        """Count as old: the weights are an average from elsewhere, which the next updates shall not wipe out."""
        self.updates = PAST_WARMUP


def decay_at(updates: int, decay: float) -> float:
    """Decay of the update that follows `updates` others: (1 + n) / (10 + n), never above `decay`.

    The start of TensorFlow's tf.train.ExponentialMovingAverage with `num_updates`.
    """
    return min(decay, (1 + updates) / (10 + updates))


@torch.no_grad()
def update(average: nn.Module, net: nn.Module, decay: float) -> None:
    """average = decay * average + (1 - decay) * net, over all parameters; buffers are copied."""
    torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), 1 - decay)
    for own, other in zip(average.buffers(), net.buffers(), strict=True):
        own.copy_(other)
