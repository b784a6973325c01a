"""From features to frames: per-frame convolutions, upsampling, interpolation of the middle frame."""

import torch.nn.functional as F
from torch import Tensor, nn

FUSED = 64  # channels before the last convolution when upsampling or interpolating


class FrameConv(nn.Conv3d):
    """A per-frame 3x3 convolution with the published parameter shape (C_out, C_in, 1, 3, 3)."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out, (1, 3, 3), padding=(0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, C_in, H, W) -> (B, D, C_out, H, W), as a 2-D convolution, which is faster on every device."""
        out = F.conv2d(x.flatten(0, 1), self.weight.squeeze(2), self.bias, padding=1)
        return out.view(*x.shape[:2], *out.shape[1:])


class Upsample(nn.Sequential):
    """Upsample `dim` channels: convolution, pixel shuffle, LeakyReLU per factor of 2 (or 3), a last convolution."""

    def __init__(self, factor: int, dim: int) -> None:
        steps = [3] if factor == 3 else [2] * (factor.bit_length() - 1)
        layers: list[nn.Module] = []
        for step in steps:
            # The published network transposes around each shuffle; the identities keep its parameter names.
            shuffle = (nn.Identity(), nn.PixelShuffle(step), nn.Identity())
            layers += [FrameConv(dim, step**2 * dim), *shuffle, nn.LeakyReLU(0.1, inplace=True)]
        super().__init__(*layers, FrameConv(dim, dim))


def enlarge(frames: Tensor, factor: int, mode: str = "bilinear") -> Tensor:
    """(B, D, C, H, W) -> (B, D, C, H * factor, W * factor), "bilinear" or "nearest"."""
    if factor == 1:
        return frames
    corners = None if mode == "nearest" else False
    big = F.interpolate(frames.flatten(0, 1), scale_factor=factor, mode=mode, align_corners=corners)
    return big.view(*frames.shape[:3], *big.shape[2:])


def fuse_frames(features: Tensor, linear_fuse: nn.Module, conv_last: nn.Module) -> Tensor:
    """One frame from the features of all: (B, D, C, H, W) -> (B, 1, C_out, H, W), H and W > 3."""
    fused = F.leaky_relu(linear_fuse(features.flatten(1, 2)), 0.2)
    return conv_last(F.pad(fused, (3, 3, 3, 3), mode="reflect")).unsqueeze(1)
