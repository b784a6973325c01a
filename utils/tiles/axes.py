"""How an axis is cut into tiles, and how these are blended."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from utils.utils_tile_opt import Blend, TileOpt

SPARED = 0.25  # fraction of an overlap that may be given up to save a tile


class Axis(NamedTuple):
    """How one axis is cut: its length, the tile side, the tile starts, and how tiles are blended."""

    length: int
    side: int
    starts: list[int]
    blend: Blend
    cut: int = 0  # output points that a tile drops at each side, except at the ends of the axis

    def place(self, index: int, scale: int = 1) -> slice:
        """Position of a tile in an output `scale` times as long."""
        return slice(self.starts[index] * scale, (self.starts[index] + self.side) * scale)

    def weights(self, scale: int = 1) -> list[Tensor]:
        """Blending weights of each tile, (side * scale,) float32; at every output point they sum to one."""
        ramps = [self._ramp(index, scale) for index in range(len(self.starts))]
        total = torch.zeros(self.length * scale, dtype=torch.float64)
        for index, ramp in enumerate(ramps):
            total[self.place(index, scale)] += ramp
        return [(ramp / total[self.place(index, scale)]).float() for index, ramp in enumerate(ramps)]

    def _ramp(self, index: int, scale: int) -> Tensor:
        first, last = index == 0, index == len(self.starts) - 1
        if self.blend == "kair":
            ramp = torch.ones(self.side * scale, dtype=torch.float64)
            ramp[: 0 if first else self.cut] = 0
            ramp[len(ramp) - (0 if last else self.cut) :] = 0
            return ramp
        rise = 0 if first else self.starts[index - 1] + self.side - self.starts[index]
        fall = 0 if last else self.starts[index] + self.side - self.starts[index + 1]
        position = torch.arange(self.side * scale, dtype=torch.float64) + 0.5
        return torch.minimum(_rising(position, rise * scale), _rising(position, fall * scale).flip(0))


def axis(length: int, size: int, overlap: int, blend: Blend = "smooth", cut: int = 0, grid: int = 1) -> Axis:
    """Cut an axis into tiles of `size` that begin at multiples of `grid`; they may become up to `grid` - 1 points
    shorter.

    A size of 0 or more than `length` gives one tile. Neighbours share `overlap` points, less than `size`; `blend` as in
    TileOpt, `cut` as in Axis, for "kair".
    """
    if size == 0 or size >= length:
        return Axis(length, length, [0], blend, cut)
    cells = -(-length // grid)
    rest = cells * grid - length  # points of the last cell beyond the axis
    side = min(max((size + rest) // grid, 1 + bool(rest)), cells)
    shared = min(-(-(overlap + rest) // grid), side - 1)
    places = kair_starts(cells, side, shared) if blend == "kair" else starts(cells, side, shared)
    cut = min(cut, max(shared * grid - rest, 0) // 2)
    return Axis(length, side * grid - rest, [place * grid for place in places], blend, cut)


def starts(length: int, size: int, overlap: int) -> list[int]:
    """Starts of the fewest evenly spaced tiles that cover an axis, ascending; the last one ends with the axis.

    A `size` of 0 or more than `length` gives one tile. `overlap` is less than `size`; one below half a tile may shrink
    by up to a quarter on average, but not below 1, where that saves a tile.
    """
    if size == 0 or size >= length:
        return [0]
    least = max((1 - SPARED) * overlap, min(overlap, 1)) if 2 * overlap < size else overlap
    last = math.ceil((length - size) / (size - least))
    return [round(index * (length - size) / last) for index in range(last + 1)]


def kair_starts(length: int, size: int, overlap: int) -> list[int]:
    """Starts of KAIR's tiles: every size - overlap, plus one that ends with the axis, however close to the previous."""
    if size >= length:
        return [0]
    return [*range(0, length - size, size - overlap), length - size]


def time_axis(length: int, tile: TileOpt) -> Axis:
    """The time windows of a clip."""
    return axis(length, tile.frames, tile.frame_overlap, tile.blend)


def space_axes(size: tuple[int, int], tile: TileOpt, grid: int = 1) -> tuple[Axis, Axis]:
    """The tiles of an (H, W) frame: row axis, column axis; tiles begin at multiples of `grid`."""
    rows, cols = (
        axis(length, side, overlap, tile.blend, overlap // 2, grid)
        for length, side, overlap in zip(size, tile.size, tile.overlap, strict=True)
    )
    return rows, cols


def windows_for(time: Axis, first: int, stop: int) -> range:
    """Indices of the time windows that contribute to frames [first, stop)."""
    touching = [i for i, start in enumerate(time.starts) if start < stop and start + time.side > first]
    return range(touching[0], touching[-1] + 1)


def calls_for(length: int, size: tuple[int, int], tile: TileOpt, first: int = 0, stop: int | None = None) -> int:
    """Number of network calls to restore frames [first, stop) of a clip with `length` frames of size (H, W)."""
    rows, cols = space_axes(size, tile, tile.grid)
    windows = windows_for(time_axis(length, tile), first, length if stop is None else stop)
    return len(windows) * math.ceil(len(rows.starts) * len(cols.starts) / tile.batch)


def mirror_index(start: int, stop: int, length: int) -> list[int]:
    """Indices start .. stop - 1 of an axis of `length`, extended by mirroring at its ends: ... 2 1 0 1 2 ..."""
    period = max(2 * (length - 1), 1)
    return [min(index % period, period - index % period) if length > 1 else 0 for index in range(start, stop)]


def _rising(position: Tensor, width: int) -> Tensor:
    return (position / width).clamp(max=1) if width else torch.ones_like(position)
