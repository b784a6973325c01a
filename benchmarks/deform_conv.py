"""Deformable convolution: time and peak memory of each backend compared with torchvision's.

python benchmarks/deform_conv.py [--quick] [--repeats 5] [--tiles]

On CUDA the Triton kernels are compared in float32 and bfloat16, at the stage sizes of a 6x192x192 sample; `--tiles`
times other tile sizes of each kernel. Times are medians of alternating runs. Memory is the peak that a call adds: to
the resident set on a CPU (Linux only), to the allocator's count on CUDA.
"""

import ctypes
import itertools
import os
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

import torch
from bench import clock, in_turn, memory, print_result, reset_peak
from torch import Tensor

from models.op import deform_conv2d
from models.op.deform_conv import OVERRIDE
from utils.utils_cli import Parser

CPU_SHAPES = [(10, 96, 16, 64, 64), (2, 96, 16, 128, 128), (10, 96, 16, 32, 32), (10, 24, 4, 64, 64)]
CUDA_SHAPES = [(10, 96, 16, size, size) for size in (192, 96, 48, 24)]  # N, channels, groups, height, width
DTYPES = {"cpu": [torch.float32], "cuda": [torch.float32, torch.bfloat16]}


def with_backend(name: str, *args: Tensor) -> Tensor:
    """Call the public function with the named backend."""
    os.environ[OVERRIDE] = name
    return deform_conv2d(*args)


FORMS = {"cpu": ("torchvision", "chunks"), "cuda": ("torchvision", "triton")}  # the backend that is chosen comes last


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


def forward(backend: str, args: list[Tensor]) -> None:
    """Forward pass only."""
    with torch.no_grad():
        with_backend(backend, *args)


def both(backend: str, args: list[Tensor]) -> None:
    """Forward and backward pass."""
    torch.autograd.grad(with_backend(backend, *args).square().sum(), args)


PASSES = {"forward": forward, "both": both}


def peak_bytes(call: Callable[[], object], device: str) -> int:
    """Peak memory that a call adds."""
    if device == "cpu":
        ctypes.CDLL(None).malloc_trim(0)
    reset_peak(device)
    before = memory(device)
    call()
    return memory(device, peak=True) - before


def seconds(call: Callable[[], object], device: str) -> float:
    """Wall time of one call."""
    start = clock(device)
    call()
    return clock(device) - start


def measure(kind: str, args: list[Tensor], repeats: int) -> dict[str, dict[str, float]]:
    """Each form's median time, from alternating runs, and its peak memory."""
    device = args[0].device.type
    calls = {name: partial(PASSES[kind], name, args) for name in FORMS[device]}
    times = in_turn([partial(seconds, call, device) for call in calls.values()], repeats + 1)
    return {
        name: {"seconds": median(taken[1:]), "megabytes": peak_bytes(call, device) / 2**20}
        for (name, call), taken in zip(calls.items(), times, strict=True)
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
            cells = "".join(f"{one['seconds'] * 1e3:>11.2f} ms{one['megabytes']:>9.0f} MB" for one in cost.values())
            faster, share = first["seconds"] / last["seconds"], last["megabytes"] / max(first["megabytes"], 1e-9)
            print(f"{shape!s:<22}{str(dtype)[6:]:<10}{kind:<9}{cells}{faster:>7.2f}x{share:>7.2f}x")
            rows.append({"shape": shape, "dtype": str(dtype)[6:], "pass": kind, **cost})
    return rows


def compare_tiles(shape: tuple[int, ...], repeats: int) -> None:
    """Print the time of a call for each tiling of each Triton kernel, with default tilings of the others."""
    from triton.runtime.errors import OutOfResources

    from models.op import deform_triton

    for dtype, kernel in itertools.product(DTYPES["cuda"], deform_triton.TILES):
        args, chosen = arguments(shape, "cuda", dtype), deform_triton.TILES[kernel]
        call = partial(PASSES["forward" if kernel == "forward" else "both"], "triton", args)
        for tiles in itertools.product((32, 64, 128), (32, 64), (4, 8), (1, 2, 3)):
            deform_triton.TILES[kernel] = dict.fromkeys(chosen, deform_triton.Tiles(*tiles))
            try:
                taken = median([seconds(call, "cuda") for _ in range(repeats + 1)][1:])
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
    print_result("deform_conv", rows=rows)


if __name__ == "__main__":
    main()
