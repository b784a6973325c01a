"""A cache of the most recently read things."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """An LRU cache as large as the largest `hold`.

    Overlapping pieces of a clip, the metrics and the pictures of a test use a frame while its piece is restored, so
    holding the frames of one piece is enough for a clip of any length. With `room` 0 and without `hold` nothing is
    cached, and threads may share the object.
    """

    def __init__(self, room: int = 1) -> None:
        self._room = room
        self._held: OrderedDict[K, V] = OrderedDict()

    def hold(self, count: int) -> None:
        """Raise the capacity to at least `count`."""
        self._room = max(self._room, count)

    def get(self, key: K, read: Callable[[], V]) -> V:
        if not self._room:
            return read()
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        value = self._held[key] = read()
        while len(self._held) > self._room:
            self._held.popitem(last=False)
        return value
