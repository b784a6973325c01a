"""Tiling in space and time: the only module that cuts, pads and joins clips."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from utils.tiles.axes import axis, mirror_index, space_axes, time_axis, windows_for
from utils.tiles.choice import ShrinkingTile
from utils.utils_rgbspike import Window, grid_of, stacked
from utils.utils_tile_opt import TileOpt

Restore = Callable[[Any], Tensor]  # takes a Window
Read = Callable[[int, int], Any]  # gives a Window
MIRRORED_FRAMES = 2


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

    A frame is the same, bit for bit, in whichever range it is restored. If memory runs out, smaller tiles are used;
    UserError if not even these fit.

    Args:
        restore: (B, n, C, h, w) -> (B, t, 3, h * s, w * s); restores t frames from n input frames; s >= 1.
        read: (start, stop) -> (n, C, H, W), the input needed to restore frames [start, stop): a tensor or an RGBSpike.
        length: number of restored frames of the clip.
        size: (H, W) of the input frames.
        tile: tiles and overlaps, in restored frames and input pixels.
        frames: range [first, stop) to restore; None: all. Only the time windows needed for it are read.

    Yields:
        Frame index, ascending and without gaps, and the restored frame (3, H * s, W * s) float32 on the CPU.
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

    def read_padded(start: int, stop: int) -> Any:
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

    def padded(window: Window) -> Tensor:
        _, frames, _, height, width = window.shape
        extended = window
        for dim, size, multiple in wanted:
            length = extended.shape[dim]
            multiple = grid_of(window, multiple) if dim >= 3 else multiple
            if size == 0 and length % multiple:
                indices = torch.arange(-(-length // multiple) * multiple) % (2 * length)
                extended = extended.index_select(dim, torch.minimum(indices, 2 * length - 1 - indices))
        out = restore(extended)
        scale = out.shape[-1] // extended.shape[-1]
        wanted_frames = out.shape[1] - (extended.shape[1] - frames)  # the network may return fewer frames than it reads
        return out[:, :wanted_frames, :, : height * scale, : width * scale]

    return padded


def _restore_window(
    restore: Restore, window: Window, count: int, size: tuple[int, int], shrinking: ShrinkingTile
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


def _restore_in_time(restore: Restore, window: Window, size: tuple[int, int], shrinking: ShrinkingTile) -> Tensor:
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


def _restore_in_space(restore: Restore, window: Window, size: tuple[int, int], tile: TileOpt) -> Tensor:
    """(n, C, H, W) -> (t, 3, H * s, W * s), `tile.batch` tiles per call; the first result determines t and s."""
    rows, cols = space_axes(size, tile, grid_of(window, tile.grid))
    places = [(row, col) for row in range(len(rows.starts)) for col in range(len(cols.starts))]
    out = torch.zeros(0)
    for at in range(0, len(places), tile.batch):
        batch = places[at : at + tile.batch]
        if len(places) == 1:
            return restore(window[None])[0].float().cpu()
        restored = restore(stacked([window[..., rows.place(row), cols.place(col)] for row, col in batch]))
        restored = restored.float().cpu()
        scale = restored.shape[-1] // cols.side
        if not len(out):
            down, across = rows.weights(scale), cols.weights(scale)
            out = torch.zeros(restored.shape[1], 3, size[0] * scale, size[1] * scale)
        for (row, col), piece in zip(batch, restored, strict=True):
            weights = down[row][:, None] * across[col]
            out[:, :, rows.place(row, scale), cols.place(col, scale)] += piece * weights
    return out
