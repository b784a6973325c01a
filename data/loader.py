"""Training batches: a function of (seed, step) alone, whatever processes, workers and first step are."""

import atexit
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, TypedDict

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info
from typing_extensions import Unpack

from data import shared_memory
from data.shared_memory import Room
from utils.processes import signals
from utils.processes.signals import StoppedError
from utils.utils_dist import share
from utils.utils_error import UserError

LOG = logging.getLogger("spikevrt")
PERMUTATION = 1  # keeps the stream that orders an epoch apart from the samples' own streams
IDLE = -1
PREFETCH = 2  # batches, where nobody says how many
POLL = 0.5  # seconds between two looks at the data workers while a batch is waited for
# Looks in a row at which no worker has begun another sample: then it is said, then the run ends. Looks are counted, not
# time: a machine that slept has lost nothing.
LOOKS_TO_WARN, LOOKS_TO_END = 120, 1200
TIMED_OUT = "DataLoader timed out"  # how torch's error for a batch that is late begins
GRACE = 3.0  # seconds that data workers have to end by themselves
HINTS = {signal.SIGKILL: "is the memory full?", signal.SIGBUS: "is /dev/shm full?"}


class DeadWorkerError(RuntimeError):
    """A process that reads samples has ended by itself; the message has the sample."""


class StalledError(RuntimeError):
    """Data workers that read nothing any more; the message has what each of them is at."""


class SampleSource(Protocol):
    """A training set; `sample` gives a dict of tensors and a `key`, `shuffle` asks for random order.

    `name` says what `sample` reads for the same arguments.
    """

    shuffle: bool

    def __len__(self) -> int: ...

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]: ...

    def name(self, index: int, rng: np.random.Generator) -> str: ...


class Workers(TypedDict, total=False):
    """How batches are made: torch.utils.data.DataLoader's arguments of the same names, and `stop`."""

    num_workers: int
    prefetch_factor: int
    pin_memory: bool
    stop: Callable[[], bool]


class StepBatches(Dataset):
    """This rank's share of each global batch, addressed by the batch's number.

    Attributes:
        reading: (workers, 2) int64 in memory that all of them share: a data worker's process id and the global position
            of the sample that it is reading, IDLE between batches.
        room: where workers put their batches; None without workers.
        stop: asked before each sample where there are no workers.
    """

    room: Room | None = None
    stop: Callable[[], bool] | None = None

    def __init__(self, source: SampleSource, seed: int, batch_size: int, rank: int, world_size: int) -> None:
        self.source, self.seed = source, seed
        self.batch_size, self.local = batch_size, share(batch_size, world_size)
        self.offset = rank * self.local
        self.reading = torch.empty((0, 2), dtype=torch.int64)

    def index(self, position: int) -> int:
        """Return the sample at a global position; every epoch has an order of its own."""
        epoch, place = divmod(position, len(self.source))
        if not self.source.shuffle:
            return place
        return int(_order(self.seed, epoch, len(self.source))[place])

    def __getitem__(self, number: int) -> dict[str, Any] | UserError:
        first = number * self.batch_size + self.offset
        try:
            samples = [self._sample(position) for position in range(first, first + self.local)]
        except UserError as error:  # a value, so that it crosses the process border as one line
            return error
        finally:
            self._note(IDLE)
        return self._batch(samples)

    def name(self, position: int) -> str:
        """Say what the sample at a global position is made of."""
        return self.source.name(self.index(position), self._rng(position))

    def _batch(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any] | UserError:
        """Stack samples; in a worker right into shared memory, so that its end shows here and not in torch's thread."""
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
        return self.source.sample(self.index(position), self._rng(position))

    def _rng(self, position: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, position])

    def _note(self, position: int) -> None:
        worker = get_worker_info()
        if worker is not None:
            self.reading[worker.id] = torch.tensor([os.getpid(), position])


def bytes_of(batch: Mapping[str, Any]) -> int:
    """Bytes of the tensors of a sample or a batch."""
    return sum(value.nbytes for value in batch.values() if isinstance(value, torch.Tensor))


def train_batches(
    dataset: SampleSource,
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
    """Yield this rank's batches of the steps start_step .. total_steps - 1, `accumulate` batches a step.

    Args:
        dataset: the training set.
        seed: decides order and augmentation.
        start_step: number of finished optimizer steps.
        total_steps: optimizer steps of the whole run.
        batch_size: samples of all processes together in one batch.
        rank: this process.
        world_size: number of processes.
        accumulate: batches in one optimizer step.
        **workers: num_workers (0), prefetch_factor (2), pin_memory (False); stop (never): asked before each batch and,
            again and again, while one is waited for.

    Returns:
        Iterator over dicts of stacked tensors (B, ...) and `key`: list of B strings.

    Raises:
        UserError: the batch cannot be shared by the processes; while iterating, a sample cannot be read, or shared
            memory is too small for the batches.
        DeadWorkerError: while iterating, a data worker has ended by itself.
        StalledError: while iterating, data workers read nothing any more.
        StoppedError: while iterating, `stop` said so.
    """
    batches = StepBatches(dataset, seed, batch_size, rank, world_size)
    steps = range(start_step * accumulate, total_steps * accumulate)
    num_workers, prefetch = workers.get("num_workers", 0), workers.get("prefetch_factor", PREFETCH)
    if num_workers:
        # What is copied to pinned memory leaves this room at once; else it fills where training is slower than reading.
        waiting = num_workers + 1 if workers.get("pin_memory") else num_workers * prefetch + accumulate
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        batches.room = Room(shared_memory.free_bytes(), min(waiting, len(steps)), num_workers, prefetch, processes)
    return _iterate(batches, steps, seed, workers)


def _iterate(batches: StepBatches, steps: range, seed: int, workers: Workers) -> Iterator[dict[str, Any]]:
    processes, iterator = _start(batches, steps, seed, workers)
    stop, room, patience = workers.get("stop", lambda: False), batches.room, _Patience(batches)
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
                patience.look()
                continue
            if room is not None:
                room.check(bytes_of(batch))
                room = None
            patience.looks = 0
            yield batch
    finally:
        ending = threading.Timer(GRACE, _kill, [processes])
        ending.start()
        del iterator  # ends the workers: no error's traceback may keep them
        ending.cancel()


def _next(
    iterator: Iterator[Any], processes: Sequence[BaseProcess], batches: StepBatches
) -> dict[str, Any] | Exception | None:
    """Return the next batch, None if it is late, or what ends the loading: as a value, which holds no iterator."""
    try:
        return next(iterator)
    except StopIteration:
        return StopIteration()
    except (RuntimeError, OSError, EOFError) as error:  # the last two: a batch that a dead worker had to hand over
        if str(error).startswith(TIMED_OUT):
            return None
        wait([process.sentinel for process in processes], timeout=1.0)
        dead = [process for process in processes if process.exitcode is not None]
        if not dead:
            raise
    return DeadWorkerError(_obituary(dead[0], batches))


class _Patience:
    """Counts looks at data workers between which none of them has begun another sample."""

    def __init__(self, batches: StepBatches) -> None:
        self.batches, self.looks, self._before = batches, 0, batches.reading.tolist()

    def look(self) -> None:
        """Look once more.

        Raises:
            StalledError: it was the last time.
        """
        now = self.batches.reading.tolist()
        self.looks, self._before = self.looks + 1 if now == self._before else 0, now
        if self.looks not in (LOOKS_TO_WARN, LOOKS_TO_END):
            return
        busy = [f"data worker {pid} reads {self.batches.name(at)}" for pid, at in now if at != IDLE]
        waited = f"no batch came and no sample was begun for {self.looks * POLL:.0f} s"
        if not busy:
            raise StalledError(f"{waited}: all {len(now)} data workers are idle; one could not hand over its batch")
        if self.looks == LOOKS_TO_END:
            raise StalledError(f"{waited}: {'; '.join(busy)}; is the disk or the network behind it gone?")
        LOG.warning("%s: %s; waiting on, %.0f s at most", waited, "; ".join(busy), (LOOKS_TO_END - self.looks) * POLL)


@lru_cache(maxsize=2)  # the workers read ahead into the next epoch
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of the samples of one epoch, (count,) int64."""
    return np.random.default_rng([seed, epoch, PERMUTATION]).permutation(count)


def _start(
    batches: StepBatches, steps: range, seed: int, workers: Workers
) -> tuple[list[BaseProcess], Iterator[dict[str, Any] | UserError]]:
    """Make the loader, and start its workers.

    Raises:
        UserError: shared memory is full.
    """
    num_workers = workers.get("num_workers", 0)
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

    The loader looks for dead ones when it has waited for a batch for some seconds. Its handler of SIGCHLD, which would
    raise an error in the middle of whatever the program does, is taken away.
    """
    before = set(multiprocessing.active_children())
    handler = signal.getsignal(signal.SIGCHLD)
    iterator = iter(loader)
    if loader.num_workers:
        signal.signal(signal.SIGCHLD, handler)
        atexit.unregister(signals.end_children)
        atexit.register(signals.end_children)  # before the exit waits for workers that nobody asks any more
    return [child for child in multiprocessing.active_children() if child not in before], iterator


def _kill(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        process.kill()


def _obituary(process: BaseProcess, batches: StepBatches) -> str:
    code = process.exitcode or 0
    ended = f"with exit code {code}"
    if code < 0:
        hint = HINTS.get(signal.Signals(-code))
        ended = f"by {signal.Signals(-code).name}" + (f" ({hint})" if hint else "")
    place = "between two batches"
    for pid, position in batches.reading.tolist():
        if pid == process.pid and position != IDLE:
            place = f"while it read {batches.name(position)}"
    return f"data worker {process.pid} was ended {ended} {place}"


def _as_is(batch: Any) -> Any:
    return batch


def _start_worker(worker: int) -> None:
    signals.ignore_in_worker()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
