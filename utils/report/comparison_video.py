"""comparison.mp4 and comparison.png: input and result of a test side by side, written as frames arrive."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from utils import utils_dist, utils_image
from utils.evaluation.clip import Frame
from utils.report.metric_files import FRAMES_PER_SECOND, panels, side_by_side
from utils.report.results_folder import disk_errors_in_words
from utils.utils_dist import Dist
from utils.utils_file import temporary_path
from utils.utils_run_folder import ResultsFolder
from utils.utils_video import BACKGROUND, fit, video_writer

QUICK = [cv2.IMWRITE_PNG_COMPRESSION, 1]

Add = Callable[[np.ndarray], None]


@contextmanager
def comparison(folder: Path, dist: Dist) -> Iterator[Callable[[Frame], None]]:
    """Yield a watcher for `evaluate` that writes comparison.mp4 (all frames) and comparison.png (middle ones).

    Each process's frames follow those of the lower ranks. So rank 0 writes the video as its frames arrive; the others
    put their pictures into a file, which rank 0 appends at the end of the block. Both outputs are the same for any
    number of processes. All processes must end the block. Raises UserError if PyAV lacks the encoder or there are no
    frames, DiskError if the folder cannot be written.
    """
    results, spool = ResultsFolder(folder), temporary_path(folder / "comparison.rows")
    count = 0
    middle: dict[int, np.ndarray] = {}  # pictures of the middle frames, by position among this process's frames
    with growing_video(results.comparison_video) if dist.is_main else _spooled(spool) as add:

        def show(frame: Frame) -> None:
            nonlocal count
            pictures = panels(frame)
            if frame.sharp is None and frame.clip.has_gt:  # other frames of the clip have one, and all rows are as wide
                pictures["no sharp frame"] = np.full_like(frame.restored, BACKGROUND)
            row = side_by_side(f"{frame.clip.name}  {frame.name}", pictures)
            add(row)
            if frame.index == len(frame.clip.frames) // 2:
                middle[count] = row if dist.is_main else row[:0]
            count += 1

        yield show
        others = utils_dist.gather_objects(dist, (spool, count, list(middle)))[1:]
        rows = list(middle.values())
        for path, number, places in others if dist.is_main else ():
            for place, row in enumerate(_read_spool(path, number)):
                add(row)
                rows += [row] * (place in places)
        utils_dist.gather_objects(dist, None)  # the files of the others are needed until here
    if dist.is_main:
        with disk_errors_in_words(folder):
            width = max(row.shape[1] for row in rows)
            picture = np.concatenate([fit(row, (row.shape[0], width)) for row in rows])
            utils_image.write_rgb(results.comparison_picture, picture)


@contextmanager
def growing_video(path: Path) -> Iterator[Add]:
    """Yield a function that adds a picture to a video; the file appears when the block ends without an error."""
    with ExitStack() as stack:
        with disk_errors_in_words(path):
            add = stack.enter_context(video_writer(path, FRAMES_PER_SECOND))

        def add_picture(picture: np.ndarray) -> None:
            with disk_errors_in_words(path):
                add(picture)

        yield add_picture
        with disk_errors_in_words(path):
            stack.close()


@contextmanager
def _spooled(path: Path) -> Iterator[Add]:
    """Yield a function that appends a picture to a file; the file is removed at the end of the block."""

    def add(picture: np.ndarray) -> None:
        # Closed each time, so that processes on other machines see it.
        with disk_errors_in_words(path), path.open("ab") as file:
            np.save(file, cv2.imencode(".png", picture, QUICK)[1])

    try:
        yield add
    finally:
        path.unlink(missing_ok=True)


def _read_spool(path: Path, count: int) -> Iterator[np.ndarray]:
    """Yield the pictures of another process's file, (H, W, 3) uint8."""
    if count:
        with disk_errors_in_words(path), path.open("rb") as file:
            for _ in range(count):
                row: Any = cv2.imdecode(np.load(file), cv2.IMREAD_COLOR)
                yield row
