"""The spikes of a data set, checked at construction, then read and turned into planes frame by frame."""

import logging
from collections.abc import Callable
from functools import partial

import numpy as np

from data.clip_index import Clips, raise_first
from data.geometry import Box, whole_ratio
from data.recent import Recent
from data.spike.firing import check_firing, only_bit
from data.spike.frame_planes import FramePlanes, PlaneMaker
from data.spike.planes import REPRESENTATIONS, Representation, StepWindow
from data.spike.reader import SpikeReader
from data.spike.representations import upsample
from options.schema import DatasetOpt
from options.schema_data import EXPOSURE_PLANES
from utils.spike_loader import Size
from utils.utils_colour import mean_gray
from utils.utils_error import UserError

LOG = logging.getLogger("spikevrt")
# Planes (S, h, w) on the frame's spike grid, and the ratio (h, w) of the training-free estimate; None: not requested.
Made = tuple[np.ndarray, np.ndarray | None]
LARGEST_GAIN = 100.0  # of a picture: darker sensors count as noise


def picture_gain(gray: float, rate: float) -> float:
    """Return mean gray over mean rate of the exposure: the sensor's unknown gain; 0 without spikes."""
    return min(gray / rate, LARGEST_GAIN) if rate > 0 else 0.0


def planes_in_time(represent: Representation, channels: int) -> slice:
    """Return the planes of a frame that are consecutive in time."""
    count = channels - EXPOSURE_PLANES if represent.gives == "counts" else channels
    return slice(0, count) if count > 1 and represent.gives != "ratio" else slice(0, 0)


class SpikeSource:
    """Spikes of the frames of `clips`; the sizes of all files are checked at construction.

    For the picture's gain, `blurred` returns a whole blurred frame, (H, W, 3) uint8, RGB. With `is_moved`, planes have
    the type of interpolated ones, though no clip's manifest moves them; other arguments as of SpikeReader.

    Raises:
        UserError: a clip or `.dat` file is missing or has the wrong size, the window leaves a stream, or options,
            manifest and files disagree.
    """

    def __init__(
        self,
        opt: DatasetOpt,
        clips: Clips,
        blurred: Callable[[str, str], np.ndarray],
        frame_size: Callable[[str], Size] | None = None,
        *,
        keep_files: bool = False,
        is_moved: bool = False,
    ) -> None:
        self.opt, self.channels = opt.spike, opt.spike_channels
        self._blurred, self._gains = blurred, dict[tuple[str, str], float]()
        self._recent: Recent[tuple[str, str, int | None], Made] = Recent()
        self.represent = REPRESENTATIONS[opt.spike.representation]
        self.reader = SpikeReader(opt, clips, frame_size, keep_files=keep_files)
        self.sensor, self.timings = self.reader.sensor, self.reader.timings
        # Planes of all clips have one type.
        self._is_moved = is_moved or any(self.reader.warp(clip).moves for clip in clips)
        raise_first(self.reader.problems(clips))
        self._clips = clips
        firsts = {self.reader.sensor_of(clip).size: (clip, frames[0]) for clip, frames in reversed(clips.items())}
        for clip, frame in firsts.values():  # the first clip of each size
            if warning := self.reader.size_warning(clip, frame):
                LOG.warning(warning)

    def check_firing(self) -> None:
        """Warn of clips with frames whose spikes show nothing, one line each; UserError if it is all of its frames."""
        for clip, frames in self._clips.items():
            bits = {frame: self._only_bit(clip, frame) for frame in frames}
            check_firing(f"clip {clip}", bits, partial(self._brightness, clip))

    def _only_bit(self, clip: str, frame: str) -> int | None:
        """Return the bit that a frame's exposure consists of, as far as it lies in its own file; None if of both."""
        height, width = self.reader.sensor_of(clip).size
        first, last = self.timings[clip].exposure
        steps = self.reader.store.packed(clip, frame).reshape(-1, height * width // 8)
        return only_bit(steps[max(first, 0) : max(last, 0)], 255)

    def _brightness(self, clip: str, frame: str) -> float:
        return float(self._blurred(clip, frame).mean()) / 255

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

    def maker(self, clip: str) -> PlaneMaker:
        """Return what makes a clip's planes."""
        reader, rate = self.reader, self.sensor.rate_at_white
        window, exposure, warp = reader.window(clip), self.timings[clip].exposure, reader.warp(clip)
        is_linear, is_moved = reader.is_linear, self._is_moved
        return PlaneMaker(self.represent, self.channels, window, exposure, rate, is_linear, warp, is_moved)

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
        """Make the planes of a box of one frame, in spike pixels, showing step `center`, else the target step.

        They equal that box of the whole frame's planes, up to rounding. Those of rates are sRGB; white is 1, not
        clipped above. Representations that give a ratio (sdm) require the same part of the blurred frame,
        (box.height * ratio, box.width * ratio, 3) uint8, RGB. `reverse` reverses time.

        Raises:
            UserError: a file is missing, empty or truncated; names clip and frame.
        """
        maker, is_ratio = self.maker(clip), self.represent.gives == "ratio"
        # A ratio is enlarged, for which pixels around the box are read and cropped again.
        around = box.grown(1).within(self.reader.sensor_of(clip).size) if is_ratio else box
        made = maker.made(self._moment(maker, clip, frame, around, center), around, reverse=reverse)
        if not is_ratio:
            return maker.finished(made, self.gain(clip, frame))
        assert blur is not None, "a ratio needs the blurred frame"
        inner = Box(box.top - around.top, box.left - around.left, box.height, box.width).scaled(ratio)
        large = upsample(made[0], (around.height * ratio, around.width * ratio))
        return maker.picture(large[inner.rows, inner.cols], blur)

    @property
    def by_picture(self) -> bool:
        """Whether the gain is that of each picture, not the sensor's."""
        return self.represent.gives == "counts" and self.opt.gain == "picture"

    def gain(self, clip: str, frame: str) -> float:
        """Return intensity over spikes per step: by `spike.gain`, the picture's or that of the sensor."""
        if not self.by_picture:
            return 1 / self.sensor.rate_at_white
        if (clip, frame) not in self._gains:
            self._gains[clip, frame] = picture_gain(self.gray(clip, frame), self.reader.exposure_rate(clip, frame))
        return self._gains[clip, frame]

    def gray(self, clip: str, frame: str) -> float:
        """Return the mean gray of a whole blurred frame, in what the sensor integrates."""
        return mean_gray(self._blurred(clip, frame), is_linear=self.reader.is_linear)

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
        """Do what `planes` does, for a whole frame; `estimate`: that will be called too, so read the steps for both."""
        made = self._recent.get((clip, frame, center), partial(self._make, clip, frame, center, estimate))[0]
        if self.represent.gives != "ratio":
            return self.maker(clip).finished(made, self.gain(clip, frame))
        assert blur is not None, "a ratio needs the blurred frame"
        return self.maker(clip).picture(upsample(made[0], (blur.shape[0], blur.shape[1])), blur)

    def can_estimate(self, clip: str, frame: str, center: int | None = None) -> bool:
        """Return whether the stream has the steps that `estimate` reads."""
        reach = self._estimator(clip).reach(self.reader.target_step(clip, center))
        return self.reader.problem(clip, frame, reach) is None

    def estimate(self, clip: str, frame: str, blur: np.ndarray, center: int | None = None) -> np.ndarray:
        """Estimate the sharp frame without training (SDM): blurred frame times short-time over exposure-time rate.

        Both frames are (H, W, 3) uint8, RGB; `center` is the step to show, None the target step.
        """
        made = partial(self._make, clip, frame, center, True)
        ratio, maker = self._recent.get((clip, frame, center), made)[1], self._estimator(clip)
        if ratio is None:
            whole = self.reader.whole(clip)
            ratio = maker.made(self._moment(maker, clip, frame, whole, center), whole)[0]
        sharp = maker.sharpened(blur, upsample(ratio, (blur.shape[0], blur.shape[1])))
        return np.round(sharp * 255).astype(np.uint8)

    def _moment(self, maker: PlaneMaker, clip: str, frame: str, box: Box, center: int | None) -> StepWindow:
        """Read the steps that a maker needs for the planes of a box."""
        step = self.reader.target_step(clip, center)
        steps, part = maker.reach(step), maker.warp.region(box)
        spikes = self.reader.read(clip, frame, steps, rows=part.row_span, cols=part.col_span)
        return maker.moment(spikes, steps[0], step)

    def _make(self, clip: str, frame: str, center: int | None, estimate: bool) -> Made:
        """Read the steps for the planes and, if requested and available, the estimate, in one go."""
        makers = [self.maker(clip)]
        if estimate and self.can_estimate(clip, frame, center):
            makers.append(self._estimator(clip))
        step, whole = self.reader.target_step(clip, center), self.reader.whole(clip)
        spans, part = [maker.reach(step) for maker in makers], makers[0].warp.region(whole)
        start, stop = min(first for first, _ in spans), max(last for _, last in spans)
        spikes = self.reader.read(clip, frame, (start, stop), rows=part.row_span, cols=part.col_span)
        planes, *ratio = (
            maker.made(maker.moment(spikes[first - start : last - start], first, step), whole)
            for maker, (first, last) in zip(makers, spans, strict=True)
        )
        return planes, ratio[0][0] if ratio else None

    def _estimator(self, clip: str) -> PlaneMaker:
        """Return what makes the ratio of `estimate`, of spike.window if averaged, else of a quarter of the exposure."""
        maker = self.maker(clip)
        first, last = maker.exposure
        window = self.opt.window if self.represent.averages_window else (last - first) // 4 | 1
        return maker._replace(represent=REPRESENTATIONS["sdm"], channels=1, window=window)
