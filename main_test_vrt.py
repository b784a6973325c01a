"""Restore and measure clips with trained weights.

python main_test_vrt.py --opt options/vrt/demo.json
torchrun --standalone --nproc_per_node=4 main_test_vrt.py --opt options/vrt/gopro_rgbspike_local.json
python main_test_vrt.py --task 006_VRT_videodeblurring_GoPro --folder_lq D --folder_gt D --save_result
"""

import argparse
import difflib
import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.check import sound_dataset
from data.clip_index import existing_folder, image_extensions
from data.spike.manifest import Manifest
from models.select_model import define_Model
from options.schema import Opt
from utils import utils_checkpoint, utils_cli, utils_dist, utils_eval, utils_option, utils_report
from utils.utils_error import UserError
from utils.utils_tile import TileOpt

logger = logging.getLogger("spikevrt")

RESULTS = Path("results")
TASK_FOLDER = Path(__file__).resolve().parent / "options" / "vrt" / "tasks"
TASKS_TO_COME = (
    "001_VRT_videosr_bi_REDS_6frames",
    "002_VRT_videosr_bi_REDS_16frames",
    "003_VRT_videosr_bi_Vimeo_7frames",
    "004_VRT_videosr_bd_Vimeo_7frames",
    "008_VRT_videodenoising_DAVIS",
    "009_VRT_videofi_Vimeo_4frames",
)
GOPRO_SPIKE_SIZE = 360, 640
FROM_WEIGHTS = ["netG.spynet_path=null", "train.E_decay=0"]  # the tested file holds all weights, once


@dataclass(frozen=True)
class Job:
    """What one call asks for."""

    opt: Opt
    weights: Path
    reason: str
    tile: TileOpt
    save_frames: bool


def main(args: argparse.Namespace) -> None:
    """Options, data, model, evaluation, report."""
    # 1. Everything that can be wrong is found out before the model is built.
    job = job_of_options(args.opt, args.set) if args.opt else job_of_task(args)
    opt = job.opt
    if not job.weights.is_file():
        raise UserError(
            f"{job.weights} ({job.reason}) not found and nothing is downloaded: use weights of your own training, "
            f"or, of an official task, {job.weights.name} of {utils_checkpoint.RELEASE}"
        )
    if opt.datasets.test is None:
        raise UserError("datasets.test is null, expected a test set: there is nothing to restore")
    test_set = sound_dataset(opt.datasets.test, opt.netG.upscale)

    # 2. Model and weights.
    dist = utils_dist.init()
    logger.setLevel(logging.INFO if dist.is_main else logging.ERROR)
    model = define_Model(opt, dist)
    report = utils_checkpoint.load_weights(model.netG, job.weights)
    logger.info("weights: %s (%s): %s", job.weights, job.reason, report)

    # 3. Restore and measure; each process takes its share of the clips.
    folder = RESULTS / (opt.val.task_name or opt.task)
    watchers = [utils_eval.frame_writer(folder)] if job.save_frames else []
    result = utils_eval.evaluate(model.restore, test_set, opt.val, dist, tile=job.tile, watchers=watchers)

    # 4. Report.
    if dist.is_main:
        utils_report.write_metrics(result, folder)
        sys.stdout.write(f"\n{utils_report.table(result)}\n\n")
        if job.save_frames:
            utils_report.write_comparison(result, test_set, folder)
        sys.stdout.write(f"results in {folder}\n")
    utils_dist.close()


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line: the --opt form or the older --task form, not both."""
    parser = utils_cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--debug", action="store_true", help="print the traceback of an error")
    form = parser.add_mutually_exclusive_group(required=True)
    form.add_argument("--opt", type=Path, metavar="CONFIG", help="option file; its run's weights are tested")
    form.add_argument("--task", help=f"one of {', '.join(known_tasks())}")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="e.g. val.metrics")
    older = parser.add_argument_group("with --task")
    older.add_argument("--folder_lq", help="blurred clips: a folder of clip folders, or one folder of frames")
    older.add_argument("--folder_gt", help="sharp clips; without them nothing is measured")
    older.add_argument("--folder_spike", help="spike files of the clips")
    older.add_argument("--tile", type=int, nargs=3, metavar=("T", "H", "W"), help="0 0 0: none; default 40 128 128")
    older.add_argument("--tile_overlap", type=int, nargs=3, metavar=("T", "H", "W"), help="default 2 20 20")
    older.add_argument("--sigma", type=float, help="noise level; only of the denoising task")
    older.add_argument("--num_workers", type=int, help="accepted; frames are read as they are needed")
    older.add_argument(
        "--save_result", action="store_true", help="write frames and comparison; without --folder_gt always"
    )
    older.add_argument("--weights", type=Path, help="default model_zoo/vrt/<task>.pth")
    args = parser.parse_args(argv)
    given = [action.dest for action in older._group_actions if getattr(args, action.dest) not in (None, False)]
    if args.opt and given:
        parser.error(f"--{given[0]} belongs to --task; with --opt say it by --set KEY=VALUE")
    return args


def job_of_options(path: Path, changes: list[str]) -> Job:
    """The job of an option file: its test set, with the weights it names or its run's own."""
    opt = utils_option.load(path, Opt, overrides=[*changes, *FROM_WEIGHTS])
    weights, reason = utils_checkpoint.find_weights(opt.run_dir, opt.path.pretrained_netE, opt.path.pretrained_netG)
    return Job(opt, weights, reason, utils_eval.tile_of(opt.val), save_frames=True)


def job_of_task(args: argparse.Namespace) -> Job:
    """The job of the older flags: the task's own option file, changed by the flags."""
    path = task_file(args.task)
    if args.folder_lq is None:
        raise UserError(f"--folder_lq is missing, expected the folder of the blurred clips of {args.task}")
    if args.sigma:
        raise UserError(f"--sigma is {args.sigma:g}, but {args.task} takes no noise level; leave it out")
    changes: dict[str, Any] = {"dataroot_lq": args.folder_lq, "dataroot_gt": args.folder_gt}
    extensions = image_extensions(existing_folder(args.folder_lq, "--folder_lq"))
    if len(extensions) == 1:
        changes["filename_ext"] = extensions[0]
    changes |= spike_changes(args.task, args.folder_spike)
    sets = [f"datasets.test.{key}={json.dumps(value)}" for key, value in changes.items()]
    opt = utils_option.load(path, Opt, overrides=[*sets, *args.set, *FROM_WEIGHTS])
    frames, height, width = args.tile or (40, 128, 128)
    frame_overlap, rows, cols = args.tile_overlap or (2, 20, 20)
    tile = TileOpt(frames, frame_overlap, (height, width), (rows, cols))
    weights = args.weights or Path("model_zoo") / "vrt" / f"{args.task}.pth"
    reason = "given by --weights" if args.weights else "the task's own"
    return Job(opt, weights, reason, tile, save_frames=args.save_result or args.folder_gt is None)


def spike_changes(task: str, folder: str | None) -> dict[str, Any]:
    """Options of the test set that follow from --folder_spike; without a manifest the spikes are GoPro's."""
    if ("rgbspike" in task) != (folder is not None):
        raise UserError(f"--folder_spike is {folder}, but {task} {'needs' if folder is None else 'takes no'} spikes")
    if folder is None:
        return {}
    size = {} if Manifest.load(folder) else dict(zip(("spike_h", "spike_w"), GOPRO_SPIKE_SIZE, strict=True))
    return {"dataroot_spike": folder, **size}


def known_tasks() -> list[str]:
    """Names of the tasks that can be tested."""
    return sorted(path.stem for path in TASK_FOLDER.glob("*.json"))


def task_file(task: str) -> Path:
    """Option file of a task.

    Raises:
        UserError: the task is unknown, or not available yet.
    """
    if task in TASKS_TO_COME:
        raise UserError(f"--task {task} is not available yet; there are {', '.join(known_tasks())}")
    if task not in known_tasks():
        near = difflib.get_close_matches(task, [*known_tasks(), *TASKS_TO_COME], n=1, cutoff=0)
        raise UserError(f"--task {task} is unknown; did you mean {near[0]}?")
    return TASK_FOLDER / f"{task}.json"


if __name__ == "__main__":
    arguments = parse_args()
    with utils_cli.program(arguments.debug):
        main(arguments)
