"""The exposure of each frame of a recording, in steps of its spike stream, from a file of times or a frame rate."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple, get_args

from data.frame_order import gaps
from utils.utils_error import UserError
from utils.utils_file import read_text

Unit = Literal["s", "ms", "us", "ns", "steps"]
UNITS: tuple[Unit, ...] = get_args(Unit)
Moment = Literal["start", "middle", "end"]
MOMENTS: tuple[Moment, ...] = get_args(Moment)
_PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
# Names of columns, without a unit at their end.
_COLUMNS = {
    "frame": ("frame", "name", "file", "filename", "image"),
    "start": ("start", "begin", "exposure_start", "time", "timestamp", "t"),
    "end": ("end", "stop", "exposure_end"),
    "exposure": ("exposure", "duration", "length"),
}
_UNIT = re.compile(r"(\w+?)[ _(\[]+(s|ms|us|ns|steps?)[)\]]?")  # a column's name and its unit
_CELLS = re.compile(r"[,;\t]\s*|\s+")
# Exposures of one clip may differ by this many steps, or this fraction if that is more.
UNEQUAL_STEPS, UNEQUAL = 2.0, 0.01


class Exposure(NamedTuple):
    """When a frame was exposed, in steps from the start of its stream; not rounded."""

    first: float
    last: float


Row = dict[str, str]  # column, as in _COLUMNS -> cell


@dataclass(frozen=True)
class Clock:
    """Converts times to steps of the stream.

    hz: steps per second.
    unit: of all times.
    zero: the time of the stream's first step.
    """

    hz: float
    unit: Unit = "s"
    zero: float = 0.0

    @property
    def steps_per_unit(self) -> float:
        """Steps in one unit of time."""
        return 1.0 if self.unit == "steps" else self.hz / _PER_SECOND[self.unit]

    def step(self, time: float) -> float:
        """Return the step at a time."""
        return (time - self.zero) * self.steps_per_unit


def regular(
    frames: Sequence[str], clock: Clock, *, fps: float | None, exposure: float, start: float | None = None
) -> list[Exposure]:
    """Return equally spaced exposures.

    Args:
        frames: all frames of the recording, in time order.
        clock: `exposure` and `start` are in its unit.
        fps: frames per second; None: all frames start alike, each in its own stream.
        exposure: length of an exposure.
        start: when the first exposure starts; None: with the stream.

    Raises:
        UserError: numbers are missing among the frames' names.
    """
    if fps is not None and (missing := gaps(frames)):
        raise UserError(
            f"--fps: frames are missing between {missing[0][0]} and {missing[0][1]}, expected all frames of the "
            "recording; give the times of those that exist with --times"
        )
    first, period = clock.step(clock.zero if start is None else start), clock.hz / fps if fps else 0.0
    length = exposure * clock.steps_per_unit
    return [Exposure(first + at * period, first + at * period + length) for at in range(len(frames))]


def from_file(
    path: Path, frames: Sequence[str], clock: Clock, *, exposure: float | None = None, moment: Moment = "start"
) -> list[Exposure]:
    """Read the exposures of frames from a file: csv, txt or json.

    Args:
        path: one row per frame: [frame,] start, end; or [frame,] time, completed by `exposure`. A header names columns:
            frame, start, end, exposure. JSON: a list of rows, of objects with these names, or an object of rows by
            frame. Rows without a frame belong to the frames in order.
        frames: names of the frames, in time order.
        clock: converts the times.
        exposure: length of an exposure for rows that lack it.
        moment: which moment of the exposure the only time of a row is.

    Returns:
        One per frame, in their order.

    Raises:
        UserError: the file cannot be read, a frame has no time, or a time is not a number.
    """
    if not path.is_file():
        raise UserError(f"--times {path}: no such file, expected the times of the frames; check the path")
    text = read_text(path)
    is_json = path.suffix.lower() == ".json"
    rows = _json_rows(path, text, clock.unit) if is_json else _text_rows(path, text, frames, clock.unit)
    paired = _by_name(path, rows, frames) if rows and "frame" in rows[0] else _by_order(path, rows, frames)
    return [_exposure(path, frame, row, clock, exposure, moment) for frame, row in zip(frames, paired, strict=True)]


def check_order(frames: Sequence[str], exposures: Sequence[Exposure]) -> None:
    """Raise UserError unless every exposure starts after the one before."""
    for (frame, one), (following, other) in pairwise(zip(frames, exposures, strict=True)):
        if other.first <= one.first:
            raise UserError(
                f"frame {following}: its exposure starts at step {other.first:.6g}, that of frame {frame} before it at "
                f"step {one.first:.6g}; expected ascending times, so correct the times or the frames' names"
            )


def common_length(frames: Sequence[str], exposures: Sequence[Exposure]) -> int:
    """Return the length of all exposures, in steps.

    Raises:
        UserError: they differ, or are shorter than a step.
    """
    lengths = {frame: last - first for frame, (first, last) in zip(frames, exposures, strict=True)}
    for frame, (first, last) in zip(frames, exposures, strict=True):
        if not math.isfinite(last - first):
            raise UserError(
                f"frame {frame}: its exposure, steps {first:g} to {last:g}, is not finite, expected finite times; "
                "check --fps, --time-unit, --clock-hz and the times"
            )
    usual = median(lengths.values())
    shortest, longest = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
    if lengths[shortest] < 1:
        raise UserError(
            f"frame {shortest}: its exposure has {lengths[shortest]:.3g} steps, expected 1 or more; check --time-unit, "
            "--clock-hz and the times"
        )
    odd = max((shortest, longest), key=lambda frame: abs(lengths[frame] - usual))
    if abs(lengths[odd] - usual) > max(UNEQUAL_STEPS, UNEQUAL * usual):
        raise UserError(
            f"frame {odd}: its exposure has {lengths[odd]:.1f} steps, most frames' has {usual:.1f}; a clip has one "
            "exposure, so fix the camera's, or make frames of equal exposure a clip of their own with --range"
        )
    return round(usual)


def _number(path: Path, frame: str, text: str) -> float:
    if not _is_number(text) or not math.isfinite(float(text)):
        raise UserError(f"{path}: frame {frame} has the time '{text}', expected a number; correct it")
    return float(text)


def _exposure(path: Path, frame: str, row: Row, clock: Clock, exposure: float | None, moment: Moment) -> Exposure:
    """Convert the row of a frame; arguments as of `from_file`."""
    if "start" not in row:
        raise UserError(f"{path}: frame {frame} has no time, only {', '.join(row) or 'nothing'}; add start and end")
    start = _number(path, frame, row["start"])
    if exposure is not None and row.keys() & {"end", "exposure"}:
        raise UserError(f"{path}: frame {frame} has its own exposure, --exposure another; leave one of them out")
    if "end" in row:
        end = _number(path, frame, row["end"])
        if end <= start:
            raise UserError(
                f"{path}: frame {frame} has the exposure {start:g} to {end:g}, expected an end after its start; "
                "correct it"
            )
        return Exposure(clock.step(start), clock.step(end))
    if "exposure" in row:
        exposure = _number(path, frame, row["exposure"])
    if exposure is None:
        raise UserError(f"{path}: frame {frame} has one time, expected start and end; add ends or give --exposure")
    begin = clock.step(start - exposure * MOMENTS.index(moment) / 2)
    return Exposure(begin, begin + exposure * clock.steps_per_unit)


def _by_name(path: Path, rows: list[Row], frames: Sequence[str]) -> list[Row]:
    """Return the rows of the frames; further rows are those of frames that were not kept."""
    names = [row["frame"] for row in rows]
    twice = next((name for name, following in pairwise(sorted(names)) if name == following), None)
    if twice is not None:
        raise UserError(f"{path}: has two rows for {twice}, expected one per frame; remove one")
    named = {Path(row["frame"]).stem if row["frame"] not in frames else row["frame"]: row for row in rows}
    missing = [frame for frame in frames if frame not in named]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UserError(
            f"{path}: has no time for frame {missing[0]}{more}, only for {rows[0]['frame']}, ...; add its row or move "
            "the frame away"
        )
    return [named[frame] for frame in frames]


def _by_order(path: Path, rows: list[Row], frames: Sequence[str]) -> list[Row]:
    if len(rows) != len(frames):
        last = f"; frame {frames[len(rows)]} is the first without a time" if len(rows) < len(frames) else ""
        raise UserError(
            f"{path}: has {len(rows)} times for {len(frames)} frames{last}; give one row per frame, or name the frame "
            "in each row"
        )
    return rows


def _text_rows(path: Path, text: str, frames: Sequence[str], unit: Unit) -> list[Row]:
    lines = [line.strip() for line in text.splitlines()]
    table = [_CELLS.split(line) for line in lines if line and not line.startswith("#")]
    if not table:
        raise UserError(f"{path}: is empty, expected one row of times per frame; give the times of the frames")
    header = _header(path, table[0], unit)
    if header:
        return [_row(path, header, cells) for cells in table[1:]]
    first = table[0][0]
    is_named = len(table[0]) == 3 or (len(table[0]) == 2 and (first in frames or not _is_number(first)))
    return [_row(path, _columns(path, table[0], is_named), cells) for cells in table]


def _header(path: Path, cells: Sequence[str], unit: Unit) -> list[str] | None:
    """Return the columns that a header names, "" for unknown ones; None if the first row is none."""
    parts = [_UNIT.fullmatch(cell.lower()) for cell in cells]
    names = [part[1] if part else cell.lower() for part, cell in zip(parts, cells, strict=True)]
    found = [next((key for key, known in _COLUMNS.items() if name in known), "") for name in names]
    if any(_is_number(cell) for cell in cells) or not any(found):
        return None
    if "start" not in found:
        raise UserError(f"{path}: has the columns {', '.join(cells)}, expected frame, start, end; rename them")
    for cell, part in zip(cells, parts, strict=True):
        if part and part[2] not in (unit, unit.removesuffix("s")):
            raise UserError(f"{path}: the column {cell} is not in {unit}, the --time-unit; add --time-unit {part[2]}")
    return found


def _columns(path: Path, cells: list[str], is_named: bool) -> list[str]:
    columns = ["frame"] * is_named + ["start", "end"]
    if not 1 <= len(cells) <= len(columns):
        raise UserError(f"{path}: has {len(cells)} columns and no header, expected frame, start, end; name the columns")
    return columns[: len(cells)]


def _row(path: Path, columns: list[str], cells: list[str]) -> Row:
    if len(cells) != len(columns):
        raise UserError(
            f"{path}: the row '{' '.join(cells)}' has {len(cells)} cells, expected {len(columns)}; correct it"
        )
    return {column: cell for column, cell in zip(columns, cells, strict=True) if column}


def _json_rows(path: Path, text: str, unit: Unit) -> list[Row]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path}: is not valid JSON ({error}), expected the times of the frames; correct it") from None
    if isinstance(content, dict):
        content = [[name, *(row if isinstance(row, list) else [row])] for name, row in content.items()]
    if not isinstance(content, list) or not content:
        raise UserError(f"{path}: holds no times, expected a list or an object of rows; see --help")
    rows = []
    for entry in content:
        if isinstance(entry, dict):
            columns = _header(path, list(entry), unit) or []
            rows.append(_row(path, columns, [str(value) for value in entry.values()]))
        else:
            cells = entry if isinstance(entry, list) else [entry]
            is_named = bool(cells) and isinstance(cells[0], str)
            rows.append(_row(path, _columns(path, cells, is_named), [str(cell) for cell in cells]))
    return rows


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
