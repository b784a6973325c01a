"""Estimate the cost of an option file's network: parameters, operations and memory by part, without running it.

python scripts/summary.py --opt CONFIG.json [--set KEY=VALUE ...] [--size D H W] [--json]
python scripts/summary.py --opt CONFIG.json --fit 12GB

Memory is that of tensors, in the precision of train.amp, for one sample; a card needs a little more. --fit proposes the
crop, batch, checkpointing and tile that fit into a card of that size, ready for --set.
"""

import json
import logging
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from options.schema import Opt
from utils import utils_cli, utils_option
from utils.processes.host_memory import GIB
from utils.utils_error import UserError, counted
from utils.utils_tile_opt import tile_of


def make_parser() -> utils_cli.Parser:
    """Return the command line's parser."""
    parser = utils_cli.Parser(description=__doc__)
    text = "frames, rows, columns of the input (default: those of the options)"
    parser.add_argument("--size", type=int, nargs=3, metavar=("D", "H", "W"), help=text)
    text = "memory of a card, for which to propose crop, batch, checkpointing and tile"
    parser.add_argument("--fit", metavar="12GB", help=text)
    text = "time of a training step, as in train.log: also print the hours of the training"
    parser.add_argument("--step", type=utils_cli.above_zero, metavar="SECONDS", help=text)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_common(opt="option file, JSON with comments")
    return parser


if __name__ == "__main__":
    make_parser().parse_args()  # answers --help and mistakes before the imports, which take seconds

import torch
from torch import nn

from models.fusion.guide import guide_of
from models.memory import fit
from models.memory.estimate import POLICIES, flops_of, has_checkpointing, memory_of, parts_of, set_checkpointing
from models.precision import amp_dtype
from models.select_network import define_G

LOG = logging.getLogger("spikevrt")
UNITS = {"MB": 1e6, "GB": 1e9, "MiB": 2.0**20, "GiB": float(GIB)}
GIVEN = "netG"  # checkpointing as set in netG


def bytes_of(text: str) -> float:
    """Parse "12GB" or "11.5GiB"; UserError for another form."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMG]i?B)", text)
    if match is None or match[2] not in UNITS:
        raise UserError(f"--fit is {text!r}, expected a number and one of {', '.join(UNITS)}, as in 12GB")
    return float(match[1]) * UNITS[match[2]]


def input_shapes(opt: Opt, size: list[int] | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return (1, D, C, H, W) of a training sample and of a tile in testing."""
    net, data, val = opt.netG, opt.datasets.loaded, opt.val
    channels = net.in_chans + net.nonblind_denoising
    if size is not None:
        shape = (1, size[0], channels, size[1], size[2])
        return shape, shape
    frames, height, width = net.img_size
    if data is not None:
        frames, height, width = data.num_frame, data.gt_size // net.upscale, data.gt_size // net.upscale
    tile = tuple(side or whole for side, whole in zip(tile_of(val).size, (height, width), strict=True))
    return (1, frames, channels, height, width), (1, val.num_frame_testing or frames, channels, *tile)


def parameters_by_part(net: nn.Module) -> dict[str, int]:
    """Return the number of parameters of each part."""
    counts = Counter[str]()
    for name, part in parts_of(net):
        counts[name] += sum(parameter.numel() for parameter in part.parameters())
    return counts


def training_of(opt: Opt, flops: float) -> dict[str, float] | None:
    """Return the size of a training whose forward pass takes `flops` a frame; backward passes take twice that."""
    data = opt.datasets.loaded
    if data is None:
        return None
    samples, frames = data.dataloader_batch_size * opt.train.accumulate, data.num_frame
    tflop = 3 * samples * frames * flops / 1e12
    return {"steps": opt.train.total_iter, "samples": samples, "frames": frames, "tflop": tflop}


def summarize(opt: Opt, net: nn.Module, size: list[int] | None) -> dict[str, Any]:
    """Return everything in the table, in bytes and operations."""
    training, testing = input_shapes(opt, size)
    dtype = amp_dtype(opt.train.amp)
    tests = memory_of(net, testing, training=False, dtype=dtype)
    steps = {}
    if has_checkpointing(net):
        steps[GIVEN] = memory_of(net, training, training=True, dtype=dtype)
    for policy in POLICIES if opt.netG.net_type == "vrt" else ("none",):  # the guide has no attention to recompute
        set_checkpointing(net, policy)
        steps[policy] = memory_of(net, training, training=True, dtype=dtype)
    flops = {name: count / training[1] for name, count in flops_of(net, training).items()}
    return {
        "task": opt.task,
        "dtype": str(dtype or torch.float32).removeprefix("torch."),
        "training_input": training,
        "testing_input": testing,
        "parameters": parameters_by_part(net),
        "flops_per_frame": flops,
        "testing_bytes": {"peak": tests.peak, "parts": dict(tests.peaks)},
        "training_bytes": {name: {"peak": step.peak, "kept": dict(step.kept)} for name, step in steps.items()},
        "guide_reach": guide.reach if (guide := guide_of(net)) is not None else None,
        "training": training_of(opt, sum(flops.values())),
        "state_bytes": fit.state_bytes(net, opt.train.E_decay > 0),
    }


def print_table(summary: dict[str, Any], step: float | None) -> None:
    """Print the summary as a table; step: seconds of one, None: unknown."""
    sizes = {kind: "x".join(map(str, summary[f"{kind}_input"])) for kind in ("training", "testing")}
    steps, flops, parameters = summary["training_bytes"], summary["flops_per_frame"], summary["parameters"]
    print(
        f"{summary['task']}: {summary['dtype']}, training input {sizes['training']}, testing input {sizes['testing']}"
    )
    print("by checkpointing: memory that a part keeps for the backward pass, and the peak of a whole step; GiB\n")
    print(f"{'part':<22}{'parameters':>12}{'GFLOP/frame':>13}{'share':>8}{'testing':>9}", end="")
    print("".join(f"{name:>9}" for name in steps))
    total = sum(flops.values())
    for name, count in {**parameters, **({"rest": 0} if flops.get("rest") else {})}.items():
        cells = f"{name:<22}{count:>12,}{flops.get(name, 0) / 1e9:>13.2f}{flops.get(name, 0) / total:>8.1%}"
        cells += f"{summary['testing_bytes']['parts'].get(name, 0) / GIB:>9.2f}"
        print(cells + "".join(f"{step['kept'].get(name, 0) / GIB:>9.2f}" for step in steps.values()))
    cells = f"{'peak':<22}{sum(parameters.values()):>12,}{total / 1e9:>13.2f}{1:>8.0%}"
    cells += f"{summary['testing_bytes']['peak'] / GIB:>9.2f}"
    print(cells + "".join(f"{step['peak'] / GIB:>9.2f}" for step in steps.values()))
    if summary["guide_reach"] is not None:
        print(f"\nguide: an output pixel depends on at most {summary['guide_reach']} pixels to each side")
    print(f"\nweights, moments and average in training: another {summary['state_bytes'] / GIB:.2f} GiB")
    if summary["training"] is not None:
        training = summary["training"]
        samples, frames = counted(training["samples"], "sample"), counted(training["frames"], "frame")
        flop = f"{training['tflop']:,.1f} TFLOP" if training["tflop"] >= 1 else f"{1000 * training['tflop']:,.1f} GFLOP"
        print(
            f"training: {counted(training['steps'], 'step')} of {samples} of {frames}, {flop} per step"
            + (f"; {training['steps'] * step / 3600:,.1f} hours at {step:g} s per step" if step else "")
        )


def propose(opt: Opt, net: nn.Module, total: float) -> dict[str, Any]:
    """Propose what fits into `total` bytes, with the values to --set; UserError if nothing fits."""
    training, dtype = input_shapes(opt, None)[0], amp_dtype(opt.train.amp)
    tile = tile_of(opt.val)
    overlap = tile.frame_overlap, max(tile.overlap)
    tests = fit.propose_tile(net, training[2], total, overlap, dtype)
    steps = fit.propose_training(net, training, total, opt.train.E_decay > 0, dtype)
    if tests is None or steps is None:
        raise UserError(
            f"--fit is {total / 1e9:g} GB, too little for any crop or tile of this network; use a smaller preset"
        )
    crop = steps.crop * opt.netG.upscale
    changes = {
        "netG.use_checkpoint_attn": False,
        "netG.use_checkpoint_ffn": False,
        "train.memory": steps.policy,
        "datasets.train.gt_size": crop,
        "datasets.train.dataloader_batch_size": steps.batch,
        "val.num_frame_testing": tests.frames,
        "val.size_patch_testing": tests.side,
    }
    if opt.datasets.train is None:
        changes = {key: value for key, value in changes.items() if not key.startswith("datasets")}
    return {"training": vars(steps), "testing": vars(tests), "set": changes}


def print_proposal(proposal: dict[str, Any]) -> None:
    """Print the proposal as text."""
    steps, tests = proposal["training"], proposal["testing"]
    print(
        f"\ntraining: crops of {steps['crop']} pixels, {steps['batch']} per card, checkpointing {steps['policy']!r}: "
        f"{steps['bytes'] / GIB:.1f} GiB\n"
        f"testing: tiles of {counted(tests['frames'], 'frame')} of {tests['side']}x{tests['side']} pixels, "
        f"{tests['useful']:.0%} of the work not repeated: {tests['bytes'] / GIB:.1f} GiB"
    )
    print("--set " + " ".join(f"{key}={json.dumps(value).strip(chr(34))}" for key, value in proposal["set"].items()))


def main() -> None:
    """Read the command line, estimate and print."""
    args = make_parser().parse_args()
    with utils_cli.program(args.debug, args.quiet):
        total = bytes_of(args.fit) if args.fit else 0.0
        LOG.setLevel(logging.WARNING)  # print only the summary
        opt = utils_option.load(args.opt, Opt, args.set)
        net = define_G(opt.netG.without_files())
        summary = summarize(opt, net, args.size)
        if total:
            summary["fit"] = propose(opt, net, total)
        if args.json:
            print(json.dumps(summary))
            return
        print_table(summary, args.step)
        if total:
            print_proposal(summary["fit"])


if __name__ == "__main__":
    main()
