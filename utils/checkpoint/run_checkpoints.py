"""A run's checkpoints: sets of files written atomically, verified before use, pruned to the newest ones."""

import hashlib
import json
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from utils import utils_file
from utils.checkpoint import kair_checkpoints
from utils.checkpoint.option_changes import changes, options_hash
from utils.utils_checkpoint import dump, read_file, read_state_dict, write_file
from utils.utils_error import UserError
from utils.utils_file import read_text, whole_file, write_text
from utils.utils_metric import lower_is_better
from utils.utils_run_folder import RunFolder

LOG = logging.getLogger("spikevrt")
KINDS = ("G", "E", "state")  # in the order in which the files of a set appear
TEMPORARY = re.compile(r"\.(\d+)_(?:G|E|state)\..*\.tmp\.pth")
MEASURED = "measured"  # in best.json: what the score depends on besides the weights
MOST_NAMED = 3  # damaged checkpoints described in an error


class Resumable(Protocol):
    """A model that can be saved and resumed: state_dicts by kind, "G", "state" and, with a moving average, "E".

    They hold everything that the next step depends on. For KAIR runs "state" has only the optimizer, possibly without
    moments.
    """

    def state_dicts(self) -> dict[str, dict[str, Any]]: ...
    def load_state_dicts(self, states: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True)
class Resumed:
    """Where a run resumes."""

    step: int = 0  # finished optimizer steps; 0: no checkpoint, the run starts
    record: Mapping[str, Any] = field(default_factory=dict)  # as given to `save`
    changes: tuple[str, ...] = ()  # options changed since the checkpoint, "key: old -> new"


def save(run_dir: Path, step: int, model: Resumable, record: Mapping[str, Any], keep: int = 0) -> None:
    """Write the set <step>_G.pth, <step>_E.pth and <step>_state.pth; with `keep`, remove all but so many newest sets.

    All files are on disk before the first is renamed into place. The state is renamed last: its presence marks the set
    as whole, and it holds the size and SHA-256 of the other files. Later steps and best_G.pth always stay. `record` has
    the JSON values that `resume` returns, including `options`, resolved and without secrets. Raises DiskError if the
    disk is full or the like; all earlier sets are then unchanged.
    """
    run = RunFolder(run_dir)
    states = model.state_dicts()
    plain: dict[str, Any] = json.loads(json.dumps(record))  # plain values load without running code
    with _disk_errors_in_words(run, f"the checkpoint of step {step}"):
        _sweep(run)
        new = [kind for kind in KINDS if not run.checkpoint(step, kind).exists()]
        try:
            _write_set(run, step, states, plain)
        except BaseException:  # weights without a state would look like a KAIR checkpoint
            if "state" in new:
                _remove(run, step, new)
            raise
    if keep:
        older = [saved for saved in run.steps() if saved < step]
        for old in older[: max(0, len(older) + 1 - keep)]:
            _remove(run, old, KINDS)


def save_best(
    run_dir: Path, model: Resumable, step: int, metric: str, score: float, measured: Mapping[str, Any] | None = None
) -> None:
    """Write best_G.pth (the averaged weights if the model has them), then best.json with step and score; as `save`.

    `measured`: what the score depends on besides the weights, see `utils_eval.conditions`.
    """
    run, states = RunFolder(run_dir), model.state_dicts()
    with _disk_errors_in_words(run, f"the best weights, of step {step},"):
        write_file(_on_cpu(states.get("E", states["G"])), run.best)
        write_text(run.best_score, json.dumps({"step": step, metric: float(score), MEASURED: measured or {}}) + "\n")


def best(run_dir: Path) -> dict[str, Any] | None:
    """{"step", <metric>} of the run's best weights so far; None if there are none."""
    found = _best(run_dir)
    return found and found[0]


def _best(run_dir: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """As `best`, and what was measured: empty if an earlier version, which did not note it, wrote the file."""
    path = RunFolder(run_dir).best_score
    if not path.is_file():
        return None
    try:
        content = json.loads(read_text(path))
        ((metric, score),) = ((key, value) for key, value in content.items() if key not in ("step", MEASURED))
        return {"step": int(content["step"]), metric: float(score)}, dict(content.get(MEASURED, {}))
    except (AttributeError, ValueError, KeyError, TypeError):
        LOG.warning("%s is damaged: the next measured weights count as the best", path)
        return None


def is_best(run_dir: Path, metric: str, score: float, measured: Mapping[str, Any] | None = None) -> bool:
    """Whether a score beats the run's best weights so far, or is the first of its metric or its `measured`.

    `measured` is as in `save_best`; what only one of the two has is not compared.
    """
    noted = _best(run_dir)
    if math.isnan(score) or noted is None:
        return not math.isnan(score)
    found, before = noted
    if metric not in found:
        LOG.warning("best weights so far were chosen by another metric, %s; by %s the new ones are best", found, metric)
        return True
    if differing := "; ".join(str(change) for change in changes(before, measured or {}) if change.known):
        LOG.warning("best weights so far, %s, were measured otherwise (%s): the new ones are best", found, differing)
        return True
    highest: float = found[metric]
    return score < highest if lower_is_better(metric) else score > highest


def resume(run_dir: Path, model: Resumable, options: Mapping[str, Any]) -> Resumed:
    """Load a run's newest whole checkpoint into the model; damaged ones are logged and skipped.

    Also resumes a folder that has KAIR's files and no state file. `options` are the current resolved ones, JSON values
    without secrets. Raises UserError if no checkpoint is whole, or the newest whole one belongs to a different network.
    """
    run = RunFolder(run_dir)
    steps, train = run.steps(), None
    if not steps:
        unfinished = _unfinished(run, run.weights.glob(".*.tmp.pth"))
        steps = [step for step in run.steps("G") if step not in unfinished]
        train = options.get("train", {})
    refused: list[str] = []
    for step in reversed(steps):
        try:
            states = _read_set(run, step) if train is None else kair_checkpoints.read_set(run, step, train)
        except UserError as error:
            LOG.warning("checkpoint %d is not whole, trying the previous one: %s", step, error)
            refused.append(f"{step}: {error}")
            continue
        if train is not None:
            kair_checkpoints.name_unused(run, step)
        return _apply(run, step, model, states, options)
    if refused:
        more = f" (and {len(refused) - MOST_NAMED} more)" if len(refused) > MOST_NAMED else ""
        moved = ", ".join(f"{step}_*.pth" for step in reversed(steps[-MOST_NAMED:]))
        raise UserError(
            f"{run.weights}: no checkpoint is whole: {'; '.join(refused[:MOST_NAMED])}{more}; put whole files in "
            f"place, or move {moved}{more} away to start from step 0"
        )
    return Resumed()


def _on_cpu(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights on the CPU, so that they load on any machine."""
    return {key: value.detach().cpu() for key, value in weights.items()}


def _write_set(run: RunFolder, step: int, states: Mapping[str, Any], record: dict[str, Any]) -> None:
    with ExitStack() as stack:
        # The stack unwinds in reverse: G is renamed first, the state last.
        places = {
            kind: stack.enter_context(whole_file(run.checkpoint(step, kind)))
            for kind in reversed(KINDS)
            if kind in states
        }
        files = {kind: dump(_on_cpu(states[kind]), places[kind]) for kind in KINDS[:-1] if kind in states}
        state = {"step": step, **states["state"], "files": files, "record": record}
        if "options" in record:
            state["options_hash"] = options_hash(record["options"])
        dump({**state, "sha256": _digest(state)}, places["state"])


def _read_set(run: RunFolder, step: int) -> dict[str, Any]:
    """Read a set by kind; UserError if a file is missing or differs from what the state recorded."""
    place = run.checkpoint(step, "state")
    state = read_file(place)
    if not isinstance(state, dict) or not {"files", "kinds"} & state.keys():
        raise UserError(f"{place} is not the state of a run")
    claimed = state.pop("sha256", None)
    if claimed is not None and claimed != _digest(state):
        raise UserError(f"{place} is damaged: its content differs from what was written")
    files = state.get("files") or dict.fromkeys(state["kinds"])  # earlier versions wrote only `kinds`
    states: dict[str, Any] = {"state": state}
    for kind, written in files.items():
        if kind == "state":
            continue
        path = run.checkpoint(step, kind)
        if not path.is_file():
            raise UserError(f"{path} is missing")
        if written is not None and path.stat().st_size != written["bytes"]:
            raise UserError(f"{path} has {path.stat().st_size} bytes, expected {written['bytes']}")
        states[kind] = read_state_dict(path, written and written["sha256"])
    return states


def _apply(
    run: RunFolder, step: int, model: Resumable, states: Mapping[str, Any], options: Mapping[str, Any]
) -> Resumed:
    """Load a set into the model and log which options changed since it was written."""
    record = states["state"].get("record", {})
    changed = list(changes(record.get("options", options), options))
    refused = "; ".join(str(change) for change in changed if change.is_refused)
    try:
        if refused:
            raise UserError(refused)
        model.load_state_dicts(states)
    except ValueError as error:  # a UserError, or the optimizer's refusal
        raise UserError(
            f"{run.weights}/{step}_*.pth cannot be resumed with these options: {error}; undo the changes in netG or "
            "train, or give the run another task name"
        ) from error
    LOG.info("resumed from step %d in %s (options %s)", step, run.weights, options_hash(options))
    if changed:
        LOG.info("options changed since step %d:", step)
        for change in changed:
            LOG.info("%s", change)
    return Resumed(step, record, tuple(map(str, changed)))


def _digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of a state's content rather than its bytes, so that the file can contain its own digest."""
    sha = hashlib.sha256()
    _feed(sha, content)
    return sha.hexdigest()


def _feed(sha: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        sha.update(f"{value.dtype}{tuple(value.shape)}".encode())
        sha.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    elif isinstance(value, Mapping):
        sha.update(b"{")
        for key, item in value.items():
            sha.update(f"{key!r}:".encode())
            _feed(sha, item)
        sha.update(b"}")
    elif isinstance(value, (list, tuple)):
        sha.update(b"[")
        for item in value:
            _feed(sha, item)
        sha.update(b"]")
    else:
        sha.update(f"{value!r},".encode())


def _disk_errors_in_words(run: RunFolder, what: str) -> AbstractContextManager[None]:
    """`utils_file.disk_errors_in_words` for a checkpoint; says which one is the newest without it."""
    steps = run.steps()
    left = f"the checkpoint of step {steps[-1]} is unchanged" if steps else "there is no earlier checkpoint"
    advice = f"{left}; fix that and run the same command again"
    return utils_file.disk_errors_in_words(run.weights, advice, what=what)


def _unfinished(run: RunFolder, temporary: Iterable[Path]) -> set[int]:
    """Steps with temporary files that were never completed; KAIR's checkpoints are not among them."""
    matches = (TEMPORARY.fullmatch(path.name) for path in temporary)
    steps = {int(match[1]) for match in matches if match}
    last = ("state", "optimizerG")
    return {step for step in steps if not any(run.checkpoint(step, kind).exists() for kind in last)}


def _sweep(run: RunFolder) -> None:
    """Remove the files of processes that died while saving; those of live processes stay."""
    for step in _unfinished(run, utils_file.abandoned(run.weights)):
        _remove(run, step, KINDS)
    utils_file.sweep(run.weights)


def _remove(run: RunFolder, step: int, kinds: Sequence[str]) -> None:
    """Remove files of a set in the order of `kinds`; warn about those that cannot be removed."""
    for kind in kinds:
        path = run.checkpoint(step, kind)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            LOG.warning("%s cannot be removed: %s", path, error.strerror)
