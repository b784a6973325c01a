"""The spikes of a data set: its files, their geometry, timing and gain, and the planes made of them."""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from data.augment import Box, whole_ratio
from data.clip_index import Clips, existing_folder, raise_first
from data.spike.manifest import GOPRO_RATE_AT_WHITE, GOPRO_SHORT_BY, ClipTiming, Manifest, gopro_timing
from data.spike.representations import tfp, upsample
from data.spike.simulator import linear_to_srgb
from options.schema import DatasetOpt
from utils.spike_loader import likelier_geometry, num_steps, read_spikes
from utils.utils_error import UserError

T = TypeVar("T")

logger = logging.getLogger("spikevrt")

GOPRO_FLIPUD = True


def tfp_planes(spikes: np.ndarray) -> np.ndarray:
    """One plane: the mean rate of all given steps."""
    return tfp(spikes, len(spikes) // 2, len(spikes))[None]


# name -> function: spikes (W, h, w) around the target step W // 2 -> planes (S, h, w), spikes per step
REPRESENTATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tfp": tfp_planes,
}


class Sensor(NamedTuple):
    """Geometry and gain of the spikes of a data set."""

    height: int
    width: int
    flipud: bool
    rate_at_white: float


def resolve_sensor(opt: DatasetOpt, manifest: Manifest | None) -> Sensor:
    """Bring options and manifest together; without a manifest the GoPro set's flip and rate fill the gaps.

    Raises:
        UserError: a value that neither gives, or that the two give differently; names both.
    """
    if manifest is None:
        return Sensor(
            _agreed(opt, "spike_h", opt.spike_h, None),
            _agreed(opt, "spike_w", opt.spike_w, None),
            GOPRO_FLIPUD if opt.spike.flipud is None else opt.spike.flipud,
            GOPRO_RATE_AT_WHITE if opt.spike.rate_at_white is None else opt.spike.rate_at_white,
        )
    return Sensor(
        _agreed(opt, "spike_h", opt.spike_h, manifest.spike_h),
        _agreed(opt, "spike_w", opt.spike_w, manifest.spike_w),
        _agreed(opt, "spike.flipud", opt.spike.flipud, manifest.flipud),
        _agreed(opt, "spike.rate_at_white", opt.spike.rate_at_white, manifest.rate_at_white),
    )


def _agreed(opt: DatasetOpt, key: str, given: T | None, recorded: T | None) -> T:
    """Return the value of the options or the manifest; UserError if there is none or they differ."""
    if given is not None and recorded is not None and given != recorded:
        raise UserError(
            f"{key}: the options say {given}, the manifest.json of {opt.dataroot_spike} says {recorded}; "
            "remove the key from the options or correct the manifest"
        )
    value = recorded if given is None else given
    if value is None:
        raise UserError(f"{key}: is null and {opt.dataroot_spike} has no manifest.json; set it in the options")
    return value


class SpikeSource:
    """Spikes below `opt.dataroot_spike`, checked at construction by the sizes of all files.

    Args:
        opt: options of the data set.
        clips: the frames that will be read.

    Raises:
        UserError: a clip or `.dat` is missing, has a size that does not fit, or the window leaves a stream;
            options and manifest disagree.
    """

    def __init__(self, opt: DatasetOpt, clips: Clips) -> None:
        self.root = existing_folder(opt.dataroot_spike, f"{opt.name}: dataroot_spike")
        self.manifest = Manifest.load(self.root)
        self.sensor = resolve_sensor(opt, self.manifest)
        self.window, self.center = opt.spike.window, opt.spike.center
        self.represent = REPRESENTATIONS[opt.spike.representation]
        if self.manifest is None:
            logger.warning(
                "%s: no manifest.json, the rules of the GoPro set hold: %dx%d spikes, flipud %s, "
                "rate_at_white %g, timing from the number in each clip's name", self.root, *self.sensor,
            )  # fmt: skip
        lookup = self.manifest.timing if self.manifest else gopro_timing
        self.timings: dict[str, ClipTiming] = {clip: lookup(clip) for clip in clips}
        self.folders = {clip: self._find_folder(clip) for clip in clips}
        self._last = {clip: self._last_frame(clip) for clip in clips}
        self._check_files(clips)

    @property
    def is_linear(self) -> bool:
        """Whether the sensor integrated linear light; RGB frames are in sRGB."""
        return self.manifest is not None and self.manifest.transfer == "linear"

    def target_step(self, clip: str) -> int:
        """Return the step that the planes of a frame show: spike.center, else the sharp step of the clip."""
        return self.timings[clip].sharp_step if self.center is None else self.center

    def ratio(self, size: tuple[int, int], clip: str) -> int:
        """Return how many RGB pixels, along each axis, one spike pixel covers.

        Args:
            size: (H, W) of the RGB frames.
            clip: names the clip in the error.

        Raises:
            UserError: not the same whole number along both axes.
        """
        ratio = whole_ratio(size, self.sensor[:2])
        if not ratio:
            raise UserError(
                "clip {}: RGB frames of {}x{} over spikes of {}x{} give no whole ratio, expected the same along "
                "both axes; correct spike_h and spike_w or resize the frames".format(clip, *size, *self.sensor[:2])
            )
        return ratio

    def planes(self, clip: str, frame: str, box: Box, ratio: int, *, reverse: bool = False) -> np.ndarray:
        """Make the planes of one frame on the RGB grid: read, represent, divide by rate at white, enlarge.

        A margin of one spike pixel is read around the box and cut off again, so that the planes of a box are
        that box of the planes of the whole frame, to rounding.

        Args:
            clip: clip name.
            frame: frame name.
            box: the wanted part in spike pixels.
            ratio: RGB pixels per spike pixel.
            reverse: mirror time about the target step.

        Returns:
            (S, box.height * ratio, box.width * ratio) float32 in sRGB; white is 1, not clipped above.

        Raises:
            UserError: the file is missing, empty or truncated; names clip and frame.
        """
        step, half = self.target_step(clip), self.window // 2
        top, left = max(box.top - 1, 0), max(box.left - 1, 0)
        bottom = min(box.top + box.height + 1, self.sensor.height)
        right = min(box.left + box.width + 1, self.sensor.width)
        spikes = self.read(clip, frame, (step - half, step + half + 1), rows=(top, bottom), cols=(left, right))
        planes = self.represent(spikes[::-1] if reverse else spikes) / np.float32(self.sensor.rate_at_white)
        if self.is_linear:
            planes = linear_to_srgb(planes)  # RGB frames are in sRGB: the planes are to be comparable
        size = ((bottom - top) * ratio, (right - left) * ratio)
        inner = Box(box.top - top, box.left - left, box.height, box.width).scaled(ratio)
        return np.stack([upsample(plane, size)[inner.rows, inner.cols] for plane in planes])

    def playback(self, clip: str, frame: str) -> tuple[np.ndarray, np.ndarray]:
        """Return two rates (spike_h, spike_w) float32: around the target step, and over the exposure."""
        step, half = self.target_step(clip), self.window // 2
        first, stop = self.timings[clip].exposure
        around = self.read(clip, frame, (step - half, step + half + 1))
        exposure = self.read(clip, frame, (first, stop))
        return tfp(around, half, self.window), exposure.mean(axis=0, dtype=np.float32)

    def read(
        self,
        clip: str,
        frame: str,
        steps: tuple[int, int],
        *,
        rows: tuple[int, int] | None = None,
        cols: tuple[int, int] | None = None,
    ) -> np.ndarray:
        """Read steps, rows and columns (half-open, row 0 at the top) of a frame's spikes.

        Returns:
            (T, h, w) uint8, 0 or 1.

        Raises:
            UserError: the file is missing, empty or truncated; names clip and frame.
        """
        path = self.path(clip, frame)
        height, width, flipud, _ = self.sensor
        try:
            self._check_size(clip, frame)
            return read_spikes(path, height, width, steps=steps, rows=rows, cols=cols, flipud=flipud)
        except UserError as error:
            raise UserError(f"clip {clip} frame {frame}: {error}") from None

    def path(self, clip: str, frame: str) -> Path:
        """Return the `.dat` of a frame."""
        return self.folders[clip] / f"{frame}.dat"

    def _find_folder(self, clip: str) -> Path:
        """Find the folder of a clip's `.dat` files; the root itself may be the one clip."""
        tried = [self.root / clip / "spike", self.root / clip, self.root / "spike", self.root]
        for folder in tried:
            if folder.is_dir() and next(folder.glob("*.dat"), None):
                return folder
        raise UserError(f"clip {clip}: no .dat files in {tried[0]} nor in {tried[1]}; correct dataroot_spike")

    def _last_frame(self, clip: str) -> str:
        return max(path.stem for path in self.folders[clip].glob("*.dat"))

    def _check_files(self, clips: Clips) -> None:
        """Check existence, size and window of all files, then the look of the first one."""
        problems = []
        for clip, frames in clips.items():
            for frame in frames:
                try:
                    self._check_window(clip, self._check_size(clip, frame))
                except UserError as error:
                    problems.append(f"clip {clip} frame {frame}: {error}")
        raise_first(problems)
        clip, frames = next(iter(clips.items()))
        height, width = self.sensor[:2]
        likelier = likelier_geometry(self.path(clip, frames[0]), height, width)
        if likelier:
            logger.warning(
                "%s: looks like %dx%d spikes, not like %dx%d; check spike_h and spike_w",
                self.path(clip, frames[0]), *likelier, height, width,
            )  # fmt: skip

    def _check_size(self, clip: str, frame: str) -> int:
        """Compare a file's size with the steps that its timing promises; returns the number of steps."""
        height, width = self.sensor[:2]
        path, timing = self.path(clip, frame), self.timings[clip]
        allowed = [timing.num_steps(frame)]
        if self.manifest is None and frame == self._last[clip]:
            allowed.append(timing.steps - GOPRO_SHORT_BY)
        with suppress(OSError):
            size = os.stat(path).st_size
            for steps in allowed:
                if size * 8 == steps * height * width:
                    return steps
        found = num_steps(path, height, width)
        expected = " or ".join(map(str, allowed))
        raise UserError(
            f"{path} has {found} steps of {height}x{width}, {expected} expected; "
            "correct spike_h and spike_w, or prepare the spikes of this clip again"
        )

    def _check_window(self, clip: str, steps: int) -> None:
        step, half = self.target_step(clip), self.window // 2
        if not half <= step < steps - half:
            raise UserError(
                f"spike.window {self.window} around step {step} leaves the {steps} steps of the file; "
                "lower spike.window or change spike.center"
            )
