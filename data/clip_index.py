"""Which clips a data set has, which frames a clip has, and where a training sample starts."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from data.frame_order import by_number, frame_name, gaps, in_time, number_format
from data.lmdb_store import LmdbStore, is_lmdb
from data.video_index import index_of
from utils.utils_error import ProblemsError, UserError

logger = logging.getLogger("spikevrt")

LISTED = 20  # lines of one kind in the log at most
Clips = dict[str, tuple[str, ...]]  # clip name -> its frame names (no extension), in order

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v")
META_LINE = re.compile(r"(?P<clip>\S+)\s+(?P<count>[1-9]\d*)\s+\([^)]*\)(?:\s+(?P<start>\d+))?")


def raise_first(problems: Sequence[str]) -> None:
    """Raise one UserError for a list of problems: the first one and how many more there are."""
    if problems:
        raise ProblemsError(problems)


def existing_folder(path: Path | str | None, key: str) -> Path:
    """Return a folder, or a video file, that an option names.

    Raises:
        UserError: the option is null or the folder does not exist; names the option.
    """
    if path is None:
        raise UserError(f"{key}: is null, expected a folder; set it in the options")
    folder = Path(path).expanduser()
    if not folder.is_dir() and not is_video(folder):
        is_for_lmdb = folder.suffix == ".lmdb"
        create = "create it with --generate-lmdb" if is_for_lmdb else "prepare the data set first"
        kind = "folder" if is_for_lmdb else "folder or video"
        raise UserError(f"{key}: {folder} is no {kind}; correct the path or {create}")
    return folder


def frame_names(folder: Path, ext: str) -> tuple[str, ...]:
    """List the names, without extension, of the files `*.<ext>` in a folder, by the numbers in them."""
    return by_number(path.stem for path in folder.glob(f"*.{ext}") if not path.name.startswith("."))


def is_video(path: Path) -> bool:
    """Whether a path is a file that is named as a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()


def video_files(root: Path) -> dict[str, Path]:
    """Find the videos of a folder, or the one that root is, by the name of their clip; sorted.

    Raises:
        UserError: two are of one name.
    """
    if not root.is_dir():
        return {root.stem: root}
    found: dict[str, Path] = {}
    for path in sorted(path for path in root.iterdir() if is_video(path) and not path.name.startswith(".")):
        if path.stem in found:
            raise UserError(
                f"{root}: {found[path.stem].name} and {path.name} would both be clip {path.stem}; rename one"
            )
        found[path.stem] = path
    return found


def holds_videos(root: Path, ext: str) -> bool:
    """Whether the clips at a place are videos: root is one, or a folder of them. Beside clip folders they are no clips.

    Raises:
        UserError: it is a folder of videos and of frames; names one of each.
    """
    if not root.is_dir():
        return is_video(root)
    videos = [path for path in root.iterdir() if is_video(path)]
    if not videos or any(path.is_dir() and frame_names(path, ext) for path in root.iterdir()):
        return False
    frames = frame_names(root, ext)
    if frames:
        raise UserError(
            f"{root}: holds videos ({min(videos).name}) and frames ({frames[0]}.{ext}), expected one of the two; move "
            "one of them away"
        )
    return True


def image_extensions(folder: Path) -> list[str]:
    """List the image extensions (no dot) found in a folder or, where it holds no image, in its subfolders."""
    if not folder.is_dir():
        return []
    for files in (folder.iterdir(), folder.glob("*/*")):
        found = {path.suffix[1:] for path in files if path.suffix.lower() in IMAGE_SUFFIXES}
        if found:
            return sorted(found)
    return []


def read_meta_info(path: Path | str, filename_tmpl: str) -> Clips:
    """Read a meta info file: a line `clip count (h,w,c) start` per clip; without `start` frames count from 0.

    Args:
        path: the text file; blank lines are skipped.
        filename_tmpl: format of a frame number, e.g. "06d".

    Raises:
        UserError: the file is missing or empty, or a line has another form; names file and line.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"meta_info_file: {path} does not exist; correct the path or use null to scan the folders")
    clips: Clips = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        match = META_LINE.fullmatch(line.strip())
        if match is None or match["clip"] in clips:
            what = "is a second line for the same clip" if match else "is not `clip count (h,w,c) start`"
            raise UserError(f"{path} line {number}: '{line.strip()}' {what}; correct the line")
        start = int(match["start"] or 0)
        clips[match["clip"]] = tuple(
            frame_name(frame, filename_tmpl) for frame in range(start, start + int(match["count"]))
        )
    if not clips:
        raise UserError(f"{path}: names no clip, expected a line `clip count (h,w,c) start` per clip")
    return clips


def scan_clips(root: Path, ext: str, filename_tmpl: str = "06d") -> Clips:
    """Find the clips below a folder: its subfolders with frames or, if it holds frames itself, the folder.

    An LMDB has the clips that its meta_info.txt names; `ext` does not matter there. Where there are videos, each is a
    clip, and its frames have their numbers for names, as `filename_tmpl` writes them.

    Raises:
        UserError: no file `*.<ext>` at either place (says which images there are), or files at both; the LMDB or a
            video is damaged.
    """
    if is_lmdb(root):
        return {clip: in_time(names, f"clip {clip}: {root}") for clip, names in LmdbStore(root).clips().items()}
    if holds_videos(root, ext):
        counts = {clip: index_of(clip, path).count for clip, path in video_files(root).items()}
        number = number_format(filename_tmpl)
        return {clip: tuple(frame_name(at, number) for at in range(count)) for clip, count in counts.items()}
    own = frame_names(root, ext)
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    clips = {folder.name: names for folder in folders if (names := frame_names(folder, ext))}
    clips = {clip: in_time(names, f"clip {clip}: {root / clip}") for clip, names in clips.items()}
    if own and clips:
        raise UserError(
            f"{root}: holds frames ({own[0]}.{ext}) and clip folders ({next(iter(clips))}); move the frames away"
        )
    if own:
        clips = {root.resolve().name: in_time(own, str(root))}
    if not clips:
        found = ", ".join(image_extensions(root))
        advice = f"there are {found} files: set filename_ext" if found else "correct the path"
        raise UserError(f"{root}: no clip folders with *.{ext} frames; {advice}")
    return clips


def find_clips(root: Path, ext: str, meta_info_file: str | None, filename_tmpl: str) -> Clips:
    """Return the frames that a meta info file names or, where there is none, all that `scan_clips` finds."""
    return read_meta_info(meta_info_file, filename_tmpl) if meta_info_file else scan_clips(root, ext, filename_tmpl)


def warn_of_gaps(clips: Clips, root: Path) -> None:
    """Say, a line a clip, where frames seem to be missing between those of a clip; of many clips the first few."""
    lines = []
    for clip, frames in clips.items():
        if found := gaps(frames):
            before, after = found[0]
            more = f" and at {len(found) - 1} more places" * (len(found) > 1)
            lines.append(
                f"clip {clip}: in {root} frame {after} comes after {before}{more}; frames on both sides of a gap are "
                "not consecutive in time: restore those between, or make two clips of it"
            )
    for line in lines[:LISTED]:
        logger.warning(line)
    if len(lines) > LISTED:
        logger.warning("%s: %d more clips have gaps in the numbers of their frames", root, len(lines) - LISTED)


def count_windows(clip_length: int, num_frame: int, interval: int) -> int:
    """Count the frames of a clip at which `num_frame` frames can start that lie `interval` apart; 0 if it is short."""
    return max(clip_length - (num_frame - 1) * interval, 0)


def short_clips(clips: Clips, num_frame: int, interval: int) -> list[str]:
    """One line per clip that is too short for a sample of `num_frame` frames, each `interval` apart."""
    need = (num_frame - 1) * interval + 1
    return [
        f"clip {clip}: has {len(frames)} frames, num_frame {num_frame} with interval {interval} needs "
        f"{need}; lower num_frame or interval_list, or leave the clip out"
        for clip, frames in clips.items()
        if not count_windows(len(frames), num_frame, interval)
    ]
