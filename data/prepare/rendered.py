"""Frames and spikes of a rendered scene: every spike step is rendered, so motion is exact."""

from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np

from data.instants import step_of
from data.layout import Frame
from data.spike.manifest import ClipTiming
from data.spike.simulator import integrate_and_fire
from utils.utils_colour import to_gray


def rendered_frames(
    render: Callable[[int], np.ndarray],
    timing: ClipTiming,
    frames: int,
    times: Sequence[float],
    spike_scale: int,
    theta: float,
    rng: np.random.Generator,
) -> Iterator[Frame]:
    """Yield the frames of a clip, whose spikes are one continuous stream.

    Args:
        render: returns the view at a step, (H, W, 3) uint8 RGB; H and W are multiples of `spike_scale`.
        timing: steps of each frame; the exposure begins with the first one.
        frames: number of frames.
        times: fractions of the exposure at which sharp frames are stored besides the usual one.
        spike_scale: RGB pixels per spike pixel, along each axis.
        theta: firing threshold, in white pixels x steps.
        rng: draws the first charge.
    """
    charge, exposure = None, timing.exposure[1]
    for first in range(0, frames * timing.steps, timing.steps):
        steps = [render(first + step) for step in range(timing.steps)]
        blurred = np.mean(steps[:exposure], axis=0, dtype=np.float32)
        size = steps[0].shape[1] // spike_scale, steps[0].shape[0] // spike_scale
        small = [cv2.resize(rgb.astype(np.float32), size, interpolation=cv2.INTER_AREA) for rgb in steps]
        gray = to_gray(np.stack(small))
        spikes, charge = integrate_and_fire(gray / np.float32(255), theta, rng, charge)
        instants = {time: steps[step_of(0, exposure, time)] for time in times}
        blurred = np.rint(blurred).astype(np.uint8)
        yield Frame(blurred, steps[timing.sharp_step], spikes, np.rint(gray).astype(np.uint8), instants)
