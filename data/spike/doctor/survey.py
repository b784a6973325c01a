"""Survey every spike file below a folder, with a few lines per folder."""

from collections import Counter
from pathlib import Path
from typing import Any

from data.frame_order import by_number
from data.geometry import size_text
from data.spike.description import SPIKE_SUFFIXES
from data.spike.doctor.declared import Declared, Given, Size, declared_for, refuse_unused
from data.spike.doctor.examine import Report, examine
from data.spike.doctor.inspection import check_timing, inspect_file
from data.spike.formats import format_of, open_spikes
from utils.spike_loader import packed_bytes
from utils.utils_error import UserError, counted
from utils.utils_progress import progress


def survey(root: Path, given: Given | None = None) -> list[dict[str, Any]]:
    """Check size, step count and bit order of every spike file below a folder, and inspect the first of each size.

    Args:
        root: the folder.
        given: the user's declarations about all files.

    Returns:
        One dict per folder: `folder`, `files` (count), `shapes` (counts by TxHxW), `wrong`, `notes`.

    Raises:
        UserError: there are no spike files below the folder.
    """
    found = [path for path in root.rglob("*") if path.suffix in SPIKE_SUFFIXES and not path.name.startswith(".")]
    paths = [root / name for name in by_number(str(path.relative_to(root)) for path in found)]
    if not paths:
        raise UserError(f"{root}: no spike files (.dat, .npy, .npz) below it; give a folder with spikes")
    folders: dict[Path, list[Path]] = {}
    for path in paths:
        folders.setdefault(path.parent, []).append(path)
    with progress(total=len(paths), what="inspect", unit="file") as bar:
        return [_folder(folder, files, given or Given(), bar) for folder, files in folders.items()]


def text(rows: list[dict[str, Any]]) -> str:
    """Format a survey as text: one line per folder, and one per error or note."""
    lines = []
    for row in rows:
        shapes = ", ".join(f"{count} of {shape}" for shape, count in row["shapes"].items())
        lines.append(f"{row['folder']}: {counted(row['files'], 'file')}: {shapes or 'none can be read'}")
        lines += [f"  note: {note}" for note in row["notes"]]
        lines += [f"  WRONG: {line}" for line in row["wrong"]]
    bad = sum(bool(row["wrong"]) for row in rows)
    lines.append(f"something is wrong in {bad} of {counted(len(rows), 'folder')}" if bad else "nothing wrong found")
    return "\n".join(lines)


def _folder(folder: Path, files: list[Path], given: Given, bar: Any) -> dict[str, Any]:
    """Inspect the first file of each size fully, and the others only for what may differ between files."""
    shapes: Counter[str] = Counter()
    sizes: set[Size] = set()
    notes: list[str] = []
    wrong: list[str] = []
    for path in files:
        bar.update()
        try:
            declared = declared_for(path, given)
            refuse_unused(path, format_of(path), given)
            report = _quick(path, declared)
            if report.size in sizes:
                report.notes.clear()
                check_timing(report, path, declared, may_be_short=path == files[-1])
            else:
                sizes.add(report.size)
                report = inspect_file(path, given)
            notes += [f"{path.name}: {note}" for note in report.notes]
            wrong += [f"{path.name}: {line}" for line in report.wrong]
            shapes[f"{report.steps}x{size_text(report.size)}"] += 1
        except UserError as error:
            wrong.append(str(error))
    row: dict[str, Any] = {"folder": str(folder), "files": len(files), "shapes": dict(shapes)}
    return row | {"wrong": _merged(list(dict.fromkeys(wrong))), "notes": list(dict.fromkeys(notes))}


def _quick(path: Path, declared: Declared) -> Report:
    """Examine only one file's size and bit order."""
    kind = format_of(path)
    if kind == "dat":
        return examine(packed_bytes(path), str(path), declared)
    _, found = open_spikes(path, format=kind, steps=(0, 1))
    size = found.height, found.width
    return Report(str(path), path.stat().st_size, kind, size, found.steps, None, False)


def _merged(lines: list[str]) -> list[str]:
    """Merge equal lines of several files into one: FIRST and N more."""
    by_text: dict[str, list[str]] = {}
    for line in lines:
        name, _, what = line.partition(": ")
        by_text.setdefault(what or name, []).append(name)
    return [
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {what}"
        for what, names in by_text.items()
    ]
