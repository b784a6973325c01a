"""The planes of one frame: from the steps that a representation reads to what a network takes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data.geometry import Box
from data.spike.alignment import Warp
from data.spike.planes import Representation, Span, StepWindow
from data.spike.representations import sharpened
from options.schema_data import EXPOSURE_PLANES
from utils.utils_colour import linear_to_srgb, srgb_to_linear, to_gray

# Where pixels are interpolated, planes are parts of the largest possible count, int8: 70 is all of it, since sums
# of the kernel reach from -0.5 to 1.7. The exposure's are two planes of 7 bits each.
FINE, VERY_FINE, DIGIT = 70, 8960, 128


class FramePlanes(NamedTuple):
    """The planes of one frame.

    planes: (S, h, w) on the frame's spike grid, float32, counts (uint8) or parts of counts (int8); of a ratio (S, H, W)
        on the RGB grid.
    scale: (S,) float32, the intensity that one count means (white is 1); None: planes are intensities.
    """

    planes: np.ndarray
    scale: np.ndarray | None = None


def stacked(frames: Sequence[FramePlanes]) -> FramePlanes:
    """Stack the planes of T frames: planes (T, S, ...), scale (T, S) or None."""
    scales = [each.scale for each in frames if each.scale is not None]
    return FramePlanes(np.stack([each.planes for each in frames]), np.stack(scales) if scales else None)


class PlaneMaker(NamedTuple):
    """Makes the planes of a clip's frames."""

    represent: Representation
    channels: int  # S, planes per frame
    window: int  # steps of all planes together
    exposure: Span  # steps [first, last)
    rate_at_white: float
    is_linear: bool  # the sensor integrated linear light; RGB frames are sRGB
    warp: Warp  # from the sensor to the frame's spike grid
    is_moved: bool  # counts and bits become parts of the largest one, as if they were interpolated

    def reach(self, center: int) -> Span:
        """Return the steps [first, last) that the representation reads around a step."""
        return self.represent.reach(self.window, center, self.exposure)

    def moment(self, spikes: np.ndarray, first: int, center: int) -> StepWindow:
        """Return the window of (T, h, w) spikes that begin with step `first`."""
        return StepWindow(spikes, center - first, (self.exposure[0] - first, self.exposure[1] - first))

    def made(self, moment: StepWindow, box: Box, *, reverse: bool = False) -> np.ndarray:
        """Return the planes of a box, (S, h, w), as the representation makes them, from the steps of its region."""
        planes = self.represent.make(moment.reversed() if reverse else moment, self.window, self.channels)
        gives = self.represent.gives
        if not self.is_moved or gives not in ("bits", "counts"):
            return self.warp(planes, box)
        if gives == "bits":
            return _parts(self.warp(planes, box), 1, FINE, -DIGIT, DIGIT - 1).astype(np.int8)
        count = self.channels - EXPOSURE_PLANES
        largest, (first, last) = self.window // count, self.exposure
        around = _parts(self.warp(planes[:count], box), largest, FINE, -DIGIT, DIGIT - 1).astype(np.int8)
        exposed = planes[count].astype(np.float32) + 256 * planes[count + 1].astype(np.float32)
        digits = _parts(self.warp(exposed[None], box), last - first, VERY_FINE, 0, DIGIT**2 - 1)[0]
        return np.concatenate((around, np.stack([digits % DIGIT, digits // DIGIT]).astype(np.int8)))

    def finished(self, planes: np.ndarray, gain: float) -> FramePlanes:
        """Divide rates of `made` by the rate at white and encode them like RGB; counts and bits get their scale.

        `gain` is intensity over spikes per step, for counts. Not for ratios.
        """
        gives = self.represent.gives
        if gives == "rate":
            planes = planes / np.float32(self.rate_at_white)
            return FramePlanes(linear_to_srgb(planes) if self.is_linear else planes)
        if gives == "bits":
            each = 1 / self.rate_at_white / (FINE if self.is_moved else 1)
            return FramePlanes(planes, np.full(self.channels, each, np.float32))
        count = self.channels - EXPOSURE_PLANES
        each = gain / FINE if self.is_moved else gain * count / self.window
        low = gain / (VERY_FINE if self.is_moved else self.exposure[1] - self.exposure[0])
        scale = [each] * count + [low, low * (DIGIT if self.is_moved else 256)]
        return FramePlanes(planes, np.array(scale, np.float32))

    def picture(self, ratio: np.ndarray, blur: np.ndarray) -> FramePlanes:
        """Multiply a blurred frame by a ratio (H, W), see `sharpened`: one plane (gray) or three."""
        sharp = self.sharpened(blur, ratio)
        return FramePlanes(to_gray(sharp)[None] if self.channels == 1 else sharp.transpose(2, 0, 1))

    def sharpened(self, blur: np.ndarray, ratio: np.ndarray) -> np.ndarray:
        """Multiply a blurred frame, (H, W, 3) RGB, uint8 or float32 in [0, 1], by a ratio of light, (H, W) float32.

        Returns:
            (H, W, 3) float32 in [0, 1].
        """
        picture = blur.astype(np.float32) / 255 if blur.dtype == np.uint8 else blur
        # The ratio is one of light as the sensor integrates it, so the picture must be in the same domain.
        if self.is_linear:
            return linear_to_srgb(sharpened(srgb_to_linear(picture), ratio))
        return sharpened(picture, ratio)


def _parts(planes: np.ndarray, largest: int, parts: int, low: int, high: int) -> np.ndarray:
    """Return values, of which `largest` becomes `parts`, as whole numbers from `low` to `high`."""
    return np.rint(planes * np.float32(parts / largest)).clip(low, high).astype(np.int16)
