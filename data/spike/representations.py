"""From spikes to planes: functions on arrays, without files or options.

Steps count from 0 within the given array. Rates are spikes per step; the caller divides them by the rate of a white
pixel. A spike at step k means that the charge collected *up to* k crossed the threshold, so the interval (a, b] between
two spikes measures the light of the steps a+1 .. b.
"""

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np

from utils.utils_error import UserError


def tfp(spikes: np.ndarray, center: int, window: int) -> np.ndarray:
    """Texture from playback: mean firing rate in `window` (odd) steps around step `center`, (H, W) float32 in [0, 1].

    Raises:
        UserError: the window is even or leaves the stream; the message has center, window and T.
    """
    return _rate(spikes[_window("tfp", center, window, len(spikes))])


def raw_window(spikes: np.ndarray, center: int, window: int) -> np.ndarray:
    """Return the bits of `window` steps, (window, H, W) uint8, in time order; the middle one is `center`; as `tfp`."""
    return spikes[_window("raw_window", center, window, len(spikes))]


def bins(spikes: np.ndarray, count: int) -> np.ndarray:
    """Mean firing rates of S consecutive parts of the given steps, in time order.

    Part k is the steps [k*T//S, (k+1)*T//S): lengths differ by at most one, and every step is used.

    Returns:
        (S, H, W) float32, spikes per step in [0, 1].

    Raises:
        UserError: S, `count`, is not in [1, T].
    """
    steps = len(spikes)
    if not 1 <= count <= steps:
        raise UserError(f"bins: count={count} must lie in [1, T], found T={steps} steps; use fewer bins")
    edges = [k * steps // count for k in range(count + 1)]
    return np.stack([_rate(spikes[first:stop]) for first, stop in pairwise(edges)])


def tfi(spikes: np.ndarray, center: int) -> tuple[np.ndarray, np.ndarray]:
    """Texture from interval: 1 over the number of steps between the two spikes around `center`.

    The interval is t_next - t_prev, with t_prev the last spike <= center and t_next the first spike > center. All given
    steps are searched, including step 0. A pixel without a spike on one side is undefined: its value is its mean rate
    over all T steps, 0 if it never fires.
    This interval measures the light of step center + 1; `isi` returns the one of a given step. In the time-reversed
    stream its center is T - 2 - center.

    Returns:
        Rate (H, W) float32 in [0, 1], and (H, W) bool, True where undefined: everywhere if center is T - 1.

    Raises:
        UserError: center is not in [0, T).
    """
    _check_step("tfi", "center", center, len(spikes))
    return _interval_rate(spikes, center + 1)


def isi(spikes: np.ndarray, steps: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Differential of spike firing times: 1 over the length of the interval that contains each step.

    At step t the interval is (first spike >= t) - (last spike < t): a spike measures the light up to and including its
    step, so a step belongs to the spike that ends its interval. The rate at t thus equals `tfi` at t - 1, which counts
    a spike at its center as the start of the interval. Undefined pixels as in `tfi`; at step 0 all are.

    Returns:
        Rates (S, H, W) float32 in [0, 1], in the order of `steps`, and (S, H, W) bool, True where undefined.

    Raises:
        UserError: no steps are given, or one is not in [0, T).
    """
    if len(steps) == 0:
        raise UserError("isi: no steps given, expected at least one")
    for step in steps:
        _check_step("isi", "step", step, len(spikes))
    rates, undefined = zip(*(_interval_rate(spikes, step) for step in steps), strict=True)
    return np.stack(rates), np.stack(undefined)


def exposure_ratio(tfp_short: np.ndarray, tfp_exposure: np.ndarray) -> np.ndarray:
    """Return short-time over exposure-time firing rate, (h, w) float32; 0 where undefined.

    Times the blurred picture it is a training-free sharp estimate (SDM), from which the sensor's gain cancels out.
    """
    return np.divide(tfp_short, tfp_exposure, out=np.zeros_like(tfp_short), where=tfp_exposure > 0)


def sharpened(blur: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """Multiply a picture (H, W, 3) in [0, 1] by a ratio (H, W); float32, clipped to [0, 1]."""
    return np.clip(blur * ratio[:, :, None], 0, 1).astype(np.float32)


def upsample(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (h, w) float32 bilinearly to `size` (H, W), with half-pixel centres; the border is repeated."""
    return cv2.resize(plane, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


def repeat(planes: np.ndarray, ratio: int) -> np.ndarray:
    """Enlarge (..., h, w) without interpolation: every pixel becomes ratio x ratio equal ones."""
    return np.repeat(np.repeat(planes, ratio, axis=-1), ratio, axis=-2)


def _window(name: str, center: int, window: int, steps: int) -> slice:
    """Return the `window` steps around `center`; UserError if it is even or leaves the stream."""
    first, last = center - window // 2, center + window // 2
    if window < 1 or window % 2 == 0:
        raise UserError(f"{name}: window={window} must be odd and positive (center={center}, T={steps})")
    if first < 0 or last >= steps:
        raise UserError(
            f"{name}: center={center}, window={window} needs steps {first}..{last}, found T={steps}; "
            "use a smaller spike window or another center"
        )
    return slice(first, last + 1)


def _check_step(name: str, argument: str, step: int, steps: int) -> None:
    if not 0 <= step < steps:
        raise UserError(f"{name}: {argument}={step} must lie in [0, T), found T={steps}; use another {argument}")


def _rate(spikes: np.ndarray) -> np.ndarray:
    """Return the mean over all given steps, (H, W) float32, counted in the smallest integer type that holds T."""
    counts = spikes.sum(axis=0, dtype=np.min_scalar_type(len(spikes)))
    return counts.astype(np.float32) / np.float32(len(spikes))


def _interval_rate(spikes: np.ndarray, bound: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rate of the interval from the last spike before step `bound` to the first one at or after it.

    Steps before the bound are numbered 1, 2, .. from the front, the others 1, 2, .. from the back; the largest number
    with a spike is the one next to the bound, and 0 means none.
    """
    steps = len(spikes)
    number = np.arange(1, steps + 1, dtype=np.min_scalar_type(steps))[:, None, None]
    before = (spikes[:bound] * number[:bound]).max(axis=0, initial=0)
    after = (spikes[bound:] * number[::-1][bound:]).max(axis=0, initial=0)
    interval = np.float32(steps + 1) - before.astype(np.float32) - after.astype(np.float32)
    undefined = (before == 0) | (after == 0)
    return np.where(undefined, _rate(spikes), 1 / interval), undefined
