"""Training batches: a function of (seed, step) alone, whatever processes, workers and first step are."""

from collections.abc import Iterator
from typing import Any, Protocol, TypedDict

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from typing_extensions import Unpack

from utils.utils_dist import share
from utils.utils_error import UserError

PERMUTATION = 1  # keeps the stream that orders an epoch apart from the samples' own streams


class SampleSource(Protocol):
    """A training set; `sample` gives a dict of tensors and a `key`, `shuffle` asks for random order."""

    shuffle: bool

    def __len__(self) -> int: ...

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]: ...


class Workers(TypedDict, total=False):
    """How batches are made: torch.utils.data.DataLoader's arguments of the same names."""

    num_workers: int
    prefetch_factor: int | None
    persistent_workers: bool
    pin_memory: bool


class StepBatches(Dataset):
    """This rank's share of each global batch, addressed by the batch's number."""

    def __init__(self, source: SampleSource, seed: int, batch_size: int, rank: int, world_size: int) -> None:
        self.source, self.seed = source, seed
        self.batch_size, self.local = batch_size, share(batch_size, world_size)
        self.offset = rank * self.local

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
            samples = [
                self.source.sample(self.index(position), np.random.default_rng([self.seed, position]))
                for position in range(first, first + self.local)
            ]
        except UserError as error:  # a value, so that it crosses the process border as one line
            return error
        return {
            name: torch.stack([sample[name] for sample in samples])
            if isinstance(value, torch.Tensor)
            else [sample[name] for sample in samples]
            for name, value in samples[0].items()
        }


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
    """
    batches = StepBatches(dataset, seed, batch_size, rank, world_size)
    steps = range(start_step * accumulate, total_steps * accumulate)
    return _iterate(batches, steps, seed, workers)


def _iterate(batches: StepBatches, steps: range, seed: int, workers: Workers) -> Iterator[dict[str, Any]]:
    num_workers = workers.get("num_workers", 0)
    loader: DataLoader[dict[str, Any] | UserError] = DataLoader(
        batches,
        batch_size=None,
        sampler=steps,
        num_workers=num_workers,
        prefetch_factor=workers.get("prefetch_factor") if num_workers else None,
        persistent_workers=workers.get("persistent_workers", False) and num_workers > 0,
        pin_memory=workers.get("pin_memory", False),
        collate_fn=_as_is,
        worker_init_fn=_one_thread,
        generator=torch.Generator().manual_seed(seed),  # leaves the global generator untouched
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch


def _as_is(batch: Any) -> Any:
    return batch


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
