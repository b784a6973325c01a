"""Concatenation: spike planes as additional input channels."""

import torch
from torch import Tensor, nn


class Concat(nn.Module):
    """RGB, then spike planes; the network's first convolution learns to combine them.

    Args:
        spike_channels: S, spike planes per frame.
    """

    def __init__(self, spike_channels: int) -> None:
        super().__init__()
        self.out_chans = 3 + spike_channels

    def forward(self, rgb: Tensor, spike: Tensor) -> Tensor:
        """(B, D, 3, H, W) and (B, D, S, H, W) -> (B, D, out_chans, H, W)."""
        return torch.cat((rgb, spike), dim=2) if spike.shape[2] else rgb
