"""Train VRT on RGB frames and spikes.

python main_train_vrt.py --opt options/vrt/demo.json
torchrun --standalone --nproc_per_node=8 main_train_vrt.py --opt CONFIG.json

The same command again goes on where the run stopped.
"""

import argparse
from pathlib import Path

from utils import utils_cli

if __name__ == "__main__":
    utils_cli.imports_follow()

from data.clip_index import check_folders
from options.schema import Opt
from utils import utils_option
from utils.processes import thread_count
from utils.utils_error import UserError


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = utils_cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--opt", type=Path, required=True, help="option file, JSON with comments")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="e.g. train.total_iter=200"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args()


def read_options(args: argparse.Namespace) -> Opt:
    """The options of one training stage: one frozen tree, every key known, no defaults anywhere else."""
    opt = utils_option.load(args.opt, Opt, args.set)
    if opt.datasets.train is None:
        raise UserError(f"{args.opt} has no datasets.train: there is nothing to train on")
    if opt.untrained:
        raise UserError(f"{args.opt}: {opt.untrained}")
    check_folders(opt.datasets)
    return opt


if __name__ == "__main__":
    # Mistakes in the call or the options are answered here: the imports below take seconds.
    arguments = parse_args()
    with utils_cli.program(arguments.debug):
        options = read_options(arguments)
    utils_cli.imports_follow(arguments.debug)
    thread_count.before_torch()

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple, NoReturn

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from data.check import open_dataset
from data.loader import SampleSource, train_batches
from models.lora import parameter_counts
from models.memory import choose_tile
from models.model_vrt import ModelVRT
from models.replay import write_replay
from models.select_model import define_Model
from utils import __version__, utils_dist, utils_logger, utils_metric, utils_seed
from utils.checkpoint import run_checkpoints
from utils.evaluation.clip import Frame, TestSet
from utils.processes import signals
from utils.processes.signals import StoppedError, StopRequest
from utils.records import profiling
from utils.report import metric_files
from utils.report.results_folder import frame_writer
from utils.utils_dist import Dist
from utils.utils_eval import evaluate
from utils.utils_file import write_text
from utils.utils_json import read_json
from utils.utils_logger import Run
from utils.utils_run_folder import find_weights
from utils.utils_tile_opt import TileOpt, tile_of

LOG = logging.getLogger("spikevrt")
RANDOM_FLOW = (
    "netG.spynet_path is null: optical flow starts from random weights, so frames align worse and the same training "
    "restores less; the official spynet_sintel_final-3d2a1287.pth avoids that"
)


def main(opt: Opt) -> None:
    """Run one training stage from its options to its last checkpoint."""
    # 1. Data first: whatever is wrong with it shows before a network is built.
    load = thread_count.Load()
    assert opt.datasets.train is not None
    train_opt = opt.datasets.train
    train_set = open_dataset(train_opt, opt.netG.upscale)
    test_set = open_dataset(opt.datasets.test, opt.netG.upscale) if opt.datasets.test else None
    utils_metric.check_available(opt.val.metrics if test_set is not None else ())

    # 2. Processes; the run's folder is this training's alone until its end.
    dist = utils_dist.init()
    share = utils_dist.share(train_opt.dataloader_batch_size, dist.world_size)
    records = partial(utils_logger.start_run, opt.run_dir, opt.logging, dist, opt)
    with utils_dist.main_first(dist, records) as run:
        model = define_Model(opt, dist)
        if dist.device.type == "cpu":
            torch.set_num_threads(thread_count.choose(load, torch.get_num_threads()))
        LOG.info(
            "%d samples; %d process(es) on %s, %d at once in each", len(train_set), dist.world_size, dist.device, share
        )
        train_stage(Training(opt, model, train_set, test_set, dist, run))
    utils_dist.close()


class Training(NamedTuple):
    """What a training is made of."""

    opt: Opt
    model: ModelVRT
    train_set: SampleSource
    test_set: TestSet | None
    dist: Dist
    run: Run


def train_stage(training: Training) -> None:
    """Weights, and the steps that are left."""
    opt, model, _, _, dist, run = training
    # 1. Weights: this run's newest checkpoint, else the pretrained ones, else random.
    resumed = run_checkpoints.resume(opt.run_dir, model, opt.model_dump(mode="json"))
    start = utils_dist.agreed(dist, resumed.step, "the step of the newest checkpoint")
    if start == 0:
        start_weights(model, opt)
    run.write_options(opt)
    run.begin(start)
    if (test := opt.datasets.test) is not None and (test.dataroot_gt is None or opt.val.best_metric is None):
        LOG.warning("no best_G.pth will be written: datasets.test.dataroot_gt is null, or val.metrics is empty")

    is_tested = run.has_test(start)

    # 2. Train to the last step, or until a signal asks to stop. Either way everything is saved.
    with signals.stop_on_signals() as stop:
        step, finished = train(training, start, stop)
    if finished and (step > start or run.has_test(step) != is_tested):
        summarize(opt, run, step, model.guard.total)
    if finished:
        LOG.info("finished at step %d; weights in %s", step, opt.run_dir / "models")
    else:
        LOG.info("stopped by %s at step %d; the same command goes on", stop.name or "another process", step)


def train(training: Training, step: int, stop: StopRequest) -> tuple[int, bool]:
    """Train on from `step` finished optimizer steps; returns those finished now, and whether nothing is left to do.

    Batches are a function of (seed, step): a resumed run repeats nothing and skips nothing.
    """
    opt, model, train_set, _, dist, run = training
    train, batch_size = opt.train, train_samples(opt)
    batches = batches_from(step, train_set, opt, dist, stop)
    watch = utils_logger.Stopwatch(train.total_iter, batch_size)
    bar = tqdm(total=train.total_iter, initial=step, disable=None if dist.is_main else True, unit="step")
    profile, load = profiling.ProfileWindow(opt.run_dir, opt.logging, dist, step), thread_count.Load()
    saved, saved_at, stopped = step, time.monotonic(), False
    with logging_redirect_tqdm([LOG]), bar, profile:
        if test_is_due(training, step) and utils_dist.any_true(dist, [dist.is_main and not run.has_test(step)])[0]:
            stopped = not validate(training, step, stop)
        while step < train.total_iter and not stopped:
            asked_at = time.perf_counter()
            micro_batches = next_batches(batches, train.accumulate)
            watch.data_ready(asked_at)
            waited = dist.is_main and time.monotonic() - saved_at > 60 * (train.checkpoint_minutes or math.inf)
            stopped, is_time = utils_dist.any_true(dist, [not micro_batches or stop.name is not None, waited])
            if (stopped or is_time) and saved < step:
                save(training, step)
                saved, saved_at = step, time.monotonic()
            if stopped:
                break
            utils_seed.seed_all(train.manual_seed, dist.rank, step)
            values = model.train_step(micro_batches, step)
            if model.guard.exhausted:
                give_up(training, step, micro_batches)
            step += 1
            bar.update()
            profile.step(step)
            last = step == train.total_iter

            if step % train.checkpoint_print == 0 or last:
                values |= watch.report(step)
                LOG.info(utils_logger.train_line(step * batch_size // len(train_set), step, values))
                run.log(step, "train", values)
                if dist.device.type == "cpu":
                    torch.set_num_threads(thread_count.fewer(load, torch.get_num_threads()))
            is_tested = test_is_due(training, step)
            if step % train.checkpoint_save == 0 or last or is_tested:  # a test may take long, and nothing is lost
                save(training, step)
                saved, saved_at = step, time.monotonic()
            if is_tested:
                stopped = not validate(training, step, stop)
                watch.restart()
    return step, step == train.total_iter and not stopped


def train_samples(opt: Opt) -> int:
    """Samples of all processes together in one step."""
    assert opt.datasets.train is not None
    return opt.datasets.train.dataloader_batch_size * opt.train.accumulate


def start_weights(model: ModelVRT, opt: Opt) -> None:
    """Load what a run starts from, and say where that leaves parts at random."""
    given = opt.path.pretrained_netG
    if opt.netG.lora is not None:
        if given in (None, "auto"):
            raise UserError(f"path.pretrained_netG is {given}: netG.lora adapts trained weights; name their file")
        LOG.info("LoRA: %s of %s parameters are trained", *(f"{count:,}" for count in parameter_counts(model.netG)))
    model.load_pretrained(given, opt.path.pretrained_netE)
    if opt.netG.spynet_path is None and given is None:
        LOG.warning(RANDOM_FLOW)


def next_batches(batches: Iterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The batches of one step; none where a request to stop came while they were waited for."""
    try:
        return [next(batches) for _ in range(count)]
    except StoppedError:
        return []


def batches_from(
    step: int, train_set: SampleSource, opt: Opt, dist: Dist, stop: StopRequest
) -> Iterator[dict[str, Any]]:
    """This process's batches from a step on, as the options have it."""
    assert opt.datasets.train is not None
    return train_batches(
        train_set,
        seed=opt.train.manual_seed,
        start_step=step,
        total_steps=opt.train.total_iter,
        batch_size=opt.datasets.train.dataloader_batch_size,
        rank=dist.rank,
        world_size=dist.world_size,
        accumulate=opt.train.accumulate,
        num_workers=opt.datasets.train.dataloader_num_workers,
        prefetch_factor=opt.datasets.train.dataloader_prefetch_factor,
        pin_memory=dist.device.type == "cuda",
        stop=lambda: utils_dist.any_asked(stop.name is not None),
    )


def save(training: Training, step: int) -> None:
    """Write the checkpoint of a step."""
    opt = training.opt
    if training.dist.is_main:
        best = run_checkpoints.best(opt.run_dir)
        record = {"version": __version__, "options": opt.model_dump(mode="json"), "best": best}
        run_checkpoints.save(opt.run_dir, step, training.model, record, opt.train.keep_checkpoints)


def test_is_due(training: Training, step: int) -> bool:
    """Whether the test clips are measured after this step."""
    train = training.opt.train
    return (
        training.test_set is not None and step > 0 and (step % train.checkpoint_test == 0 or step == train.total_iter)
    )


def validate(training: Training, step: int, stop: StopRequest) -> bool:
    """Restore and score the test clips; weights that restore better than all before become best_G.pth.

    Returns:
        False: a signal ended it early, and nothing was recorded.
    """
    opt, model, _, test_set, dist, run = training
    assert test_set is not None
    pictures = metric_files.BoardImages(test_set)
    watchers: list[Callable[[Frame], None]] = [pictures]
    if opt.val.save_img:
        watchers.append(frame_writer(opt.run_dir / "images" / str(step)))
    try:
        result = evaluate(
            model.restore,
            test_set,
            opt.val,
            dist,
            tile=tile_of_run(training),
            watchers=watchers,
            stop=lambda: utils_dist.any_asked(stop.name is not None),
        )
    except StoppedError:
        return False
    metric = opt.val.best_metric
    if dist.is_main and metric is not None and metric in result["mean"]:
        score = result["mean"][metric]
        if run_checkpoints.is_best(opt.run_dir, metric, score):
            run_checkpoints.save_best(opt.run_dir, model, step, metric, score)
    pictures.show(run, step, dist)
    run.log_test(step, result)
    return True


def tile_of_run(training: Training) -> TileOpt:
    """The tile of all validations of a run: the options', or for "auto" one that is chosen once and then kept.

    Scores of one run, by which its best weights are chosen, would otherwise depend on the memory of the moment.
    """
    opt, model, _, test_set, dist, _ = training
    asked = tile_of(opt.val, opt.netG.window_size)
    if opt.val.tile != "auto" or test_set is None:
        return asked
    path, wanted = opt.run_dir / "tile.json", json.loads(json.dumps(asdict(asked)))
    kept = read_json(path) if dist.is_main and path.is_file() else {}
    kept = utils_dist.gather_objects(dist, kept)[0]  # one process decides: others may not see a new file yet
    if kept.get("asked") == wanted:
        return TileOpt.from_json(kept["tile"])
    tile = choose_tile.prepare(model, opt.netG, test_set, opt.val, asked, auto=True)
    if dist.is_main:
        write_text(path, json.dumps({"asked": wanted, "tile": asdict(tile)}, indent=2) + "\n")
    return tile


def give_up(training: Training, step: int, batches: Sequence[Mapping[str, Any]]) -> NoReturn:
    """End a run that makes no step any more, and keep the batch for a closer look."""
    opt, model, *_ = training
    replay = write_replay(opt.run_dir, step, training.dist.rank, batches, model.netG)
    raise FloatingPointError(
        f"step {step}: no finite loss or gradient in {model.guard.in_row} steps in a row (train.nonfinite_limit); the "
        f"weights are as before them; {replay}; lower train.G_optimizer_lr, set G_optimizer_clipgrad, or turn amp off"
    )


def summarize(opt: Opt, run: Run, step: int, skipped: int) -> None:
    """Say what came of the run and where it lies."""
    weights, _ = find_weights(opt.run_dir, None, None)
    for line in run.summary(step, weights, run_checkpoints.best(opt.run_dir), skipped):
        LOG.info(line)


if __name__ == "__main__":
    with utils_cli.program(arguments.debug):
        main(options)
