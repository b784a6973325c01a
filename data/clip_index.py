"""Find the clips of a data set and their frames, and count the training windows."""

import logging
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from data.frame_order import follows, frame_name, gaps, in_time, number_format
from data.image_folders import VIDEO_SUFFIXES, ImageFolders, clip_folders, image_files
from data.lmdb_store import LmdbStore, is_lmdb
from data.meta_info import read_meta_info
from data.video.index import index_of
from options.schema_data import DatasetsOpt
from utils.utils_error import ProblemsError, UserError, counted, say_once
from utils.utils_file import own_name, own_path, printable

LOG = logging.getLogger("spikevrt")
T = TypeVar("T")

LISTED = 20  # most log lines of one kind
Clips = dict[str, tuple[str, ...]]  # clip name -> its frame names (no extension), in order


def raise_first(problems: Sequence[str]) -> None:
    """Raise one UserError for all problems, with the first one and the number of others, if there are any."""
    if problems:
        raise ProblemsError(problems)


def existing_folder(path: Path | str | None, key: str) -> Path:
    """Return the folder or video file that an option names.

    Raises:
        UserError: the option is null or the folder does not exist; names the option.
    """
    if path is None:
        raise UserError(f"{key}: is null, expected a folder; set it in the options")
    folder = Path(path).expanduser()
    if not folder.is_dir() and not is_video(folder):
        is_for_lmdb = folder.suffix == ".lmdb"
        create = "create it with --generate-lmdb" if is_for_lmdb else "prepare the data set first"
        if folder.is_file():
            create = "give the folder that holds it"
        elif (alike := own_path(Path(folder.anchor or "."), str(folder.relative_to(folder.anchor)))).exists():
            create = f"rename {alike}, which differs only in its Unicode form (as on macOS)"
        kind = "folder" if is_for_lmdb else "folder or video"
        raise UserError(f"{key}: {folder} is not a {kind}; correct the path or {create}")
    return folder


def check_folders(opt: DatasetsOpt) -> None:
    """Check that the folders of a run's data sets exist, before any slow work.

    Raises:
        UserError: some are missing; the log lists all of them.
    """
    problems = []
    for block, data in opt.sets.items():
        for key in ("dataroot_lq", "dataroot_gt", *("dataroot_spike",) * data.uses_spikes):
            if (path := getattr(data, key)) is not None:
                try:
                    existing_folder(path, f"datasets.{block}.{key}")
                except UserError as error:
                    problems.append(str(error))
    for problem in problems if len(problems) > 1 else ():
        LOG.error(problem)
    raise_first(problems)


def is_video(path: Path) -> bool:
    """Return whether a path is a file with a video suffix."""
    return path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()


def video_files(root: Path) -> dict[str, Path]:
    """Return {clip: video} of a folder, sorted, or of the single video `root`.

    Raises:
        UserError: two have the same stem, or one is a broken link.
    """
    if not root.is_dir():
        return {root.stem: root}
    found: dict[str, Path] = {}
    for path in _videos_in(root):
        if not path.is_file():
            raise UserError(f"{path}: is a broken link, expected a video; fix or remove the link")
        if path.stem in found:
            raise UserError(
                f"{root}: {found[path.stem].name} and {path.name} would both be clip {path.stem}; rename one"
            )
        found[path.stem] = path
    return found


def holds_videos(root: Path, ext: str | None) -> bool:
    """Return whether `root` is a video or a folder of videos. Videos beside clip folders do not count.

    Raises:
        UserError: the folder mixes videos and frames; names one of each.
    """
    if not root.is_dir():
        return is_video(root)
    videos = _videos_in(root)
    if not videos or clip_folders(root, ext):
        return False
    if frames := image_files(root, ext):
        raise UserError(
            f"{root}: holds videos ({videos[0].name}) and frames ({next(iter(frames.values()))}), expected only one of "
            "the two; move the other away"
        )
    return True


def _videos_in(root: Path) -> list[Path]:
    """List the visible files with a video suffix in a folder, sorted, including broken links."""
    named = (path for path in root.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir())
    return sorted(path for path in named if not path.name.startswith("."))


def scan_clips(root: Path, ext: str | None = None, filename_tmpl: str = "06d", key: str = "") -> Clips:
    """Find the clips below a folder, or the one clip that it is (see `ImageFolders`), with frames in time order.

    The clips of an LMDB are those of its meta_info.txt; `ext` is ignored. Each video is a clip whose frames are named
    by their numbers in the number format of `filename_tmpl`.

    Raises:
        UserError: there are no frames (says what was found), their names do not determine the order, or the LMDB or a
            video is damaged.
    """
    if is_lmdb(root):
        return {clip: in_time(names, f"clip {clip}: {root}") for clip, names in LmdbStore(root).clips().items()}
    if holds_videos(root, ext):
        if root.is_dir() and (others := clip_folders(root, None)):
            say_once(f"{root}: its videos are the clips; left out: {listed(others)} (not *.{ext})")
        counts = {clip: index_of(clip, path).count for clip, path in video_files(root).items()}
        number = number_format(filename_tmpl)
        return {clip: tuple(frame_name(at, number) for at in range(count)) for clip, count in counts.items()}
    return ImageFolders(root, ext, key).scan()


def find_clips(root: Path, ext: str | None, meta_info_file: str | None, filename_tmpl: str) -> Clips:
    """Return the frames that a meta info file names or, without one, all that `scan_clips` finds.

    If a line has no start and the clip has exactly that many consecutive frames not beginning at 0, these are used.
    Clips are named after their folders in root, even if the file uses another Unicode form.
    """
    if not meta_info_file:
        return scan_clips(root, ext, filename_tmpl, "dataroot_lq")
    lines = _by_own_names(read_meta_info(Path(meta_info_file).expanduser()), root, ext, meta_info_file)
    existing = _existing_frames(root, ext)
    clips, moved = {}, []
    for clip, (_, count, _, start) in lines.items():
        first = int(start or 0)
        clips[clip] = tuple(frame_name(number, filename_tmpl) for number in range(first, first + count))
        if start is None and clips[clip][0] not in (found := existing(clip)) and _is_run(found, count):
            clips[clip] = found
            moved.append(clip)
    if moved:
        more = f" and {counted(len(moved) - 1, 'more clip')}" if len(moved) > 1 else ""
        say_once(
            f"{meta_info_file}: has no start frame for {moved[0]}{more}; using the existing frames, "
            f"{clips[moved[0]][0]} to {clips[moved[0]][-1]}"
        )
    return clips


def _by_own_names(lines: dict[str, T], root: Path, ext: str | None, meta_info_file: str) -> dict[str, T]:
    """Rename clips as they are named in root; UserError if a name is not UTF-8 and there is no such clip."""
    if all(clip.isascii() for clip in lines):
        return lines
    if is_lmdb(root) or holds_videos(root, ext):
        there = LmdbStore(root).clips() if is_lmdb(root) else video_files(root)
        return {own_name(clip, there): line for clip, line in lines.items()}
    paths = {clip: own_path(root, clip) for clip in lines}
    wrong = next((clip for clip, path in paths.items() if printable(clip) != clip and not path.is_dir()), None)
    if wrong:
        raise UserError(
            f"{meta_info_file}: clip {printable(wrong)} is not UTF-8, and {root} has no such folder; save the file as "
            "UTF-8"
        )
    return {path.relative_to(root).as_posix(): lines[clip] for clip, path in paths.items()}


def _existing_frames(root: Path, ext: str | None) -> Callable[[str], tuple[str, ...]]:
    """Return a function that looks up the frames of a clip, sorted by number; empty if there is no such clip."""
    if is_lmdb(root):
        return LmdbStore(root).frames
    if holds_videos(root, ext):
        return lambda clip: ()
    folders = ImageFolders(root, ext, "dataroot_lq")
    return lambda clip: tuple(folders.files(clip)) if folders.folder(clip).is_dir() else ()


def _is_run(frames: Sequence[str], count: int) -> bool:
    return len(frames) == count and all(follows(*pair) for pair in pairwise(frames))


def listed(names: Iterable[str], most: int = 3) -> str:
    """Format the first few names and the number of others."""
    names = list(names)
    return ", ".join(names[:most]) + f" and {len(names) - most} more" * (len(names) > most)


def warn_of_gaps(clips: Clips, root: Path) -> None:
    """Warn, one line per clip, where frames seem to be missing."""
    lines = []
    for clip, frames in clips.items():
        if found := gaps(frames):
            before, after = found[0]
            more = f" and at {counted(len(found) - 1, 'more place')}" * (len(found) > 1)
            lines.append(
                f"clip {clip}: in {root} frame {after} comes after {before}{more}; frames on both sides of a gap are "
                "not consecutive in time; restore the missing ones, or split the clip there"
            )
    warn_each(lines)


def warn_each(lines: Sequence[str]) -> None:
    """Log warnings of one kind: the first LISTED and the number of others."""
    for line in lines[:LISTED]:
        LOG.warning(line)
    if len(lines) > LISTED:
        LOG.warning("... and %s with the same problem", counted(len(lines) - LISTED, "more clip"))


def count_windows(clip_length: int, num_frame: int, interval: int) -> int:
    """Count the windows of `num_frame` frames, `interval` apart, in a clip; 0 if it is too short."""
    return max(clip_length - (num_frame - 1) * interval, 0)


def short_clips(clips: Clips, num_frame: int, interval: int) -> list[str]:
    """Return one line per clip that is too short for a sample of `num_frame` frames, `interval` apart."""
    need = (num_frame - 1) * interval + 1
    return [
        f"clip {clip}: has {counted(len(frames), 'frame')}, num_frame {num_frame} with interval {interval} needs "
        f"{need}; lower num_frame or interval_list, or leave the clip out"
        for clip, frames in clips.items()
        if not count_windows(len(frames), num_frame, interval)
    ]
