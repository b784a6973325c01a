"""Proposes crops, batches and tiles that fit into a given memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import nn

from models.memory.choose_tile import TILE_FRAMES, TILE_SIDES
from models.memory.estimate import CUDA_SHARE, choose_checkpointing, memory_of, set_checkpointing, weight_bytes

CONTEXT = 0.5e9  # bytes of the CUDA context
CROPS = (256, 224, 192, 160, 128, 96, 64)  # pixels of the input
PROBE = (6, 192, 192)  # frames, rows, columns of the measured tile, from which others are scaled


@dataclass(frozen=True)
class TrainingFit:
    """A training setup that fits.

    Attributes:
        policy: key of estimate.POLICIES.
        crop: side in pixels of the input.
        batch: samples at once on one GPU.
        bytes: total memory of a step.
    """

    policy: str
    crop: int
    batch: int
    bytes: float


@dataclass(frozen=True)
class TestingFit:
    """The tile with the least repeated work that fits.

    Attributes:
        frames: frames of a tile.
        side: side of a tile in input pixels.
        useful: share of the work not repeated in overlaps.
        bytes: total memory of a tile.
    """

    frames: int
    side: int
    useful: float
    bytes: float


def state_bytes(net: nn.Module, average: bool) -> int:
    """Weights, the optimizer's two moments and, with `average`, the moving average of the weights."""
    return (1 + average) * weight_bytes(net) + 2 * weight_bytes(net, trained=True)


def propose_training(
    net: nn.Module, shape: Sequence[int], total: float, average: bool, dtype: torch.dtype | None
) -> TrainingFit | None:
    """Choose the largest fitting crop up to the given one, then the least recomputation, then the largest batch.

    Args:
        net: the network.
        shape: (B, D, C, H, W) of the wanted crop; B is ignored.
        total: bytes of the GPU.
        average: whether a moving average of the weights is kept.
        dtype: of autocast, or None.

    Returns:
        The proposal; None if not even one sample of the smallest crop fits.
    """
    fixed = state_bytes(net, average) + CONTEXT
    budget = CUDA_SHARE * total - fixed
    crops = [shape[-1], *(crop for crop in CROPS if crop < shape[-1])]
    for crop in crops:
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
    """The fitting tile that repeats the least work; memory is assumed proportional to the tile's pixels.

    Args:
        net: the network.
        channels: channels of an input frame.
        total: bytes of the GPU.
        overlap: frames and pixels that neighbouring tiles share.
        dtype: of autocast, or None.

    Returns:
        The proposal; None if not even the smallest tile fits.
    """
    fixed = weight_bytes(net) + CONTEXT
    frames, height, width = PROBE
    probe = memory_of(net, (1, frames, channels, height, width), training=False, dtype=dtype)
    pixel = probe.peak / (frames * height * width)
    tiles = [
        TestingFit(d, side, (1 - overlap[0] / d) * (1 - overlap[1] / side) ** 2, fixed + pixel * d * side**2)
        for d, side in product(TILE_FRAMES, TILE_SIDES)
        if overlap[0] < d and overlap[1] < side
    ]
    fitting = [tile for tile in tiles if tile.bytes <= CUDA_SHARE * total]
    return max(fitting, key=lambda tile: (tile.useful, -tile.bytes), default=None)
