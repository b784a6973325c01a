"""torchrun that leaves stopping to the program: signals are handed on, its exit code is the program's, no traceback.

Torch's own ends processes half a minute after a signal whatever they are saving, knows nothing of SIGUSR1 before its
version 2.10, and calls a run that has stopped in good order a failure.
"""

import os
import signal
import sys
from types import FrameType
from typing import Any

from torch.distributed.elastic.agent.server import local_elastic_agent
from torch.distributed.elastic.multiprocessing.api import PContext, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Forwarding:
    """Starts torchrun's processes and hands signals on to them; after a signal none are started anew."""

    def __init__(self) -> None:
        self._start = local_elastic_agent.start_processes
        self._processes: PContext | None = None
        self._asked: signal.Signals | None = None

    def start(self, *args: Any, **options: Any) -> PContext:
        """As torch's `start_processes`.

        Raises:
            SignalException: the processes before these were asked to stop.
        """
        if self._asked is not None:
            raise SignalException("stopped by a signal", sigval=self._asked)
        self._processes = self._start(*args, **options)  # which sets torch's own handlers
        for number in FORWARDED:
            signal.signal(number, self._forward)
        return self._processes

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self._asked = signal.Signals(number)
        for pid in self._processes.pids().values() if self._processes else ():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue


def run() -> int:
    """Run torchrun's command line from `sys.argv` and return the exit code of its first failure."""
    local_elastic_agent.start_processes = Forwarding().start
    try:
        main()
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    except SignalException as error:
        return 128 + error.sigval
    return 0


if __name__ == "__main__":
    sys.exit(run())
