"""Checkpoints written by KAIR: <step>_G.pth, <step>_E.pth and <step>_optimizerG.pth, without a state file."""

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from utils.utils_checkpoint import is_buffer, read_file, read_state_dict
from utils.utils_error import UserError
from utils.utils_run_folder import RunFolder

LOG = logging.getLogger("spikevrt")


def read_set(run: RunFolder, step: int, train: Mapping[str, Any]) -> dict[str, Any]:
    """Read one KAIR checkpoint, in the form of this project's checkpoints: by kind, G, E if present, and state.

    The `fix_keys` and `fix_lr_mul` of `train`, a block of the options, determine the optimizer groups. The state has
    the optimizer's moments and the names of their parameters. Raises UserError if a file is damaged, or the optimizer
    does not match these weights and groups.
    """
    states: dict[str, Any] = {"G": read_state_dict(run.checkpoint(step, "G"))}
    if run.checkpoint(step, "E").is_file():
        states["E"] = read_state_dict(run.checkpoint(step, "E"))
    optimizer: dict[str, Any] = {"state": {}, "names": []}
    path = run.checkpoint(step, "optimizerG")
    if path.is_file():
        saved = read_file(path)
        if not isinstance(saved, Mapping) or not {"state", "param_groups"} <= saved.keys():
            raise UserError(f"{path} does not contain an optimizer state")
        groups = parameter_groups(states["G"], train.get("fix_keys", ()), train.get("fix_lr_mul", 1.0))
        found = [len(group["params"]) for group in saved["param_groups"] if group["params"]]
        if found != [len(group) for group in groups]:
            raise UserError(
                f"{path} has groups of {found} parameters, expected {[len(group) for group in groups]}; set "
                "train.fix_keys and fix_lr_mul as in that run, or move the file away to continue without its moments"
            )
        optimizer = {"state": saved["state"], "names": [name for group in groups for name in group]}
    states["state"] = {"optimizer": optimizer}
    return states


def parameter_groups(weights: Collection[str], fix_keys: Sequence[str], fix_lr_mul: float) -> list[list[str]]:
    """Parameter names of each KAIR optimizer group, in the order of the weights file, whose keys include buffers.

    Those with a fragment of `fix_keys` in the name form the second group, unless fix_lr_mul is 1.
    """
    names = [name for name in weights if not is_buffer(name)]
    if fix_lr_mul == 1:
        return [names]
    groups: tuple[list[str], list[str]] = ([], [])
    for name in names:
        groups[any(key in name for key in fix_keys)].append(name)
    return [group for group in groups if group]


def name_unused(run: RunFolder, step: int) -> None:
    """Warn about kinds of file that the run has only for other steps."""
    for kind in ("E", "optimizerG"):
        steps = run.steps(kind)
        if steps and step not in steps:
            LOG.warning("%s has no %d_%s.pth; that of step %d is not used", run.weights, step, kind, steps[-1])
