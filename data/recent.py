"""What was read last, kept for a second look."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """The things that were read last, as many as `hold` has asked for at once.

    Overlapping pieces of a clip, the metrics and the pictures of a test look at a frame within the time in which its
    piece is restored. So what is held is as much as one piece has, however long the clip is.

    Args:
        room: things held from the beginning on; with 0 and without `hold` nothing is, and threads may share it.
    """

    def __init__(self, room: int = 1) -> None:
        self._room = room
        self._held: OrderedDict[K, V] = OrderedDict()

    def hold(self, count: int) -> None:
        """Make room for `count` things, which are needed together."""
        self._room = max(self._room, count)

    def get(self, key: K, read: Callable[[], V]) -> V:
        """Return what `key` stands for, from `read` if it is not held."""
        if not self._room:
            return read()
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        value = self._held[key] = read()
        while len(self._held) > self._room:
            self._held.popitem(last=False)
        return value
