"""The tiles to try, in order: for the choice before a run, for a proposal, and after running out of memory."""

import logging
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from typing import NamedTuple

from utils.tiles.axes import calls_for
from utils.utils_error import UserError
from utils.utils_tile_opt import TileOpt

LOG = logging.getLogger("spikevrt")
TILE_FRAMES = (2, 6, 12, 18, 24, 32, 40)  # lengths of candidate tiles, beside the whole clip's and frame's
TILE_SIDES = tuple(range(64, 1025, 32))
LESS = 0.75  # most pixels of the tile after one that did not fit, as a share of that one's


class Workload(NamedTuple):
    """What to restore."""

    clips: Counter[tuple[int, tuple[int, int]]]  # number of clips of each (frames, (H, W))
    channels: int  # of an input frame
    extra: int = 0  # frames that a tile reads beyond those that it restores
    upscale: int = 1  # output size over input size


def largest(clips: Iterable[tuple[int, tuple[int, int]]], tile: TileOpt) -> tuple[int, int, int]:
    """Frames, rows and columns of the largest tile."""
    sides = [
        [min(side or length, length) for side, length in zip((tile.frames, *tile.size), (count, *size), strict=True)]
        for count, size in clips
    ]
    frames, height, width = max(sides, key=math.prod)
    return frames, height, width


def points_of(load: Workload, tile: TileOpt) -> int:
    """Pixels of all frames that go through the network at once; its memory is proportional to them."""
    frames, height, width = largest(load.clips, tile)
    return tile.batch * (frames + load.extra) * height * width


def work_of(load: Workload, tile: TileOpt) -> int:
    """Pixels of all frames that go through the network, repeated ones included."""
    one = replace(tile, batch=1)
    return sum(
        number * calls_for(count, size, one) * points_of(load._replace(clips=Counter({(count, size): 1})), one)
        for (count, size), number in load.clips.items()
    )


def candidates(load: Workload, tile: TileOpt, keep_frames: bool = False) -> list[TileOpt]:
    """The tiles to try, in order: the least work first; among ties the largest, which has the fewest seams.

    `tile` gives the overlaps and the upper bounds of the lengths; an overlap shrinks to at most half of a shorter
    tile's side. With `keep_frames`, only tiles with as many frames as `tile`.
    """
    most = [max(lengths) for lengths in zip(*((count, *size) for count, size in load.clips), strict=True)]
    bounds = [min(side or length, length) for side, length in zip((tile.frames, *tile.size), most, strict=True)]
    frame_counts = [bounds[0]]
    if not keep_frames:
        frame_counts = [n for n in TILE_FRAMES if tile.frame_overlap < n < bounds[0]]
        frame_counts.append(min(bounds[0], TILE_FRAMES[-1]))
    sides = [side for side in TILE_SIDES if side < max(bounds[1:])] + [max(bounds[1:])]
    found = []
    for frames, longest in product(frame_counts, sides):
        height, width = (min(longest, bound) for bound in bounds[1:])
        rows, cols = (
            min(overlap, side // 2 if side < bound else side - 1)
            for overlap, side, bound in zip(tile.overlap, (height, width), bounds[1:], strict=True)
        )
        shared = min(tile.frame_overlap, frames - 1)
        found.append(replace(tile, frames=frames, size=(height, width), frame_overlap=shared, overlap=(rows, cols)))
    return sorted(found, key=lambda one: (work_of(load, one), -points_of(load, one)))


def smaller(load: Workload, tile: TileOpt, keep_frames: bool = False) -> TileOpt | None:
    """What to try after `tile` did not fit: fewer at once, then the first clearly smaller candidate; None: nothing."""
    if tile.batch > 1:
        return replace(tile, batch=tile.batch // 2)
    limit = LESS * points_of(load, tile)
    return next((one for one in candidates(load, tile, keep_frames) if points_of(load, one) <= limit), None)


class ShrinkingTile:
    """The tile in use: the requested one, or a smaller one for good once memory has run out."""

    def __init__(self, tile: TileOpt) -> None:
        self.tile = tile
        self.frames = 0  # frames of a time window restored at once; 0: all

    def shrink(self, frames: int, size: tuple[int, int], splittable: bool) -> None:
        """Choose a smaller tile after `frames` frames of size (H, W) did not fit; UserError if there is none."""
        load, before = Workload(Counter({(frames, size): 1}), 0), self.tile
        failed = replace(before, frames=min(self.frames or frames, frames), frame_overlap=0)
        less = smaller(load, failed, keep_frames=True)  # frames last: a network restores few frames less well
        if less is None and splittable:
            less = smaller(load, failed)
        inner, height, width = largest(load.clips, failed)
        if less is None:
            raise UserError(
                f"out of memory: even {inner} frames of {height}x{width} pixels do not fit; free memory, or use a "
                "smaller network or a larger machine"
            )
        self.tile = replace(before, batch=less.batch)
        if largest(load.clips, less)[1:] != (height, width):
            self.tile = replace(self.tile, size=less.size, overlap=less.overlap)
        if less.frames < inner:
            self.frames = less.frames
        now = f"{self.frames} frames at once, " if self.frames else ""
        # Logged as an error because ranks other than 0 hide lower levels.
        LOG.error("out of memory with tiles of %s; continuing with %s%s", before, now, self.tile)
