"""One or many processes: ranks, devices, gathering."""

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from utils.utils_error import UserError

TIMEOUT = timedelta(hours=2)  # a rank may wait for another one's share of a validation


@dataclass(frozen=True)
class Dist:
    """This process among all.

    Attributes:
        rank: 0 .. world_size - 1; rank 0 writes files and talks.
        world_size: number of processes.
        device: where this process computes.
    """

    rank: int = 0
    world_size: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0


def init() -> Dist:
    """Join the processes that torchrun or a platform started (RANK, WORLD_SIZE, LOCAL_RANK); alone without them.

    Raises:
        UserError: more processes on this machine than GPUs.
    """
    world_size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                f"LOCAL_RANK is {local_rank} but this machine shows {torch.cuda.device_count()} GPU(s): "
                "start fewer processes"
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    if world_size > 1 and not torch.distributed.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        torch.distributed.init_process_group(backend, timeout=TIMEOUT)
    return Dist(rank, world_size, device)


def close() -> None:
    """Leave the process group, if there is one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def gather_objects(dist: Dist, value: Any) -> list[Any]:
    """Everybody's value, in the order of ranks, in every process."""
    if dist.world_size == 1:
        return [value]
    values: list[Any] = [None] * dist.world_size
    torch.distributed.all_gather_object(values, value)
    return values


def agreed(dist: Dist, value: Any, what: str) -> Any:
    """The value, if all processes have the same one.

    Raises:
        UserError: they do not; `what` names it.
    """
    values = gather_objects(dist, value)
    if any(other != value for other in values):
        raise UserError(f"{what} differs among the processes: {values}; the run's folder must be the same for all")
    return value


def mean(dist: Dist, values: dict[str, float]) -> dict[str, float]:
    """Mean over processes of each value; the same keys in all of them."""
    everybody = gather_objects(dist, values)
    return {key: sum(one[key] for one in everybody) / len(everybody) for key in values}


def share(batch_size: int, world_size: int) -> int:
    """Samples of each process in a batch of all processes together.

    Raises:
        UserError: they cannot be shared out evenly.
    """
    if batch_size % world_size:
        raise UserError(
            f"dataloader_batch_size: {batch_size} samples cannot be divided among {world_size} processes; "
            f"use a multiple of {world_size}"
        )
    return batch_size // world_size


def wrap(dist: Dist, net: nn.Module) -> nn.Module:
    """The network as it is for one process, averaged over processes by DistributedDataParallel for more."""
    if dist.world_size == 1:
        return net
    return DistributedDataParallel(net, device_ids=[dist.device] if dist.device.type == "cuda" else None)
