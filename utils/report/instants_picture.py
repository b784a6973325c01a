"""One blurred frame per clip and what a test made of it, instant by instant: instants.png, and for report.html."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from utils import utils_image
from utils.evaluation.clip import Clip, TestSet
from utils.report import page_template
from utils.report.metric_files import BAND, GAP, side_by_side
from utils.report.results_folder import disk_errors_in_words, frame_path
from utils.utils_run_folder import ResultsFolder
from utils.utils_video import fit

CLIPS, INSTANTS = 3, 8  # most clips, and instants of each, shown
PIXELS = 1.5e6  # of all pictures together, so that the file stays below 5 MB
SMALLEST, LARGEST = 32, 480  # width of a picture
ASPECT = 16 / 9  # of the whole, about: a long strip cannot be looked at
PAGE_INSTANTS, PAGE_PIXELS = 16, 6e6  # the same on the page, whose JPEGs need fewer bytes


@dataclass(frozen=True)
class Moment:
    """The instants of one blurred frame, on the page."""

    clip: str  # name of its clip
    frame: str  # names of its first and last instant
    times: list[str]  # the instants, as fractions of the exposure
    tracks: dict[str, list[str]] = field(repr=False)  # label -> pictures as data URIs, one or one per instant


def moments(folder: Path, test_set: TestSet, times: Sequence[float]) -> list[Moment]:
    """The middle blurred frame of the first clips with its restored and, if all are known, sharp instants.

    The frames must have been written; each has a picture for each of `times`, in this order.
    """
    clips = _clips(test_set)
    width = _width(clips, len(clips) * (1 + 2 * min(len(times), PAGE_INSTANTS)), PAGE_PIXELS)

    def uris(images: Sequence[np.ndarray]) -> list[str]:
        return [page_template.picture_uri(image, largest=width) for image in images]

    found = []
    for clip in clips:
        shown = _shown(clip, len(times), PAGE_INSTANTS)
        tracks = {
            "blurred": uris([utils_image.to_uint8(clip.lq(shown[0], shown[0] + 1)[0])]),
            "restored": uris([utils_image.read_rgb(frame_path(folder, clip, index)) for index in shown]),
        }
        sharp = [image for index in shown for image in clip.gt(index, index + 1)] if clip.has_gt else []
        if len(sharp) == len(shown):
            tracks["sharp"] = uris(sharp)
        first, last = (clip.frames[index] for index in (shown[0], shown[-1]))
        labels = [f"{times[index % len(times)]:.2f}" for index in shown]
        found.append(Moment(clip.name, first if first == last else f"{first} to {last}", labels, tracks))
    return found


def write_instants(folder: Path, test_set: TestSet, count: int) -> None:
    """Write instants.png from the written frames: per clip the middle blurred frame and its instants, sharp ones below;
    in as many rows as bring the picture to about ASPECT.

    Each frame has `count` pictures in a row.
    """
    clips = _clips(test_set)
    width, most = _layout(clips, min(count, INSTANTS))
    rows = []
    for clip in clips:
        shown = _shown(clip, count, INSTANTS)
        step = most if clip.has_gt else len(shown)  # instants that have a row of sharp ones below
        for at in range(0, len(shown), step):
            rows += _rows(folder, clip, shown[at : at + step], width, 1 + most)
    widest = max(row.shape[1] for row in rows)
    rows = [fit(row, (row.shape[0], widest)) for row in rows]
    with disk_errors_in_words(folder):
        utils_image.write_rgb(ResultsFolder(folder).instants, np.concatenate(rows))


def _clips(test_set: TestSet) -> list[Clip]:
    return [test_set[index] for index in range(min(CLIPS, len(test_set)))]


def _width(clips: Sequence[Clip], pictures: int, pixels: float) -> int:
    """Width of a picture with which so many together have so many pixels."""
    tallest = max(clip.size[0] / clip.size[1] for clip in clips)
    return int(max(min((pixels / pictures / tallest) ** 0.5, LARGEST), SMALLEST))


def _layout(clips: Sequence[Clip], instants: int) -> tuple[int, int]:
    """Width of a picture, and how many instants stand in a row, for a whole of about ASPECT."""
    tallest = max(clip.size[0] / clip.size[1] for clip in clips)

    def layout(most: int) -> tuple[float, int, int]:
        columns = 1 + most
        with_sharp, without = 2 * math.ceil(instants / most), math.ceil((1 + instants) / columns)
        rows = sum(with_sharp if clip.has_gt else without for clip in clips)
        titles = sum(with_sharp if clip.has_gt else 1 for clip in clips)
        width = _width(clips, columns * rows, PIXELS)
        aspect = columns * (width + GAP) / (titles * BAND + rows * (BAND + width * tallest + GAP))
        return abs(math.log(aspect / ASPECT)), width, most

    _, width, most = min(layout(math.ceil(instants / rows)) for rows in range(1, instants + 1))
    return width, most


def _shown(clip: Clip, count: int, most: int) -> list[int]:
    """Return the pictures of the middle blurred frame to show, evenly spaced in time."""
    first = len(clip.frames) // count // 2 * count
    return [first + round(at) for at in np.linspace(0, count - 1, min(count, most))]


def _rows(folder: Path, clip: Clip, shown: list[int], width: int, columns: int) -> list[np.ndarray]:
    blurred = {"blurred": utils_image.to_uint8(clip.lq(shown[0], shown[0] + 1)[0])}
    restored = {clip.frames[index]: utils_image.read_rgb(frame_path(folder, clip, index)) for index in shown}
    title = f"{clip.name}: restored from one blurred frame"
    widths = width // 2, width
    rows = [side_by_side(title, blurred | restored, widths, columns)]
    sharp = {clip.frames[index]: clip.gt(index, index + 1) for index in shown} if clip.has_gt else {}
    below = {name: found[0] if len(found) else np.zeros_like(restored[name]) for name, found in sharp.items()}
    if any(len(found) for found in sharp.values()):
        rows.append(side_by_side("the same instants, sharp (black: none is known)", blurred | below, widths))
    return rows
