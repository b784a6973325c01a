"""instants.png: one blurred frame per clip and what a test made of it, instant by instant."""

from pathlib import Path

import numpy as np

from utils import utils_image
from utils.evaluation.clip import Clip, TestSet
from utils.report.metric_files import side_by_side
from utils.report.results_folder import disk_errors_in_words, frame_path
from utils.utils_run_folder import ResultsFolder

CLIPS, INSTANTS = 3, 8  # most clips, and instants of each, shown
PIXELS = 1.5e6  # of all pictures together, so that the file stays below 5 MB
SMALLEST, LARGEST = 32, 480  # width of a picture


def write_instants(folder: Path, test_set: TestSet, count: int) -> None:
    """Write instants.png from the written frames: per clip the middle blurred frame and its instants, sharp ones below.

    Args:
        folder: folder of the results.
        test_set: the clips; each frame has `count` pictures in a row.
        count: instants per frame.
    """
    clips = [test_set[index] for index in range(min(CLIPS, len(test_set)))]
    shown = {clip.name: _shown(clip, count) for clip in clips}
    pictures = 2 * len(clips) * (1 + min(count, INSTANTS))
    tallest = max(clip.size[0] / clip.size[1] for clip in clips)
    width = int(max(min((PIXELS / pictures / tallest) ** 0.5, LARGEST), SMALLEST))
    rows = [row for clip in clips for row in _rows(folder, clip, shown[clip.name], width)]
    widest = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, 0), (0, widest - row.shape[1]), (0, 0))) for row in rows]
    with disk_errors_in_words(folder):
        utils_image.write_rgb(ResultsFolder(folder).instants, np.concatenate(rows))


def _shown(clip: Clip, count: int) -> list[int]:
    """Return the pictures of the middle blurred frame to show, evenly spaced in time."""
    first = len(clip.frames) // count // 2 * count
    return [first + round(at) for at in np.linspace(0, count - 1, min(count, INSTANTS))]


def _rows(folder: Path, clip: Clip, shown: list[int], width: int) -> list[np.ndarray]:
    blurred = {"blurred": utils_image.to_uint8(clip.lq(shown[0], shown[0] + 1)[0])}
    restored = {clip.frames[index]: utils_image.read_rgb(frame_path(folder, clip, index)) for index in shown}
    title = f"{clip.name}: restored from one blurred frame"
    widths = width // 2, width
    rows = [side_by_side(title, blurred | restored, widths)]
    sharp = {clip.frames[index]: clip.gt(index, index + 1) for index in shown} if clip.has_gt else {}
    below = {name: found[0] if len(found) else np.zeros_like(restored[name]) for name, found in sharp.items()}
    if any(len(found) for found in sharp.values()):
        rows.append(side_by_side("the same instants, sharp (black: none is known)", blurred | below, widths))
    return rows
