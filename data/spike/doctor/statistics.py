"""Measure sensor noise from a stream: how regularly a pixel fires, and how much pixels differ."""

import cv2
import numpy as np

MIN_INTERVALS = 3  # pixels with fewer intervals are ignored
PATCH = 16  # pixels; side of the squares within which pixels are compared
# Second differences along both axes: zero on linear gradients, and preserving the variance of white noise.
_SECOND_DIFFERENCE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6


def within_pixel_isi_cv(spikes: np.ndarray) -> float:
    """Return how irregularly a pixel fires under steady light: temporal noise.

    Only for still scenes: motion varies the intervals, too. Intervals are whole steps, so even a noiseless pixel has
    some variation, least at long intervals.

    Args:
        spikes: (T, H, W) uint8, 0 or 1, row 0 at the top.

    Returns:
        Standard deviation / mean of the intervals between a pixel's spikes, median over all pixels with at least
        MIN_INTERVALS; NaN if there are none.
    """
    steps = len(spikes)
    fired = np.flatnonzero(np.ascontiguousarray(np.moveaxis(spikes, 0, -1)))  # pixel by pixel, in time order
    pixel = fired // steps
    same = pixel[1:] == pixel[:-1]
    interval, owner = np.diff(fired)[same], pixel[1:][same]
    pixels = spikes[0].size
    count = np.bincount(owner, minlength=pixels)
    enough = count >= MIN_INTERVALS
    if not enough.any():
        return float("nan")
    mean = np.bincount(owner, interval, pixels)[enough] / count[enough]
    square = np.bincount(owner, interval.astype(np.float64) ** 2, pixels)[enough] / count[enough]
    return float(np.median(np.sqrt(np.maximum(square - mean**2, 0)) / mean))


def interval_rate(spikes: np.ndarray) -> np.ndarray:
    """Return every pixel's rate from its mean interval, or from its count if it has fired less than twice.

    Args:
        spikes: (T, H, W) uint8, 0 or 1.

    Returns:
        (H, W) float32, spikes per step in [0, 1].
    """
    steps = len(spikes)
    count = spikes.sum(axis=0, dtype=np.int32)
    span = steps - 1 - spikes[::-1].argmax(axis=0) - spikes.argmax(axis=0)  # from the first spike to the last
    return np.where(count > 1, (count - 1) / np.maximum(span, 1), count / steps).astype(np.float32)


def between_pixel_spread(spikes: np.ndarray, rate: float | None = None) -> float:
    """Return how much neighbouring pixels under the same light differ: fixed-pattern noise.

    Each pixel's rate is compared with its neighbours' by second differences, which ignore shading (Immerkaer, Fast
    Noise Variance Estimation, 1996), relative to the mean rate of its patch; the median over patches ignores edges.

    Args:
        spikes: (T, H, W) uint8, 0 or 1, H and W at least PATCH; a still scene.
        rate: use only patches whose mean rate is within 15 % of it, in spikes per step; None uses all that fire.

    Returns:
        Standard deviation / mean of the rate among neighbours; NaN if no patch has that rate.
    """
    rates = interval_rate(spikes)
    noise = cv2.filter2D(rates, -1, _SECOND_DIFFERENCE)
    mean, square = _patch_mean(rates), _patch_mean(noise * noise)
    wanted = mean > 0 if rate is None else np.abs(mean / rate - 1) < 0.15
    if not wanted.any():
        return float("nan")
    return float(np.median(np.sqrt(square[wanted]) / mean[wanted]))


def _patch_mean(plane: np.ndarray) -> np.ndarray:
    """Return the means of whole patches of (H, W): (H // PATCH, W // PATCH)."""
    rows, columns = plane.shape[0] // PATCH, plane.shape[1] // PATCH
    patches = plane[: rows * PATCH, : columns * PATCH].reshape(rows, PATCH, columns, PATCH)
    return patches.mean(axis=(1, 3), dtype=np.float64)
