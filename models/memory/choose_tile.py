"""Chooses tiles that fit into memory and estimates a test's cost, from one measured probe of the network."""

import logging
import math
from collections import Counter
from collections.abc import Sequence

import torch

from models.memory.machine import FLOAT, CostPerPixel, MemoryBudget, measure, memory_budget
from options.schema_network import NetOpt
from options.schema_train import ValOpt
from utils import utils_dist, utils_eval
from utils.evaluation.clip import TestSet
from utils.tiles.choice import Workload, candidates, largest, points_of, smaller
from utils.utils_dist import Dist
from utils.utils_error import counted
from utils.utils_rgbspike import bytes_of as bytes_of_window
from utils.utils_rgbspike import random_like
from utils.utils_tile import Restore, is_out_of_memory, mirrored_frames
from utils.utils_tile_opt import TileOpt

LOG = logging.getLogger("spikevrt")
PROBE = (6, 96, 96)  # largest frames, rows, columns of the measured tile
CUDA_PROBE = (12, 256, 256)
OUT = 3  # channels of a restored frame


def prepare(
    restore: Restore, dist: Dist, net: NetOpt, test_set: TestSet, val: ValOpt, tile: TileOpt, *, auto: bool
) -> TileOpt:
    """Return the tile to use, the same in every process, and log the estimated cost. All processes must call this.

    It is the requested one or, with `auto`, chosen by the free memory, where lengths other than 0 are upper bounds.
    """
    device = dist.device
    clips = Counter(
        (len(clip.frames) + 2 * mirrored_frames(len(clip.frames)) * val.pad_seq, clip.size)
        for clip in (test_set[index] for index in range(len(test_set)))
    )
    example = test_set[0].network_input(0, 1)

    def restore_shape(x: torch.Tensor) -> torch.Tensor:
        """Restore a random window of the shape of x, (B, n, any, h, w), with spikes if the example has them."""
        return restore(random_like(example, x.shape))

    channels = bytes_of_window(example) / (FLOAT * len(example) * math.prod(test_set[0].size))
    load = Workload(clips, math.ceil(channels), net.extra_frames, net.upscale)
    everywhere = utils_dist.gather_objects(dist, memory_budget(device))
    least = min(one.device for one in everywhere), min(one.host for one in everywhere)
    room = MemoryBudget(*least, everywhere[0].shared)
    if dist.is_main:
        cost = probed(restore_shape, load, tile, device)
        if auto:
            tile = choose(load, tile, cost, room)
            if device.type == "cuda":
                tile = _shrunk_until_it_runs(restore_shape, load, tile)
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


def choose(load: Workload, tile: TileOpt, cost: CostPerPixel, room: MemoryBudget) -> TileOpt:
    """The first of `candidates` that fits into `room`. If none does, the smallest one, with a warning.

    `tile` has the overlaps, and upper bounds of the lengths.
    """
    fitting = first_fitting(load, tile, cost, room)
    if fitting is None:
        fitting = min(candidates(load, tile), key=lambda one: points_of(load, one))
        LOG.warning("memory is short: even the smallest tiles, %s, do not seem to fit; trying them anyway", fitting)
    return fitting


def first_fitting(load: Workload, tile: TileOpt, cost: CostPerPixel, room: MemoryBudget) -> TileOpt | None:
    """The first of `candidates` that fits, or None; arguments as for `choose`."""
    return next((one for one in candidates(load, tile) if room.holds(*bytes_of(load, one, cost))), None)


def bytes_of(load: Workload, tile: TileOpt, cost: CostPerPixel) -> tuple[float, float]:
    """Bytes that the network needs for the largest tile, and bytes of the frames that the host holds around it."""
    around = 0
    for count, (rows, cols) in load.clips:
        held = min(tile.frames or count, count)
        planes = (held + load.extra) * load.channels + 2 * held * OUT * load.upscale**2
        around = max(around, FLOAT * rows * cols * planes)
    return cost.bytes * points_of(load, tile), around


def estimate(
    load: Workload, tile: TileOpt, cost: CostPerPixel, calls: Sequence[int], room: MemoryBudget, device: torch.device
) -> list[str]:
    """Log lines: the amount of work, and estimates of its time and memory; `calls` are evaluations per process."""
    frames = sum(count * number for (count, _), number in load.clips.items())
    sizes = sorted({size for _, size in load.clips})
    shown = " to ".join(f"{height}x{width}" for height, width in dict.fromkeys((sizes[0], sizes[-1])))
    share = f", at most {max(calls):,} in each of {len(calls)} processes" if len(calls) > 1 else ""
    seconds = max(calls) * points_of(load, tile) * cost.seconds
    network, around = bytes_of(load, tile, cost)
    lines = [
        f"{counted(sum(load.clips.values()), 'clip')}, {counted(frames, 'frame')} of {shown}; tiles of {tile}; "
        f"{counted(sum(calls), 'network evaluation')}{share}",
        f"estimate: {_duration(seconds)} on {device}; {network / 2**30:.2f} GiB in the network, {around / 2**30:.2f} "
        f"GiB for frames around it; {room.device / 2**30:.1f} GiB may be used",
    ]
    if not room.holds(network, around):
        lines.append('this may not fit: smaller tiles need less, val.tile="auto" (--tile auto) chooses them')
    return lines


def _shrunk_until_it_runs(restore: Restore, load: Workload, tile: TileOpt) -> TileOpt:
    """The tile, shrunk until the network really runs on it, or the smallest."""
    while True:
        frames, height, width = largest(load.clips, tile)
        try:
            restore(torch.zeros(tile.batch, frames + load.extra, load.channels, height, width))
            return tile
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        torch.cuda.empty_cache()
        less = smaller(load, tile)
        if less is None:
            return tile  # the restoration itself will split its time windows, or report that nothing fits
        tile = less


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
