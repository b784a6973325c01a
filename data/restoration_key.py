"""What a restored frame depends on: an interrupted test resumes only where all of it is the same."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.spike.manifest import Manifest
from options.schema import Opt
from utils.checkpoint.option_changes import NET_KEYS_THAT_KEEP_WEIGHTS
from utils.evaluation.clip import TestSet
from utils.utils_file import digest
from utils.utils_tile_opt import TileOpt


def inputs_of(opt: Opt) -> dict[str, str | None]:
    """The folders that the test set is read from, by option."""
    test = opt.datasets.test
    assert test is not None
    spikes = test.dataroot_spike if test.uses_spikes else None
    folders = {"lq": test.dataroot_lq, "gt": test.dataroot_gt, "spike": spikes}
    return {f"datasets.test.dataroot_{key}": path for key, path in folders.items()}


def restoration_key(opt: Opt, weights: Path, sigma: float | None, tile: TileOpt, test_set: TestSet) -> dict[str, Any]:
    """Everything that a restored frame depends on, as JSON values."""
    val, test = opt.val, opt.datasets.test
    assert test is not None
    net = {
        key: value
        for key, value in opt.netG.without_files().model_dump(mode="json").items()
        if key not in NET_KEYS_THAT_KEEP_WEIGHTS
    }
    inputs = inputs_of(opt)
    places = {key: path and str(Path(path).resolve()) for key, path in inputs.items() if "gt" not in key}
    spikes = inputs["datasets.test.dataroot_spike"]
    manifest = Manifest.load(spikes) if spikes is not None else None
    keys = ("spike_h", "spike_w", "filename_ext", "filename_tmpl", "meta_info_file")
    return {
        "weights": digest(weights),
        "netG": net,
        "data": {**places, **{key: getattr(test, key) for key in keys}, "spike": test.spike.model_dump(mode="json")},
        "manifest": manifest and manifest.model_dump(mode="json"),
        "val": {key: getattr(val, key) for key in ("pad_seq", "flip_seq", "self_ensemble", "center_frame_only")},
        "tile": asdict(tile),
        "amp": opt.train.amp.model_dump(mode="json"),
        "tf32": opt.train.tf32,
        "sigma": sigma,
        "clips": {clip.name: clip.frames for clip in (test_set[index] for index in range(len(test_set)))},
    }
