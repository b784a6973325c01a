"""report.html: the results of a test on one page that opens offline."""

import importlib.metadata
import json
import math
import platform
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter, itemgetter
from typing import Any

import numpy as np
import torch
from markupsafe import Markup

from utils import utils_dist
from utils.evaluation.clip import Frame
from utils.report import metric_files, page_template
from utils.report.instants_picture import Moment
from utils.utils_dist import Dist
from utils.utils_progress import progress
from utils.utils_zoo import commit

PACKAGES = ("torch", "torchvision", "numpy", "opencv-python-headless", "scikit-image", "av")
SECRET = re.compile(r"(key|token|secret|password)\W*[=:].*", re.IGNORECASE | re.DOTALL)  # as in --set wandb_api_key=...
CURVES = 24  # most clips whose PSNR over time is plotted
_Rank = tuple[float, str, int]  # PSNR, clip, index: sort key of the pictures
REFERENCES = {"lq_": "input", "sdm_": "SDM"}


@dataclass(frozen=True)
class Picture:
    """One frame on the page: pictures and enlarged crops as data URIs, by label; `box` is CSS that outlines the crop.

    `index` is its position in the clip, `psnr` in dB or None without a sharp frame.
    """

    clip: str
    frame: str
    index: int
    psnr: float | None
    box: str
    images: dict[str, str] = field(repr=False)
    crops: dict[str, str] = field(repr=False)


class ReportImages:
    """A watcher for `evaluate` that keeps the `count` worst and best restored frames by PSNR.

    Of `count` clips without sharp frames it keeps the first, middle and last frame. Its memory does not grow with the
    test set, and the result of `gathered` does not depend on the number of processes.
    """

    def __init__(self, count: int = 3) -> None:
        self._count = count
        self._worst: list[_Rank] = []
        self._best: list[_Rank] = []
        self._plain: list[_Rank] = []
        self._pictures: dict[_Rank, Picture] = {}

    def __call__(self, frame: Frame) -> None:
        """Keep the pictures of a frame if it is among the worst or best so far."""
        rank = frame.metrics.get("psnr", math.nan), frame.clip.name, frame.index
        length = len(frame.clip.frames)
        if "psnr" in frame.metrics:
            self._worst = sorted([*self._worst, rank])[: self._count]
            self._best = sorted([*self._best, rank], reverse=True)[: self._count]
        elif frame.index in (0, length // 2, length - 1):
            self._plain = sorted([*self._plain, rank], key=itemgetter(1, 2))[: 3 * self._count]
        kept = [*self._worst, *self._best, *self._plain]
        if rank in kept:
            self._pictures[rank] = _picture(frame)
            self._pictures = {one: self._pictures[one] for one in kept}

    def gathered(self, dist: Dist) -> dict[str, list[Picture]]:
        """The pictures of all processes by heading, the same in each; every process must call this."""
        extremes = dict.fromkeys([*self._worst, *self._best])
        mine = [self._pictures[rank] for rank in extremes], [self._pictures[rank] for rank in self._plain]
        everybody = utils_dist.gather_objects(dist, mine)
        scored = sorted((picture for part, _ in everybody for picture in part), key=attrgetter("psnr", "clip", "index"))
        plain = sorted((picture for _, part in everybody for picture in part), key=attrgetter("clip", "index"))
        worst = scored[: self._count]
        best = scored[len(worst) :][-self._count :][::-1]
        return {"Worst frames": worst, "Best frames": best, "Restored frames": plain[: 3 * self._count]}


def report_page(
    result: Mapping[str, Any],
    pictures: Mapping[str, Sequence[Picture]],
    facts: Mapping[str, Any],
    instants: Sequence[Moment] = (),
) -> str:
    """The text of report.html.

    `result` is that of `evaluate`, `pictures` of `ReportImages.gathered`, `instants` of `instants_picture.moments`;
    `facts` has "title", "options" (JSON values without secrets) and "environment" (name -> text).
    """
    frames: dict[str, list[Mapping[str, Any]]] = {}
    for row in result["frames"]:
        frames.setdefault(row["clip"], []).append(row)
    mean = result["mean"]
    names = [name for name in mean if not name.startswith(tuple(REFERENCES))]
    rows = [
        {"clip": clip, "frames": len(frames[clip]), "metrics": metrics, "gain": _gain(metrics)}
        for clip, metrics in result["clips"].items()
    ]
    psnr = {clip: metrics["psnr"] for clip, metrics in result["clips"].items() if "psnr" in metrics}
    drawn = sorted(psnr, key=psnr.__getitem__)
    shown = [clip for clip in result["clips"] if clip in drawn[:CURVES]]
    return page_template.render(
        "report.html",
        title=facts["title"],
        clips=result["clips"],
        count=len(result["frames"]),
        headlines=_headlines(result),
        protocol_text=result["protocol"],
        equal_frames=result.get("equal_frames", {}),
        names=names,
        inputs=[prefix + name for prefix in REFERENCES for name in names[:2] if prefix + name in mean],
        gains="psnr" in mean and "lq_psnr" in mean,
        rows=rows,
        mean=mean,
        mean_gain=_gain(mean),
        curves={clip: Markup(_curves(frames[clip])) for clip in progress(shown, what="report", unit="clip")},
        not_drawn=max(len(drawn) - CURVES, 0),
        groups=pictures,
        instants=instants,
        environment=facts["environment"],
        options=json.dumps(facts["options"], indent=2, ensure_ascii=False),
    )


def environment() -> dict[str, str]:
    """The command, versions, device and commit that produced the numbers."""
    command = shlex.join(SECRET.sub(r"\1=HIDDEN", word) for word in sys.argv)  # can be run again; keys are hidden
    found = {"command": command, "python": f"{platform.python_version()} on {platform.system()}"}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    found["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {platform.machine()}"
    found["threads"] = str(torch.get_num_threads())
    if (version := commit()) is not None:
        found["commit"] = version
    return found


def _picture(frame: Frame) -> Picture:
    shown, sharp = metric_files.panels(frame), frame.sharp
    height, width = frame.restored.shape[:2]
    if sharp is not None:
        shown[f"error, 0 to {metric_files.ERROR_AT_WHITE} of 255"] = metric_files.error_map(frame.restored, sharp)
        box = page_template.largest_box(np.abs(frame.restored.astype(np.int16) - sharp).sum(axis=2))
    else:
        side = page_template.CROP
        box = max((height - side) // 2, 0), max((width - side) // 2, 0), min(side, height), min(side, width)
    images, crops = {}, {}
    for label, image in shown.items():
        scale = height / image.shape[0]  # the input of super-resolution is smaller
        top, left, rows, cols = (int(length / scale) for length in box)
        part = (top, left, max(rows, 1), max(cols, 1))
        images[label], crops[label] = page_template.picture_uri(image), page_template.crop_uri(image, part)
    outline = page_template.outline(box, (height, width))
    return Picture(frame.clip.name, frame.name, frame.index, frame.metrics.get("psnr"), outline, images, crops)


def _headlines(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The means by protocol, with the protocol's own averaging first; without protocols, one unnamed entry."""
    found = []
    for name, protocol in result.get("protocols", {}).items():
        means = [("mean of clips", protocol["mean_of_clips"]), ("mean over frames", protocol["mean_over_frames"])]
        own, other = means if protocol["averaging"] == "clips" else means[::-1]
        found.append({"name": name, "description": protocol["description"], "means": [own, other]})
    if not found and result["mean"]:
        means = [("mean of clips", result["mean"]), ("mean over frames", result.get("mean_over_frames", {}))]
        found.append({"name": "", "description": "", "means": means})
    return found


def _curves(rows: Sequence[Mapping[str, Any]]) -> str:
    labels = {"psnr": "restored"} | {f"{prefix}psnr": label for prefix, label in REFERENCES.items()}
    curves = {
        label: [row.get(key, math.nan) for row in rows]
        for key, label in labels.items()
        if any(key in row for row in rows)
    }
    return page_template.curve_svg(curves, "PSNR, dB")


def _gain(metrics: Mapping[str, float]) -> float | None:
    """PSNR gain over the input in dB; None if either is infinite or was not measured."""
    gain = metrics.get("psnr", math.nan) - metrics.get("lq_psnr", math.nan)
    return gain if math.isfinite(gain) else None
