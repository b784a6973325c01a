"""Read what a fit of geometry and time compares: blurred frames, and the spikes in and around their exposures."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from data.frame_store import FrameStore
from data.spike.planes import Span
from data.spike.reader import SpikeReader, clip_timing
from utils.spike_loader import Size
from utils.utils_colour import LIGHT, to_gray

MOST_PIXELS = 100_000  # of the grid that is compared; larger sensors are averaged down


class Footage(NamedTuple):
    """What a fit compares, for F frames of one clip.

    gray: (F, h, w) float32, blurred frames at the grid of the spikes, in the light that the sensor integrates.
    counts: (F, h, w) float32, spikes of the exposure.
    before, after: (F, 2 N + 1, h, w), spikes of the N steps to either side of the exposure's begin and end, added up
        from the first.
    length: steps of the exposure.
    reach: (lowest, highest) offset in steps that all frames have, within -N and N.
    shrink: sensor pixels per pixel of the grid, along each axis.
    """

    gray: np.ndarray
    counts: np.ndarray
    before: np.ndarray
    after: np.ndarray
    length: int
    reach: Span
    shrink: int = 1

    def rates(self, begin: float, end: float) -> np.ndarray:
        """Return mean rates over the exposure with its begin and end moved by steps, (F, h, w) float32."""
        n = self.before.shape[1] // 2
        added = _at(self.after, n + end) - _at(self.after, n)
        taken = _at(self.before, n + begin) - _at(self.before, n)
        return (self.counts + added - taken) / np.float32(self.length + end - begin)


def footage_of(gray: Sequence[np.ndarray], spikes: Sequence[np.ndarray], exposure: Span, reach: Span) -> Footage:
    """Make footage of arrays.

    Args:
        gray: (h, w) float32 of each frame, see Footage.
        spikes: (T, h, w) uint8, 0 or 1, of each frame.
        exposure: [first, last) among these steps.
        reach: by how many steps the exposure can be moved within them, (lowest, highest).
    """
    shrink = int(np.ceil(np.sqrt(gray[0].size / MOST_PIXELS)))
    found = [_sums(each, exposure, max(-reach[0], reach[1]), shrink) for each in spikes]
    counts, before, after = (np.stack(part) for part in zip(*found, strict=True))
    small = np.stack([_cells(picture[None], shrink)[0].mean(axis=(1, 3)) for picture in gray])
    return Footage(small, counts.astype(np.float32), before, after, exposure[1] - exposure[0], reach, shrink)


def read_footage(reader: SpikeReader, lq: FrameStore, clip: str, frames: Sequence[str], most: int) -> Footage:
    """Read footage of a clip's frames, as if the manifest had no alignment.

    Args:
        reader: the spikes.
        lq: the blurred frames.
        clip: clip name.
        frames: names of F frames.
        most: most steps of an offset.
    """
    exposure, size = clip_timing(reader.manifest, clip).exposure, reader.sensor_of(clip).size
    rooms = [reader.room(clip, frame, exposure, most) for frame in frames]
    reach = max(low for low, _ in rooms), min(high for _, high in rooms)
    around = exposure[0] + reach[0], exposure[1] + reach[1]
    inner = -reach[0], exposure[1] - exposure[0] - reach[0]
    gray = [gray_of(lq.read(clip, frame), size, is_linear=reader.is_linear) for frame in frames]
    return footage_of(gray, [reader.read(clip, frame, around) for frame in frames], inner, reach)


def with_room(reader: SpikeReader, clip: str, frames: Sequence[str], most: int, count: int) -> list[str]:
    """Choose frames evenly, those whose exposure can be moved by `most` steps first."""
    exposure = clip_timing(reader.manifest, clip).exposure
    free = [frame for frame in frames if reader.room(clip, frame, exposure, most) == (-most, most)]
    chosen = free if len(free) >= max(min(count, len(frames) - 2), 1) else list(frames)
    places = np.linspace(0, len(chosen) - 1, min(count, len(chosen))).round().astype(int)
    return [chosen[place] for place in places]


def gray_of(blurred: np.ndarray, size: Size, *, is_linear: bool) -> np.ndarray:
    """Return a blurred frame, (H, W, 3) uint8 RGB, as a sensor of (h, w) pixels integrates it, float32."""
    light = cv2.LUT(blurred, LIGHT) if is_linear else blurred.astype(np.float32) / 255
    return np.asarray(cv2.resize(to_gray(light), size[::-1], interpolation=cv2.INTER_AREA))


def _sums(spikes: np.ndarray, exposure: Span, n: int, shrink: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the spikes of the exposure, and those around its begin and end as Footage has them."""
    small = spikes if shrink == 1 else _cells(spikes, shrink).sum(axis=(2, 4), dtype=np.uint8)

    def around(at: int) -> np.ndarray:
        low, high = max(at - n, 0), min(at + n, len(spikes))
        added = np.cumsum(small[low:high], axis=0, dtype=np.uint16)
        lead, tail = 1 + low - (at - n), at + n - high  # sums beyond what was read are never asked for
        return np.pad(added, ((lead, tail), (0, 0), (0, 0)))

    first, last = exposure
    return small[first:last].sum(axis=0, dtype=np.uint32), around(first), around(last)


def _cells(pictures: np.ndarray, shrink: int) -> np.ndarray:
    """Return the squares of `shrink` pixels that pictures (T, H, W) consist of: (T, h, shrink, w, shrink)."""
    height, width = (length // shrink for length in pictures.shape[1:])
    whole = pictures[:, : height * shrink, : width * shrink]
    return whole.reshape(len(pictures), height, shrink, width, shrink)


def _at(added: np.ndarray, position: float) -> np.ndarray:
    """Interpolate sums between two steps, (F, h, w) float32."""
    last = added.shape[1] - 1
    low = min(max(int(np.floor(position)), 0), last)
    part = np.float32(min(position, last) - low)
    first = added[:, low].astype(np.float32)
    return first if part <= 0 else first + part * (added[:, low + 1].astype(np.float32) - first)
