"""Modulated deformable convolution (Zhu et al., "Deformable ConvNets v2", CVPR 2019), a backend per device."""

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor


def deform_conv2d(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Deformable convolution with stride 1 and "same" padding; computed and returned in float32 or wider.

    Args:
        x: (N, C, H, W).
        offset: (N, 2 * groups * taps, H, W) in pixels, (dy, dx) per (group, tap).
        mask: (N, groups * taps, H, W).
        weight: (C_out, C, k, k), k odd; taps = k * k.
        bias: (C_out,).

    Returns:
        (N, C_out, H, W). Samples outside the image are zero.
    """
    # Coordinates in half precision would be whole pixels wrong, and torchvision's kernel knows no bfloat16 on a CPU.
    kind = torch.promote_types(x.dtype, torch.float32)
    with torch.autocast(x.device.type, enabled=False):
        args = [tensor.to(kind) for tensor in (x, offset, mask, weight, bias)]
        return BACKENDS.get(x.device.type, torchvision_deform_conv2d)(*args)


def torchvision_deform_conv2d(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """torchvision's kernel: the reference, and the backend on CUDA."""
    return torchvision.ops.deform_conv2d(x, offset, weight, bias, padding=weight.shape[-1] // 2, mask=mask)


def grid_sample_deform_conv2d(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """One `grid_sample` over all groups and taps, then one matrix product: the backend on a CPU."""
    n, channels, height, width = x.shape
    c_out, _, kernel, _ = weight.shape
    taps = kernel * kernel
    groups = mask.shape[1] // taps
    offset = offset.view(n * groups, taps, 2, height, width)
    tap = torch.arange(kernel, device=x.device, dtype=x.dtype) - kernel // 2
    y = torch.arange(height, device=x.device, dtype=x.dtype)[:, None] + tap.repeat_interleave(kernel)[:, None, None]
    x_position = torch.arange(width, device=x.device, dtype=x.dtype) + tap.repeat(kernel)[:, None, None]
    # align_corners=False: unlike the other convention it can point outside an axis of length one.
    grid_y = (2 * (offset[:, :, 0] + y) + 1) / height - 1
    grid_x = (2 * (offset[:, :, 1] + x_position) + 1) / width - 1
    grid = torch.stack((grid_x, grid_y), dim=4).view(n * groups, taps * height, width, 2)
    columns = F.grid_sample(x.reshape(n * groups, channels // groups, height, width), grid, align_corners=False)
    columns = columns * mask.reshape(n * groups, 1, taps * height, width)
    columns = columns.view(n, channels * taps, height * width)
    return (
        torch.matmul(weight.view(c_out, channels * taps), columns).view(n, c_out, height, width) + bias[:, None, None]
    )


BACKENDS = {"cpu": grid_sample_deform_conv2d, "cuda": torchvision_deform_conv2d}
