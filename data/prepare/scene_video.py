"""Clips of a scene set from videos: parts of them, scaled down and cropped, with motion between their frames."""

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from data.layout import Frame
from data.prepare.photo_scene import FINEST, log_uniform
from data.prepare.recordings import Source
from data.prepare.video_light import Windows, make_frames

CUT = 30.0  # gray levels by which small pictures of neighbouring frames differ at a cut
COUNTS = 3, 5, 7, 9  # source frames per blurred frame
SMALL = 32, 18  # width and height of these pictures
TRIES = 12
LEAST_STEPS, MOST_STEPS = 6, 24  # spike steps from one source frame to the next


class Part(NamedTuple):
    """A part of a video: first source frame, windows of source frames, scale, and place of the crop in [0, 1]."""

    source: Source
    first: int
    windows: Windows
    scale: float
    place: tuple[float, float]


def draw_windows(exposure: int, theta: float, spike_scale: int, instants: int, rng: np.random.Generator) -> Windows:
    """Draw how many source frames make an exposure of about that many steps."""
    lengths = {count: round((exposure - 1) / (count - 1)) for count in COUNTS}
    count = int(rng.choice([one for one, steps in lengths.items() if LEAST_STEPS <= steps <= MOST_STEPS]))
    stored = min(instants, count - 1)
    return Windows(lengths[count], spike_scale, blur_frames=count, theta=theta, subframes=True, instants=stored)


def frames_needed(frames: int, blur_frames: int = max(COUNTS)) -> int:
    """Return the source frames of a clip of `frames` frames; one more follows the last window."""
    return frames * blur_frames + 1


def draw_part(source: Source, frames: int, windows: Windows, size: tuple[int, int], rng: np.random.Generator) -> Part:
    """Draw start, scale and place of a part of `frames` windows without a cut, of at least (H, W) pixels.

    If there are cuts everywhere, it is the last one tried.
    """
    needed = frames_needed(frames, windows.blur_frames)
    least = max(size[0] / source.frame_size[0], size[1] / source.frame_size[1])
    scale = log_uniform(rng, least, min(FINEST * least, 1.0)) if least < 1 else least
    place = float(rng.random()), float(rng.random())
    for _ in range(TRIES):
        first = int(rng.integers(max(len(source.names) - needed, 1)))
        if not _has_cut(source, first, needed):
            break
    return Part(source, first, windows, scale, place)


def _has_cut(source: Source, first: int, count: int) -> bool:
    names = source.names[first : first + count]
    small = [cv2.resize(source.read(name), SMALL, interpolation=cv2.INTER_AREA).astype(np.float32) for name in names]
    return any(float(np.abs(one - other).mean()) > CUT for one, other in zip(small, small[1:], strict=False))


def part_frames(part: Part, frames: int, size: tuple[int, int], rng: np.random.Generator) -> Iterator[Frame]:
    """Yield the frames of a clip of (H, W) pixels, made of a part; `rng` draws the first charge."""
    count = frames_needed(frames, part.windows.blur_frames)

    def crops() -> Iterator[np.ndarray]:
        for name in part.source.names[part.first : part.first + count]:
            picture = part.source.read(name)
            height, width = (max(round(part.scale * a), b) for a, b in zip(picture.shape, size, strict=False))
            small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
            top, left = round(part.place[0] * (height - size[0])), round(part.place[1] * (width - size[1]))
            yield np.ascontiguousarray(small[top : top + size[0], left : left + size[1]])

    yield from make_frames(crops(), size, part.windows, None, rng)
