"""Atomic file writes, safe file names, and text in any common encoding.

Python represents file names that are not UTF-8 with surrogates, and such strings cannot be encoded as UTF-8.
"""

import codecs
import errno
import hashlib
import os
import re
import shutil
import time
import unicodedata
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.processes.identity import Process, this_process
from utils.utils_error import UserError

# Names the process with its start and machine.
TEMPORARY = re.compile(r"\..*\.(?P<pid>\d+)-(?P<started>[0-9a-f]+)-(?P<machine>[0-9a-f]{8})\.tmp(?:\.[^.]+)?")
ABANDONED = 3600.0  # seconds without a change after which another machine's temporary file counts as abandoned
BLOCK = 2**20  # bytes read at once

_writing: set[Path] = set()  # unfinished temporary files of this process
MARKS = {  # byte order mark -> encoding; UTF-32 before UTF-16, as its marks begin the same way
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class DiskError(RuntimeError):
    """Something could not be written; one line with its path, the reason, what is kept and what to do."""


def digest(path: Path, start: int = 0) -> str:
    """SHA-256 of a file's bytes from `start` on, as hex digits."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(start)
        while block := file.read(BLOCK):
            sha.update(block)
    return sha.hexdigest()


@contextmanager
def disk_errors_in_words(
    path: Path, advice: str, *, what: str = "", kind: type[Exception] = DiskError
) -> Iterator[None]:
    """Turn an OSError of a full, read-only or missing disk into one line, raised as `kind`.

    `path` is the file or folder being written, `advice` says what is kept and what to do, `what` what is being written,
    if the path does not say it.
    """
    try:
        yield
    except OSError as error:
        lost, reason = f"{what} could not be written: " if what else "", error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            parent = next(folder for folder in (path, *path.parents) if folder.is_dir())
            reason += f", {shutil.disk_usage(parent).free / 2**20:.0f} MiB free"
        raise kind(f"{path}: {lost}{reason}; {advice}") from error


@contextmanager
def whole_file(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path next to `path`, with its suffix, which replaces `path` if no error occurred.

    Content and rename are synced to disk, so a crash leaves the old or the new file. Missing folders are created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    _writing.add(temporary)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        _writing.discard(temporary)
        temporary.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """A path next to `path` that is unique to this process and identifies it."""
    me = this_process()
    return path.with_name(f".{path.stem}.{me.pid}-{me.started:x}-{me.machine}.tmp{path.suffix}")


def abandoned(folder: Path) -> list[Path]:
    """Temporary files in a folder whose process was killed."""
    return [path for path in folder.glob(".*.tmp*") if _is_abandoned(path)]


def sweep(*folders: Path) -> None:
    """Remove the temporary files of killed processes from folders."""
    for folder in folders:
        for path in abandoned(folder):
            path.unlink(missing_ok=True)


def safe_name(name: str, where: object) -> str:
    """Return the name of a clip or frame, such as `00001/0001`; UserError if it could lead out of its folder.

    `where` is the file that it was read from, and the line if it has lines, for the message.
    """
    is_on_drive = re.match(r"[A-Za-z]:", name)  # on Windows; "1:30" is an ordinary name
    if any(part in ("", "..") for part in re.split(r"[/\\]", name)) or is_on_drive or "\0" in name:
        raise UserError(
            f"{where}: the name {name!r} could lead out of its folder, expected one without .., empty parts or a "
            "drive; correct the file, or do not use it if you do not trust its source"
        )
    return name


def read_text(path: Path | str, errors: str = "strict") -> str:
    """Read a text file: UTF-8 with or without a byte order mark, or UTF-16 with one; line ends become "\\n".

    `errors` as for bytes.decode; "surrogateescape" reads names as `write_text(.., names=True)` writes them. Raises
    OSError if it cannot be read, UserError if it is not such a text.
    """
    data = Path(path).read_bytes()
    encoding = next((encoding for mark, encoding in MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding, errors)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: is not {encoding.upper().removesuffix('-SIG')} text (byte 0x{data[error.start]:02x} at "
            f"{error.start}); save it as UTF-8"
        ) from None
    if errors == "strict" and "\0" in text:
        raise UserError(f"{path}: contains NUL bytes, expected UTF-8 text (UTF-16 needs a mark); save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def write_text(path: Path | str, text: str, *, names: bool = False) -> None:
    """Write a UTF-8 text file atomically.

    With `names`, file names that are not UTF-8 are written as their bytes, so that they can be read back, else as
    `printable` shows them.
    """
    data = text.encode("utf-8", "surrogateescape") if names else printable(text).encode("utf-8")
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def printable(text: str) -> str:
    """Make a text encodable: bytes of names that are not UTF-8 become \\xb3 and the like."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # surrogates that stand for no byte
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def own_name(wanted: str, there: Collection[str]) -> str:
    """Find the wanted name among others, possibly in another Unicode form; if absent, return it unchanged.

    macOS writes accents as separate characters (NFD), other systems as part of the letter (NFC); both look the same.
    """
    if wanted.isascii() or wanted in there:
        return wanted
    return next((name for name in there if one_form(name) == one_form(wanted)), wanted)


def own_path(root: Path, wanted: str) -> Path:
    """`root / wanted`, with each part spelled as on disk, see `own_name`."""
    path = root
    for part in Path(wanted).parts:
        known = part.isascii() or (path / part).exists() or not path.is_dir()
        path = path / (part if known else own_name(part, [inner.name for inner in path.iterdir()]))
    return path


def one_form(name: str) -> str:
    """A name in Unicode form NFC, whatever the file system's encoding, so that equal names compare equal."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    return unicodedata.normalize("NFC", text)


def sync_folder(folder: Path) -> None:
    """Sync a folder's entries to disk, if its file system supports that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _is_abandoned(path: Path) -> bool:
    match = TEMPORARY.fullmatch(path.name)
    if match is None:
        return False
    process, me = Process("", int(match["pid"]), int(match["started"], 16), match["machine"]), this_process()
    if (process.pid, process.started, process.machine) == (me.pid, me.started, me.machine):
        return path not in _writing
    alive = process.is_alive()
    if alive is not None:
        return not alive
    try:
        return time.time() - path.lstat().st_mtime > ABANDONED
    except FileNotFoundError:
        return False
