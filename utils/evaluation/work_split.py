"""Sharing out the frames of a test set among processes: neighbouring clips together, long clips cut in time."""

import bisect
from collections.abc import Sequence
from typing import NamedTuple


class Share(NamedTuple):
    """Frames [first, stop) of the clip with an index."""

    clip: int
    first: int
    stop: int


class Work(NamedTuple):
    """What is to be done for one clip.

    Attributes:
        cuts: frames at which it may be cut, ascending: the first wanted one, then the beginnings of pieces in time,
            at last the first that is not wanted any more.
        cost: of one piece, in any unit.
        repeated: pieces that both sides of a cut need.
    """

    cuts: Sequence[int]
    cost: float
    repeated: int


def split_work(works: Sequence[Work], processes: int) -> list[list[Share]]:
    """Give every process about the same work, as one stretch of the line on which all clips lie one after another.

    A clip is cut where that is worth the pieces that both sides of the cut have to compute.

    Args:
        works: of each clip of a test set.
        processes: how many.

    Returns:
        For each process its shares, in order; every wanted frame is in one of them.
    """
    units = [(clip, index) for clip, work in enumerate(works) for index in range(len(work.cuts) - 1)]
    ends = [0.0]  # of each unit on the line
    for clip, _ in units:
        ends.append(ends[-1] + works[clip].cost)

    def loss(unit: int, target: float) -> float:
        """How far from even a border before a unit is, and the pieces that it has computed twice."""
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
    """Units one after another as one share a clip."""
    shares: dict[int, Share] = {}
    for clip, index in units:
        first, stop = works[clip].cuts[index : index + 2]
        shares[clip] = Share(clip, shares[clip].first if clip in shares else first, stop)
    return list(shares.values())
