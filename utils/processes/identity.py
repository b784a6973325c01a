"""Identify processes across machines, to tell live ones from dead ones."""

import functools
import hashlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """One process, identified uniquely even after its pid is reused."""

    host: str  # name of its machine, for display
    pid: int
    started: int  # in clock ticks since boot; 0 if unknown
    machine: str  # 8 hex digits that identify the boot and the pid namespace (container)

    def is_alive(self) -> bool | None:
        """Whether it still runs; None if that cannot be seen from here."""
        if self.machine != _machine():
            return None
        try:
            started = _started(self.pid)
        except ProcessLookupError:
            return False
        return None if started is None else started == self.started


def this_process() -> Process:
    """The current process."""
    return Process(socket.gethostname(), os.getpid(), _started(os.getpid()) or 0, _machine())


def _started(pid: int) -> int | None:
    """Start of a process in clock ticks since boot; None if unknown. ProcessLookupError if it is gone, or a zombie."""
    try:
        # The 2nd field, the name in parentheses, may contain anything; the state is the 3rd field, the start the 22nd.
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
