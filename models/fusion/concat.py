"""Concatenation: spike planes as additional input channels."""

import torch
from torch import Tensor

from models.fusion.base import Fusion


class Concat(Fusion):
    """RGB, then spike planes; the network's first convolution learns to combine them."""

    def forward(self, rgb: Tensor, spike: Tensor) -> Tensor:
        return torch.cat((rgb, spike), dim=2) if spike.shape[2] else rgb
