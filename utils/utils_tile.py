"""Tiling in space and time: the only place that cuts a clip into pieces, pads it and joins the pieces."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from utils.utils_error import UserError

Restore = Callable[[torch.Tensor], torch.Tensor]
Read = Callable[[int, int], torch.Tensor]
MIRRORED_FRAMES = 2


@dataclass(frozen=True)
class TileOpt:
    """The piece of a clip that is restored at once. A length of 0 means the whole clip, height or width."""

    frames: int = 0
    frame_overlap: int = 2
    size: tuple[int, int] = (0, 0)
    overlap: tuple[int, int] = (20, 20)

    def __post_init__(self) -> None:
        sides = {
            "frames (num_frame_testing)": (self.frames, self.frame_overlap),
            "height (size_patch_testing)": (self.size[0], self.overlap[0]),
            "width (size_patch_testing)": (self.size[1], self.overlap[1]),
        }
        for name, (size, overlap) in sides.items():
            if size < 0 or overlap < 0 or 0 < size <= overlap:
                raise UserError(
                    f"tile {name}: size {size}, overlap {overlap}; the overlap must be 0 or more and "
                    "smaller than the tile (size 0 = no tiling)"
                )


def starts(length: int, size: int, overlap: int) -> list[int]:
    """Places of the fewest tiles that cover a line, evenly spread, the last one flush with the end.

    Args:
        length: of the line.
        size: of a tile; 0 or more than `length`: one tile.
        overlap: of neighbouring tiles, at least; less than `size`.

    Returns:
        The first index of each tile, ascending.
    """
    if size == 0 or size >= length:
        return [0]
    last = -(-(length - size) // (size - overlap))
    return [round(index * (length - size) / last) for index in range(last + 1)]


def tile_weights(length: int, size: int, overlap: int) -> list[tuple[slice, torch.Tensor]]:
    """Each tile of a line with the weights of its points: linear ramps where tiles overlap; they sum to one.

    Args:
        length: of the line.
        size: of a tile, 0 = the whole line.
        overlap: as in `starts`.

    Returns:
        For each tile its place and its weights, float32.
    """
    first = starts(length, size, overlap)
    size = min(size or length, length)
    ramps = []
    for index, start in enumerate(first):
        rise = first[index - 1] + size - start if index else 0
        fall = start + size - first[index + 1] if index + 1 < len(first) else 0
        position = torch.arange(size, dtype=torch.float64) + 0.5
        ramps.append(torch.minimum(_ramp(position, rise), _ramp(position, fall).flip(0)))
    total = torch.zeros(length, dtype=torch.float64)
    places = [slice(start, start + size) for start in first]
    for place, ramp in zip(places, ramps, strict=True):
        total[place] += ramp
    return [(place, (ramp / total[place]).float()) for place, ramp in zip(places, ramps, strict=True)]


def mirror_index(start: int, stop: int, length: int) -> list[int]:
    """Indices start .. stop - 1 of an axis of `length`, continued by mirroring at its ends: ... 2 1 0 1 2 ..."""
    period = max(2 * (length - 1), 1)
    return [min(index % period, period - index % period) if length > 1 else 0 for index in range(start, stop)]


def restore_tiled(
    restore: Restore, read: Read, length: int, size: tuple[int, int], tile: TileOpt
) -> Iterator[tuple[int, torch.Tensor]]:
    """Restore a clip piece by piece; holds one piece in time, and yields a frame as soon as it is final.

    Args:
        restore: (1, n, C, h, w) -> (1, t, 3, h * s, w * s) of n frames that were read for t restored ones; s >= 1.
        read: (start, stop) -> (n, C, H, W), all that the restored frames [start, stop) are made of.
        length: restored frames of the clip.
        size: H, W of the frames that are read.
        tile: pieces and overlaps, in restored frames and in pixels of what is read.

    Yields:
        Frame index, ascending and without gaps, and the restored frame (3, H * s, W * s) float32 on the CPU.
    """
    windows = tile_weights(length, tile.frames, tile.frame_overlap)
    done, pending = 0, torch.zeros(0)
    for index, (window, weights) in enumerate(windows):
        restored = _restore_in_space(restore, read(window.start, window.stop), size, tile)
        restored *= weights.view(-1, 1, 1, 1)
        if len(pending):
            restored[: len(pending)] += pending
        pending = restored
        final = windows[index + 1][0].start if index + 1 < len(windows) else length
        for frame in range(done, final):
            yield frame, pending[frame - done]
        pending, done = pending[final - done :].clone(), final


def restore_both_ways(restore: Restore) -> Restore:
    """Average of a window restored forwards and restored in reversed time."""

    def both(window: torch.Tensor) -> torch.Tensor:
        return (restore(window) + restore(window.flip(1)).flip(1)) / 2

    return both


def restore_padded(
    restore: Restore, read: Read, length: int, size: tuple[int, int], tile: TileOpt
) -> Iterator[tuple[int, torch.Tensor]]:
    """`restore_tiled` with two mirrored frames before and after the clip, as neighbours of its end frames."""
    pad = min(MIRRORED_FRAMES, length - 1)

    def read_padded(start: int, stop: int) -> torch.Tensor:
        wanted = mirror_index(start - pad, stop - pad, length)
        first = min(wanted)
        return read(first, max(wanted) + 1)[[index - first for index in wanted]]

    for frame, restored in restore_tiled(restore, read_padded, length + 2 * pad, size, tile):
        if pad <= frame < length + pad:
            yield frame - pad, restored


def _ramp(position: torch.Tensor, width: int) -> torch.Tensor:
    return (position / width).clamp(max=1) if width else torch.ones_like(position)


def _restore_in_space(restore: Restore, window: torch.Tensor, size: tuple[int, int], tile: TileOpt) -> torch.Tensor:
    """(n, C, H, W) -> (t, 3, H * s, W * s), tile by tile; the first restored tile says what t and s are."""
    out = torch.zeros(0)
    columns = tile_weights(size[1], tile.size[1], tile.overlap[1])
    for rows, row_weights in tile_weights(size[0], tile.size[0], tile.overlap[0]):
        for cols, col_weights in columns:
            restored = restore(window[None, :, :, rows, cols])[0].float().cpu()
            scale = restored.shape[-1] // len(col_weights)
            if not len(out):
                out = torch.zeros(len(restored), 3, size[0] * scale, size[1] * scale)
            down, across = (weights.repeat_interleave(scale) for weights in (row_weights, col_weights))
            out[:, :, _times(rows, scale), _times(cols, scale)] += restored * (down[:, None] * across)
    return out


def _times(place: slice, scale: int) -> slice:
    return slice(place.start * scale, place.stop * scale)
