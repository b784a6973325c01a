"""What a given time of training buys: networks without spikes, with one plane of mean rate, with the guide, with both.

python benchmarks/equal_seconds.py --out FOLDER [--seconds 60 180 600] [--kinds guide ...] [--seeds 0 1 2] [--plot FILE]

A step of each kind is timed first, data included, on a machine that should be quiet then; the kinds take turns. Every
entry is trained anew on the demo set, with a whole schedule, for the steps that fit into its seconds: what else the
machine does then changes nothing. PSNR in dB on the held-out clips. "guide + vrt" trains the guide for half of the
time, then VRT behind it. FOLDER keeps times and finished entries; the same command goes on. Ends with one JSON line.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import fmean, median
from typing import Any

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

WARM_UP, TIMED, ROUNDS = 3, 8, 3  # steps before a step is timed, timed ones, rounds of them
GUIDED = "guide + vrt"
UNGUIDED = ["netG.guide.weights=null"]  # a step takes as long with an untrained guide
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
    GUIDED: ("options/vrt/demo_guided_vrt.json", []),
}


def seconds_per_step(file: str, sets: list[str]) -> float:
    """Time a step, data included."""
    opt = load(file, [*sets, *UNGUIDED], WARM_UP + TIMED, 0)
    began = time.perf_counter()
    for step, _ in enumerate(training(opt)):
        if step + 1 == WARM_UP:
            began = time.perf_counter()
    return (time.perf_counter() - began) / TIMED


def step_times(kinds: list[str], path: Path) -> dict[str, float]:
    """Read the seconds per step of all kinds, or measure them: medians of the rounds."""
    if path.is_file():
        return dict(json.loads(path.read_text()))
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(ROUNDS):
        for kind in kinds:
            found[kind].append(seconds_per_step(*KINDS[kind]))
    times = {kind: median(rounds) for kind, rounds in found.items()}
    path.write_text(json.dumps(times))
    return times


def load(file: str, sets: list[str], steps: int, seed: int) -> Opt:
    """Load options with a number of steps."""
    fixed = [f"train.manual_seed={seed}", "datasets.train.dataloader_num_workers=0", f"train.total_iter={steps}"]
    return utils_option.load(Path(file), Opt, [*sets, *fixed])


def training(opt: Opt) -> Iterator[ModelVRT]:
    """Train, yielding the model after every step."""
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
        yield model


def trained(opt: Opt) -> ModelVRT:
    """Train all steps."""
    return deque(training(opt), maxlen=1)[0]


def measure(kind: str, seconds: int, seed: int, times: dict[str, float], scratch: Path) -> dict[str, float]:
    """Train one entry and score it."""
    file, sets = KINDS[kind]
    is_second = kind == GUIDED
    steps = max(int(seconds / (2 if is_second else 1) / times[kind]), 1)
    if is_second:
        first = trained(load(*KINDS["guide"], max(int(seconds / 2 / times["guide"]), 1), seed))
        weights = scratch / "guide.pth"
        utils_checkpoint.write_weights((first.netE or first.netG).state_dict(), weights)
        sets = [*sets, f"netG.guide.weights={weights}"]
    opt = load(file, sets, steps, seed)
    assert opt.datasets.test is not None
    result = evaluate(trained(opt).restore, open_dataset(opt.datasets.test), opt.val)
    return {"psnr": result["mean"]["psnr"], "steps": steps}


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw PSNR over seconds, one line per kind: means of the seeds, and their spread."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4))
    axes = figure.add_subplot()
    ticks = sorted({row["seconds"] for row in rows})
    for kind in KINDS:
        of_kind = [[row["psnr"] for row in rows if (row["kind"], row["seconds"]) == (kind, at)] for at in ticks]
        points = [(at, found) for at, found in zip(ticks, of_kind, strict=True) if found]
        means = [fmean(found) for _, found in points]
        spread = [[mean - min(found), max(found) - mean] for mean, (_, found) in zip(means, points, strict=True)]
        bars = [list(ends) for ends in zip(*spread, strict=True)]
        axes.errorbar([at for at, _ in points], means, yerr=bars or None, marker="o", capsize=3, label=kind)
    axes.set(xlabel="seconds of training, 2 CPU cores", ylabel="PSNR on held-out clips, dB", xscale="log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(loc="center left")
    figure.savefig(path, dpi=110, bbox_inches="tight")


def main() -> None:
    """Read the command line, measure, print."""
    parser = Parser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="keeps what has been measured")
    parser.add_argument("--seconds", type=positive, nargs="+", default=[60, 180])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw the curves")
    parser.add_common()
    args = parser.parse_args()
    with program(args.debug):
        args.out.mkdir(parents=True, exist_ok=True)
        times = step_times(list(KINDS), args.out / "step_times.json")
        print("seconds per step: " + ", ".join(f"{kind} {took:.3f}" for kind, took in times.items()), flush=True)
        rows = measure_all(args, times)
        if args.plot:
            plot(rows, args.plot)
        machine = {"torch": torch.__version__, "threads": torch.get_num_threads(), "per_step": times}
        print(json.dumps({"benchmark": "equal_seconds", **machine, "rows": rows}))


def measure_all(args: argparse.Namespace, times: dict[str, float]) -> list[dict[str, Any]]:
    """Measure all entries that the folder does not have yet."""
    rows = []
    print(f"{'':<24}{'seconds':>9}{'seed':>6}{'steps':>8}{'PSNR':>8}")
    for seed, seconds, kind in product(args.seeds, args.seconds, args.kinds):
        path = args.out / f"{kind.replace(' ', '_')}_{seconds}_{seed}.json"
        if not path.is_file():
            with tempfile.TemporaryDirectory() as scratch:
                found = measure(kind, seconds, seed, times, Path(scratch))
            path.write_text(json.dumps({"kind": kind, "seconds": seconds, "seed": seed, **found}))
        row = json.loads(path.read_text())
        rows.append(row)
        print(f"{kind:<24}{seconds:>9}{seed:>6}{row['steps']:>8}{row['psnr']:>8.2f}", flush=True)
    return rows


if __name__ == "__main__":
    main()
