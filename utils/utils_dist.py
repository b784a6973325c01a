"""Distributed processes: ranks, devices, gathering."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from utils.processes.heartbeat import Heartbeat
from utils.utils_error import SaidError, UserError, counted

TIMEOUT = timedelta(hours=2)  # a rank may wait for others' share of a validation; heartbeats find dead ones sooner

T = TypeVar("T")

_heartbeat: Heartbeat | None = None


@dataclass(frozen=True)
class Dist:
    """Position of this process in its group."""

    rank: int = 0  # 0 .. world_size - 1; rank 0 writes files and logs
    world_size: int = 1  # number of processes
    device: torch.device = torch.device("cpu")  # where this process computes

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0


def init() -> Dist:
    """Join the processes that torchrun or a platform started, if any; UserError if there are more here than GPUs."""
    world_size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                f"LOCAL_RANK is {local_rank}, but this machine has "
                f"{counted(torch.cuda.device_count(), 'visible GPU')}; start fewer processes"
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    if world_size > 1 and not torch.distributed.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        store, rank, world_size = next(torch.distributed.rendezvous("env://", timeout=TIMEOUT))
        store = torch.distributed.PrefixStore(f"attempt {_attempt()}", store)
        torch.distributed.init_process_group(backend, timeout=TIMEOUT, store=store, rank=rank, world_size=world_size)
        global _heartbeat
        _heartbeat = Heartbeat(rank, world_size)
    return Dist(rank, world_size, device)


def _attempt() -> str:
    """Number of restarts by torchrun, if all machines agree on it, else "0".

    The store outlives a restart: without this number, new processes would find the addresses of old ones.
    """
    env = os.environ
    one_machine = env.get("LOCAL_WORLD_SIZE") == env.get("WORLD_SIZE")
    static = env.get("TORCHELASTIC_RUN_ID") == "none"  # with --rdzv-id each machine counts only its own failures
    return env.get("TORCHELASTIC_RESTART_COUNT", "0") if one_machine or static else "0"


def close() -> None:
    """Leave the process group, if there is one."""
    global _heartbeat
    if _heartbeat is not None:
        _heartbeat.close()
        _heartbeat = None
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def gather_objects(dist: Dist, value: Any) -> list[Any]:
    """The values of all processes, in rank order, in every process."""
    if dist.world_size == 1:
        return [value]
    values: list[Any] = [None] * dist.world_size
    torch.distributed.all_gather_object(values, value)
    return values


def main_first(dist: Dist, act: Callable[[], T]) -> T:
    """Do something on rank 0 first, then on all others; a UserError there is raised in all, and reported by rank 0."""
    if dist.is_main:
        try:
            value = act()
        except UserError as error:
            gather_objects(dist, str(error))
            raise
        gather_objects(dist, "")
        return value
    [problem, *_] = gather_objects(dist, "")
    if problem:
        raise SaidError(problem)
    return act()


def agreed(dist: Dist, value: Any, what: str) -> Any:
    """The value, if it is the same in all processes; otherwise a UserError, in which `what` names it."""
    values = gather_objects(dist, value)
    if any(other != value for other in values):
        raise UserError(f"{what} differs between processes: {values}; all processes must use the same run folder")
    return value


def mean(dist: Dist, values: dict[str, float]) -> dict[str, float]:
    """Mean of each value over processes, the same in all; all must have the same keys in the same order."""
    if dist.world_size == 1:
        return values
    sums = torch.tensor(list(values.values()), dtype=torch.float64, device=dist.device)
    torch.distributed.all_reduce(sums)
    return dict(zip(values, (sums / dist.world_size).tolist(), strict=True))


def any_true(dist: Dist, flags: Sequence[bool]) -> list[bool]:
    """For each flag, whether any process sets it: one small exchange, with the same answer in every process."""
    if dist.world_size == 1:
        return list(flags)
    votes = torch.tensor(flags, dtype=torch.uint8, device=dist.device)
    torch.distributed.all_reduce(votes, torch.distributed.ReduceOp.MAX)
    return [bool(vote) for vote in votes.tolist()]


def any_asked(is_asked: bool) -> bool:
    """Whether this process, or another one as far as known here, was asked to stop.

    Does not wait: the others hear of it within seconds, each at a different point. Use `any_true` as well where all
    processes must act alike.
    """
    return is_asked if _heartbeat is None else _heartbeat.pass_on(is_asked)


def share(batch_size: int, world_size: int) -> int:
    """Samples per process of a batch over all processes; UserError if it cannot be divided evenly."""
    if batch_size % world_size:
        raise UserError(
            f"dataloader_batch_size: {batch_size} samples cannot be divided among {world_size} processes; "
            f"use a multiple of {world_size}"
        )
    return batch_size // world_size


def wrap(dist: Dist, net: nn.Module) -> nn.Module:
    """The network itself for one process, wrapped in DistributedDataParallel for several."""
    if dist.world_size == 1:
        return net
    return DistributedDataParallel(net, device_ids=[dist.device] if dist.device.type == "cuda" else None)
