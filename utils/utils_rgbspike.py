"""The network's input with spikes: frames, and spikes on the sensor's own, coarser grid, cut and flipped in step."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from utils.utils_colour import EXPONENT, LIGHT_KNEE, OFFSET, SLOPE, SRGB_KNEE


@dataclass(frozen=True)
class RGBSpike:
    """Frames with their spikes. Behaves like the tensor of frames where it is cut, flipped or stacked.

    H = r h and W = r w with an integer r. If intensities are linear light, the network works in linear light.
    """

    rgb: Tensor  # (..., T, C, H, W) float32: sRGB in [0, 1], then a noise map if the network takes one
    spike: Tensor  # (..., T, S, h, w) float32, uint8 counts, or int8 parts of counts (data.spike.frame_planes)
    scale: Tensor | None = None  # (..., T, S) float32, a count in intensity (white is 1); None: spike is in intensity
    is_linear: bool = False  # intensities are linear light

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
        return replace(self, rgb=self.rgb[index], spike=self.spike[..., cells[0], cells[1]])

    @property
    def mT(self) -> "RGBSpike":  # noqa: N802 - a tensor's name
        """Rows and columns exchanged."""
        return replace(self, rgb=self.rgb.mT, spike=self.spike.mT)

    def contiguous(self) -> "RGBSpike":
        """The same with contiguous tensors."""
        return self._each(Tensor.contiguous)

    def flip(self, dims: int | Sequence[int]) -> "RGBSpike":
        """Flip axes: negative ones are rows and columns, others count from the front."""
        dims = (dims,) if isinstance(dims, int) else tuple(dims)
        early = [dim for dim in dims if dim >= 0]
        scale = self.scale.flip(early) if self.scale is not None else None
        return replace(self, rgb=self.rgb.flip(dims), spike=self.spike.flip(dims), scale=scale)

    def with_planes(self, order: Sequence[int]) -> "RGBSpike":
        """The same with the spike planes in another order."""
        axis, index = self.rgb.ndim - 3, torch.as_tensor(order, device=self.spike.device)
        scale = None if self.scale is None else self.scale.index_select(axis, index)
        return replace(self, spike=self.spike.index_select(axis, index), scale=scale)

    def index_select(self, dim: int, index: Tensor) -> "RGBSpike":
        """Select along an axis of (B, T, C, H, W); rows and columns as whole cells of r pixels."""
        rgb = self.rgb.index_select(dim, index)
        if dim >= self.rgb.ndim - 2:
            cells = index[:: self.ratio] // self.ratio
            return replace(self, rgb=rgb, spike=self.spike.index_select(dim, cells))
        scale = None if self.scale is None else self.scale.index_select(dim, index)
        return replace(self, rgb=rgb, spike=self.spike.index_select(dim, index), scale=scale)

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Frames and spikes in units of intensity, float32, on a device; counts travel there as they are. Frames are
        linear light if spikes are."""
        spike = self.spike.to(device, non_blocking=True)
        if self.scale is not None:
            spike = spike.float() * self.scale.to(device, non_blocking=True)[..., None, None]
        rgb = self.rgb.to(device, non_blocking=True)
        return srgb_to_light(rgb) if self.is_linear else rgb, spike

    def _each(self, change: Callable[[Tensor], Tensor]) -> "RGBSpike":
        scale = None if self.scale is None else change(self.scale)
        return replace(self, rgb=change(self.rgb), spike=change(self.spike), scale=scale)


Window = Tensor | RGBSpike


def without_spikes(rgb: Tensor, channels: int, *, is_linear: bool) -> RGBSpike:
    """Frames (T, C, H, W) with planes of zeros, as `augment.drop_spikes` makes them, of half the size if it is whole.

    Args:
        rgb: float32, RGB in [0, 1].
        channels: planes per frame.
        is_linear: see RGBSpike.
    """
    frames, _, height, width = rgb.shape
    ratio = math.gcd(height, width, 2)
    planes = torch.zeros(frames, channels, height // ratio, width // ratio, dtype=torch.uint8)
    return RGBSpike(rgb, planes, torch.zeros(frames, channels), is_linear)


def stacked(windows: Sequence[Any]) -> Any:
    """Stack windows of one kind along a new first axis."""
    if isinstance(windows[0], Tensor):
        return torch.stack(tuple(windows))
    scales = [each.scale for each in windows]
    scale = None if scales[0] is None else torch.stack(scales)
    rgb, spike = (torch.stack([getattr(each, name) for each in windows]) for name in ("rgb", "spike"))
    return replace(windows[0], rgb=rgb, spike=spike, scale=scale)


def random_like(window: Window, shape: Sequence[int]) -> Window:
    """A window like `window` but of `shape` (B, n, any, h, w), h and w rounded up to whole cells; values are random."""
    batch, frames, _, height, width = shape
    random = torch.Generator().manual_seed(0)
    if isinstance(window, Tensor):
        return torch.rand(batch, frames, window.shape[1], height, width, generator=random)
    ratio, (rows, columns) = window.ratio, (-(-length // window.ratio) for length in (height, width))
    rgb = torch.rand(batch, frames, window.shape[1], rows * ratio, columns * ratio, generator=random)
    spike = torch.rand(batch, frames, window.spike.shape[1], rows, columns, generator=random).to(window.spike.dtype)
    return replace(window, rgb=rgb, spike=spike, scale=None if window.scale is None else torch.ones(spike.shape[:3]))


def bytes_of(window: Window) -> int:
    """Bytes of all tensors of a window."""
    return window.nbytes if isinstance(window, Tensor) else window.rgb.nbytes + window.spike.nbytes


def tensors_of(window: Window, device: torch.device) -> tuple[Tensor, ...]:
    """The arguments of a network's forward, on a device."""
    return window.tensors(device) if isinstance(window, RGBSpike) else (window.to(device),)


def restored_of(window: Window, out: Tensor) -> Tensor:
    """The network's output as sRGB; linear light is converted in float32."""
    return light_to_srgb(out.float()) if isinstance(window, RGBSpike) and window.is_linear else out


def srgb_to_light(srgb: Tensor) -> Tensor:
    """Linear light of sRGB values, as utils_colour.srgb_to_linear does; beyond [0, 1] they are proportional or follow
    the same curve."""
    power = ((srgb.clamp(min=SRGB_KNEE) + OFFSET) / (1 + OFFSET)) ** EXPONENT
    return torch.where(srgb <= SRGB_KNEE, srgb / SLOPE, power)


def light_to_srgb(light: Tensor) -> Tensor:
    """sRGB values of linear light, the inverse of `srgb_to_light`."""
    power = (1 + OFFSET) * light.clamp(min=LIGHT_KNEE) ** (1 / EXPONENT) - OFFSET
    return torch.where(light <= LIGHT_KNEE, light * SLOPE, power)


def grid_of(window: Window, grid: int = 1) -> int:
    """Pixels to whose multiples a window must be cut: the network's `grid` and whole cells of spikes."""
    return math.lcm(grid, window.ratio if isinstance(window, RGBSpike) else 1)
