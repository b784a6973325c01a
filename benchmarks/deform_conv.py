"""Deformable convolution on this machine: each backend beside torchvision's, forward and forward + backward.

python benchmarks/deform_conv.py [--repeats 5]
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from models.op.deform_conv import grid_sample_deform_conv2d, torchvision_deform_conv2d

SHAPES = [(10, 96, 16, 64, 64), (10, 96, 16, 32, 32), (10, 16, 2, 64, 64)]  # N, channels, groups, height, width
FORMS = {"torchvision": torchvision_deform_conv2d, "grid_sample": grid_sample_deform_conv2d}


def arguments(shape: tuple[int, ...], device: str) -> list[Tensor]:
    """x, offset, mask, weight and bias with gradients, offsets of a few pixels."""
    n, channels, groups, height, width = shape
    torch.manual_seed(0)
    sizes = [(n, channels, height, width), (n, 18 * groups, height, width), (n, 9 * groups, height, width)]
    tensors = [torch.randn(*size, device=device) for size in [*sizes, (channels, channels, 3, 3), (channels,)]]
    tensors[2].sigmoid_()
    return [tensor.requires_grad_() for tensor in tensors]


def backward(form: Callable[..., Tensor], args: list[Tensor]) -> None:
    """Forward and backward pass."""
    form(*args).sum().backward()


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(shape: tuple[int, ...], repeats: int, device: str) -> dict[str, dict[str, float]]:
    """Median seconds of both forms, run in turn, with and without the backward pass."""
    args = arguments(shape, device)
    times: dict[str, dict[str, list[float]]] = {name: {"forward": [], "both": []} for name in FORMS}
    for _ in range(repeats + 1):
        for name, form in FORMS.items():
            with torch.no_grad():
                times[name]["forward"].append(seconds(partial(form, *args)))
            times[name]["both"].append(seconds(partial(backward, form, args)))
    return {
        name: {kind: statistics.median(values[1:]) for kind, values in kinds.items()} for name, kinds in times.items()
    }


def main() -> None:
    """Print a table, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = []
    print(f"{'N, C, groups, H, W':<24}{'pass':<10}{'torchvision':>12}{'grid_sample':>12}{'ratio':>8}")
    for shape in SHAPES:
        result = measure(shape, repeats, device)
        for kind in ("forward", "both"):
            reference, own = result["torchvision"][kind], result["grid_sample"][kind]
            print(f"{shape!s:<24}{kind:<10}{reference:>10.3f} s{own:>10.3f} s{reference / own:>8.2f}")
            rows.append({"shape": shape, "pass": kind, "torchvision_s": reference, "grid_sample_s": own})
    machine = torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU"
    threads = torch.get_num_threads()
    print(json.dumps({"machine": machine, "threads": threads, "torch": torch.__version__, "rows": rows}))


if __name__ == "__main__":
    main()
