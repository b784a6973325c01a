"""The tiles that the options ask for. Needs no torch, so wrong ones are refused before it is imported."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from options.schema_train import ValOpt
from utils.utils_error import UserError, counted

Blend = Literal["smooth", "kair"]
Sides = int | tuple[int, int]


@dataclass(frozen=True)
class TileOpt:
    """The part of a clip that is restored at once. A length of 0 means the whole clip, height or width.

    "smooth" blends evenly spaced tiles by linear ramps. "kair" takes KAIR's tile positions, cuts each overlap in the
    middle, as in published numbers, and mirrors each axis of length 0 to a multiple of `window`.
    """

    frames: int = 0  # per time window
    frame_overlap: int = 2  # frames shared by neighbouring time windows, possibly fewer: see `starts`
    size: tuple[int, int] = (0, 0)  # height and width in input pixels
    overlap: tuple[int, int] = (20, 20)  # pixels shared by neighbouring tiles along each axis, possibly fewer
    blend: Blend = "smooth"
    batch: int = 1  # tiles restored per call
    window: tuple[int, int, int] = (1, 1, 1)  # the network's attention window
    grid: int = 1  # the network's: a tile must begin at a multiple of it, in pixels, to equal the whole frame

    def __post_init__(self) -> None:
        sides = {
            "frames (num_frame_testing)": (self.frames, self.frame_overlap),
            "height (size_patch_testing)": (self.size[0], self.overlap[0]),
            "width (size_patch_testing)": (self.size[1], self.overlap[1]),
        }
        for name, (size, overlap) in sides.items():
            if size < 0 or overlap < 0 or 0 < size <= overlap:
                raise UserError(
                    f"tile {name}: found size {size} and overlap {overlap}, expected an overlap from 0 to below the "
                    "size (size 0: no tiling); correct it"
                )
        if self.batch < 1:
            raise UserError(f"tile batch (tile_batch): found {self.batch}, expected 1 or more; correct it")

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "TileOpt":
        """Rebuild a TileOpt from `dataclasses.asdict` via JSON."""
        fields: dict[str, Any] = {key: tuple(of) if isinstance(of, list) else of for key, of in values.items()}
        return cls(**fields)

    def __str__(self) -> str:
        sides = zip(["frame", "row", "column"], (self.frames, *self.size), strict=True)
        return ", ".join(counted(length, name) if length else f"all {name}s" for name, length in sides) + (
            f", {self.batch} at once" if self.batch > 1 else ""
        )


def tile_of(val: ValOpt, window: Sequence[int] = (1, 1, 1), extra: int = 0, grid: int = 1) -> TileOpt:
    """The tiles that the options ask for, in restored frames; `window` and `grid` as in TileOpt.

    `extra` frames are read beyond those restored; if not 0, restored frames do not overlap, as each is made once.
    """
    frames = val.num_frame_testing
    return TileOpt(
        max(frames - extra, 1) if frames else 0,
        0 if extra else val.frames_shared,
        both(val.size_patch_testing),
        both(val.size_patch_overlapping),
        val.blend,
        val.tile_batch,
        (window[0], window[1], window[2]),
        grid,
    )


def both(sides: Sides) -> tuple[int, int]:
    """(rows, columns) of sides that are given as one number or two."""
    return (sides, sides) if isinstance(sides, int) else sides
