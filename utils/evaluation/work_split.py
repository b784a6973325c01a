"""Split a test set's frames between processes: neighbouring clips together, long clips cut in time."""

import bisect
from collections.abc import Sequence
from typing import NamedTuple


class Share(NamedTuple):
    """Frames [first, stop) of one clip, by its index."""

    clip: int
    first: int
    stop: int


class Work(NamedTuple):
    """The work for one clip.

    It may be cut, ascending, at the first wanted frame, the starts of time windows, and the end (exclusive).
    """

    cuts: Sequence[int]
    cost: float  # of one window, in any unit
    repeated: int  # windows that both sides of a cut need


def split_work(works: Sequence[Work], processes: int) -> list[list[Share]]:
    """Split the clips of a test set, laid end to end, into one stretch of about equal cost per process.

    A clip is cut only where that saves more than the windows that both sides of the cut must compute. Every wanted
    frame is in exactly one of the shares, which are in order.
    """
    units = [(clip, index) for clip, work in enumerate(works) for index in range(len(work.cuts) - 1)]
    ends = [0.0]  # cumulative cost at the end of each unit
    for clip, _ in units:
        ends.append(ends[-1] + works[clip].cost)

    def loss(unit: int, target: float) -> float:
        """Cost of a border before a unit: its distance from the even split plus the windows computed twice."""
        inside = unit < len(units) and units[unit][1] > 0
        clip = units[unit][0] if inside else 0
        return abs(ends[unit] - target) + (works[clip].repeated * works[clip].cost if inside else 0)

    borders = [0]
    for process in range(1, processes):
        target = ends[-1] * process / processes
        near = bisect.bisect(ends, target)
        reach = range(max(near - 2, borders[-1]), min(near + 2, len(units) + 1))
        clip_ends = [i for i in range(borders[-1], len(units) + 1) if i == len(units) or units[i][1] == 0]
        candidates = [*reach, *clip_ends] or [borders[-1]]
        borders.append(min(candidates, key=lambda unit, target=target: (loss(unit, target), unit)))  # type: ignore[misc]
    borders.append(len(units))
    return [_joined(works, units[first:stop]) for first, stop in zip(borders, borders[1:], strict=False)]


def _joined(works: Sequence[Work], units: Sequence[tuple[int, int]]) -> list[Share]:
    """Join consecutive units into one share per clip."""
    shares: dict[int, Share] = {}
    for clip, index in units:
        first, stop = works[clip].cuts[index : index + 2]
        shares[clip] = Share(clip, shares[clip].first if clip in shares else first, stop)
    return list(shares.values())
