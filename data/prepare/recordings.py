"""Source recordings of a simulated data set: the frames of a video or folder."""

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from data.clip_index import warn_of_gaps
from data.frame_order import in_time
from data.geometry import size_text
from data.image_folders import clip_folders, image_files
from data.video.frames import VideoFrames
from utils.utils_error import UserError, say_once
from utils.utils_image import image_size, mapped, read_rgb, remark
from utils.utils_video import Playback, ratio

Span = tuple[int, int | None]  # frames [first, last) of a recording; None: to its end
WHOLE: Span = (0, None)
# GoPro's rate, the default for folders of frames.
FRAMES_PER_SECOND = 240.0
# Steps between frames are equal if they differ by at most this fraction plus the rounding of times in seconds.
UNEQUAL, ROUNDING = Fraction(1, 10), Fraction(1, 1000)


@dataclass(frozen=True)
class Source:
    """One recording: the frames of a video or folder within --range, and the clip that they become."""

    path: Path
    clip: str
    names: Sequence[str]
    read: Callable[[str], np.ndarray]  # (H, W, 3) uint8 RGB of a name
    frame_size: tuple[int, int]  # (H, W), pixels
    fps: float

    def frames(self) -> Iterator[np.ndarray]:
        """Yield the frames as (H, W, 3) uint8 RGB.

        Raises:
            UserError: a frame cannot be decoded or its size differs.
        """
        for name in self.names:
            frame = self.read(name)
            if frame.shape != (*self.frame_size, 3):
                raise UserError(
                    f"{self.path}: frame {name} is {frame.shape}, expected {(*self.frame_size, 3)}; end --range "
                    "before it"
                )
            yield frame


def video_source(path: Path, span: Span = WHOLE, fps: float | None = None) -> Source:
    """Open a video; the clip is named after the file and the range, if given.

    Raises:
        UserError: the file is missing, damaged, not a video, interlaced or HDR, or its frame rate is unknown.
    """
    if path.is_dir():
        raise UserError(f"--video {path}: is a folder; give a video, or use --frames for a folder of frames")
    if not path.is_file():
        raise UserError(f"{path}: no such file, expected a video; check the path")
    video = VideoFrames(path, as_light=True)
    names = sorted(video.names(path.stem), key=int)
    size, chosen = video.size(path.stem, names[0]), names[slice(*span)]
    shown = video.playback(path.stem, chosen)
    rate = fps or shown.rate
    if rate is None:
        raise UserError(f"{path}: has no frame rate, expected frames per second; give them with --fps")
    warn_of_times(path, chosen, shown, float(rate))
    if shown.pixel_aspect != 1:
        say_once(f"{path}: its pixels are not square ({ratio(shown.pixel_aspect)}), but treated as square")
    return Source(path, clip_name(path.stem, span), chosen, partial(video.read, path.stem), size, float(rate))


def folder_source(path: Path, span: Span = WHOLE, fps: float | None = None) -> Source:
    """Open a folder of frames; the clip is named after the folder and the range, if given.

    Raises:
        UserError: the folder is missing or empty, a file is not an image or differs in size, or the names do not
            determine the order.
    """
    if path.is_file():
        raise UserError(f"--frames {path}: is a file; give a folder of frames, or use --video for a video")
    if not path.is_dir():
        raise UserError(f"{path}: no such folder, expected a folder of frames; check --frames")
    files = image_files(path, None)
    names = in_time(files, f"--frames {path}")
    if not names:
        clips = clip_folders(path, None)
        advice = f"; give its subfolders, such as {path / clips[0]}" if clips else ", expected some; check --frames"
        raise UserError(f"{path}: has no frames{advice}")
    warn_of_gaps({path.name: names}, path.parent)
    some = dict.fromkeys((names[0], names[len(names) // 2], names[-1]))
    if found := remark({files[name]: mapped(path / files[name]) for name in some}):
        say_once(f"--frames {path}: {found}")
    chosen = names[slice(*span)]
    size = image_size(path / files[names[0]])
    for name in chosen:
        if (other := image_size(path / files[name])) != size:
            raise UserError(
                f"{path}: {files[name]} has {size_text(other)} pixels, expected {size_text(size)} like "
                f"{files[names[0]]}; end --range before it"
            )
    return Source(
        path=path,
        clip=clip_name(path.resolve().name, span),
        names=chosen,
        read=lambda name: read_rgb(path / files[name]),
        frame_size=size,
        fps=fps or FRAMES_PER_SECOND,
    )


def parse_range(text: str) -> Span:
    """Parse FIRST:LAST, both optional, LAST exclusive."""
    match = re.fullmatch(r"(\d*):(\d*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"'{text}' is not a range FIRST:LAST of frames, such as 0:200")
    return int(match[1] or 0), int(match[2]) if match[2] else None


def clip_name(recording: str, span: Span) -> str:
    """Return the name of a recording's clip, with the range if one is given."""
    first, last = span
    suffix = "" if span == WHOLE else f"_{first:06d}" + ("" if last is None else f"_{last:06d}")
    return re.sub(r"[^\w-]+", "_", recording) + suffix


def warn_of_times(path: Path, names: Sequence[str], shown: Playback, fps: float) -> None:
    """Warn if the frames of a video are not equally spaced in time, as the simulation assumes."""
    steps = [following - time for time, following in pairwise(shown.times or ())]
    if not steps:
        return
    usual = sorted(steps)[len(steps) // 2]
    other = max(steps, key=lambda step: abs(step - usual))
    if abs(other - usual) > UNEQUAL * usual + ROUNDING:
        at = steps.index(other)
        least, most, worst, taken = (f"{1000 * float(step):.4g}" for step in (min(steps), max(steps), other, 1 / fps))
        say_once(
            f"{path}: has a variable frame rate, {least} to {most} ms between frames ({worst} from {names[at]} to "
            f"{names[at + 1]}), treated as {taken} ms throughout; exclude such places with --range, or convert it to a "
            f"constant rate first: ffmpeg -i {path.name} -vf fps={fps:.4g} -c:v ffv1 {path.stem}_new.mkv"
        )
