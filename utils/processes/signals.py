"""Signals that ask a run to stop: the current step is finished, and the program decides what to save."""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
PR_SET_PDEATHSIG = 1  # of prctl(2): the signal that a process gets when its parent ends
SAME_REQUEST = 1.0  # seconds within which one request may arrive twice: from a terminal or SLURM, and from the launcher


class StoppedError(Exception):
    """Work ended early on request."""


@dataclass
class StopRequest:
    """Whether the program was asked to stop."""

    name: str | None = None  # the signal received, such as "SIGTERM"; None until then


_requests: list[StopRequest] = []  # one per active context


def is_asked() -> bool:
    """Whether a signal asked the program to stop; works in any thread, even while the main one is blocked."""
    return any(request.name is not None for request in _requests)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Context in which SIGTERM, SIGUSR1 and Ctrl-C only ask to stop; a second signal ends the process at once.

    The first signal sets the `name` of the yielded request, to be checked between steps. Another one, a second or more
    later, ends this process and its children with exit code 128 + signal number, even while the main thread is blocked
    in a library. Main thread only.
    """
    request = StopRequest()
    ours, pythons = socket.socketpair()
    pythons.setblocking(False)
    watcher = threading.Thread(target=_watch, args=(ours, request), name="signals", daemon=True)
    before = {number: signal.signal(number, _leave_to_watcher) for number in STOP_SIGNALS}
    blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # a parent may have left them blocked
    previous = signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)
    watcher.start()
    _requests.append(request)
    try:
        yield request
    finally:
        _requests.remove(request)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.set_wakeup_fd(previous)
        for number, handler in before.items():
            signal.signal(number, handler)
        pythons.shutdown(socket.SHUT_RDWR)  # closing is not enough: forked data workers hold it as well
        watcher.join()
        pythons.close()
        ours.close()


def ignore_in_worker() -> None:
    """Make a data worker ignore signals to the process group; it ends with the process that reads from it.

    A worker that outlived that process would keep its connections open, and other processes would not see them closed.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.set_wakeup_fd(-1)
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def end_children() -> None:
    """Kill all processes that this one started through `multiprocessing`."""
    for child in multiprocessing.active_children():
        child.kill()


def _leave_to_watcher(number: int, frame: object) -> None:
    """Do nothing: Python writes to the wakeup descriptor only for signals that have a Python handler."""


def _watch(signals: socket.socket, request: StopRequest) -> None:
    """Read signal numbers, one byte each, until the other end is shut down."""
    first = 0.0
    while received := signals.recv(64):
        for number in received:
            if number not in STOP_SIGNALS:
                continue
            if request.name is None:
                first, request.name = time.monotonic(), signal.Signals(number).name
            elif time.monotonic() - first > SAME_REQUEST:
                end_children()
                os._exit(128 + number)
