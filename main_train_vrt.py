"""Train VRT on RGB frames and spikes.

python main_train_vrt.py --opt options/vrt/demo.json
torchrun --standalone --nproc_per_node=8 main_train_vrt.py --opt CONFIG.json

The same command again goes on where the run stopped.
"""

import argparse
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from data.check import sound_dataset
from data.loader import SampleSource, train_batches
from models.model_vrt import ModelVRT
from models.select_model import define_Model
from options.schema import Opt
from utils import (
    utils_checkpoint,
    utils_cli,
    utils_dist,
    utils_logger,
    utils_option,
    utils_report,
    utils_seed,
)
from utils.utils_dist import Dist
from utils.utils_error import UserError
from utils.utils_eval import TestSet, evaluate, frame_writer
from utils.utils_logger import Run

LOG = logging.getLogger("spikevrt")
RANDOM_FLOW = (
    "netG.spynet_path is null: optical flow starts from random weights, so frames align worse and the same training "
    "restores less; the official spynet_sintel_final-3d2a1287.pth avoids that"
)


def main(args: argparse.Namespace) -> None:
    """Run one training stage from its option file to its last checkpoint."""
    # 1. Options: one frozen tree, every key known, no defaults anywhere else.
    opt = utils_option.load(args.opt, Opt, args.set)
    if opt.datasets.train is None:
        raise UserError(f"{args.opt} has no datasets.train: there is nothing to train on")
    train, train_opt = opt.train, opt.datasets.train

    # 2. Data first: whatever is wrong with it shows before a network is built.
    train_set = sound_dataset(train_opt, opt.netG.upscale)
    test_set = sound_dataset(opt.datasets.test, opt.netG.upscale) if opt.datasets.test else None

    # 3. Processes, records, model.
    dist = utils_dist.init()
    share = utils_dist.share(train_opt.dataloader_batch_size, dist.world_size)
    run = utils_logger.start_run(opt.run_dir, opt.logging, dist, opt)
    model = define_Model(opt, dist)
    LOG.info(
        "%d samples; %d process(es) on %s, %d at once in each", len(train_set), dist.world_size, dist.device, share
    )

    # 4. Weights: this run's newest checkpoint, else the pretrained ones, else random.
    step = utils_dist.agreed(dist, utils_checkpoint.resume(opt.run_dir, model), "the step of the newest checkpoint")
    if step == 0:
        model.load_pretrained(opt.path.pretrained_netG, opt.path.pretrained_netE)
        if opt.netG.spynet_path is None and opt.path.pretrained_netG is None:
            LOG.warning(RANDOM_FLOW)

    run.write_options(opt)

    # 5. Train. `step` counts finished optimizer steps; batches are a function of (seed, step): a resumed run repeats
    #    nothing and skips nothing.
    batches = batches_from(step, train_set, opt, dist)
    watch = utils_logger.Stopwatch(train.total_iter)
    bar = tqdm(total=train.total_iter, initial=step, disable=None if dist.is_main else True, unit="step")
    with logging_redirect_tqdm([LOG]), bar:
        while step < train.total_iter:
            asked_at = time.perf_counter()
            micro_batches = [next(batches) for _ in range(train.accumulate)]
            watch.data_ready(asked_at)
            utils_seed.seed_all(train.manual_seed, dist.rank, step)
            values = model.train_step(micro_batches, step)
            step += 1
            bar.update()
            last = step == train.total_iter

            if step % train.checkpoint_print == 0 or last:
                values = {**utils_dist.mean(dist, values), **watch.report(step)}
                epoch = step * train.accumulate * train_opt.dataloader_batch_size // len(train_set)
                LOG.info(utils_logger.train_line(epoch, step, values))
                run.log(step, "train", values)
            if dist.is_main and (step % train.checkpoint_save == 0 or last):
                utils_checkpoint.save(opt.run_dir, step, model, train.keep_checkpoints)
            if test_set is not None and (step % train.checkpoint_test == 0 or last):
                validate(model, test_set, opt, dist, run, step)
                watch.restart()
    LOG.info("finished at step %d; weights in %s", step, opt.run_dir / "models")
    run.close()
    utils_dist.close()


def batches_from(step: int, train_set: SampleSource, opt: Opt, dist: Dist) -> Iterator[dict[str, Any]]:
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
        persistent_workers=opt.datasets.train.dataloader_persistent_workers,
        pin_memory=dist.device.type == "cuda",
    )


def validate(model: ModelVRT, test_set: TestSet, opt: Opt, dist: Dist, run: Run, step: int) -> None:
    """Restore and score the test clips; weights that restore better than all before become best_G.pth."""
    watchers = [utils_report.board_images(run, step)]
    if opt.val.save_img:
        watchers.append(frame_writer(opt.run_dir / "images" / str(step)))
    result = evaluate(model.restore, test_set, opt.val, dist, watchers=watchers)
    run.log(step, "test", result["mean"])
    score = result["mean"].get("psnr")
    if dist.is_main and score is not None and score > utils_checkpoint.best_score(opt.run_dir):
        utils_checkpoint.save_best(opt.run_dir, model, step, score)


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = utils_cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--opt", type=Path, required=True, help="option file, JSON with comments")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="e.g. train.total_iter=200"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = parse_args()
    with utils_cli.program(arguments.debug):
        main(arguments)
