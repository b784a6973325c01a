"""Pictures and videos of spikes for visual inspection."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data.spike.representations import tfi, tfp
from utils.report.metric_files import FRAMES_PER_SECOND, side_by_side
from utils.utils_image import write_rgb
from utils.utils_progress import progress
from utils.utils_video import write_video

WINDOWS = 5, 21, 41
MOVIE_WINDOW = 21
_MOST_FRAMES = 300
_WHITE = 99.5  # percentile of the longest window's plane that is shown white


def contact_sheet(spikes: np.ndarray, center: int, title: str) -> np.ndarray:
    """Lay out one raw plane, playback at several windows, the interval picture and the mean, on one brightness scale.

    Args:
        spikes: (T, H, W) uint8, 0 or 1, row 0 at the top.
        center: the step shown by all pictures except the mean, in [0, T).
        title: heading.

    Returns:
        (h, w, 3) uint8, RGB.
    """
    room = min(center, len(spikes) - 1 - center)
    windows = sorted({min(window, 2 * room + 1) for window in WINDOWS})
    planes = {f"TFP {window} steps": tfp(spikes, center, window) for window in windows}
    white = white_of(planes[f"TFP {windows[-1]} steps"])
    interval, undefined = tfi(spikes, center)
    planes[f"TFI ({undefined.mean():.1%} undefined)"] = interval
    planes[f"mean of all {len(spikes)} steps"] = spikes.mean(axis=0, dtype=np.float32)
    pictures = {"spikes": gray(spikes[center], 1)} | {label: gray(plane, white) for label, plane in planes.items()}
    heading = f"{title}   step {center}   shown white: {white:.3f} spikes per step"
    return side_by_side(heading, pictures, columns=-(-len(pictures) // 2))


def movie(spikes: np.ndarray, title: str) -> Iterator[np.ndarray]:
    """Yield playback over time beside the raw spikes; long streams are sampled evenly.

    Args:
        spikes: (T, H, W) uint8, 0 or 1, row 0 at the top.
        title: heading.

    Yields:
        (h, w, 3) uint8, RGB.
    """
    window = min(MOVIE_WINDOW, (len(spikes) - 1) // 2 * 2 + 1)
    half = window // 2
    stop = len(spikes) - half
    centers = np.unique(np.linspace(half, stop - 1, min(_MOST_FRAMES, stop - half)).round().astype(int))
    white = white_of(tfp(spikes, int(centers[len(centers) // 2]), window))
    for center in progress(centers.tolist(), what=title):
        pictures = {
            f"TFP {window} steps": gray(tfp(spikes, center, window), white),
            "spikes": gray(spikes[center], 1),
        }
        yield side_by_side(f"{title}   step {center}", pictures)


def write_preview(path: Path, spikes: np.ndarray, center: int, title: str) -> None:
    """Write a contact sheet (.png or another image format) or a movie (.mp4) atomically.

    Raises:
        UserError: the suffix is not an image format.
    """
    if path.suffix.lower() == ".mp4":
        write_video(path, movie(spikes, title), FRAMES_PER_SECOND)
    else:
        write_rgb(path, contact_sheet(spikes, center, title))


def white_of(plane: np.ndarray) -> float:
    """Return the rate to show as white: that of the brightest pixels, ignoring a few outliers."""
    return float(np.percentile(plane, _WHITE)) or 1.0


def gray(plane: np.ndarray, white: float) -> np.ndarray:
    """Map a plane (H, W) to (H, W, 3) uint8: 0 to black, `white` to white."""
    shown = np.clip(plane.astype(np.float32) / white * 255, 0, 255).round().astype(np.uint8)
    return np.repeat(shown[:, :, None], 3, axis=2)
