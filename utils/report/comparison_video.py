"""comparison.mp4 and comparison.png: what a test started from and came to, side by side, written as the frames come."""

import os
import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from utils import utils_dist, utils_image
from utils.evaluation.clip import Frame
from utils.report.metric_files import FRAMES_PER_SECOND, panels, side_by_side
from utils.report.results_folder import disk_errors_in_words
from utils.utils_dist import Dist
from utils.utils_video import fit, write_video

WAITING = 2  # pictures that the encoder may be behind
QUICK = [cv2.IMWRITE_PNG_COMPRESSION, 1]

Add = Callable[[np.ndarray], None]


@contextmanager
def comparison(folder: Path, dist: Dist) -> Iterator[Callable[[Frame], None]]:
    """Yield a watcher for `evaluate` that writes comparison.mp4 (all frames) and comparison.png (middle ones).

    The frames of a process come after those of the processes before it. So the first one writes the video as its
    frames come; the others lay their pictures aside in a file, which the first one adds at the end of the block.
    The two files are the same for any number of processes. All must end the block.

    Args:
        folder: of the results.
        dist: this process.

    Raises:
        UserError: PyAV lacks the encoder, or there is no frame.
        ResultsError: the folder cannot be written.
    """
    video, aside = folder / "comparison.mp4", folder / f".comparison.{os.getpid()}.tmp.rows"
    count = 0
    middle: dict[int, np.ndarray] = {}  # the pictures of the middle frames, by their place among all
    with growing_video(video) if dist.is_main else _laid_aside(aside) as add:

        def show(frame: Frame) -> None:
            nonlocal count
            row = side_by_side(f"{frame.clip.name}  {frame.name}", panels(frame))
            add(row)
            if frame.index == len(frame.clip.frames) // 2:
                middle[count] = row if dist.is_main else row[:0]
            count += 1

        yield show
        others = utils_dist.gather_objects(dist, (aside, count, list(middle)))[1:]
        rows = list(middle.values())
        for path, number, places in others if dist.is_main else ():
            for place, row in enumerate(_read_aside(path, number)):
                add(row)
                rows += [row] * (place in places)
        utils_dist.gather_objects(dist, None)  # until now what was laid aside is wanted
    if dist.is_main:
        with disk_errors_in_words(folder):
            utils_image.write_rgb(folder / "comparison.png", _stack(rows))


@contextmanager
def growing_video(path: Path) -> Iterator[Add]:
    """Yield a function that adds a picture to a video; the file is there when the block has ended without an error.

    Raises:
        UserError, ResultsError: what `write_video`, which runs in a thread, ended with.
    """
    pictures = _HandedOver()
    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(write_video, path, pictures.taken(), FRAMES_PER_SECOND)

        def add(picture: np.ndarray | None) -> None:
            pictures.put(picture, unless=written.done)
            if picture is None or written.done():  # before its end only by an error
                with disk_errors_in_words(path):
                    written.result()

        try:
            yield add
            add(None)
        except BaseException:
            pictures.given_up = True
            raise


class _HandedOver:
    """Pictures that one thread hands over and another takes; neither waits for ever once the other has gone."""

    def __init__(self) -> None:
        self.given_up = False
        self._waiting: queue.Queue[np.ndarray | None] = queue.Queue(WAITING)

    def put(self, picture: np.ndarray | None, unless: Callable[[], bool]) -> None:
        """Hand over a picture, or None as the end."""
        while not unless():
            try:
                return self._waiting.put(picture, timeout=0.1)
            except queue.Full:
                continue
        return None

    def taken(self) -> Iterator[np.ndarray]:
        """Take what is handed over, until the end."""
        while not self.given_up:
            try:
                picture = self._waiting.get(timeout=0.5)
            except queue.Empty:
                continue
            if picture is None:
                return
            yield picture
        raise InterruptedError("given up")


@contextmanager
def _laid_aside(path: Path) -> Iterator[Add]:
    """Yield a function that adds a picture to a file, which is there as long as the block lasts."""

    def add(picture: np.ndarray) -> None:
        with (
            disk_errors_in_words(path),
            path.open("ab") as file,
        ):  # closed each time, so that processes elsewhere see it
            np.save(file, cv2.imencode(".png", picture, QUICK)[1])

    try:
        yield add
    finally:
        path.unlink(missing_ok=True)


def _read_aside(path: Path, count: int) -> Iterator[np.ndarray]:
    """The pictures that were laid aside, (H, W, 3) uint8, one at a time."""
    if count:
        with disk_errors_in_words(path), path.open("rb") as file:
            for _ in range(count):
                row: Any = cv2.imdecode(np.load(file), cv2.IMREAD_COLOR)
                yield row


def _stack(rows: Sequence[np.ndarray]) -> np.ndarray:
    width = max(row.shape[1] for row in rows)
    return np.concatenate([fit(row, (row.shape[0], width)) for row in rows])
