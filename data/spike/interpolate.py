"""Interpolate the light between two source frames by cross-fade or optical flow."""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np

FLOW_MIN_SIDE = 12  # pixels; OpenCV's flow refuses smaller pictures
NEIGHBOURHOOD = 9  # pixels; window over which the motion's error is averaged
GRAY_NOISE = 4.0  # squared gray levels (of 255); smaller differences are noise


class Motion(NamedTuple):
    """The motion between two pictures (H, W)."""

    forward: np.ndarray  # (H, W, 2) float32, x and y in pixels, from the first picture to the second
    backward: np.ndarray  # (H, W, 2) float32, likewise from the second to the first
    trust: np.ndarray  # (H, W) float32 in [0, 1]: 1 where the motion explains the pictures, 0 where it does not


def estimate_motion(first: np.ndarray, second: np.ndarray) -> Motion | None:
    """Estimate the motion between two pictures in both directions (DIS optical flow, Kroeger et al., ECCV 2016).

    Both are (H, W) uint8 gray; None if they are too small. Trust compares, around each pixel, how well each picture is
    predicted from the other with and without the motion. Occlusions, scene cuts and wrong matches thus fall back to the
    cross-fade.
    """
    if min(first.shape) < FLOW_MIN_SIDE:
        return None
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    there = np.asarray(flow.calc(first, second, None))  # type: ignore[call-overload]
    back = np.asarray(flow.calc(second, first, None))  # type: ignore[call-overload]
    a, b = first.astype(np.float32), second.astype(np.float32)
    moved = (_mean_square(a - _sample(b, there)) + _mean_square(b - _sample(a, back))) / 2
    still = _mean_square(a - b) + GRAY_NOISE
    return Motion(there, back, still / (still + moved))


def in_between(first: np.ndarray, second: np.ndarray, steps: int, motion: Motion | None) -> Iterator[np.ndarray]:
    """Yield the light at `steps` evenly spaced instants, from `first` on; the next one would be `second`.

    With a motion, both pictures are warped to each instant and averaged by nearness in time; the flow at that instant
    combines both directions as in Jiang et al., Super SloMo, CVPR 2018. Where the motion is not trusted, or without
    one, the result is a cross-fade. All pictures are (H, W) float32, within the range of the two.
    """
    for t in np.arange(steps, dtype=np.float32) / np.float32(steps):
        fade = (1 - t) * first + t * second
        if motion is None or t == 0:
            yield fade
            continue
        to_first = t * t * motion.backward - t * (1 - t) * motion.forward
        to_second = (1 - t) * (1 - t) * motion.forward - t * (1 - t) * motion.backward
        moved = (1 - t) * _sample(first, to_first) + t * _sample(second, to_second)
        yield fade + motion.trust * (moved - fade)


@cache
def _grid(height: int, width: int) -> np.ndarray:
    """Return (height, width, 2) float32, the x and y of each pixel."""
    return np.stack(np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)), axis=-1)


def _sample(picture: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Sample (H, W) where the flow points to; border pixels are repeated beyond the border."""
    place = _grid(*picture.shape) + flow
    moved = cv2.remap(picture, place, None, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    return np.asarray(moved)


def _mean_square(difference: np.ndarray) -> np.ndarray:
    """Return the mean square around each pixel."""
    return cv2.blur(difference * difference, (NEIGHBOURHOOD, NEIGHBOURHOOD))
