"""Warping by optical flow."""

import torch
import torch.nn.functional as F
from torch import Tensor


def pixel_grid(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Where each pixel of (N, 2, H, W) flow points: x and y positions in pixels, each (N, H, W)."""
    height, width = flow.shape[-2:]
    x = torch.arange(width, device=flow.device, dtype=flow.dtype)
    y = torch.arange(height, device=flow.device, dtype=flow.dtype)
    return flow[:, 0] + x, flow[:, 1] + y[:, None]


def sample_at(image: Tensor, x: Tensor, y: Tensor, mode: str = "bilinear", padding: str = "zeros") -> Tensor:
    """Sample (N, C, H, W) at pixel positions x, y of shape (N, h, w); returns (N, C, h, w)."""
    height, width = image.shape[-2:]
    grid = torch.stack((2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1), dim=3)
    return F.grid_sample(image, grid, mode=mode, padding_mode=padding, align_corners=True)


def flow_warp(image: Tensor, flow: Tensor, padding: str = "zeros") -> Tensor:
    """Pull (N, C, H, W) along (N, 2, H, W) flow, channel 0 = x, bilinear: out(p) = image(p + flow(p))."""
    return sample_at(image, *pixel_grid(flow), padding=padding)


def nearest4_warp(image: Tensor, flow: Tensor) -> Tensor:
    """The four neighbours of where the flow points: (N, C, H, W) -> (N, 4 * C, H, W).

    Order on channels: (floor x, floor y), (floor x, ceil y), (ceil x, floor y), (ceil x, ceil y). The flow gets no
    gradient from it.
    """
    n, c, h, w = image.shape
    x, y = pixel_grid(flow.detach())
    xs = torch.cat((x.floor(), x.floor(), x.ceil(), x.ceil()), dim=1)
    ys = torch.cat((y.floor(), y.ceil(), y.floor(), y.ceil()), dim=1)
    sampled = sample_at(image, xs, ys, mode="nearest")
    return sampled.view(n, c, 4, h, w).transpose(1, 2).reshape(n, 4 * c, h, w)
