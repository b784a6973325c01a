"""What a run tells about its weights: enough to build their network elsewhere and to judge it."""

import json
from pathlib import Path
from typing import Any

from options.schema import Opt
from utils import __version__, utils_option
from utils.checkpoint.run_checkpoints import MEASURED
from utils.utils_file import read_text
from utils.utils_run_folder import SET_FILE, RunFolder, options_of
from utils.utils_zoo import commit

TILE = {"num_frame_testing", "num_frame_overlapping", "size_patch_testing", "size_patch_overlapping"}
OF_ONE_SENSOR = {"center", "rate_at_white", "flipud", "bit_order"}


def notes_of(weights: Path) -> dict[str, Any]:
    """Describe the weights of a run, a file in experiments/<task>/models; empty if the file belongs to no run.

    JSON values: task, version and commit of the program, options that build the network (see `options_of_network`),
    what the spikes were trained for, and as far as the run's records have them step, seconds, seed and score. UserError
    if the run's options are damaged.
    """
    file = options_of(weights)
    if file is None or not file.is_file():
        return {}
    opt, run = utils_option.load(file, Opt), RunFolder(file.parent)
    step, score = _step_and_score(run, weights)
    notes: dict[str, Any] = {
        "task": opt.task,
        "version": __version__,
        "commit": commit(),
        "options": options_of_network(opt),
        "step": step,
        "score": score,
        "seconds": None if step is None else _seconds(run.metrics, step),
        "seed": opt.train.manual_seed,
    }
    if sets := opt.datasets.train_sets:
        draws = [block.augment.model_dump(mode="json", exclude_defaults=True) for block in sets.values()]
        notes["augment"] = draws if isinstance(opt.datasets.train, tuple) else draws[0]
    return {key: value for key, value in notes.items() if value is not None}


def options_of_network(opt: Opt) -> dict[str, Any]:
    """The options that build a network and its input, as an option file has them; folders are only examples."""
    net = opt.netG.without_files().model_copy(update={"lora": None})  # low-rank changes are merged
    only = {"net_type", "guide"} if net.net_type == "guide" else None
    tree = {
        "task": opt.task,
        "netG": net.model_dump(mode="json", include=only),
        "val": opt.val.model_dump(mode="json", include=TILE),
    }
    data = opt.datasets.with_spikes
    if data is None:
        return tree
    test = {
        "dataset_type": "VideoRecurrentTestDatasetRGBSpike",
        "dataroot_lq": "clips",
        "dataroot_spike": "spikes",
        "spike_channels": data.spike_channels,
        "spike": data.spike.model_dump(mode="json", exclude=OF_ONE_SENSOR),
    }
    return tree | {"datasets": {"test": test}}


def _step_and_score(run: RunFolder, weights: Path) -> tuple[int | None, dict[str, float] | None]:
    """Step of a run's weights and, of its best ones, the score; None where nothing tells them."""
    saved = SET_FILE.fullmatch(weights.name)
    if saved or not run.best_score.is_file() or weights.name != run.best.name:
        return (int(saved[1]) if saved else None), None
    score = json.loads(read_text(run.best_score))
    score.pop(MEASURED, None)
    return score.pop("step"), score


def _seconds(metrics: Path, step: int) -> int | None:
    """Seconds of all steps up to one, over all starts of the run, without its tests; None: no record."""
    total, last = 0.0, 0
    for line in read_text(metrics, "replace").splitlines() if metrics.is_file() else ():
        record = json.loads(line)
        if "time" in record and last < record["step"] <= step:
            total += record["time"] * (record["step"] - last)  # an average since the last print
            last = record["step"]
    return round(total) if last else None
