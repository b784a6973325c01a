"""Random crops and flips, drawn once per sample and applied to all of its parts."""

from dataclasses import dataclass

import numpy as np
import torch

from data.geometry import Box


def draw_box(rng: np.random.Generator, size: tuple[int, int], side: int, step: int) -> Box:
    """Draw a square inside an image of `size` (H, W), with its corner on a multiple of `step`; all in pixels."""
    top, left = (int(rng.integers((length - side) // step + 1)) * step for length in size)
    return Box(top, left, side, side)


@dataclass(frozen=True)
class Flips:
    """Augmentation of a sample: `hflip`, `vflip`, then `transpose` in space; `reverse` in time."""

    hflip: bool
    vflip: bool
    transpose: bool
    reverse: bool

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """Flip and transpose a tensor (..., H, W) in space; time is reversed on reading."""
        if self.hflip:
            x = x.flip(-1)
        if self.vflip:
            x = x.flip(-2)
        if self.transpose:
            x = x.transpose(-2, -1)
        return x.contiguous()


def draw_flips(rng: np.random.Generator, *, use_hflip: bool, use_rot: bool, random_reverse: bool) -> Flips:
    """Draw each allowed flip with probability 1/2; `use_rot` allows vertical flip and transposition."""
    hflip, vflip, transpose, reverse = (bool(coin) for coin in rng.integers(2, size=4))
    return Flips(use_hflip and hflip, use_rot and vflip, use_rot and transpose, random_reverse and reverse)
