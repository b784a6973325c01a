"""report.html: what a test has come to, on one page that opens offline."""

import functools
import heapq
import importlib.metadata
import json
import math
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from markupsafe import Markup

from utils import utils_dist, utils_page, utils_report
from utils.utils_clip import Frame
from utils.utils_dist import Dist
from utils.utils_file import write_text

PACKAGES = ("torch", "torchvision", "numpy", "opencv-python-headless", "scikit-image", "av")
PROJECT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Picture:
    """One frame on the page: pictures and enlarged parts of them as data URIs, by label.

    Attributes:
        clip: its clip.
        frame: its name.
        order: what it was kept for, the place in its clip, and the PSNR of frames with a sharp one.
        psnr: None without a sharp frame.
    """

    clip: str
    frame: str
    order: tuple[float, str, int]
    psnr: float | None
    images: dict[str, str] = field(repr=False)
    crops: dict[str, str] = field(repr=False)


class ReportImages:
    """A watcher for `evaluate` that keeps the frames that were restored worst and best by PSNR.

    Of clips without sharp frames it keeps the middle ones. What it holds does not depend on how much there is to see.

    Args:
        count: of the worst, and as many of the best.
    """

    def __init__(self, count: int = 3) -> None:
        self._count = count
        self._worst: list[tuple[_Descending, Frame]] = []
        self._best: list[tuple[_Ascending, Frame]] = []
        self._plain: list[Frame] = []

    def __call__(self, frame: Frame) -> None:
        """Keep a frame, if it is one of the extremes so far."""
        if "psnr" not in frame.metrics:
            if frame.index == len(frame.clip.frames) // 2 and len(self._plain) < self._count:
                self._plain.append(frame)
            return
        order = _order(frame)
        _keep(self._worst, (_Descending(order), frame), self._count)
        _keep(self._best, (_Ascending(order), frame), self._count)

    def gathered(self, dist: Dist) -> dict[str, list[Picture]]:
        """The pictures of all processes, the same in each, by heading; every process must call this."""
        kept = {id(frame): frame for _, frame in [*self._worst, *self._best]}
        mine = [_picture(frame) for frame in kept.values()], [_picture(frame) for frame in self._plain]
        everybody = utils_dist.gather_objects(dist, mine)
        scored = sorted((picture for part, _ in everybody for picture in part), key=lambda picture: picture.order)
        plain = sorted((picture for _, part in everybody for picture in part), key=lambda picture: picture.clip)
        worst = scored[: self._count]
        best = scored[len(worst) :][-self._count :][::-1]
        return {"Worst frames": worst, "Best frames": best, "Restored frames": plain[: self._count]}


@functools.total_ordering
@dataclass(frozen=True)
class _Ascending:
    order: tuple[float, str, int]

    def __lt__(self, other: "_Ascending") -> bool:
        return self.order < other.order


@functools.total_ordering
@dataclass(frozen=True)
class _Descending:
    order: tuple[float, str, int]

    def __lt__(self, other: "_Descending") -> bool:
        return self.order > other.order


def write_report(
    folder: Path, result: Mapping[str, Any], pictures: Mapping[str, Sequence[Picture]], facts: Mapping[str, Any]
) -> Path:
    """Write report.html, whole or not at all.

    Args:
        folder: of the results.
        result: of `evaluate`.
        pictures: of `ReportImages.gathered`.
        facts: "title", "options" (JSON values without secrets) and "environment" (name -> text).

    Returns:
        The file.
    """
    path = folder / "report.html"
    write_text(path, report_page(result, pictures, facts))
    return path


def report_page(result: Mapping[str, Any], pictures: Mapping[str, Sequence[Picture]], facts: Mapping[str, Any]) -> str:
    """The text of report.html; arguments as of `write_report`."""
    frames: dict[str, list[Mapping[str, Any]]] = {}
    for row in result["frames"]:
        frames.setdefault(row["clip"], []).append(row)
    mean = result["mean"]
    names = [name for name in mean if not name.startswith(("lq_", "sdm_"))]
    gains = "psnr" in mean and "lq_psnr" in mean
    rows = [
        {"clip": clip, "frames": len(frames[clip]), "metrics": metrics, "gain": _gain(metrics)}
        for clip, metrics in result["clips"].items()
    ]
    other = {"clips": "mean_over_frames", "frames": "mean_of_clips"}
    protocols = {
        name: {**protocol, "other": protocol[other[protocol["averaging"]]]}
        for name, protocol in result.get("protocols", {}).items()
    }
    return utils_page.render(
        "report.html",
        title=facts["title"],
        clips=result["clips"],
        count=len(result["frames"]),
        protocols=protocols,
        protocol_text=result["protocol"],
        equal_frames=result.get("equal_frames", {}),
        names=names,
        inputs=[name for name in ("lq_psnr", "lq_ssim", "sdm_psnr", "sdm_ssim") if name in mean],
        gains=gains,
        rows=rows,
        mean=mean,
        mean_gain=_gain(mean),
        curves={clip: Markup(_curves(of_clip)) for clip, of_clip in frames.items() if "psnr" in mean},
        groups=pictures,
        environment=facts["environment"],
        options=json.dumps(facts["options"], indent=2, ensure_ascii=False),
    )


def environment() -> dict[str, str]:
    """What the numbers were computed with."""
    found = {"command": " ".join(sys.argv), "python": f"{platform.python_version()} on {platform.system()}"}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    found["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {platform.machine()}"
    found["threads"] = str(torch.get_num_threads())
    git = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return found
    if commit.returncode == 0:
        found["commit"] = commit.stdout.strip()
    return found


def _order(frame: Frame) -> tuple[float, str, int]:
    return frame.metrics["psnr"], frame.clip.name, frame.index


def _keep(heap: list[Any], item: Any, count: int) -> None:
    """Keep the `count` largest items."""
    if len(heap) < count:
        heapq.heappush(heap, item)
    else:
        heapq.heappushpop(heap, item)


def _picture(frame: Frame) -> Picture:
    shown = utils_report.panels(frame.clip, frame.index, frame.restored, frame.metrics)
    sharp = utils_report.sharp_frame(frame.clip, frame.index)
    height, width = frame.restored.shape[:2]
    if sharp is not None:
        shown[f"error, 0 to {utils_report.ERROR_AT_WHITE} of 255"] = utils_report.error_map(frame.restored, sharp)
        box = utils_page.largest_box(np.abs(frame.restored.astype(np.int16) - sharp).sum(axis=2))
    else:
        side = utils_page.CROP
        box = max((height - side) // 2, 0), max((width - side) // 2, 0), min(side, height), min(side, width)
    images, crops = {}, {}
    for label, image in shown.items():
        scale = height / image.shape[0]  # the input of super-resolution is smaller
        top, left, rows, cols = (int(length / scale) for length in box)
        part = (top, left, max(rows, 1), max(cols, 1))
        images[label], crops[label] = utils_page.picture_uri(image, part), utils_page.crop_uri(image, part)
    psnr = frame.metrics.get("psnr")
    order = (math.nan if psnr is None else psnr, frame.clip.name, frame.index)
    return Picture(frame.clip.name, frame.name, order, psnr, images, crops)


def _curves(rows: Sequence[Mapping[str, Any]]) -> str:
    labels = {"psnr": "restored", "lq_psnr": "input", "sdm_psnr": "SDM"}
    curves = {
        label: [row.get(key, math.nan) for row in rows]
        for key, label in labels.items()
        if any(key in row for row in rows)
    }
    return utils_page.curve_svg(curves, "PSNR, dB")


def _gain(metrics: Mapping[str, float]) -> float:
    gain = metrics.get("psnr", math.nan) - metrics.get("lq_psnr", math.nan)
    return gain if math.isfinite(gain) else 0.0
