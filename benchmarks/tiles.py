"""Tiled compared with untiled restoration of real frames: seams, PSNR, network evaluations, time; KAIR's rule and ours.

python benchmarks/tiles.py --opt options/vrt/demo_vrt.json --video v.mp4 [--weights F] [--frames 100] [--size 192 336]
                           [--tile 18 96 96] [--overlap 2 20 20] [--untiled]

The video's frames are resized to --size. The network's input is the average of five neighbouring frames, with a noisy
gray plane of the sharp frame as spikes. With --untiled the clip is also restored in one piece (about 2.5 kB per pixel
of each frame for the demo's network), and all other results are compared with it.

Seam: the energy of differences across tile borders, relative to that of differences next to them, divided by the same
ratio without tiles; 1 is invisible. It needs the untiled result, because the ratio depends on the content: with sharp
frames instead, it varies from 0.5 to 1.3.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data.frame_store import FrameStore
from models.select_model import define_restorer
from options.schema import Opt
from utils import utils_cli, utils_dist, utils_image, utils_metric, utils_option, utils_run_folder, utils_tile
from utils.tiles import axes
from utils.utils_progress import progress
from utils.utils_tile_opt import TileOpt

BLURRED = 5  # frames averaged to make an input frame


class Scene(NamedTuple):
    """A clip in memory.

    Attributes:
        sharp: (T, H, W, 3) uint8.
        noise: (T, H, W) float16, of the spike plane.
    """

    sharp: np.ndarray
    noise: np.ndarray

    def read(self, start: int, stop: int) -> torch.Tensor:
        """(t, 4, H, W) float32: averaged neighbours, and the gray sharp frame with noise."""
        return torch.stack([self._planes(index) for index in range(start, stop)])

    def _planes(self, index: int) -> torch.Tensor:
        around = np.clip(np.arange(index - BLURRED // 2, index + BLURRED // 2 + 1), 0, len(self.sharp) - 1)
        blurred = self.sharp[around].mean(axis=0, dtype=np.float32) / 255
        gray = cv2.cvtColor(self.sharp[index], cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
        planes = np.concatenate([blurred, (gray + self.noise[index])[..., None]], axis=2)
        return torch.from_numpy(planes.transpose(2, 0, 1).copy())


def load_scene(video: Path, frames: int, size: tuple[int, int]) -> Scene:
    """The first frames of a video, resized to H, W."""
    store, clip = FrameStore(video, "png"), video.stem
    read = (store.read(clip, f"{index:06d}") for index in range(frames))
    sharp = np.stack([cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA) for frame in read])
    noise = np.random.default_rng(0).normal(0, 0.05, sharp.shape[:3]).astype(np.float16)
    return Scene(sharp, noise)


def restored(restore: utils_tile.Restore, scene: Scene, tile: TileOpt, name: str) -> tuple[np.ndarray, int, float]:
    """All frames (T, H, W, 3) uint8, the number of network evaluations, and seconds."""
    calls = 0

    def counted(x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += len(x)
        bar.update(len(x))
        return restore(x)

    count, height, width = scene.sharp.shape[:3]
    total = axes.calls_for(count, (height, width), tile) * tile.batch
    with progress(total=total, what=name) as bar:
        began = time.perf_counter()
        frames = utils_tile.restore_tiled(counted, scene.read, count, (height, width), tile)
        out = np.stack([utils_image.to_uint8(frame) for _, frame in frames])
    return out, calls, time.perf_counter() - began


def borders(axis: axes.Axis) -> list[int]:
    """Points whose difference from the previous point crosses a tile's edge."""
    inner = axis.starts[1:]
    if axis.blend == "kair":
        edges = [start + axis.cut for start in inner] + [start + axis.side - axis.cut for start in axis.starts[:-1]]
    else:
        edges = inner + [start + axis.side for start in axis.starts[:-1]]
    return sorted({edge for edge in edges if 0 < edge < axis.length})


def seam(frames: np.ndarray, plain: np.ndarray, cut: tuple[axes.Axis, axes.Axis]) -> float:
    """Energy of differences across borders, relative to those four points away, over the same ratio of `plain`."""

    def ratio(clip: np.ndarray) -> float:
        across = beside = 0.0
        for dim, axis in enumerate(axes, start=1):
            steps = np.diff(clip.astype(np.int16), axis=dim).astype(np.float32) ** 2
            for edge in borders(axis):
                across += 2 * float(steps.take(edge - 1, axis=dim).mean())
                for near in (edge - 5, edge + 3):
                    beside += float(steps.take(min(max(near, 0), axis.length - 2), axis=dim).mean())
        return across / beside if beside else math.nan

    return ratio(frames) / ratio(plain)


def variants(args: argparse.Namespace) -> Iterator[tuple[str, TileOpt]]:
    """The tiles to compare, by name."""
    frames, *size = args.tile
    shared, *overlap = args.overlap
    sides, overlaps = (size[0], size[1]), (overlap[0], overlap[1])
    if args.untiled:
        yield "no tiles", TileOpt()
    yield "kair", TileOpt(frames, shared, sides, overlaps, "kair")
    yield "smooth", TileOpt(frames, shared, sides, overlaps)
    if args.untiled:
        yield "smooth, overlap 0", TileOpt(frames, 0, sides, (0, 0))


def make_restore(args: argparse.Namespace) -> Callable[[torch.Tensor], torch.Tensor]:
    """The network of an option file, with the given weights or those of its run."""
    opt = utils_option.load(args.opt, Opt)
    given = args.weights and (args.weights, "given by --weights")
    weights, reason = given or utils_run_folder.find_weights(opt.run_dir, None, None)
    return define_restorer(opt, weights, reason, utils_dist.init()).restore


def main() -> None:
    """Restore by each rule, compare, print a table and one JSON line."""
    parser = utils_cli.Parser(description=__doc__)
    parser.add_argument("--opt", type=Path, required=True, help="option file of the network")
    parser.add_argument("--video", type=Path, required=True, help="a sharp video")
    parser.add_argument("--weights", type=Path, help="weights file (default: the run's)")
    parser.add_argument("--frames", type=int, default=100, help="frames of the video to use")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(192, 336), metavar=("H", "W"), help="frame size in pixels"
    )
    parser.add_argument(
        "--tile", type=int, nargs=3, default=(18, 96, 96), metavar=("T", "H", "W"), help="tile in frames and pixels"
    )
    parser.add_argument(
        "--overlap", type=int, nargs=3, default=(2, 20, 20), metavar=("T", "H", "W"), help="overlap of tiles, likewise"
    )
    parser.add_argument("--untiled", action="store_true", help="also restore the clip in one piece")
    args = parser.parse_args()
    with utils_cli.program(True):
        scene = load_scene(args.video, args.frames, tuple(args.size))
        restore = make_restore(args)
        restore(scene.read(0, 2)[None, :, :, :64, :64])
        plain, rows = None, []
        for name, tile in variants(args):
            out, calls, seconds = restored(restore, scene, tile, name)
            plain = out if name == "no tiles" else plain
            cut = axes.space_axes(tuple(args.size), tile)
            row: dict[str, float | str] = {"tiles": name, "evaluations": calls, "seconds": round(seconds, 1)}
            row["psnr"] = round(mean_psnr(out, scene.sharp), 3)
            if plain is not None and name != "no tiles":
                row["psnr_to_untiled"] = round(mean_psnr(out, plain), 2)
                row["seam"] = round(seam(out, plain, cut), 4)
            rows.append(row)
        print_table(rows)
        print(
            json.dumps(
                {
                    "frames": args.frames,
                    "size": args.size,
                    "tile": args.tile,
                    "overlap": args.overlap,
                    "threads": torch.get_num_threads(),
                    "rows": rows,
                }
            )
        )


def mean_psnr(frames: np.ndarray, others: np.ndarray) -> float:
    """Mean PSNR over frames."""
    return utils_metric.mean_of(utils_metric.METRICS["psnr"](a, b) for a, b in zip(frames, others, strict=True))


def print_table(rows: list[dict[str, float | str]]) -> None:
    """Print the rows as a table."""
    columns = ["tiles", "evaluations", "seconds", "psnr", "psnr_to_untiled", "seam"]
    print("".join(f"{column:>18}" for column in columns))
    for row in rows:
        print("".join(f"{row.get(column, '-'):>18}" for column in columns))


if __name__ == "__main__":
    main()
