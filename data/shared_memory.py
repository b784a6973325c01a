"""Room for batches on their way from data workers to the program: torch keeps them in files of /dev/shm."""

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
    """What is free, and how many batches lie there at once.

    Attributes:
        free: bytes; infinite where nobody knows.
        at_once: batches of each process that lie there at the same time.
        workers: data workers of each process.
        prefetch: batches that each worker prepares in advance.
        processes: on this machine.
    """

    free: float
    at_once: int
    workers: int
    prefetch: int
    processes: int = 1

    def check(self, batch: int) -> None:
        """Refuse what must fill it up sooner or later.

        Args:
            batch: bytes of one batch of one process.

        Raises:
            UserError: the batches do not fit; with the ways out.
        """
        if batch * self.at_once * self.processes > self.free:
            raise self.error(batch, self.free)

    def error(self, batch: int, free: float) -> UserError:
        """Say what does not fit into `free` bytes, and the ways out; a batch of 0 bytes is one of unknown size."""
        batches = self.at_once * self.processes
        need = batch * batches
        use = f"{need / MIB:.1f} MiB ({batches} at once of {batch / MIB:.1f} MiB)" if batch else "some"
        many = f" in each of {self.processes} processes" if self.processes > 1 else ""
        return UserError(
            f"{PLACE}: {free / MIB:.1f} MiB of shared memory are free, but the batches of the data workers need {use}: "
            f"dataloader_num_workers is {self.workers}{many}, dataloader_prefetch_factor {self.prefetch}; give the "
            f"container more (docker run --shm-size={_generous(need)}m), lower one of the two, or set "
            "dataloader_num_workers to 0, which needs none"
        )


def free_bytes() -> float:
    """Bytes of shared memory that are free; infinite where the system does not say."""
    if not PLACE.is_dir():
        return math.inf
    found = os.statvfs(PLACE)
    return float(found.f_bavail * found.f_frsize) if found.f_blocks else math.inf


def is_full(error: BaseException) -> bool:
    """Whether an error of torch or of the system says that shared memory has run out."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOSPC
    return "shared memory" in str(error) and f"({errno.ENOSPC})" in str(error)


def _generous(need: float) -> int:
    """A power of two of MiB, at least twice as much as needed."""
    return int(2 ** math.ceil(math.log2(max(2 * need / MIB, 64))))
