"""Cut the stream of a recording into one piece per frame, and fit the frames to the sensor's grid."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np

from data.geometry import Box, size_text, whole_ratio
from data.prepare.exposures import Exposure
from data.spike.planes import steps_per_plane
from options.schema_data import SpikeOpt
from utils.spike_loader import Size
from utils.utils_error import UserError

Span = tuple[int, int]
LOG = logging.getLogger("spikevrt")
STRETCHED = 0.02
SPARE = 8  # steps of a margin beyond what the guide reads at the ends of an exposure


class Cuts(NamedTuple):
    """The pieces of a clip.

    spans: [first, last) of each frame's piece in its stream.
    exposure: [first, last), counted from the start of each piece.
    continuous: the pieces are one stream without gaps.
    """

    spans: list[Span]
    exposure: Span
    continuous: bool

    @property
    def lengths(self) -> list[int]:
        """Steps of each piece."""
        return [last - first for first, last in self.spans]

    @property
    def steps(self) -> int:
        """The most frequent number of steps of a piece."""
        return max(sorted(set(self.lengths)), key=self.lengths.count)

    @property
    def margins(self) -> Span:
        """Steps before and after the exposure that every piece has."""
        return self.exposure[0], min(self.lengths) - self.exposure[1]


def default_margin(length: int) -> int:
    """Return the steps that the guide reads before the first step of an exposure of `length` steps, and some more."""
    planes = SpikeOpt().planes
    return planes * steps_per_plane(planes, (0, length)) // 2 + SPARE


def first_steps(frames: Sequence[str], exposures: Sequence[Exposure], length: int, totals: Sequence[int]) -> list[int]:
    """Return the step at which each frame's exposure of `length` steps starts in its stream of `totals` steps.

    Raises:
        UserError: an exposure leaves its stream by more than the rounding of a step.
    """
    firsts = []
    for frame, (first, last), total in zip(frames, exposures, totals, strict=True):
        start = round((first + last - length) / 2)
        before, after = -start, start + length - total
        if max(before, after) > 1 or length > total:
            where = f"begins {before} steps before" if before > 1 else f"ends {after} steps after"
            raise UserError(
                f"frame {frame}: its exposure, steps {start} to {start + length - 1}, {where} its stream of {total} "
                "steps; check the times, --time-unit, --clock-hz and --stream-start, or leave the frame out with "
                "--range"
            )
        firsts.append(min(max(start, 0), total - length))
    return firsts


def apart(firsts: Sequence[int], length: int, totals: Sequence[int], margin: int) -> Cuts:
    """Cut each exposure with the same margins, at most `margin` steps; the pieces may overlap."""
    before = min([margin, *firsts])
    after = min([margin, *(total - first - length for first, total in zip(firsts, totals, strict=True))])
    spans = [(first - before, first + length + after) for first in firsts]
    return Cuts(spans, (before, before + length), continuous=False)


def joined(firsts: Sequence[int], length: int, total: int, margin: int) -> Cuts | None:
    """Cut a stream into pieces without gaps, from before the first exposure to behind the last.

    Returns:
        None if there is one frame only, or exposures overlap.
    """
    gaps = [following - first - length for first, following in pairwise(firsts)]
    if not gaps or min(gaps) < 0:
        return None
    before = min(margin, firsts[0], min(gaps))
    end = min(total, firsts[-1] + length + margin)
    bounds = [*(first - before for first in firsts), end]
    return Cuts(list(pairwise(bounds)), (before, before + length), continuous=True)


def choose(firsts: Sequence[int], length: int, total: int, margin: int, continuous: bool | None = None) -> Cuts:
    """Cut one stream: without gaps if that takes no more space than separate pieces, unless `continuous` says how.

    Raises:
        UserError: the pieces are to be continuous, but exposures overlap.
    """
    separate, whole = apart(firsts, length, [total] * len(firsts), margin), joined(firsts, length, total, margin)
    if continuous and whole is None:
        raise UserError(
            "--continuous: exposures overlap or there is one frame only, so the pieces are no single stream; add "
            "--no-continuous (and use another --out if the set has continuous clips)"
        )
    if whole is None or continuous is False:
        return separate
    return whole if continuous or sum(whole.lengths) <= sum(separate.lengths) else separate


@dataclass(frozen=True)
class Fit:
    """How frames and spikes of a recording are brought to one field of view.

    crop: the part of a frame that the sensor sees.
    size: (H, W) to which it is resized, `ratio` times the sensor's.
    ratio: RGB pixels per spike pixel.
    sensor: the part of the sensor to keep.
    """

    crop: Box
    size: Size
    ratio: int
    sensor: Box

    def frame(self, rgb: np.ndarray) -> np.ndarray:
        """Crop and resize a frame: (H, W, 3) uint8 of the source -> (ratio * h, ratio * w, 3)."""
        part = rgb[self.crop.rows, self.crop.cols]
        if part.shape[:2] != self.size:
            how = cv2.INTER_AREA if self.size[0] < part.shape[0] else cv2.INTER_CUBIC
            part = cv2.resize(part, self.size[::-1], interpolation=how)
        kept = self.sensor.scaled(self.ratio)
        return np.ascontiguousarray(part[kept.rows, kept.cols])

    def spikes(self, spikes: np.ndarray) -> np.ndarray:
        """Keep a part of spikes (t, H, W)."""
        return np.ascontiguousarray(spikes[:, self.sensor.rows, self.sensor.cols])


def fit(frame: Size, sensor: Size, *, crop: Box | None, resize: int | None, spike_crop: Box | None) -> Fit:
    """Determine how frames fit the sensor's grid.

    Args:
        frame: (H, W) of the frames.
        sensor: (H, W) of the spikes.
        crop: part of the frames; None: all.
        resize: RGB pixels per spike pixel after resizing; None: keep the size.
        spike_crop: part of the sensor; None: all.

    Raises:
        UserError: a part leaves its picture, the ratio is not whole, or a step is not whole bytes.
    """
    seen, kept = crop or Box(0, 0, *frame), spike_crop or Box(0, 0, *sensor)
    for option, box, size in (("--crop", seen, frame), ("--spike-crop", kept, sensor)):
        bottom, right = box.top + box.height, box.left + box.width
        if not (min(box.height, box.width) > 0 and bottom <= size[0] and right <= size[1]):
            raise UserError(
                f"{option}: {box.height}x{box.width} pixels at row {box.top}, column {box.left} leave the "
                f"{size_text(size)}; correct it"
            )
    size = (sensor[0] * resize, sensor[1] * resize) if resize else (seen.height, seen.width)
    stretch = abs(seen.height * size[1] / (seen.width * size[0]) - 1)
    if stretch > STRETCHED:
        LOG.warning(
            "--resize %s stretches the frames by %.0f %%; crop them first to keep their shape", resize, 100 * stretch
        )
    ratio = whole_ratio(size, sensor)
    if not ratio:
        raise UserError(_no_ratio(size, sensor))
    if kept.height * kept.width % 8:
        rest = kept.height % 8
        advice = f"--spike-crop {kept.top + rest // 2} {kept.left} {kept.height - rest} {kept.width}"
        raise UserError(
            f"spikes of {kept.height}x{kept.width}: a step is not whole bytes, expected H*W a multiple of 8; add "
            f"{advice}, which crops spikes and frames alike"
        )
    return Fit(seen, size, ratio, kept)


def _no_ratio(frame: Size, sensor: Size) -> str:
    """Say which --crop and --resize make the ratio whole."""
    down, across = frame[0] / sensor[0], frame[1] / sensor[1]
    ratio = max(1, int(min(down, across)))
    advice = f"--resize {ratio} makes them {sensor[0] * ratio}x{sensor[1] * ratio}"
    if abs(down / across - 1) > 0.01:
        height, width = (round(side * min(down, across)) for side in sensor)
        where = f"{(frame[0] - height) // 2} {(frame[1] - width) // 2} {height} {width}"
        advice += (
            f", but stretches them; to keep their shape, crop first to what the sensor sees, such as --crop {where}"
        )
    return (
        f"frames of {size_text(frame)} over spikes of {size_text(sensor)}: their ratios, {down:.4g} and {across:.4g}, "
        f"are not the same whole number; {advice}"
    )
