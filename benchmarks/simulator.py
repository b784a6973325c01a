"""The spike simulator in pixel-steps per second: the ideal sensor, the noisy one, a per-pixel loop.

A pixel-step is one step of one pixel. The loop is plain Python and runs on a small crop of the same light, where its
spikes are checked against those of the ideal sensor.

python benchmarks/simulator.py [--repeats 5] [--steps 56] [--size 360 640]
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data.spike.sensor_noise import SensorNoise
from data.spike.simulator import integrate_and_fire

THETA = 2.0
LOOP_ROWS, LOOP_COLUMNS = 16, 64  # crop that the loop simulates


def per_pixel_loop(light: Sequence[Any], theta: Any, limit: Any, charge: Sequence[Any]) -> np.ndarray:
    """Integrate and fire, pixel by pixel, in the number type of the arguments.

    Args:
        light: [t][y][x], the charge of each step.
        theta: firing threshold.
        limit: the largest number below theta, the most that may remain after a spike.
        charge: [y][x], the initial charge.

    Returns:
        (T, H, W) uint8, 0 or 1.
    """
    spikes = np.zeros((len(light), len(charge), len(charge[0])), np.uint8)
    for y, row in enumerate(charge):
        for x, first in enumerate(row):
            held = min(first, limit)
            for t, plane in enumerate(light):
                held = held + plane[y][x]
                if held >= theta:
                    spikes[t, y, x] = 1
                    held = min(held - theta, limit)
    return spikes


def speeds(calls: dict[str, tuple[Callable[[], object], int]], repeats: int) -> dict[str, float]:
    """Median pixel-steps per second of each call; calls alternate, and the first round is not counted."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, (call, count) in calls.items():
            start = time.perf_counter()
            call()
            found[name].append(count / (time.perf_counter() - start))
    return {name: statistics.median(values[1:]) for name, values in found.items()}


def main() -> None:
    """Print a table, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=56)
    parser.add_argument("--size", type=int, nargs=2, default=(360, 640), metavar=("H", "W"))
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    shape = args.steps, *args.size
    light = (rng.integers(0, 257, shape) / 256).astype(
        np.float32
    )  # sums are exact both in float32 and in Python's floats
    charge = (rng.integers(0, 512, shape[1:]) / 256).astype(np.float32)
    camera = SensorNoise().camera(shape[1:], THETA, seed=0)
    cut = light[:, :LOOP_ROWS, :LOOP_COLUMNS]
    start = charge[:LOOP_ROWS, :LOOP_COLUMNS]
    cut_list, start_list = cut.tolist(), start.tolist()
    loop = per_pixel_loop(cut_list, THETA, THETA, start_list)
    if not np.array_equal(loop, integrate_and_fire(cut, THETA, charge=start)[0]):
        raise SystemExit("the loop and the vectorised sensor differ")
    found = speeds(
        {
            "none": (lambda: integrate_and_fire(light, THETA, charge=charge), light.size),
            "sensor": (lambda: camera.fire(light, np.random.default_rng(1), charge / THETA), light.size),
            "loop": (lambda: per_pixel_loop(cut_list, THETA, THETA, start_list), cut.size),
        },
        args.repeats,
    )
    names = {"none": "ideal sensor", "sensor": "sensor noise", "loop": "ideal, per-pixel loop"}
    print(f"{'light ' + 'x'.join(map(str, shape)):<24}{'pixel-steps/s':>16}{'vs. the loop':>16}")
    for name, speed in found.items():
        print(f"{names[name]:<24}{speed / 1e6:>14.1f} M{speed / found['loop']:>16.1f}")
    machine = {"machine": f"{platform.machine()} CPU", "cores": os.cpu_count(), "numpy": np.__version__}
    result = {f"{name}_pixel_steps_per_s": round(speed) for name, speed in found.items()}
    ratio = {f"{name}_times_loop": round(found[name] / found["loop"], 1) for name in ("none", "sensor")}
    print(json.dumps({**machine, "shape": shape, "repeats": args.repeats, **result, **ratio}))


if __name__ == "__main__":
    main()
