"""The report of an alignment: one row per clip, for people and for programs."""

from pathlib import Path
from typing import Any

import numpy as np

from data.spike.align.camera_pair import Aligned, Row
from data.spike.alignment import Alignment
from utils.spike_loader import Size

OFF = "off by -> known to (spike px)"
HEAD = ("clip", "model", "right, down (spike px)", "turn (deg)", "scale", "steps", OFF, "correlation")
NOTABLE = 0.01  # share of a frame that the sensor does not see


def text(found: Aligned, *, is_written: bool) -> str:
    """Return the table, and what is to be said about it."""
    cells = [HEAD, *(_cells(row) for row in found.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    lines += [f"clip {row.clip}: {row.note}" for row in found.rows if row.note]
    unseen = [row for row in found.rows if row.outside > NOTABLE]
    if unseen:
        worst = max(unseen, key=lambda row: row.outside)
        lines.append(
            f"the sensor does not see up to {100 * worst.outside:.0f} % of a frame (clip {worst.clip}); its border is "
            "repeated there"
        )
    lines += found.lines
    path = found.path.relative_to(Path.cwd()) if found.path.is_relative_to(Path.cwd()) else found.path
    lines.append(f"{path}: {'written' if is_written else 'not changed (--dry-run)'}")
    return "\n".join(lines)


def values(found: Aligned, *, is_written: bool) -> dict[str, Any]:
    """Return the report as JSON values."""
    return {
        "manifest": str(found.path),
        "written": is_written,
        "clips": [_values(row) for row in found.rows],
        "remarks": found.lines,
    }


def _cells(row: Row) -> tuple[str, ...]:
    if row.alignment is None:
        return row.clip, *["-"] * (len(HEAD) - 1)
    (right, down), turn, scale = parts_of(row.alignment, row.size)
    error, late = row.alignment.error, row.alignment.steps_error
    off, steps = row.off or (0.0, 0.0)
    longer = f" ({row.alignment.longer:+d} long)" if row.alignment.longer else ""
    known = "" if late is None else f" +- {late:.1f}"
    agree = "{:.3f} -> {:.3f}".format(*row.correlation) if row.correlation else "-"
    return (
        row.clip,
        row.alignment.model,
        f"{right:+.2f}, {down:+.2f}",
        f"{turn:+.2f}",
        f"{scale:.4f}",
        f"{row.alignment.steps:+d}{longer}{known}",
        f"{off:.2f} -> {error or 0:.2f}",
        agree,
    )


def _values(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {"clip": row.clip, "note": row.note}
    if row.alignment is None:
        return found | {"alignment": None}
    shift, turn, scale = parts_of(row.alignment, row.size)
    return found | {
        "alignment": row.alignment.model_dump(mode="json"),
        "shift": shift,
        "turn": turn,
        "scale": scale,
        "off": row.off,
        "correlation": row.correlation,
        "outside": row.outside,
    }


def parts_of(alignment: Alignment, size: Size) -> tuple[tuple[float, float], float, float]:
    """Return where the middle of the frame goes, (right, down) in pixels; turn in degrees, clockwise; scale."""
    matrix = np.array(alignment.matrix)
    middle = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2, 1])
    there = matrix @ middle
    right, down = there[:2] / there[2] - middle[:2]
    turn = np.degrees(np.arctan2(matrix[1, 0] - matrix[0, 1], matrix[0, 0] + matrix[1, 1]))
    scale = np.sqrt(abs(np.linalg.det(matrix[:2, :2]))) / matrix[2, 2]
    return (float(right), float(down)), float(turn), float(scale)
