"""Choose PyTorch's number of CPU threads: no more than there are free cores.

The threads of an operator wait for each other at its end, some ten thousand times per training step. If another process
holds a core, each wait may cost a time slice, and two threads are slower than one. `OMP_NUM_THREADS` overrides the
choice. Free cores are known only on Linux; elsewhere PyTorch's default stays.
"""

import logging
import math
import os
import time
from pathlib import Path
from typing import NamedTuple

from utils.utils_error import counted

LOG = logging.getLogger("spikevrt")

CPU_TIMES = Path("/proc/stat")
# CPU quota of a container, "quota period" in microseconds: cgroup v2 has them in one file, v1 in two (Linux's
# admin-guide/cgroup-v2 and scheduler/sched-bwc). No quota: "max" or -1.
QUOTA = Path("/sys/fs/cgroup/cpu.max")
QUOTA_V1 = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
SHORTEST = 0.5  # shortest interval that tells the load, in seconds
_IDLE = (3, 4)  # columns of CPU_TIMES: idle, waiting for a disk (proc(5))
_GUEST = 8  # this column and the next are already counted in the first two


class Look(NamedTuple):
    """CPU seconds so far, at clock time `at`."""

    at: float
    busy: float  # of all processes, on the cores that this process may use
    own: float  # of this process


class Load:
    """Measures how many cores other processes keep busy between looks; the first look is at construction."""

    def __init__(self) -> None:
        self._before = look()

    def wait(self) -> None:
        """Wait until the last look is old enough; at program start that time has usually passed."""
        if self._before is not None:
            time.sleep(max(0.0, self._before.at + SHORTEST - time.monotonic()))

    def others(self) -> float | None:
        """Return how many cores others kept busy since the last look; None if unknown or too recent."""
        before, now = self._before, look()
        if before is None or now is None or now.at - before.at < SHORTEST:
            return None
        self._before = now
        return max(0.0, (now.busy - before.busy) - (now.own - before.own)) / (now.at - before.at)


def before_torch() -> None:
    """Set how long PyTorch's threads spin before they sleep; they read it when torch is imported.

    By default a waiting thread holds its core for milliseconds, and a step next to a busy process takes ten times as
    long.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")


def usable_cores() -> int:
    """Return how many cores this process may use, by its affinity and its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    files = (QUOTA,) if QUOTA.exists() else QUOTA_V1
    try:
        quota, period = " ".join(file.read_text(encoding="ascii") for file in files).split()
    except (OSError, ValueError):
        return cores
    return cores if quota in ("max", "-1") else max(1, min(cores, math.ceil(int(quota) / int(period))))


def threads_for(most: int, cores: int, others: float) -> int:
    """Return how many threads, 1 to `most`, fit next to `others` busy cores; half a core counts as one."""
    return max(1, min(most, math.floor(cores - others + 0.5)))


def choose(load: Load, most: int) -> int:
    """Choose and log the number of threads at program start; `load` was made then.

    `most` is PyTorch's number of threads, which follows `OMP_NUM_THREADS` if that is set.
    """
    given = os.environ.get("OMP_NUM_THREADS")
    if given:
        LOG.info("%s, set by OMP_NUM_THREADS", counted(most, "thread"))
        return most
    cores = usable_cores()
    load.wait()
    others = load.others()
    if others is None:
        return min(most, cores)
    threads = threads_for(most, cores, others)
    busy = f", {others:.1f} of them busy with other processes" if threads < min(most, cores) else ""
    LOG.info("%s on %s%s; set OMP_NUM_THREADS to change that", counted(threads, "thread"), counted(cores, "core"), busy)
    return threads


def fewer(load: Load, threads: int) -> int:
    """Return the number of threads to continue with: fewer if others took cores since the last look."""
    if threads == 1 or os.environ.get("OMP_NUM_THREADS"):
        return threads
    others = load.others()
    fitting = threads if others is None else threads_for(threads, usable_cores(), others)
    if fitting < threads:
        LOG.info(
            "%s instead of %d: other processes keep %.1f cores busy; a resumed run measures again",
            *(counted(fitting, "thread"), threads, others),
        )
    return fitting


def look() -> Look | None:
    """Read the current CPU times; None if the system does not provide them."""
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
