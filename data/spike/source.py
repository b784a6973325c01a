"""The spikes of a data set, checked at construction, then read and turned into planes frame by frame."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np

from data.clip_index import Clips, raise_first
from data.geometry import Box, whole_ratio
from data.recent import Recent
from data.spike.planes import REPRESENTATIONS, Representation, Span, StepWindow
from data.spike.reader import SpikeReader
from data.spike.representations import sharpened, upsample
from options.schema import DatasetOpt
from options.schema_data import EXPOSURE_PLANES
from utils.spike_loader import Size
from utils.utils_colour import linear_to_srgb, srgb_to_linear, to_gray
from utils.utils_error import UserError

LOG = logging.getLogger("spikevrt")


class FramePlanes(NamedTuple):
    """The planes of one frame.

    planes: (S, h, w) on the sensor's grid, float32 or uint8 counts; of a ratio (S, H, W) on the RGB grid.
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

    def planes(self, planes: np.ndarray) -> np.ndarray:
        """Divide rates by the rate at white and encode them like RGB; counts and ratios stay as they are."""
        if self.represent.gives != "rate":
            return planes
        planes = planes / np.float32(self.rate_at_white)
        return linear_to_srgb(planes) if self.is_linear else planes

    def scale(self, gain: float, window: int, exposure: Span) -> np.ndarray | None:
        """Return what a count of each plane means, (S,) float32; None if planes are intensities.

        Args:
            gain: intensity over spikes per step, for "counts".
            window: steps of all planes together.
            exposure: [first, last) steps.
        """
        if self.represent.gives == "bits":
            return np.full(self.channels, 1 / self.rate_at_white, np.float32)
        if self.represent.gives != "counts":
            return None
        count = self.channels - EXPOSURE_PLANES
        per_exposure = gain / (exposure[1] - exposure[0])
        return np.array([gain * count / window] * count + [per_exposure, 256 * per_exposure], np.float32)

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


class SensorPlanes(NamedTuple):
    """What the representations made of one frame's steps.

    planes: (S, h, w), on the sensor's grid.
    ratio: (h, w) float32, short-time over exposure-time rate, for the training-free estimate; None: not requested.
    """

    planes: np.ndarray
    ratio: np.ndarray | None


LARGEST_GAIN = 100.0  # of a picture: darker sensors count as noise


def picture_gain(gray: float, rate: float) -> float:
    """Return mean gray over mean rate of the exposure: the sensor's unknown gain; 0 without spikes."""
    return min(gray / rate, LARGEST_GAIN) if rate > 0 else 0.0


def planes_in_time(represent: Representation, channels: int) -> slice:
    """Return the planes of a frame that are consecutive in time."""
    count = channels - EXPOSURE_PLANES if represent.gives == "counts" else channels
    return slice(0, count) if count > 1 and represent.gives != "ratio" else slice(0, 0)


class MeanGray(Protocol):
    """The mean gray of whole blurred frames."""

    def __call__(self, clip: str, frame: str, /, *, is_linear: bool) -> float:
        """Return it, in [0, 1]; that of linear light if `is_linear`."""
        ...


class SpikeSource:
    """Spikes below `opt.dataroot_spike`; the sizes of all files are checked at construction.

    Args:
        opt: options of the data set.
        clips: the frames that will be read.
        frame_size: see SpikeReader.
        gray: returns the mean gray of a whole blurred frame; for the picture's gain.
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
        gray: MeanGray = lambda clip, frame, is_linear: 0.0,
        *,
        keep_files: bool = False,
    ) -> None:
        self.opt, self.channels = opt.spike, opt.spike_channels
        self._gray, self._gains = gray, dict[tuple[str, str], float]()
        self._recent: Recent[tuple[str, str, int | None], SensorPlanes] = Recent()
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
        self,
        clip: str,
        frame: str,
        box: Box,
        ratio: int,
        blur: np.ndarray | None = None,
        *,
        center: int | None = None,
        reverse: bool = False,
    ) -> FramePlanes:
        """Make the planes of one frame: read, represent, divide by the rate at white.

        The planes of a box equal that box of the whole frame's planes, up to rounding.

        Args:
            clip: clip name.
            frame: frame name.
            box: the wanted part in spike pixels.
            ratio: RGB pixels per spike pixel.
            blur: the same part of the blurred frame, (box.height * ratio, box.width * ratio, 3) uint8, RGB; required by
                representations that give a ratio (sdm).
            center: the step to show; None: the target step.
            reverse: reverse time.

        Returns:
            Planes in sRGB; white is 1, not clipped above.

        Raises:
            UserError: a file is missing, empty or truncated; names clip and frame.
        """
        if self.represent.gives == "ratio":
            assert blur is not None, "a ratio needs the blurred frame"
            return FramePlanes(
                self.finish.picture(self._enlarged_ratio(clip, frame, box, ratio, center, reverse), blur)
            )
        moment = self.moment(clip, frame, center=center, rows=box.row_span, cols=box.col_span)
        return self.planes_of(clip, moment.reversed() if reverse else moment, self.gain(clip, frame))

    @property
    def by_picture(self) -> bool:
        """Whether the gain is that of each picture, not the sensor's."""
        return self.represent.gives == "counts" and self.opt.gain == "picture"

    def planes_of(
        self, clip: str, moment: StepWindow, gain: float, *, rate_at_white: float | None = None
    ) -> FramePlanes:
        """Make the planes of the steps around one frame; not for ratios. None: the sensor's rate at white."""
        window, finish = self.reader.window(clip), self.finish
        finish = finish if rate_at_white is None else finish._replace(rate_at_white=rate_at_white)
        planes = finish.planes(self.represent.make(moment, window, self.channels))
        return FramePlanes(planes, finish.scale(gain, window, self.timings[clip].exposure))

    def _enlarged_ratio(
        self, clip: str, frame: str, box: Box, ratio: int, center: int | None, reverse: bool
    ) -> np.ndarray:
        """Return a box of the ratio on the RGB grid; a margin of one spike pixel is read and cropped again."""
        top, left = max(box.top - 1, 0), max(box.left - 1, 0)
        height, width = self.reader.sensor_of(clip).size
        bottom, right = min(box.top + box.height + 1, height), min(box.left + box.width + 1, width)
        moment = self.moment(clip, frame, center=center, rows=(top, bottom), cols=(left, right))
        moment = moment.reversed() if reverse else moment
        small = self.represent.make(moment, self.reader.window(clip), self.channels)[0]
        inner = Box(box.top - top, box.left - left, box.height, box.width).scaled(ratio)
        return upsample(small, (small.shape[0] * ratio, small.shape[1] * ratio))[inner.rows, inner.cols]

    def _scale(self, clip: str, frame: str) -> np.ndarray | None:
        return self.finish.scale(self.gain(clip, frame), self.reader.window(clip), self.timings[clip].exposure)

    def gain(self, clip: str, frame: str) -> float:
        """Return intensity over spikes per step: by `spike.gain`, the picture's or that of the sensor."""
        if not self.by_picture:
            return 1 / self.sensor.rate_at_white
        if (clip, frame) not in self._gains:
            self._gains[clip, frame] = picture_gain(self.gray(clip, frame), self.reader.exposure_rate(clip, frame))
        return self._gains[clip, frame]

    def gray(self, clip: str, frame: str) -> float:
        """Return the mean gray of a whole blurred frame, in what the sensor integrates."""
        return self._gray(clip, frame, is_linear=self.reader.is_linear)

    @property
    def is_linear(self) -> bool:
        """Whether planes are linear light, to be compared with frames in linear light."""
        return self.represent.gives == "counts" and self.reader.is_linear

    def hold(self, count: int) -> None:
        """Cache what `whole_planes` and `estimate` read for the last `count` frames."""
        self._recent.hold(count)

    def whole_planes(
        self,
        clip: str,
        frame: str,
        blur: np.ndarray | None = None,
        *,
        center: int | None = None,
        estimate: bool = False,
    ) -> FramePlanes:
        """Make the planes of a whole frame, as `planes` does.

        Args:
            clip: clip name.
            frame: frame name.
            blur: the blurred frame, (H, W, 3) uint8, RGB; required as in `planes`.
            center: the step to show; None: the target step.
            estimate: `estimate` will be called for the frame too; read the steps for both at once.
        """
        found = self._recent.get((clip, frame, center), partial(self._make, clip, frame, center, estimate))
        if self.represent.gives != "ratio":
            return FramePlanes(self.finish.planes(found.planes), self._scale(clip, frame))
        assert blur is not None, "a ratio needs the blurred frame"
        return FramePlanes(self.finish.picture(upsample(found.planes[0], (blur.shape[0], blur.shape[1])), blur))

    def can_estimate(self, clip: str, frame: str, center: int | None = None) -> bool:
        """Return whether the stream has the steps that `estimate` reads."""
        return self.reader.problem(clip, frame, self._estimate_reach(clip, center)) is None

    def estimate(self, clip: str, frame: str, blur: np.ndarray, center: int | None = None) -> np.ndarray:
        """Estimate the sharp frame without training (SDM): blurred frame times short-time over exposure-time rate.

        Args:
            clip: clip name.
            frame: frame name.
            blur: (H, W, 3) uint8, RGB.
            center: the step to show; None: the target step.

        Returns:
            (H, W, 3) uint8, RGB.
        """
        made = partial(self._make, clip, frame, center, True)
        ratio = self._recent.get((clip, frame, center), made).ratio
        if ratio is None:
            reach = self._estimate_reach(clip, center)
            ratio = self._estimate_ratio(clip, self.moment(clip, frame, reach, center=center))
        sharp = self.finish.sharpened(blur, upsample(ratio, (blur.shape[0], blur.shape[1])))
        return np.round(sharp * 255).astype(np.uint8)

    def moment(
        self,
        clip: str,
        frame: str,
        reach: Span | None = None,
        *,
        center: int | None = None,
        rows: Span | None = None,
        cols: Span | None = None,
    ) -> StepWindow:
        """Read the steps around one step of a frame: `reach`, else those that the representation needs."""
        first, last = reach or self.reader.reach(clip, center)
        center = self.reader.target_step(clip, center)
        exposure = self.timings[clip].exposure
        spikes = self.reader.read(clip, frame, (first, last), rows=rows, cols=cols)
        return StepWindow(spikes, center - first, (exposure[0] - first, exposure[1] - first))

    def _make(self, clip: str, frame: str, center: int | None, estimate: bool) -> SensorPlanes:
        """Read the steps for the planes and, if requested and available, the estimate, in one go."""
        spans = [self.reader.reach(clip, center)]
        if estimate and self.can_estimate(clip, frame, center):
            spans.append(self._estimate_reach(clip, center))
        start, stop = min(first for first, _ in spans), max(last for _, last in spans)
        moment = self.moment(clip, frame, (start, stop), center=center)
        own, *more = (moment.part(first - start, last - start) for first, last in spans)
        planes = self.represent.make(own, self.reader.window(clip), self.channels)
        return SensorPlanes(planes, self._estimate_ratio(clip, more[0]) if more else None)

    def _estimate_reach(self, clip: str, center: int | None) -> Span:
        """Return the steps [first, last) that `estimate` reads."""
        reach, step = REPRESENTATIONS["sdm"].reach, self.reader.target_step(clip, center)
        return reach(self._short_window(clip), step, self.timings[clip].exposure)

    def _estimate_ratio(self, clip: str, moment: StepWindow) -> np.ndarray:
        """Return short-time over exposure-time rate, (h, w) float32."""
        return REPRESENTATIONS["sdm"].make(moment, self._short_window(clip), 1)[0]

    def _short_window(self, clip: str) -> int:
        """Return the window that shows one instant: spike.window if averaged, else a quarter of the exposure."""
        if self.represent.averages_window:
            return self.opt.window
        first, last = self.timings[clip].exposure
        return (last - first) // 4 | 1
