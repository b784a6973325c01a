"""Results of a test for people: tables, metric files and side-by-side pictures."""

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from utils import __version__, utils_dist
from utils.evaluation.clip import Frame, TestSet
from utils.utils_dist import Dist
from utils.utils_error import counted
from utils.utils_file import printable, write_text
from utils.utils_json import finite
from utils.utils_logger import Run
from utils.utils_run_folder import ResultsFolder
from utils.utils_video import BACKGROUND

PANEL_WIDTHS = 320, 480
FRAMES_PER_SECOND = 12
GAP, BAND = 6, 30  # pixels between pictures, and of a line of text
ERROR_AT_WHITE = 32  # levels of 255
BOARD_CLIPS, BOARD_COLUMNS = 4, 3  # boards show pictures as small cards, in which one long row is a thin line
INK = (240, 240, 240)


def write_metrics(result: dict[str, Any], folder: Path) -> None:
    """Write metrics.json (version, means and clips) and metrics.csv (one row per frame) from a result of `evaluate`.

    Non-finite values (PSNR of equal images) become null in JSON and empty in CSV.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = {"version": __version__}
    content |= {key: finite(value) for key, value in result.items() if key != "frames"}
    write_text(ResultsFolder(folder).metrics, json.dumps(content, indent=2) + "\n")
    columns = list(dict.fromkeys(key for row in result["frames"] for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(finite(row) for row in result["frames"])
    write_text(ResultsFolder(folder).frame_metrics, text.getvalue())


def table(result: dict[str, Any]) -> str:
    """Text table of a result of `evaluate`: blurred, SDM, restored and gain per clip."""
    if "psnr" not in result["mean"]:
        means = ", ".join(f"{name} {value:.4f}" for name, value in result["mean"].items())
        return f"mean: {means}" if means else "no sharp frames to compare with"
    columns = [("lq_", "blurred"), ("sdm_", "SDM (no training)"), ("", "restored")]
    columns = [column for column in columns if column[0] + "psnr" in result["mean"]]
    rows = [["clip", *(title for _, title in columns), "gain"]]
    for name, values in [*result["clips"].items(), ("mean", result["mean"])]:
        gain = values.get("psnr", math.nan) - values.get("lq_psnr", math.nan)
        rows.append([name, *(_cell(values, prefix) for prefix, _ in columns), f"{gain:+.2f} dB"])
    return text_table(rows, [20] * len(columns) + [11])


def text_table(rows: Sequence[Sequence[str]], widths: Sequence[int], rule_before: int = 1) -> str:
    """Align rows of cells, the first to the left; a rule separates the last `rule_before` rows."""
    first = max(len(row[0]) for row in rows)
    lines = [f"{row[0]:<{first}}" + "".join(map(str.rjust, row[1:], widths)) for row in rows]
    lines.insert(-rule_before, "-" * len(lines[0]))
    return "\n".join(lines)


def protocol_table(result: dict[str, Any]) -> str:
    """Text table of a result by protocol: both means, with a star at the one that the protocol uses."""
    lines = [f"{'protocol':<12}{'mean of clips':>21}{'mean over frames':>21}"]
    for name, protocol in result["protocols"].items():
        stars = ("*", " ") if protocol["averaging"] == "clips" else (" ", "*")
        for suffix in ("", "_y"):
            means = [protocol["mean_of_clips"], protocol["mean_over_frames"]]
            if f"psnr{suffix}" in means[0]:
                cells = (f"{mean[f'psnr{suffix}']:.2f} dB / {mean[f'ssim{suffix}']:.4f}" for mean in means)
                columns = "".join(f"{cell:>19} {star}" for cell, star in zip(cells, stars, strict=True))
                lines.append(f"{name + suffix:<12}{columns}   {'' if suffix else protocol['description']}".rstrip())
    for name, count in result["equal_frames"].items():
        lines.append(f"{name} is infinite for {counted(count, 'frame')} equal to the sharp ones; means leave them out")
    return "\n".join(lines) if len(lines) > 1 else ""


def panels(frame: Frame) -> dict[str, np.ndarray]:
    """A frame's pictures, label with PSNR -> (H, W, 3) uint8 RGB: blurred, spikes, restored and sharp, as available."""
    metrics = frame.metrics
    decibels = {key: f"  {metrics[key]:.2f} dB" if key in metrics else "" for key in ("psnr", "lq_psnr")}
    pictures = {
        f"blurred{decibels['lq_psnr']}": frame.blurred,
        "spikes": frame.spikes,
        f"restored{decibels['psnr']}": frame.restored,
        "sharp": frame.sharp,
    }
    return {label: picture for label, picture in pictures.items() if picture is not None}


def error_map(restored: np.ndarray, sharp: np.ndarray) -> np.ndarray:
    """Colour map of the absolute difference of two (H, W, 3) uint8 images, averaged over channels: same shape, RGB.

    The scale is fixed: black is 0, the brightest colour ERROR_AT_WHITE of 255 levels or more.
    """
    error = np.abs(restored.astype(np.float32) - sharp).mean(axis=2)
    levels = np.clip(np.rint(error * (255 / ERROR_AT_WHITE)), 0, 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB))


def side_by_side(
    title: str, pictures: dict[str, np.ndarray], widths: tuple[int, int] = PANEL_WIDTHS, columns: int | None = None
) -> np.ndarray:
    """Pictures in one row, or in rows of `columns`, scaled to a width from widths[0] to about widths[1], with a title
    above the first row and a label above each picture."""
    scaled = [_to_panel_width(picture, widths) for picture in pictures.values()]
    height, width = (max(picture.shape[axis] for picture in scaled) for axis in (0, 1))
    font = ImageFont.load_default(size=18)
    columns = min(columns or len(scaled), len(scaled))
    tall = BAND + height + GAP
    canvas = Image.new("RGB", (columns * (width + GAP) + GAP, BAND + -(-len(scaled) // columns) * tall), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    draw.text((GAP + 2, BAND // 2), printable(title), INK, font, anchor="lm")
    for index, (label, picture) in enumerate(zip(pictures, scaled, strict=True)):
        left, top = GAP + index % columns * (width + GAP), BAND + index // columns * tall
        draw.text((left + 2, top + BAND // 2), label, INK, font, anchor="lm")
        canvas.paste(Image.fromarray(picture), (left, top + BAND))
    return np.asarray(canvas)


class BoardImages:
    """A watcher for `evaluate` that keeps one picture of each of the first clips, for a board.

    A picture shows the middle frame: blurred, spikes, restored, sharp and its `error_map`.
    """

    def __init__(self, test_set: TestSet, limit: int = BOARD_CLIPS) -> None:
        self._clips = [test_set[index].name for index in range(min(limit, len(test_set)))]
        self._rows: dict[str, np.ndarray] = {}

    def __call__(self, frame: Frame) -> None:
        """Keep the picture of a frame if it is wanted."""
        clip = frame.clip
        if clip.name not in self._clips or frame.index != len(clip.frames) // 2:
            return
        pictures = panels(frame)
        if frame.sharp is not None:
            pictures[f"mean error 0 .. {ERROR_AT_WHITE} of 255"] = error_map(frame.restored, frame.sharp)
        self._rows[clip.name] = side_by_side(f"{clip.name}  {frame.name}", pictures, columns=BOARD_COLUMNS)

    def show(self, run: Run, step: int, dist: Dist) -> None:
        """Show the pictures of all processes on the run's boards; every process must call this after `evaluate`."""
        rows = {name: row for part in utils_dist.gather_objects(dist, self._rows) for name, row in part.items()}
        for name in self._clips:
            if name in rows:
                run.image(step, f"test_pictures/{name}", rows[name])


def _to_panel_width(picture: np.ndarray, widths: tuple[int, int]) -> np.ndarray:
    height, width = picture.shape[:2]
    smallest, largest = widths
    if width > largest:
        return cv2.resize(picture, (largest, round(height * largest / width)), interpolation=cv2.INTER_AREA)
    times = -(-smallest // width)
    return np.repeat(np.repeat(picture, times, axis=0), times, axis=1)


def _cell(values: dict[str, float], prefix: str) -> str:
    if prefix + "psnr" not in values:
        return "-"
    similarity = f" / {values[prefix + 'ssim']:.4f}" if prefix + "ssim" in values else ""
    return f"{values[prefix + 'psnr']:.2f} dB{similarity}"
