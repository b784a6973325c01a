"""Peak memory of a whole test, from reading to the report, by length of the clip.

python benchmarks/restore_memory.py [--lengths 20 200 2000] [--size 180 320] [--opt CONFIG] [--root DIR]
                                    [--steps 24] [--set KEY=VALUE ...]

All clips repeat the same 20 frames and spike files (hard links), so that only their lengths differ. Each length is one
process of main_test_vrt.py, whose peak memory the kernel reports.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from bench import ROOT, print_result
from skimage import data as photographs

from data.layout import DatasetWriter, Frame, clip_dirs
from data.spike.manifest import ClipTiming, simulated_manifest
from models.select_network import define_G
from options.schema import Opt
from utils import utils_cli, utils_option
from utils.utils_checkpoint import write_file

DISTINCT, RATE = 20, 0.5
CLIP = "clip"
SMALLER = (  # a tiny network: its memory is not what is measured
    "netG.depths=[1,1,1,1,1,1,1,1]",
    "netG.embed_dims=[8,8,8,8,8,8,8,8]",
    "netG.deformable_groups=1",
)


def write_set(root: Path, length: int, size: tuple[int, int], steps: int) -> None:
    """A data set with one clip of `length` frames of H, W, and as many steps each of spikes at half the size."""
    height, width = size
    rng = np.random.default_rng(0)
    photo = cv2.resize(photographs.astronaut(), (width + DISTINCT, height + DISTINCT), interpolation=cv2.INTER_AREA)
    frames = []
    for shift in range(min(DISTINCT, length)):
        sharp = photo[shift : shift + height, shift : shift + width]
        gray = cv2.resize(cv2.cvtColor(sharp, cv2.COLOR_RGB2GRAY), (width // 2, height // 2)) / 255
        spikes = (rng.random((steps, *gray.shape)) < RATE * gray).astype(np.uint8)
        frames.append(Frame(cv2.blur(sharp, (5, 5)), sharp, spikes))
    manifest = simulated_manifest(size, 2, 1 / RATE, clock_hz=2000.0).model_copy(update={"continuous": False})
    timing = ClipTiming(steps=steps, exposure=(0, steps), sharp_step=steps // 2)
    writer = DatasetWriter(root, manifest)
    writer.add_clip("test", CLIP, frames, timing)
    writer.finish()
    sharp_dir, blurred_dir, spikes_dir = clip_dirs(root, "test", CLIP)
    for folder, suffix in ((sharp_dir, "png"), (blurred_dir, "png"), (spikes_dir / "spike", "dat")):
        first = sorted(folder.glob(f"*.{suffix}"))
        for index in range(DISTINCT, length):
            os.link(first[index % DISTINCT], folder / f"{index:06d}.{suffix}")


def peak_of(command: list[str], folder: Path) -> tuple[float, float]:
    """Peak resident memory of a process in MiB, and its seconds.

    Raises:
        RuntimeError: it failed; the message is the end of its output.
    """
    began = time.perf_counter()
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        log.seek(0)
        if status:
            raise RuntimeError(log.read()[-2000:])
    return usage.ru_maxrss / 1024, time.perf_counter() - began


def main() -> None:
    """Measure each length, print a table and one JSON line."""
    parser = utils_cli.Parser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[20, 200, 2000], help="frames of the clips")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(180, 320), metavar=("H", "W"), help="frame size in pixels"
    )
    parser.add_argument(
        "--opt", type=Path, default=ROOT / "options/vrt/demo_vrt.json", help="option file with the network and tiles"
    )
    parser.add_argument("--steps", type=int, default=24, help="spike steps per frame; 56 as in GoPro + Spike")
    parser.add_argument("--root", type=Path, help="an existing folder for the clips (default: a temporary one)")
    text = "changes of the options (default: a tiny network)"
    parser.add_argument("--set", nargs="+", default=list(SMALLER), metavar="KEY=VALUE", help=text)
    args = parser.parse_args()
    with utils_cli.program(True), tempfile.TemporaryDirectory(dir=args.root) as name:
        rows = [measured(Path(name), length, args) for length in args.lengths]
        print(f"{'frames':>8}{'peak MiB':>12}{'over the first':>20}{'s per frame':>12}")
        for row in rows:
            share = row["peak_mib"] / rows[0]["peak_mib"]
            print(f"{row['frames']:>8}{row['peak_mib']:>12.0f}{share:>20.3f}{row['seconds'] / row['frames']:>12.3f}")
        print_result("restore_memory", size=args.size, rows=rows)


def measured(root: Path, length: int, args: argparse.Namespace) -> dict[str, Any]:
    """Restore one clip in a separate process."""
    place, opt, changes = root / str(length), args.opt.resolve(), args.set
    write_set(place / "set", length, tuple(args.size), args.steps)
    config = utils_option.load(opt, Opt, ["netG.spynet_path=null", *changes])
    write_file(define_G(config.netG).state_dict(), place / "weights.pth")
    lq, gt, spikes = (f"set/{folder}" for folder in ("test_GT_blurred", "test_GT", "GOPRO_Large_spike_seq/test"))
    folders = {"lq": lq, "gt": gt, "spike": spikes}
    sets = [*changes, *(f"datasets.test.dataroot_{key}={value}" for key, value in folders.items())]
    sets += ["path.pretrained_netG=weights.pth", "datasets.test.meta_info_file=null"]
    command = [sys.executable, str(ROOT / "main_test_vrt.py"), "--opt", str(opt), "--set", *sets]
    peak, seconds = peak_of(command, place)
    return {"frames": length, "peak_mib": round(peak, 1), "seconds": round(seconds, 1)}


if __name__ == "__main__":
    main()
