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
        return slice(self.top, self.top + self.height)

    @property
    def cols(self) -> slice:
        return slice(self.left, self.left + self.width)

    @property
    def row_span(self) -> tuple[int, int]:
        return self.top, self.top + self.height

    @property
    def col_span(self) -> tuple[int, int]:
        return self.left, self.left + self.width

    def scaled(self, factor: int) -> "Box":
        return Box(self.top * factor, self.left * factor, self.height * factor, self.width * factor)

    def grown(self, margin: int) -> "Box":
        """Return the rectangle with a margin on all sides."""
        return Box(self.top - margin, self.left - margin, self.height + 2 * margin, self.width + 2 * margin)

    def within(self, size: tuple[int, int]) -> "Box":
        """Return the part of the rectangle that lies in a picture (H, W)."""
        (top, bottom), (left, right) = (
            (max(first, 0), min(last, most))
            for (first, last), most in zip((self.row_span, self.col_span), size, strict=True)
        )
        return Box(top, left, bottom - top, right - left)


def size_text(size: tuple[int, ...]) -> str:
    """Format a size (H, W) as HxW."""
    return "x".join(map(str, size))


def whole_ratio(large: tuple[int, int], small: tuple[int, int]) -> int:
    """Return the integer ratio of `large` (H, W) to `small`, the same along both axes, 0 if there is none."""
    ratio = large[0] // small[0]
    return ratio if large == (small[0] * ratio, small[1] * ratio) else 0
