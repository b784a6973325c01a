"""Optimizer state by parameter name, so that it survives changed groups and orders."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from utils.utils_error import UserError


def named_state(optimizer: Optimizer, net: nn.Module) -> dict[str, Any]:
    """The optimizer's state_dict plus `names`, its parameter names in index order."""
    return {**optimizer.state_dict(), "names": _names(optimizer, net)}


def load_named_state(optimizer: Optimizer, net: nn.Module, saved: Mapping[str, Any]) -> None:
    """Load the moments of a `named_state` by parameter name; the groups stay as the options define them.

    A parameter without saved moments starts without any. Moments of parameters no longer trained are dropped. Without
    `names` the groups must have the same order and sizes as now: else a UserError, as for a moment of another shape.
    """
    own, current = _names(optimizer, net), optimizer.state_dict()
    names = saved.get("names")
    if names is None:
        sizes = [[len(group["params"]) for group in groups["param_groups"]] for groups in (saved, current)]
        if sizes[0] != sizes[1]:
            raise UserError(
                f"the optimizer's groups have {sizes[0]} parameters, expected {sizes[1]}; set train.fix_keys, "
                "fix_lr_mul and G_param_groups as they were"
            )
        names = own
    moments = {name: saved["state"][index] for index, name in enumerate(names) if index in saved["state"]}
    parameters = dict(net.named_parameters())
    for name in own:
        for key, value in moments.get(name, {}).items():
            if isinstance(value, Tensor) and value.dim() and value.shape != parameters[name].shape:
                raise UserError(
                    f"the optimizer's {key} of {name} has shape {tuple(value.shape)}, expected "
                    f"{tuple(parameters[name].shape)}"
                )
    current["state"] = {index: moments[name] for index, name in enumerate(own) if name in moments}
    optimizer.load_state_dict(current)


def _names(optimizer: Optimizer, net: nn.Module) -> list[str]:
    names = {parameter: name for name, parameter in net.named_parameters()}
    return [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
