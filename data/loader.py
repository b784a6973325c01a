"""Training batches: a function of (seed, step) alone, whatever processes, workers and first step are."""

import atexit
import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, TypedDict

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info
from typing_extensions import Unpack

from utils import utils_signal
from utils.utils_dist import share
from utils.utils_error import UserError

PERMUTATION = 1  # keeps the stream that orders an epoch apart from the samples' own streams
IDLE = -1
HINTS = {signal.SIGKILL: "is the memory full?", signal.SIGBUS: "is /dev/shm full?"}


class DeadWorkerError(RuntimeError):
    """A process that reads samples has ended by itself; the message has the sample."""


class SampleSource(Protocol):
    """A training set; `sample` gives a dict of tensors and a `key`, `shuffle` asks for random order.

    `name` says what `sample` reads for the same arguments.
    """

    shuffle: bool

    def __len__(self) -> int: ...

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]: ...

    def name(self, index: int, rng: np.random.Generator) -> str: ...


class Workers(TypedDict, total=False):
    """How batches are made: torch.utils.data.DataLoader's arguments of the same names."""

    num_workers: int
    prefetch_factor: int | None
    persistent_workers: bool
    pin_memory: bool


class StepBatches(Dataset):
    """This rank's share of each global batch, addressed by the batch's number.

    Attributes:
        reading: (workers, 2) int64 in memory that all of them share: a data worker's process id and the global position
            of the sample that it is reading, IDLE between batches.
    """

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
        order = np.random.default_rng([self.seed, epoch, PERMUTATION]).permutation(len(self.source))
        return int(order[place])

    def __getitem__(self, number: int) -> dict[str, Any] | UserError:
        first = number * self.batch_size + self.offset
        try:
            samples = [self._sample(position) for position in range(first, first + self.local)]
        except UserError as error:  # a value, so that it crosses the process border as one line
            return error
        finally:
            self._note(IDLE)
        return {
            name: torch.stack([sample[name] for sample in samples])
            if isinstance(value, torch.Tensor)
            else [sample[name] for sample in samples]
            for name, value in samples[0].items()
        }

    def name(self, position: int) -> str:
        """Say what the sample at a global position is made of."""
        return self.source.name(self.index(position), self._rng(position))

    def _sample(self, position: int) -> dict[str, Any]:
        self._note(position)
        return self.source.sample(self.index(position), self._rng(position))

    def _rng(self, position: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, position])

    def _note(self, position: int) -> None:
        worker = get_worker_info()
        if worker is not None:
            self.reading[worker.id] = torch.tensor([os.getpid(), position])


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
        **workers: num_workers (0), prefetch_factor, persistent_workers, pin_memory (False).

    Returns:
        Iterator over dicts of stacked tensors (B, ...) and `key`: list of B strings.

    Raises:
        UserError: the batch cannot be shared by the processes; while iterating, a sample cannot be read.
        DeadWorkerError: while iterating, a data worker has ended by itself.
    """
    batches = StepBatches(dataset, seed, batch_size, rank, world_size)
    steps = range(start_step * accumulate, total_steps * accumulate)
    return _iterate(batches, steps, seed, workers)


def _iterate(batches: StepBatches, steps: range, seed: int, workers: Workers) -> Iterator[dict[str, Any]]:
    num_workers = workers.get("num_workers", 0)
    batches.reading = torch.full((num_workers, 2), IDLE).share_memory_()
    loader: DataLoader[dict[str, Any] | UserError] = DataLoader(
        batches,
        batch_size=None,
        sampler=steps,
        num_workers=num_workers,
        prefetch_factor=workers.get("prefetch_factor") if num_workers else None,
        persistent_workers=workers.get("persistent_workers", False) and num_workers > 0,
        pin_memory=workers.get("pin_memory", False),
        collate_fn=_as_is,
        worker_init_fn=_start_worker,
        generator=torch.Generator().manual_seed(seed),  # leaves the global generator untouched
    )
    processes, iterator = _start(loader)
    try:
        while True:
            dead: list[BaseProcess] = []
            try:
                batch = next(iterator)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError):  # the last two: a batch that the dead one still had to hand over
                wait([process.sentinel for process in processes], timeout=1.0)
                dead = [process for process in processes if process.exitcode is not None]
                if not dead:
                    raise
            if dead:
                raise DeadWorkerError(_obituary(dead[0], batches))
            if isinstance(batch, UserError):
                raise batch
            yield batch
    finally:
        del iterator  # ends the workers: no error's traceback may keep them


def _start(loader: DataLoader) -> tuple[list[BaseProcess], Iterator[Any]]:
    """Start the loader's workers and return their processes.

    The loader looks for dead ones when it has waited for a batch for some seconds. Its handler of SIGCHLD, which would
    raise an error in the middle of whatever the program does, is taken away.
    """
    before = set(multiprocessing.active_children())
    handler = signal.getsignal(signal.SIGCHLD)
    iterator = iter(loader)
    if loader.num_workers:
        signal.signal(signal.SIGCHLD, handler)
        atexit.unregister(utils_signal.end_children)
        atexit.register(utils_signal.end_children)  # before the exit waits for workers that nobody asks any more
    return [child for child in multiprocessing.active_children() if child not in before], iterator


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
    utils_signal.ignore_in_worker()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
