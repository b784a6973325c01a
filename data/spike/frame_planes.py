"""The planes of one frame: from what a representation makes to what a network takes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data.geometry import Box
from data.spike.alignment import Warp
from data.spike.planes import Representation, Span
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
    """Turns the output of a representation into planes in units of intensity."""

    represent: Representation
    channels: int  # S, planes per frame
    rate_at_white: float
    is_linear: bool  # the sensor integrated linear light; RGB frames are sRGB

    def moved(self, planes: np.ndarray, warp: Warp | None, box: Box, window: int, exposure: Span) -> np.ndarray:
        """Move planes from the sensor to a box of the frame's grid; counts and bits become parts of the largest one.

        Args:
            planes: (S, h, w) as the representation makes them, of the box's region on the sensor.
            warp: where the pixels are; None: where they are on the sensor.
            box: the wanted part.
            window: steps of all planes together.
            exposure: [first, last) steps.
        """

        def move(some: np.ndarray) -> np.ndarray:
            return some if warp is None else warp(some, box)

        if self.represent.gives == "bits":
            return _parts(move(planes), 1, FINE, -DIGIT, DIGIT - 1).astype(np.int8)
        if self.represent.gives != "counts":
            return move(planes)
        count = self.channels - EXPOSURE_PLANES
        around = _parts(move(planes[:count]), window // count, FINE, -DIGIT, DIGIT - 1).astype(np.int8)
        exposed = planes[count].astype(np.float32) + 256 * planes[count + 1].astype(np.float32)
        digits = _parts(move(exposed[None]), exposure[1] - exposure[0], VERY_FINE, 0, DIGIT**2 - 1)[0]
        return np.concatenate((around, np.stack([digits % DIGIT, digits // DIGIT]).astype(np.int8)))

    def planes(self, planes: np.ndarray) -> np.ndarray:
        """Divide rates by the rate at white and encode them like RGB; counts and ratios stay as they are."""
        if self.represent.gives != "rate":
            return planes
        planes = planes / np.float32(self.rate_at_white)
        return linear_to_srgb(planes) if self.is_linear else planes

    def scale(self, gain: float, window: int, exposure: Span, *, is_moved: bool = False) -> np.ndarray | None:
        """Return what a count of each plane means, (S,) float32; None if planes are intensities.

        Args:
            gain: intensity over spikes per step, for "counts".
            window: steps of all planes together.
            exposure: [first, last) steps.
            is_moved: the planes are those of `moved`.
        """
        if self.represent.gives == "bits":
            return np.full(self.channels, 1 / self.rate_at_white / (FINE if is_moved else 1), np.float32)
        if self.represent.gives != "counts":
            return None
        count = self.channels - EXPOSURE_PLANES
        each = gain / FINE if is_moved else gain * count / window
        low = gain / (VERY_FINE if is_moved else exposure[1] - exposure[0])
        return np.array([each] * count + [low, low * (DIGIT if is_moved else 256)], np.float32)

    def picture(self, ratio: np.ndarray, blur: np.ndarray) -> np.ndarray:
        """Multiply a blurred frame by a ratio (H, W); returns the planes (1 or 3, H, W) float32."""
        sharp = self.sharpened(blur, ratio)
        return to_gray(sharp)[None] if self.channels == 1 else sharp.transpose(2, 0, 1)

    def sharpened(self, blur: np.ndarray, ratio: np.ndarray) -> np.ndarray:
        """Multiply a blurred frame by a ratio of light.

        Args:
            blur: (H, W, 3) RGB, uint8 or float32 in [0, 1].
            ratio: (H, W) float32.

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
