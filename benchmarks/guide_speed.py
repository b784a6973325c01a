"""The guide's cost by size, on a Linux CPU: a frame of 1280x720 in PyTorch and onnxruntime, and a training step.

python benchmarks/guide_speed.py [--repeats 5] [--large] [--forms PyTorch ...] [--threads N] [--size 720 1280]

Each measurement is one frame, or one training step of guide.json's batch, in its own process, after a warm-up with a
small frame and one with the same. All forms run in turn, `--repeats` times; seconds are medians. Peak memory is the
process's largest resident size during the first frame or step minus that before it, the largest of all turns. The ONNX
file is that of scripts/export_network.py for any size. FLOPs are those of a frame's convolutions, two per multiply-add.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from bench import in_process, in_turn, memory, print_result, reset_peak

from models.exported import example_shapes, export_onnx
from models.fusion.guide import Guide
from models.loss import charbonnier
from models.memory.estimate import flops_of
from options.schema_network import GuideOpt
from utils.processes.thread_count import usable_cores
from utils.utils_cli import Parser

SIZES = ("guide", "guide_tiny")
TRAINING = "training step"
FORMS = ("PyTorch", "ONNX", TRAINING)
SMALL = (1, 1, 3, 64, 64)
BATCH = (8, 1, 3, 128, 128)  # of options/vrt/guide.json


def build(size: str) -> Guide:
    """The guide of a size with random weights, none of which is zero."""
    torch.manual_seed(0)
    guide = Guide(**GuideOpt(size=size).guide_kwargs()).eval().requires_grad_(False)
    for parameter in guide.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return guide


def runner(job: dict[str, Any]) -> Callable[[tuple[int, ...]], Callable[[], Any]]:
    """A function that prepares the inputs for (1, D, C, H, W) and returns what restores them."""
    guide = build(job["size"])

    def inputs(shape: tuple[int, ...]) -> list[torch.Tensor]:
        return [torch.rand(each) for each in example_shapes(guide, shape)]

    if job["form"] == "ONNX":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job["threads"]
        session = onnxruntime.InferenceSession(job["file"], options, providers=["CPUExecutionProvider"])

        def with_onnx(shape: tuple[int, ...]) -> Callable[[], Any]:
            feed = {given.name: x[0].numpy() for given, x in zip(session.get_inputs(), inputs(shape), strict=True)}
            return lambda: session.run(None, feed)

        return with_onnx
    if job["form"] == TRAINING:
        optimizer = torch.optim.AdamW(guide.requires_grad_().train().parameters())
        return lambda shape: partial(train, guide, optimizer, inputs(shape))

    def with_torch(shape: tuple[int, ...]) -> Callable[[], Any]:
        given = inputs(shape)
        return lambda: guide(*given)

    return with_torch


def train(guide: Guide, optimizer: torch.optim.Optimizer, given: list[torch.Tensor]) -> None:
    """One training step."""
    optimizer.zero_grad(set_to_none=True)
    charbonnier(guide(*given), torch.zeros_like(given[0]), 1e-3).backward()
    optimizer.step()


def work(job: dict[str, Any]) -> dict[str, float]:
    """Measure one frame or training step in this process."""
    torch.set_num_threads(job["threads"])
    torch.set_grad_enabled(job["form"] == TRAINING)
    prepare = runner(job)
    prepare(SMALL)()
    once = prepare(BATCH if job["form"] == TRAINING else (1, 1, 3, *job["frame"]))
    base = memory("cpu")
    reset_peak("cpu")
    once()
    peak = (memory("cpu", peak=True) - base) / 2**20
    began = time.perf_counter()
    once()
    return {"seconds": time.perf_counter() - began, "peak_mib": peak}


def table(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Measure all forms of all sizes in turn and print them."""
    sizes = (*SIZES, "guide_large") if args.large else SIZES
    jobs, facts = [], {}
    for size in sizes:
        guide, file = build(size), folder / f"{size}.onnx"
        if "ONNX" in args.forms:
            file.write_bytes(export_onnx(guide).SerializeToString())
        flops = flops_of(guide, (1, 1, 3, *args.size)).total()
        facts[size] = {"parameters": sum(p.numel() for p in guide.parameters()), "gflop": round(flops / 1e9, 1)}
        common = {"size": size, "file": str(file), "frame": args.size, "threads": args.threads}
        jobs += [common | {"form": form} for form in args.forms]
    alone = [partial(in_process, job, OMP_NUM_THREADS=str(job["threads"])) for job in jobs]
    found = in_turn(alone, args.repeats)
    print(f"{'size':<12}{'parameters':>11}{'GFLOP':>8}  {'form':<14}{'seconds':>8}{'peak MiB':>10}")
    rows = []
    for job, results in zip(jobs, found, strict=True):
        seconds = median(result["seconds"] for result in results)
        row = {"size": job["size"], "form": job["form"], **facts[job["size"]], "seconds": round(seconds, 3)}
        row["peak_mib"] = round(max(result["peak_mib"] for result in results))
        print(
            f"{row['size']:<12}{row['parameters']:>11,}{row['gflop']:>8.1f}  {row['form']:<14}{seconds:>8.3f}"
            f"{row['peak_mib']:>10}"
        )
        rows.append(row)
    return rows


def main() -> None:
    """Print the table, then one JSON line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="runs per median")
    parser.add_argument("--large", action="store_true", help="guide_large too")
    parser.add_argument(
        "--forms", nargs="+", choices=FORMS, default=list(FORMS), metavar="FORM", help="forms to measure"
    )
    parser.add_argument("--threads", type=int, default=usable_cores(), help="threads per process")
    parser.add_argument(
        "--size", type=int, nargs=2, default=[720, 1280], metavar=("H", "W"), help="frame size in pixels"
    )
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        print(json.dumps(work(json.loads(args.job))))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = table(args, Path(folder))
    print_result("guide_speed", threads=args.threads, frame=args.size, repeats=args.repeats, rows=rows)


if __name__ == "__main__":
    main()
