"""Measure a sensor's state from its spikes: rates, flicker, defective pixels, noise."""

from typing import Any

import cv2
import numpy as np

from data.spike.doctor.statistics import PATCH, between_pixel_spread, within_pixel_isi_cv
from data.spike.representations import tfi

_CHANCE = 0.01  # probability that any good pixel of the sensor is called defective
_HOT = 3.0  # times the brightest neighbour
_CLUSTER = 4  # pixels; a larger silent spot counts as a dark object, unless it is a whole row or column
_BRIGHTEST = 0.001  # of the pixels
_LISTED = 20


def health(spikes: np.ndarray) -> dict[str, Any]:
    """Measure rates, pixels and noise.

    Args:
        spikes: (T, H, W) uint8, 0 or 1, row 0 at the top.

    Returns:
        Plain numbers and lists: `rate` (spikes per step: mean, brightest pixels), `time` (variation of the mean rate,
        empty and full steps), `pixels` (dead and hot ones as (row, column)), `noise`, `tfi_undefined` (fraction).
    """
    steps = len(spikes)
    count = spikes.sum(axis=0, dtype=np.int32)
    brightest, some = cv2.blur(count.astype(np.float32) / steps, (3, 3)), max(1, int(_BRIGHTEST * count.size))
    top = np.partition(brightest.ravel(), -some)[-some:]
    dead, hot = defective_pixels(count)
    large = min(count.shape) >= PATCH
    undefined = tfi(spikes, steps // 2)[1]
    return {
        "rate": {"mean": float(count.mean() / steps), "brightest": float(top.mean())},
        "time": over_time(spikes),
        "pixels": {
            "dead": len(dead),
            "hot": len(hot),
            "dead_at": dead[:_LISTED].tolist(),
            "hot_at": hot[:_LISTED].tolist(),
        },
        "noise": {
            "between_pixels": _number(between_pixel_spread(spikes)) if large else None,
            "within_pixel": _number(within_pixel_isi_cv(spikes)),
        },
        "tfi_undefined": float(undefined.mean()),
    }


def over_time(spikes: np.ndarray) -> dict[str, Any]:
    """Measure how the sensor's mean rate varies from step to step.

    Returns:
        `spread` (standard deviation / mean), `slow_spread` (the same for the means of eighths of the stream: drift and
        slow flicker), the first `empty_steps` and `full_steps` that are not due to chance, and their counts `empty` and
        `full`.
    """
    pixels = spikes[0].size
    rate = spikes.reshape(len(spikes), -1).mean(axis=1, dtype=np.float64)
    mean = float(rate.mean())
    enough = -np.log(_CHANCE / len(spikes)) / pixels
    empty = np.flatnonzero((rate == 0) & (mean > enough))
    full = np.flatnonzero((rate == 1) & (1 - mean > enough))
    eighths = [float(part.mean()) for part in np.array_split(rate, min(8, len(rate)))]
    return {
        "spread": float(rate.std() / mean) if mean else 0.0,
        "slow_spread": float(np.std(eighths) / mean) if mean else 0.0,
        "empty_steps": empty[:_LISTED].tolist(),
        "full_steps": full[:_LISTED].tolist(),
        "empty": len(empty),
        "full": len(full),
    }


def defective_pixels(count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find dead and hot pixels. A dark pixel is not dead: a dead pixel's surroundings fire significantly often.

    A pixel is dead if it never fires and is in a spot of at most four such pixels whose whole border fires often, or in
    a fully silent row or column whose neighbours are not. A pixel is hot if it fires significantly more than three
    times as often as the brightest of its eight neighbours.

    Args:
        count: (H, W) int, spikes per pixel; H and W at least 3, else nothing is found.

    Returns:
        Dead and hot pixels, each (n, 2) int: row, column.
    """
    if min(count.shape) < 3:
        return np.empty((0, 2), np.int64), np.empty((0, 2), np.int64)
    often = -np.log(_CHANCE / count.size)
    silent = count == 0
    dead = _small_spots(silent, count, often) | _lines(silent, count, often) | _lines(silent.T, count.T, often).T
    ring = np.ones((3, 3), np.uint8)
    ring[1, 1] = 0
    brightest = cv2.dilate(count.astype(np.float32), ring, borderValue=0)
    hot = count - _HOT * brightest > often
    return np.argwhere(dead), np.argwhere(hot)


def _small_spots(silent: np.ndarray, count: np.ndarray, often: float) -> np.ndarray:
    """Mark silent spots of few pixels whose whole border fires often."""
    number, label, stats, _ = cv2.connectedComponentsWithStats(silent.astype(np.uint8), connectivity=8)
    around = np.where(silent, np.inf, count).astype(np.float32)
    weakest = cv2.erode(around, np.ones((3, 3), np.uint8), borderValue=float("inf"))
    border = np.full(number, np.inf)
    np.minimum.at(border, label.astype(np.intp).ravel(), weakest.ravel())
    is_dead = (stats[:, cv2.CC_STAT_AREA] <= _CLUSTER) & (border > often) & np.isfinite(border)
    is_dead[0] = False  # the background
    return is_dead[label]


def _lines(silent: np.ndarray, count: np.ndarray, often: float) -> np.ndarray:
    """Mark fully silent rows between rows that fire often."""
    rows = np.asarray(silent.all(axis=1))
    busy = np.pad(np.median(count, axis=1), 1, mode="edge") > often
    dead = rows & (busy[:-2] | np.pad(rows, (1, 0))[:-1]) & (busy[2:] | np.pad(rows, (0, 1))[1:])
    dead &= rows.sum() < len(rows) / 4
    return np.broadcast_to(dead[:, None], silent.shape) & silent


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
