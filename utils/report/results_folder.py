"""The folder of a test's results: frames that are written as they come, and that a later call can go on from."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from utils import __version__, utils_dist, utils_file, utils_image, utils_video
from utils.checkpoint.option_changes import changes
from utils.evaluation.clip import Clip, Frame, TestSet
from utils.processes import folder_lock
from utils.utils_dist import Dist
from utils.utils_error import UserError
from utils.utils_file import read_text, safe_name, write_text

RECORD = "run.json"
# Changes nothing where the names of the frames are the same: of two files that would be one frame none is taken.
ANY_IMAGE = ("data.filename_ext", None)
SUFFIXES = {"h264": ".mp4", "lossless": ".mkv"}
OTHER_NAME = "choose another name with --set val.task_name=NAME"
USUAL_RATE = Fraction(25)  # frames a second of clips that are folders of images
# What a test writes besides the frames, and what is made of them.
OURS = ("metrics.json", "metrics.csv", "report.html", "compare.html", "comparison.png", "comparison.mp4")


class ResultsError(RuntimeError):
    """Results that could not be written; one line with file and reason. What was written before is still there."""


def check_writable(folder: Path) -> None:
    """Find out before any work whether results can be written.

    Raises:
        UserError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"-")
    except OSError as error:
        raise _unwritable(folder, error) from None


def own(folder: Path) -> folder_lock.Lock:
    """Make a folder this test's alone, until the lock is released.

    Raises:
        UserError: another test writes there, or the lock cannot be written.
    """
    try:
        return folder_lock.acquire(
            folder / folder_lock.NAME, f"{folder}: this folder of results", f"wait until it ends, or {OTHER_NAME}"
        )
    except OSError as error:
        raise _unwritable(folder, error) from None


def read_record(folder: Path) -> dict[str, Any]:
    """What the frames in a folder were restored with; empty if nothing is known.

    Raises:
        UserError: it names frames outside the folder.
    """
    try:
        record = json.loads(read_text(folder / RECORD))
        clips = {} if not isinstance(record, dict) else record.get("clips", {})
        paths = [*clips, *(f"{clip}/{name}" for clip, names in clips.items() for name in names)]
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
    for path in paths:
        safe_name(path, folder / RECORD)
    return record if isinstance(record, dict) else {}


def begin(folder: Path, record: Mapping[str, Any], test_set: TestSet) -> None:
    """Start anew: what an earlier call has left goes, and the record is written.

    Args:
        folder: of the results.
        record: all that the frames depend on, JSON values; "clips" has the names of all frames.
        test_set: the clips that will be restored.

    Raises:
        ResultsError: the folder cannot be written.
    """
    sweep(folder, test_set)
    with disk_errors_in_words(folder):
        for name in OURS:
            (folder / name).unlink(missing_ok=True)
        frames = {clip.name: clip.frames for clip in (test_set[index] for index in range(len(test_set)))}
        for made in (read_record(folder).get("clips", {}), frames):
            for clip, names in made.items():
                for suffix in SUFFIXES.values():
                    (folder / f"{clip}{suffix}").unlink(missing_ok=True)
                _remove(folder / clip, names)
        write_text(folder / RECORD, json.dumps({"version": __version__, **record}, indent=2) + "\n")


def check_apart(folder: Path, inputs: Mapping[str, str | None]) -> None:
    """Refuse to write results over what they are made of.

    Args:
        folder: of the results.
        inputs: option -> folder or file that is read.

    Raises:
        UserError: one lies in the folder.
    """
    for key, path in inputs.items():
        if path is not None and Path(path).resolve().is_relative_to(folder.resolve()):
            raise UserError(
                f"{key}: {path} lies in {folder}, where the results go; choose another name for these with --set "
                "val.task_name=NAME"
            )


def check_same(folder: Path, record: Mapping[str, Any]) -> bool:
    """Whether there are frames to go on from; they must have been restored as `record` says.

    Raises:
        UserError: they were restored otherwise, with what differs; or nothing says how.
    """
    before = read_record(folder)
    if not before:
        if any(
            frame_path_of(folder, clip, name).is_file() for clip, names in record["clips"].items() for name in names
        ):
            raise UserError(
                f"--resume: {folder} holds frames, but no {RECORD} that says how they were restored; leave out "
                "--resume to restore all again, or choose another name with --set val.task_name=NAME"
            )
        return False
    before.pop("version", None)  # another one goes on
    found = changes(before, json.loads(json.dumps(record)))
    differing = [str(change) for change in found if (change.key, change.new) != ANY_IMAGE]
    if differing:
        more = f" (and {len(differing) - 3} more)" if len(differing) > 3 else ""
        raise UserError(
            f"--resume: {folder} was restored otherwise: {'; '.join(differing[:3])}{more}; leave out --resume to "
            "restore all again, or choose another name with --set val.task_name=NAME"
        )
    return True


def frame_path(folder: Path, clip: Clip, index: int) -> Path:
    """Where `frame_writer` puts a frame."""
    return frame_path_of(folder, clip.name, clip.frames[index])


def frame_path_of(folder: Path, clip: str, frame: str) -> Path:
    """The same by the names of clip and frame."""
    return folder / clip / f"{frame}.png"


def frame_writer(folder: Path) -> Callable[[Frame], None]:
    """A watcher for `evaluate` that writes <folder>/<clip>/<frame>.png, unless the frame comes from there.

    It raises a ResultsError where that fails.
    """

    def write(frame: Frame) -> None:
        if frame.is_new:
            path = frame_path(folder, frame.clip, frame.index)
            with disk_errors_in_words(path):
                utils_image.write_rgb(path, frame.restored)

    return write


def existing_frames(folder: Path) -> Callable[[Clip, int], np.ndarray | None]:
    """For `evaluate`: the frames that `frame_writer` has written before; one that is damaged counts as absent."""

    def there(clip: Clip, index: int) -> np.ndarray | None:
        path = frame_path(folder, clip, index)
        try:
            return utils_image.read_rgb(path) if path.is_file() else None
        except UserError:
            return None

    return there


def write_videos(folder: Path, test_set: TestSet, output: Sequence[str], dist: Dist) -> None:
    """Make the videos that are wanted of the frames that were written; every process makes some of them.

    Args:
        folder: of the results; receives <clip>.mp4 (h264) and <clip>.mkv (lossless), with the times and the shape of
            pixels that the clip was recorded with.
        test_set: the clips.
        output: kinds of output, see `val.output`.
        dist: this process; all must call this once `evaluate` is done.
    """
    kinds = [kind for kind in output if kind in SUFFIXES]
    for number in range(dist.rank, len(test_set), dist.world_size) if kinds else ():
        clip = test_set[number]
        written = [index for index in range(len(clip.frames)) if frame_path(folder, clip, index).is_file()]
        shown = clip.playback.part(written)
        for kind in kinds:
            path = folder / f"{clip.name}{SUFFIXES[kind]}"
            with disk_errors_in_words(path):
                frames = (utils_image.read_rgb(frame_path(folder, clip, index)) for index in written)
                utils_video.write_video(
                    path, frames, shown.rate or USUAL_RATE, kind, times=shown.times, pixel_aspect=shown.pixel_aspect
                )
    utils_dist.gather_objects(dist, None)


def remove_frames(folder: Path, test_set: TestSet) -> None:
    """Remove the frames of a test set, of which there are videos now."""
    for clip in (test_set[index] for index in range(len(test_set))):
        _remove(folder / clip.name, clip.frames)


def _unwritable(folder: Path, error: OSError) -> UserError:
    return UserError(f"{folder}: {error.strerror or error}; results go there: make room or access, or {OTHER_NAME}")


def _remove(folder: Path, frames: Sequence[str]) -> None:
    """Remove frames, and their folder if nothing else is in it."""
    for frame in frames:
        (folder / f"{frame}.png").unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()
        folder.parent.rmdir()  # of a clip <outer>/<inner>; that of all results holds their record


def sweep(folder: Path, test_set: TestSet) -> None:
    """Remove half-written files that a killed run has left.

    Raises:
        ResultsError: one cannot be removed.
    """
    clips = (test_set[index].name for index in range(len(test_set)))
    for place in (folder, *(folder / clip for clip in clips)):
        with disk_errors_in_words(place):
            utils_file.sweep(place)


def count_existing(folder: Path, test_set: TestSet) -> tuple[int, int]:
    """How many frames of a test set are there, and how many it has."""
    clips = [test_set[index] for index in range(len(test_set))]
    there = sum(frame_path(folder, clip, index).is_file() for clip in clips for index in range(len(clip.frames)))
    return there, sum(len(clip.frames) for clip in clips)


@contextmanager
def disk_errors_in_words(path: Path) -> Iterator[None]:
    """Turn a disk that is full, read-only or gone into one line that says how to go on."""
    try:
        yield
    except OSError as error:
        parent = next(folder for folder in (path, *path.parents) if folder.is_dir())
        free = shutil.disk_usage(parent).free / 2**20
        raise ResultsError(
            f"{path}: {error.strerror or error}, {free:,.0f} MiB free; what was written before it is kept: make room "
            "and give the same command again, a test with --resume"
        ) from error
