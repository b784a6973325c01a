"""The exposure of each frame of a recording, in steps of its spike stream, from a file of times or a frame rate."""

import csv
import json
import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple, get_args

from data.frame_order import gaps
from utils.utils_error import UserError
from utils.utils_file import read_text

LOG = logging.getLogger("spikevrt")

Unit = Literal["s", "ms", "us", "ns", "steps"]
UNITS: tuple[Unit, ...] = get_args(Unit)
Moment = Literal["start", "middle", "end"]
MOMENTS: tuple[Moment, ...] = get_args(Moment)
_PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
# Names of columns, without a unit at their end.
_COLUMNS = {
    "frame": ("frame", "name", "file", "filename", "image"),
    "start": ("start", "begin", "exposure_start"),
    "time": ("time", "timestamp", "t"),  # the start, or the moment that --timestamp says
    "end": ("end", "stop", "exposure_end"),
    "exposure": ("exposure", "exposure_time", "duration", "length"),
}
# A column's name, and its unit in brackets or after a blank or underscore.
_COLUMN = re.compile(r"(.+?)(?:[ _]*[(\[](.*)[)\]]|[ _](s|ms|us|ns|steps?))?")
_MICRO: dict[str, Unit] = {"\u00b5s": "us", "\u03bcs": "us"}  # the sign has two codes
_SPELLINGS = _MICRO | {"s": "s", "ms": "ms", "us": "us", "ns": "ns", "step": "steps", "steps": "steps"}
# Exposures of one clip may differ by this many steps, or this fraction if that is more.
UNEQUAL_STEPS, UNEQUAL = 2.0, 0.01
_OVERLAPPING = 3.0  # frame intervals; longer exposures are refused


class Exposure(NamedTuple):
    """When a frame was exposed, in steps from the start of its stream; not rounded."""

    first: float
    last: float


class Column(NamedTuple):
    """A column: its key in _COLUMNS, "" if unknown; its own unit, if any; its name in the file."""

    key: str
    unit: Unit | None = None
    name: str = ""


class Cell(NamedTuple):
    """What a row has in a column."""

    text: str
    column: Column


Row = dict[str, Cell]  # by the column's key


@dataclass(frozen=True)
class Clock:
    """Converts times to steps of the stream.

    hz: steps per second.
    unit: of all times without a unit of their own.
    zero: the time of the stream's first step.
    """

    hz: float
    unit: Unit = "s"
    zero: float = 0.0

    def steps(self, length: float, unit: Unit | None = None) -> float:
        """Return the steps in a length of time."""
        unit = unit or self.unit
        return length if unit == "steps" else length * (self.hz / _PER_SECOND[unit])

    def step(self, time: float, unit: Unit | None = None) -> float:
        """Return the step at a time."""
        if unit in (None, self.unit):
            return self.steps(time - self.zero)
        return self.steps(time, unit) - self.steps(self.zero)


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
    length = clock.steps(exposure)
    return [Exposure(first + at * period, first + at * period + length) for at in range(len(frames))]


def from_file(
    path: Path, frames: Sequence[str], clock: Clock, *, exposure: float | None = None, moment: Moment = "start"
) -> list[Exposure]:
    """Read the exposures of frames from a file: csv, txt or json.

    Args:
        path: one row per frame: [frame,] start, end; or [frame,] time, completed by `exposure`. A header names columns:
            frame, start, end, exposure; times may have a unit of their own, as in start_ms. JSON: a list of rows, of
            objects with these names, or an object of rows by frame. Rows without a frame belong to the frames in order.
        frames: names of the frames, in time order.
        clock: converts the times.
        exposure: length of an exposure for rows that lack it.
        moment: which moment of the exposure the only time of a row is.

    Returns:
        One per frame, in their order.

    Raises:
        UserError: the file cannot be read or contradicts itself, a frame has no time, or a time is not a number.
    """
    if not path.is_file():
        raise UserError(f"--times {path}: no such file, expected the times of the frames; check the path")
    text = read_text(path)
    rows = _json_rows(path, text) if path.suffix.lower() == ".json" else _text_rows(path, text, frames)
    named = ["frame" in row for row in rows]
    if any(named) and not all(named):
        raise UserError(
            f"{path}: row {named.index(False) + 1} names no frame, row {named.index(True) + 1} does; name the frame in "
            "every row or in none"
        )
    paired = _by_name(path, rows, frames) if any(named) else _by_order(path, rows, frames)
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


def check_overlap(frames: Sequence[str], exposures: Sequence[Exposure]) -> None:
    """Warn if exposures of one stream overlap, which those of one camera do not.

    Raises:
        UserError: they last several frame intervals.
    """
    lengths = [last - first for first, last in exposures]
    intervals = [following.first - one.first for one, following in pairwise(exposures)]
    if not intervals:
        return
    if median(lengths) > _OVERLAPPING * median(intervals):
        raise UserError(
            f"exposures of {median(lengths):.6g} steps start every {median(intervals):.6g} steps, expected them "
            "shorter than this interval; correct the exposure, the frame rate or the units"
        )
    over = [length - interval for length, interval in zip(lengths, intervals, strict=False)]
    if max(over) > max(UNEQUAL_STEPS, UNEQUAL * median(lengths)):
        at = over.index(max(over))
        LOG.warning(
            "frame %s: its exposure has %.6g steps, but that of frame %s starts after %.6g; a camera's exposures do "
            "not overlap, so check the exposure and the frame rate",
            frames[at], lengths[at], frames[at + 1], intervals[at])  # fmt: skip


def _number(path: Path, frame: str, cell: Cell) -> tuple[float, Unit | None]:
    if not _is_number(cell.text) or not math.isfinite(float(cell.text)):
        raise UserError(f"{path}: frame {frame} has the time '{cell.text}', expected a number; correct it")
    return float(cell.text), cell.column.unit


def _exposure(path: Path, frame: str, row: Row, clock: Clock, exposure: float | None, moment: Moment) -> Exposure:
    """Convert the row of a frame; arguments as of `from_file`."""
    begin, end, own = row.get("start") or row.get("time"), row.get("end"), row.get("exposure")
    if begin is None:
        raise UserError(f"{path}: frame {frame} has no time, only {', '.join(row) or 'nothing'}; add start and end")
    start = clock.step(*_number(path, frame, begin))
    if exposure is not None and (end or own):
        raise UserError(f"{path}: frame {frame} has its own exposure, --exposure another; leave one of them out")
    if moment != "start" and (end or "start" in row):
        raise UserError(
            f"--timestamp {moment}: {path} has the start of each exposure, expected one time per frame; leave the "
            "option out, or name the column time"
        )
    length = None if exposure is None else clock.steps(exposure)
    if own:
        length = clock.steps(*_number(path, frame, own))
    if end:
        last = clock.step(*_number(path, frame, end))
        between = f"{path}: frame {frame} has the exposure {begin.text} to {end.text}"
        if last <= start:
            raise UserError(f"{between}, expected an end after its start; correct it")
        if own and length is not None and abs(last - start - length) > max(UNEQUAL_STEPS, UNEQUAL * length):
            raise UserError(f"{between}, but {own.text} in the column {own.column.name}; correct or remove one of them")
        return Exposure(start, last)
    if length is None:
        raise UserError(f"{path}: frame {frame} has one time, expected start and end; add ends or give --exposure")
    first = start - length * MOMENTS.index(moment) / 2
    return Exposure(first, first + length)


def _by_name(path: Path, rows: list[Row], frames: Sequence[str]) -> list[Row]:
    """Return the rows of the frames; further rows are those of frames that were not kept."""
    known, named = set(frames), dict[str, Row]()
    for row in rows:
        text = row["frame"].text
        frame = next((name for name in (text, Path(text).name) if name in known), Path(text).stem)
        other = named.setdefault(frame, row)["frame"].text
        if other == text and named[frame] is not row:
            raise UserError(f"{path}: has two rows for {text}, expected one per frame; remove one")
        if other != text and frame in known:
            raise UserError(
                f"{path}: has two rows for frame {frame}: {other} and {text}; give each clip a file of its own times"
            )
    missing = [frame for frame in frames if frame not in named]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UserError(
            f"{path}: has no time for frame {missing[0]}{more}, only for {rows[0]['frame'].text}, ...; add its row or "
            "move the frame away"
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


def _text_rows(path: Path, text: str, frames: Sequence[str]) -> list[Row]:
    lines = [line.strip() for line in text.splitlines()]
    table = [_cells(path, line) for line in lines if line and not line.startswith("#")]
    if not table:
        raise UserError(f"{path}: is empty, expected one row of times per frame; give the times of the frames")
    if any(map(_key, table[0])) and not any(map(_is_number, table[0])):
        header = _header(path, table[0])
        return [_row(path, header, cells) for cells in table[1:]]
    first = table[0][0]
    is_named = len(table[0]) == 3 or (len(table[0]) == 2 and (first in frames or not _is_number(first)))
    return [_row(path, _columns(path, table[0], is_named), cells) for cells in table]


def _cells(path: Path, line: str) -> list[str]:
    """Split a line at semicolons, else tabs, else commas, else blanks; quoted cells stay whole."""
    mark = next((mark for mark in ";\t," if mark in line), " ")
    try:
        (cells,) = csv.reader([line], delimiter=mark, skipinitialspace=True, strict=True)
    except csv.Error as error:
        raise UserError(f"{path}: the row '{line}' cannot be read ({error}); correct its quotes") from None
    return [cell.strip() for cell in cells]


def _key(name: str) -> str:
    """Return the key in _COLUMNS of a column's name, "" if it is unknown."""
    match = _COLUMN.fullmatch(name.lower())
    own = match[1].strip().replace(" ", "_") if match else ""
    return next((key for key, known in _COLUMNS.items() if own in known), "")


def _header(path: Path, cells: Sequence[str]) -> list[Column]:
    """Return the columns that a header names."""
    columns: list[Column] = []
    for cell in cells:
        match, key, unit = _COLUMN.fullmatch(cell.lower()), _key(cell), None
        text = (match[2] or match[3] or "").strip() if match else ""
        if text and key not in ("", "frame"):
            unit = _SPELLINGS.get(text)
            if unit is None:
                raise UserError(
                    f"{path}: the column {cell} has the unit {text}, expected {', '.join(UNITS)}; convert or rename it"
                )
        same = ("start", "time") if key in ("start", "time") else (key,)
        twice = next((column for column in columns if key and column.key in same), None)
        if twice:
            raise UserError(
                f"{path}: has two columns with the {twice.key}, {twice.name} and {cell}; remove or rename one of them"
            )
        columns.append(Column(key, unit, cell))
    if not {"start", "time"} & {column.key for column in columns}:
        raise UserError(f"{path}: has the columns {', '.join(cells)}, expected frame, start, end; rename them")
    return columns


def _columns(path: Path, cells: list[str], is_named: bool) -> list[Column]:
    times = ["time"] if len(cells) == 1 + is_named else ["start", "end"]
    columns = ["frame"] * is_named + times
    if len(cells) != len(columns):
        raise UserError(f"{path}: has {len(cells)} columns and no header, expected frame, start, end; name the columns")
    return [Column(column) for column in columns]


def _row(path: Path, columns: list[Column], cells: list[str]) -> Row:
    if len(cells) != len(columns):
        raise UserError(
            f"{path}: the row '{' '.join(cells)}' has {len(cells)} cells, expected {len(columns)}; correct it"
        )
    return {column.key: Cell(cell, column) for column, cell in zip(columns, cells, strict=True) if column.key}


def _json_rows(path: Path, text: str) -> list[Row]:
    try:
        content = json.loads(text, object_pairs_hook=_unique)
    except ValueError as error:
        raise UserError(f"{path}: is not valid JSON ({error}), expected the times of the frames; correct it") from None
    if isinstance(content, dict):
        content = [[name, *(row if isinstance(row, list) else [row])] for name, row in content.items()]
    if not isinstance(content, list) or not content:
        raise UserError(f"{path}: holds no times, expected a list or an object of rows; see --help")
    rows = []
    for entry in content:
        if isinstance(entry, dict):
            rows.append(_row(path, _header(path, list(entry)), [str(value) for value in entry.values()]))
        else:
            cells = entry if isinstance(entry, list) else [entry]
            is_named = bool(cells) and isinstance(cells[0], str)
            rows.append(_row(path, _columns(path, cells, is_named), [str(cell) for cell in cells]))
    return rows


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of JSON pairs; raise ValueError if a key is in it twice."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key} occurs twice")
        found[key] = value
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
