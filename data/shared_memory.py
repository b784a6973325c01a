"""Check that shared memory can hold the data workers' batches, which torch keeps in files in /dev/shm."""

import errno
import math
import os
from dataclasses import dataclass
from pathlib import Path

from utils.utils_error import UserError

PLACE = Path("/dev/shm")
MIB = 2**20


@dataclass(frozen=True)
class Room:
    """Free shared memory, and what has to fit into it."""

    free: float  # bytes; infinite if unknown
    at_once: int  # most batches per process that are in shared memory at the same time
    workers: int  # data workers per process
    prefetch: int  # batches that each worker prepares in advance
    processes: int = 1  # on this machine

    def check(self, batch: int) -> None:
        """Check that batches of so many bytes, one of one process, fit; UserError with the remedies if not."""
        if batch * self.at_once * self.processes > self.free:
            raise self.error(batch, self.free)

    def error(self, batch: int, free: float) -> UserError:
        """Return the error for batches that do not fit into `free` bytes; `batch` 0 means an unknown size."""
        batches = self.at_once * self.processes
        need = batch * batches
        use = f"{need / MIB:.1f} MiB ({batches} at once of {batch / MIB:.1f} MiB)" if batch else "some"
        many = f" in each of {self.processes} processes" if self.processes > 1 else ""
        generous = int(2 ** math.ceil(math.log2(max(2 * need / MIB, 64))))  # a power of two, at least twice the need
        return UserError(
            f"{PLACE}: {free / MIB:.1f} MiB of shared memory are free, but the batches of the data workers need {use}: "
            f"dataloader_num_workers is {self.workers}{many}, dataloader_prefetch_factor {self.prefetch}; give the "
            f"container more (docker run --shm-size={generous}m), lower either option, or set "
            "dataloader_num_workers to 0, which needs none"
        )


def free_bytes() -> float:
    """Return the free bytes of shared memory; infinite if unknown."""
    if not PLACE.is_dir():
        return math.inf
    found = os.statvfs(PLACE)
    return float(found.f_bavail * found.f_frsize) if found.f_blocks else math.inf


def is_full(error: BaseException) -> bool:
    """Return whether an error of torch or the system means that shared memory has run out."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOSPC
    return "shared memory" in str(error) and f"({errno.ENOSPC})" in str(error)
