"""Train VRT on RGB frames and spikes.

python main_train_vrt.py --opt options/vrt/demo.json
torchrun --standalone --nproc_per_node=8 main_train_vrt.py --opt CONFIG.json

Run the same command again to resume where the run stopped.
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
from utils.utils_run_folder import RunFolder, check_exists, find_weights


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = utils_cli.Parser(description=__doc__)
    parser.add_common(opt="option file, JSON with comments")
    return parser.parse_args()


def read_options(args: argparse.Namespace) -> Opt:
    """Load and check the options of one training stage."""
    opt = utils_option.load(args.opt, Opt, args.set)
    if opt.datasets.train is None:
        raise UserError(f"{args.opt} has no datasets.train, so there is nothing to train on; add it")
    if opt.untrained:
        raise UserError(f"{args.opt}: {opt.untrained}")
    check_folders(opt.datasets)
    if opt.netG.spynet_path is not None:
        check_exists(Path(opt.netG.spynet_path))
    return opt


if __name__ == "__main__":
    # Report mistakes in the call or the options before the imports below, which take seconds.
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
from utils.utils_tile_opt import TileOpt, tile_of

LOG = logging.getLogger("spikevrt")
RANDOM_FLOW = (
    "netG.spynet_path is null: optical flow starts from random weights, so frames align worse and results are worse "
    "after the same number of steps; give it the official spynet_sintel_final-3d2a1287.pth to avoid that"
)


def main(opt: Opt) -> None:
    """Run one training stage."""
    # 1. Data: report defects before building a network.
    load = thread_count.Load()
    assert opt.datasets.train is not None
    train_opt = opt.datasets.train
    train_set = open_dataset(train_opt, opt.netG.upscale)
    test_set = open_dataset(opt.datasets.test, opt.netG.upscale) if opt.datasets.test else None
    utils_metric.check_available(opt.val.metrics if test_set is not None else ())

    # 2. Processes, exclusive use of the run's folder, model, training.
    dist = utils_dist.init()
    share = utils_dist.share(train_opt.dataloader_batch_size, dist.world_size)
    records = partial(utils_logger.start_run, opt.run_dir, opt.logging, dist, opt)
    with utils_dist.main_first(dist, records) as run:
        model = define_Model(opt, dist)
        if dist.device.type == "cpu":
            torch.set_num_threads(thread_count.choose(load, torch.get_num_threads()))
        LOG.info(
            "%d samples; %d process(es) on %s, batches of %d per process",
            len(train_set),
            dist.world_size,
            dist.device,
            share,
        )
        train_stage(Training(opt, model, train_set, test_set, dist, run))
    utils_dist.close()


class Training(NamedTuple):
    """The parts of one training."""

    opt: Opt
    model: ModelVRT
    train_set: SampleSource
    test_set: TestSet | None
    dist: Dist
    run: Run


def train_stage(training: Training) -> None:
    """Load weights, then train the remaining steps."""
    opt, model, _, _, dist, run = training
    # 1. Weights: this run's newest checkpoint, else pretrained ones, else random ones.
    resumed = run_checkpoints.resume(opt.run_dir, model, opt.model_dump(mode="json"))
    start = utils_dist.agreed(dist, resumed.step, "the step of the newest checkpoint")
    if start == 0:
        start_weights(model, opt)
    run.write_options(opt)
    run.begin(start)
    if (test := opt.datasets.test) is not None and (test.dataroot_gt is None or opt.val.best_metric is None):
        LOG.warning("best_G.pth will not be written: datasets.test.dataroot_gt is null or val.metrics is empty")

    was_tested = run.has_test(start)

    # 2. Train to the last step or until a signal asks to stop. Both end with a checkpoint.
    with signals.stop_on_signals() as stop:
        step, finished = train(training, start, stop)
    if finished and (step > start or run.has_test(step) != was_tested):
        summarize(opt, run, step, model.guard.total)
    if finished:
        LOG.info("finished at step %d; weights in %s", step, RunFolder(opt.run_dir).weights)
    else:
        LOG.info("stopped by %s at step %d; run the same command again to resume", stop.name or "another process", step)


def train(training: Training, step: int, stop: StopRequest) -> tuple[int, bool]:
    """Continue training after `step` finished optimizer steps.

    Batches are a function of (seed, step): a resumed run repeats nothing and skips nothing.

    Returns:
        The number of finished steps, and whether nothing is left to do.
    """
    opt, model, train_set, _, dist, run = training
    train = opt.train
    batches = batches_from(step, train_set, opt, dist, stop)
    watch = utils_logger.Stopwatch(train.total_iter, train_samples(opt))
    bar = tqdm(total=train.total_iter, initial=step, disable=None if dist.is_main else True, unit="step")
    profile, load = profiling.ProfileWindow(opt.run_dir, opt.logging, dist, step), thread_count.Load()
    saver, stopped = Saver(training, step), False
    with logging_redirect_tqdm([LOG]), bar, profile:
        # A resumed run first makes up for a due test that is missing.
        if test_is_due(training, step) and utils_dist.any_true(dist, [dist.is_main and not run.has_test(step)])[0]:
            stopped = not validate(training, step, stop)
        while step < train.total_iter and not stopped:
            asked_at = time.perf_counter()
            micro_batches = next_batches(batches, train.accumulate)
            watch.data_ready(asked_at)
            is_asked = not micro_batches or stop.name is not None
            stopped, is_overdue = utils_dist.any_true(dist, [is_asked, saver.is_overdue()])
            if stopped or is_overdue:
                saver.save(step)
            if stopped:
                break
            utils_seed.seed_all(train.manual_seed, dist.rank, step)
            values = model.train_step(micro_batches, step)
            if model.guard.exhausted:
                give_up(training, step, micro_batches)
            step += 1
            bar.update()
            profile.step(step)
            if is_due(step, train.checkpoint_print, train.total_iter):
                log_progress(training, step, values | watch.report(step), load)
            is_tested = test_is_due(training, step)
            if is_tested or is_due(step, train.checkpoint_save, train.total_iter):
                saver.save(step)  # before a test, which may take long
            if is_tested:
                stopped = not validate(training, step, stop)
                watch.restart()
    return step, step == train.total_iter and not stopped


def is_due(step: int, every: int, last: int) -> bool:
    """Whether this step is the last one or a multiple of `every`."""
    return step % every == 0 or step == last


def test_is_due(training: Training, step: int) -> bool:
    """Whether to measure the test clips after this step."""
    train = training.opt.train
    return training.test_set is not None and step > 0 and is_due(step, train.checkpoint_test, train.total_iter)


def log_progress(training: Training, step: int, values: dict[str, float], load: thread_count.Load) -> None:
    """Log and record the values of a step; on a CPU, use fewer threads if other programs have become busy."""
    opt, _, train_set, _, dist, run = training
    LOG.info(utils_logger.train_line(step * train_samples(opt) // len(train_set), step, values))
    run.log(step, "train", values)
    if dist.device.type == "cpu":
        torch.set_num_threads(thread_count.fewer(load, torch.get_num_threads()))


class Saver:
    """Saves checkpoints, each step at most once, and tells when `train.checkpoint_minutes` have passed."""

    def __init__(self, training: Training, step: int) -> None:
        self._training, self._step, self._time = training, step, time.monotonic()

    def is_overdue(self) -> bool:
        """Whether the last checkpoint is too old; False in all processes but the main one."""
        seconds = 60 * (self._training.opt.train.checkpoint_minutes or math.inf)
        return self._training.dist.is_main and time.monotonic() - self._time > seconds

    def save(self, step: int) -> None:
        """Save the checkpoint of a step, unless it is saved already."""
        if self._step < step:
            save(self._training, step)
            self._step, self._time = step, time.monotonic()


def train_samples(opt: Opt) -> int:
    """Samples per step, over all processes."""
    assert opt.datasets.train is not None
    return opt.datasets.train.dataloader_batch_size * opt.train.accumulate


def start_weights(model: ModelVRT, opt: Opt) -> None:
    """Load pretrained weights; warn if the optical flow stays random."""
    given = opt.path.pretrained_netG
    if opt.netG.lora is not None:
        if given in (None, "auto"):
            raise UserError(f"path.pretrained_netG is {given}, but netG.lora adapts trained weights; name their file")
        LOG.info("LoRA: %s of %s parameters are trained", *(f"{count:,}" for count in parameter_counts(model.netG)))
    model.load_pretrained(given, opt.path.pretrained_netE)
    if opt.netG.spynet_path is None and given is None:
        LOG.warning(RANDOM_FLOW)


def next_batches(batches: Iterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The batches of one step; empty if a request to stop came while waiting for them."""
    try:
        return [next(batches) for _ in range(count)]
    except StoppedError:
        return []


def batches_from(
    step: int, train_set: SampleSource, opt: Opt, dist: Dist, stop: StopRequest
) -> Iterator[dict[str, Any]]:
    """This process's batches after `step` finished steps."""
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
    """Write the checkpoint of a step, in the main process."""
    opt = training.opt
    if training.dist.is_main:
        best = run_checkpoints.best(opt.run_dir)
        record = {"version": __version__, "options": opt.model_dump(mode="json"), "best": best}
        run_checkpoints.save(opt.run_dir, step, training.model, record, opt.train.keep_checkpoints)


def validate(training: Training, step: int, stop: StopRequest) -> bool:
    """Restore and score the test clips; the best weights so far become best_G.pth.

    Returns:
        False if a signal ended the validation early; nothing is recorded then.
    """
    opt, model, _, test_set, dist, run = training
    assert test_set is not None
    pictures = metric_files.BoardImages(test_set)
    watchers: list[Callable[[Frame], None]] = [pictures]
    if opt.val.save_img:
        watchers.append(frame_writer(RunFolder(opt.run_dir).images / str(step)))
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
    """The tile for all validations of a run: from the options or, for "auto", chosen once and then kept.

    Otherwise the scores that select the best weights would depend on the memory free at the time.
    """
    opt, model, _, test_set, dist, _ = training
    asked = tile_of(opt.val, opt.netG.window_size)
    if opt.val.tile != "auto" or test_set is None:
        return asked
    path, wanted = RunFolder(opt.run_dir).tile, json.loads(json.dumps(asdict(asked)))
    kept = read_json(path) if dist.is_main and path.is_file() else {}
    kept = utils_dist.gather_objects(dist, kept)[0]  # the main process decides: others may not see a new file yet
    if kept.get("asked") == wanted:
        return TileOpt.from_json(kept["tile"])
    tile = choose_tile.prepare(model, opt.netG, test_set, opt.val, asked, auto=True)
    if dist.is_main:
        write_text(path, json.dumps({"asked": wanted, "tile": asdict(tile)}, indent=2) + "\n")
    return tile


def give_up(training: Training, step: int, batches: Sequence[Mapping[str, Any]]) -> NoReturn:
    """End a run whose steps are all skipped, and save the batch for inspection."""
    opt, model, *_ = training
    replay = write_replay(opt.run_dir, step, training.dist.rank, batches, model.netG)
    raise FloatingPointError(
        f"step {step}: no finite loss or gradient in {model.guard.in_row} steps in a row (train.nonfinite_limit); "
        f"the weights are unchanged; {replay}; lower train.G_optimizer_lr, set G_optimizer_clipgrad, or turn amp off"
    )


def summarize(opt: Opt, run: Run, step: int, skipped: int) -> None:
    """Log the run's outcome and where its files are."""
    weights, _ = find_weights(opt.run_dir, None, None)
    for line in run.summary(step, weights, run_checkpoints.best(opt.run_dir), skipped):
        LOG.info(line)


if __name__ == "__main__":
    with utils_cli.program(arguments.debug):
        main(options)
