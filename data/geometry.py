"""Rectangles and sizes in pixels."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def rows(self) -> slice:
        """Rows as a slice."""
        return slice(self.top, self.top + self.height)

    @property
    def cols(self) -> slice:
        """Columns as a slice."""
        return slice(self.left, self.left + self.width)

    @property
    def row_span(self) -> tuple[int, int]:
        """Rows [first, last)."""
        return self.top, self.top + self.height

    @property
    def col_span(self) -> tuple[int, int]:
        """Columns [first, last)."""
        return self.left, self.left + self.width

    def scaled(self, factor: int) -> "Box":
        """Return the same rectangle on a grid `factor` times finer."""
        return Box(self.top * factor, self.left * factor, self.height * factor, self.width * factor)


def size_text(size: tuple[int, ...]) -> str:
    """Format a size (H, W) as HxW."""
    return "x".join(map(str, size))


def whole_ratio(large: tuple[int, int], small: tuple[int, int]) -> int:
    """Return the integer ratio of `large` (H, W) to `small`, the same along both axes, 0 if there is none."""
    ratio = large[0] // small[0]
    return ratio if large == (small[0] * ratio, small[1] * ratio) else 0
