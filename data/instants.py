"""Frames at other instants of the exposure than the sharp one, by name: `000012_t0.25` is a quarter into frame 000012.

0 is the first step of the exposure, 1 the last.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

from utils.utils_error import UserError

SUFFIX = re.compile(r"(.+)_t(0\.\d\d|1\.00)")


def step_of(first: int, last: int, time: float) -> int:
    """Return the step at a fraction of the exposure [first, last)."""
    return first + round(time * (last - 1 - first))


def steps_at(exposure: tuple[int, int], times: Sequence[float], key: str, whose: str) -> list[int]:
    """Return the steps at ascending fractions of the exposure of `whose`; UserError if two are the same step."""
    first, last = exposure
    steps = [step_of(first, last, time) for time in times]
    for (time, step), (other, same) in pairwise(zip(times, steps, strict=True)):
        if step == same:
            raise UserError(
                f"{key}: {time:g} and {other:g} are both step {step} of {whose}, whose exposure is steps {first} to "
                f"{last - 1}; leave one out"
            )
    return steps


def instant_name(frame: str, time: float) -> str:
    """Return the name of a frame at a fraction of its exposure, which is rounded to a hundredth."""
    return f"{frame}_t{time:.2f}"


def at_instant(frames: Iterable[str], time: float) -> tuple[str, ...]:
    """Return the names of frames at one fraction of their exposures."""
    return tuple(instant_name(frame, time) for frame in frames)


def instants_of(names: set[str], frames: Sequence[str]) -> list[float]:
    """Return the fractions of the exposure at which all given frames are among some names, ascending."""
    times = sorted({float(match[2]) for match in map(SUFFIX.fullmatch, names) if match})
    return [time for time in times if names.issuperset(at_instant(frames, time))]


def slow_motion(count: int) -> tuple[float, ...]:
    """Return the middles of `count` equal parts of the exposure, to a hundredth."""
    return tuple(round((index + 0.5) / count, 2) for index in range(count))
