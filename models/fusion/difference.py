"""Difference: what the spikes saw and the blurred frame has lost."""

import torch
from torch import Tensor

from models.fusion.base import Fusion

BT601 = (0.299, 0.587, 0.114)


class Difference(Fusion):
    """RGB around zero, and spike planes minus the frame's gray value.

    Spike planes in units of intensity (tfp) repeat most of what RGB says already; a network learns the small rest, the
    lost detail, slowly. Handing it over as a plane of its own takes the same information and learns it several times
    sooner.

    Args:
        spike_channels: S, number of spike planes a frame.
    """

    gray: Tensor

    def __init__(self, spike_channels: int) -> None:
        super().__init__(spike_channels)
        self.register_buffer("gray", torch.tensor(BT601).view(3, 1, 1), persistent=False)

    def forward(self, rgb: Tensor, spike: Tensor) -> Tensor:
        """(B, D, 3, H, W) and (B, D, S, H, W) -> (B, D, out_chans, H, W)."""
        return torch.cat((rgb - 0.5, spike - (rgb * self.gray).sum(2, keepdim=True)), dim=2)
