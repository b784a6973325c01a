"""Parameter groups, freezing, and the learning rate as a function of the step."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence

from torch import nn
from torch.optim import Adam, AdamW, Optimizer

OPTIMIZERS: dict[str, type[Adam]] = {"adam": Adam, "adamw": AdamW}


def is_fixed_key(name: str, fix_keys: Sequence[str]) -> bool:
    """Whether a parameter belongs to the part that `fix_keys` names by fragments of its name."""
    return any(key in name for key in fix_keys)


def param_groups(net: nn.Module, lr: float, fix_keys: Sequence[str], fix_lr_mul: float) -> list[dict]:
    """Two groups: the parameters that `fix_keys` names at lr * fix_lr_mul, the others at lr."""
    groups: list[dict] = [
        {"params": [], "lr": lr, "lr_mul": 1.0},
        {"params": [], "lr": lr * fix_lr_mul, "lr_mul": fix_lr_mul},
    ]
    for name, parameter in net.named_parameters():
        groups[is_fixed_key(name, fix_keys)]["params"].append(parameter)
    return [group for group in groups if group["params"]]


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Set the base learning rate; each group keeps its own multiple of it."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_mul"]


def cosine_lr(update: int, lr: float, eta_min: float, periods: Sequence[int], restart_mult: int, total: int) -> float:
    """Cosine annealing with warm restarts (Loshchilov and Hutter, arXiv:1608.03983, equation 5).

    The last update of a run is the end of a period, never the start of a new one.

    Args:
        update: 1 for the first update of a run.
        lr: learning rate at the start of a period.
        eta_min: learning rate at its end.
        periods: updates of the first periods; each later one is `restart_mult` times as long as the one before.
        restart_mult: at least 1.
        total: updates of the whole run.
    """
    position, index, period = update, 0, periods[0]
    while position >= period and not (update >= total and position == period):
        position -= period
        index += 1
        period = periods[index] if index < len(periods) else period * restart_mult
    return eta_min + (lr - eta_min) * (1 + math.cos(math.pi * position / period)) / 2


def multistep_lr(update: int, lr: float, milestones: Iterable[int], gamma: float) -> float:
    """lr times gamma for every milestone that has been reached."""
    return lr * gamma ** bisect_right(sorted(milestones), update)
