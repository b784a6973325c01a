"""The network's input with spikes: frames, and spikes on the sensor's own, coarser grid, cut and flipped in step."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class RGBSpike:
    """Frames with their spikes. Behaves like the tensor of frames where it is cut, flipped or stacked.

    Attributes:
        rgb: (..., T, C, H, W) float32: RGB in [0, 1], then a noise map if the network takes one.
        spike: (..., T, S, h, w), H = r h and W = r w with an integer r: float32, or uint8 counts.
        scale: (..., T, S) float32, what one count of a plane means in intensity (white is 1); None: spike is in
            intensity already.
    """

    rgb: Tensor
    spike: Tensor
    scale: Tensor | None = None

    @property
    def shape(self) -> torch.Size:
        """The shape of the frames."""
        return self.rgb.shape

    @property
    def ratio(self) -> int:
        """r, RGB pixels per spike pixel along each axis."""
        return self.rgb.shape[-1] // self.spike.shape[-1]

    def __len__(self) -> int:
        return len(self.rgb)

    def __getitem__(self, index: Any) -> "RGBSpike":
        """Index the first axis, or cut rows and columns with (..., rows, cols), slices at multiples of r."""
        if not isinstance(index, tuple):
            return self._each(lambda part: part[index])
        _, rows, cols = index
        cells = tuple(slice(part.start // self.ratio, part.stop // self.ratio) for part in (rows, cols))
        return RGBSpike(self.rgb[index], self.spike[..., cells[0], cells[1]], self.scale)

    @property
    def mT(self) -> "RGBSpike":  # noqa: N802 - a tensor's name
        """Rows and columns exchanged."""
        return RGBSpike(self.rgb.mT, self.spike.mT, self.scale)

    def contiguous(self) -> "RGBSpike":
        """The same with contiguous tensors."""
        return self._each(Tensor.contiguous)

    def flip(self, dims: int | Sequence[int]) -> "RGBSpike":
        """Flip axes: negative ones are rows and columns, others count from the front."""
        dims = (dims,) if isinstance(dims, int) else tuple(dims)
        early = [dim for dim in dims if dim >= 0]
        scale = self.scale.flip(early) if self.scale is not None else None
        return RGBSpike(self.rgb.flip(dims), self.spike.flip(dims), scale)

    def with_planes(self, order: Sequence[int]) -> "RGBSpike":
        """The same with the spike planes in another order."""
        axis, index = self.rgb.ndim - 3, torch.as_tensor(order, device=self.spike.device)
        scale = None if self.scale is None else self.scale.index_select(axis, index)
        return RGBSpike(self.rgb, self.spike.index_select(axis, index), scale)

    def index_select(self, dim: int, index: Tensor) -> "RGBSpike":
        """Select along an axis of (B, T, C, H, W); rows and columns as whole cells of r pixels."""
        rgb = self.rgb.index_select(dim, index)
        if dim >= self.rgb.ndim - 2:
            cells = index[:: self.ratio] // self.ratio
            return RGBSpike(rgb, self.spike.index_select(dim, cells), self.scale)
        scale = None if self.scale is None else self.scale.index_select(dim, index)
        return RGBSpike(rgb, self.spike.index_select(dim, index), scale)

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Frames and spikes in units of intensity, float32, on a device; counts travel there as they are."""
        spike = self.spike.to(device, non_blocking=True)
        if self.scale is not None:
            spike = spike.float() * self.scale.to(device, non_blocking=True)[..., None, None]
        return self.rgb.to(device, non_blocking=True), spike

    def _each(self, change: Callable[[Tensor], Tensor]) -> "RGBSpike":
        scale = None if self.scale is None else change(self.scale)
        return RGBSpike(change(self.rgb), change(self.spike), scale)


Window = Tensor | RGBSpike


def stacked(windows: Sequence[Any]) -> Any:
    """Stack windows of one kind along a new first axis."""
    if isinstance(windows[0], Tensor):
        return torch.stack(tuple(windows))
    scales = [each.scale for each in windows]
    scale = None if scales[0] is None else torch.stack(scales)
    return RGBSpike(torch.stack([each.rgb for each in windows]), torch.stack([each.spike for each in windows]), scale)


def random_like(window: Window, shape: Sequence[int]) -> Window:
    """A window of the same kind as (n, C, H, W), with random values.

    Args:
        window: the example.
        shape: (B, n, any, h, w) wanted; h and w are rounded up to whole cells of the spikes.
    """
    batch, frames, _, height, width = shape
    random = torch.Generator().manual_seed(0)
    if isinstance(window, Tensor):
        return torch.rand(batch, frames, window.shape[1], height, width, generator=random)
    ratio, (rows, columns) = window.ratio, (-(-length // window.ratio) for length in (height, width))
    rgb = torch.rand(batch, frames, window.shape[1], rows * ratio, columns * ratio, generator=random)
    spike = torch.rand(batch, frames, window.spike.shape[1], rows, columns, generator=random).to(window.spike.dtype)
    return RGBSpike(rgb, spike, None if window.scale is None else torch.ones(spike.shape[:3]))


def bytes_of(window: Window) -> int:
    """Bytes of all tensors of a window."""
    return window.nbytes if isinstance(window, Tensor) else window.rgb.nbytes + window.spike.nbytes


def tensors_of(window: Window, device: torch.device) -> tuple[Tensor, ...]:
    """The arguments of a network's forward, on a device."""
    return window.tensors(device) if isinstance(window, RGBSpike) else (window.to(device),)


def grid_of(window: Window, grid: int = 1) -> int:
    """Pixels to whose multiples a window must be cut: the network's `grid` and whole cells of spikes."""
    return math.lcm(grid, window.ratio if isinstance(window, RGBSpike) else 1)
