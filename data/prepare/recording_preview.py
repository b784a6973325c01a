"""A picture of frames beside their spikes, which shows whether they belong together."""

from typing import NamedTuple

import numpy as np

from data.spike.planes import Span
from data.spike.representations import tfp, upsample
from utils.report.metric_files import side_by_side
from utils.utils_colour import linear_to_srgb, mean_gray, to_gray

_SHORT, _LEAST = 8, 11  # playback shows the exposure's length over 8, but at least 11 steps and a spike per pixel


class Shown(NamedTuple):
    """One frame of the picture.

    name: label. rgb: (r h, r w, 3) uint8. spikes: (t, h, w) uint8. exposure: [first, last) of them. center: the step of
    the sharp frame.
    """

    name: str
    rgb: np.ndarray
    spikes: np.ndarray
    exposure: Span
    center: int


def sheet(title: str, frames: list[Shown], *, is_linear: bool) -> np.ndarray:
    """Lay out one row per frame: frame, mean of its spikes over the exposure, both on top of each other, playback.

    In the third picture the frame is red and the spikes are cyan: gray where they agree, coloured edges where the
    cameras are not aligned or the times are wrong.

    Returns:
        (h, w, 3) uint8, RGB.
    """
    return np.concatenate([_row(title if at == 0 else "", shown, is_linear) for at, shown in enumerate(frames)])


def _row(title: str, shown: Shown, is_linear: bool) -> np.ndarray:
    first, last = shown.exposure
    mean = shown.spikes[first:last].mean(axis=0, dtype=np.float32)
    room = min(shown.center, len(shown.spikes) - 1 - shown.center)
    rate = float(mean.mean())
    wanted = max(_LEAST, (last - first) // _SHORT, round(1 / rate) if rate else 0)
    window = min(wanted, 2 * room + 1, last - first) - 1 | 1
    light = mean_gray(shown.rgb, is_linear=is_linear)
    gain = light / rate if rate else 1.0

    def gray(plane: np.ndarray) -> np.ndarray:
        seen = np.clip(plane * np.float32(gain), 0, 1)
        seen = linear_to_srgb(seen) if is_linear else seen
        return np.rint(255 * np.clip(upsample(seen, (shown.rgb.shape[0], shown.rgb.shape[1])), 0, 1)).astype(np.uint8)

    both = np.stack([to_gray(shown.rgb.astype(np.float32)), gray(mean), gray(mean)], axis=-1)
    pictures = {
        shown.name: shown.rgb,
        f"mean of its {last - first} steps": _rgb(gray(mean)),
        "frame red, spikes cyan": np.rint(both).astype(np.uint8),
        f"playback, {window} steps at step {shown.center}": _rgb(gray(tfp(shown.spikes, shown.center, window))),
    }
    return side_by_side(title, pictures)


def _rgb(plane: np.ndarray) -> np.ndarray:
    return np.repeat(plane[:, :, None], 3, axis=2)
