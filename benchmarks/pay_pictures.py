"""The pictures of spikes_pay.py: PSNR by condition, three held-out clips by every method, and the worst crops."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import cv2
import numpy as np
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.utils_metric import psnr

Pictures = Mapping[str, np.ndarray]  # by method, (H, W, 3) uint8
CROP = 80  # pixels, the side of a part


def draw_plot(found: Mapping[str, Mapping[str, list[float]]], path: Path) -> None:
    """Draw PSNR by condition and method; bars reach from the lowest to the highest seed."""
    methods = list(dict.fromkeys(method for values in found.values() for method in values))
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for number, method in enumerate(methods):
        points = [(at, values[method]) for at, values in enumerate(found.values()) if method in values]
        means = [fmean(seeds) for _, seeds in points]
        bars = [[mean - min(seeds), max(seeds) - mean] for mean, (_, seeds) in zip(means, points, strict=True)]
        beside = (number - len(methods) / 2) * 0.07
        places = [at + beside for at, _ in points]
        axes.errorbar(places, means, np.transpose(bars), fmt="o", markersize=4, capsize=2, label=method)
    axes.set_xticks(range(len(found)), list(found), rotation=35, ha="right")
    axes.set(ylabel="PSNR, dB", ylim=(18, None))
    axes.grid(alpha=0.3, axis="y")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(path, dpi=110)


def draw_pictures(found: Mapping[str, Mapping[str, Pictures]], path: Path) -> None:
    """Show three clips, one per row: the one that gains least, one in the middle, the one that gains most.

    Args:
        found: pictures by method and clip; blurred and sharp ones among them. The first network's gain counts.
        path: the picture, PNG or JPEG by its ending.
    """
    clips, networks = _by_clip(found)
    ordered = sorted(
        clips.values(), key=lambda one: psnr(one[networks[0]], one["sharp"]) - psnr(one["blurred"], one["sharp"])
    )
    rows = [ordered[0], ordered[len(ordered) // 2], ordered[-1]]
    _draw_rows(rows, ["blurred", "SDM", *networks, "sharp"], path)


def draw_worst(found: Mapping[str, Mapping[str, Pictures]], path: Path) -> None:
    """Show the part of a clip that the first network restores worst, of the three clips where this is worst of all.

    Args:
        found: like draw_pictures.
        path: the picture, PNG or JPEG by its ending.
    """
    clips, (network, *_) = _by_clip(found)
    worst: list[tuple[float, Pictures]] = []
    for pictures in clips.values():
        errors = np.square(pictures[network].astype(np.float32) - pictures["sharp"]).mean(axis=2)
        means = cv2.blur(errors, (CROP, CROP))
        half = CROP // 2
        inside = means[half : means.shape[0] - half + 1, half : means.shape[1] - half + 1]  # by the crop's corner
        y, x = np.unravel_index(inside.argmax(), inside.shape)
        crop = {label: picture[y : y + CROP, x : x + CROP] for label, picture in pictures.items()}
        worst.append((float(inside.max()), crop))
    rows = [crop for _, crop in sorted(worst, key=lambda pair: -pair[0])[:3]]
    _draw_rows(rows, ["blurred", "SDM", network, "sharp"], path)


def _by_clip(found: Mapping[str, Mapping[str, Pictures]]) -> tuple[dict[str, dict[str, np.ndarray]], list[str]]:
    """Return the pictures by clip and label, and which labels are networks."""
    clips: dict[str, dict[str, np.ndarray]] = {}
    for by_clip in found.values():
        for clip, some in by_clip.items():
            clips.setdefault(clip, {}).update(some)
    networks = [label for label in next(iter(clips.values())) if label not in ("blurred", "SDM", "sharp")]
    return clips, networks


def _draw_rows(rows: Sequence[Pictures], columns: Sequence[str], path: Path) -> None:
    """Draw the pictures of each row with their PSNR."""
    height, width = rows[0]["sharp"].shape[:2]
    figure = Figure(figsize=(2.6 * len(columns), len(rows) * (2.6 * height / width + 0.3)), layout="constrained")
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for line, pictures in zip(grid, rows, strict=True):
        for axes, label in zip(line, columns, strict=True):
            axes.imshow(pictures[label])
            axes.set_axis_off()
            own = "" if label == "sharp" else f"  {psnr(pictures[label], pictures['sharp']):.1f} dB"
            axes.set_title(label + own, fontsize=9)
    figure.savefig(path, dpi=100)
