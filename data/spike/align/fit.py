"""Fit geometry and time between spikes and blurred frames: the mean rate over the exposure is the gray blurred picture.

All frames of a clip are fitted at once, coarse to fine, from the identity: Gauss-Newton on the difference that is left
after each frame's own gain and offset, which maximises the correlation as ECC does (Evangelidis and Psarakis, TPAMI
2008). What is common to all frames (the sensor's fixed pattern) and what moves are weighted by how far each can be
trusted. The error comes from how much the picture's blocks disagree.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np

from data.spike.align.footage import Footage
from data.spike.align.model import MODELS, Grid, moved_to, slopes
from data.spike.alignment import Model
from data.spike.planes import Span

SMOOTH = 1.0  # pixels of each level; standard deviation of the smoothing before pictures are compared
EDGE = 3  # pixels; wide enough that smoothing across the border is left out
SMALLEST = 12  # pixels; shorter side of the coarsest level
ROUNDS = 12  # most Gauss-Newton steps per level
SETTLED = 0.002  # pixels of the level; smaller steps end a level
# Between whole pixels and steps, interpolation averages noise, so the difference is no smooth function of position: a
# step may make it this much larger.
WORSE = 1.1
STEPS_PER_PIXEL = 20  # offsets settle when they change by less than this many times SETTLED
FARTHEST = 0.4  # of the shorter side; a fit that goes farther stops
LARGEST_STEP = 1.5  # pixels of the level
APART = 4  # steps to either side at which an offset must agree less
TIME_SLOPE = 2  # steps to either side over which the change with time is measured
TINY = 1e-20
BLOCK = 8  # pixels; side of the blocks whose disagreement gives the error
TIME = 2  # parameters of time: how much later the exposure begins, and ends


@dataclass(frozen=True)
class Fit:
    """Where a fit ended.

    params: (8,) of the homography in units of the grid, see `Grid`.
    time: (2,) steps by which the exposure begins and ends later in the spikes.
    free: (10, k) what was fitted: params and time move along its columns only.
    covariance: (10, 10) of params and time.
    correlation: of gray and rates, mean over frames.
    inside: share of the frame that the sensor sees.
    static: trust in what all frames have in common relative to what moves, at most 1.
    """

    params: np.ndarray
    time: np.ndarray
    free: np.ndarray
    covariance: np.ndarray
    correlation: float = 0.0
    inside: float = 1.0
    static: float = 1.0

    def error(self, grid: Grid) -> float:
        """Return the standard error at the worst corner, pixels."""
        return grid.corner_error(self.params, self.covariance[:8, :8])


def start() -> Fit:
    """Return the identity."""
    return Fit(np.zeros(8), np.zeros(TIME), np.zeros((8 + TIME, 0)), np.zeros((8 + TIME, 8 + TIME)))


def freedom(model: Model, time: str = "none") -> np.ndarray:
    """Return the columns along which a fit may move, (10, k); time: "none", "offset" or "offset and length"."""
    steps = {"none": np.zeros((TIME, 0)), "offset": np.ones((TIME, 1)), "offset and length": np.eye(TIME)}[time]
    geometry = MODELS[model]
    return np.block([[geometry, np.zeros((8, steps.shape[1]))], [np.zeros((TIME, geometry.shape[1])), steps]])


def fit(footage: Footage, begin: Fit, free: np.ndarray, *, is_coarse: bool = True) -> Fit:
    """Improve a fit along the columns of `free`; from the coarsest level on, or at the finest alone."""
    found = replace(begin, free=free)
    for factor in _levels(footage.gray.shape[1:]) if is_coarse else [1]:
        own = free if factor <= 2 else freedom("shift")
        found = _settle(footage, replace(found, free=own), factor)
    return _judged(footage, found)


def agreement(footage: Footage, found: Fit) -> float:
    """Return the correlation of frames and rates where a fit puts them, mean over frames."""
    return _compare(footage, found, 1).correlation


def time_error(footage: Footage, found: Fit) -> float:
    """Return the standard error of a fitted offset in steps; infinite if other offsets agree as well.

    Spikes are noise at single steps, which looks like change with time where nothing moves. So geometry is fitted again
    at offsets to either side, and how much worse they agree, block by block, gives the error.
    """
    middle = float(np.clip(np.round(found.time[0]), *footage.reach))
    away = min(APART, middle - footage.reach[0], footage.reach[1] - middle)
    if away < 1:
        return float("inf")
    length = found.time[1] - found.time[0]
    geometry = found.free[:, ~found.free[8:].any(axis=0)]
    sums = []
    for offset in (-away, 0, away):
        time = np.array([middle + offset, middle + offset + length])
        held = _settle(footage, replace(found, time=time, free=geometry), 1, rounds=4)
        seen = _compare(footage, held, 1)
        squares = (_weighted(seen, found.static)[0] ** 2).sum(0)
        sums.append(np.bincount(_blocks(seen.inside), squares, minlength=_blocks(np.ones_like(seen.inside)).max() + 1))
    low, here, high = sums
    curvature = float((low + high - 2 * here).sum()) / (2 * away**2)
    slope = (high - low - (high - low).mean()) / (2 * away)
    return float(np.sqrt((slope**2).sum()) / (2 * curvature)) if curvature > 0 else float("inf")


def _levels(size: tuple[int, ...]) -> list[int]:
    """Return by what the grid is divided at each level, coarsest first."""
    factors = [1]
    while min(size) // (2 * factors[-1]) >= SMALLEST:
        factors.append(2 * factors[-1])
    return factors[::-1]


class _Compared(NamedTuple):
    """Residuals and slopes at the current fit: r (F, n), slopes (k, F, n), of the n pixels inside the sensor."""

    residual: np.ndarray
    slopes: np.ndarray
    inside: np.ndarray
    correlation: float
    direction: np.ndarray  # (F, n) unit vectors over frames: what a fixed pattern changes


def _settle(footage: Footage, found: Fit, factor: int, rounds: int = ROUNDS) -> Fit:
    """Take Gauss-Newton steps at one level."""
    grid = Grid(*footage.gray.shape[1:])
    best, best_error, damping = found, np.inf, 1e-4
    for _ in range(rounds):
        seen = _compare(footage, found, factor)
        error = float(np.mean(_weighted(seen, found.static)[0] ** 2))
        if error > best_error * WORSE:
            damping *= 10
            found = best
            if damping > 1:
                break
            seen = _compare(footage, found, factor)
        else:
            best, best_error = found, min(error, best_error)
        found, size = _step(found, seen, grid, footage.reach, factor, damping)
        if size < SETTLED:
            break
    return found


def _step(found: Fit, seen: _Compared, grid: Grid, reach: Span, factor: int, damping: float) -> tuple[Fit, float]:
    residual, slopes = _weighted(seen, found.static)
    flat = slopes.reshape(len(slopes), -1)
    normal = flat @ flat.T
    normal[np.diag_indices_from(normal)] *= 1 + damping
    change = found.free @ np.linalg.lstsq(normal, flat @ residual.ravel(), rcond=1e-10)[0]
    size = grid.largest(change[:8]) / factor
    if size > LARGEST_STEP:
        change, size = change * (LARGEST_STEP / size), LARGEST_STEP
    params = found.params + change[:8]
    if grid.largest(params) > FARTHEST * min(grid.height, grid.width):
        return found, 0.0
    time = np.clip(found.time + change[8:], *reach)
    return replace(found, params=params, time=time), max(size, float(np.abs(change[8:]).max()) / STEPS_PER_PIXEL)


class _View(NamedTuple):
    """Which pixels of a level's sensor the frames' pixels are: positions, and those that both cameras see well."""

    grid: Grid
    x: np.ndarray
    y: np.ndarray
    inside: np.ndarray

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        """Sample pictures (F, h, w) of the sensor at the n pixels inside, (F, n) float64."""
        moved = (cv2.remap(each, self.x, self.y, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE) for each in pictures)  # type: ignore[call-overload]
        return np.stack([each[self.inside] for each in moved]).astype(np.float64)


def _view(shape: tuple[int, ...], params: np.ndarray, margin: int) -> _View:
    grid = Grid(*shape)
    x, y = grid.pixels(moved_to(grid.places(), params))
    inside = np.zeros(shape, bool)
    inside[margin:-margin, margin:-margin] = True
    inside &= (x >= margin) & (x <= shape[1] - 1 - margin) & (y >= margin) & (y <= shape[0] - 1 - margin)
    return _View(grid, x, y, inside)


def _compare(footage: Footage, found: Fit, factor: int) -> _Compared:
    """Move the rates to the frames and compare, at one level."""
    gray, rates = _level(footage.gray, factor), _level(footage.rates(*found.time), factor)
    view = _view(gray.shape[1:], found.params, EDGE if factor <= 2 else 1)
    target, seen = gray[:, view.inside].astype(np.float64), view(rates)
    target -= target.mean(1, keepdims=True)
    centred = seen - seen.mean(1, keepdims=True)
    power = (centred**2).sum(1, keepdims=True) + TINY
    gain = (centred * target).sum(1, keepdims=True) / power
    along = np.zeros((found.free.shape[1], *target.shape))
    for slope, change in zip(along, _changes(footage, found, factor, view, gray, gain), strict=True):
        change -= change.mean(1, keepdims=True)
        change -= centred * ((change * centred).sum(1, keepdims=True) / power)
        slope[:] = change
    norms = np.sqrt((target**2).sum(1) * power[:, 0]) + TINY
    correlation = float(np.mean((target * centred).sum(1) / norms))
    scale = np.sqrt(np.mean(target**2)) + TINY
    direction = gain * seen / (np.sqrt(((gain * seen) ** 2).sum(0, keepdims=True)) + TINY)
    return _Compared((target - gain * centred) / scale, along / scale, view.inside, correlation, direction)


def _changes(
    footage: Footage, found: Fit, factor: int, view: _View, gray: np.ndarray, gain: np.ndarray
) -> Iterator[np.ndarray]:
    """Yield how the moved rates, times their gain, change along each free column, (F, n).

    Slopes are those of the frames, which the moved rates resemble: spikes are noise from pixel to pixel.
    """
    down, across = (np.gradient(gray, axis=axis)[:, view.inside] * view.grid.unit for axis in (1, 2))
    turns = slopes(view.grid.places()[:, view.inside], found.params)  # (8, 2, n)
    times = [
        gain * _time_slope(footage, found.time, end, factor, view) if any(found.free[8 + end]) else 0.0
        for end in range(TIME)
    ]
    for column in found.free.T:
        along = np.tensordot(column[:8], turns, 1)
        yield across * along[0] + down * along[1] + column[8] * times[0] + column[9] * times[1]


def _time_slope(footage: Footage, time: np.ndarray, end: int, factor: int, view: _View) -> np.ndarray:
    """Return how rates change per step by which the begin (0) or the end (1) of the exposure moves, (F, n)."""
    low, high = time.copy(), time.copy()
    low[end], high[end] = np.clip((time[end] - TIME_SLOPE, time[end] + TIME_SLOPE), *footage.reach)
    change = footage.rates(*high) - footage.rates(*low)
    return view(_level(change, factor)) / max(high[end] - low[end], TINY)


def _weighted(seen: _Compared, static: float) -> tuple[np.ndarray, np.ndarray]:
    """Return residual and slopes with the part that a fixed pattern changes counted less."""
    if static >= 1:
        return seen.residual, seen.slopes

    def less(values: np.ndarray) -> np.ndarray:
        common = (values * seen.direction).sum(-2, keepdims=True)
        return values - (1 - static) * seen.direction * common

    return less(seen.residual), less(seen.slopes)


def _trust(seen: _Compared) -> float:
    """Return how far the common part of the frames can be trusted relative to the rest: the ratio of their spreads."""
    frames = len(seen.residual)
    if frames < 3:
        return 1.0
    common = (seen.residual * seen.direction).sum(0)
    rest = float((seen.residual**2).sum() - (common**2).sum()) / (frames - 1)
    return float(min(np.sqrt(rest / (float((common**2).sum()) + 1e-20)), 1.0))


def _judged(footage: Footage, found: Fit) -> Fit:
    """Weigh static and moving parts, settle again at the finest level, and estimate the errors."""
    static = _trust(_compare(footage, found, 1))
    found = _settle(footage, replace(found, static=static), 1)
    seen = _compare(footage, found, 1)
    residual, slopes = _weighted(seen, static)
    normal = np.linalg.pinv(np.einsum("kfn,lfn->kl", slopes, slopes), rcond=1e-12)
    scores = (slopes * residual).sum(1)  # (k, n)
    blocks = _blocks(seen.inside)
    summed = np.stack([np.bincount(blocks, score) for score in scores])
    cov = found.free @ normal @ (summed @ summed.T) @ normal @ found.free.T
    return replace(found, covariance=cov, correlation=seen.correlation, inside=float(seen.inside.mean()))


def _blocks(inside: np.ndarray) -> np.ndarray:
    rows, cols = np.nonzero(inside)
    return (rows // BLOCK) * (inside.shape[1] // BLOCK + 1) + cols // BLOCK


def _level(pictures: np.ndarray, factor: int) -> np.ndarray:
    """Average pictures (F, h, w) down by a factor and smooth them."""
    height, width = pictures.shape[1] // factor, pictures.shape[2] // factor
    found = []
    for picture in pictures[:, : height * factor, : width * factor]:
        small = picture if factor == 1 else cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        found.append(cv2.GaussianBlur(small, (0, 0), SMOOTH, borderType=cv2.BORDER_REPLICATE))
    return np.stack(found)
