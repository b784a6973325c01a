"""Deformable convolution on a CPU: `grid_sample` and a matrix product, in chunks that fit into the cache."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Sampled columns held at once: they fit into a core's share of the cache, which is faster than one large chunk.
CHUNK_BYTES = 8 * 2**20
# Normalised coordinates beyond this lie outside any image; huge ones would overflow inside grid_sample.
FAR = 4.0
BILINEAR, ZEROS = 0, 0  # grid_sampler's numbers for F.grid_sample's defaults


class Chunk(NamedTuple):
    """Samples and output rows computed together."""

    samples: slice
    rows: slice


def chunks(n: int, height: int, bytes_per_row: int) -> Iterator[Chunk]:
    """Cover n samples of `height` rows by several samples at once, or by rows of one sample that is too large."""
    rows = min(height, max(1, CHUNK_BYTES // bytes_per_row))
    samples = max(1, CHUNK_BYTES // (bytes_per_row * height))
    for first in range(0, n, samples):
        for top in range(0, height, rows):
            yield Chunk(slice(first, min(first + samples, n)), slice(top, min(top + rows, height)))


class Problem:
    """The arguments of one call, shaped as those of `deform_conv2d`, in one dtype, and values that its chunks share."""

    def __init__(self, x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor) -> None:
        self.n, self.channels, self.height, self.width = x.shape
        self.kernel = weight.shape[-1]
        self.taps = self.kernel**2
        self.groups = mask.shape[1] // self.taps
        n_conv = self.channels // weight.shape[1]
        self.x, self.offset, self.mask = x, offset, mask
        # (conv groups, outputs, columns): the columns of a conv group are contiguous.
        self.weight = weight.reshape(n_conv, weight.shape[0] // n_conv, -1).to(x.dtype)
        self.plain_x, self.plain_y = self._undeformed()

    def _undeformed(self) -> tuple[Tensor, Tensor]:
        """Normalised coordinates without offset: x (taps, 1, W) and y (taps, H, 1)."""
        x = torch.arange(self.width) + torch.arange(self.kernel).repeat(self.kernel)[:, None, None]
        y = torch.arange(self.height)[:, None] + torch.arange(self.kernel).repeat_interleave(self.kernel)[:, None, None]
        x, y = (2 * (at.to(self.x) - self.kernel // 2) + 1 for at in (x, y))
        # align_corners=False: unlike the other convention, it can point outside an axis of length one.
        return x / self.width - 1, y / self.height - 1

    def chunks(self) -> Iterator[Chunk]:
        """Chunks that cover the output."""
        return chunks(self.n, self.height, self.channels * self.taps * self.width * self.x.element_size())

    def image(self, chunk: Chunk) -> Tensor:
        """(samples * groups, C / groups, H, W)."""
        return self.x[chunk.samples].reshape(-1, self.channels // self.groups, self.height, self.width)

    def grid(self, chunk: Chunk) -> Tensor:
        """Sampling positions for `grid_sample`, (samples * groups, taps * rows, W, 2)."""
        dy, dx = self._pairs(self.offset, chunk).to(self.x.dtype).unbind(3)
        grid = dx.new_empty(*dx.shape, 2)
        torch.add(self.plain_x, dx, alpha=2 / self.width, out=grid[..., 0])
        torch.add(self.plain_y[:, chunk.rows], dy, alpha=2 / self.height, out=grid[..., 1])
        return grid.clamp_(-FAR, FAR).view(-1, self.taps * dx.shape[3], self.width, 2)

    def _pairs(self, offset: Tensor, chunk: Chunk) -> Tensor:
        """View of a chunk of offsets or of their gradient: (samples, groups, taps, 2, rows, W), (dy, dx) on axis 3."""
        return offset[chunk.samples].unflatten(1, (self.groups, self.taps, 2))[..., chunk.rows, :]

    def store_offset(self, grad_offset: Tensor, chunk: Chunk, grad_grid: Tensor) -> None:
        """Convert a chunk's grid gradient to its offset gradient and store it."""
        dy, dx = self._pairs(grad_offset, chunk).unbind(3)
        torch.mul(grad_grid[..., 0].view(dx.shape), 2 / self.width, out=dx)
        torch.mul(grad_grid[..., 1].view(dy.shape), 2 / self.height, out=dy)

    def store_mask(self, grad_mask: Tensor, chunk: Chunk, values: Tensor) -> None:
        """Store a chunk's mask gradient, (samples * groups, taps * rows, W)."""
        part = grad_mask[chunk.samples, :, chunk.rows]
        part.copy_(values.view(part.shape))

    def modulation(self, chunk: Chunk) -> Tensor:
        """(samples * groups, 1, taps * rows, W)."""
        mask = self.mask[chunk.samples, :, chunk.rows].to(self.x.dtype)
        return mask.reshape(mask.shape[0] * self.groups, 1, -1, self.width)

    def as_columns(self, samples: Tensor) -> Tensor:
        """(samples * groups, C / groups, taps * rows, W) -> (samples, conv groups, columns, rows * W)."""
        return samples.view(-1, len(self.weight), self.weight.shape[2], samples.shape[2] // self.taps * self.width)


def forward(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See models.op.deform_conv.deform_conv2d; computed in the dtype of x, at least float32."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    problem = Problem(x, offset, mask, weight)
    out = x.new_empty(x.shape[0], weight.shape[0], *x.shape[2:])
    for chunk in problem.chunks():
        columns = F.grid_sample(problem.image(chunk), problem.grid(chunk), align_corners=False)
        columns *= problem.modulation(chunk)
        product = torch.matmul(problem.weight, problem.as_columns(columns))
        part = out[chunk.samples, :, chunk.rows]
        torch.add(product.view(part.shape), bias.to(x.dtype)[:, None, None], out=part)
    return out


def backward(grad: Tensor, x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """Gradients of x, offset, mask, weight and bias, at least float32, from that of the output, (N, C_out, H, W).

    The columns are sampled again per chunk.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    problem = Problem(x, offset, mask, weight)
    grad = grad.to(x.dtype)
    grad_x, grad_weight = torch.zeros_like(x), torch.zeros_like(problem.weight)
    grad_offset, grad_mask = (torch.empty_like(tensor, dtype=x.dtype) for tensor in (offset, mask))
    for chunk in problem.chunks():
        image, grid, modulation = problem.image(chunk), problem.grid(chunk), problem.modulation(chunk)
        columns = F.grid_sample(image, grid, align_corners=False)
        part = grad[chunk.samples, :, chunk.rows].flatten(2).unflatten(1, problem.weight.shape[:2])
        grad_columns = torch.matmul(problem.weight.mT, part).view_as(columns)
        problem.store_mask(grad_mask, chunk, (grad_columns * columns).sum(1))
        grad_weight += torch.matmul(part, problem.as_columns(columns.mul_(modulation)).mT).sum(0)
        grad_image, grad_grid = torch.ops.aten.grid_sampler_2d_backward(
            grad_columns.mul_(modulation), image, grid, BILINEAR, ZEROS, False, [True, True]
        )
        grad_x[chunk.samples] += grad_image.view_as(grad_x[chunk.samples])
        problem.store_offset(grad_offset, chunk, grad_grid)
    return grad_x, grad_offset, grad_mask, grad_weight.view(weight.shape), grad.sum((0, 2, 3))
