"""Measure existing frames, made by any program, against sharp ones.

python scripts/evaluate.py --restored D --gt D [--lq D] [--ext png] [--metrics psnr ssim ...] [--border N]
                           [--out DIR] [--name-by-order] [--workers N]

Each D is a folder of clip folders (beside them comparison.png and instants.png are ignored), one folder of frames, or
an LMDB. Clips and frames are paired by name; two single folders of frames are one clip, whatever their names.
--name-by-order pairs equally many differing names in order, 2 before 10. Frames of --lq, the blurred input, may be
smaller by an integer ratio; they are enlarged bilinearly. --out gets metrics.json and metrics.csv.
"""

import argparse
import math
import multiprocessing
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, get_args

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from options.schema import ValOpt
from utils import utils_cli


def make_parser() -> utils_cli.Parser:
    """Return the command line's parser."""
    parser = utils_cli.Parser(description=__doc__)
    parser.add_argument("--restored", required=True, metavar="D", help="the frames to measure")
    parser.add_argument("--gt", required=True, metavar="D", help="the sharp frames")
    parser.add_argument("--lq", metavar="D", help="the blurred frames, measured as well (lq_)")
    text = "extension of the frames to read (default: all image formats)"
    parser.add_argument("--ext", type=lambda text: text.removeprefix("."), help=text)
    known = get_args(get_args(ValOpt.model_fields["metrics"].annotation)[0])
    text, default = f"one or more of {', '.join(known)}", ValOpt().metrics
    parser.add_argument("--metrics", nargs="+", choices=known, default=default, metavar="M", help=text)
    parser.add_argument("--border", type=int, default=0, help="pixels to ignore at each side")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for metrics.json and metrics.csv")
    parser.add_argument("--name-by-order", action="store_true", help="pair differing names in order")
    parser.add_argument("--workers", type=utils_cli.positive, default=1, help="processes; each measures whole clips")
    parser.add_common()
    return parser


if __name__ == "__main__":
    make_parser().parse_args()  # answers --help and mistakes before the imports, which take seconds

import torch

from data.clip_index import existing_folder, holds_videos, scan_clips
from data.frame_order import by_number, in_time
from data.frame_store import FrameStore
from data.geometry import size_text, whole_ratio
from data.image_folders import ImageFolders
from data.lmdb_store import is_lmdb
from utils import utils_eval, utils_metric
from utils.report import metric_files
from utils.utils_error import UserError
from utils.utils_file import one_form
from utils.utils_progress import HIDE, progress
from utils.utils_video import Playback


@dataclass(frozen=True)
class Frames:
    """The frames of one clip in one of the folders."""

    option: str
    store: FrameStore
    clip: str
    names: tuple[str, ...]

    def read(self, index: int, border: int) -> np.ndarray:
        """Return (H, W, 3) uint8, RGB, without the border."""
        image = self.store.read(self.clip, self.names[index])
        return image[border : len(image) - border, border : image.shape[1] - border]


class FoundClip:
    """The sharp frames of a clip and the frames to compare with them: a Clip that is already restored.

    `restored` and `lq`, if given, are equally many frames; `border` pixels at each side are ignored. Raises UserError,
    with clip and frame, if a frame has the wrong size.
    """

    has_gt, has_spike, planes_in_time = True, False, slice(0, 0)
    playback = Playback()

    def __init__(self, gt: Frames, restored: Frames, lq: Frames | None, border: int) -> None:
        self.name, self.frames = gt.clip, list(gt.names)
        self._gt, self._restored, self._lq, self._border = gt, restored, lq, border
        for index in range(len(gt.names)):
            self._check(index)
        height, width = gt.store.size(gt.clip, gt.names[0])
        if 2 * border >= min(height, width):
            raise UserError(f"--border is {border}, which leaves nothing of {height}x{width}; make it smaller")
        self.size = height - 2 * border, width - 2 * border

    def restored(self, index: int) -> np.ndarray:
        """Return the restored frame, (H, W, 3) uint8, RGB."""
        return self._restored.read(index, self._border)

    def gt(self, start: int, stop: int) -> np.ndarray:
        """Return sharp frames, (t, H, W, 3) uint8, RGB."""
        return np.stack([self._gt.read(index, self._border) for index in range(start, stop)])

    def references(self, index: int) -> dict[str, np.ndarray]:
        """Return the blurred frame, (h, w, 3) uint8, RGB, as "lq_", if there is one."""
        return {"lq_": self._lq.read(index, self._border)} if self._lq else {}

    def lq(self, start: int, stop: int) -> NoReturn:
        """Raise ValueError: the clip is already restored."""
        raise ValueError(f"clip {self.name} is already restored")

    spike = network_input = lq

    def _check(self, index: int) -> None:
        """Compare the sizes of the frames of one index, without decoding."""
        name = self.frames[index]
        every = [frames for frames in (self._gt, self._restored, self._lq) if frames]
        sizes = {of.option: of.store.size(of.clip, of.names[index]) for of in every}
        sharp = sizes["--gt"]
        whole = sizes.get("--lq", sharp) == sharp or bool(whole_ratio(sharp, sizes["--lq"]) and not self._border)
        if sizes["--restored"] != sharp or not whole:
            found = ", ".join(f"{option} {size_text(size)}" for option, size in sizes.items())
            raise UserError(
                f"clip {self.name} frame {name}: sizes differ ({found}); expected one size, or a whole ratio between "
                "--gt and --lq without --border"
            )


def open_clips(path: str, option: str, ext: str | None) -> dict[str, Frames]:
    """Open a folder of clips, or the one clip that it is; `option` names it, `ext` None reads all image formats.

    Raises UserError if there are no frames, or two images have the same frame name.
    """
    root = existing_folder(path, option)
    if is_lmdb(root) or holds_videos(root, ext):
        found = scan_clips(root, ext)
    else:
        folders = ImageFolders(root, ext, pictures_beside=True)
        found = {clip: tuple(folders.files(clip)) for clip in folders.every_clip()}
    store = FrameStore(root, ext, backend="lmdb" if is_lmdb(root) else "disk", pictures_beside=True)
    store.warn_of_losses(found)
    return {clip: Frames(option, store, clip, found[clip]) for clip in by_number(found)}


def paired(wanted: Sequence[str], given: Sequence[str], where: str, by_order: bool) -> list[str]:
    """Return the given name that belongs to each wanted name of --gt; by_order: pair differing ones in their order.

    Raises UserError if the names do not match: `where`, the first unpaired name and the counts.
    """
    forms = {one_form(name): name for name in given}
    if {one_form(name) for name in wanted} == set(forms):
        return [forms[one_form(name)] for name in wanted]
    if by_order and len(wanted) == len(given):
        return list(given)
    lacks, unpaired = (
        [name for name in one if name not in others] for one, others in ((wanted, set(given)), (given, set(wanted)))
    )
    what = f"lacks {lacks[0]}" if lacks else f"has {unpaired[0]}, which --gt lacks"
    more = " (or, if their order is right, --name-by-order)" if len(wanted) == len(given) else ""
    raise UserError(
        f"{where} {what}: {len(given)} found, {len(wanted)} in --gt, names must match one to one; rename them{more}"
    )


def partners(gt: dict[str, Frames], others: dict[str, Frames], by_order: bool) -> dict[str, Frames]:
    """Return the frames that belong to those of each clip in `gt`, in the same order; UserError as `paired`."""
    first = next(iter(others.values()))
    option, alone = first.option, first.store.is_one_clip and next(iter(gt.values())).store.is_one_clip
    clips = list(others) if alone else paired(list(gt), list(others), f"{option}: of the clips it", by_order)
    found = {}
    for name, clip in zip(gt, clips, strict=True):
        other = others[clip]
        where = f"clip {name}: of the frames {option}"
        names = paired(gt[name].names, other.names, where, by_order)
        if names != list(gt[name].names):
            in_time(gt[name].names, f"clip {name}: --gt"), in_time(names, f"clip {name}: {option}")
        found[name] = Frames(option, other.store, clip, tuple(names))
    return found


def find(args: argparse.Namespace) -> list[FoundClip]:
    """Return all clips of the command line, paired and checked without decoding."""
    gt = open_clips(args.gt, "--gt", args.ext)
    restored = partners(gt, open_clips(args.restored, "--restored", args.ext), args.name_by_order)
    lq = partners(gt, open_clips(args.lq, "--lq", args.ext), args.name_by_order) if args.lq else {}
    return [FoundClip(gt[name], restored[name], lq.get(name), args.border) for name in gt]


def restore_nothing(window: torch.Tensor) -> NoReturn:
    """Take the place of a network; never called, because all frames exist."""
    raise ValueError("a frame is missing that should exist")


def measure(clips: list[FoundClip], metrics: tuple[str, ...]) -> dict[str, Any]:
    """Evaluate clips in this process."""
    there, val = {clip.name: clip.restored for clip in clips}, ValOpt.model_validate({"metrics": metrics})
    return utils_eval.evaluate(restore_nothing, clips, val, restored=lambda clip, index: there[clip.name](index))


def measure_one(clip: FoundClip, metrics: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the rows of one clip's frames; runs in a worker process."""
    cv2.setNumThreads(1)
    return measure([clip], metrics)["frames"]


def measure_all(clips: list[FoundClip], metrics: tuple[str, ...], workers: int) -> dict[str, Any]:
    """Evaluate clips in parallel processes; the results do not depend on the number of processes."""
    workers = min(workers, len(clips))
    if workers == 1:
        return measure(clips, metrics)
    rows = []
    bar = progress(total=len(clips), what="measuring", unit="clip")
    os.environ[HIDE] = "1"  # inherited by the workers, whose bars would overlap
    with bar, ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for index, of_clip in enumerate(pool.map(measure_one, clips, [metrics] * len(clips))):
            bar.update()
            utils_eval.log_clip(clips, index, of_clip)
            rows += of_clip
    return utils_eval.summarize(rows)


def table(result: dict[str, Any]) -> str:
    """Format all metrics of every clip, then both means."""
    names = list(result["mean"])
    means = {**result["clips"], "mean of clips": result["mean"], "mean over frames": result["mean_over_frames"]}
    rows = [[clip, *(f"{of.get(name, math.nan):.4f}" for name in names)] for clip, of in means.items()]
    return metric_files.text_table([["", *names], *rows], [max(len(name), 8) + 2 for name in names], rule_before=2)


def main(argv: list[str] | None = None) -> None:
    """Read the command line, measure, report."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.border < 0:
        parser.error(f"--border is {args.border}, expected 0 or more")
    with utils_cli.program(args.debug, args.quiet):
        metrics = tuple(dict.fromkeys(args.metrics))
        utils_metric.check_available(metrics)
        clips = find(args)
        for clip in clips if set(metrics) & utils_metric.TEMPORAL_METRICS.keys() else ():
            in_time(clip.frames, f"clip {clip.name}: --gt")
        result = measure_all(clips, metrics, args.workers)
        result["protocol"] = result["protocol"].replace("border 0", f"border {args.border}")
        if args.out:
            metric_files.write_metrics(result, args.out)
        print(f"\n{table(result)}\n\n{metric_files.protocol_table(result)}\nmetrics: {result['protocol']}")


if __name__ == "__main__":
    main()
