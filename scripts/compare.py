"""Compare two tests of the same frames: the gain of the second, its confidence interval, and where it occurs.

python scripts/compare.py RUN_A RUN_B [--metric psnr] [--common] [--out FILE.html]

A run is a folder with metrics.json and metrics.csv, written by main_test_vrt.py or scripts/evaluate.py --out. This
prints a table and writes a page, <RUN_B>/compare.html, with curves over time and, if both runs have PNG frames, those
that gain and lose most. Differences are B - A; means are over the frames with a finite value in both runs, first per
clip, then over clips.
"""

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data.frame_store import FrameStore
from utils import utils_cli
from utils.report import page_template
from utils.utils_error import UserError, counted
from utils.utils_file import write_text
from utils.utils_image import read_rgb
from utils.utils_progress import progress
from utils.utils_run_folder import ResultsFolder, read_options


def make_parser() -> utils_cli.Parser:
    """Return the command line's parser."""
    parser = utils_cli.Parser(description=__doc__)
    parser.add_argument("runs", nargs=2, type=Path, metavar="RUN", help="results folders, first A, then B")
    parser.add_argument("--metric", default="psnr", help="a column of metrics.csv")
    parser.add_argument("--common", action="store_true", help="compare only the clips and frames that both have")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (default: <RUN_B>/compare.html)")
    parser.add_common()
    return parser


if __name__ == "__main__":
    make_parser().parse_args()  # answers --help and mistakes before the imports, which take seconds

from utils.report import metric_files, test_page
from utils.report.run_comparison import DRAWS, LEVEL, Pair, Run, Summary, lower_is_better, paired, read_run, summarize

PICTURES = 3  # frames that gain most, and as many that lose most


Picture = dict[str, Any]  # a frame on the page, with the fields of a test_page.Picture and a note


def signed(value: float, metric: str) -> str:
    """Format a difference: decibels with three digits, others with five; "-" if there is none."""
    if math.isnan(value):
        return "-"
    return f"{round(value, 3) + 0.0:+.3f}" if "psnr" in metric else f"{round(value, 5) + 0.0:+.5f}"


def tone(gain: float, metric: str) -> str:
    """Return the CSS class of a difference: "good", "bad", or "" if it is shown as 0 or "-"."""
    if math.isnan(gain) or not float(signed(gain, metric)):
        return ""
    return "good" if (gain < 0) == lower_is_better(metric) else "bad"


def table(pairs: Sequence[Pair], summary: Summary, metric: str) -> str:
    """Format A, B and B - A of every clip, then the means."""
    rows = [["clip", "A", "B", "B - A"]]
    for name, a, b, gain in [
        *((pair.clip, *pair.means) for pair in pairs),
        ("mean", summary.a, summary.b, summary.gain),
    ]:
        rows.append([name, page_template.number(a, metric), page_template.number(b, metric), signed(gain, metric)])
    return metric_files.text_table(rows, [12] * 3)


def statements(summary: Summary, metric: str) -> list[str]:
    """Return what the numbers mean, and what they do not, one sentence each."""
    unit = " dB" if "psnr" in metric else ""
    better = "lower" if lower_is_better(metric) else "higher"
    lines = [
        f"{metric}, {better} is better: B - A is {signed(summary.gain, metric)}{unit} on average over "
        f"{counted(summary.clips, 'clip')}; B is better in {summary.better_clips} of them, and in "
        f"{summary.better_frames} of {counted(summary.frames, 'frame')}"
    ]
    if summary.student is None or summary.bootstrap is None:
        lines.append(
            "no interval: with one clip, the variation between clips is unknown, and its frames are not independent"
        )
    else:
        student, bootstrap = (
            f"[{', '.join(signed(end, metric) for end in ends)}]{unit}" for ends in (summary.student, summary.bootstrap)
        )
        zero = "; it contains 0: no difference is shown" if summary.student[0] <= 0 <= summary.student[1] else ""
        lines += [
            f"{LEVEL:.0%} interval over clips: {student} (paired, Student's t, {summary.clips} clips){zero}",
            f"{LEVEL:.0%} interval by bootstrap: {bootstrap} ({DRAWS} draws of clips, then of frames in each; frames "
            "of a clip are not independent, and with few clips it is too narrow)",
        ]
    if summary.left_out:
        lines.append(
            f"left out: {counted(summary.left_out, 'frame')}, infinite {metric} in A or B (equal to the sharp frame)"
        )
    return lines


def extremes(pairs: Sequence[Pair], runs: Sequence[Path], metric: str) -> tuple[list[Picture], list[Picture]]:
    """Return the frames where B gains and loses most, of those that both have as PNG; UserError for a damaged one."""
    sign = -1 if lower_is_better(metric) else 1
    ranked = sorted(
        (sign * float(gain), pair.clip, index, pair)
        for pair in pairs
        for index, gain in enumerate(pair.gains)
        if math.isfinite(gain)
    )
    stores = [store for run in runs for store in _sharp_store(run)]

    def sharp(clip: str, frame: str) -> np.ndarray | None:
        for store in stores:
            with suppress(UserError):
                return store.read(clip, frame)
        return None

    found = []
    for order, side in ((ranked[::-1], 1), (ranked, -1)):
        shown: list[Picture] = []
        for gain, clip, index, pair in order:
            if gain * side <= 0 or len(shown) == PICTURES:
                break
            paths = [ResultsFolder(run).frame(clip, pair.frames[index]) for run in runs]
            if all(path.is_file() for path in paths):
                images = [read_rgb(path) for path in paths]
                shown.append(_picture(pair, index, images, sharp(clip, pair.frames[index]), metric))
        found.append(shown)
    return found[0], found[1]


def page(pairs: Sequence[Pair], summary: Summary, runs: Sequence[Run], metric: str) -> str:
    """Return the page's HTML; raises as `extremes` does."""
    folders = [run.folder for run in runs]
    measured = {pair.clip: pair for pair in pairs if len(pair.counted)}
    drawn = sorted(measured, key=lambda clip: -abs(measured[clip].means[2]))[: test_page.CURVES]
    unit = f"B - A{', dB' if 'psnr' in metric else ''}"
    gained, lost = extremes(pairs, folders, metric)
    return page_template.render(
        "compare.html",
        title=f"{metric}: {_name(folders[1], folders[0])} against {_name(folders[0], folders[1])}",
        metric=metric,
        unit=" dB" if "psnr" in metric else "",
        tone=tone,
        is_shown=summary.student is not None and not summary.student[0] <= 0 <= summary.student[1],
        folders=[str(folder) for folder in folders],
        summary=summary,
        statements=statements(summary, metric),
        rows=[(pair.clip, len(pair.counted), *pair.means) for pair in pairs],
        signed=signed,
        curves={
            clip: Markup(page_template.curve_svg({"B - A": list(pair.gains)}, unit, baseline=0))
            for clip, pair in progress(measured.items(), what="page", unit="clip")
            if clip in drawn
        },
        not_drawn=len(measured) - len(drawn),
        groups={"Frames that gain most": gained, "Frames that lose most": lost},
        protocol=runs[0].protocol,
        shown=bool(gained or lost),
        without=f"No pictures: no frame whose {metric} differs exists as <run>/<clip>/<frame>.png in both runs.",
        columns=4,
    )


def _sharp_store(run: Path) -> Iterator[FrameStore]:
    """Yield the store of the sharp frames that a run was measured with, if it still exists."""
    try:
        test = read_options(ResultsFolder(run).options)["datasets"]["test"]
        root = Path(test["dataroot_gt"]).expanduser()
        ext, backend = test["filename_ext"], test["io_backend"]["type"]
        if root.exists():
            yield FrameStore(root, ext, backend=backend, filename_tmpl=test["filename_tmpl"], key="dataroot_gt")
    except (OSError, ValueError, KeyError, TypeError):  # the page omits them
        return


def _picture(pair: Pair, index: int, images: Sequence[np.ndarray], sharp: np.ndarray | None, metric: str) -> Picture:
    a, b = images
    clip, frame = pair.clip, pair.frames[index]
    if a.shape != b.shape:
        sizes = " and ".join(f"{image.shape[0]}x{image.shape[1]}" for image in images)
        raise UserError(f"clip {clip} frame {frame}: has {sizes} pixels in the two runs; compare tests of one data set")
    unit = " dB" if "psnr" in metric else ""
    values = [f"{page_template.number(float(of[index]), metric)}{unit}" for of in (pair.a, pair.b)]
    shown = {f"A  {values[0]}": a, f"B  {values[1]}": b} | _difference(a, b)
    if sharp is not None and sharp.shape == a.shape:
        shown["sharp"] = sharp
    box = page_template.largest_box(np.abs(a.astype(np.int16) - b).sum(axis=2))
    return {
        "clip": clip,
        "frame": frame,
        "note": f"{signed(float(pair.gains[index]), metric)}{unit}",
        "box": page_template.outline(box, a.shape),
        "images": {label: page_template.picture_uri(image) for label, image in shown.items()},
        "crops": {label: page_template.crop_uri(image, box) for label, image in shown.items()},
    }


def _difference(a: np.ndarray, b: np.ndarray) -> dict[str, np.ndarray]:
    """Return the colours of |A - B| as in `error_map`, on a scale that fits the two, under a label with the scale."""
    most = float(np.abs(a.astype(np.int16) - b).mean(axis=2).max())
    white = 2.0 ** max(math.ceil(math.log2(max(most, 1))), 0)
    times = np.float32(metric_files.ERROR_AT_WHITE / white)
    return {f"|A - B|, 0 to {white:.0f} of 255": metric_files.error_map(a * times, b * times)}


def _name(folder: Path, other: Path) -> str:
    """Return the short name of a run, or its path if the other run has the same name."""
    name = folder.resolve().name
    return name if name != other.resolve().name else str(folder)


def compare(args: argparse.Namespace) -> None:
    """Compare two runs according to the command line."""
    runs = [read_run(folder, args.metric) for folder in args.runs]
    pairs = paired(runs[0], runs[1], args.common)
    summary = summarize(pairs, args.metric)
    for letter, run in zip("AB", runs, strict=True):
        print(f"{letter}: {run.folder}")
    print(f"\n{table(pairs, summary, args.metric)}\n")
    print("\n".join(statements(summary, args.metric)))
    out = args.out or ResultsFolder(args.runs[1]).difference
    text = page(pairs, summary, runs, args.metric)
    try:
        write_text(out, text)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror}); choose another file with --out") from None
    print(f"page: {out}")


def main(argv: list[str] | None = None) -> None:
    """Read the command line, compare, print the table and write the page."""
    args = make_parser().parse_args(argv)
    with utils_cli.program(args.debug, args.quiet):
        compare(args)


if __name__ == "__main__":
    main()
