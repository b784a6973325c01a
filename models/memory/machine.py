"""Memory that this process may use, and the measured time and memory of a restoration."""

import ctypes
import math
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch

from utils.processes import host_memory
from utils.utils_tile import Restore

CUDA_SHARE, CPU_SHARE = 0.9, 0.6  # of the free memory; the rest is for cuDNN, fragmentation, other programs
FLOAT = 4  # bytes
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
UNKNOWN = 4.0 * 2**30  # bytes assumed free where the system does not tell: a small machine


class CostPerPixel(NamedTuple):
    """Seconds and bytes that the network needs per pixel of each frame of a tile."""

    seconds: float
    bytes: float


class MemoryBudget(NamedTuple):
    """Bytes that may be used on the network's device and on the host; `shared`: both are the same memory."""

    device: float
    host: float
    shared: bool

    def holds(self, network: float, around: float) -> bool:
        """Whether the network's bytes and those of the frames around it on the host fit."""
        return network + around <= self.host if self.shared else network <= self.device and around <= self.host


def memory_budget(device: torch.device) -> MemoryBudget:
    """A share of the free memory; on the host, divided among its processes."""
    free = host_memory.free_bytes()
    host = CPU_SHARE * (free if free < math.inf else UNKNOWN) / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device.type != "cuda":
        return MemoryBudget(host, host, shared=True)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return MemoryBudget(CUDA_SHARE * (torch.cuda.mem_get_info(device)[0] + cached), host, shared=False)


def measure(restore: Restore, shape: Sequence[int], device: torch.device) -> CostPerPixel:
    """Restore one tile, (1, n, C, h, w), twice; measure the memory of the first and the time of the second run.

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
    """Reset the memory peak; returns the bytes in use now."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return float(torch.cuda.memory_allocated(device))
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None:
        trim(0)  # returns freed memory to the system, so that later use shows
    with suppress(OSError):  # not permitted everywhere; the peak is then that of the process so far
        CLEAR_REFS.write_text("5")
    return host_memory.field(STATUS, "VmRSS", 0)


def _peak(device: torch.device) -> float:
    """Peak bytes in use since `_start_watch`."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return float(torch.cuda.max_memory_allocated(device))
    return host_memory.field(STATUS, "VmHWM", 0)
