"""Recordings that become clips of a simulated data set: the frames of a video, or of a folder."""

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
from data.image_folders import clip_folders, image_files
from data.video.frames import VideoFrames
from utils.utils_error import UserError, say_once
from utils.utils_image import image_size, mapped, read_rgb, remark
from utils.utils_video import Playback, ratio

Span = tuple[int, int | None]  # frames [first, last) of a recording; None: to its end
WHOLE: Span = (0, None)
# GoPro's rate, taken for folders of frames, which have none of their own.
FRAMES_PER_SECOND = 240.0
# Steps from frame to frame are equal if they differ by no more than this part, and the rounding of times in seconds.
UNEQUAL, ROUNDING = Fraction(1, 10), Fraction(1, 1000)


@dataclass(frozen=True)
class Source:
    """One recording: the frames of a video or of a folder that --range leaves, and the clip that they become."""

    path: Path
    clip: str
    names: Sequence[str]
    read: Callable[[str], np.ndarray]  # (H, W, 3) uint8 RGB of a name
    frame_size: tuple[int, int]  # (H, W), pixels
    fps: float

    def frames(self) -> Iterator[np.ndarray]:
        """Yield the frames as (H, W, 3) uint8 RGB.

        Raises:
            UserError: a frame cannot be decoded or has another size.
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
    """Look at a video; the clip is named as the file, with the range where one is given.

    Raises:
        UserError: the file is missing, damaged or no video, it is interlaced or HDR, or its frame rate is unknown.
    """
    if path.is_dir():
        raise UserError(f"--video {path}: is a folder; give a video, or a folder of frames to --frames")
    if not path.is_file():
        raise UserError(f"{path}: no such file, expected a video; check --video")
    video = VideoFrames(path, as_light=True)
    names = sorted(video.names(path.stem), key=int)
    size, chosen = video.size(path.stem, names[0]), names[slice(*span)]
    shown = video.playback(path.stem, chosen)
    rate = fps or shown.rate
    if rate is None:
        raise UserError(f"{path}: does not say how many frames a second it has, expected a number; give it with --fps")
    warn_of_times(path, chosen, shown, float(rate))
    if shown.pixel_aspect != 1:
        say_once(f"{path}: its pixels are not square ({ratio(shown.pixel_aspect)}), but taken as square")
    return Source(path, clip_name(path.stem, span), chosen, partial(video.read, path.stem), size, float(rate))


def folder_source(path: Path, span: Span = WHOLE, fps: float | None = None) -> Source:
    """Look at a folder of frames; the clip is named as the folder, with the range where one is given.

    Raises:
        UserError: the folder is missing or has no frame, one is no image or of another size, or names tell no order.
    """
    if path.is_file():
        raise UserError(f"--frames {path}: is a file; give a folder of frames, or a video to --video")
    if not path.is_dir():
        raise UserError(f"{path}: no such folder, expected a folder of frames; check --frames")
    files = image_files(path, None)
    names = in_time(files, f"--frames {path}")
    if not names:
        clips = clip_folders(path, None)
        those = f"; its folders do, give those, as {path / clips[0]}" if clips else ", expected some; check --frames"
        raise UserError(f"{path}: has no frames{those}")
    warn_of_gaps({path.name: names}, path.parent)
    some = dict.fromkeys((names[0], names[len(names) // 2], names[-1]))
    if found := remark({files[name]: mapped(path / files[name]) for name in some}):
        say_once(f"--frames {path}: {found}")
    chosen = names[slice(*span)]
    size = image_size(path / files[names[0]])
    for name in chosen:
        if (other := image_size(path / files[name])) != size:
            found, wanted = ("x".join(map(str, sides)) for sides in (other, size))
            raise UserError(
                f"{path}: {files[name]} has {found} pixels, expected {wanted} as {files[names[0]]}; end --range before "
                "it"
            )
    return Source(
        path=path,
        clip=clip_name(path.resolve().name, span),
        names=chosen,
        read=lambda name: read_rgb(path / files[name]),
        frame_size=size,
        fps=fps or FRAMES_PER_SECOND,
    )


def clip_name(recording: str, span: Span) -> str:
    """Name the clip of a recording, with the range where one is given."""
    first, last = span
    suffix = "" if span == WHOLE else f"_{first:06d}" + ("" if last is None else f"_{last:06d}")
    return re.sub(r"[^\w-]+", "_", recording) + suffix


def warn_of_times(path: Path, names: Sequence[str], shown: Playback, fps: float) -> None:
    """Say so where the frames of a video do not follow each other in equal steps, as the spikes take them to do."""
    steps = [following - time for time, following in pairwise(shown.times or ())]
    if not steps:
        return
    usual = sorted(steps)[len(steps) // 2]
    other = max(steps, key=lambda step: abs(step - usual))
    if abs(other - usual) > UNEQUAL * usual + ROUNDING:
        at = steps.index(other)
        least, most, there, taken = (f"{1000 * float(step):.4g}" for step in (min(steps), max(steps), other, 1 / fps))
        say_once(
            f"{path}: has a variable frame rate, {least} to {most} ms from frame to frame ({there} from {names[at]} to "
            f"{names[at + 1]}), taken as {taken} ms throughout; leave such places out with --range, or make the steps "
            f"equal first: ffmpeg -i {path.name} -vf fps={fps:.4g} -c:v ffv1 {path.stem}_new.mkv"
        )
