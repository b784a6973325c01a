"""The official GoPro network compared with its plain form (tests/reference): time, by part, and peak memory.

python benchmarks/network.py [--repeats 3] [--quick] [--only forward|step] [--form own|plain] [--policies]

Rows: a forward pass without gradients (1x6x3x128x128; on CUDA also 256x256), and a training step with checkpointing
(forward and backward, 1x6x3x64x64; on CUDA also 192x192; `train.memory: "most"`, with --policies also all others). On
CUDA in float32, TF32, bfloat16 and compiled bfloat16. Each measurement runs in its own process, and the forms
alternate. Times are medians (CPU s: all threads of the process, which a busy machine disturbs less). Memory on a CPU is
the process's peak resident size minus its resident size with the built network; on CUDA the peak allocated
size minus that of the built network. The warm-up is one small forward pass, or for a step or a compiled network the
measured pass itself. TFLOP/s uses the FLOPs of the plain form's forward pass (`torch.utils.flop_counter`, without the
deformable convolution), three times as many for a step.
"""

import argparse
import json
import subprocess
import time
from collections import defaultdict
from functools import partial
from statistics import median
from typing import Any

import torch
from bench import clock, in_process, in_turn, memory, print_result, reset_peak
from plain_vrt import PlainVRT
from tiny_network import NARROW_GOPRO
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.memory.estimate import POLICIES, set_checkpointing
from models.network_vrt import VRT
from utils.utils_cli import Parser

GOPRO: dict[str, Any] = {
    "window_size": [6, 8, 8],
    "depths": [8] * 7 + [4] * 4,
    "indep_reconsts": [9, 10],
    "embed_dims": [96] * 7 + [120] * 4,
    "num_heads": [6] * 11,
    "deformable_groups": 16,
}
PARTS = {
    "WindowAttention": "attention",
    "Attention": "attention",
    "GEGLU": "feed-forward",
    "FlowGuidedDeformConv": "alignment",
    "Alignment": "alignment",
    "SpyNet": "flow",
}
CUDA_PRECISIONS = ("fp32", "tf32", "bf16", "bf16+compile")


def build(form: str, quick: bool, step: bool, memory: str = "most") -> nn.Module:
    """The network with seeded weights; for a step, with the checkpointing of `train.memory`."""
    torch.manual_seed(0)
    geometry = {**GOPRO, **NARROW_GOPRO} if quick else GOPRO
    if form == "plain":
        return PlainVRT(**geometry, saving=step)
    net = VRT(**geometry, in_chans=3, drop_path_rate=0.0)
    set_checkpointing(net, memory if step else "none")
    return net


def run(net: nn.Module, x: Tensor, step: bool, half: bool) -> None:
    """One forward pass in testing, or forward and backward in training."""
    net.train(step)
    with torch.set_grad_enabled(step), torch.autocast(x.device.type, torch.bfloat16, enabled=half):
        out = net(x)
    if step:
        out.float().square().mean().backward()


def watch_parts(net: nn.Module, device: str) -> dict[str, float]:
    """Measure the forward pass by part, in seconds; parts do not overlap."""
    seconds: dict[str, float] = defaultdict(float)
    started: dict[str, float] = {}

    def before(part: str) -> Any:
        return lambda *_: started.__setitem__(part, clock(device))

    def after(part: str) -> Any:
        return lambda *_: seconds.__setitem__(part, seconds[part] + clock(device) - started[part])

    for module in net.modules():
        part = PARTS.get(type(module).__name__)
        if part is not None:
            module.register_forward_pre_hook(before(part))
            module.register_forward_hook(after(part))
    return seconds


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Measure one run in this process."""
    device, precision, step, size = job["device"], job["precision"], job["step"], job["size"]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    half = precision.startswith("bf16")
    net = build(job["form"], job["quick"], step, job["memory"]).to(device)
    x = torch.rand(1, 6, 3, size, size, device=device)
    base = memory(device)
    called = torch.compile(net) if precision.endswith("compile") else net
    if called is net and not step:
        run(net, x[..., :64, :64].contiguous(), False, half)
    else:
        run(called, x, step, half)
        net.zero_grad(set_to_none=True)
    parts = watch_parts(net, device) if job["parts"] else {}
    if device == "cuda":
        reset_peak(device)
    start, cpu = clock(device), time.process_time()
    run(called, x, step, half)
    seconds, cpu = clock(device) - start, time.process_time() - cpu
    peak = (memory(device, peak=True) - base) / 2**20
    result: dict[str, Any] = {"seconds": seconds, "cpu_seconds": cpu, "peak_mib": peak}
    if parts:
        result["parts"] = {**parts, "rest": seconds - sum(parts.values())}
    if device == "cuda" and job["form"] == "plain":
        with FlopCounterMode(display=False) as counter:
            run(net, x, False, half)
        result["flop"] = counter.get_total_flops() * (3 if step else 1)
    return result


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Run `work` in a separate process; returns an empty dict if it failed or ran out of memory."""
    try:
        return in_process(job)
    except subprocess.CalledProcessError:
        print(f"{job['form']} at {job['size']} ({job['precision']}) failed")
        return {}


def table(args: argparse.Namespace, device: str) -> list[dict[str, Any]]:
    """The jobs: sizes, passes, precisions and forms; the plain form only in float32 and bfloat16."""
    cases = [(False, 64 if args.quick else 128), (True, 64)]
    if device == "cuda" and not args.quick:
        cases = [(False, 128), (False, 256), (True, 64), (True, 192)]
    jobs = []
    for step, size in cases:
        if args.only in (None, "step" if step else "forward"):
            for precision in CUDA_PRECISIONS if device == "cuda" else ("fp32",):
                forms = ("plain", "own") if precision in ("fp32", "bf16") else ("own",)
                common = {"size": size, "step": step, "precision": precision, "quick": args.quick, "device": device}
                for form in forms:
                    if args.form in (None, form):
                        policies = POLICIES if args.policies and step and form == "own" else ("most",)
                        jobs += [{**common, "form": form, "memory": memory} for memory in policies]
    return jobs


def report(jobs: list[dict[str, Any]], repeats: int) -> list[dict[str, Any]]:
    """Measure all jobs, alternating, and print them."""
    found = in_turn([partial(measure, {**job, "parts": False}) for job in jobs], repeats)
    rows, flop = [], {}
    print(
        f"{'pass':<9}{'size':>5}{'precision':>14} {'form':<6}{'seconds':>9}{'CPU s':>9}{'peak MiB':>10}{'TFLOP/s':>9}"
    )
    for job, every in zip(jobs, found, strict=True):
        results = [result for result in every if result]
        if not results:
            continue
        row = {key: job[key] for key in ("form", "size", "step", "precision", "memory")}
        row |= {key: median(r[key] for r in results) for key in ("seconds", "cpu_seconds", "peak_mib")}
        case = job["step"], job["size"]
        flop.setdefault(case, results[0].get("flop"))
        row["tflops"] = flop[case] / row["seconds"] / 1e12 if flop[case] else None
        speed = f"{row['tflops']:.1f}" if row["tflops"] else "-"
        name = ("step" if job["form"] == "plain" else job["memory"]) if job["step"] else "forward"
        print(
            f"{name:<9}{row['size']:>5}{row['precision']:>14} {row['form']:<6}"
            f"{row['seconds']:>9.3f}{row['cpu_seconds']:>9.3f}{row['peak_mib']:>10.0f}{speed:>9}"
        )
        rows.append(row)
    return rows


def profile(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Seconds by part of the forward passes, from separate runs with a timer around each part."""
    out = []
    for job in jobs:
        if job["step"] or job["precision"].endswith("compile"):
            continue
        parts = measure({**job, "parts": True}).get("parts", {})
        shares = ", ".join(f"{part} {seconds:.2f}" for part, seconds in sorted(parts.items(), key=lambda p: -p[1]))
        print(f"{job['form']} forward at {job['size']}, {job['precision']}: {shares} (s)")
        out.append({"form": job["form"], "size": job["size"], "precision": job["precision"], "parts": parts})
    return out


def main() -> None:
    """Print the tables, then one JSON line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="runs per median")
    parser.add_argument("--quick", action="store_true", help="a small network at 64x64, one repeat")
    parser.add_argument("--only", choices=("forward", "step"), help="measure only this pass")
    parser.add_argument("--form", choices=("own", "plain"), help="measure only this form")
    parser.add_argument("--policies", action="store_true", help="training steps under every `train.memory`")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        print(json.dumps(work(json.loads(args.job))))
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    jobs = table(args, device)
    rows = report(jobs, 1 if args.quick else args.repeats)
    parts = profile(jobs)
    print_result("network", rows=rows, parts=parts)


if __name__ == "__main__":
    main()
