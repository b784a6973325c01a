"""Training samples per second: from PNG files and LMDB, without and with spikes, by 1 and 2 data workers.

python benchmarks/samples.py [--quick] [--representations tfp moment] [--samples 24] [--repeats 3]

A sample is six blurred and sharp frames of 1280x720, cropped to 192x192, without spikes and with each representation of
them (360x640, 56 steps; moment: 41 planes). The data set is made in a temporary folder from scikit-image's photographs,
saved with adaptive PNG filters like GoPro's frames; it stays in the page cache. `ms/sample` is one process on one
thread, without a loader; `new` are samples of frames that the process has not read before: the picture's gain is of the
whole frame, and kept. `spikes add` compares samples with and without spikes, the same ones. All figures are medians of
alternating runs.
"""

import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import skimage.data
import torch
from bench import in_turn, print_result
from PIL import Image

from data.dataset_video_train_rgbspike import VideoTrainDatasetRGBSpike
from data.layout import DatasetWriter, Frame, gt_dir, lq_dir, spike_dir
from data.lmdb_store import lmdb_path
from data.loader import train_batches
from data.prepare.lmdb_writer import create_lmdbs
from data.spike.manifest import ClipTiming, simulated_manifest
from options.schema import DatasetOpt
from options.schema_data import SpikeOpt
from utils.utils_cli import Parser, positive
from utils.utils_image import read_rgb

HEIGHT, WIDTH, RATIO, RATE = 720, 1280, 2, 0.5
TIMING = ClipTiming(steps=56, exposure=(0, 49), sharp_step=24)
PHOTOGRAPHS = {"clip_a": skimage.data.coffee, "clip_b": skimage.data.astronaut}
SOURCES, WORKERS = ("png", "lmdb"), (1, 2)
RGB = "rgb"  # a variant's input: this alone, or with spikes in a representation
FRAMES = 6  # per sample, the data set's default
WANTED = 4  # samples per second

Variant = tuple[str, str]


def frames_of(photograph: np.ndarray, count: int, rng: np.random.Generator) -> Iterator[Frame]:
    """Yield frames of 1280x720 of a camera that pans across a photograph, and their spikes."""
    scale = max((HEIGHT + 8) / photograph.shape[0], (WIDTH + 8 * count) / photograph.shape[1])
    large = cv2.resize(photograph, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    for index in range(count):
        sharp = large[:HEIGHT, 8 * index : 8 * index + WIDTH].astype(np.float32)
        images = sharp, cv2.blur(sharp, (5, 1))
        noisy = [np.clip(image + rng.normal(0, 0.5, image.shape), 0, 255).round().astype(np.uint8) for image in images]
        gray = cv2.resize(noisy[0].mean(axis=2), None, fx=1 / RATIO, fy=1 / RATIO, interpolation=cv2.INTER_AREA)
        spikes = rng.random((TIMING.steps, *gray.shape), np.float32) < gray / 255 * RATE
        yield Frame(noisy[1], noisy[0], spikes.astype(np.uint8))


def make_set(root: Path, frames: int) -> float:
    """Write a training set and its LMDB folders; returns the mean size of a PNG file in MB."""
    rng = np.random.default_rng(0)
    manifest = simulated_manifest((HEIGHT, WIDTH), RATIO, 1 / RATE, 1920.0).model_copy(update={"continuous": False})
    with DatasetWriter(root, manifest) as writer:
        for clip, photograph in PHOTOGRAPHS.items():
            writer.add_clip("train", clip, frames_of(photograph(), frames, rng), TIMING)
        writer.finish()
    files = list(root.rglob("*.png"))
    for path in files:
        Image.fromarray(read_rgb(path)).save(path)
    create_lmdbs(root, ["train"])
    return statistics.mean(path.stat().st_size for path in files) / 1e6


def open_set(root: Path, variant: Variant) -> VideoTrainDatasetRGBSpike:
    """Open the data set as one of the variants."""
    source, kind = variant
    roots = {
        "dataroot_gt": gt_dir(root, "train"),
        "dataroot_lq": lq_dir(root, "train"),
        "dataroot_spike": spike_dir(root, "train"),
    }
    given: dict[str, Any] = {key: str(lmdb_path(path) if source == "lmdb" else path) for key, path in roots.items()}
    given |= {"io_backend": {"type": "lmdb" if source == "lmdb" else "disk"}, "random_reverse": True}
    if kind == RGB:
        given["dataroot_spike"] = None
    else:
        given["spike"] = {"representation": kind}
    name = "VideoRecurrentTrainDataset" + "RGBSpike" * (kind != RGB)
    return VideoTrainDatasetRGBSpike(DatasetOpt.model_validate(given | {"dataset_type": name}))


def milliseconds(dataset: VideoTrainDatasetRGBSpike, number: int) -> float:
    """Time to read one sample in this process; the same one for every variant."""
    start = time.perf_counter()
    dataset.sample(number % len(dataset), np.random.default_rng(number))
    return (time.perf_counter() - start) * 1e3


def rate(dataset: VideoTrainDatasetRGBSpike, samples: int, workers: int) -> float:
    """Samples per second from the training loader in steady state."""
    ahead = 4 * workers  # as many samples are prefetched when the clock starts as when it stops
    batches = train_batches(
        dataset, seed=0, start_step=0, total_steps=2 * ahead + samples, batch_size=1, num_workers=workers,
        prefetch_factor=2,
    )  # fmt: skip
    for _ in itertools.islice(batches, ahead):
        pass
    start = time.perf_counter()
    for _ in itertools.islice(batches, samples):
        pass
    seconds = time.perf_counter() - start
    for _ in batches:
        pass
    return samples / seconds


def alternating(sets: dict[Variant, VideoTrainDatasetRGBSpike], numbers: Iterable[int]) -> dict[Variant, float]:
    """Median milliseconds of some samples, read from all sets in turn."""
    times = [[milliseconds(dataset, number) for dataset in sets.values()] for number in numbers]
    return dict(zip(sets, map(statistics.median, zip(*times, strict=True)), strict=True))


def measure(root: Path, inputs: list[str], samples: int, repeats: int) -> list[dict[str, Any]]:
    """Measure all variants, alternating: medians of single samples, and of `repeats` runs of the loader."""
    sets = {variant: open_set(root, variant) for variant in itertools.product(SOURCES, inputs)}
    windows = len(next(iter(sets.values()))) // len(PHOTOGRAPHS)
    apart = itertools.product(range(len(PHOTOGRAPHS)), range(0, windows, FRAMES))
    new = alternating(sets, [clip * windows + start for clip, start in apart])
    alone = alternating(sets, range(samples * 2))
    pairs = list(itertools.product(sets, WORKERS))
    runs = in_turn([partial(rate, sets[variant], samples * count, count) for variant, count in pairs], repeats)
    rates = dict(zip(pairs, map(statistics.median, runs), strict=True))
    rows = []
    for (source, kind), taken in alone.items():
        per_second = {count: rates[(source, kind), count] for count in WORKERS}
        rows.append(
            {
                "source": source,
                "input": kind,
                "ms": taken,
                "ms_new": new[source, kind],
                "spikes_add": taken / alone[source, RGB] - 1,
                **{f"per_s_{count}": value for count, value in per_second.items()},
                "workers_needed": math.ceil(WANTED / per_second[1]),
            }
        )
    return rows


def report(rows: list[dict[str, Any]], png_mb: float) -> None:
    """Print tables and the JSON line."""
    print(f"frames {WIDTH}x{HEIGHT}, PNG files of {png_mb:.2f} MB; 6 frames per sample, cropped to 192x192\n")
    need = f"workers for {WANTED}/s"
    alone = f"{'ms/sample':>12}{'new':>9}{'spikes add':>12}"
    print(f"{'source':<8}{'input':<12}{alone}{'1 worker':>12}{'2 workers':>12}{need:>18}")
    for row in rows:
        added = f"{row['spikes_add']:.1%}" if row["input"] != RGB else "-"
        rates = "".join(f"{row[f'per_s_{count}']:>10.2f}/s" for count in WORKERS)
        figures = f"{row['ms']:>12.1f}{row['ms_new']:>9.1f}{added:>12}{rates}{row['workers_needed']:>18}"
        print(f"{row['source']:<8}{row['input']:<12}{figures}")
    print(
        f"\n{WANTED} samples per second feed a training step of 2 s with 8 samples. Workers (dataloader_num_workers)\n"
        "are data processes, each with its own core, counted over all training processes."
    )
    print_result("samples", opencv=cv2.__version__, png_mb=png_mb, rows=rows)


def main() -> None:
    """Make the data set, measure and report."""
    parser = Parser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few samples, once; a check, not a measurement")
    kinds = get_args(SpikeOpt.model_fields["representation"].annotation)
    text = "representations of the spikes"
    parser.add_argument("--representations", nargs="+", choices=kinds, default=["tfp"], metavar="NAME", help=text)
    parser.add_argument(
        "--samples", type=positive, default=24, help="samples per run of the loader; alone, twice as many"
    )
    parser.add_argument("--repeats", type=positive, default=3, help="runs of the loader")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        png_mb = make_set(Path(folder), frames=7 if args.quick else 12)
        samples, repeats = (4, 1) if args.quick else (args.samples, args.repeats)
        rows = measure(Path(folder), [RGB, *args.representations], samples, repeats)
    report(rows, png_mb)


if __name__ == "__main__":
    main()
