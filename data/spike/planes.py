"""The representations by name: which steps each reads per frame, and which planes it makes of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from data.spike.representations import bins, exposure_ratio, isi, raw_window, tfi, tfp
from options.schema_data import EXPOSURE_PLANES

Span = tuple[int, int]  # steps [first, last)


class StepWindow(NamedTuple):
    """The steps read for one frame, and where its target step and its exposure lie among them."""

    spikes: np.ndarray  # (T, h, w) uint8, 0 or 1
    center: int
    exposure: Span  # may reach beyond the steps read if the representation does not use it

    def reversed(self) -> "StepWindow":
        """Return the window reversed in time; a spike still ends its interval, so intervals shift by one step."""
        steps = len(self.spikes)
        first, last = self.exposure
        return StepWindow(self.spikes[::-1], steps - 1 - self.center, (steps - last, steps - first))

    @property
    def exposed(self) -> np.ndarray:
        return self.spikes[slice(*self.exposure)]


@dataclass(frozen=True)
class Representation:
    """How to make planes; options.schema_data.SPIKE_CHANNELS has the numbers of planes.

    make: (steps, window, number of planes S) -> (S, h, w) float32; a ratio is always one plane. Finite for any spikes.
    gives: "rate": spikes per step; "bits": single spikes; "ratio": a factor for the blurred frame; "counts": spikes per
        plane, uint8, see `moment_counts`.
    """

    make: Callable[[StepWindow, int, int], np.ndarray]
    gives: Literal["rate", "bits", "ratio", "counts"] = "rate"
    reads_window: bool = True  # `window` steps around the target step
    reads_exposure: bool = True  # the steps of the exposure
    averages_window: bool = False  # `window` means the steps that show one instant
    shows_instant: bool = True  # the planes depend on the target step

    def reach(self, window: int, center: int, exposure: Span) -> Span:
        """Return the steps to read, [first, last): the smallest span that contains them."""
        around = (center - window // 2, center + window // 2 + 1)
        if not self.reads_exposure:
            return around
        return (min(around[0], exposure[0]), max(around[1], exposure[1])) if self.reads_window else exposure


def middles(exposure: Span, count: int) -> list[int]:
    """Return the middle steps of `count` equal parts of the exposure, the parts of `bins`."""
    first, length = exposure[0], exposure[1] - exposure[0]
    return [first + (k * length // count + (k + 1) * length // count - 1) // 2 for k in range(count)]


def moment_counts(moment: StepWindow, window: int, channels: int) -> np.ndarray:
    """Count spikes in K = channels - 2 equal parts of a window, and in the exposure.

    Args:
        moment: steps that contain window and exposure.
        window: K b steps, odd, b at most 255.
        channels: K + 2.

    Returns:
        (K + 2, h, w) uint8: counts of b steps each, in time order; then the count of the exposure, at most 65,535, as
        its low and its high byte.
    """
    count = channels - EXPOSURE_PLANES
    first = moment.center - window // 2
    parts = moment.spikes[first : first + window].reshape(count, window // count, *moment.spikes.shape[1:])
    planes = parts[:, 0] if window == count else parts.sum(axis=1, dtype=np.uint8)
    exposed = moment.exposed.sum(axis=0, dtype=np.uint16)
    low, high = (exposed & 255).astype(np.uint8), (exposed >> 8).astype(np.uint8)
    return np.concatenate((planes, low[None], high[None]))


def steps_per_plane(planes: int, exposure: Span) -> int:
    """Return the smallest odd b with which `planes` planes of b steps cover at least half of the exposure."""
    return -(-(exposure[1] - exposure[0]) // (2 * planes)) | 1


def tfp_of(spikes: np.ndarray) -> np.ndarray:
    """Return the mean rate over all given steps, (h, w) float32."""
    return bins(spikes, 1)[0]


def _tfp(moment: StepWindow, window: int) -> np.ndarray:
    return tfp(moment.spikes, moment.center, window)


REPRESENTATIONS: dict[str, Representation] = {
    "tfp": Representation(lambda at, window, _: _tfp(at, window)[None], reads_exposure=False, averages_window=True),
    "tfi": Representation(lambda at, window, _: tfi(at.spikes, at.center)[0][None]),
    "bins": Representation(lambda at, window, s: bins(at.exposed, s), reads_window=False, shows_instant=False),
    "isi": Representation(lambda at, window, s: isi(at.spikes, middles(at.exposure, s))[0], shows_instant=False),
    "raw_window": Representation(
        lambda at, window, _: raw_window(at.spikes, at.center, window).astype(np.uint8), "bits", reads_exposure=False
    ),
    "moment": Representation(moment_counts, "counts"),
    "sdm": Representation(
        lambda at, window, _: exposure_ratio(_tfp(at, window), tfp_of(at.exposed))[None], "ratio", averages_window=True
    ),
}


def instant_problem(name: str) -> str | None:
    """Return why a representation cannot show other instants than the sharp one; None if it can."""
    if REPRESENTATIONS[name].shows_instant:
        return None
    able = ", ".join(other for other, each in REPRESENTATIONS.items() if each.shows_instant)
    return f"spike.representation: {name!r} shows the exposure, not one instant of it; for instants use one of {able}"
