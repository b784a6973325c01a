"""The results folder of a test: frames are written as they arrive, and a later call can resume from them."""

import json
import logging
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from utils import __version__, utils_dist, utils_file, utils_image, utils_video
from utils.checkpoint.option_changes import changes
from utils.evaluation.clip import Clip, Frame, TestSet
from utils.processes import folder_lock, signals
from utils.utils_dist import Dist
from utils.utils_error import UserError, counted
from utils.utils_file import read_text, safe_name, write_text
from utils.utils_progress import progress
from utils.utils_run_folder import VIDEO_SUFFIXES, ResultsFolder
from utils.utils_tile_opt import TileOpt

LOG = logging.getLogger("spikevrt")

# Irrelevant if the frame names are the same: two files with the same frame name are refused anyway.
ANY_IMAGE = ("data.filename_ext", None)
OTHER_NAME = "choose another name with --set val.task_name=NAME"
NEEDED = f"results go there: free space or grant access, or {OTHER_NAME}"
KEPT = "earlier output is kept: free some space and run the same command again, a test with --resume"
USUAL_RATE = Fraction(25)  # frames per second of clips that are image folders


def check_writable(folder: Path) -> None:
    """Check that results can be written, before any work is done; UserError otherwise."""
    with utils_file.disk_errors_in_words(folder, NEEDED, kind=UserError):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"-")


def own(folder: Path) -> folder_lock.Lock:
    """Lock a results folder for this test; UserError if another test writes there, or the lock cannot be written."""
    with utils_file.disk_errors_in_words(folder, NEEDED, kind=UserError):
        return folder_lock.acquire(
            folder / folder_lock.NAME, f"{folder}: this results folder", f"wait until it ends, or {OTHER_NAME}"
        )


def read_record(folder: Path) -> dict[str, Any]:
    """Read how the frames in a folder were restored; empty if unknown. UserError if it names frames outside it."""
    path_of_record = ResultsFolder(folder).record
    try:
        record = json.loads(read_text(path_of_record))
        clips = {} if not isinstance(record, dict) else record.get("clips", {})
        paths = [*clips, *(f"{clip}/{name}" for clip, names in clips.items() for name in names)]
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
    for path in paths:
        safe_name(path, path_of_record)
    return record if isinstance(record, dict) else {}


def recorded_tile(folder: Path) -> TileOpt | None:
    """The tile of an interrupted test, which a resumed one must keep; None if unknown."""
    tile = read_record(folder).get("tile")
    return None if tile is None else TileOpt.from_json(tile)


def begin(folder: Path, record: Mapping[str, Any] | None, test_set: TestSet) -> None:
    """Start afresh: delete what an earlier call left, then write the record; DiskError if the folder cannot be written.

    `record` is everything that the frames depend on, JSON values; its "clips" lists all frame names. None: this test
    saves no frames; of frames and videos, those that the earlier record lists are deleted, and then the record itself;
    UserError if they are of an interrupted test.
    """
    if record is None:
        _check_finished(folder)
    sweep(folder, test_set)
    results = ResultsFolder(folder)
    with disk_errors_in_words(folder):
        for path in results.summaries:
            path.unlink(missing_ok=True)
        frames = {clip.name: clip.frames for clip in (test_set[index] for index in range(len(test_set)))}
        for made in (read_record(folder).get("clips", {}), {} if record is None else frames):
            for clip, names in made.items():
                for kind in VIDEO_SUFFIXES:
                    results.video(clip, kind).unlink(missing_ok=True)
                _remove(folder / clip, names)
        if record is None:
            results.record.unlink(missing_ok=True)
        else:
            write_text(results.record, json.dumps({"version": __version__, **record}, indent=2) + "\n")


def _check_finished(folder: Path) -> None:
    """Refuse a folder with frames that `--resume` could continue from."""
    results, clips = ResultsFolder(folder), read_record(folder).get("clips", {})
    paths = [results.frame(clip, name) for clip, names in clips.items() for name in names]
    existing = sum(path.is_file() for path in paths)
    if existing and not results.report.is_file():  # the report is written last
        raise UserError(
            f"{folder}: has {existing} of {counted(len(paths), 'frame')} of an interrupted test, which a test that "
            f"saves none would delete; continue that test with --resume, replace it with --save_result, or {OTHER_NAME}"
        )


def check_apart(folder: Path, inputs: Mapping[str, str | None]) -> None:
    """Refuse a results folder that contains an input; `inputs`: option -> input folder or file."""
    for key, path in inputs.items():
        if path is not None and Path(path).resolve().is_relative_to(folder.resolve()):
            raise UserError(
                f"{key}: {path} lies in {folder}, where the results go; choose another name for the results with --set "
                "val.task_name=NAME"
            )


def check_same(folder: Path, record: Mapping[str, Any]) -> bool:
    """Whether there are frames to resume from; they must have been restored as `record` says.

    Raises UserError if they were restored differently (names what differs), or it is unknown how.
    """
    before = read_record(folder)
    results = ResultsFolder(folder)
    if not before:
        if any(results.frame(clip, name).is_file() for clip, names in record["clips"].items() for name in names):
            raise UserError(
                f"--resume: {folder} has frames but no {results.record.name} that says how they were restored; leave "
                "out --resume to restore everything again, or choose another name with --set val.task_name=NAME"
            )
        return False
    before.pop("version", None)  # another one goes on
    found = changes(before, json.loads(json.dumps(record)))
    differing = [str(change) for change in found if (change.key, change.new) != ANY_IMAGE]
    if differing:
        more = f" (and {len(differing) - 3} more)" if len(differing) > 3 else ""
        raise UserError(
            f"--resume: {folder} was restored differently: {'; '.join(differing[:3])}{more}; leave out --resume to "
            "restore everything again, or choose another name with --set val.task_name=NAME"
        )
    return True


def frame_path(folder: Path, clip: Clip, index: int) -> Path:
    """File of a frame, as `frame_writer` writes it."""
    return ResultsFolder(folder).frame(clip.name, clip.frames[index])


def frame_writer(folder: Path) -> Callable[[Frame], None]:
    """A watcher for `evaluate` that writes new frames as <folder>/<clip>/<frame>.png; it raises DiskError."""

    def write(frame: Frame) -> None:
        if frame.is_new:
            path = frame_path(folder, frame.clip, frame.index)
            with disk_errors_in_words(path):
                utils_image.write_rgb(path, frame.restored)

    return write


def existing_frames(folder: Path) -> Callable[[Clip, int], np.ndarray | None]:
    """For `evaluate`: returns frames that `frame_writer` wrote earlier; a damaged one counts as absent."""

    def read(clip: Clip, index: int) -> np.ndarray | None:
        path = frame_path(folder, clip, index)
        try:
            return utils_image.read_rgb(path) if path.is_file() else None
        except UserError:
            return None

    return read


def write_videos(folder: Path, test_set: TestSet, output: Sequence[str], dist: Dist) -> None:
    """Make the videos that `output` (val.output) asks for from the written frames; the processes share the clips.

    <clip>.mp4 (h264) and <clip>.mkv (lossless) have the frame times and pixel shape of the recording. All processes
    must call this after `evaluate`.
    """
    kinds = [kind for kind in output if kind in VIDEO_SUFFIXES]
    for number in range(dist.rank, len(test_set), dist.world_size) if kinds else ():
        clip = test_set[number]
        written = [index for index in range(len(clip.frames)) if frame_path(folder, clip, index).is_file()]
        shown = clip.playback.part(written)
        for kind in kinds:
            path = ResultsFolder(folder).video(clip.name, kind)
            with disk_errors_in_words(path):
                reading = progress(written, what=path.name, show=dist.is_main)
                frames = (utils_image.read_rgb(frame_path(folder, clip, index)) for index in reading)
                utils_video.write_video(
                    path, frames, shown.rate or USUAL_RATE, kind, times=shown.times, pixel_aspect=shown.pixel_aspect
                )
    utils_dist.gather_objects(dist, None)


def remove_frames(folder: Path, test_set: TestSet) -> None:
    """Remove the frames of a test set once their videos exist."""
    for clip in (test_set[index] for index in range(len(test_set))):
        _remove(folder / clip.name, clip.frames)


def _remove(folder: Path, frames: Sequence[str]) -> None:
    """Remove frames, and their folder if it is then empty."""
    for frame in frames:
        (folder / f"{frame}.png").unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()
        folder.parent.rmdir()  # for a clip <outer>/<inner>; the results folder itself holds the record


def sweep(folder: Path, test_set: TestSet) -> None:
    """Remove half-written files of killed runs; DiskError if one cannot be removed."""
    with disk_errors_in_words(folder):
        utils_file.sweep(folder, *(folder / test_set[index].name for index in range(len(test_set))))


def count_existing(folder: Path, test_set: TestSet) -> tuple[int, int]:
    """Number of a test set's frames that exist in the folder, and number of all its frames."""
    clips = [test_set[index] for index in range(len(test_set))]
    existing = sum(frame_path(folder, clip, index).is_file() for clip in clips for index in range(len(clip.frames)))
    return existing, sum(len(clip.frames) for clip in clips)


def disk_errors_in_words(path: Path) -> AbstractContextManager[None]:
    """`utils_file.disk_errors_in_words` for the results of a test."""
    return utils_file.disk_errors_in_words(path, KEPT)


@contextmanager
def stoppable(folder: Path, test_set: TestSet, dist: Dist, *, is_saved: bool) -> Iterator[Callable[[], bool]]:
    """Yield `stop` for `evaluate`: a signal to one process ends all of them between tiles. Log how to resume.

    All processes must call this; `is_saved`: whether frames are written to the folder. Raises KeyboardInterrupt if
    Ctrl-C asked to stop, SystemExit with 128 + the signal's number if another signal or process did.
    """
    with signals.stop_on_signals() as request:
        try:
            yield lambda: utils_dist.any_asked(request.name is not None)
        except BaseException as error:
            by = f" by {request.name}" if request.name else ""
            if not is_saved:
                LOG.info("stopped%s; no frames were saved, so it cannot resume; --save_result saves them", by)
            elif dist.is_main:
                counts = count_existing(folder, test_set)
                LOG.info("stopped%s with %d of %d frames in %s; continue with --resume", by, *counts, folder)
            if not isinstance(error, signals.StoppedError):
                raise
            utils_dist.close()  # torchrun ends the other processes once one has ended
            code = 128 + signal.Signals[request.name or "SIGTERM"]
            raise (KeyboardInterrupt if request.name == "SIGINT" else SystemExit(code)) from None
