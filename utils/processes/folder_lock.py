"""Folder locks: a small file names the one process that may write to a folder.

The file is created exclusively, which also works on network file systems without flock. It records host, process and
time, and its owner touches it every BEAT seconds. A dead process's lock is taken over: at once on the same machine,
where the process can be looked up, otherwise after SILENCE seconds without a touch.
"""

import json
import logging
import os
import re
import sys
import tempfile
import threading
import time
import uuid
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from utils.processes import signals
from utils.processes.identity import Process, this_process
from utils.utils_error import UserError, shown

LOG = logging.getLogger("spikevrt")
NAME = ".lock"  # file name of the lock inside its folder
BEAT, SILENCE = 10.0, 120.0  # seconds
POLL = 0.1  # seconds
TOKEN = re.compile(r"[0-9a-f]{16}")


class Owner(NamedTuple):
    """Content of a lock file."""

    token: str  # unique per lock; empty if the file is not a valid lock
    process: Process | None  # the one that made it; None if the file is not a valid lock
    since: str  # time of creation
    touched: float  # time of the last touch, by the file system's clock

    def __str__(self) -> str:
        if self.process is None:
            return "an unknown process (its lock is not readable)"
        return f"process {self.process.pid} on {self.process.host} since {self.since}"


class Lock:
    """A held lock, until `release`, the end of its context or the end of the process; `acquire` makes it."""

    def __init__(self, path: Path, token: str) -> None:
        self.path, self._token, self._pid = path, token, os.getpid()
        self._released = threading.Event()
        threading.Thread(target=self._beat, name=f"lock {path}", daemon=True).start()

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        """Release the lock. Calling it again, or in a forked process, does nothing."""
        if os.getpid() != self._pid or self._released.is_set():
            return
        self._released.set()
        _remove(self.path, self._token)

    def _beat(self) -> None:
        while not self._released.wait(BEAT):
            with suppress(OSError, UserError):  # the file system is temporarily away, or the folder is gone
                owner = _read(self.path)
                if owner is not None and owner.process is not None and owner.token != self._token:
                    self._end(owner)
                os.utime(self.path)

    def _end(self, owner: Owner) -> None:
        """End this process: it was silent for so long that another one took the lock."""
        if not self._released.is_set():
            sys.stderr.write(f"failure: {self.path.parent} was taken over by {owner}; this process stops\n")
            sys.stderr.flush()
            signals.end_children()
            os._exit(1)


def acquire(path: Path, what: str, advice: str, *, wait: float = 0.0) -> Lock:
    """Take a lock, a file in an existing folder, waiting up to `wait` seconds for the process that holds it to end.

    Raises UserError if another process holds it (one line with process, host and time, in which `what` names the
    protected thing and `advice` what to do), or the path is not a file; OSError if it cannot be written.
    """
    return Lock(path, _take(path, what, advice, wait))


def is_held(path: Path) -> bool:
    """Whether a lock's owner may be alive, on another machine because it touched it lately; raises as `acquire`."""
    owner = _read(path)
    if owner is None:
        return False
    alive = owner.process.is_alive() if owner.process is not None else None
    return _now(path.parent) - owner.touched <= SILENCE if alive is None else alive


def _take(path: Path, what: str, advice: str, wait: float) -> str:
    """Create the lock file and return its token."""
    asked, watched = time.monotonic(), _Watch(path)
    while (token := _create(path)) is None:
        owner = _read(path)
        if owner is None:
            continue
        alive = watched.is_alive(owner)
        if alive is False:
            _clear(path, owner)
        elif alive and time.monotonic() - asked >= wait:
            raise UserError(f"{what} is in use by {owner}; {advice} (its lock: {shown(path)})")
        else:
            time.sleep(POLL)
    return token


class _Watch:
    """Watches a lock whose owner cannot be looked up until it is clear whether that process is alive."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: Owner | None = None
        self._since = 0.0
        self._is_told = False

    def is_alive(self, owner: Owner) -> bool | None:
        """Whether the lock's owner is alive; None: look again."""
        alive = owner.process.is_alive() if owner.process is not None else None
        if alive is not None:
            return alive
        if self._seen is not None and self._seen.token == owner.token:
            if self._seen.touched != owner.touched:
                return True
        else:
            self._seen, self._since, self._is_told = owner, time.monotonic(), False
        waited = time.monotonic() - self._since
        if max(_now(self.path.parent) - owner.touched, waited) > SILENCE:
            return False
        if waited > BEAT and not self._is_told:  # most locks are held for less
            LOG.info("%s is held by %s: waiting for a sign of life, %g s at most", shown(self.path), owner, SILENCE)
            self._is_told = True
        return None


def _create(path: Path) -> str | None:
    """Create a lock file and return its token; None if the file exists."""
    token, me = uuid.uuid4().hex[:16], this_process()
    since = datetime.now().astimezone().isoformat(" ", "seconds")
    record = {"host": me.host, "pid": me.pid, "since": since, "started": me.started, "machine": me.machine}
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return None
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps({**record, "token": token}) + "\n")
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return token


def _read(path: Path) -> Owner | None:
    """Read the owner from a lock file; None if there is no such file, UserError if it is a folder or a broken link."""
    try:
        with path.open("rb") as file:  # opening makes a network file system ask its server
            content, touched = file.read(4096), os.fstat(file.fileno()).st_mtime
    except (FileNotFoundError, IsADirectoryError):
        if not path.is_dir() and not path.is_symlink():
            return None
        raise UserError(f"{path}: is not a file, expected a lock or nothing; remove it") from None
    try:
        found = json.loads(content)
        process = Process(str(found["host"]), int(found["pid"]), int(found["started"]), str(found["machine"]))
        token, since = str(found["token"]), str(found["since"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):  # not JSON, or not a lock
        return Owner("", None, "", touched)
    return Owner(token, process, since, touched) if TOKEN.fullmatch(token) else Owner("", None, "", touched)


def _clear(path: Path, owner: Owner) -> None:
    """Remove the lock of a dead owner, unless another process did.

    The token itself is locked meanwhile, so no other process removes this lock and a new owner's file is never removed.
    """
    right = path.with_name(f".{owner.token or 'unreadable'}{NAME}")
    token = _take(right, str(path), "try again", SILENCE)
    try:
        now = _read(path)
        if now is not None and (now.token, now.touched) == (owner.token, owner.touched):
            path.unlink()
    finally:
        _remove(right, token)


def _remove(path: Path, token: str) -> None:
    """Remove this process's lock file, unless another process owns it now or it is out of reach."""
    with suppress(OSError, UserError):
        owner = _read(path)
        if owner is not None and owner.token == token:
            path.unlink()


def _now(folder: Path) -> float:
    """Current time by the clock of the folder's file system, which may be another machine's."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_mtime
