"""Deformable convolution: time and peak memory of each backend compared with torchvision's.

python benchmarks/deform_conv.py [--quick] [--repeats 5] [--tiles]

On a CPU the backend is compared with torchvision's, and with one `grid_sample` and one matrix product for the whole
batch. On CUDA the Triton kernels are compared with torchvision's, in float32 and bfloat16, at the stage sizes of a
6x192x192 sample; `--tiles` times other tile sizes of each kernel. Times are medians of alternating runs. Memory is the
peak that a call adds: to the resident set on a CPU (/proc, Linux only), to the allocator's count on CUDA.
"""

import ctypes
import itertools
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from models.op import deform_conv2d
from models.op.deform_conv import OVERRIDE
from utils.utils_cli import Parser

CPU_SHAPES = [(10, 96, 16, 64, 64), (2, 96, 16, 128, 128), (10, 96, 16, 32, 32), (10, 24, 4, 64, 64)]
CUDA_SHAPES = [(10, 96, 16, size, size) for size in (192, 96, 48, 24)]  # N, channels, groups, height, width
DTYPES = {"cpu": [torch.float32], "cuda": [torch.float32, torch.bfloat16]}


class Cost(NamedTuple):
    """Cost of one call."""

    seconds: float
    megabytes: float


def one_shot(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """One `grid_sample` for the whole batch, then one matrix product; autograd keeps the columns."""
    n, channels, height, width = x.shape
    groups = mask.shape[1] // 9
    offset = offset.view(n * groups, 9, 2, height, width)
    tap = torch.arange(3.0) - 1
    y = torch.arange(float(height))[:, None] + tap.repeat_interleave(3)[:, None, None]
    at_x = torch.arange(float(width)) + tap.repeat(3)[:, None, None]
    grid = torch.stack(
        ((2 * (offset[:, :, 1] + at_x) + 1) / width - 1, (2 * (offset[:, :, 0] + y) + 1) / height - 1), dim=4
    )
    image = x.reshape(n * groups, channels // groups, height, width)
    columns = F.grid_sample(image, grid.view(n * groups, 9 * height, width, 2), align_corners=False)
    columns = (columns * mask.reshape(n * groups, 1, 9 * height, width)).view(n, channels * 9, height * width)
    return torch.matmul(weight.flatten(1), columns).view(n, -1, height, width) + bias[:, None, None]


def with_backend(name: str, *args: Tensor) -> Tensor:
    """Call the public function with the named backend."""
    os.environ[OVERRIDE] = name
    return deform_conv2d(*args)


FORMS: dict[str, dict[str, Callable[..., Tensor]]] = {
    "cpu": {
        "torchvision": partial(with_backend, "torchvision"),
        "one shot": one_shot,
        "chunks": partial(with_backend, "chunks"),
    },
    "cuda": {"torchvision": partial(with_backend, "torchvision"), "triton": partial(with_backend, "triton")},
}


def arguments(shape: tuple[int, ...], device: str, dtype: torch.dtype) -> list[Tensor]:
    """x in `dtype`, offset, mask, weight and bias with gradients; offsets of a few pixels."""
    n, channels, groups, height, width = shape
    torch.manual_seed(0)
    sizes = [(n, channels, height, width), (n, 18 * groups, height, width), (n, 9 * groups, height, width)]
    tensors = [torch.randn(*size, device=device) for size in [*sizes, (channels, channels, 3, 3), (channels,)]]
    tensors[0] = tensors[0].to(dtype)
    tensors[1].mul_(3)
    tensors[2].sigmoid_()
    return [tensor.requires_grad_() for tensor in tensors]


def forward(form: Callable[..., Tensor], args: list[Tensor]) -> None:
    """Forward pass only."""
    with torch.no_grad():
        form(*args)


def both(form: Callable[..., Tensor], args: list[Tensor]) -> None:
    """Forward and backward pass."""
    torch.autograd.grad(form(*args).square().sum(), args)


PASSES = {"forward": forward, "both": both}


def resident(key: str) -> int:
    """VmRSS or VmHWM of this process in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def peak_bytes(call: Callable[[], object], device: str) -> int:
    """Peak memory that a call adds."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    if platform.system() != "Linux":
        return 0
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # VmHWM := VmRSS
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before


def seconds(call: Callable[[], object], device: str) -> float:
    """Wall time of one call."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(kind: str, args: list[Tensor], repeats: int) -> dict[str, Cost]:
    """Each form's median time, from alternating runs, and its peak memory."""
    device = args[0].device.type
    calls = {name: partial(PASSES[kind], form, args) for name, form in FORMS[device].items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            times[name].append(seconds(call, device))
    return {
        name: Cost(statistics.median(times[name][1:]), peak_bytes(call, device) / 2**20) for name, call in calls.items()
    }


def compare(shapes: Sequence[tuple[int, ...]], repeats: int, device: str) -> list[dict[str, object]]:
    """Print a row per shape, dtype and pass; returns the rows."""
    names = list(FORMS[device])
    heads = "".join(f"{name:>14}{'':>12}" for name in names)
    print(f"{'N, C, groups, H, W':<22}{'x':<10}{'pass':<9}{heads}{'faster':>8}{'memory':>8}")
    rows: list[dict[str, object]] = []
    for shape, dtype in itertools.product(shapes, DTYPES[device]):
        args = arguments(shape, device, dtype)
        for kind in PASSES:
            cost = measure(kind, args, repeats)
            first, last = cost[names[0]], cost[names[-1]]
            cells = "".join(f"{cost[name].seconds * 1e3:>11.2f} ms{cost[name].megabytes:>9.0f} MB" for name in names)
            gain = f"{first.seconds / last.seconds:>7.2f}x{last.megabytes / max(first.megabytes, 1e-9):>7.2f}x"
            print(f"{shape!s:<22}{str(dtype)[6:]:<10}{kind:<9}{cells}{gain}")
            numbers = {name: cost[name]._asdict() for name in names}
            rows.append({"shape": shape, "dtype": str(dtype)[6:], "pass": kind, **numbers})
    return rows


def compare_tiles(shape: tuple[int, ...], repeats: int) -> None:
    """Print the time of a call for each tiling of each Triton kernel, with default tilings of the others."""
    from triton.runtime.errors import OutOfResources

    from models.op import deform_triton

    for dtype, kernel in itertools.product(DTYPES["cuda"], deform_triton.TILES):
        args, chosen = arguments(shape, "cuda", dtype), deform_triton.TILES[kernel]
        call = partial(PASSES["forward" if kernel == "forward" else "both"], FORMS["cuda"]["triton"], args)
        for tiles in itertools.product((32, 64, 128), (32, 64), (4, 8), (1, 2, 3)):
            deform_triton.TILES[kernel] = dict.fromkeys(chosen, deform_triton.Tiles(*tiles))
            try:
                taken = statistics.median([seconds(call, "cuda") for _ in range(repeats + 1)][1:])
            except OutOfResources:
                continue
            mark = " (chosen)" if tiles == chosen[args[0].element_size()] else ""
            print(f"{str(dtype)[6:]:<10}{kernel:<9}pixels, columns, warps, stages {tiles}: {taken * 1e3:.3f} ms{mark}")
        deform_triton.TILES[kernel] = chosen


def main() -> None:
    """Print a table, then one JSON line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="runs per median")
    parser.add_argument("--quick", action="store_true", help="one small shape, once")
    parser.add_argument("--tiles", action="store_true", help="on CUDA: also time other tile sizes")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shapes = CUDA_SHAPES if device == "cuda" else CPU_SHAPES
    shapes, repeats = (shapes[2:3], 1) if options.quick else (shapes, options.repeats)
    rows = compare(shapes, repeats, device)
    if options.tiles and device == "cuda":
        compare_tiles(shapes[0], repeats)
    machine = torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU"
    threads = torch.get_num_threads()
    print(json.dumps({"machine": machine, "threads": threads, "torch": torch.__version__, "rows": rows}))


if __name__ == "__main__":
    main()
