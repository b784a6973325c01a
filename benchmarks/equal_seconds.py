"""What a given time of training buys: networks without spikes, with one plane of mean rate, with the guide, with both.

python benchmarks/equal_seconds.py --out FOLDER [--seconds 60 180 600] [--kinds guide ...] [--seeds 0 1 2] [--plot FILE]

A step of each kind is timed first, data included, on a machine that should be quiet then; the kinds take turns. Every
entry is trained anew on the demo set, with a whole schedule, for the steps that fit into its seconds: what else the
machine does then changes nothing. PSNR in dB on the held-out clips. "guide + vrt" trains the guide for half of the
time, then VRT behind it. FOLDER keeps times and finished entries; the same command resumes. Ends with one JSON line.
"""

import argparse
import json
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from timed_training import Kind, kept, network_of, scores, step_times
from torch import Tensor, nn

from options.schema import Opt
from utils.utils_cli import Parser, positive, program

GUIDED = "guide + vrt"
NO_SPIKES = (
    "datasets.train.dataset_type=VideoRecurrentTrainDataset",
    "datasets.train.augment.theta=0",
    "datasets.train.augment.instant=0",
    "datasets.test.dataset_type=VideoRecurrentTestDataset",
    *(f"datasets.{block}.{key}=null" for block in ("train", "test") for key in ("dataroot_spike", "dataroot_instants")),
)
KINDS = {
    "guide without spikes": Kind("options/vrt/demo.json", NO_SPIKES),
    "vrt, one plane": Kind("options/vrt/demo_vrt.json"),
    "guide": Kind("options/vrt/demo.json"),
    # The trained guide's weights come later: a step takes as long without.
    GUIDED: Kind("options/vrt/demo_guided_vrt.json", ("netG.guide.weights=null",)),
}


def measured(name: str, seconds: int, seed: int, times: dict[str, float]) -> dict[str, Any]:
    """Train one entry and score it."""
    kind, share = KINDS[name], 2 if name == GUIDED else 1
    steps = max(int(seconds / share / times[name]), 1)
    if name == GUIDED:
        first = KINDS["guide"].trained(max(int(seconds / share / times["guide"]), 1), seed)
        kind = replace(kind, network=partial(behind, (first.netE or first.netG).state_dict()))
    found = scores(kind.load(steps, seed), kind.trained(steps, seed))
    return {"kind": name, "seconds": seconds, "seed": seed, "psnr": found["mean"]["psnr"], "steps": steps}


def behind(guide: dict[str, Tensor], opt: Opt) -> nn.Module:
    """VRT behind a trained guide."""
    net = network_of(opt)
    net.fusion.guide.load_state_dict(guide)
    return net


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
    parser.add_argument("--seconds", type=positive, nargs="+", default=[60, 180], help="seconds of each training")
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND", help="networks to train"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of the trainings")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw the curves")
    parser.add_common()
    args = parser.parse_args()
    with program(args.debug, args.quiet):
        args.out.mkdir(parents=True, exist_ok=True)
        times = kept(args.out / "step_times.json", lambda: step_times(KINDS))
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
        row = kept(path, partial(measured, kind, seconds, seed, times))
        rows.append(row)
        print(f"{kind:<24}{seconds:>9}{seed:>6}{row['steps']:>8}{row['psnr']:>8.2f}", flush=True)
    return rows


if __name__ == "__main__":
    main()
