"""One timeline for the spikes of a clip: find the files that hold the steps around a frame."""

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from data.frame_order import by_number, follows


class Piece(NamedTuple):
    """Steps [first, last) of one frame's `.dat` file."""

    frame: str
    first: int
    last: int


class Cut(NamedTuple):
    """The existing pieces of wanted steps, in order, and the number of steps missing before and after them."""

    pieces: list[Piece]
    before: int
    after: int

    @property
    def is_whole(self) -> bool:
        return not self.before and not self.after


class Timeline:
    """The `.dat` files of one clip, end to end; `lengths` are the steps in each frame's file.

    If `continuous`, files of consecutive frame numbers form one stream, which ends at a gap in the numbers; otherwise
    each file is its own stream.
    """

    def __init__(self, lengths: Mapping[str, int], continuous: bool) -> None:
        self.lengths = {frame: lengths[frame] for frame in by_number(lengths)}
        names = list(self.lengths)
        joined = {pair for pair in pairwise(names) if continuous and follows(*pair)}
        self._next = dict(joined)
        self._previous = {second: first for first, second in joined}

    def cut(self, frame: str, first: int, last: int) -> Cut:
        """Find the steps [first, last), counted from the start of a frame's own file; both may lie outside it."""
        start = 0
        while start > first and frame in self._previous:
            frame = self._previous[frame]
            start -= self.lengths[frame]
        before = max(start - first, 0)
        pieces = []
        at: str | None = frame
        while at is not None and start < last:
            length = self.lengths[at]
            piece = Piece(at, max(first - start, 0), min(last - start, length))
            if piece.first < piece.last:
                pieces.append(piece)
            start += length
            at = self._next.get(at)
        return Cut(pieces, min(before, last - first), max(last - max(start, first), 0))


def mirrored(spikes: np.ndarray, before: int, after: int) -> np.ndarray:
    """Extend (T, h, w) to (before + T + after, h, w) by mirroring its ends: step -1 repeats 0, step -2 repeats 1."""
    return np.pad(spikes, ((before, after), (0, 0), (0, 0)), mode="symmetric")
