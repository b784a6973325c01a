"""Chooses tiles that fit into memory and estimates a test's cost, from one measured probe of the network."""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import torch

from models.memory.machine import FLOAT, CostPerPixel, MemoryBudget, measure, memory_budget
from models.model_vrt import ModelVRT
from options.schema_network import NetOpt
from options.schema_train import ValOpt
from utils import utils_dist, utils_eval
from utils.evaluation.clip import TestSet
from utils.utils_tile import Restore, calls_for, is_out_of_memory, mirrored_frames
from utils.utils_tile_opt import TileOpt

LOG = logging.getLogger("spikevrt")
TILE_FRAMES = (6, 12, 18, 24, 32, 40)
TILE_SIDES = tuple(range(64, 1025, 32))
PROBE = (6, 96, 96)  # largest frames, rows, columns of the measured tile
CUDA_PROBE = (12, 256, 256)
OUT = 3  # channels of a restored frame


class Workload(NamedTuple):
    """What to restore.

    Attributes:
        clips: number of clips of each (frames, (H, W)).
        channels: channels of an input frame.
        extra: frames that a tile reads beyond those that it restores.
        upscale: output size over input size.
    """

    clips: Counter[tuple[int, tuple[int, int]]]
    channels: int
    extra: int = 0
    upscale: int = 1


def prepare(job: ModelVRT, net: NetOpt, test_set: TestSet, val: ValOpt, tile: TileOpt, *, auto: bool) -> TileOpt:
    """Choose the tile if `auto`, and log the estimated cost. All processes must call this.

    Args:
        job: the model.
        net: options of its network.
        test_set: the clips.
        val: the options.
        tile: the requested tile; with `auto`, its lengths other than 0 are upper bounds.
        auto: choose the tile by the free memory.

    Returns:
        The tile to use, the same in every process.
    """
    dist, device = job.dist, job.dist.device
    clips = Counter(
        (len(clip.frames) + 2 * mirrored_frames(len(clip.frames)) * val.pad_seq, clip.size)
        for clip in (test_set[index] for index in range(len(test_set)))
    )
    load = Workload(clips, net.in_chans + net.nonblind_denoising, net.extra_frames, net.upscale)
    everywhere = utils_dist.gather_objects(dist, memory_budget(device))
    room = MemoryBudget(
        min(one.device for one in everywhere), min(one.host for one in everywhere), everywhere[0].shared
    )
    if dist.is_main:
        cost = probed(job.restore, load, tile, device)
        if auto:
            tile = choose(load, tile, cost, room)
            if device.type == "cuda":
                tile = _shrunk_until_it_runs(job.restore, load, tile)
        calls = utils_eval.calls(test_set, val, tile, dist.world_size)
        for line in estimate(load, tile, cost, calls, room, device):
            LOG.info(line)
    return utils_dist.gather_objects(dist, tile)[0]


def probed(restore: Restore, load: Workload, tile: TileOpt, device: torch.device) -> CostPerPixel:
    """Cost of a tile, measured on a small one, or on a GPU on a larger one if it fits."""
    asked = largest(load.clips, tile)
    for limits in (CUDA_PROBE, PROBE) if device.type == "cuda" else (PROBE,):
        frames, height, width = (min(pair) for pair in zip(asked, limits, strict=True))
        try:
            return measure(restore, (1, frames + load.extra, load.channels, height, width), device)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        torch.cuda.empty_cache()
    return CostPerPixel(0, 0)  # the restoration itself will shrink its tiles, or report that none fits


def largest(clips: Iterable[tuple[int, tuple[int, int]]], tile: TileOpt) -> tuple[int, int, int]:
    """Frames, rows and columns of the largest tile."""
    sides = [
        [min(side or length, length) for side, length in zip((tile.frames, *tile.size), (count, *size), strict=True)]
        for count, size in clips
    ]
    frames, height, width = max(sides, key=math.prod)
    return frames, height, width


def choose(load: Workload, tile: TileOpt, cost: CostPerPixel, room: MemoryBudget) -> TileOpt:
    """The fitting tile with the least total work; among ties the largest, which has the fewest seams.

    If none fits, the smallest one, with a warning.

    Args:
        load: what to restore.
        tile: overlaps, and upper bounds of the lengths.
        cost: measured cost.
        room: memory that may be used.
    """
    most = [max(lengths) for lengths in zip(*((count, *size) for count, size in load.clips), strict=True)]
    bounds = [min(side or length, length) for side, length in zip((tile.frames, *tile.size), most, strict=True)]
    frame_counts = [n for n in TILE_FRAMES if n < bounds[0]] + [min(bounds[0], TILE_FRAMES[-1])]
    overlaps = (tile.frame_overlap, *tile.overlap)
    candidates = []
    for frames, side in product(frame_counts, (*TILE_SIDES, max(bounds[1:]))):
        lengths = (frames, min(side, bounds[1]), min(side, bounds[2]))
        if any(a <= b and a < whole for a, b, whole in zip(lengths, overlaps, most, strict=True)):
            continue
        shared = [min(pair) for pair in zip(overlaps, (length - 1 for length in lengths), strict=True)]
        fitting = replace(
            tile, frames=frames, size=lengths[1:], frame_overlap=shared[0], overlap=(shared[1], shared[2])
        )
        candidates.append((bytes_of(load, fitting, cost), fitting))
    fits = [(work_of(load, one), -sum(need), one) for need, one in candidates if room.holds(*need)]
    if fits:
        return min(fits, key=lambda one: one[:2])[2]
    smallest = min(candidates, key=lambda one: sum(one[0]), default=(None, tile))[1]
    LOG.warning("memory is short: even the smallest tiles, %s, do not seem to fit; trying them anyway", smallest)
    return smallest


def bytes_of(load: Workload, tile: TileOpt, cost: CostPerPixel) -> tuple[float, float]:
    """Bytes that the network needs for the largest tile, and bytes of the frames that the host holds around it."""
    frames, height, width = largest(load.clips, tile)
    network = cost.bytes * tile.batch * (frames + load.extra) * height * width
    around = 0
    for count, (rows, cols) in load.clips:
        held = min(tile.frames or count, count)
        planes = (held + load.extra) * load.channels + 2 * held * OUT * load.upscale**2
        around = max(around, FLOAT * rows * cols * planes)
    return network, around


def work_of(load: Workload, tile: TileOpt) -> float:
    """Pixels of all frames that go through the network, repeated ones included."""
    one = replace(tile, batch=1)
    total = 0.0
    for (count, size), number in load.clips.items():
        frames, height, width = largest([(count, size)], tile)
        total += number * calls_for(count, size, one) * (frames + load.extra) * height * width
    return total


def estimate(
    load: Workload, tile: TileOpt, cost: CostPerPixel, calls: Sequence[int], room: MemoryBudget, device: torch.device
) -> list[str]:
    """Log lines: the amount of work, and estimates of its time and memory.

    Args:
        load: what to restore.
        tile: the tile in use.
        cost: measured cost.
        calls: network evaluations per process.
        room: memory that may be used.
        device: device of the network.
    """
    frames = sum(count * number for (count, _), number in load.clips.items())
    sizes = sorted({size for _, size in load.clips})
    shown = " to ".join(f"{height}x{width}" for height, width in dict.fromkeys((sizes[0], sizes[-1])))
    share = f", at most {max(calls):,} in each of {len(calls)} processes" if len(calls) > 1 else ""
    count, height, width = largest(load.clips, tile)
    seconds = max(calls) * tile.batch * (count + load.extra) * height * width * cost.seconds
    network, around = bytes_of(load, tile, cost)
    lines = [
        f"{sum(load.clips.values())} clip(s), {frames} frames of {shown}; tiles of {tile}; {sum(calls):,} network "
        f"evaluations{share}",
        f"estimate: {_duration(seconds)} on {device}; {network / 2**30:.2f} GiB in the network, {around / 2**30:.2f} "
        f"GiB for frames around it; {room.device / 2**30:.1f} GiB may be used",
    ]
    if not room.holds(network, around):
        lines.append('this may not fit: smaller tiles need less, val.tile="auto" (--tile auto) chooses them')
    return lines


def _shrunk_until_it_runs(restore: Restore, load: Workload, tile: TileOpt) -> TileOpt:
    """The tile, shrunk until the network really runs on it."""
    while True:
        frames, height, width = largest(load.clips, tile)
        try:
            restore(torch.zeros(1, frames + load.extra, load.channels, height, width))
            return tile
        except RuntimeError as error:
            if not is_out_of_memory(error) or max(height, width) <= TILE_SIDES[0]:
                raise
        torch.cuda.empty_cache()
        side = max(int(max(height, width) * 0.85) // 8 * 8, TILE_SIDES[0])
        size = (min(height, side), min(width, side))
        tile = replace(
            tile, size=size, overlap=(min(tile.overlap[0], size[0] // 2), min(tile.overlap[1], size[1] // 2))
        )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
