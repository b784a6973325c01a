"""Measure geometry and time of one clip; refuse where nothing can be measured."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from data.spike.align.fit import Fit, fit, freedom, start, time_error
from data.spike.align.footage import Footage
from data.spike.align.model import MODELS, Grid, params_of
from data.spike.alignment import Alignment, Model

Choice = Model | Literal["auto"]
SMALLEST_SIDE = 16  # spike pixels
CONTRAST = 0.02  # standard deviation of the gray frame, white is 1; flatter ones have nothing to align
UNRELATED = 0.5  # correlation of frames and spikes that show one scene is larger
WORST = 0.5  # pixels; a larger standard error is no measurement
WORST_TIME = 0.25  # steps, likewise; where nothing moves, noise rarely looks more certain
BESIDE = 2  # steps that the stream must have on both sides of the exposures: an offset is found between others
CLEARLY = 5.0  # standard errors by which a model must differ from a simpler one; they are up to four times too low
VISIBLE = 0.15  # pixels, likewise


@dataclass(frozen=True)
class Measured:
    """What a clip says.

    grid: what fits are in units of.
    fits: geometry and time by model; empty: nothing was measured.
    model: the simplest that agrees as well as the others.
    steps_error: standard error of the time; None: it was not measured.
    reason: why geometry or time were not measured; empty if both were.
    """

    grid: Grid
    fits: Mapping[Model, Fit] = field(default_factory=dict)
    model: Model = "shift"
    steps_error: float | None = None
    reason: str = ""

    @property
    def fit(self) -> Fit:
        """The fit of the model."""
        return self.fits[self.model]


def fit_at(alignment: Alignment | None, grid: Grid) -> Fit:
    """Return what a manifest says as the start of a fit."""
    if alignment is None:
        return start()
    time = np.array([alignment.steps, alignment.steps + alignment.longer], float)
    return replace(start(), params=params_of(np.array(alignment.matrix), grid), time=time)


def grid_of(footage: Footage) -> Grid:
    """Return the grid that footage is compared on."""
    return Grid(footage.gray.shape[1], footage.gray.shape[2], footage.shrink)


def measure(
    footage: Footage,
    choice: Choice = "auto",
    *,
    begin: Fit | None = None,
    time: np.ndarray | None = None,
    length: bool = False,
) -> Measured:
    """Measure the clip of some footage.

    Args:
        footage: the frames.
        choice: the model; "auto": the simplest that agrees as well as the others.
        begin: where to start from; None: cameras that agree.
        time: what holds if no time can be measured, (2,) as in Fit; None: that of `begin`.
        length: measure the length of the exposure too.
    """
    grid, begin = grid_of(footage), begin or start()
    if problem := _unusable(footage):
        return Measured(grid, reason=problem)
    begin = replace(begin, time=np.clip(begin.time, *footage.reach))
    first = fit(footage, begin, freedom("shift"))
    moves = "offset and length" if length else "offset"
    found, error, problem = _timed(footage, first, freedom("similarity" if choice == "auto" else choice, moves))
    kept = begin.time if time is None else np.clip(time, *footage.reach)
    first = replace(first, time=kept if problem else found)
    fits: dict[Model, Fit] = {}
    for model in MODELS if choice == "auto" else [choice]:
        near = fits["similarity"] if model == "homography" and "similarity" in fits else first
        fits[model] = fit(footage, near, freedom(model, "none" if problem else moves), is_coarse=False)
    model = simplest(fits, grid)
    if refusal := _refusal(fits[model], grid):
        return Measured(grid, reason=refusal)
    return Measured(grid, fits, model, None if problem else error, problem and f"{problem}: the time is left")


def _timed(footage: Footage, begin: Fit, free: np.ndarray) -> tuple[np.ndarray, float, str]:
    """Return the time of a fit, its standard error in steps, and why it is none; empty if it is one."""
    low, high = footage.reach
    if low > -BESIDE or high < BESIDE:
        return begin.time, float("inf"), "the stream has too few steps before or after the exposures"
    found = fit(footage, begin, free, is_coarse=False)
    error = time_error(footage, found)
    if np.any((found.time < low + 1) | (found.time > high - 1)):
        return found.time, error, f"the offset is at the end of what could be searched, {low} to {high} steps"
    return found.time, error, "" if error <= WORST_TIME else "no motion that shows the time"


def simplest(fits: Mapping[Model, Fit], grid: Grid) -> Model:
    """Return the simplest model from which no other differs clearly and visibly, at the worst corner."""
    chosen = next(iter(fits))
    for model, other in fits.items():
        if grid.apart(fits[chosen].params, other.params) > max(VISIBLE, CLEARLY * other.error(grid)):
            chosen = model
    return chosen


def _unusable(footage: Footage) -> str:
    """Return why footage shows nothing to measure; empty if it may."""
    contrast = float(footage.gray.std(axis=(1, 2)).mean())
    if contrast < CONTRAST:
        return f"flat picture: its contrast is {contrast:.3f} of white, expected {CONTRAST} or more"
    if min(footage.gray.shape[1:]) < SMALLEST_SIDE:
        return f"too small: {footage.gray.shape[1]}x{footage.gray.shape[2]} spike pixels"
    if not footage.counts.any():
        return "no pixel fires"
    return ""


def _refusal(found: Fit, grid: Grid) -> str:
    """Return why a fit is none; empty if it is one."""
    if found.correlation < UNRELATED:
        return f"correlation {found.correlation:.2f}: frames and spikes do not show the same scene"
    error = found.error(grid)
    if error > WORST:
        return f"too little texture: the worst corner is known to {error:.2g} pixels only"
    return ""
