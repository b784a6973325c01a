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
from utils.utils_error import UserError, counted
from utils.utils_run_folder import RunFolder, check_exists, find_weights
from utils.utils_zoo import located


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = utils_cli.Parser(description=__doc__)
    parser.add_common(opt="option file, JSON with comments")
    text = "exit code if a signal stops the training before its last step, for platforms that restart what failed"
    parser.add_argument("--stop-code", type=utils_cli.whole, default=0, metavar="N", help=text)
    return parser.parse_args()


def read_options(args: argparse.Namespace) -> Opt:
    """Load and check the options of one training stage."""
    opt = utils_option.load(args.opt, Opt, args.set)
    if opt.untrained:
        raise UserError(f"{args.opt}: {opt.untrained}")
    check_folders(opt.datasets)
    if opt.netG.spynet_path is not None:
        check_exists(Path(opt.netG.spynet_path))
    for given in (opt.path.pretrained_netG, opt.path.pretrained_netE):
        if given is not None and given != "auto" and not RunFolder(opt.run_dir).steps("G"):  # else it resumes
            check_exists(located(given))
    if opt.netG.fusion == "guide" and opt.netG.guide.weights is not None:
        check_exists(located(opt.netG.guide.weights), "train the guide first (options/vrt/guide.json)")
    return opt


if __name__ == "__main__":
    # Report mistakes in the call or the options before the imports below, which take seconds.
    arguments = parse_args()
    with utils_cli.program(arguments.debug, arguments.quiet):
        options = read_options(arguments)
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

from data.check import open_test_set, open_train_sets
from data.loader import train_batches
from data.mixture import Mixture, SampleSource
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
from utils.utils_eval import conditions, evaluate
from utils.utils_file import write_text
from utils.utils_json import read_json
from utils.utils_logger import Run, Stopwatch, train_line
from utils.utils_progress import progress
from utils.utils_tile_opt import TileOpt, tile_of

LOG = logging.getLogger("spikevrt")
RANDOM_FLOW = (
    "netG.spynet_path is null: optical flow starts from random weights, so frames align worse and results are worse "
    "after the same number of steps; give it the official spynet_sintel_final-3d2a1287.pth to avoid that"
)


def main(opt: Opt) -> bool:
    """Run one training stage; returns whether it is finished."""
    # 1. Data: report defects before building a network.
    load = thread_count.Load()
    loaded = opt.datasets.loaded
    assert loaded is not None
    train_set = open_train_sets(opt.datasets, opt.netG.upscale)
    test_set = open_test_set(opt.datasets, opt.netG.upscale) if opt.datasets.test else None
    utils_metric.check_available(opt.val.metrics if test_set is not None else ())

    # 2. Processes, exclusive use of the run's folder, model, training.
    dist = utils_dist.init()
    share = utils_dist.share(loaded.dataloader_batch_size, dist.world_size)
    records = partial(utils_logger.start_run, opt.run_dir, opt.logging, dist, opt)
    with utils_dist.main_first(dist, records) as run:
        model = define_Model(opt, dist)
        if dist.device.type == "cpu":
            torch.set_num_threads(thread_count.choose(load, torch.get_num_threads()))
        LOG.info(
            "%s; %s on %s, batches of %d per process",
            *(counted(len(train_set), "sample"), counted(dist.world_size, "process"), dist.device, share),
        )
        finished = train_stage(Training(opt, model, train_set, test_set, dist, run))
    utils_dist.close()
    return finished


class Training(NamedTuple):
    """The parts of one training."""

    opt: Opt
    model: ModelVRT
    train_set: SampleSource | Mixture
    test_set: TestSet | None
    dist: Dist
    run: Run


def train_stage(training: Training) -> bool:
    """Load weights, then train the remaining steps; returns whether that came to its end."""
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
        utils_dist.gather_objects(dist, None)  # none ends before all is saved: torchrun may then end the others
    if dist.is_main and finished and (step > start or run.has_test(step) != was_tested):
        weights, _ = find_weights(opt.run_dir, None, None)
        for line in run.summary(step, weights, run_checkpoints.best(opt.run_dir), model.guard.total):
            LOG.info(line, extra=utils_cli.RESULT)
    if finished:
        LOG.info("finished at step %d; weights in %s", step, RunFolder(opt.run_dir).weights, extra=utils_cli.RESULT)
    else:
        by = stop.name or "another process"
        LOG.info("stopped by %s at step %d; run the same command again to resume", by, step, extra=utils_cli.RESULT)
    return finished


def start_weights(model: ModelVRT, opt: Opt) -> None:
    """Load pretrained weights; warn if the optical flow stays random."""
    given = opt.path.pretrained_netG
    if opt.netG.lora is not None:
        if given in (None, "auto"):
            raise UserError(f"path.pretrained_netG is {given}, but netG.lora adapts trained weights; name their file")
        LOG.info("LoRA: %s of %s parameters are trained", *(f"{count:,}" for count in parameter_counts(model.netG)))
    model.load_pretrained(given, opt.path.pretrained_netE)
    if opt.netG.net_type == "vrt" and opt.netG.spynet_path is None and given is None:
        LOG.warning(RANDOM_FLOW)


def train(training: Training, step: int, stop: StopRequest) -> tuple[int, bool]:
    """Continue training after `step` finished optimizer steps; returns their number, and whether nothing is left to do.

    Batches are a function of (seed, step): a resumed run repeats nothing and skips nothing.
    """
    opt, model, _, _, dist, _ = training
    train = opt.train
    batches = batches_from(training, step, stop)
    printer, saver, tester = Printer(training), Saver(training, step), Tester(training, stop)
    bar = progress(total=train.total_iter, done=step, unit="step", show=dist.is_main)
    profile = profiling.ProfileWindow(opt.run_dir, opt.logging, dist, step)
    with bar, profile:
        stopped = tester.is_missing(step) and not tester.test(step)
        while step < train.total_iter and not stopped:
            asked_at = time.perf_counter()
            micro_batches = next_batches(batches, train.accumulate)
            printer.watch.data_ready(asked_at)
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
            if train.is_due(step, train.checkpoint_print):
                printer.print(step, values)
            if train.is_due(step, train.checkpoint_save) or tester.is_due(step):
                saver.save(step)  # before a test, which may take long
            if tester.is_due(step):
                stopped = not tester.test(step)
                printer.watch.restart()
    return step, step == train.total_iter and not stopped


def batches_from(training: Training, step: int, stop: StopRequest) -> Iterator[dict[str, Any]]:
    """This process's batches after `step` finished steps."""
    opt, dist, data = training.opt, training.dist, training.opt.datasets.loaded
    assert data is not None
    return train_batches(
        training.train_set, seed=opt.train.manual_seed, start_step=step, total_steps=opt.train.total_iter,
        batch_size=data.dataloader_batch_size, rank=dist.rank, world_size=dist.world_size,
        accumulate=opt.train.accumulate, num_workers=data.dataloader_num_workers,
        prefetch_factor=data.dataloader_prefetch_factor, pin_memory=dist.device.type == "cuda", stop=is_heard(stop),
    )  # fmt: skip


def next_batches(batches: Iterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The batches of one step; empty if a request to stop came while waiting for them."""
    try:
        return [next(batches) for _ in range(count)]
    except StoppedError:
        return []


# How to print, save, test and stop. Each can be changed without reading the others.


class Printer:
    """Prints and records the values of a step, with times averaged since the last print."""

    def __init__(self, training: Training) -> None:
        train, loaded = training.opt.train, training.opt.datasets.loaded
        assert loaded is not None
        self._training, self._load = training, thread_count.Load()
        self._batch = loaded.dataloader_batch_size * train.accumulate
        self.watch = Stopwatch(train.total_iter, self._batch)

    def print(self, step: int, values: dict[str, float]) -> None:
        """Log and record a step; on a CPU, use fewer threads if other programs have become busy."""
        values = values | self.watch.report(step)
        LOG.info(train_line(step * self._batch // len(self._training.train_set), step, values))
        self._training.run.log(step, "train", values)
        if self._training.dist.device.type == "cpu":
            torch.set_num_threads(thread_count.fewer(self._load, torch.get_num_threads()))


class Saver:
    """Saves checkpoints, each step at most once; the last one is that of `step` at first."""

    def __init__(self, training: Training, step: int) -> None:
        self._training, self._step, self._time = training, step, time.monotonic()

    def is_overdue(self) -> bool:
        """Whether `train.checkpoint_minutes` have passed; False in all processes but the main one."""
        seconds = 60 * (self._training.opt.train.checkpoint_minutes or math.inf)
        return self._training.dist.is_main and time.monotonic() - self._time > seconds

    def save(self, step: int) -> None:
        """Save the checkpoint of a step, unless it is saved already."""
        if self._step < step:
            self._write(step)
            self._step, self._time = step, time.monotonic()

    def _write(self, step: int) -> None:
        opt = self._training.opt
        if self._training.dist.is_main:
            best = run_checkpoints.best(opt.run_dir)
            record = {"version": __version__, "options": opt.model_dump(mode="json"), "best": best}
            run_checkpoints.save(opt.run_dir, step, self._training.model, record, opt.train.keep_checkpoints)


class Tester:
    """Measures the test clips; the best weights so far become best_G.pth."""

    def __init__(self, training: Training, stop: StopRequest) -> None:
        self._training, self._stop = training, stop

    def is_due(self, step: int) -> bool:
        """Whether to test after this step, 0 being the start."""
        train = self._training.opt.train
        has_clips = self._training.test_set is not None
        return has_clips and (step > 0 or train.test_start) and train.is_due(step, train.checkpoint_test)

    def is_missing(self, step: int) -> bool:
        """Whether a resumed run must first make up for the test of the step where it stopped."""
        dist, run = self._training.dist, self._training.run
        return self.is_due(step) and utils_dist.any_true(dist, [dist.is_main and not run.has_test(step)])[0]

    def test(self, step: int) -> bool:
        """Restore and score the clips; False if a signal ended that early: nothing is recorded then."""
        opt, model, _, test_set, dist, run = self._training
        assert test_set is not None
        pictures = metric_files.BoardImages(test_set)
        watchers: list[Callable[[Frame], None]] = [pictures]
        if opt.val.save_img:
            watchers.append(frame_writer(RunFolder(opt.run_dir).images / str(step)))
        tile, stop = tile_of_run(self._training), is_heard(self._stop)
        try:
            result = evaluate(model.restore, test_set, opt.val, dist, tile=tile, watchers=watchers, stop=stop)
        except StoppedError:
            return False
        metric = opt.val.best_metric
        if dist.is_main and metric is not None and metric in result["mean"]:
            score, measured = result["mean"][metric], conditions(result, metric, opt.val)
            if run_checkpoints.is_best(opt.run_dir, metric, score, measured):
                run_checkpoints.save_best(opt.run_dir, model, step, metric, score, measured)
        pictures.show(run, step, dist)
        run.log_test(step, result)
        return True


def tile_of_run(training: Training) -> TileOpt:
    """The tile for all tests of a run: that of the options or, for "auto", one that is chosen once and kept on disk.

    Scores that select the best weights must not depend on the memory free at the time. One kept under other bounds is
    chosen anew.
    """
    opt, model, _, test_set, dist, _ = training
    asked = tile_of(opt.val, opt.netG.window_size, grid=opt.netG.grid)
    if opt.val.tile != "auto" or test_set is None:
        return asked
    path, bounds = RunFolder(opt.run_dir).tile, json.loads(json.dumps(asdict(asked)))
    kept = read_json(path) if dist.is_main and path.is_file() else {}
    kept = utils_dist.gather_objects(dist, kept)[0]  # the main process decides: others may not see a new file yet
    if kept.get("asked") == bounds:
        return TileOpt.from_json(kept["tile"])
    tile = choose_tile.prepare(model.restore, dist, opt.netG, test_set, opt.val, asked, auto=True)
    if dist.is_main:
        write_text(path, json.dumps({"asked": bounds, "tile": asdict(tile)}, indent=2) + "\n")
    return tile


def is_heard(stop: StopRequest) -> Callable[[], bool]:
    """A function that tells whether this process or, as far as known here, another one was asked to stop."""
    return lambda: utils_dist.any_asked(stop.name is not None)


def give_up(training: Training, step: int, batches: Sequence[Mapping[str, Any]]) -> NoReturn:
    """End a run whose steps are all skipped, and save the batch for inspection."""
    opt, model, *_ = training
    replay = write_replay(opt.run_dir, step, training.dist.rank, batches, model.netG)
    raise FloatingPointError(
        f"step {step}: no finite loss or gradient in {model.guard.in_row} steps in a row (train.nonfinite_limit); "
        f"the weights are unchanged; {replay}; lower train.G_optimizer_lr, set G_optimizer_clipgrad, or turn amp off"
    )


if __name__ == "__main__":
    with utils_cli.program(arguments.debug, arguments.quiet):
        if not main(options):
            raise SystemExit(arguments.stop_code)
