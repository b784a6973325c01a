"""The spikes of a data set, checked at construction, then read and turned into planes frame by frame."""

import logging
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np

from data.clip_index import Clips, raise_first
from data.geometry import Box, whole_ratio
from data.recent import Recent
from data.spike.alignment import Warp
from data.spike.frame_planes import FramePlanes, PlaneMaker
from data.spike.planes import REPRESENTATIONS, Representation, Span, StepWindow
from data.spike.reader import SpikeReader
from data.spike.representations import upsample
from options.schema import DatasetOpt
from options.schema_data import EXPOSURE_PLANES
from utils.spike_loader import Size
from utils.utils_error import UserError

LOG = logging.getLogger("spikevrt")


class SensorPlanes(NamedTuple):
    """What the representations made of one frame's steps.

    planes: (S, h, w), on the frame's spike grid.
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
        is_moved: planes have the type of interpolated ones, though no clip's manifest moves them.

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
        is_moved: bool = False,
    ) -> None:
        self.opt, self.channels = opt.spike, opt.spike_channels
        self._gray, self._gains = gray, dict[tuple[str, str], float]()
        self._recent: Recent[tuple[str, str, int | None], SensorPlanes] = Recent()
        self.represent = REPRESENTATIONS[opt.spike.representation]
        self.reader = SpikeReader(opt, clips, frame_size, keep_files=keep_files)
        self.sensor, self.timings = self.reader.sensor, self.reader.timings
        self.finish = PlaneMaker(self.represent, self.channels, self.sensor.rate_at_white, self.reader.is_linear)
        self._is_moved = is_moved or any(self.reader.warp(clip) for clip in clips)  # planes of all clips have one type
        raise_first(self.reader.problems(clips))
        firsts = {self.reader.sensor_of(clip).size: (clip, frames[0]) for clip, frames in reversed(clips.items())}
        for clip, frame in firsts.values():  # the first clip of each size
            warning = self.reader.size_warning(clip, frame)
            if warning:
                LOG.warning(warning)

    def ratio(self, size: tuple[int, int], clip: str) -> int:
        """Return the number of RGB pixels per spike pixel along each axis, for RGB frames of (H, W).

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
        moment = self.moment(clip, frame, box, center=center)
        return self.planes_of(clip, moment.reversed() if reverse else moment, box, self.gain(clip, frame))

    def region(self, clip: str, box: Box) -> Box:
        """Return the part of the sensor that a part of the frame's spike grid is made of."""
        warp = self.reader.warp(clip)
        return box if warp is None else warp.region(box)

    @property
    def by_picture(self) -> bool:
        """Whether the gain is that of each picture, not the sensor's."""
        return self.represent.gives == "counts" and self.opt.gain == "picture"

    def planes_of(
        self,
        clip: str,
        moment: StepWindow,
        box: Box,
        gain: float,
        *,
        rate_at_white: float | None = None,
        warp: Warp | None = None,
    ) -> FramePlanes:
        """Make the planes of a box from the steps of its `region`; not for ratios. None: as the set's sensor has it."""
        finish = self.finish if rate_at_white is None else self.finish._replace(rate_at_white=rate_at_white)
        return FramePlanes(finish.planes(self._made(clip, moment, box, warp)), self._scale(clip, gain, finish))

    def _made(self, clip: str, moment: StepWindow, box: Box, warp: Warp | None = None) -> np.ndarray:
        """Return the planes of a box as the representation makes them, on the frame's spike grid."""
        window, warp = self.reader.window(clip), warp or self.reader.warp(clip)
        made = self.represent.make(moment, window, self.channels)
        if not self._is_moved:
            return made
        return self.finish.moved(made, warp, box, window, self.timings[clip].exposure)

    def _enlarged_ratio(
        self, clip: str, frame: str, box: Box, ratio: int, center: int | None, reverse: bool
    ) -> np.ndarray:
        """Return a box of the ratio on the RGB grid; a margin of one spike pixel is read and cropped again."""
        top, left = max(box.top - 1, 0), max(box.left - 1, 0)
        height, width = self.reader.sensor_of(clip).size
        bottom, right = min(box.top + box.height + 1, height), min(box.left + box.width + 1, width)
        around = Box(top, left, bottom - top, right - left)
        moment = self.moment(clip, frame, around, center=center)
        small = self._made(clip, moment.reversed() if reverse else moment, around)[0]
        inner = Box(box.top - top, box.left - left, box.height, box.width).scaled(ratio)
        return upsample(small, (small.shape[0] * ratio, small.shape[1] * ratio))[inner.rows, inner.cols]

    def _scale(self, clip: str, gain: float, finish: PlaneMaker) -> np.ndarray | None:
        return finish.scale(gain, self.reader.window(clip), self.timings[clip].exposure, is_moved=self._is_moved)

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
            return FramePlanes(self.finish.planes(found.planes), self._scale(clip, self.gain(clip, frame), self.finish))
        assert blur is not None, "a ratio needs the blurred frame"
        return FramePlanes(self.finish.picture(upsample(found.planes[0], (blur.shape[0], blur.shape[1])), blur))

    def can_estimate(self, clip: str, frame: str, center: int | None = None) -> bool:
        """Return whether the stream has the steps that `estimate` reads."""
        return self.reader.problem(clip, frame, self._estimate_reach(clip, center)) is None

    def estimate(self, clip: str, frame: str, blur: np.ndarray, center: int | None = None) -> np.ndarray:
        """Estimate the sharp frame without training (SDM): blurred frame times short-time over exposure-time rate.

        Both frames are (H, W, 3) uint8, RGB; `center` is the step to show, None the target step.
        """
        made = partial(self._make, clip, frame, center, True)
        ratio = self._recent.get((clip, frame, center), made).ratio
        if ratio is None:
            reach = self._estimate_reach(clip, center)
            ratio = self._estimate_ratio(clip, self.moment(clip, frame, self._whole(clip), reach, center=center))
        sharp = self.finish.sharpened(blur, upsample(ratio, (blur.shape[0], blur.shape[1])))
        return np.round(sharp * 255).astype(np.uint8)

    def moment(
        self, clip: str, frame: str, box: Box, reach: Span | None = None, *, center: int | None = None
    ) -> StepWindow:
        """Read the region of a box around a step of a frame: the steps `reach`, else what the representation needs."""
        first, last = reach or self.reader.reach(clip, center)
        center = self.reader.target_step(clip, center)
        exposure = self.timings[clip].exposure
        region = self.region(clip, box)
        spikes = self.reader.read(clip, frame, (first, last), rows=region.row_span, cols=region.col_span)
        return StepWindow(spikes, center - first, (exposure[0] - first, exposure[1] - first))

    def _make(self, clip: str, frame: str, center: int | None, estimate: bool) -> SensorPlanes:
        """Read the steps for the planes and, if requested and available, the estimate, in one go."""
        spans = [self.reader.reach(clip, center)]
        if estimate and self.can_estimate(clip, frame, center):
            spans.append(self._estimate_reach(clip, center))
        start, stop = min(first for first, _ in spans), max(last for _, last in spans)
        moment = self.moment(clip, frame, self._whole(clip), (start, stop), center=center)
        own, *more = (moment.part(first - start, last - start) for first, last in spans)
        planes = self._made(clip, own, self._whole(clip))
        return SensorPlanes(planes, self._estimate_ratio(clip, more[0]) if more else None)

    def _estimate_reach(self, clip: str, center: int | None) -> Span:
        """Return the steps [first, last) that `estimate` reads."""
        reach, step = REPRESENTATIONS["sdm"].reach, self.reader.target_step(clip, center)
        return reach(self._short_window(clip), step, self.timings[clip].exposure)

    def _estimate_ratio(self, clip: str, moment: StepWindow) -> np.ndarray:
        """Return short-time over exposure-time rate of a whole frame, (h, w) float32."""
        ratio, warp = REPRESENTATIONS["sdm"].make(moment, self._short_window(clip), 1), self.reader.warp(clip)
        return (ratio if warp is None else warp(ratio, self._whole(clip)))[0]

    def _whole(self, clip: str) -> Box:
        return Box(0, 0, *self.reader.sensor_of(clip).size)

    def _short_window(self, clip: str) -> int:
        """Return the window that shows one instant: spike.window if averaged, else a quarter of the exposure."""
        if self.represent.averages_window:
            return self.opt.window
        first, last = self.timings[clip].exposure
        return (last - first) // 4 | 1
