"""Test clips and their restored frames."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import cv2
import numpy as np
import torch

from utils.utils_image import to_uint8
from utils.utils_rgbspike import Window
from utils.utils_video import Playback


class Clip(Protocol):
    """A test clip, read lazily. [start, stop) counts restored frames; H and W are those of the input."""

    name: str
    frames: list[str]
    size: tuple[int, int]

    @property
    def playback(self) -> Playback:
        """Frame times and pixel shape, as far as known."""
        ...

    @property
    def has_gt(self) -> bool: ...
    @property
    def has_spike(self) -> bool: ...
    @property
    def planes_in_time(self) -> slice:
        """Spike planes that are consecutive in time within a frame."""
        ...

    def lq(self, start: int, stop: int) -> torch.Tensor:
        """(t, 3, H, W) float32 in [0, 1]."""
        ...

    def gt(self, start: int, stop: int) -> np.ndarray:
        """(t, H * s, W * s, 3) uint8; frames without a sharp one are left out."""
        ...

    def spike(self, start: int, stop: int) -> torch.Tensor:
        """(t, S, h, w) float32 on the sensor's grid; white is 1."""
        ...

    def network_input(self, start: int, stop: int) -> Window:
        """(n, C, H, W) float32, with spikes as an RGBSpike: the input needed to restore the frames."""
        ...

    def references(self, index: int) -> dict[str, np.ndarray]:
        """Images measured alongside the restored frame: metric prefix -> (H, W, 3) uint8.

        "lq_": the input. "sdm_": the training-free estimate from blur and spikes.
        """
        ...


class TestSet(Protocol):
    """A sequence of clips."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Clip: ...


@dataclass(frozen=True)
class Frame:
    """One restored frame, (H * s, W * s, 3) uint8, with its position and metrics (empty without a sharp frame).

    `blurred` and `spikes` are read on first access; access them in a watcher, while the clip still caches them.
    """

    clip: Clip
    index: int
    restored: np.ndarray
    metrics: dict[str, float]
    is_new: bool = True  # False: it was restored earlier
    sharp: np.ndarray | None = None  # (H * s, W * s, 3) uint8, RGB

    @cached_property
    def blurred(self) -> np.ndarray:
        """The input, (H, W, 3) uint8, RGB."""
        return to_uint8(self.clip.lq(self.index, self.index + 1)[0])

    @cached_property
    def spikes(self) -> np.ndarray | None:
        """The middle spike plane, enlarged to a picture, (H, W, 3) uint8; None without spikes."""
        if not self.clip.has_spike:
            return None
        planes = self.clip.spike(self.index, self.index + 1)[0]
        middle = planes[self.clip.planes_in_time][len(planes[self.clip.planes_in_time]) // 2 :][:1]
        picture = to_uint8((middle if len(middle) else planes[:1]).expand(3, -1, -1))
        return cv2.resize(picture, self.clip.size[::-1], interpolation=cv2.INTER_LINEAR)

    @property
    def name(self) -> str:
        return self.clip.frames[self.index]
