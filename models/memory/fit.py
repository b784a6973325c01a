"""Proposes crops, batches and tiles that fit into a given memory."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from models.memory.choose_tile import CUDA_PROBE, first_fitting
from models.memory.estimate import choose_checkpointing, memory_of, set_checkpointing, weight_bytes
from models.memory.machine import CUDA_SHARE, CostPerPixel, MemoryBudget
from utils.tiles.choice import Workload, points_of, work_of
from utils.utils_tile_opt import TileOpt

CONTEXT = 0.5e9  # bytes of the CUDA context
CROPS = (256, 224, 192, 160, 128, 96, 64)  # pixels of the input
CLIP = (1000, (4096, 4096))  # frames and size of the clip whose work is compared


@dataclass(frozen=True)
class TrainingFit:
    """A training setup that fits."""

    policy: str  # key of estimate.POLICIES
    crop: int  # side in pixels of the input
    batch: int  # samples at once on one GPU
    bytes: float  # total memory of a step


@dataclass(frozen=True)
class TestingFit:
    """The tile with the least repeated work that fits."""

    frames: int
    side: int  # in input pixels
    useful: float  # share of the work not repeated in overlaps
    bytes: float  # total memory of a tile


def state_bytes(net: nn.Module, average: bool) -> int:
    """Weights, the optimizer's two moments and, with `average`, the moving average of the weights."""
    return (1 + average) * weight_bytes(net) + 2 * weight_bytes(net, trained=True)


def propose_training(
    net: nn.Module, shape: Sequence[int], total: float, average: bool, dtype: torch.dtype | None
) -> TrainingFit | None:
    """Choose the largest fitting crop up to the given one, then the least recomputation, then the largest batch.

    `shape` is (B, D, C, H, W) of the wanted crop, B ignored, and `total` the GPU's bytes; `average`: a moving average
    of the weights is kept. None if not even one sample of the smallest crop fits.
    """
    fixed = state_bytes(net, average) + CONTEXT
    budget = CUDA_SHARE * total - fixed
    for crop in (shape[-1], *(crop for crop in CROPS if crop < shape[-1])):
        sample = (1, *shape[1:3], crop, crop)
        set_checkpointing(net, "all")
        if memory_of(net, sample, training=True, dtype=dtype).peak > budget:
            continue
        policy, memory = choose_checkpointing(net, sample, budget, dtype)
        batch = int(budget // memory.peak)
        return TrainingFit(policy, crop, batch, fixed + batch * memory.peak)
    return None


def propose_tile(
    net: nn.Module, channels: int, total: float, overlap: tuple[int, int], dtype: torch.dtype | None
) -> TestingFit | None:
    """The first fitting one of the candidate tiles, or None; memory is assumed proportional to the tile's pixels.

    `channels` are those of an input frame, `total` the GPU's bytes, `overlap` frames and pixels shared by neighbours.
    """
    fixed = weight_bytes(net) + CONTEXT
    frames, height, width = CUDA_PROBE
    probe = memory_of(net, (1, frames, channels, height, width), training=False, dtype=dtype)
    cost = CostPerPixel(0, probe.peak / math.prod(CUDA_PROBE))
    load, asked = Workload(Counter([CLIP]), channels), TileOpt(0, overlap[0], (0, 0), (overlap[1], overlap[1]))
    tile = first_fitting(load, asked, cost, MemoryBudget(CUDA_SHARE * total - fixed, math.inf, shared=False))
    if tile is None:
        return None
    useful = CLIP[0] * math.prod(CLIP[1]) / work_of(load, tile)
    return TestingFit(tile.frames, tile.size[0], useful, fixed + cost.bytes * points_of(load, tile))
