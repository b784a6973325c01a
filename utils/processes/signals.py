"""Signals that ask a run to stop: the step in flight is finished, what it leaves behind is the program's choice."""

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
PR_SET_PDEATHSIG = 1  # of prctl(2): the signal that a process gets when its parent has ended
SAME_REQUEST = 1.0  # seconds in which one request may arrive again: from a terminal or SLURM, and from the launcher


class StoppedError(Exception):
    """Work that was asked to end early."""


@dataclass
class StopRequest:
    """Whether the program was asked to stop.

    Attributes:
        name: the signal that asked, such as "SIGTERM"; None until then.
    """

    name: str | None = None


_requests: list[StopRequest] = []  # of the contexts that the program is in


def is_asked() -> bool:
    """Whether a signal has asked to stop what the program is at; for any thread, also while the main one is waiting."""
    return any(request.name is not None for request in _requests)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Context in which SIGTERM, SIGUSR1 and Ctrl-C only ask to stop; a second one ends the process at once.

    The first signal sets the request's `name`. Another one, a second later or more, ends this process and those that it
    started, with exit code 128 + the signal's number: also while the main thread waits inside a library. For the main
    thread alone.

    Yields:
        The request, to be looked at between steps.
    """
    request = StopRequest()
    ours, pythons = socket.socketpair()
    pythons.setblocking(False)
    watcher = threading.Thread(target=_watch, args=(ours, request), name="signals", daemon=True)
    before = {number: signal.signal(number, _leave_to_watcher) for number in STOP_SIGNALS}
    blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # as a careless parent may leave them
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
        pythons.shutdown(socket.SHUT_RDWR)  # to close it is not enough: forked data workers hold it as well
        watcher.join()
        pythons.close()
        ours.close()


def ignore_in_worker() -> None:
    """Let a data worker live through signals to the whole group: it ends with the process that reads from it.

    A worker that outlived it would keep its connections open, and other processes would not see them closed.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.set_wakeup_fd(-1)
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def end_children() -> None:
    """End all processes that this one started by `multiprocessing`, whatever they do at the moment."""
    for child in multiprocessing.active_children():
        child.kill()


def _leave_to_watcher(number: int, frame: object) -> None:
    """Be a handler written in Python: what Python writes to the wakeup descriptor is for those only."""


def _watch(signals: socket.socket, request: StopRequest) -> None:
    """Read the numbers of signals, a byte each, until the other end is shut down."""
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
