"""Restore and measure clips with trained weights.

python main_test_vrt.py --opt options/vrt/demo.json
torchrun --standalone --nproc_per_node=4 main_test_vrt.py --opt options/vrt/gopro_rgbspike_local.json
python main_test_vrt.py --task spike_guide --folder_lq D --folder_spike D
python main_test_vrt.py --task 006_VRT_videodeblurring_GoPro --folder_lq D --folder_gt D --save_result
python main_test_vrt.py --task 001_VRT_videosr_bi_REDS_6frames --folder_lq SMALL --folder_gt D
python main_test_vrt.py --task 008_VRT_videodenoising_DAVIS --folder_gt CLEAN --sigma 20
python main_test_vrt.py --task 009_VRT_videofi_Vimeo_4frames --folder_lq EVERY_SECOND_FRAME --folder_gt ALL_FRAMES

Denoising adds noise to the clean frames of --folder_lq and measures against --folder_gt; one of the two is enough.
Interpolation makes the middle frame of every four consecutive ones and measures those that --folder_gt contains; its
lq_ metrics measure the average of the two frames around it.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from utils import utils_cli

if __name__ == "__main__":
    utils_cli.imports_follow()

from data.clip_index import check_folders
from data.instants import slow_motion
from data.official_tasks import changes_of, noise_level, task_file
from options.schema import Opt
from utils import utils_option
from utils.processes import thread_count
from utils.utils_error import UserError, counted
from utils.utils_file import digest, write_text
from utils.utils_run_folder import RELEASE, ResultsFolder, find_weights
from utils.utils_tile_opt import TileOpt, tile_of
from utils.utils_zoo import located


@dataclass(frozen=True)
class Job:
    """One call of this program."""

    opt: Opt
    folder: Path  # of the results
    weights: Path
    reason: str  # why these weights
    tile: TileOpt
    save_frames: bool
    sigma: float | None
    resume: bool


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line: the --opt form or the older --task form."""
    parser = utils_cli.Parser(description=__doc__)
    parser.add_common()
    form = parser.add_mutually_exclusive_group(required=True)
    form.add_argument("--opt", type=Path, metavar="CONFIG", help="option file; its run's weights are tested")
    form.add_argument("--task", help=f"one of {', '.join(utils_option.task_files())}")
    parser.add_set()
    parser.add_argument("--resume", action="store_true", help="continue an interrupted call; keeps its frames")
    parser.add_argument("--sigma", type=float, help="noise level to remove in denoising; white is 255")
    instants = parser.add_mutually_exclusive_group()
    instants.add_argument("--times", type=float, nargs="+", metavar="T", help="instants to restore, as fractions of "
                          "each frame's exposure from 0 to 1; needs spikes")  # fmt: skip
    instants.add_argument("--slowmo", type=utils_cli.positive, metavar="N", help="restore N instants per frame, evenly "
                          "spaced over its exposure")  # fmt: skip
    older = parser.add_argument_group("with --task")
    text = "clips: a folder of clip folders or videos, one folder of frames, or one video"
    older.add_argument("--folder_lq", help=text)
    older.add_argument("--folder_gt", help="sharp clips, as --folder_lq; without it nothing is measured")
    older.add_argument("--folder_spike", help="spike files of the clips")
    text = "tile in frames and pixels; 0 0 0: none; auto: by free memory (default: 40 128 128)"
    older.add_argument("--tile", nargs="+", metavar="T H W", help=text)
    text = "overlap of tiles in frames and pixels (default: 2 20 20)"
    older.add_argument("--tile_overlap", type=int, nargs=3, metavar=("T", "H", "W"), help=text)
    older.add_argument("--num_workers", type=int, help="accepted and ignored; frames are read on demand")
    text = "write frames and comparison; always on without --folder_gt"
    older.add_argument("--save_result", action="store_true", help=text)
    text = "weights file (default: model_zoo/vrt/<task>.pth; for spike_* those that ship)"
    older.add_argument("--weights", type=Path, help=text)
    args = parser.parse_args(argv)
    given = [action.dest for action in older._group_actions if getattr(args, action.dest) not in (None, False)]
    if args.opt and given:
        parser.error(f"--{given[0]} belongs to --task; with --opt use --set KEY=VALUE instead")
    if args.tile not in (None, ["auto"]):
        if len(args.tile) != 3 or not all(length.isdecimal() for length in args.tile):
            parser.error(f"--tile {' '.join(args.tile)}: expected auto or three numbers T H W, such as 12 256 256")
        args.tile = [int(length) for length in args.tile]
    return args


def read_job(args: argparse.Namespace) -> Job:
    """The job of a call, after checking it and its options."""
    opt = read_options(args)
    if opt.datasets.test is None:
        raise UserError(f"{args.opt or args.task}: {opt.untested}")
    sigma = noise_level(opt, args.sigma)
    tile = tile_of(opt.val, opt.netG.window_size, opt.netG.extra_frames, opt.netG.grid)
    weights, reason = weights_of(args, opt)
    if not weights.is_file():
        raise UserError(
            f"{weights} ({reason}): not found, and nothing is downloaded; train first, or get an official task's "
            f"{weights.name} from {RELEASE}"
        )
    is_measured = opt.datasets.test.dataroot_gt is not None
    save_frames = bool(args.opt) or args.save_result or not is_measured or opt.val.output != ("png",)
    if args.resume and not save_frames:
        raise UserError("--resume continues from saved frames, which this call does not write; add --save_result")
    check_folders(opt.datasets.model_copy(update={"train": None}))
    return Job(opt, opt.results_dir, weights, reason, tile, save_frames, sigma, args.resume)


def read_options(args: argparse.Namespace) -> Opt:
    """The option file, or that of the task changed by the older flags."""
    file = args.opt or task_file(args.task)
    changes = {} if args.opt else changes_of(args)
    if times := slow_motion(args.slowmo) if args.slowmo else args.times:
        changes["val.times"] = list(times)
    if args.slowmo:
        changes["val.output"] = ["png", "h264"]
    sets = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    return utils_option.load(file, Opt, overrides=[*sets, *args.set])


def weights_of(args: argparse.Namespace, opt: Opt) -> tuple[Path, str]:
    """The weights file, and why it was chosen."""
    path = opt.path
    if args.opt:
        return find_weights(opt.run_dir, path.pretrained_netE, path.pretrained_netG, path.shipped_netG)
    if args.weights:
        return located(args.weights), "given by --weights"
    if path.shipped_netG:
        return located(path.shipped_netG), "ships with the project"
    return Path("model_zoo") / "vrt" / f"{args.task}.pth", "default of --task"


if __name__ == "__main__":
    # Report mistakes in the call or the options before the imports below, which take seconds.
    arguments = parse_args()
    with utils_cli.program(arguments.debug, arguments.quiet):
        job_of_call = read_job(arguments)
    thread_count.before_torch()

import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch

from data.restoration_key import inputs_of, restoration_key
from data.spike.align.warning import warn_at_start
from data.task_clips import clips_to_restore, protocol_of
from models.memory import choose_tile
from models.select_model import define_restorer
from utils import utils_dist, utils_eval, utils_metric
from utils.evaluation.clip import Clip, TestSet
from utils.report import comparison_video, instants_picture, metric_files, results_folder, test_page
from utils.tiles.choice import ShrinkingTile
from utils.utils_dist import Dist

LOG = logging.getLogger("spikevrt")


def main(job: Job) -> None:
    """Run one test."""
    # 1. Checks: report problems before building the model.
    load = thread_count.Load()
    opt, folder = job.opt, job.folder
    test_set = clips_to_restore(opt, job.sigma)
    utils_metric.check_available(opt.val.metrics)
    results_folder.check_writable(folder)
    results_folder.check_apart(folder, inputs_of(opt) if job.save_frames else {})

    # 2. Processes, exclusive use of the results folder, restoration.
    dist = utils_dist.init()
    LOG.setLevel(logging.INFO if dist.is_main else logging.ERROR)
    if dist.is_main and opt.datasets.test is not None and opt.datasets.test.uses_spikes:
        warn_at_start(opt.datasets.test)
    with utils_dist.main_first(dist, lambda: results_folder.own(folder) if dist.is_main else nullcontext()):
        restore(job, test_set, dist, load)
    utils_dist.close()


def restore(job: Job, test_set: TestSet, dist: Dist, load: thread_count.Load) -> None:
    """Build the model, restore and measure the clips, write the report."""
    opt, folder = job.opt, job.folder
    # 1. Model and weights.
    model = define_restorer(opt, job.weights, job.reason, dist)
    if dist.device.type == "cpu":
        torch.set_num_threads(thread_count.choose(load, torch.get_num_threads()))

    # 2. Choose the tiles, estimate the work, decide whether to resume.
    tile = results_folder.recorded_tile(folder) if job.resume and opt.val.tile == "auto" else None
    auto = opt.val.tile == "auto" and tile is None
    tile = choose_tile.prepare(model.restore, dist, opt.netG, test_set, opt.val, tile or job.tile, auto=auto)
    fitting = ShrinkingTile(tile)
    opened = partial(start_or_resume_results, job, tile, test_set, dist)
    existing = utils_dist.main_first(dist, opened)  # no process writes before the folder is ready

    # 3. Restore and measure; each process takes its share.
    began, resumed = time.monotonic(), results_folder.count_existing(folder, test_set)[0] if job.resume else 0
    pictures = test_page.ReportImages()
    with comparison_video.comparison(folder, dist) if job.save_frames else nullcontext() as comparison:
        writers = [results_folder.frame_writer(folder), comparison] if comparison else []
        with results_folder.stoppable(folder, test_set, dist, is_saved=job.save_frames) as stop:
            result = utils_eval.evaluate(
                model.restore, test_set, opt.val, dist, tile=fitting, watchers=[pictures, *writers], stop=stop,
                restored=existing,
            )  # fmt: skip
        result["protocol"] += protocol_of(opt, job.sigma)
        seconds, frames = time.monotonic() - began, len(result["frames"])
        took = f"{seconds:.0f} s for {counted(max(frames - resumed, 0), 'frame')}" + f", {resumed} kept" * bool(resumed)
        if dist.is_main:
            with results_folder.disk_errors_in_words(folder):
                metric_files.write_metrics(result, folder)
            tables = [metric_files.table(result), metric_files.protocol_table(result)]
            sys.stdout.write("".join(f"\n{table}\n" for table in tables if table) + "\n")

    # 4. Videos and report.
    if job.save_frames:
        results_folder.write_videos(folder, test_set, opt.val.output, dist)
    shown = pictures.gathered(dist)
    if dist.is_main:
        with results_folder.disk_errors_in_words(folder):
            write_pages(job, test_set, result, shown, {"tiles": str(fitting.tile), "time": took})


def start_or_resume_results(
    job: Job, tile: TileOpt, test_set: TestSet, dist: Dist
) -> Callable[[Clip, int], np.ndarray | None]:
    """Start a new results folder, or resume one; returns a function that reads existing frames."""
    opt, folder = job.opt, job.folder
    if dist.is_main:
        record = restoration_key(opt, job.weights, job.sigma, tile, test_set)
        if job.resume and results_folder.check_same(folder, record):
            results_folder.sweep(folder, test_set)
            LOG.info("resuming: %d of %d frames exist", *results_folder.count_existing(folder, test_set))
        else:
            if job.resume:
                LOG.info("%s has no frames to resume from; starting from the beginning", folder)
            results_folder.begin(folder, record if job.save_frames else None, test_set)
        with results_folder.disk_errors_in_words(folder):
            utils_option.save(opt, ResultsFolder(folder).options)
    return results_folder.existing_frames(folder) if job.resume else lambda clip, index: None


def write_pages(
    job: Job, test_set: TestSet, result: dict[str, Any], pictures: Mapping[str, Sequence[test_page.Picture]],
    facts: dict[str, str],
) -> None:  # fmt: skip
    """Write the report page; delete the frames if only videos are requested."""
    opt, folder = job.opt, job.folder
    weights = f"{job.weights} ({job.reason}), SHA-256 {digest(job.weights)}"
    about = {
        "title": folder.name,
        "options": opt.model_dump(mode="json"),
        "environment": {"weights": weights, **facts, **test_page.environment()},
    }
    instants = []
    if opt.val.times and job.save_frames:
        instants_picture.write_instants(folder, test_set, len(opt.val.times))
        instants = instants_picture.moments(folder, test_set, opt.val.times)
    write_text(ResultsFolder(folder).report, test_page.report_page(result, pictures, about, instants))
    if "png" not in opt.val.output and job.save_frames:
        results_folder.remove_frames(folder, test_set)
    sys.stdout.write(f"results in {folder}; open {ResultsFolder(folder).report}\n")


if __name__ == "__main__":
    with utils_cli.program(arguments.debug, arguments.quiet):
        main(job_of_call)
