"""Concatenation: spike planes are further input channels beside RGB."""

import torch
from torch import Tensor

from models.fusion.base import Fusion


class Concat(Fusion):
    """RGB and spike planes side by side; what learns from them is the network's first convolution.

    Args:
        spike_channels: S, number of spike planes a frame.
    """

    def forward(self, rgb: Tensor, spike: Tensor) -> Tensor:
        """(B, D, 3, H, W) and (B, D, S, H, W) -> (B, D, out_chans, H, W)."""
        return torch.cat((rgb, spike), dim=2) if spike.shape[2] else rgb
