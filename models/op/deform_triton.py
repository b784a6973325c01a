"""Deformable convolution as Triton kernels that multiply samples directly, without storing columns.

The image is packed channels last, the channels of each offset group padded to a power of two, so that one sample is one
aligned vector. A program of the forward pass owns a pixel tile of one image and one convolution group; it iterates over
taps and offset groups and accumulates (samples x weight). The backward pass has two kernels. One iterates in the same
way with (gradient x weight), for the gradients of image (atomic additions), offset and mask. The other owns rows of the
weight, samples again and sums over pixels in a fixed order: atomic additions of whole weight tiles per pixel tile would
cost more than sampling twice.
"""

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from models.op.deform_kernels import forward_kernel, input_kernel, weight_kernel

DOT = 16  # smallest side of a tensor-core product
MAX_CHANNELS, MAX_OUTPUTS = 32, 128  # padded, per offset group and per convolution group
WEIGHT_PROGRAMS = 512  # programs of the weight kernel: more than any GPU runs at once, and the same on all GPUs


class Tiles(NamedTuple):
    """How much of a problem one program handles at a time."""

    pixels: int
    columns: int  # offset groups x padded channels of one tap
    warps: int
    stages: int  # of the loop's software pipeline


# By kernel and bytes per element; none spills registers on compute capability 9.0 at the published sizes.
TILES = {
    "forward": {2: Tiles(64, 64, 4, 3), 4: Tiles(64, 32, 4, 3)},
    "input": {2: Tiles(64, 32, 4, 1), 4: Tiles(64, 32, 4, 1)},
    "weight": {2: Tiles(64, 64, 8, 1), 4: Tiles(32, 32, 8, 1)},
}


class Plan(NamedTuple):
    """Sizes of one problem, the constants of the kernels."""

    n: int
    height: int
    width: int
    kernel: int
    groups: int  # offset groups
    conv_groups: int
    channels: int  # of one offset group
    padded_channels: int
    outputs: int  # of one convolution group
    padded_outputs: int
    group_block: int
    tiling: Tiles

    @property
    def own_groups(self) -> int:
        """Offset groups of one convolution group."""
        return self.groups // self.conv_groups

    @property
    def group_blocks(self) -> int:
        """Steps of `group_block` offset groups that cover one convolution group."""
        return -(-self.own_groups // self.group_block)

    @property
    def tiles(self) -> int:
        """Pixel tiles of one image."""
        return -(-self.height * self.width // self.tiling.pixels)

    @property
    def packed_weight(self) -> tuple[int, ...]:
        """Shape (conv groups, taps, offset groups, channels, outputs), the last three padded."""
        groups = self.group_blocks * self.group_block
        return self.conv_groups, self.kernel**2, groups, self.padded_channels, self.padded_outputs

    def constants(self) -> dict[str, Any]:
        """Keyword arguments of every kernel."""
        return {
            "TILES": self.tiles,
            "H": self.height,
            "W": self.width,
            "KERNEL": self.kernel,
            "G": self.groups,
            "OWN": self.own_groups,
            "C": self.padded_channels,
            "OUT": self.outputs,
            "OP": self.padded_outputs,
            "GB": self.group_block,
            "PRECISION": dot_precision(),
            "P": self.tiling.pixels,
            "num_warps": self.tiling.warps,
            "num_stages": self.tiling.stages,
        }


def plan(kind: str, x: Tensor, mask: Tensor, weight: Tensor) -> Plan:
    """Sizes and tiles for one of the three kernels."""
    tiling = TILES[kind][x.element_size()]
    n, channels, height, width = x.shape
    kernel = weight.shape[-1]
    groups = mask.shape[1] // kernel**2
    conv_groups = channels // weight.shape[1]
    padded = triton.next_power_of_2(channels // groups)
    outputs = weight.shape[0] // conv_groups
    group_block = min(triton.next_power_of_2(groups // conv_groups), max(1, tiling.columns // padded))
    return Plan(
        n=n,
        height=height,
        width=width,
        kernel=kernel,
        groups=groups,
        conv_groups=conv_groups,
        channels=channels // groups,
        padded_channels=padded,
        outputs=outputs,
        padded_outputs=max(DOT, triton.next_power_of_2(outputs)),
        group_block=max(group_block, DOT // padded),
        tiling=tiling,
    )


def supports(x: Tensor, mask: Tensor, weight: Tensor) -> bool:
    """Whether the kernels support this: no float64 or very wide groups, whole offset groups per conv group."""
    if x.element_size() not in TILES["forward"]:
        return False
    sizes = plan("forward", x, mask, weight)
    return (
        sizes.groups % sizes.conv_groups == 0
        and sizes.padded_channels <= MAX_CHANNELS
        and sizes.padded_outputs <= MAX_OUTPUTS
    )


def forward(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See models.op.deform_conv.deform_conv2d; products in the dtype of x, output in float32."""
    sizes = plan("forward", x, mask, weight)
    out = x.new_empty((sizes.n, weight.shape[0], sizes.height, sizes.width), dtype=torch.float32)
    packed = pack_weight(weight.to(x.dtype), sizes)
    args = (pack_image(x, sizes), offset.contiguous(), mask.contiguous(), packed, bias.contiguous(), out)
    with torch.cuda.device_of(x):
        forward_kernel[sizes.n * sizes.tiles, sizes.conv_groups](*args, **sizes.constants())
    return out


def backward(grad: Tensor, x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """Gradients of x, offset, mask, weight and bias in float32, from that of the output, (N, C_out, H, W).

    Its products with half-precision x use the dtype of x.
    """
    sizes = plan("input", x, mask, weight)
    grad, offset, mask, image = grad.contiguous(), offset.contiguous(), mask.contiguous(), pack_image(x, sizes)
    grad_image = torch.zeros_like(image, dtype=torch.float32)
    grad_offset, grad_mask = (torch.empty_like(tensor, dtype=torch.float32) for tensor in (offset, mask))
    packed = pack_weight(weight.to(x.dtype), sizes)
    args = (image, offset, mask, packed, grad, grad_image, grad_offset, grad_mask)
    with torch.cuda.device_of(x):
        input_kernel[sizes.n * sizes.tiles, sizes.conv_groups](*args, **sizes.constants())
    grad_x = grad_image[..., : sizes.channels].permute(0, 3, 4, 1, 2).reshape(x.shape)

    sizes = plan("weight", x, mask, weight)
    rows = sizes.conv_groups * sizes.kernel**2 * sizes.group_blocks
    splits = max(1, min(sizes.n * sizes.tiles, WEIGHT_PROGRAMS // rows))
    sums = x.new_empty((splits, *sizes.packed_weight), dtype=torch.float32)
    with torch.cuda.device_of(x):
        weight_kernel[rows, splits](image, offset, mask, grad, sums, sizes.n, splits, **sizes.constants())
    grad_weight = unpack_weight(sums.sum(0), sizes).reshape(weight.shape)
    return grad_x, grad_offset, grad_mask, grad_weight, grad.sum((0, 2, 3), dtype=torch.float32)


def dot_precision() -> str:
    """float32 products: TF32 if PyTorch's own are, otherwise three TF32 products, which are as accurate as float32."""
    matmul = torch.backends.cuda.matmul
    tf32 = matmul.fp32_precision == "tf32" if hasattr(matmul, "fp32_precision") else matmul.allow_tf32
    return "tf32" if tf32 else "tf32x3"


def pack_image(x: Tensor, sizes: Plan) -> Tensor:
    """(N, C, H, W) -> (N, H, W, groups, padded channels)."""
    channels_last = x.unflatten(1, (sizes.groups, sizes.channels)).permute(0, 3, 4, 1, 2)
    if sizes.channels == sizes.padded_channels:
        return channels_last.contiguous()
    packed = x.new_zeros((*channels_last.shape[:4], sizes.padded_channels))
    packed[..., : sizes.channels] = channels_last
    return packed


def pack_weight(weight: Tensor, sizes: Plan) -> Tensor:
    """(C_out, C / conv groups, k, k) -> Plan.packed_weight, zero-padded."""
    packed = weight.new_zeros(sizes.packed_weight)
    shape = (sizes.conv_groups, sizes.outputs, sizes.own_groups, sizes.channels, sizes.kernel**2)
    packed[:, :, : sizes.own_groups, : sizes.channels, : sizes.outputs] = weight.reshape(shape).permute(0, 4, 2, 3, 1)
    return packed


def unpack_weight(packed: Tensor, sizes: Plan) -> Tensor:
    """The inverse of pack_weight: (conv groups, outputs, offset groups, channels, taps)."""
    return packed[:, :, : sizes.own_groups, : sizes.channels, : sizes.outputs].permute(0, 4, 2, 3, 1)
