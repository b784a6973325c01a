"""Restore and measure clips with trained weights.

python main_test_vrt.py --opt options/vrt/demo.json
torchrun --standalone --nproc_per_node=4 main_test_vrt.py --opt options/vrt/gopro_rgbspike_local.json
python main_test_vrt.py --task 006_VRT_videodeblurring_GoPro --folder_lq D --folder_gt D --save_result
python main_test_vrt.py --task 001_VRT_videosr_bi_REDS_6frames --folder_lq SMALL --folder_gt D
python main_test_vrt.py --task 008_VRT_videodenoising_DAVIS --folder_gt CLEAN --sigma 20
python main_test_vrt.py --task 009_VRT_videofi_Vimeo_4frames --folder_lq EVERY_SECOND_FRAME --folder_gt ALL_FRAMES

Denoising adds noise to the clean frames of --folder_lq (or --folder_gt, one is enough) and measures against --folder_gt
(or --folder_lq). Interpolation makes the frame in the middle of each four consecutive ones and measures those that
--folder_gt has; lq_ metrics are those of the average of the two frames around it.
"""

import argparse
import difflib
import json
import logging
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data.check import sound_dataset
from data.clip_index import existing_folder, image_extensions
from data.spike.manifest import Manifest
from data.task_clips import MiddleClip, middle_clips, noisy_clips
from models.select_model import define_Model
from options.schema import Opt
from utils import utils_checkpoint, utils_cli, utils_dist, utils_eval, utils_option, utils_report, utils_resume
from utils.utils_error import UserError
from utils.utils_eval import TestSet
from utils.utils_tile import TileOpt

logger = logging.getLogger("spikevrt")

RESULTS = Path("results")
TASK_FOLDER = Path(__file__).resolve().parent / "options" / "vrt" / "tasks"
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
    sigma: float | None


def main(args: argparse.Namespace) -> None:
    """Options, data, model, evaluation, report."""
    # 1. Everything that can be wrong is found out before the model is built.
    job = job_of_options(args) if args.opt else job_of_task(args)
    opt = job.opt
    if not job.weights.is_file():
        raise UserError(
            f"{job.weights} ({job.reason}) not found and nothing is downloaded: use weights of your own training, "
            f"or, of an official task, {job.weights.name} of {utils_checkpoint.RELEASE}"
        )
    test_set = clips_to_restore(opt, job.sigma)

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
    result["protocol"] += protocol_of(opt, job.sigma)

    # 4. Report.
    if dist.is_main:
        utils_report.write_metrics(result, folder)
        sys.stdout.write(f"\n{utils_report.table(result)}\n\n")
        if job.save_frames and measured_alike(test_set):
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
    parser.add_argument("--sigma", type=float, help="noise level for denoising, on the scale where white is 255")
    older = parser.add_argument_group("with --task")
    older.add_argument("--folder_lq", help="clips to restore: a folder of clip folders, or one folder of frames")
    older.add_argument("--folder_gt", help="sharp clips; without them nothing is measured")
    older.add_argument("--folder_spike", help="spike files of the clips")
    older.add_argument("--tile", type=int, nargs=3, metavar=("T", "H", "W"), help="0 0 0: none; default 40 128 128")
    older.add_argument("--tile_overlap", type=int, nargs=3, metavar=("T", "H", "W"), help="default 2 20 20")
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


def job_of_options(args: argparse.Namespace) -> Job:
    """The job of an option file: its test set, with the weights it names or its run's own."""
    opt = utils_option.load(args.opt, Opt, overrides=[*args.set, *FROM_WEIGHTS])
    check_sigma(opt, args.sigma)
    weights, reason = utils_resume.find_weights(opt.run_dir, opt.path.pretrained_netE, opt.path.pretrained_netG)
    tile = tile_of_task(opt, utils_eval.tile_of(opt.val))
    return Job(opt, weights, reason, tile, save_frames=True, sigma=args.sigma)


def job_of_task(args: argparse.Namespace) -> Job:
    """The job of the older flags: the task's own option file, changed by the flags."""
    path = task_file(args.task)
    changes = folders_of(args)
    extensions = image_extensions(existing_folder(changes["dataroot_lq"], "--folder_lq"))
    if len(extensions) == 1:
        changes["filename_ext"] = extensions[0]
    changes |= spike_changes(args.task, args.folder_spike)
    sets = [f"datasets.test.{key}={json.dumps(value)}" for key, value in changes.items()]
    opt = utils_option.load(path, Opt, overrides=[*sets, *args.set, *FROM_WEIGHTS])
    check_sigma(opt, args.sigma)
    frames, height, width = args.tile or (40, 128, 128)
    frame_overlap, rows, cols = args.tile_overlap or (2, 20, 20)
    tile = tile_of_task(opt, TileOpt(frames, frame_overlap, (height, width), (rows, cols)))
    weights = args.weights or Path("model_zoo") / "vrt" / f"{args.task}.pth"
    reason = "given by --weights" if args.weights else "the task's own"
    save_frames = args.save_result or changes["dataroot_gt"] is None
    return Job(opt, weights, reason, tile, save_frames, args.sigma)


def folders_of(args: argparse.Namespace) -> dict[str, Any]:
    """Options of the test set that follow from --folder_lq and --folder_gt; denoising has clean frames in both."""
    lq, gt = args.folder_lq, args.folder_gt
    if "videodenoising" in args.task:
        lq, gt = lq or gt, gt or lq
    if lq is None:
        raise UserError(f"--folder_lq is missing, expected the folder of the clips that {args.task} is to restore")
    return {"dataroot_lq": lq, "dataroot_gt": gt}


def check_sigma(opt: Opt, sigma: float | None) -> None:
    """Refuse a noise level that the network does not take, and none where it needs one."""
    wanted = "0 or more, on the scale where white is 255"
    if not opt.netG.nonblind_denoising:
        if sigma:
            raise UserError(f"--sigma is {sigma:g}, but {opt.task} takes no noise level; leave it out")
    elif sigma is None:
        raise UserError(f"--sigma is missing, expected the noise level that {opt.task} is to remove, {wanted}")
    elif not 0 <= sigma < math.inf:
        raise UserError(f"--sigma is {sigma:g}, expected a noise level, {wanted}")


def tile_of_task(opt: Opt, tile: TileOpt) -> TileOpt:
    """Tiles in the frames that are restored: those in between need more to be read, and no overlap."""
    if opt.netG.pa_frames:
        return tile
    frames = max(tile.frames - opt.netG.img_size[0] + 1, 1) if tile.frames else 0
    return replace(tile, frames=frames, frame_overlap=0)


def clips_to_restore(opt: Opt, sigma: float | None) -> TestSet:
    """The test set as the task has it: as it is, with noise, or its frames in between.

    Raises:
        UserError: there is none, it has defects, or options do not suit the task.
    """
    test = opt.datasets.test
    if test is None:
        raise UserError("datasets.test is null, expected a test set: there is nothing to restore")
    if opt.netG.pa_frames:
        given = sound_dataset(test, opt.netG.upscale)
        return noisy_clips(given, sigma) if sigma is not None and opt.netG.nonblind_denoising else given
    if opt.val.pad_seq:
        raise UserError("val.pad_seq is true, but frames between others are not made of mirrored ones; set it to false")
    return middle_clips(sound_dataset(test.model_copy(update={"dataroot_gt": None})), test, opt.netG.img_size[0])


def protocol_of(opt: Opt, sigma: float | None) -> str:
    """What the report adds to the metrics' definition for the task."""
    if opt.netG.nonblind_denoising:
        return f"; input: clean frames with Gaussian noise, sigma {sigma:g} of 255, not clipped"
    if not opt.netG.pa_frames:
        return "; lq_: the average of the two frames around the restored one"
    return "; lq_: the input, enlarged bilinearly" if opt.netG.upscale > 1 else ""


def measured_alike(test_set: TestSet) -> bool:
    """Whether each clip has sharp frames for all or for none of its frames, so that they can be shown side by side."""
    clips = [test_set[index] for index in range(len(test_set))]
    return all(len(clip.measured) in (0, len(clip.frames)) for clip in clips if isinstance(clip, MiddleClip))


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
        UserError: the task is unknown.
    """
    if task not in known_tasks():
        near = difflib.get_close_matches(task, known_tasks(), n=1, cutoff=0)
        raise UserError(f"--task {task} is unknown; did you mean {near[0]}?")
    return TASK_FOLDER / f"{task}.json"


if __name__ == "__main__":
    arguments = parse_args()
    with utils_cli.program(arguments.debug):
        main(arguments)
