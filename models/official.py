"""The constant buffers of official checkpoints, derived from the parameters' shapes."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from models.flow.spynet import IMAGENET_MEAN, IMAGENET_STD
from models.vrt.attention import relative_position_index, sine_position_code
from utils.utils_error import UserError

TABLE, MUTUAL = "relative_position_bias_table", "qkv_mut.weight"


def official_buffers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Constant buffers of the official state_dict with these parameters, all of a VRT.

    Returns:
        `relative_position_index` of each attention, `position_bias` of each mutual attention, and the mean and standard
        deviation with which the optical flow normalises frames.

    Raises:
        UserError: the parameters are not those of a VRT with square windows.
    """
    buffers = {}
    prefixes = [key.removesuffix(TABLE) for key in state if key.endswith(f".{TABLE}")]
    side = _window_side([state[prefix + TABLE].shape[0] for prefix in prefixes if prefix + MUTUAL in state])
    for prefix in prefixes:
        depth = _window_depth(prefix, state[prefix + TABLE].shape[0], side)
        buffers[f"{prefix}relative_position_index"] = relative_position_index((depth, side, side))
        if prefix + MUTUAL in state:
            channels = state[prefix + MUTUAL].shape[1]
            buffers[f"{prefix}position_bias"] = sine_position_code(side, side, channels)
    if any(key.startswith("spynet.") for key in state):
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            buffers[f"spynet.{name}"] = torch.tensor(values).view(1, 3, 1, 1)
    return buffers


def _window_side(rows: list[int]) -> int:
    """Side of the windows: tables of mutual attention have 3 * (2 * side - 1)**2 rows."""
    side = (math.isqrt(rows[0] // 3) + 1) // 2 if rows else 0
    if any(count != 3 * (2 * side - 1) ** 2 for count in rows) or not rows:
        raise UserError("the weights are not those of a VRT with square windows; use --layout plain")
    return side


def _window_depth(prefix: str, rows: int, side: int) -> int:
    """Frames of a window whose table has (2 * depth - 1) * (2 * side - 1)**2 rows."""
    doubled, rest = divmod(rows, (2 * side - 1) ** 2)
    if rest or doubled % 2 == 0:
        raise UserError(f"{prefix}{TABLE} has {rows} rows, which fit no window of {side}x{side}; use --layout plain")
    return (doubled + 1) // 2
