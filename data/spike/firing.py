"""Frames whose spikes show nothing: during the exposure no pixel ever fires, or every pixel always does."""

import logging
from collections.abc import Callable, Mapping

import numpy as np

from utils.utils_error import UserError, counted

LOG = logging.getLogger("spikevrt")
VERDICTS = {
    0: "no pixel fires in any {}; was the lens covered, the file preallocated?",
    1: "every pixel fires in each {}; the sensor is saturated, or the file holds no spikes",
}
AGREES = 0.04  # mean of a blurred frame that is black (or white) enough for such spikes, white is 1


def only_bit(steps: np.ndarray, one: int) -> int | None:
    """Return the bit, 0 or 1, that all values of (n, ...) steps show, 0 or `one`; None if they differ.

    Reads no more steps than it needs.
    """
    first = int(steps.flat[0]) if steps.size else None
    if first not in (0, one) or not all((step == first).all() for step in steps):
        return None
    return int(first == one)


def check_firing(where: str, bits: Mapping[str, int | None], mean: Callable[[str], float]) -> None:
    """Warn in one line of frames of a clip whose spikes show nothing, unless the blurred frame is as black or white.

    Args:
        where: what the line begins with.
        bits: frame -> `only_bit` of its exposure, for all frames.
        mean: frame -> mean of the blurred frame, white is 1.

    Raises:
        UserError: they are all frames.
    """
    blind = {name: bit for name, bit in bits.items() if bit is not None and abs(mean(name) - bit) > AGREES}
    if not blind:
        return
    first, bit = next(iter(blind.items()))
    what = VERDICTS[bit].format("step of the exposure")
    line = f"{where}: {len(blind)} of {counted(len(bits), 'frame')}, the first {first}: {what}"
    if len(blind) == len(bits):
        raise UserError(f"{line} (record them again, or leave the clip out)")
    LOG.warning(line)
