"""Milliseconds to fire the spikes of one crop anew, against reading the recorded ones.

python benchmarks/augment_speed.py [--quick]

A crop is 64x64 RGB pixels, 32x32 spike pixels, of 1280x720 frames (360x640 spikes, 56 steps, exposure 49) in a
temporary folder, which stays in the page cache: 41 planes around the sharp step. `recorded` is SpikeSource.planes, the
others are Refired.planes with every option of `augment`. `first` is the first crop of a frame, which also looks at the
whole one; the others are medians.
"""

import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data.geometry import Box
from data.lmdb_store import lmdb_path
from data.prepare.lmdb_sources import NpyFiles
from data.prepare.lmdb_writer import write_lmdbs
from data.spike.manifest import ClipTiming, Manifest
from data.spike.refire import Refired, draw_sensor
from data.spike.simulator import integrate_and_fire
from data.spike.source import SpikeSource
from data.spike.subframes import SubFrames
from options.schema import DatasetOpt
from options.schema_augment import AugmentOpt
from utils.spike_loader import write_spikes
from utils.utils_cli import Parser

HEIGHT, WIDTH, RATIO, SIDE, GRAY, GOAL = 360, 640, 2, 32, 0.5, 3.0
TIMING = ClipTiming(steps=56, exposure=(0, 49), sharp_step=24)
CLIPS = {"clip": tuple(f"{index:06d}" for index in range(4))}
AUGMENT = {
    "theta": [2, 8], "pattern": [0, 0.16], "dark": [0, 0.01], "jitter": [0.01, 0.04], "hot": 0.001, "dead": 1e-4,
    "shift": [0, 0.5], "time_shift": [0, 4],
}  # fmt: skip

Crop = Callable[[str, Box, np.random.Generator], object]


def make_set(root: Path) -> None:
    """Write the light of a moving pattern, its spikes and an LMDB of the light."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    charge = None
    for index, frame in enumerate(CLIPS["clip"]):
        steps = np.arange(TIMING.steps, dtype=np.float32)[:, None, None] + index * TIMING.steps
        light = (np.sin((columns + steps) / 9) * np.cos(rows / 7) + 1) / 2
        spikes, charge = integrate_and_fire(light, 2.0, rng, charge)
        for folder in ("light/clip", "spikes/clip/spike"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        np.save(root / "light/clip" / f"{frame}.npy", np.rint(light * 255).astype(np.uint8))
        write_spikes(root / "spikes/clip/spike" / f"{frame}.dat", spikes)
    Manifest(
        spike_h=HEIGHT, spike_w=WIDTH, rgb_h=HEIGHT * RATIO, rgb_w=WIDTH * RATIO, flipud=True, clock_hz=1920.0,
        rate_at_white=0.5, theta=2.0, transfer="srgb", noise="none", continuous=True, clips={"clip": TIMING},
    ).save(root / "spikes")  # fmt: skip
    write_lmdbs([(NpyFiles(root / "light"), lmdb_path(root / "light"))])


def variants(root: Path) -> dict[str, Callable[[], Crop]]:
    """Return what to measure: how to open each variant."""
    opt = DatasetOpt.model_validate(
        {
            "dataset_type": "VideoRecurrentTrainDatasetRGBSpike",
            "dataroot_spike": str(root / "spikes"),
            "spike": {"representation": "moment", "edge": "mirror"},
        }
    )
    augment = AugmentOpt.model_validate(AUGMENT)

    def recorded() -> Crop:
        source = SpikeSource(opt, CLIPS, None, lambda clip, frame, is_linear: GRAY)
        return lambda frame, box, rng: source.planes("clip", frame, box, RATIO)

    def refired(folder: str | None) -> Crop:
        source = SpikeSource(opt, CLIPS, None, lambda clip, frame, is_linear: GRAY)
        light = SubFrames(root / folder, source.reader.shape) if folder else None
        anew = Refired(source, light)
        return lambda frame, box, rng: anew.planes("clip", frame, box, draw_sensor(rng, augment))

    return {
        "recorded": recorded,
        "light, .npy": partial(refired, "light"),
        "light, LMDB": partial(refired, "light.lmdb"),
        "thinned": partial(refired, None),
    }


def milliseconds(crop: Crop, number: int) -> float:
    """Time one crop; the same one for every variant."""
    rng = np.random.default_rng(number)
    top, left = int(rng.integers(HEIGHT - SIDE)), int(rng.integers(WIDTH - SIDE))
    frame = CLIPS["clip"][number % len(CLIPS["clip"])]
    start = time.perf_counter()
    crop(frame, Box(top, left, SIDE, SIDE), rng)
    return (time.perf_counter() - start) * 1e3


def measure(opened: dict[str, Callable[[], Crop]], crops: int) -> list[dict[str, float | str]]:
    """Measure all variants, alternating."""
    ready = {name: make() for name, make in opened.items()}
    frames = len(CLIPS["clip"])
    first = {name: statistics.median(milliseconds(crop, k) for k in range(frames)) for name, crop in ready.items()}
    times: dict[str, list[float]] = {name: [] for name in ready}
    for number in range(crops):
        for name, crop in ready.items():
            times[name].append(milliseconds(crop, number))
    return [{"variant": name, "ms": statistics.median(times[name]), "first_ms": first[name]} for name in ready]


def report(rows: Sequence[dict[str, float | str]]) -> None:
    """Print the table and the JSON line."""
    print(f"ms per crop of {SIDE * RATIO}x{SIDE * RATIO} RGB pixels, 41 planes; goal {GOAL:g}\n")
    print(f"{'variant':<14}{'ms':>8}{'first':>9}")
    for row in rows:
        print(f"{row['variant']:<14}{row['ms']:>8.2f}{row['first_ms']:>9.2f}")
    print(json.dumps({"machine": f"{platform.machine()} CPU", "numpy": np.__version__, "rows": rows}))


def main() -> None:
    """Make the data set, measure and report."""
    parser = Parser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few crops; a check, not a measurement")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_set(Path(folder))
        rows = measure(variants(Path(folder)), 20 if args.quick else 400)
    report(rows)


if __name__ == "__main__":
    main()
