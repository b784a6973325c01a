"""Read meta_info files, which list the clips of a data set: one line `clip frames (h,w,c) start` per clip."""

import re
from pathlib import Path
from typing import NamedTuple

from utils.utils_error import UserError
from utils.utils_file import read_text, safe_name

_LINE = re.compile(r"(\S+)\s+([1-9]\d*)\s+\(([^)]*)\)(?:\s+(\d+))?")


class MetaLine(NamedTuple):
    """One line: clip name, number of frames, size "H,W,C" of the RGB frames, number of the first frame or None."""

    clip: str
    frames: int
    size: str
    start: str | None

    def __str__(self) -> str:
        return f"{self.clip} {self.frames} ({self.size})" + (f" {self.start}" if self.start else "")


def read_meta_info(path: Path) -> dict[str, MetaLine]:
    """Read a meta_info file by clip name; blank lines are skipped.

    Raises:
        UserError: the file is missing or empty, or a line is malformed; names file and line.
    """
    if not path.is_file():
        raise UserError(f"meta_info_file: {path} does not exist; correct the path or use null to scan the folders")
    clips: dict[str, MetaLine] = {}
    for number, line in enumerate(read_text(path, "surrogateescape").splitlines(), start=1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None or match[1] in clips:
            what = "is a second line for the same clip" if match else "is not `clip count (h,w,c) start`"
            raise UserError(f"{path} line {number}: '{line.strip()}' {what}; correct the line")
        safe_name(match[1], f"{path} line {number}")
        clips[match[1]] = MetaLine(match[1], int(match[2]), match[3], match[4])
    if not clips:
        raise UserError(f"{path}: names no clip, expected one line `clip count (h,w,c) start` per clip")
    return clips
