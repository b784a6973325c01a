"""Which process, on which machine: tells a process that lives from one that is gone."""

import functools
import hashlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """One process, told from all others also after its number was given to another one.

    Attributes:
        host: name of its machine, for people.
        pid: its number.
        started: clock ticks from the machine's start to its own; 0 where the system does not say.
        machine: 8 hex digits, the same for all processes that count each other by the same numbers: those of one
            start of one machine and, of containers, of one container.
    """

    host: str
    pid: int
    started: int
    machine: str

    def is_alive(self) -> bool | None:
        """Whether it still runs; None: it cannot be seen from here."""
        if self.machine != _machine():
            return None
        try:
            started = _started(self.pid)
        except ProcessLookupError:
            return False
        return None if started is None else started == self.started


def this_process() -> Process:
    """The process that asks."""
    return Process(socket.gethostname(), os.getpid(), _started(os.getpid()) or 0, _machine())


def has_pid(pid: int) -> bool:
    """Whether any process here has a number."""
    try:
        _started(pid)
    except ProcessLookupError:
        return False
    return True


def _started(pid: int) -> int | None:
    """Start of a process in clock ticks; None: there is one, and the system says no more of it.

    Raises:
        ProcessLookupError: there is none, or it has ended and nobody has waited for it.
    """
    try:
        # The second field, the name in brackets, may hold anything; the state is the 3rd, the start the 22nd.
        state, *fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        started = int(fields[18])
    except (OSError, ValueError, IndexError):
        try:
            os.kill(pid, 0)
        except PermissionError:
            return None
        except OverflowError:
            raise ProcessLookupError from None
        return None
    if state in (b"Z", b"X"):
        raise ProcessLookupError
    return started


@functools.cache
def _machine() -> str:
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii") + os.readlink("/proc/self/ns/pid")
    except OSError:
        text = socket.gethostname()
    return hashlib.sha256(text.encode()).hexdigest()[:8]
