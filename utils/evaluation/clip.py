"""What the evaluation works on: test clips, and their frames once restored."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch

from utils.utils_image import to_uint8
from utils.utils_video import Playback


class Clip(Protocol):
    """A test clip that is read when asked; frames are [start, stop) of those to restore, H and W those of the input."""

    name: str
    frames: list[str]
    size: tuple[int, int]

    @property
    def playback(self) -> Playback:
        """How its frames are shown, as far as is known."""
        ...

    @property
    def has_gt(self) -> bool: ...
    @property
    def has_spike(self) -> bool: ...
    @property
    def planes_in_time(self) -> slice:
        """The channels of the network's input that follow each other in time within a frame."""
        ...

    def lq(self, start: int, stop: int) -> torch.Tensor:
        """(t, 3, H, W) float32 in [0, 1]."""
        ...

    def gt(self, start: int, stop: int) -> np.ndarray:
        """(t, H * s, W * s, 3) uint8; a frame that has no sharp one is left out."""
        ...

    def spike(self, start: int, stop: int) -> torch.Tensor:
        """(t, S, H, W) float32 in [0, 1]."""
        ...

    def network_input(self, start: int, stop: int) -> torch.Tensor:
        """(n, C, H, W) float32: all that the restored frames are made of."""
        ...

    def references(self, index: int) -> dict[str, np.ndarray]:
        """Prefix of its metrics -> (H, W, 3) uint8: what is measured beside the restored frame.

        "lq_": the input; "sdm_": the estimate from blur and spikes without any training.
        """
        ...


class TestSet(Protocol):
    """A sequence of clips."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Clip: ...


@dataclass(frozen=True)
class Frame:
    """One restored frame, (H * s, W * s, 3) uint8, with its place and its metrics (none where nothing was scored).

    What it was made of is read at the first question, and again only if its clip has forgotten it: ask while watching.
    """

    clip: Clip
    index: int
    restored: np.ndarray
    metrics: dict[str, float]
    is_new: bool = True  # False: it was there already
    sharp: np.ndarray | None = None  # (H * s, W * s, 3) uint8, RGB

    @cached_property
    def blurred(self) -> np.ndarray:
        """The input, (H, W, 3) uint8, RGB."""
        return to_uint8(self.clip.lq(self.index, self.index + 1)[0])

    @cached_property
    def spikes(self) -> np.ndarray | None:
        """The first spike plane as a picture, (H, W, 3) uint8; None without spikes."""
        if not self.clip.has_spike:
            return None
        plane = self.clip.spike(self.index, self.index + 1)[0, :1]
        return to_uint8(plane.expand(3, -1, -1))

    @property
    def name(self) -> str:
        return self.clip.frames[self.index]
