"""Moving average of the weights (KAIR's netE)."""

import copy

import torch
from torch import nn

PAST_WARMUP = 10**9  # updates after which decay_at returns any usual decay unchanged


class MovingAverage:
    """A network whose weights average those of another network over about 1 / (1 - decay) updates.

    A young average forgets faster, see `decay_at`; otherwise a short run would end near its initial weights, from which
    the average starts.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self.decay = decay  # share of the average that an update keeps after the warm-up
        self.updates = 0  # so far; checkpoints store it, so that a resumed average is exact

    def update(self, net: nn.Module) -> None:
        """Add the weights of `net` after a training step."""
        update(self.net, net, decay_at(self.updates, self.decay))
        self.updates += 1

    def restart(self, net: nn.Module) -> None:
        self.net.load_state_dict(net.state_dict())
        self.updates = 0

    def skip_warmup(self) -> None:
        """Skip the warm-up: the loaded weights are already an average."""
        self.updates = PAST_WARMUP


def decay_at(updates: int, decay: float) -> float:
    """Decay of the update after n = `updates` others: min(decay, (1 + n) / (10 + n)).

    The warm-up of TensorFlow's tf.train.ExponentialMovingAverage with `num_updates`.
    """
    return min(decay, (1 + updates) / (10 + updates))


@torch.no_grad()
def update(average: nn.Module, net: nn.Module, decay: float) -> None:
    """average = decay * average + (1 - decay) * net, over all parameters; buffers are copied."""
    torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), 1 - decay)
    for own, other in zip(average.buffers(), net.buffers(), strict=True):
        own.copy_(other)
