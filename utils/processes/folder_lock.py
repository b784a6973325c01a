"""Locks of folders: a small file names the process that writes there, and nobody else does so meanwhile.

The file is made exclusively, which network file systems can do as well; flock is not needed. It names host, process and
time. A lock of a process that has ended is taken over: at once where processes can be looked up, which is on the same
machine, else when its file was not touched for SILENCE seconds. Its owner touches it every BEAT seconds.
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
from utils.utils_error import UserError

LOG = logging.getLogger("spikevrt")
NAME = ".lock"  # of the lock of a whole folder, inside it
BEAT, SILENCE = 10.0, 120.0  # seconds
POLL = 0.1  # seconds
TOKEN = re.compile(r"[0-9a-f]{16}")


class Owner(NamedTuple):
    """What a lock's file says.

    Attributes:
        token: no two locks have the same; empty where the file is not readable as a lock.
        process: who made it; None where the file is not readable as a lock.
        since: when, in words.
        touched: time of the last touch, by the clock of the file system.
    """

    token: str
    process: Process | None
    since: str
    touched: float

    def __str__(self) -> str:
        if self.process is None:
            return "a process that its lock does not name"
        return f"process {self.process.pid} on {self.process.host} since {self.since}"


class Lock:
    """A lock that is held, until `release`, the end of its context or that of the process.

    Args:
        path: the lock's file, in an existing folder.
        token: what `acquire` has written there.
    """

    def __init__(self, path: Path, token: str) -> None:
        self.path, self._token, self._pid = path, token, os.getpid()
        self._released = threading.Event()
        threading.Thread(target=self._beat, name=f"lock {path}", daemon=True).start()

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        """Give it back; more than once does no harm, and a forked process has nothing to give back."""
        if os.getpid() != self._pid or self._released.is_set():
            return
        self._released.set()
        _remove(self.path, self._token)

    def _beat(self) -> None:
        while not self._released.wait(BEAT):
            with suppress(OSError, UserError):  # the file system is away for a while, or the folder is gone
                owner = _read(self.path)
                if owner is not None and owner.process is not None and owner.token != self._token:
                    self._end(owner)
                os.utime(self.path)

    def _end(self, owner: Owner) -> None:
        """End this process, which was silent for so long that another one took its place."""
        if not self._released.is_set():
            sys.stderr.write(f"failure: {self.path.parent} was taken over by {owner}; this process stops\n")
            sys.stderr.flush()
            signals.end_children()
            os._exit(1)


def acquire(path: Path, what: str, advice: str, *, wait: float = 0.0) -> Lock:
    """Take a lock.

    Args:
        path: its file, in an existing folder.
        what: what it protects, for the message.
        advice: what to do where another process has it, for the message.
        wait: seconds to wait for that one's end.

    Raises:
        UserError: another process has it; one line with that process, its host and since when. Or it is no file.
        OSError: the file cannot be written.
    """
    return Lock(path, _take(path, what, advice, wait))


def _take(path: Path, what: str, advice: str, wait: float) -> str:
    """Make the lock's file and return its token."""
    asked, watched = time.monotonic(), _Watch(path)
    while (token := _create(path)) is None:
        owner = _read(path)
        if owner is None:
            continue
        alive = watched.is_alive(owner)
        if alive is False:
            _clear(path, owner)
        elif alive and time.monotonic() - asked >= wait:
            raise UserError(f"{what} is in use by {owner}; {advice} (its lock: {path})")
        else:
            time.sleep(POLL)
    return token


class _Watch:
    """Watches a lock whose owner cannot be looked up, until it is clear whether that one lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: Owner | None = None
        self._since = 0.0

    def is_alive(self, owner: Owner) -> bool | None:
        """Whether the owner of the lock lives; None: look again."""
        alive = owner.process.is_alive() if owner.process is not None else None
        if alive is not None:
            return alive
        if self._seen is not None and self._seen.token == owner.token:
            if self._seen.touched != owner.touched:
                return True
        else:
            self._seen, self._since = owner, time.monotonic()
            if _now(self.path.parent) - owner.touched <= SILENCE:
                LOG.info("%s is held by %s: waiting for a sign of life, %g s at most", self.path, owner, SILENCE)
        silent = max(_now(self.path.parent) - owner.touched, time.monotonic() - self._since)
        return False if silent > SILENCE else None


def _create(path: Path) -> str | None:
    """Make a lock's file, return its token; None: there is one."""
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
    """The owner that a lock's file names; None: there is no such file.

    Raises:
        UserError: it is a folder, or a link that leads nowhere.
    """
    try:
        with path.open("rb") as file:  # to open it makes a network file system ask its server
            content, touched = file.read(4096), os.fstat(file.fileno()).st_mtime
    except (FileNotFoundError, IsADirectoryError):
        if not path.is_dir() and not path.is_symlink():
            return None
        raise UserError(f"{path}: is no file, expected a lock or nothing; remove it") from None
    try:
        found = json.loads(content)
        process = Process(str(found["host"]), int(found["pid"]), int(found["started"]), str(found["machine"]))
        token, since = str(found["token"]), str(found["since"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):  # no JSON, or none of ours
        return Owner("", None, "", touched)
    return Owner(token, process, since, touched) if TOKEN.fullmatch(token) else Owner("", None, "", touched)


def _clear(path: Path, owner: Owner) -> None:
    """Remove the lock of an owner that has ended, unless another process did: its token is itself locked for that.

    Nobody else removes a file with this token meanwhile, so it is never a new owner's file that goes.
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
    """Remove an own lock's file; where it has become another one's, or is out of reach, it stays."""
    with suppress(OSError, UserError):
        owner = _read(path)
        if owner is not None and owner.token == token:
            path.unlink()


def _now(folder: Path) -> float:
    """Time by the clock of a folder's file system, which may be another machine's."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_mtime
