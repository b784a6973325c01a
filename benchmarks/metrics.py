"""Time of the metrics per frame: each metric alone, one after the other, and together.

An evaluation measures them together, computing what metrics and images share only once.

python benchmarks/metrics.py [--repeats 5] [--size 720 1280] [--metrics psnr ssim ...]
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from options.schema import ValOpt
from utils import utils_metric
from utils.evaluation.compared import Motion
from utils.utils_metric import METRICS, TEMPORAL_METRICS

PREFIXES = "", "lq_", "sdm_"


def frames(height: int, width: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """A sharp frame and one that resembles it for each prefix, (H, W, 3) uint8."""
    rng = np.random.default_rng(0)
    sharp = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3), dtype=np.uint8), (0, 0), 2)
    return sharp, [cv2.GaussianBlur(sharp, (0, 0), 1 + at) for at in range(len(PREFIXES))]


def seconds(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each call; calls alternate, and the first round is not counted."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            found[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in found.items()}


def main() -> None:
    """Print a table, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=int, nargs=2, default=(720, 1280), metavar=("H", "W"))
    parser.add_argument("--metrics", nargs="+", choices=METRICS, default=[*ValOpt().metrics])
    args = parser.parse_args()
    utils_metric.check_available(args.metrics)
    sharp, images = frames(*args.size)
    three = dict(zip(PREFIXES, images, strict=True))
    one = {"": images[0]}

    def apart(given: dict[str, np.ndarray]) -> dict[str, float]:
        return {key + name: METRICS[name](image, sharp, 0) for key, image in given.items() for name in args.metrics}

    def together(given: dict[str, np.ndarray]) -> dict[str, float]:
        return utils_metric.measure(given, sharp, args.metrics)

    if apart(three) != together(three):
        raise SystemExit("together the metrics are others than apart")
    calls: dict[str, Callable[[], object]] = {
        name: lambda name=name: METRICS[name](images[0], sharp, 0)  # type: ignore[misc]
        for name in args.metrics
    }
    calls |= {
        "one image, apart": lambda: apart(one),
        "one image, together": lambda: together(one),
        "three images, apart": lambda: apart(three),
        "three images, together": lambda: together(three),
    }
    calls |= {
        name: lambda of=of: of.of_motion(Motion(*images[:2]), Motion(sharp, sharp))
        for name, of in TEMPORAL_METRICS.items()
    }
    found = seconds(calls, args.repeats)
    print(f"{'frame ' + 'x'.join(map(str, args.size)):<26}{'ms':>8}")
    for name, value in found.items():
        print(f"{name:<26}{value * 1e3:>8.1f}")
    machine = {"machine": f"{platform.machine()} CPU", "cores": os.cpu_count(), "opencv": cv2.__version__}
    milliseconds = {f"{name.replace(', ', '_').replace(' ', '_')}_ms": round(of * 1e3, 2) for name, of in found.items()}
    print(json.dumps({**machine, "size": args.size, "repeats": args.repeats, **milliseconds}))


if __name__ == "__main__":
    main()
