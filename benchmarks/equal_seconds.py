"""What a given time of training buys: networks without spikes, with one plane of mean rate, with the guide, with both.

python benchmarks/equal_seconds.py [--seconds 60 180] [--kinds guide vrt ...] [--seed S] [--plot FILE.png]

Every entry is trained anew on the demo set for that time, data included, with a whole schedule: the number of steps
follows from the time of the first ones. PSNR in dB on the held-out clips. "guide + vrt" trains the guide for half of
the time, then VRT behind it. Ends with one JSON line.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data.check import open_dataset
from data.loader import train_batches
from models.model_vrt import ModelVRT
from models.select_model import define_Model
from options.schema import Opt
from utils import utils_checkpoint, utils_dist, utils_option, utils_seed
from utils.utils_cli import Parser, positive, program
from utils.utils_eval import evaluate

WARM_UP, TIMED = 3, 8  # steps before the number of steps is chosen
NO_SPIKES = [
    "datasets.train.dataset_type=VideoRecurrentTrainDataset",
    "datasets.train.augment.theta=0",
    "datasets.train.augment.instant=0",
    "datasets.test.dataset_type=VideoRecurrentTestDataset",
    *(f"datasets.{block}.{key}=null" for block in ("train", "test") for key in ("dataroot_spike", "dataroot_instants")),
]
KINDS = {
    "guide without spikes": ("options/vrt/demo.json", NO_SPIKES),
    "vrt, one plane": ("options/vrt/demo_vrt.json", []),
    "guide": ("options/vrt/demo.json", []),
    "guide + vrt": ("options/vrt/demo_guided_vrt.json", []),
}


class Trained(NamedTuple):
    """A trained model and what it took."""

    model: ModelVRT
    opt: Opt
    steps: int
    seconds: float


def train(file: str, sets: list[str], seconds: float, seed: int) -> Trained:
    """Train for a time: a few steps to measure, then a whole run of as many steps as fit."""
    sets = [*sets, f"train.manual_seed={seed}", "datasets.train.dataloader_num_workers=0"]
    run(load(file, sets, WARM_UP))
    timed = time.perf_counter()
    run(load(file, sets, TIMED))
    per_step = (time.perf_counter() - timed) / TIMED
    opt = load(file, sets, max(int(seconds / per_step), 1))
    began = time.perf_counter()
    model = run(opt)
    return Trained(model, opt, opt.train.total_iter, time.perf_counter() - began)


def load(file: str, sets: list[str], steps: int) -> Opt:
    """Load options with a number of steps."""
    return utils_option.load(Path(file), Opt, [*sets, f"train.total_iter={steps}"])


def run(opt: Opt) -> ModelVRT:
    """Train all steps of the options."""
    assert opt.datasets.train is not None
    model, data = define_Model(opt, utils_dist.init()), open_dataset(opt.datasets.train)
    batches = train_batches(
        data,
        seed=opt.train.manual_seed,
        start_step=0,
        total_steps=opt.train.total_iter,
        batch_size=opt.datasets.train.dataloader_batch_size,
    )
    for step, batch in enumerate(batches):
        utils_seed.seed_all(opt.train.manual_seed, 0, step)
        model.train_step([batch], step)
    return model


def measure(kind: str, seconds: int, seed: int, scratch: Path) -> dict[str, float]:
    """Train one entry and score it."""
    file, sets = KINDS[kind]
    if kind == "guide + vrt":
        first = train(*KINDS["guide"], seconds / 2, seed)
        weights = scratch / "guide.pth"
        net = first.model.netE or first.model.netG
        utils_checkpoint.write_weights(net.state_dict(), weights)
        trained = train(file, [f"netG.guide.weights={weights}"], seconds / 2, seed)
    else:
        trained = train(file, sets, seconds, seed)
    assert trained.opt.datasets.test is not None
    result = evaluate(trained.model.restore, open_dataset(trained.opt.datasets.test), trained.opt.val)
    return {"psnr": result["mean"]["psnr"], "steps": trained.steps, "trained_s": round(trained.seconds, 1)}


def plot(rows: dict[str, dict[int, float]], path: Path) -> None:
    """Draw PSNR over seconds, one line per kind."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4))
    axes = figure.add_subplot()
    for kind, found in rows.items():
        axes.plot(list(found), list(found.values()), marker="o", label=kind)
    axes.set(xlabel="seconds of training, 2 CPU cores", ylabel="PSNR on held-out clips, dB", xscale="log")
    ticks = sorted({seconds for found in rows.values() for seconds in found})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(loc="center left")
    figure.savefig(path, dpi=110, bbox_inches="tight")


def main() -> None:
    """Read the command line, measure, print."""
    parser = Parser(description=__doc__)
    parser.add_argument("--seconds", type=positive, nargs="+", default=[60, 180])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, help="also draw the curves")
    parser.add_common()
    args = parser.parse_args()
    with program(args.debug):
        found = measure_all(args)
        if args.plot:
            plot(found, args.plot)


def measure_all(args: argparse.Namespace) -> dict[str, dict[int, float]]:
    """Measure all entries in turn; PSNR by kind and seconds."""
    found: dict[str, dict[int, float]] = {kind: {} for kind in args.kinds}
    rows = []
    print(f"{'':<24}{'seconds':>9}{'steps':>8}{'trained s':>11}{'PSNR':>8}")
    with tempfile.TemporaryDirectory() as scratch:
        for seconds in args.seconds:
            for kind in args.kinds:
                row = measure(kind, seconds, args.seed, Path(scratch))
                found[kind][seconds] = row["psnr"]
                rows.append({"kind": kind, "seconds": seconds, **row})
                print(f"{kind:<24}{seconds:>9}{row['steps']:>8}{row['trained_s']:>11}{row['psnr']:>8.2f}", flush=True)
    machine = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    print(json.dumps({"benchmark": "equal_seconds", **machine, "seed": args.seed, "rows": rows}))
    return found


if __name__ == "__main__":
    main()
