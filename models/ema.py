"""Moving average of the weights (KAIR's netE)."""

import torch
from torch import nn


@torch.no_grad()
def update(average: nn.Module, net: nn.Module, decay: float) -> None:
    """average = decay * average + (1 - decay) * net, over all parameters."""
    torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), 1 - decay)
