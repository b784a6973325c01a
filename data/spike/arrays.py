"""Planes of spikes in memory, made by the same rules as from files (data.spike.source)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data.geometry import Box, whole_ratio
from data.instants import steps_at
from data.spike.alignment import IDENTITY, Matrix, warp_of
from data.spike.frame_planes import FramePlanes, PlaneMaker, stacked
from data.spike.planes import REPRESENTATIONS, Span, instant_problem, tfp_of
from data.spike.reader import window_of
from data.spike.representations import upsample
from data.spike.source import picture_gain
from data.spike.stream import Timeline, mirrored
from options.schema import SpikeOpt
from utils.utils_colour import mean_gray
from utils.utils_error import UserError


class Recording(NamedTuple):
    """What the steps of every frame's spikes mean; None: unknown, an error if it is needed."""

    rate_at_white: float | None = None  # spikes per step of a white pixel
    sharp_step: int | None = None  # the step that the restored frame shows
    exposure: Span | None = None  # [first, last): the steps that the blurred frame integrates
    is_linear: bool = False  # the sensor integrated linear light, not sRGB
    continuous: bool = False  # the steps of consecutive frames are one stream without a gap
    matrix: Matrix | None = None  # from the frames' spike grid to the sensor; None: they are the same


def planes_of(
    frames: np.ndarray,
    spikes: np.ndarray,
    opt: SpikeOpt,
    channels: int,
    recording: Recording,
    times: Sequence[float] = (),
) -> FramePlanes:
    """Make the planes of all frames of a clip.

    Args:
        frames: (T, H, W, 3) RGB, uint8 or float32 in [0, 1].
        spikes: (T, steps, h, w) uint8, 0 or 1, row 0 at the top; H / h = W / w is whole.
        opt: how spikes become planes; `rate_at_white` and `center` replace missing values of `recording`.
        channels: S, planes per frame.
        recording: what the steps mean.
        times: n fractions of the exposure to show instead of the sharp step; T below is then T n, in order of time.

    Returns:
        planes (T, S, h, w) on the sensor's grid (a ratio: (T, S, H, W)) and, for counts, scale (T, S).

    Raises:
        UserError: sizes do not match, or something that the representation needs is missing or outside the steps.
    """
    _check_ratio(frames, spikes)
    if times and (unable := instant_problem(opt.representation)):
        raise UserError(unable)
    steps: int = spikes.shape[1]
    size = spikes.shape[2], spikes.shape[3]
    centers, exposure = _steps_shown(opt, recording, steps, times)
    represent, is_linear = REPRESENTATIONS[opt.representation], recording.is_linear
    by_picture = represent.gives == "counts" and opt.gain == "picture"
    rate = _rate_at_white(opt, recording, is_used=not by_picture)
    warp = warp_of(recording.matrix or IDENTITY, size)
    maker = PlaneMaker(represent, channels, window_of(opt, exposure), exposure, rate, is_linear, warp, warp.moves)
    names = [f"{index:06d}" for index in range(len(spikes))]
    timeline = Timeline(dict.fromkeys(names, steps), recording.continuous)
    whole = Box(0, 0, *size)
    part = warp.region(whole)
    spikes = spikes[:, :, part.rows, part.cols]
    found = []
    for name, own, frame in zip(names, spikes, frames, strict=True):
        gain = 1 / rate
        if by_picture:
            exposed = own[slice(*exposure)]
            seen = (warp(tfp_of(exposed)[None], whole) if warp.moves else exposed).mean(dtype=np.float64)
            gain = picture_gain(mean_gray(frame, is_linear=is_linear), float(seen))
        for step in centers:
            reach = maker.reach(step)
            made = maker.made(maker.moment(_steps(spikes, timeline, name, reach, opt), reach[0], step), whole)
            if represent.gives == "ratio":
                found.append(maker.picture(upsample(made[0], (frame.shape[0], frame.shape[1])), frame))
            else:
                found.append(maker.finished(made, gain))
    return stacked(found)


def _check_ratio(frames: np.ndarray, spikes: np.ndarray) -> None:
    if not whole_ratio(frames.shape[1:3], spikes.shape[2:]):
        raise UserError(
            "spikes: found {}x{} pixels under frames of {}x{}, expected the same whole ratio along both axes; crop or "
            "resize the frames".format(*spikes.shape[2:], *frames.shape[1:3])
        )


def _rate_at_white(opt: SpikeOpt, recording: Recording, *, is_used: bool) -> float:
    """Return the sensor's rate at white; an arbitrary value if it is unknown and not used."""
    rate = recording.rate_at_white if recording.rate_at_white is not None else opt.rate_at_white
    if rate is None and is_used:
        raise UserError("rate_at_white: is missing and spike.rate_at_white of the options is null; give one of them")
    if rate is not None and not 0 < rate <= 1:
        raise UserError(f"rate_at_white: found {rate:g}, expected spikes per step of a white pixel, above 0, at most 1")
    return 1.0 if rate is None else rate


def _steps_shown(opt: SpikeOpt, recording: Recording, steps: int, times: Sequence[float]) -> tuple[list[int], Span]:
    """Return the steps to show and the exposure; arbitrary values where the representation does not use them."""
    represent = REPRESENTATIONS[opt.representation]
    center = opt.center if recording.sharp_step is None else recording.sharp_step
    exposure = recording.exposure
    if center is None:
        if represent.reads_window and not times:
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
    return steps_at(exposure, times, "times", "a frame") or [center], exposure


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
