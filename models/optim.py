"""Which parameters are trained, in which groups, and the learning rate as a function of the step."""

import difflib
import inspect
import logging
import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from options.schema import TrainOpt
from utils.utils_error import UserError

LOG = logging.getLogger("spikevrt")
KAIR_FIX_KEYS = ("spynet", "deform")  # in all of its files, also for networks without these parts
NEAR = 3  # suggestions for a name that matches nothing


def never_compiled(kind: type[Adam]) -> type[Adam]:
    """The optimizer class without the wrappers that keep PyTorch's compiler out of its methods.

    The wrappers import the compiler, which takes two seconds even without train.compile. Only networks are compiled
    here, so the bare methods behave the same.
    """
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in WRAPPED}
    methods["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), methods)


WRAPPED = ("add_param_group", "state_dict", "load_state_dict", "zero_grad")
OPTIMIZERS: dict[str, type[Adam]] = {"adam": never_compiled(Adam), "adamw": never_compiled(AdamW)}


def freeze(net: nn.Module, patterns: Sequence[str]) -> None:
    """Exclude from training the parameters whose full names match a pattern such as "spynet.*".

    Raises:
        UserError: a pattern matches no parameter, or nothing is left to train.
    """
    parameters = dict(net.named_parameters())
    for pattern in patterns:
        matching = [parameter for name, parameter in parameters.items() if fnmatchcase(name, pattern)]
        if not matching:
            raise UserError(
                f"train.freeze: {pattern!r} matches no parameter of the network, near: {_near(pattern, parameters)}; "
                'give patterns of full names, such as "spynet.*"'
            )
        for parameter in matching:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise UserError(f"train.freeze: {list(patterns)} leaves no parameter to train; remove a pattern")


def make_optimizer(net: nn.Module, opt: TrainOpt) -> Optimizer:
    """The optimizer of all parameters that require a gradient, in the groups given by the options.

    There are two groups, the parameters that `fix_keys` does not match and those that it does, and two more for each
    entry of G_param_groups; empty groups are dropped. Each group has "lr_mul", its learning rate factor, and "fixed",
    whether `fix_keys` matches its parameters.

    Raises:
        UserError: a key of G_param_groups or fix_keys occurs in no parameter's name.
    """
    parameters = dict(net.named_parameters())
    _check_keys(parameters, opt)
    kinds = [(1.0, None), *((entry.lr_mul, entry.weight_decay) for entry in opt.G_param_groups)]
    groups: list[dict[str, Any]] = []
    for lr_mul, weight_decay in kinds:
        for fixed in (False, True):
            group = {"params": [], "lr_mul": lr_mul * (opt.fix_lr_mul if fixed else 1.0), "fixed": fixed}
            groups.append(group if weight_decay is None else {**group, "weight_decay": weight_decay})
    for name, parameter in parameters.items():
        if parameter.requires_grad:
            entries = enumerate(opt.G_param_groups, start=1)
            kind = next((i for i, entry in entries if is_fixed_key(name, entry.keys)), 0)
            groups[2 * kind + is_fixed_key(name, opt.fix_keys)]["params"].append((name, parameter))
    optimizer = OPTIMIZERS[opt.G_optimizer_type](
        [group for group in groups if group["params"]],
        lr=opt.G_optimizer_lr,
        betas=opt.G_optimizer_betas,
        weight_decay=opt.G_optimizer_wd,
    )
    set_lr(optimizer, opt.G_optimizer_lr)
    return optimizer


def freeze_fix_keys(optimizer: Optimizer, frozen: bool) -> None:
    """Freeze the parameters that `fix_keys` matches, or train them; the others are not touched."""
    for group in optimizer.param_groups:
        if group["fixed"]:
            for parameter in group["params"]:
                parameter.requires_grad_(not frozen)


def is_fixed_key(name: str, fix_keys: Sequence[str]) -> bool:
    """Whether one of `fix_keys` occurs in the parameter's name."""
    return any(key in name for key in fix_keys)


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Set the base learning rate; each group gets its own multiple of it."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_mul"]


def learning_rate(update: int, opt: TrainOpt) -> float:
    """Base learning rate of an update, 1 for the first of a run.

    Warm-up multiplies the schedule by 1/n, 2/n, ... 1 over the first n updates.
    """
    top, low = opt.G_optimizer_lr, opt.G_scheduler_eta_min
    if opt.G_scheduler_type == "MultiStepLR":
        lr = multistep_lr(update, top, opt.G_scheduler_milestones, opt.G_scheduler_gamma)
    elif opt.G_scheduler_type == "CosineAnnealingLR":
        lr = half_cosine(min(update / opt.total_iter, 1.0), top, low)
    else:
        lr = cosine_lr(update, top, low, opt.scheduler_periods, opt.G_scheduler_restart_weights, opt.total_iter)
    return lr * min(1.0, update / opt.warmup_iter) if opt.warmup_iter > 0 else lr


def half_cosine(part: float, lr: float, eta_min: float) -> float:
    """From `lr` at part 0 to `eta_min` at part 1 (Loshchilov and Hutter, arXiv:1608.03983, equation 5)."""
    return eta_min + (lr - eta_min) * (1 + math.cos(math.pi * part)) / 2


def cosine_lr(update: int, lr: float, eta_min: float, periods: Sequence[int], restart_mult: int, total: int) -> float:
    """Cosine annealing with warm restarts (as above), from `lr` to `eta_min` in each period.

    `periods` are the updates of the first ones; each later one is `restart_mult` times as long as the one before. The
    last of all `total` updates is the end of a period, never the start of a new one.
    """
    position, index, period = update, 0, periods[0]
    while position >= period and not (update >= total and position == period):
        position -= period
        index += 1
        period = periods[index] if index < len(periods) else period * restart_mult
    return half_cosine(position / period, lr, eta_min)


def multistep_lr(update: int, lr: float, milestones: Iterable[int], gamma: float) -> float:
    """lr, multiplied by gamma for every milestone reached."""
    return lr * gamma ** bisect_right(sorted(milestones), update)


def _check_keys(names: Iterable[str], opt: TrainOpt) -> None:
    """Refuse keys that occur in no parameter's name; those of KAIR's own files are only logged."""
    names = list(names)
    given = [(f"G_param_groups[{i}].keys", key) for i, entry in enumerate(opt.G_param_groups) for key in entry.keys]
    given += [("fix_keys", key) for key in opt.fix_keys]
    for option, key in given:
        if any(key in name for name in names):
            continue
        if option == "fix_keys" and key in KAIR_FIX_KEYS:
            LOG.warning("train.%s: %r is in no parameter's name, so it has no effect", option, key)
            continue
        raise UserError(
            f"train.{option}: {key!r} is in no parameter's name, near: {_near(key, names)}; give a part of a name"
        )


def _near(wanted: str, names: Iterable[str]) -> str:
    """The parts of parameter names that are closest to a wrong one and have as many dots."""
    wanted = wanted.strip("*?.")
    length = wanted.count(".") + 1
    split = [name.split(".") for name in names]
    parts = {".".join(words[i : i + length]) for words in split for i in range(max(len(words) - length + 1, 1))}
    return ", ".join(difflib.get_close_matches(wanted, sorted(parts), NEAR, cutoff=0.0))
