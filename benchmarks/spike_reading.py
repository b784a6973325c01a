"""Time and memory of reading spikes and making planes, compared with a plain implementation.

python benchmarks/spike_reading.py [--quick] [--data ../shared/data]

The plain implementation decodes the whole file through int64 tables of byte and bit positions, makes planes of whole
frames, and crops them last. Ours reads only the steps, rows and columns that the crop needs. The results are checked to
be equal before timing.

A sample is six frames, cropped to 192x192 RGB pixels, with spikes of half the size and the timing of a GoPro clip with
N = 11: 88 steps per file, exposure [0, 81), sharp step 40. Planes are enlarged to RGB size. All six frames use the one
file of the sample data, or of random spikes, in the page cache. Memory is the peak that Python and NumPy allocate
during one call (tracemalloc), without page cache and memory maps.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data.geometry import Box
from data.spike.manifest import gopro_timing
from data.spike.representations import bins, isi, raw_window, repeat, sdm, tfi, tfp, upsample
from utils.spike_loader import read_spikes, write_spikes

SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "data" / "spkgopro_000226.dat"
HEIGHT, WIDTH, RATIO, FRAMES = 360, 640, 2, 6
TIMING = gopro_timing("GOPR0384_11_00")
STEPS, EXPOSURE, CENTER, WINDOW = TIMING.steps, slice(*TIMING.exposure), TIMING.sharp_step, 21
AROUND = slice(CENTER - WINDOW // 2, CENTER + WINDOW // 2 + 1)
PARTS = 5
ISI_STEPS = range(8, 81, 16)  # the middles of five equal parts of the exposure
CROP = Box(101, 203, 96, 96)  # in spike pixels; starts inside a byte
LARGE = CROP.scaled(RATIO)
BLUR = np.random.default_rng(0).random((HEIGHT * RATIO, WIDTH * RATIO, 3), np.float32)

Make = Callable[[Path], np.ndarray]


def plain_decode(path: Path) -> np.ndarray:
    """Decode through int64 tables of byte and bit positions: (T, H, W) uint8."""
    packed = np.fromfile(path, np.uint8)
    position = np.arange(STEPS * HEIGHT * WIDTH)
    byte, bit = position // 8, position % 8
    bits = (packed[byte] >> bit) & 1
    return np.flip(bits.reshape(STEPS, HEIGHT, WIDTH), axis=1).astype(np.uint8)


def plain_interval(spikes: np.ndarray, bound: int) -> np.ndarray:
    """1 over the interval around step `bound`, step by step; the mean rate if undefined."""
    before = np.full(spikes.shape[1:], -1)
    for step in range(bound):
        before[spikes[step] == 1] = step
    after = np.full(spikes.shape[1:], -1)
    for step in range(len(spikes) - 1, bound - 1, -1):
        after[spikes[step] == 1] = step
    undefined = (before < 0) | (after < 0)
    return np.where(undefined, spikes.mean(axis=0), 1 / np.where(undefined, 1, after - before))


def plain_sdm(spikes: np.ndarray) -> np.ndarray:
    """The blurred frame times the ratio of rates: (H, W, 3)."""
    short, exposure = spikes[AROUND].mean(axis=0), spikes[EXPOSURE].mean(axis=0)
    ratio = np.where(exposure > 0, short / np.where(exposure > 0, exposure, 1), 0)
    return np.clip(BLUR * enlarge_whole(ratio[None])[0][..., None], 0, 1)


def enlarge_whole(planes: np.ndarray) -> np.ndarray:
    """Enlarge whole frames bilinearly: (S, H, W) to (S, RATIO*H, RATIO*W) float32."""
    return np.stack([cv2.resize(plane.astype(np.float32), None, fx=RATIO, fy=RATIO) for plane in planes])


def cut(planes: np.ndarray) -> np.ndarray:
    """Return the crop of whole enlarged planes (S, H, W)."""
    return planes[:, LARGE.rows, LARGE.cols]


PLAIN: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tfp": lambda spikes: cut(enlarge_whole(spikes[AROUND].mean(axis=0)[None])),
    "tfi": lambda spikes: cut(enlarge_whole(plain_interval(spikes, CENTER + 1)[None])),
    "bins": lambda spikes: cut(
        enlarge_whole(np.stack([part.mean(axis=0) for part in np.split(spikes[EXPOSURE], [16, 32, 48, 64])]))
    ),
    "raw_window": lambda spikes: cut(spikes[AROUND].astype(np.float32).repeat(RATIO, axis=1).repeat(RATIO, axis=2)),
    "isi": lambda spikes: cut(enlarge_whole(np.stack([plain_interval(spikes, step) for step in ISI_STEPS]))),
    "sdm": lambda spikes: plain_sdm(spikes)[LARGE.rows, LARGE.cols],
}


def read(path: Path, steps: slice | None = None, margin: int = 0) -> np.ndarray:
    """Read the crop with `margin` pixels around it."""
    rows = (CROP.top - margin, CROP.top + CROP.height + margin)
    cols = (CROP.left - margin, CROP.left + CROP.width + margin)
    return read_spikes(path, HEIGHT, WIDTH, steps=steps and (steps.start, steps.stop), rows=rows, cols=cols)


def enlarge(planes: np.ndarray) -> np.ndarray:
    """Bilinear planes of the crop, made with a margin of one pixel that is then cut off."""
    size = (LARGE.height + 2 * RATIO, LARGE.width + 2 * RATIO)
    return np.stack([upsample(plane, size)[RATIO:-RATIO, RATIO:-RATIO] for plane in planes])


def our_sdm(path: Path) -> np.ndarray:
    """SDM of the crop; the blurred frame is cropped with its margin, as in a data set."""
    spikes = read(path, EXPOSURE, 1)
    wide = Box(LARGE.top - RATIO, LARGE.left - RATIO, LARGE.height + 2 * RATIO, LARGE.width + 2 * RATIO)
    sharp = sdm(BLUR[wide.rows, wide.cols], tfp(spikes, CENTER, WINDOW), tfp(spikes, len(spikes) // 2, len(spikes)))
    return sharp[RATIO:-RATIO, RATIO:-RATIO]


OURS: dict[str, Make] = {
    "tfp": lambda path: enlarge(tfp(read(path, AROUND, 1), WINDOW // 2, WINDOW)[None]),
    "tfi": lambda path: enlarge(tfi(read(path, None, 1), CENTER)[0][None]),
    "bins": lambda path: enlarge(bins(read(path, EXPOSURE, 1), PARTS)),
    "raw_window": lambda path: repeat(raw_window(read(path, AROUND), WINDOW // 2, WINDOW), RATIO),
    "isi": lambda path: enlarge(isi(read(path, None, 1), ISI_STEPS)[0]),
    "sdm": our_sdm,
}


def decode_whole(path: Path) -> np.ndarray:
    """Decode the whole file."""
    return read_spikes(path, HEIGHT, WIDTH)


def small_window(path: Path) -> np.ndarray:
    """Read 21 steps of 128x128 pixels."""
    steps, rows, cols = (AROUND.start, AROUND.stop), (CROP.top, CROP.top + 128), (CROP.left, CROP.left + 128)
    return read_spikes(path, HEIGHT, WIDTH, steps=steps, rows=rows, cols=cols)


def plain_window(path: Path) -> np.ndarray:
    """Decode the whole file, then slice."""
    return plain_decode(path)[AROUND, CROP.top : CROP.top + 128, CROP.left : CROP.left + 128]


def sample_of(make: Make) -> Make:
    """Make the planes of all frames of a sample: (T, ...)."""
    return lambda path: np.stack([make(path) for _ in range(FRAMES)])


def plain_sample(name: str) -> Make:
    """Make them with the plain implementation."""
    return sample_of(lambda path: PLAIN[name](plain_decode(path)))


def seconds(make: Make, path: Path) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    make(path)
    return time.perf_counter() - start


def peak_mib(make: Make, path: Path) -> float:
    """Peak allocation of one call."""
    tracemalloc.start()
    make(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def measure(name: str, ours: Make, plain: Make, path: Path, rounds: int) -> dict[str, str | float]:
    """Check that both agree, then time them alternately: medians of `rounds` plain and 20 * rounds own calls."""
    np.testing.assert_allclose(ours(path), plain(path), atol=1e-5, err_msg=name)
    our_times: list[float] = []
    plain_times: list[float] = []
    for _ in range(rounds):
        our_times += [seconds(ours, path) for _ in range(20)]
        plain_times.append(seconds(plain, path))
    row = {
        "ours_ms": 1e3 * statistics.median(our_times),
        "plain_ms": 1e3 * statistics.median(plain_times),
        "ours_mib": peak_mib(ours, path),
        "plain_mib": peak_mib(plain, path),
    }
    return {"name": name, **row, "times_faster": row["plain_ms"] / row["ours_ms"]}


def run(path: Path, rounds: int, source: str) -> None:
    """Print the table, then one JSON line."""
    pairs: dict[str, tuple[Make, Make]] = {
        f"decode {STEPS}x{HEIGHT}x{WIDTH}": (decode_whole, plain_decode),
        f"window {WINDOW}x128x128": (small_window, plain_window),
    }
    pairs |= {f"sample {name}": (sample_of(make), plain_sample(name)) for name, make in OURS.items()}
    print(f"spikes: {source}; {rounds} rounds")
    print(f"{'':<20}{'ours':>12}{'plain':>12}{'times':>8}{'ours':>12}{'plain':>12}")
    rows = []
    for name, (ours, plain) in pairs.items():
        row = measure(name, ours, plain, path, rounds)
        print(
            f"{name:<20}{row['ours_ms']:>9.3f} ms{row['plain_ms']:>9.1f} ms{row['times_faster']:>8.0f}"
            f"{row['ours_mib']:>8.2f} MiB{row['plain_mib']:>8.1f} MiB",
            flush=True,
        )
        rows.append(row)
    print(json.dumps({"machine": platform.machine(), "numpy": np.__version__, "spikes": source, "rows": rows}))


def main() -> None:
    """Find or make a file, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SAMPLE.parent, help=f"folder of {SAMPLE.name}")
    parser.add_argument("--quick", action="store_true", help="one round instead of five")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    rounds = 1 if args.quick else 5
    real = args.data / SAMPLE.name
    if real.is_file():
        run(real, rounds, "GoPro+Spike 000226")
        return
    with tempfile.TemporaryDirectory() as folder:
        random = np.random.default_rng(0).random((STEPS, HEIGHT, WIDTH), np.float32) < 0.2
        write_spikes(Path(folder) / "random.dat", random)
        run(Path(folder) / "random.dat", rounds, "random, one in five")


if __name__ == "__main__":
    main()
