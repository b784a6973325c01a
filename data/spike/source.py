"""The spikes of a data set, checked at construction, then read and turned into planes frame by frame."""

import logging
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from data.clip_index import Clips, raise_first
from data.geometry import Box, whole_ratio
from data.recent import Recent
from data.spike.planes import REPRESENTATIONS, Representation, Span, StepWindow
from data.spike.reader import SpikeReader
from data.spike.representations import repeat, sharpened, upsample
from options.schema import DatasetOpt
from utils.spike_loader import Size
from utils.utils_colour import linear_to_srgb, srgb_to_linear, to_gray
from utils.utils_error import UserError

LOG = logging.getLogger("spikevrt")


class PlaneMaker(NamedTuple):
    """Turns the output of a representation into planes on the RGB grid."""

    represent: Representation
    channels: int  # S, planes per frame
    rate_at_white: float
    is_linear: bool  # the sensor integrated linear light; RGB frames are sRGB

    def enlarged(self, planes: np.ndarray, ratio: int) -> np.ndarray:
        """Divide by the rate at white and enlarge.

        Args:
            planes: (S, h, w) float32, from the representation.
            ratio: RGB pixels per spike pixel.

        Returns:
            (S, h * ratio, w * ratio) float32 in sRGB, white is 1, not clipped above; a ratio of light is only enlarged.
        """
        if self.represent.gives == "bits":  # neither interpolated nor encoded
            return repeat(planes, ratio) / np.float32(self.rate_at_white)
        if self.represent.gives == "rate":
            planes = planes / np.float32(self.rate_at_white)
            if self.is_linear:
                planes = linear_to_srgb(planes)  # comparable with the RGB frames
        size = (planes.shape[1] * ratio, planes.shape[2] * ratio)
        return np.stack([upsample(plane, size) for plane in planes])

    def planes(self, enlarged: np.ndarray, blur: np.ndarray | None) -> np.ndarray:
        """Turn the result of `enlarged`, or a crop of it, into planes (S, H, W) float32.

        Args:
            enlarged: (S or 1, H, W).
            blur: the same pixels of the blurred frame, as in `sharpened`; required for a ratio.
        """
        if self.represent.gives != "ratio":
            return enlarged
        assert blur is not None, "a ratio needs the blurred frame"
        sharp = self.sharpened(blur, enlarged[0])
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


class SensorPlanes(NamedTuple):
    """The planes of one frame on the sensor's grid.

    planes: (S, h, w) float32, from the representation.
    ratio: (h, w) float32, short-time over exposure-time rate, for the training-free estimate; None: not requested.
    """

    planes: np.ndarray
    ratio: np.ndarray | None


def in_time(represent: Representation, channels: int) -> bool:
    """Return whether the planes of a frame are consecutive in time."""
    return channels > 1 and represent.gives != "ratio"


class SpikeSource:
    """Spikes below `opt.dataroot_spike`; the sizes of all files are checked at construction.

    Args:
        opt: options of the data set.
        clips: the frames that will be read.
        frame_size: see SpikeReader.
        keep_files: see SpikeReader.

    Raises:
        UserError: a clip or `.dat` file is missing or has the wrong size, the window leaves a stream, or options,
            manifest and files disagree.
    """

    def __init__(
        self,
        opt: DatasetOpt,
        clips: Clips,
        frame_size: Callable[[str], Size] | None = None,
        *,
        keep_files: bool = False,
    ) -> None:
        self.opt, self.channels = opt.spike, opt.spike_channels
        self._recent: Recent[tuple[str, str], SensorPlanes] = Recent()
        self.represent = REPRESENTATIONS[opt.spike.representation]
        self.reader = SpikeReader(opt, clips, frame_size, keep_files=keep_files)
        self.sensor, self.timings = self.reader.sensor, self.reader.timings
        self.finish = PlaneMaker(self.represent, self.channels, self.sensor.rate_at_white, self.reader.is_linear)
        raise_first(self.reader.problems(clips))
        firsts = {self.reader.sensor_of(clip).size: (clip, frames[0]) for clip, frames in reversed(clips.items())}
        for clip, frame in firsts.values():  # the first clip of each size
            warning = self.reader.size_warning(clip, frame)
            if warning:
                LOG.warning(warning)

    @property
    def in_time(self) -> bool:
        """Whether the planes of a frame are consecutive in time."""
        return in_time(self.represent, self.channels)

    def ratio(self, size: tuple[int, int], clip: str) -> int:
        """Return the number of RGB pixels per spike pixel along each axis.

        Args:
            size: (H, W) of the RGB frames.
            clip: clip name.

        Raises:
            UserError: it is not the same integer along both axes.
        """
        own = self.reader.sensor_of(clip).size
        ratio = whole_ratio(size, own)
        if not ratio:
            raise UserError(
                "clip {}: RGB frames of {}x{} over spikes of {}x{} give no whole ratio, expected the same one along "
                "both axes; correct spike_h and spike_w or resize the frames".format(clip, *size, *own)
            )
        return ratio

    def planes(
        self, clip: str, frame: str, box: Box, ratio: int, blur: np.ndarray | None = None, *, reverse: bool = False
    ) -> np.ndarray:
        """Make the planes of one frame on the RGB grid: read, represent, divide by the rate at white, enlarge.

        A margin of one spike pixel is read around the box and cropped again, so that the planes of a box equal that
        box of the whole frame's planes, up to rounding.

        Args:
            clip: clip name.
            frame: frame name.
            box: the wanted part in spike pixels.
            ratio: RGB pixels per spike pixel.
            blur: the same part of the blurred frame, (box.height * ratio, box.width * ratio, 3) uint8, RGB; required by
                representations that give a ratio (sdm).
            reverse: reverse time.

        Returns:
            (S, box.height * ratio, box.width * ratio) float32 in sRGB; white is 1, not clipped above.

        Raises:
            UserError: a file is missing, empty or truncated; names clip and frame.
        """
        top, left = max(box.top - 1, 0), max(box.left - 1, 0)
        height, width = self.reader.sensor_of(clip).size
        bottom, right = min(box.top + box.height + 1, height), min(box.left + box.width + 1, width)
        moment = self.moment(clip, frame, rows=(top, bottom), cols=(left, right))
        inner = Box(box.top - top, box.left - left, box.height, box.width).scaled(ratio)
        planes = self.represent.make(moment.reversed() if reverse else moment, self.opt.window, self.channels)
        enlarged = self.finish.enlarged(planes, ratio)
        return self.finish.planes(enlarged[:, inner.rows, inner.cols], blur)

    def hold(self, count: int) -> None:
        """Cache what `whole_planes` and `estimate` read for the last `count` frames."""
        self._recent.hold(count)

    def whole_planes(
        self, clip: str, frame: str, ratio: int, blur: np.ndarray | None = None, *, estimate: bool = False
    ) -> np.ndarray:
        """Make the planes of a whole frame, as `planes` does.

        Args:
            clip: clip name.
            frame: frame name.
            ratio: RGB pixels per spike pixel.
            blur: the blurred frame, (H, W, 3) uint8, RGB; required as in `planes`.
            estimate: `estimate` will be called for the frame too; read the steps for both at once.
        """
        found = self._recent.get((clip, frame), partial(self._make, clip, frame, estimate))
        return self.finish.planes(self.finish.enlarged(found.planes, ratio), blur)

    def estimate(self, clip: str, frame: str, blur: np.ndarray) -> np.ndarray:
        """Estimate the sharp frame without training (SDM): blurred frame times short-time over exposure-time rate.

        Args:
            clip: clip name.
            frame: frame name.
            blur: (H, W, 3) uint8, RGB.

        Returns:
            (H, W, 3) uint8, RGB.
        """
        ratio = self._recent.get((clip, frame), partial(self._make, clip, frame, True)).ratio
        if ratio is None:
            ratio = self._estimate_ratio(clip, self.moment(clip, frame, self._estimate_reach(clip)))
        sharp = self.finish.sharpened(blur, upsample(ratio, (blur.shape[0], blur.shape[1])))
        return np.round(sharp * 255).astype(np.uint8)

    def moment(
        self, clip: str, frame: str, reach: Span | None = None, *, rows: Span | None = None, cols: Span | None = None
    ) -> StepWindow:
        """Read the steps around one frame: `reach`, else those that the representation needs."""
        center, exposure = self.reader.target_step(clip), self.timings[clip].exposure
        first, last = reach or self.reader.reach(clip)
        spikes = self.reader.read(clip, frame, (first, last), rows=rows, cols=cols)
        return StepWindow(spikes, center - first, (exposure[0] - first, exposure[1] - first))

    def _make(self, clip: str, frame: str, estimate: bool) -> SensorPlanes:
        """Read the steps for the planes and, if requested and available, the estimate, in one go."""
        spans, others = [self.reader.reach(clip)], self._estimate_reach(clip)
        if estimate and self.reader.problem(clip, frame, others) is None:
            spans.append(others)
        start, stop = min(first for first, _ in spans), max(last for _, last in spans)
        moment = self.moment(clip, frame, (start, stop))
        own, *more = (moment.part(first - start, last - start) for first, last in spans)
        planes = self.represent.make(own, self.opt.window, self.channels)
        return SensorPlanes(planes, self._estimate_ratio(clip, more[0]) if more else None)

    def _estimate_reach(self, clip: str) -> Span:
        """Return the steps [first, last) that `estimate` reads."""
        reach = REPRESENTATIONS["sdm"].reach
        return reach(self._short_window(clip), self.reader.target_step(clip), self.timings[clip].exposure)

    def _estimate_ratio(self, clip: str, moment: StepWindow) -> np.ndarray:
        """Return short-time over exposure-time rate, (h, w) float32."""
        return REPRESENTATIONS["sdm"].make(moment, self._short_window(clip), 1)[0]

    def _short_window(self, clip: str) -> int:
        """Return the window that shows one instant: spike.window if averaged, else a quarter of the exposure."""
        if self.represent.averages_window:
            return self.opt.window
        first, last = self.timings[clip].exposure
        return (last - first) // 4 | 1
