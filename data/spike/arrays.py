"""Planes of spikes in memory, made by the same rules as from files (data.spike.source)."""

from typing import NamedTuple

import numpy as np

from data.geometry import whole_ratio
from data.spike.planes import REPRESENTATIONS, Span, StepWindow
from data.spike.source import PlaneMaker
from data.spike.stream import Timeline, mirrored
from options.schema import SpikeOpt
from utils.utils_error import UserError


class Recording(NamedTuple):
    """What the steps of every frame's spikes mean; None: unknown, an error if it is needed."""

    rate_at_white: float | None = None  # spikes per step of a white pixel
    sharp_step: int | None = None  # the step that the restored frame shows
    exposure: Span | None = None  # [first, last): the steps that the blurred frame integrates
    is_linear: bool = False  # the sensor integrated linear light, not sRGB
    continuous: bool = False  # the steps of consecutive frames are one stream without a gap


def planes_of(frames: np.ndarray, spikes: np.ndarray, opt: SpikeOpt, channels: int, recording: Recording) -> np.ndarray:
    """Make the planes of all frames of a clip on the RGB grid.

    Args:
        frames: (T, H, W, 3) RGB, uint8 or float32 in [0, 1].
        spikes: (T, steps, h, w) uint8, 0 or 1, row 0 at the top; H / h = W / w is whole.
        opt: how spikes become planes; `rate_at_white` and `center` replace missing values of `recording`.
        channels: S, planes per frame.
        recording: what the steps mean.

    Returns:
        (T, S, H, W) float32 in sRGB; white is 1, not clipped above.

    Raises:
        UserError: sizes do not match, or something that the representation needs is missing or outside the steps.
    """
    ratio = whole_ratio(frames.shape[1:3], spikes.shape[2:])
    if not ratio:
        raise UserError(
            "spikes: found {}x{} pixels under frames of {}x{}, expected the same whole ratio along both axes; crop or "
            "resize the frames".format(*spikes.shape[2:], *frames.shape[1:3])
        )
    center, exposure = _times(opt, recording, spikes.shape[1])
    rate = recording.rate_at_white if recording.rate_at_white is not None else opt.rate_at_white
    if rate is None:
        raise UserError("rate_at_white: is missing and spike.rate_at_white of the options is null; give one of them")
    if not 0 < rate <= 1:
        raise UserError(f"rate_at_white: found {rate:g}, expected spikes per step of a white pixel, above 0, at most 1")
    represent = REPRESENTATIONS[opt.representation]
    finish = PlaneMaker(represent, channels, rate, recording.is_linear)
    reach = represent.reach(opt.window, center, exposure)
    steps: int = spikes.shape[1]
    names = [f"{index:06d}" for index in range(len(spikes))]
    timeline = Timeline(dict.fromkeys(names, steps), recording.continuous)
    planes = []
    for name, frame in zip(names, frames, strict=True):
        moment = StepWindow(
            _steps(spikes, timeline, name, reach, opt),
            center - reach[0],
            (exposure[0] - reach[0], exposure[1] - reach[0]),
        )
        enlarged = finish.enlarged(represent.make(moment, opt.window, channels), ratio)
        planes.append(finish.planes(enlarged, frame))
    return np.stack(planes).astype(np.float32, copy=False)


def _times(opt: SpikeOpt, recording: Recording, steps: int) -> tuple[int, Span]:
    """Return target step and exposure; arbitrary values where the representation does not use them."""
    represent = REPRESENTATIONS[opt.representation]
    center = opt.center if recording.sharp_step is None else recording.sharp_step
    exposure = recording.exposure
    if center is None:
        if represent.reads_window:
            raise UserError("sharp_step: is missing and spike.center of the options is null; give one of them")
        center = 0
    if exposure is None:
        if represent.reads_exposure:
            raise UserError(f"exposure: is missing, expected [first, last) for planes of {opt.representation!r}")
        exposure = (0, steps)
    if not 0 <= center < steps:
        raise UserError(f"sharp_step: found {center}, expected one of the {steps} steps of a frame, counted from 0")
    if not 0 <= exposure[0] < exposure[1] <= steps:
        raise UserError(f"exposure: found {tuple(exposure)}, expected [first, last) within a frame's {steps} steps")
    return center, (exposure[0], exposure[1])


def _steps(spikes: np.ndarray, timeline: Timeline, name: str, reach: Span, opt: SpikeOpt) -> np.ndarray:
    """Return the steps around a frame, (n, h, w); mirrored at the stream's ends if `spike.edge` says so."""
    cut = timeline.cut(name, *reach)
    pieces = [spikes[int(at), first:last] for at, first, last in cut.pieces]
    existing = sum(len(piece) for piece in pieces)
    if not cut.is_whole and (opt.edge != "mirror" or max(cut.before, cut.after) > existing):
        raise UserError(
            f"spikes of frame {int(name)}: steps {reach[0]}..{reach[1] - 1} are needed, the stream has "
            f"{reach[0] + cut.before}..{reach[1] - 1 - cut.after}; give more steps, another sharp_step, or "
            "continuous=True if the frames' steps are consecutive"
        )
    joined = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    return joined if cut.is_whole else mirrored(joined, cut.before, cut.after)
