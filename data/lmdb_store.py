"""Read clips from an LMDB folder in the layout of KAIR and BasicSR: data.mdb and meta_info.txt.

A key is `<clip>/<frame>` (no extension), its value the bytes of the frame's file. meta_info.txt has one line per key,
`<clip>/<frame>.<ext> (<size>) <level>`: `(720,1280,3) 1` for a PNG frame of compression level 1, `(88,360,640) 0` for
88 spike steps. The order of the lines does not matter.
"""

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from data.frame_order import by_number
from utils.utils_error import UserError, shown
from utils.utils_file import own_name, read_text, safe_name

if TYPE_CHECKING:
    import lmdb

DATA, META = "data.mdb", "meta_info.txt"
META_LINE = re.compile(
    r"(?P<clip>.+)/(?P<frame>[^/]+)\.(?P<ext>\w+)\s+\((?P<size>\d+(?:,\s*\d+)*)\)\s+(?P<compression>\d+)"
)
MAKE_AGAIN = "copy it again or create it with scripts/data_preparation/create_lmdb.py --force"

# (device, inode) of a data.mdb -> the process that opened it, its environment, the bytes that it needs. An
# environment is opened once per process and never closed, so that the results of `get` stay valid.
_OPEN: dict[tuple[int, int], tuple[int, "lmdb.Environment", int]] = {}


class Entry(NamedTuple):
    """The line of meta_info.txt for one key."""

    name: str  # `<frame>.<ext>`
    size: tuple[int, ...]  # (H, W, C) of a frame, (T, H, W) of spikes
    compression: int  # PNG level, 0 for spikes


def is_lmdb(path: Path | str) -> bool:
    """Return whether a path is an LMDB folder, that is, contains data.mdb."""
    return (Path(path) / DATA).is_file()


def lmdb_path(folder: Path) -> Path:
    """Return the path of a folder's LMDB: `<folder>.lmdb` beside it."""
    return folder if folder.suffix == ".lmdb" else folder.with_name(f"{folder.name}.lmdb")


def record_path(target: Path) -> Path:
    """Return the path of an LMDB writer's record of its source files."""
    return target.with_name(f".{target.name}.sources.json")


def stamp_of(path: Path) -> tuple[int, int, int]:
    """Return size in bytes, mtime and ctime in ns; ctime changes even if an older file replaces this one."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def read_stamps(target: Path) -> dict[str, list[int]]:
    """Read the stamps of an LMDB's source files by key; empty if there is no record or it belongs to another LMDB."""
    try:
        record = json.loads(read_text(record_path(target)))
        return dict(record["files"]) if record["data"] == list(stamp_of(target / DATA)) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def key_of(clip: str, frame: str) -> bytes:
    """Return the key of a frame."""
    return f"{clip}/{frame}".encode("utf-8", "surrogateescape")


class LmdbStore:
    """An LMDB folder, checked at construction; can be pickled, and read after a fork.

    Raises:
        UserError: data.mdb or meta_info.txt is missing, damaged or truncated, or they do not match.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self._shown, self._data = shown(self.root / DATA), os.fspath(self.root.resolve() / DATA)
        self._entries = _read_meta_info(self.root / META)
        lines = sum(map(len, self._entries.values()))
        found = self._environment().stat()["entries"]
        if found < lines:
            raise UserError(f"{self._shown}: holds {found} keys, its {META} names {lines}; {MAKE_AGAIN}")

    def clips(self) -> dict[str, tuple[str, ...]]:
        """Return the frame names of each clip, without extension, sorted by number; clips are sorted."""
        return {clip: tuple(entries) for clip, entries in self._entries.items()}

    def own(self, clip: str) -> str:
        """Return the clip's name as stored here, which may be in another Unicode form."""
        return own_name(clip, self._entries)

    def frames(self, clip: str) -> tuple[str, ...]:
        """Return a clip's frame names as `clips` does; empty if there is no such clip."""
        return tuple(self._entries.get(self.own(clip), ()))

    def entry(self, clip: str, frame: str) -> Entry:
        """Return a frame's entry in meta_info.txt; UserError if there is none."""
        try:
            return self._entries[self.own(clip)][frame]
        except KeyError:
            raise UserError(
                f"clip {clip} frame {frame}: {self.root / META} has no line for {clip}/{frame}; {MAKE_AGAIN}"
            ) from None

    def get(self, clip: str, frame: str) -> np.ndarray:
        """Return the stored bytes of a frame, (n,) uint8: memory of the file, valid for the life of this process.

        Raises:
            UserError: the key or the file is missing, or the file is truncated; names clip and frame.
        """
        import lmdb

        try:
            with self._environment().begin(buffers=True) as transaction:
                value = transaction.get(key_of(self.own(clip), frame))
        except (UserError, lmdb.Error) as error:
            raise UserError(f"clip {clip} frame {frame}: {error}") from None
        if value is None:
            raise UserError(f"clip {clip} frame {frame}: {self._shown} has no key {clip}/{frame}; {MAKE_AGAIN}")
        return np.frombuffer(value, dtype=np.uint8)

    def _environment(self) -> "lmdb.Environment":
        """Return this process's environment of data.mdb, after checking its size: reading missing pages is fatal."""
        try:
            status = os.stat(self._data)
        except OSError as error:
            raise UserError(
                f"{self._shown}: cannot be read ({error.strerror}), expected an LMDB; correct the path or create it"
            ) from None
        place = status.st_dev, status.st_ino
        if place in _OPEN and _OPEN[place][0] != os.getpid():
            _OPEN.pop(place)[1].close()  # a forked process must not use its parent's; the parent keeps its own
        if place not in _OPEN:
            environment = self._open()
            needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
            _OPEN[place] = os.getpid(), environment, needed
        _, environment, needed = _OPEN[place]
        if status.st_size < needed:
            raise UserError(f"{self._shown}: is truncated, {status.st_size} of {needed} bytes; {MAKE_AGAIN}")
        return environment

    def _open(self) -> "lmdb.Environment":
        import lmdb

        folder = os.path.dirname(self._data)
        try:
            return lmdb.open(folder, create=False, readonly=True, lock=False, readahead=False, meminit=False)
        except lmdb.Error as error:
            raise UserError(f"{self._shown}: is not a readable LMDB ({error}); {MAKE_AGAIN}") from None


def _read_meta_info(path: Path) -> dict[str, dict[str, Entry]]:
    """Read meta_info.txt: entries by clip, sorted by name, then by frame, sorted by number."""
    try:
        lines = read_text(path, "surrogateescape").splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}), expected one line per key; {MAKE_AGAIN}") from None
    clips: dict[str, dict[str, Entry]] = {}
    for number, line in enumerate(lines, start=1):
        match = META_LINE.fullmatch(line.strip())
        entries = clips.setdefault(safe_name(match["clip"], f"{path} line {number}"), {}) if match else {}
        if match is None or match["frame"] in entries:
            what = "is a second line for the same key" if match else "is not `clip/frame.ext (sizes) level`"
            raise UserError(f"{path} line {number}: '{line.strip()}' {what}; {MAKE_AGAIN}")
        size = tuple(map(int, match["size"].split(",")))
        entries[match["frame"]] = Entry(f"{match['frame']}.{match['ext']}", size, int(match["compression"]))
    if not clips:
        raise UserError(f"{path}: is empty, expected one line `clip/frame.ext (sizes) level` per key; {MAKE_AGAIN}")
    return {clip: {frame: clips[clip][frame] for frame in by_number(clips[clip])} for clip in sorted(clips)}
