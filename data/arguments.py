"""Check what Restorer is given: a UserError names the argument, what was given and what is expected, in one line."""

import logging
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from data.geometry import whole_ratio
from data.spike.alignment import Alignment, Matrix
from data.spike.arrays import Recording
from data.spike.firing import check_firing, only_bit
from data.spike.planes import Span
from utils.utils_error import UserError
from utils.utils_tile_opt import TileOpt

LOG = logging.getLogger("spikevrt")
T = TypeVar("T", np.ndarray, np.ndarray | None)
RGB = 3
MOST = 60  # characters of a value in a message


def refused(name: str, value: object, expected: str) -> UserError:
    """Return the error of an argument, one line whatever the value prints."""
    text = " ".join(repr(value).split())
    return UserError(f"{name}: found {text if len(text) <= MOST else text[:MOST] + '...'}, expected {expected}")


def number(name: str, value: object, expected: str) -> float:
    """Return a number, of Python, NumPy or PyTorch; UserError for anything else, True and False too."""
    plain = value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value
    if isinstance(plain, bool) or not isinstance(plain, int | float):
        raise refused(name, value, expected)
    return plain


def whole(name: str, value: object, expected: str) -> int:
    """Return a whole number, which may be a float such as 10.0; UserError for anything else."""
    plain = number(name, value, expected)
    if plain % 1 != 0:  # also NaN and infinity
        raise refused(name, value, expected)
    return int(plain)


def items(name: str, value: object, expected: str) -> list[object]:
    """Return the items of a list, a tuple, an array or the like; UserError for text and for what has no order."""
    is_list = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping | Set)
    if not is_list or not getattr(value, "ndim", 1):  # of no dimension: one number
        raise refused(name, value, expected)
    return list(value)  # type: ignore[call-overload]


def path_of(name: str, value: object, expected: str) -> Path:
    """Return a path; UserError for anything but text or a path."""
    if not isinstance(value, str | Path):
        raise refused(name, value, expected)
    return Path(value).expanduser()


def _matrix(matrix: np.ndarray | None) -> Matrix | None:
    if matrix is None:
        return None
    try:
        return Alignment(matrix=np.asarray(matrix, float).tolist()).matrix
    except (TypeError, ValueError):
        raise refused("alignment", matrix, "a 3x3 matrix near the identity; see docs/alignment.md") from None


def recording_of(
    rate_at_white: float | None,
    sharp_step: int | None,
    exposure: tuple[int, int] | None,
    transfer: str,
    continuous: bool,
    alignment: np.ndarray | None,
) -> Recording:
    """Return what the steps of spikes mean; None stays None."""
    rate, step, span = rate_at_white, sharp_step, None
    if rate is not None:
        rate = number("rate_at_white", rate, "spikes per step of a white pixel")
    if step is not None:
        step = whole("sharp_step", step, "a step of a frame, a whole number")
    if exposure is not None:
        wanted = "(first, last), two steps of a frame, whole numbers"
        found = [whole("exposure", item, wanted) for item in items("exposure", exposure, wanted)]
        if len(found) != 2:
            raise refused("exposure", exposure, wanted)
        span = found[0], found[1]
    if not isinstance(transfer, str) or transfer not in ("srgb", "linear"):
        raise refused("transfer", transfer, "'srgb' or 'linear'")
    if not isinstance(continuous, bool | np.bool_):
        raise refused("continuous", continuous, "True or False")
    return Recording(rate, step, span, transfer == "linear", bool(continuous), _matrix(alignment))


def check_tile(tile: object) -> None:
    """Refuse anything but a TileOpt or None."""
    if tile is not None and not isinstance(tile, TileOpt):
        raise refused("tile", tile, "a TileOpt, such as TileOpt(frames=12, size=(256, 256)), of utils.utils_tile_opt")


def array(name: str, value: T) -> T:
    """The array without negative strides, which PyTorch does not support; None stays None."""
    if value is None:
        return value
    if not isinstance(value, np.ndarray):
        raise UserError(f"{name}: found a {type(value).__name__}, expected a NumPy array")
    return np.ascontiguousarray(value)


def check_frames(frames: np.ndarray, *, clean: bool) -> None:
    """Refuse anything but (T, H, W, 3), uint8 or float and, if `clean`, in [0, 1]."""
    if frames.ndim != 4 or frames.shape[3] != RGB or not all(frames.shape):
        raise UserError(f"frames: found an array of {frames.shape}, expected (T, H, W, 3) RGB, not empty")
    if frames.dtype == np.uint8:
        if frames.max() == 1:
            LOG.warning(
                "frames: found uint8 values of 0 and 1 alone, expected 0 to 255; floats in [0, 1] must stay floats"
            )
        return
    if not np.issubdtype(frames.dtype, np.floating):
        raise UserError(f"frames: found {frames.dtype}, expected uint8 or floats in [0, 1]; convert them")
    low, high = float(frames.min()), float(frames.max())
    if not np.isfinite([low, high]).all() or (clean and (low < 0 or high > 1)):
        raise UserError(f"frames: found values from {low:g} to {high:g}, expected [0, 1]; scale or clip them")


def checked_times(times: Sequence[float]) -> tuple[float, ...]:
    """Return fractions of the exposure, which must ascend from 0 to 1 at most."""
    wanted = "ascending fractions of the exposure, from 0 to 1, such as [0.25, 0.5]"
    found = tuple(float(number("times", time, wanted)) for time in items("times", times, wanted))
    if any(not 0 <= time <= 1 for time in found) or any(a >= b for a, b in pairwise(found)):
        raise refused("times", list(found), wanted)
    return found


def checked_spikes(spikes: np.ndarray, count: int) -> np.ndarray:
    """(T, steps, h, w) uint8, 0 or 1."""
    if spikes.ndim != 4 or not all(spikes.shape) or len(spikes) != count:
        raise UserError(f"spikes: found an array of {spikes.shape}, expected ({count}, steps, h, w)")
    if spikes.dtype not in (np.bool_, np.uint8) or int(spikes.max()) > 1:
        raise UserError(f"spikes: found {spikes.dtype} up to {spikes.max()}, expected bool or uint8, 0 or 1")
    return spikes.view(np.uint8)


def check_spikes_show(spikes: np.ndarray, frames: np.ndarray, exposure: Span | None) -> None:
    """Warn of frames whose spikes never or always fire; UserError if they are all; arguments as of planes_of."""
    bits = {str(index): only_bit(own[slice(*exposure or (None,))], 1) for index, own in enumerate(spikes)}
    white = 255 if frames.dtype == np.uint8 else 1
    check_firing("spikes", bits, lambda index: float(frames[int(index)].mean()) / white)


def checked_planes(planes: np.ndarray, frames: np.ndarray, channels: int) -> Tensor:
    """(T, S, h, w) float32."""
    wanted = (len(frames), channels, *frames.shape[1:3])
    fits = planes.shape[:2] == wanted[:2] and planes.ndim == 4 and whole_ratio(wanted[2:], planes.shape[2:])
    if not fits or not np.issubdtype(planes.dtype, np.floating):
        raise UserError(
            f"planes: found {planes.dtype} of {planes.shape}, expected floats of {wanted}, or rows and columns smaller "
            "by a whole ratio; white is 1"
        )
    if not np.isfinite(planes).all():
        raise UserError("planes: found NaN or infinite values, expected finite ones, white is 1")
    return torch.from_numpy(planes.astype(np.float32))
