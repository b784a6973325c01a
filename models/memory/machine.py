"""What this machine has: memory that a process may use, and what a restoration takes of it, measured."""

import ctypes
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch

from utils.utils_tile import Restore

CUDA_SHARE, CPU_SHARE = 0.9, 0.6  # of the free memory; a CPU's is shared with all other programs
FLOAT = 4  # bytes
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MEMINFO = Path("/proc/meminfo")
GROUPS = (  # limit and use of a container: cgroup v2, v1
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)


class CostPerPixel(NamedTuple):
    """What the network takes for one point, a pixel of one frame of a tile: seconds and bytes."""

    seconds: float
    bytes: float


class MemoryBudget(NamedTuple):
    """Bytes that may be used: on the device of the network, and on the host; `shared` where these are one memory."""

    device: float
    host: float
    shared: bool

    def holds(self, network: float, around: float) -> bool:
        """Whether both fit: what the network takes, and the frames around it on the host."""
        return network + around <= self.host if self.shared else network <= self.device and around <= self.host


def memory_budget(device: torch.device) -> MemoryBudget:
    """What this process may use: a share of what is free, on the host divided among the processes there."""
    host = CPU_SHARE * _free_on_host() / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device.type != "cuda":
        return MemoryBudget(host, host, shared=True)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return MemoryBudget(CUDA_SHARE * (torch.cuda.mem_get_info(device)[0] + cached), host, shared=False)


def measure(restore: Restore, shape: Sequence[int], device: torch.device) -> CostPerPixel:
    """Restore one tile twice, and see how long the second time takes and how much memory was in use.

    Args:
        restore: (B, n, C, h, w) -> (B, t, 3, h * s, w * s).
        shape: (1, n, C, h, w) of the tile.
        device: that the network computes on.

    Raises:
        torch.OutOfMemoryError: the tile does not fit.
    """
    x = torch.rand(*shape, generator=torch.Generator().manual_seed(0))
    points = shape[1] * shape[3] * shape[4]
    before = _start_watch(device)
    restore(x)
    peak = max(_peak(device) - before, x.numel() * FLOAT)
    began = time.perf_counter()
    restore(x)
    return CostPerPixel((time.perf_counter() - began) / points, peak / points)


def _start_watch(device: torch.device) -> float:
    """Forget the highest memory so far; bytes in use now."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return float(torch.cuda.memory_allocated(device))
    _give_back()
    with suppress(OSError):  # not everywhere permitted; then the peak is that of the process so far
        CLEAR_REFS.write_text("5")
    return _status("VmRSS")


def _peak(device: torch.device) -> float:
    """The highest number of bytes in use since `_start_watch`."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return float(torch.cuda.max_memory_allocated(device))
    return _status("VmHWM")


def _give_back() -> None:
    """Return freed memory to the system, so that what is used from here on shows."""
    trim: Callable[[int], int] | None = None
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _status(name: str) -> float:
    """A line of /proc/self/status in bytes; 0 where there is none."""
    if not STATUS.exists():
        return 0.0
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
    return float(lines.get(name, "0").split()[0]) * 1024


def _free_on_host() -> float:
    """Bytes of memory that programs here may still take."""
    free = [math.inf]
    if MEMINFO.exists():
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        free.append(float(lines["MemAvailable"].split()[0]) * 1024)
    for limit, used in GROUPS:
        if limit.exists() and limit.read_text().strip().isdecimal():
            free.append(float(limit.read_text()) - float(used.read_text()) + _file_cache(limit.parent))
    if min(free) == math.inf:
        return 4.0 * 2**30  # nothing is known: what a small machine has
    return min(free)


def _file_cache(group: Path) -> float:
    """Bytes that a container uses for files it has read, which it gives back when they are wanted."""
    stat = group / "memory.stat"
    lines = dict(line.split(" ", 1) for line in stat.read_text().splitlines()) if stat.exists() else {}
    return sum(float(lines.get(name, "0")) for name in ("active_file", "inactive_file"))
