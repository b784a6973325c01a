"""Tiling in space and time: the only module that cuts, pads and joins clips."""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from utils.utils_error import UserError
from utils.utils_tile_opt import Blend, TileOpt

LOG = logging.getLogger("spikevrt")

Restore = Callable[[Tensor], Tensor]
Read = Callable[[int, int], Tensor]
MIRRORED_FRAMES = 2
SPARED = 0.25  # fraction of an overlap that may be given up to save a tile
SMALLEST_SIDE, SMALLEST_FRAMES = 64, 2  # smallest tile side in pixels, and fewest frames
SHRUNK = 0.7  # factor by which a side that did not fit shrinks


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


def axis(length: int, size: int, overlap: int, blend: Blend = "smooth", cut: int = 0) -> Axis:
    """Cut an axis into tiles.

    Args:
        length: length of the axis.
        size: size of a tile; 0 or more than `length`: one tile.
        overlap: overlap of neighbouring tiles; less than `size`.
        blend: see TileOpt.
        cut: see Axis; for "kair".
    """
    side = min(size or length, length)
    places = kair_starts(length, side, overlap) if blend == "kair" else starts(length, side, overlap)
    return Axis(length, side, places, blend, cut)


def starts(length: int, size: int, overlap: int) -> list[int]:
    """Starts of the fewest evenly spaced tiles that cover an axis; the last one ends with the axis.

    Args:
        length: length of the axis.
        size: size of a tile; 0 or more than `length`: one tile.
        overlap: overlap of neighbouring tiles, less than `size`. An overlap below half a tile may shrink by up to a
            quarter on average, but not below 1, where that saves a tile.

    Returns:
        The first index of each tile, ascending.
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


def space_axes(size: tuple[int, int], tile: TileOpt) -> tuple[Axis, Axis]:
    """The tiles of an (H, W) frame: row axis, column axis."""
    rows, cols = (
        axis(length, side, overlap, tile.blend, overlap // 2)
        for length, side, overlap in zip(size, tile.size, tile.overlap, strict=True)
    )
    return rows, cols


def windows_for(time: Axis, first: int, stop: int) -> range:
    """Indices of the time windows that contribute to frames [first, stop)."""
    touching = [i for i, start in enumerate(time.starts) if start < stop and start + time.side > first]
    return range(touching[0], touching[-1] + 1)


def calls_for(length: int, size: tuple[int, int], tile: TileOpt, first: int = 0, stop: int | None = None) -> int:
    """Number of network calls to restore frames [first, stop) of a clip with `length` frames of size (H, W)."""
    rows, cols = space_axes(size, tile)
    windows = windows_for(time_axis(length, tile), first, length if stop is None else stop)
    return len(windows) * math.ceil(len(rows.starts) * len(cols.starts) / tile.batch)


def mirror_index(start: int, stop: int, length: int) -> list[int]:
    """Indices start .. stop - 1 of an axis of `length`, extended by mirroring at its ends: ... 2 1 0 1 2 ..."""
    period = max(2 * (length - 1), 1)
    return [min(index % period, period - index % period) if length > 1 else 0 for index in range(start, stop)]


class ShrinkingTile:
    """The tile in use: the requested one, or a smaller one for good once memory has run out.

    Args:
        tile: the requested tile.
    """

    def __init__(self, tile: TileOpt) -> None:
        self.tile = tile
        self.frames = 0  # frames of a time window restored at once; 0: all

    def shrink(self, frames: int, size: tuple[int, int], splittable: bool) -> None:
        """Choose a smaller tile after `frames` frames of size (H, W) did not fit with the current one.

        Raises:
            UserError: the tile is already the smallest.
        """
        tile = self.tile
        height, width = (min(side or length, length) for side, length in zip(tile.size, size, strict=True))
        inner = min(self.frames or frames, frames)
        longer = max(height, width)
        if tile.batch > 1:
            self.tile = replace(tile, batch=tile.batch // 2)
        elif longer > SMALLEST_SIDE:
            less = max(int(longer * SHRUNK) // 8 * 8, SMALLEST_SIDE)
            sides = (min(height, less), min(width, less))
            overlap = (min(tile.overlap[0], sides[0] // 2), min(tile.overlap[1], sides[1] // 2))
            self.tile = replace(tile, size=sides, overlap=overlap)
        elif splittable and inner > SMALLEST_FRAMES:
            self.frames = max(math.ceil(inner / 2), SMALLEST_FRAMES)
        else:
            raise UserError(
                f"out of memory: even {inner} frames of {height}x{width} pixels do not fit; free memory, or use a "
                "smaller network or a larger machine"
            )
        now = f"{self.frames} frames at once, " if self.frames else ""
        # Logged as an error because ranks other than 0 hide lower levels.
        LOG.error("out of memory with tiles of %s; continuing with %s%s", tile, now, self.tile)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that GPU or host memory ran out."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError)
        and any(sign in text for sign in ("out of memory", "DefaultCPUAllocator", "ALLOC_FAILED"))
    )


def restore_tiled(
    restore: Restore,
    read: Read,
    length: int,
    size: tuple[int, int],
    tile: TileOpt | ShrinkingTile,
    frames: tuple[int, int] | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Restore a clip tile by tile; holds one time window in memory and yields each frame as soon as it is final.

    A frame is the same, bit for bit, in whichever range it is restored. If memory runs out, smaller tiles are used.

    Args:
        restore: (B, n, C, h, w) -> (B, t, 3, h * s, w * s); restores t frames from n input frames; s >= 1.
        read: (start, stop) -> (n, C, H, W), the input needed to restore frames [start, stop).
        length: number of restored frames of the clip.
        size: (H, W) of the input frames.
        tile: tiles and overlaps, in restored frames and input pixels.
        frames: range [first, stop) to restore; None: all. Only the time windows needed for it are read.

    Yields:
        Frame index, ascending and without gaps, and the restored frame (3, H * s, W * s) float32 on the CPU.

    Raises:
        UserError: not even small tiles fit into memory.
    """
    shrinking = tile if isinstance(tile, ShrinkingTile) else ShrinkingTile(tile)
    first, last = frames or (0, length)
    time, weights = time_axis(length, shrinking.tile), time_axis(length, shrinking.tile).weights()
    if shrinking.tile.blend == "kair":
        restore = padded_as_kair(restore, shrinking.tile)
    windows = windows_for(time, first, last)
    done, pending = time.starts[windows[0]], torch.zeros(0)
    for index in windows:
        window = time.place(index)
        restored = _restore_window(restore, read(window.start, window.stop), time.side, size, shrinking)
        restored *= weights[index].view(-1, 1, 1, 1)
        if len(pending):
            restored[: len(pending)] += pending
        pending = restored
        final = time.starts[index + 1] if index != windows[-1] else last
        for frame in range(done, final):
            if frame >= first:
                yield frame, pending[frame - done]
        pending, done = pending[final - done :].clone(), final


def restore_padded(
    restore: Restore,
    read: Read,
    length: int,
    size: tuple[int, int],
    tile: TileOpt | ShrinkingTile,
    frames: tuple[int, int] | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """`restore_tiled` with mirrored frames before and after the clip, so that its end frames have neighbours."""
    pad = mirrored_frames(length)
    first, last = frames or (0, length)

    def read_padded(start: int, stop: int) -> Tensor:
        wanted = mirror_index(start - pad, stop - pad, length)
        lowest = min(wanted)
        return read(lowest, max(wanted) + 1)[[index - lowest for index in wanted]]

    padded = restore_tiled(restore, read_padded, length + 2 * pad, size, tile, (first + pad, last + pad))
    for frame, restored in padded:
        yield frame - pad, restored


def mirrored_frames(length: int) -> int:
    """Number of frames that `restore_padded` adds at each end of a clip."""
    return min(MIRRORED_FRAMES, length - 1)


def padded_as_kair(restore: Restore, tile: TileOpt) -> Restore:
    """Pad each untiled axis to a multiple of the network's window by mirroring its end, and crop the result.

    Like KAIR, repeats the last point: ... 1 2 3 3 2 1.
    """
    wanted = ((1, tile.frames, tile.window[0]), (3, tile.size[0], tile.window[1]), (4, tile.size[1], tile.window[2]))

    def padded(window: Tensor) -> Tensor:
        _, frames, _, height, width = window.shape
        extended = window
        for dim, size, multiple in wanted:
            length = extended.shape[dim]
            if size == 0 and length % multiple:
                indices = torch.arange(-(-length // multiple) * multiple) % (2 * length)
                extended = extended.index_select(dim, torch.minimum(indices, 2 * length - 1 - indices))
        out = restore(extended)
        scale = out.shape[-1] // extended.shape[-1]
        wanted_frames = out.shape[1] - (extended.shape[1] - frames)  # the network may return fewer frames than it reads
        return out[:, :wanted_frames, :, : height * scale, : width * scale]

    return padded


def _rising(position: Tensor, width: int) -> Tensor:
    return (position / width).clamp(max=1) if width else torch.ones_like(position)


def _restore_window(
    restore: Restore, window: Tensor, count: int, size: tuple[int, int], shrinking: ShrinkingTile
) -> Tensor:
    """(n, C, H, W) -> (count, 3, H * s, W * s), with smaller tiles if memory runs out."""
    while True:
        try:
            return _restore_in_time(restore, window, size, shrinking)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Not in the except block, where the traceback still holds the memory of the failed attempt.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        shrinking.shrink(len(window), size, splittable=len(window) == count)


def _restore_in_time(restore: Restore, window: Tensor, size: tuple[int, int], shrinking: ShrinkingTile) -> Tensor:
    """Restore a time window, in shorter ones if memory was found to allow only that."""
    if not 0 < shrinking.frames < len(window):
        return _restore_in_space(restore, window, size, shrinking.tile)
    time = axis(len(window), shrinking.frames, min(shrinking.tile.frame_overlap, shrinking.frames - 1))
    out = torch.zeros(0)
    for index, weights in enumerate(time.weights()):
        place = time.place(index)
        part = _restore_in_space(restore, window[place], size, shrinking.tile) * weights.view(-1, 1, 1, 1)
        out = out if len(out) else torch.zeros(len(window), *part.shape[1:])
        out[place] += part
    return out


def _restore_in_space(restore: Restore, window: Tensor, size: tuple[int, int], tile: TileOpt) -> Tensor:
    """(n, C, H, W) -> (t, 3, H * s, W * s), `tile.batch` tiles per call; the first result determines t and s."""
    rows, cols = space_axes(size, tile)
    places = [(row, col) for row in range(len(rows.starts)) for col in range(len(cols.starts))]
    out = torch.zeros(0)
    for at in range(0, len(places), tile.batch):
        batch = places[at : at + tile.batch]
        if len(places) == 1:
            return restore(window[None])[0].float().cpu()
        restored = restore(torch.stack([window[..., rows.place(row), cols.place(col)] for row, col in batch]))
        restored = restored.float().cpu()
        scale = restored.shape[-1] // cols.side
        if not len(out):
            down, across = rows.weights(scale), cols.weights(scale)
            out = torch.zeros(restored.shape[1], 3, size[0] * scale, size[1] * scale)
        for (row, col), piece in zip(batch, restored, strict=True):
            weights = down[row][:, None] * across[col]
            out[:, :, rows.place(row, scale), cols.place(col, scale)] += piece * weights
    return out
