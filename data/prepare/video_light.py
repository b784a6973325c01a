"""Frames and spikes of a data set from windows of a video's frames, and the light of every spike step."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Literal

import cv2
import numpy as np

from data.instants import step_of
from data.layout import Frame
from data.spike.interpolate import estimate_motion, in_between
from data.spike.manifest import ClipTiming
from data.spike.sensor_noise import Camera
from data.spike.simulator import integrate_and_fire
from utils.utils_colour import linear_to_srgb, srgb_to_linear, to_gray

Transfer = Literal["srgb", "linear"]
Interpolation = Literal["flow", "blend"]


@dataclass(frozen=True)
class Windows:
    """How source frames become spike steps, and a window of them becomes one frame of a data set.

    Attributes:
        steps_per_frame: spike steps from one source frame to the next.
        spike_scale: RGB pixels per spike pixel, along each axis.
        transfer: what the sensor integrates: RGB values, or the linear light that they encode.
        interpolation: light between source frames, "flow" or "blend".
        blur_frames: N, source frames per blurred frame, odd.
        theta: firing threshold: white fires every theta steps.
        subframes: store the light of each spike step.
        instants: how many of the other source frames are stored as sharp frames.
    """

    steps_per_frame: int = 8
    spike_scale: int = 2
    transfer: Transfer = "srgb"
    interpolation: Interpolation = "flow"
    blur_frames: int = 7
    theta: float = 2.0
    subframes: bool = False
    instants: int = 0

    def timing(self) -> ClipTiming:
        """Return the timing of a clip whose frames all have the full number of steps."""
        last = self.steps_per_frame * (self.blur_frames - 1)
        return ClipTiming(steps=self.steps_per_frame * self.blur_frames, exposure=(0, last + 1), sharp_step=last // 2)


def instants_of_window(settings: Windows) -> tuple[dict[float, int], list[int]]:
    """Choose the source frames that are stored as sharp frames at other instants.

    Returns:
        {fraction of the exposure, to a hundredth: source frame in the window}, and the source frames left out because a
        reader would take that fraction for another step.
    """
    others = [k for k in range(settings.blur_frames) if k != settings.blur_frames // 2]
    chosen = [others[round(at)] for at in np.linspace(0, len(others) - 1, settings.instants)]
    first, last = settings.timing().exposure
    named = {round(k / (settings.blur_frames - 1), 2): k for k in chosen}
    exact = {time: k for time, k in named.items() if step_of(first, last, time) == k * settings.steps_per_frame}
    return exact, [k for k in chosen if k not in exact.values()]


def center_crop(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Crop the central (H, W) of a frame (H', W', 3)."""
    top, left = (frame.shape[0] - size[0]) // 2, (frame.shape[1] - size[1]) // 2
    return frame[top : top + size[0], left : left + size[1]]


def to_light(frame: np.ndarray, transfer: Transfer) -> np.ndarray:
    """Convert uint8 RGB to float32 in [0, 1], the light that the sensor integrates."""
    light = frame.astype(np.float32) / 255
    return srgb_to_linear(light) if transfer == "linear" else light


def to_rgb(light: np.ndarray, transfer: Transfer) -> np.ndarray:
    """Convert light back to RGB, rounded to uint8."""
    encoded = linear_to_srgb(light) if transfer == "linear" else light
    return np.rint(np.clip(encoded, 0, 1) * 255).astype(np.uint8)


def gray_light(frame: np.ndarray, transfer: Transfer) -> np.ndarray:
    """Return a frame's gray light, (H, W) float32."""
    return to_gray(to_light(frame, transfer))


def window_light(frames: list[np.ndarray], settings: Windows, end: bool) -> np.ndarray:
    """Return the light on the spike sensor in every step from the first source frame to the last.

    Warping costs sharpness, so frames are warped before they are shrunk; for a cross-fade the order does not matter.

    Args:
        frames: n source frames (H, W, 3) uint8 RGB.
        settings: steps between frames.
        end: include the last frame's own step, because no window follows that starts with it.

    Returns:
        ((n-1) * steps_per_frame + end, h, w) float32.
    """
    height, width = (side // settings.spike_scale for side in frames[0].shape[:2])
    small = partial(cv2.resize, dsize=(width, height), interpolation=cv2.INTER_AREA)  # averages over each spike pixel
    lights = [gray_light(frame, settings.transfer) for frame in frames]
    grays = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    flow = settings.interpolation == "flow" and settings.steps_per_frame > 1
    steps: list[np.ndarray] = []
    for index in range(len(frames) - 1):
        motion = estimate_motion(*grays[index : index + 2]) if flow else None
        first, second = lights[index : index + 2]
        if motion is None:
            first, second = small(first), small(second)
        steps += map(small, in_between(first, second, settings.steps_per_frame, motion))
    return np.stack([*steps, small(lights[-1])] if end else steps)


def make_frames(
    source: Iterator[np.ndarray],
    size: tuple[int, int],
    settings: Windows,
    camera: Camera | None,
    rng: np.random.Generator,
) -> Iterator[Frame]:
    """Yield one frame per full window of source frames; two windows are in memory at a time.

    Args:
        source: (H', W', 3) uint8 RGB frames.
        size: (H, W) of the crop.
        settings: windows and steps.
        camera: the noisy camera; None for the ideal sensor.
        rng: draws the first charge and the noise of the steps.
    """
    charge, (instants, _) = None, instants_of_window(settings)
    crops = (center_crop(frame, size) for frame in source)
    window = list(islice(crops, settings.blur_frames))
    while len(window) == settings.blur_frames:
        following = list(islice(crops, settings.blur_frames))
        mean = np.mean([to_light(frame, settings.transfer) for frame in window], axis=0)
        light = window_light(window + following[:1], settings, end=not following)
        if camera is None:
            spikes, charge = integrate_and_fire(light, settings.theta, rng, charge)
        else:
            spikes, charge = camera.fire(light, rng, charge)
        yield Frame(
            to_rgb(mean, settings.transfer),
            window[len(window) // 2],
            spikes,
            to_rgb(light, settings.transfer) if settings.subframes else None,
            {time: window[k] for time, k in instants.items()},
        )
        window = following
