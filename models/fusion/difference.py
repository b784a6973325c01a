"""Difference: the detail that the spikes recorded and the blurred frame lost."""

import torch
from torch import Tensor

from models.fusion.base import Fusion
from utils.utils_colour import BT601


class Difference(Fusion):
    """RGB centred on zero, and spike planes minus the frame's gray value.

    Spike planes in units of intensity (tfp) mostly repeat RGB; a network is slow to learn the small remainder, the lost
    detail. Given as a plane of its own, it is learnt several times sooner.
    """

    gray: Tensor

    def __init__(self, spike_channels: int) -> None:
        super().__init__(spike_channels)
        self.register_buffer("gray", torch.tensor(BT601).view(3, 1, 1), persistent=False)

    def forward(self, rgb: Tensor, spike: Tensor) -> Tensor:
        return torch.cat((rgb - 0.5, spike - (rgb * self.gray).sum(2, keepdim=True)), dim=2)
