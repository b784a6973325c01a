"""How many threads PyTorch computes with on a CPU: no more than there are free cores.

The threads of an operator wait for each other at its end, some ten thousand times in a training step. Where another
process holds a core, each of these waits may take a time slice: two threads are then slower than one.
`OMP_NUM_THREADS` overrides all of this. Free cores are known on Linux; elsewhere PyTorch's own number stays.
"""

import logging
import math
import os
import time
from pathlib import Path
from typing import NamedTuple

LOG = logging.getLogger("spikevrt")

CPU_TIMES = Path("/proc/stat")
# The cores that a container may use: "quota period", microseconds (cgroup v2, Linux's admin-guide/cgroup-v2).
QUOTA = Path("/sys/fs/cgroup/cpu.max")
SHORTEST = 0.5  # seconds that say something about the load
_IDLE = (3, 4)  # columns of CPU_TIMES: idle, waiting for a disk (proc(5))
_GUEST = 8  # this column and the next are counted in the first two already


class Look(NamedTuple):
    """CPU seconds so far.

    Attributes:
        at: clock time, s.
        busy: of the cores that this process may use, all processes.
        own: of this process.
    """

    at: float
    busy: float
    own: float


class Load:
    """The cores that other processes keep busy, from one look to the next; the first look is at construction."""

    def __init__(self) -> None:
        self._before = look()

    def wait(self) -> None:
        """Wait until there is something to see since the last look; a program that begins has mostly done so."""
        if self._before is not None:
            time.sleep(max(0.0, self._before.at + SHORTEST - time.monotonic()))

    def others(self) -> float | None:
        """Return how many cores others have kept busy since the last look; None if unknown, or if it was just now."""
        before, now = self._before, look()
        if before is None or now is None or now.at - before.at < SHORTEST:
            return None
        self._before = now
        return max(0.0, (now.busy - before.busy) - (now.own - before.own)) / (now.at - before.at)


def before_torch() -> None:
    """Set what PyTorch's threads read when it is imported: how long they spin before they sleep.

    With the default, a thread that waits for another one holds its core for milliseconds, and beside another busy
    process a step takes ten times as long.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")


def usable_cores() -> int:
    """Return the cores that this process may use: its affinity, and the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = QUOTA.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, math.ceil(int(quota) / int(period))))


def threads_for(most: int, cores: int, others: float) -> int:
    """Return the number of threads, 1 to `most`, that fit beside `others` busy cores; half a core counts as one."""
    return max(1, min(most, math.floor(cores - others + 0.5)))


def choose(load: Load, most: int) -> int:
    """Choose a number of threads for a program that begins, and say so.

    Args:
        load: first looked at when the program began.
        most: PyTorch's own number, which `OMP_NUM_THREADS` has set where it is given.
    """
    given = os.environ.get("OMP_NUM_THREADS")
    if given:
        LOG.info("%d thread(s), as OMP_NUM_THREADS says", most)
        return most
    cores = usable_cores()
    load.wait()
    others = load.others()
    if others is None:
        return min(most, cores)
    threads = threads_for(most, cores, others)
    busy = f", {others:.1f} of them busy with other processes" if threads < min(most, cores) else ""
    LOG.info("%d thread(s) on %d core(s)%s; OMP_NUM_THREADS sets another number", threads, cores, busy)
    return threads


def fewer(load: Load, threads: int) -> int:
    """Return how many threads a program goes on with: fewer where others have taken cores since the last look."""
    if threads == 1 or os.environ.get("OMP_NUM_THREADS"):
        return threads
    others = load.others()
    fitting = threads if others is None else threads_for(threads, usable_cores(), others)
    if fitting < threads:
        LOG.info(
            "%d thread(s) instead of %d: other processes keep %.1f cores busy; a run that is resumed looks again",
            *(fitting, threads, others),
        )
    return fitting


def look() -> Look | None:
    """Read the CPU times now; None on a system that does not tell them."""
    try:
        lines = CPU_TIMES.read_text(encoding="ascii").splitlines()
        cores = os.sched_getaffinity(0)
    except (OSError, AttributeError):
        return None
    ticks = 0
    for line in lines:
        name, *times = line.split()
        if name.startswith("cpu") and name[3:].isdecimal() and int(name[3:]) in cores:
            ticks += sum(int(time) for column, time in enumerate(times[:_GUEST]) if column not in _IDLE)
    return Look(time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), time.process_time())
