"""The tasks of main_test_vrt.py: their option files, and the changes made by its flags. Does not import torch."""

import argparse
import difflib
import math
from pathlib import Path
from typing import Any

from data.clip_index import existing_folder
from data.spike.config_yaml import SpikeConfig
from data.spike.manifest import Manifest
from options.schema import Opt, ValOpt
from utils import utils_option
from utils.utils_error import UserError
from utils.utils_tile_opt import TileOpt, both

GOPRO_SPIKE_SIZE = 360, 640


def task_file(task: str) -> Path:
    """Return the option file of a task.

    Raises:
        UserError: the task is unknown.
    """
    known = utils_option.task_files()
    if task not in known:
        near = difflib.get_close_matches(task, known, n=1, cutoff=0)
        raise UserError(f"--task {task} is unknown; did you mean {near[0]}?")
    return known[task]


def changes_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options, by dotted key, that the command line changes."""
    opt, changes = utils_option.load(task_file(args.task), Opt), folders_of(args)
    existing_folder(changes["dataroot_lq"], "--folder_lq")
    changes |= spike_changes(opt, args.folder_spike)
    return {f"datasets.test.{key}": value for key, value in changes.items()} | tile_changes(args, opt.val)


def tile_changes(args: argparse.Namespace, val: ValOpt) -> dict[str, Any]:
    """Return the tile options given by --tile and --tile_overlap; the default is the task's own tile, if it has one."""
    default, default_overlap = (40, 128, 128), (2, 20, 20)
    if "num_frame_testing" in val.model_fields_set:
        default = val.num_frame_testing, *both(val.size_patch_testing)
        default_overlap = val.num_frame_overlapping, *both(val.size_patch_overlapping)
    frame_overlap, *overlap = args.tile_overlap or default_overlap
    shared = {"val.num_frame_overlapping": frame_overlap, "val.size_patch_overlapping": overlap}
    if args.tile == ["auto"]:
        return {"val.tile": "auto", **shared}
    frames, *size = args.tile or default
    TileOpt(frames, frame_overlap, (size[0], size[1]), (overlap[0], overlap[1]))  # refuses invalid lengths
    return {"val.num_frame_testing": frames, "val.size_patch_testing": size, **shared}


def folders_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the test set's options given by --folder_lq and --folder_gt; denoising has clean frames in both."""
    lq, gt = args.folder_lq, args.folder_gt
    if "videodenoising" in args.task:
        lq, gt = lq or gt, gt or lq
    if lq is None:
        raise UserError(f"--folder_lq is missing, expected the folder of the clips to restore with {args.task}")
    return {"dataroot_lq": lq, "dataroot_gt": gt}


def noise_level(opt: Opt, sigma: float | None) -> float | None:
    """Return the noise level of --sigma, else of the test set; None if the network takes none.

    Raises:
        UserError: --sigma is given but the network takes none, or the network needs one and there is none.
    """
    wanted = "0 or more, on a scale where white is 255"
    if not opt.netG.nonblind_denoising:
        if sigma:
            raise UserError(f"--sigma is {sigma:g}, but {opt.task} takes no noise level; leave it out")
        return None
    if sigma is None and opt.datasets.test is not None:
        sigma = opt.datasets.test.sigma
    if sigma is None:
        raise UserError(f"--sigma is missing, expected the noise level for {opt.task} to remove, {wanted}")
    if not 0 <= sigma < math.inf:
        raise UserError(f"--sigma is {sigma:g}, expected a noise level, {wanted}")
    return sigma


def spike_changes(opt: Opt, folder: str | None) -> dict[str, Any]:
    """Return the test set's options given by --folder_spike; spikes that no file describes have GoPro's size."""
    test = opt.datasets.test
    if folder is None:
        if test is not None and test.uses_spikes:
            raise UserError(f"--folder_spike is missing, expected the folder of the spike files for {opt.task}")
        return {}
    if test is None or not test.uses_spikes:
        raise UserError(f"--folder_spike is {folder}, but {opt.task} takes no spikes; leave it out")
    described = Manifest.load(folder) or SpikeConfig.load(folder)
    size = {} if described else dict(zip(("spike_h", "spike_w"), GOPRO_SPIKE_SIZE, strict=True))
    return {"dataroot_spike": folder, **size}
