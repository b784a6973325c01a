"""Training batches that depend only on (seed, step), not on processes, workers or the first step."""

import atexit
import logging
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, TypedDict

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info
from typing_extensions import Unpack

from data import shared_memory
from data.mixture import Mixture, SampleSource
from data.shared_memory import Room
from utils.processes import signals
from utils.processes.signals import StoppedError
from utils.processes.thread_count import usable_cores
from utils.utils_dist import share
from utils.utils_error import UserError, counted

LOG = logging.getLogger("spikevrt")
PERMUTATION = 1  # separates the random stream of an epoch's order from those of the samples
IDLE = -1
PREFETCH = 2  # default number of batches
POLL = 0.5  # seconds between two checks of the data workers while waiting for a batch
# Consecutive checks without a new sample before a warning, and before the run ends. Checks are counted, not time, so a
# suspended machine does not end the run.
CHECKS_TO_WARN, CHECKS_TO_END = 120, 1200
TIMED_OUT = "DataLoader timed out"  # beginning of torch's error for a late batch
GRACE = 3.0  # seconds for data workers to end by themselves
DEATH = 10.0  # seconds from a worker's closed pipe to its end: freeing its memory takes long on a busy machine
HINTS = {signal.SIGKILL: "is the memory full?", signal.SIGBUS: "is /dev/shm full?"}


class DeadWorkerError(RuntimeError):
    """A data worker has died; the message names its sample."""


class StalledError(RuntimeError):
    """The data workers make no progress; the message names the sample of each."""


class Workers(TypedDict, total=False):
    """Arguments of torch.utils.data.DataLoader by the same names, and `stop`."""

    num_workers: int
    prefetch_factor: int
    pin_memory: bool
    stop: Callable[[], bool]


class StepBatches(Dataset):
    """This rank's share of each global batch, indexed by batch number."""

    room: Room | None = None  # shared memory for the workers' batches; None without workers
    stop: Callable[[], bool] | None = None  # checked before each sample if there are no workers

    def __init__(self, source: SampleSource | Mixture, seed: int, batch_size: int, rank: int, world_size: int) -> None:
        self.mixture, self.seed = source if isinstance(source, Mixture) else Mixture([source]), seed
        self.batch_size, self.local = batch_size, share(batch_size, world_size)
        self.offset = rank * self.local
        # In shared memory: a data worker's process id and the global position of the sample that it reads, or IDLE.
        self.reading = torch.empty((0, 2), dtype=torch.int64)

    def place(self, position: int) -> tuple[SampleSource, int]:
        """Return set and index of the sample at a global position; every epoch of a set has its own order."""
        number, within = divmod(position, self.batch_size)
        source, before = self.mixture.of_batch(number, self.seed)
        epoch, place = divmod(before * self.batch_size + within, len(source))
        if source.shuffle:
            place = int(_order(self.seed, epoch, len(source))[place])
        return source, place

    def __getitem__(self, number: int) -> dict[str, Any] | UserError:
        first = number * self.batch_size + self.offset
        try:
            samples = [self._sample(position) for position in range(first, first + self.local)]
        except UserError as error:  # returned, so that it crosses the process boundary as one line
            return error
        finally:
            self._note(IDLE)
        return self._batch(samples)

    def name(self, position: int) -> str:
        source, index = self.place(position)
        return source.name(index, self._rng(position))

    def _batch(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any] | UserError:
        """Stack samples; workers stack into shared memory, so running out of it fails here, not in torch's thread."""
        try:
            return dict(default_collate(list(samples)))
        except RuntimeError as error:
            if self.room is None or not shared_memory.is_full(error):
                raise
        return self.room.error(len(samples) * bytes_of(samples[0]), shared_memory.free_bytes())

    def _sample(self, position: int) -> dict[str, Any]:
        if self.stop is not None and self.stop():
            raise StoppedError
        self._note(position)
        source, index = self.place(position)
        return source.sample(index, self._rng(position))

    def _rng(self, position: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, position])

    def _note(self, position: int) -> None:
        worker = get_worker_info()
        if worker is not None:
            self.reading[worker.id] = torch.tensor([os.getpid(), position])


def bytes_of(batch: Mapping[str, Any]) -> int:
    """Return the bytes of all tensors of a sample or batch."""
    return sum(value.nbytes for value in batch.values() if isinstance(value, torch.Tensor))


def train_batches(
    dataset: SampleSource | Mixture,
    *,
    seed: int,
    start_step: int,
    total_steps: int,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    accumulate: int = 1,
    **workers: Unpack[Workers],
) -> Iterator[dict[str, Any]]:
    """Yield this rank's batches for steps start_step .. total_steps - 1, `accumulate` batches per optimizer step.

    `seed` determines order and augmentation; `batch_size` counts samples over all processes. `workers` are num_workers
    (0), prefetch_factor (2), pin_memory (False) and stop (never), polled before each batch and while waiting for one.

    Returns:
        Iterator over dicts of stacked tensors (B, ...) and `key`: list of B strings.

    Raises:
        UserError: batch_size cannot be divided among the processes; while iterating, a sample cannot be read, or shared
            memory is too small for the batches.
        DeadWorkerError: while iterating, a data worker died.
        StalledError: while iterating, the data workers stopped making progress.
        StoppedError: while iterating, `stop` returned True.
    """
    batches = StepBatches(dataset, seed, batch_size, rank, world_size)
    steps = range(start_step * accumulate, total_steps * accumulate)
    num_workers, prefetch = workers.get("num_workers", 0), workers.get("prefetch_factor", PREFETCH)
    if num_workers:
        # Pinning moves a batch out of shared memory at once; otherwise batches pile up when training is the bottleneck.
        waiting = num_workers + 1 if workers.get("pin_memory") else num_workers * prefetch + accumulate
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        batches.room = Room(shared_memory.free_bytes(), min(waiting, len(steps)), num_workers, prefetch, processes)
    return _iterate(batches, steps, seed, workers)


def _iterate(batches: StepBatches, steps: range, seed: int, workers: Workers) -> Iterator[dict[str, Any]]:
    processes, iterator = _start(batches, steps, seed, workers)
    stop, room, patience = workers.get("stop", lambda: False), batches.room, _Patience(batches)
    largest = 0
    if room is None:
        batches.stop = stop
    try:
        while True:
            if stop():
                raise StoppedError
            batch = _next(iterator, processes, batches)
            if isinstance(batch, StopIteration):
                return
            if isinstance(batch, Exception):
                raise batch
            if batch is None:
                patience.check()
                continue
            if room is not None and bytes_of(batch) > largest:  # sets differ in their spikes' size
                largest = bytes_of(batch)
                room.check(largest)
            patience.checks = 0
            yield batch
    finally:
        ending = threading.Timer(GRACE, _kill, [processes])
        ending.start()
        del iterator  # ends the workers; no traceback may hold a reference
        ending.cancel()


def _next(
    iterator: Iterator[Any], processes: Sequence[BaseProcess], batches: StepBatches
) -> dict[str, Any] | Exception | None:
    """Return the next batch, None if it is late, or the error that ends loading.

    Errors are returned because a raised one's traceback would keep the iterator alive.
    """
    try:
        return next(iterator)
    except StopIteration:
        return StopIteration()
    except (RuntimeError, OSError, EOFError) as error:  # the last two: a worker died while handing over a batch
        if str(error).startswith(TIMED_OUT):
            return None
        wait([process.sentinel for process in processes], timeout=DEATH)
        dead = [process for process in processes if process.exitcode is not None]
        if not dead:
            raise
    return DeadWorkerError(_obituary(dead[0], batches))


class _Patience:
    """Counts consecutive checks of the data workers that find no new sample begun."""

    def __init__(self, batches: StepBatches) -> None:
        self.batches, self.checks, self._before = batches, 0, batches.reading.tolist()

    def check(self) -> None:
        """Check once more.

        Raises:
            StalledError: CHECKS_TO_END is reached, or all workers are idle.
        """
        now = self.batches.reading.tolist()
        self.checks, self._before = self.checks + 1 if now == self._before else 0, now
        if self.checks not in (CHECKS_TO_WARN, CHECKS_TO_END):
            return
        busy = [f"data worker {pid} reads {self.batches.name(at)}" for pid, at in now if at != IDLE]
        waited = f"no batch arrived and no sample was begun for {self.checks * POLL:.0f} s"
        if not busy:
            raise StalledError(f"{waited}: all {len(now)} data workers are idle; one could not hand over its batch")
        if self.checks == CHECKS_TO_END:
            raise StalledError(f"{waited}: {'; '.join(busy)}; is the disk or the network behind it gone?")
        left = (CHECKS_TO_END - self.checks) * POLL
        LOG.warning("%s: %s; waiting up to %.0f s more", waited, "; ".join(busy), left)


@lru_cache(maxsize=16)  # of several sets; the workers read ahead into the next epoch
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Return the sample order of one epoch, (count,) int64."""
    return np.random.default_rng([seed, epoch, PERMUTATION]).permutation(count)


def _start(
    batches: StepBatches, steps: range, seed: int, workers: Workers
) -> tuple[list[BaseProcess], Iterator[dict[str, Any] | UserError]]:
    """Create the loader and start its workers.

    Raises:
        UserError: shared memory is full.
    """
    num_workers = workers.get("num_workers", 0)
    if num_workers > (cores := usable_cores()):
        LOG.info("%d reader processes (dataloader_num_workers) share %s", num_workers, counted(cores, "core"))
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # the same, in torch's words
    try:
        batches.reading = torch.full((num_workers, 2), IDLE).share_memory_()
        loader: DataLoader[dict[str, Any] | UserError] = DataLoader(
            batches,
            batch_size=None,
            sampler=steps,
            num_workers=num_workers,
            prefetch_factor=workers.get("prefetch_factor", PREFETCH) if num_workers else None,
            timeout=POLL if num_workers else 0,
            pin_memory=workers.get("pin_memory", False),
            collate_fn=_as_is,
            worker_init_fn=_start_worker,
            generator=torch.Generator().manual_seed(seed),  # leaves the global generator untouched
        )
        return _start_workers(loader)
    except (RuntimeError, OSError) as error:
        if batches.room is None or not shared_memory.is_full(error):
            raise
    raise batches.room.error(0, shared_memory.free_bytes())


def _start_workers(loader: DataLoader) -> tuple[list[BaseProcess], Iterator[Any]]:
    """Start the loader's workers and return their processes.

    The loader's SIGCHLD handler is removed: it would raise an error at an arbitrary point of the program. The loader
    still finds dead workers when a batch is late.
    """
    before = set(multiprocessing.active_children())
    handler = signal.getsignal(signal.SIGCHLD)
    iterator = iter(loader)
    if loader.num_workers:
        signal.signal(signal.SIGCHLD, handler)
        atexit.unregister(signals.end_children)
        atexit.register(signals.end_children)  # registered last, so it runs before the exit waits for the workers
    return [child for child in multiprocessing.active_children() if child not in before], iterator


def _kill(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        process.kill()


def _obituary(process: BaseProcess, batches: StepBatches) -> str:
    code = process.exitcode or 0
    cause = f"ended with exit code {code}"
    if code < 0:
        hint = HINTS.get(signal.Signals(-code))
        cause = f"was ended by {signal.Signals(-code).name}" + (f" ({hint})" if hint else "")
    place = "between two batches"
    for pid, position in batches.reading.tolist():
        if pid == process.pid and position != IDLE:
            place = f"while reading {batches.name(position)}"
    return f"data worker {process.pid} {cause} {place}"


def _as_is(batch: Any) -> Any:
    return batch


def _start_worker(worker: int) -> None:
    signals.ignore_in_worker()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
