"""Spikes fired anew for each training sample: other thresholds, fixed patterns, noise and small misalignments.

A pixel's charge grows from a random one, in units of its threshold, and by the end of a step it has fired floor(charge)
times. With stored light a step adds min(gain * light / theta + dark, 1): what exceeds the threshold is lost. With
recorded spikes it adds gain / m for each, which keeps every m-th one: exactly a threshold m times as high.
"""

import math
import zlib
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from data.geometry import Box
from data.spike.alignment import IDENTITY, Warp, displaced, warp_of
from data.spike.frame_planes import FramePlanes
from data.spike.planes import Span
from data.spike.source import SpikeSource, picture_gain
from data.spike.subframes import SubFrames
from options.schema_augment import AugmentOpt
from utils.utils_colour import LIGHT
from utils.utils_error import UserError

LEVELS = np.arange(256, dtype=np.float32) / np.float32(255)
NORMAL = np.array([NormalDist().inv_cdf((k + 0.5) / 32) for k in range(32)])  # equally likely values
HOT_DARK = (0.03, 0.1)  # spikes per step that a hot pixel adds
DARKEST = 1e-3  # spikes per step of a white pixel, where all are dead
EARLIER = 8  # steps before the first one that jitter looks back to
MOST_APART = 2.0  # spike pixels between two cameras, before they are aligned
LOWER = 0.9  # of the recorded threshold; smaller ones cannot be had from recorded spikes


@dataclass(frozen=True)
class Draw:
    """What one sample's sensor is like; all its frames share it.

    shift: (down, right) in spike pixels: each one sees what lies that far from its place in the frame.
    steps_late: spike steps by which the stream is late; 0 for frames at whose end of the stream steps are missing.
    apart: like `shift`, but known: planes are moved back, so spikes are interpolated; None: they are not.
    """

    theta: float | None = None  # threshold, in white pixels x steps; None: that of the set
    pattern: float = 0.0  # standard deviation of the pixels' gains
    dark: float = 0.0  # spikes per step without light
    jitter: float = 0.0  # standard deviation of each step's threshold, as a share of it
    hot: float = 0.0  # share of hot pixels
    dead: float = 0.0  # share of pixels that never fire
    shift: tuple[float, float] = (0.0, 0.0)
    steps_late: int = 0
    is_dropped: bool = False  # there are no spikes at all
    seed: int = 0  # of the pixels and, with a frame's name, of its first charge and its noise
    apart: tuple[float, float] | None = None


def draw_sensor(rng: np.random.Generator, opt: AugmentOpt) -> Draw:
    """Draw a sample's sensor from the ranges of the options; thresholds are log-uniform."""
    low, high = opt.theta
    theta = float(np.exp(rng.uniform(np.log(low), np.log(high)))) if high else None
    pattern, dark, jitter = (rng.uniform(*limits) for limits in (opt.pattern, opt.dark, opt.jitter))
    hot, dead = rng.uniform(*opt.hot), rng.uniform(*opt.dead)
    length, angle = _often_small(rng, opt.shift), rng.uniform(0, 2 * np.pi)
    late = round(_often_small(rng, opt.time_shift)) * int(rng.choice((-1, 1)))
    dropped = rng.random() < opt.drop_spikes
    seed = int(rng.integers(2**31))
    shift = (float(length * np.sin(angle)), float(length * np.cos(angle)))
    apart = None
    if opt.aligned and rng.random() < opt.aligned:
        down, right = rng.uniform(-MOST_APART, MOST_APART, 2)
        apart = (float(down), float(right))
    return Draw(theta, pattern, dark, jitter, hot, dead, shift, late, bool(dropped), seed, apart)


def _often_small(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    """Draw from a range, half of the time from its lowest quarter."""
    low, high = limits
    return float(low + (high - low) * rng.random() ** 2)


class Sensor(NamedTuple):
    """The pixels of a crop: gain (h, w) and dark rate (h, w), float32."""

    gain: np.ndarray
    dark: np.ndarray


def draw_pixels(rng: np.random.Generator, draw: Draw, shape: tuple[int, int]) -> Sensor:
    """Draw the pixels of a sample's crop."""
    gain = np.ones(shape, np.float32)
    if draw.pattern:
        gain = np.maximum(1 + np.float32(draw.pattern) * rng.standard_normal(shape, np.float32), 0)
    dark = np.full(shape, draw.dark, np.float32)
    if draw.pattern and draw.dark:
        dark *= np.abs(1 + 0.4 * rng.standard_normal(shape, np.float32))
    if draw.hot:
        hot = rng.random(shape) < draw.hot
        dark[hot] += rng.uniform(*HOT_DARK, int(hot.sum())).astype(np.float32)
    if draw.dead:
        dead = rng.random(shape) < draw.dead
        gain, dark = np.where(dead, np.float32(0), gain), np.where(dead, np.float32(0), dark)
    return Sensor(gain, dark)


def accumulated(function: np.ufunc, array: np.ndarray) -> np.ndarray:
    """Do `function.accumulate(array, axis=0, out=array)` in a third of its time."""
    for before, now in pairwise(array):
        function(before, now, out=now)
    return array


def charge_of_light(added: np.ndarray, sensor: Sensor) -> np.ndarray:
    """Return the charge after each step, (T, h, w) float32, from what each adds in a mean pixel, in units of its
    threshold; in any pixel it adds at most one threshold."""
    charge = added * sensor.gain
    charge += sensor.dark
    np.minimum(charge, 1, out=charge)
    return accumulated(np.add, charge)


def charge_of_spikes(spikes: np.ndarray, every: int, sensor: Sensor) -> np.ndarray:
    """Return the charge after each step, (T, h, w) float32, if it takes `every` recorded spikes to fire."""
    charge = accumulated(np.add, spikes.astype(np.float32))
    charge *= sensor.gain
    charge /= np.float32(every)
    charge += sensor.dark * np.arange(1, len(spikes) + 1, dtype=np.float32)[:, None, None]
    return charge


def fire(charge: np.ndarray, jitter: float, rng: np.random.Generator) -> np.ndarray:
    """Fire from the charge after each step, (T, h, w) float32 in units of the threshold, which is changed in place.

    Pixels start out of phase. `jitter` is the standard deviation of each step's threshold, as a share of it.

    Returns:
        (T, h, w) uint8, 0 or 1. Two spikes due in one step become one each in this and the next step. A pixel that is
        not charged does not fire.
    """
    shape, is_charged = charge.shape[1:], charge[-1] > 0
    phase = rng.random(shape, np.float32)
    due = np.zeros((len(charge) + 1, *shape), np.int16)
    if jitter:
        std, steps = np.float32(jitter), np.arange(EARLIER, dtype=np.float32)[:, None, None]
        before = phase - charge[-1] / np.float32(len(charge)) * steps
        before += std * rng.standard_normal(before.shape, np.float32)
        due[0] = np.floor(before).max(axis=0)
        charge += std * rng.standard_normal(charge.shape, np.float32)
    charge += phase
    due[1:] = np.floor(charge, out=charge)
    if jitter:
        accumulated(np.maximum, due)  # a spike is not taken back
    fired = due[1:] - due[:-1]
    if fired.max() > 1:
        due -= due[0] + np.arange(len(due), dtype=np.int16)[:, None, None]
        accumulated(np.minimum, due)
        fired = due[1:] - due[:-1] + 1
    return (fired * is_charged if jitter else fired).astype(np.uint8)


def margin_of(shift: tuple[float, float]) -> int:
    """Return the pixels around a crop that a shift needs."""
    return math.ceil(max(map(abs, shift)))


def shifted(light: np.ndarray, shift: tuple[float, float]) -> np.ndarray:
    """Look (down, right), fractions of a pixel bilinearly: from (T, h + 2 m, w + 2 m) to the inner (T, h, w) with the
    margin m of the shift."""
    down, right = shift
    margin = margin_of(shift)
    return _looking(_looking(light, down, margin).swapaxes(1, 2), right, margin).swapaxes(1, 2)


def _looking(light: np.ndarray, part: float, margin: int) -> np.ndarray:
    """Look along axis 1 by a part of a pixel or more; drops the margin at both ends."""
    whole = math.floor(part)
    first, length = margin + whole, light.shape[1] - 2 * margin
    share = np.float32(part - whole)
    near = light[:, first : first + length]
    return near if not share else (1 - share) * near + share * light[:, first + 1 : first + 1 + length]


def mean_rate(charges: np.ndarray, weights: np.ndarray, draw: Draw) -> float:
    """Return the mean rate that a drawn sensor is expected to show, in spikes per step.

    `charges` (n,) are what a step adds in a mean pixel, in units of its threshold, `weights` (n,) how often.
    """
    gains = np.maximum(1 + draw.pattern * NORMAL[:, None], 0)
    rates = np.minimum(charges * gains + draw.dark, 1).mean(axis=0)
    alive = float(rates @ weights / weights.sum()) + draw.hot * sum(HOT_DARK) / 2
    return (1 - draw.dead) * min(alive, 1.0)


class Picture(NamedTuple):
    """A whole frame: mean gray of the blurred one, (n,) intensities during its exposure, (n,) how often each occurs."""

    gray: float
    intensities: np.ndarray
    weights: np.ndarray


class Refired:
    """The spikes of a training set, fired anew from stored sub-frames or, without `light`, by thinning recorded ones.

    `thresholds` are the (lowest, highest) that will be drawn; 0: that of the set.

    Raises:
        UserError: recorded spikes are to be thinned to a threshold below their own.
    """

    def __init__(self, source: SpikeSource, light: SubFrames | None, thresholds: tuple[float, float] = (0, 0)) -> None:
        self.source, self.light = source, light
        manifest, rate_at_white = source.reader.manifest, source.sensor.rate_at_white
        self._theta = (manifest and manifest.theta) or 1 / rate_at_white
        self._intensities = LIGHT if source.reader.is_linear else LEVELS
        self._pictures: dict[tuple[str, str], Picture] = {}
        if light is None and thresholds[1] and thresholds[0] * rate_at_white < LOWER:
            raise UserError(
                f"augment.theta: found {list(thresholds)}, but recorded spikes cannot show thresholds below their own, "
                f"{1 / rate_at_white:g}; raise its low end, or name stored light in dataroot_subframes"
            )

    def planes(
        self, clip: str, frame: str, box: Box, draw: Draw, *, center: int | None = None, reverse: bool = False
    ) -> FramePlanes:
        """Make the planes of one frame as another sensor would give them; arguments as of SpikeSource.planes."""
        reader = self.source.reader
        white = max(mean_rate(np.array([self._charge_of_white(draw)]), np.ones(1), draw), DARKEST)
        maker = self.source.maker(clip)._replace(rate_at_white=white, warp=self._warp(clip, draw))
        step = reader.target_step(clip, center)
        steps = maker.reach(step)
        moment = maker.moment(self._spikes(clip, frame, steps, maker.warp.region(box), draw), steps[0], step)
        gain = self._gain(clip, frame, draw) if self.source.by_picture else 1 / white
        return maker.finished(maker.made(moment, box, reverse=reverse), gain)

    def _warp(self, clip: str, draw: Draw) -> Warp:
        """Return what moves a clip's planes to its frames."""
        reader = self.source.reader
        if draw.apart is None:
            return reader.warp(clip)
        known = self.source.timings[clip].alignment
        return warp_of(displaced(known.matrix if known else IDENTITY, draw.apart), reader.sensor_of(clip).size)

    def _spikes(self, clip: str, frame: str, steps: Span, box: Box, draw: Draw) -> np.ndarray:
        """Fire the steps [first, last) of a box, (T, h, w) uint8."""
        reader = self.source.reader
        if draw.is_dropped:
            return np.zeros((steps[1] - steps[0], box.height, box.width), np.uint8)
        sensor = draw_pixels(np.random.default_rng(draw.seed), draw, (box.height, box.width))
        moved = steps[0] - draw.steps_late, steps[1] - draw.steps_late
        span = moved if reader.problem(clip, frame, moved) is None else steps
        if self.light is None:
            spikes = reader.read(clip, frame, span, rows=box.row_span, cols=box.col_span)
            charge = charge_of_spikes(spikes, self._every(draw), sensor)
        else:
            charge = charge_of_light(self._charges(clip, frame, span, box, draw), sensor)
        return fire(charge, draw.jitter, np.random.default_rng([draw.seed, zlib.crc32(frame.encode())]))

    def _every(self, draw: Draw) -> int:
        """Return how many recorded spikes make one."""
        return 1 if draw.theta is None else max(round(draw.theta * self.source.sensor.rate_at_white), 1)

    def _charge_of_white(self, draw: Draw) -> float:
        """Return what a step of white light adds in a mean pixel, in units of its threshold."""
        if self.light is None:
            return self.source.sensor.rate_at_white / self._every(draw)
        return 1 / (self._theta if draw.theta is None else draw.theta)

    def _gain(self, clip: str, frame: str, draw: Draw) -> float:
        """Return mean gray of the blurred frame over the mean rate that the sensor is expected to show."""
        if draw.is_dropped:
            return picture_gain(0, 0)
        if (clip, frame) not in self._pictures:
            self._pictures[clip, frame] = self._picture(clip, frame)
        gray, intensities, weights = self._pictures[clip, frame]
        return picture_gain(gray, mean_rate(intensities * self._charge_of_white(draw), weights, draw))

    def _picture(self, clip: str, frame: str) -> Picture:
        gray = self.source.gray(clip, frame)
        if self.light is None:
            rate = self.source.reader.exposure_rate(clip, frame)
            return Picture(gray, np.array([rate / self.source.sensor.rate_at_white]), np.ones(1))
        found = np.bincount(self._exposed(clip, frame).reshape(-1), minlength=256)
        values = np.flatnonzero(found)
        return Picture(gray, self._intensities[values], found[values].astype(np.float32))

    def _exposed(self, clip: str, frame: str) -> np.ndarray:
        """Return every fourth sub-frame of an exposure, (n, h, w) uint8, as the frame's grid has them."""
        reader = self.source.reader
        whole, warp = reader.whole(clip), reader.warp(clip)
        some = np.ascontiguousarray(self._light(clip, frame, reader.timings[clip].exposure, warp.region(whole))[::4])
        return np.rint(warp(some, whole)).astype(np.uint8) if warp.moves else some

    def _charges(self, clip: str, frame: str, steps: Span, box: Box, draw: Draw) -> np.ndarray:
        """Return what stored light adds in a mean pixel, (T, h, w) float32; the frame's border is repeated."""
        down, right = draw.apart or (0.0, 0.0)
        shift = draw.shift[0] + down, draw.shift[1] + right
        around = box.grown(margin_of(shift))
        part = around.within(self.source.reader.sensor_of(clip).size)
        pairs = (around.row_span, part.row_span), (around.col_span, part.col_span)
        beyond = [(inner[0] - outer[0], outer[1] - inner[1]) for outer, inner in pairs]
        stored = self._light(clip, frame, steps, part)
        if np.any(beyond):
            stored = np.pad(stored, [(0, 0), *beyond], mode="edge")
        charges = np.take(self._intensities * np.float32(self._charge_of_white(draw)), stored)
        return shifted(charges, shift) if around != box else charges

    def _light(self, clip: str, frame: str, steps: Span, box: Box) -> np.ndarray:
        """Return the stored light of the steps around a frame, (T, h, w) uint8, of a box on the sensor."""
        assert self.light is not None
        read = self.light.read
        return self.source.reader.assembled(
            clip, frame, steps, lambda at, span: np.asarray(read(clip, at)[slice(*span), box.rows, box.cols])
        )
