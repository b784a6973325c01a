"""torchrun that leaves stopping to the program: it forwards signals, returns its exit code and prints no traceback.

Torch's own kills processes half a minute after a signal even while they save, ignores SIGUSR1 before version 2.10, and
reports a run that has stopped cleanly as a failure.
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
    """Starts torchrun's processes and forwards signals to them; after a signal no process is restarted."""

    def __init__(self) -> None:
        self._start = local_elastic_agent.start_processes
        self._processes: PContext | None = None
        self._asked: signal.Signals | None = None

    def start(self, *args: Any, **options: Any) -> PContext:
        """Do what torch's `start_processes` does; SignalException if the previous processes were asked to stop."""
        if self._asked is not None:
            raise SignalException("stopped by a signal", sigval=self._asked)
        self._processes = self._start(*args, **options)  # sets torch's handlers, replaced below
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
