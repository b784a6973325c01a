"""How the spike camera sees the scene compared with the RGB camera: what a manifest says of it, and planes moved by it.

The matrix maps a pixel (x, y, 1) of a frame's spike grid, the frame divided by the ratio, to the sensor's pixel. Pixel
centres are whole numbers.
"""

from functools import lru_cache
from typing import Annotated, Literal

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from data.geometry import Box
from utils.spike_loader import Size

Model = Literal["shift", "similarity", "homography"]
Row = tuple[float, float, float]
Matrix = tuple[Row, Row, Row]
IDENTITY: Matrix = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
FINENESS = 32  # positions are rounded to such parts of a pixel, so that a crop equals that part of the whole
REACH = 4  # pixels that the kernel reads to each side
FARTHEST = 0.5  # of linear part and perspective from the identity: more is no pair of cameras side by side


class Alignment(BaseModel):
    """Where and when the spikes of a clip lie relative to its frames."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    matrix: Matrix  # from a frame's spike grid to the sensor
    model: Model = "homography"  # what was fitted
    error: Annotated[float, Field(ge=0)] | None = (
        None  # standard error at the worst corner, spike pixels; None: unknown
    )
    steps: int = 0  # steps by which spikes lie later than `exposure` and `sharp_step` say
    steps_error: Annotated[float, Field(ge=0)] | None = None  # standard error in steps; None: not measured
    longer: int = 0  # steps by which the exposure is longer than `exposure` says

    @field_validator("matrix")
    @classmethod
    def _near_identity(cls, value: Matrix) -> Matrix:
        matrix = np.array(value)
        if abs(np.linalg.det(matrix)) < 1e-6 or matrix[2, 2] == 0:
            raise ValueError("matrix cannot be inverted, must map a frame's spike grid to the sensor")
        away = np.abs(matrix / matrix[2, 2] - np.eye(3))
        if away[:2, :2].max() > FARTHEST or away[2, :2].max() > FARTHEST / 100:
            raise ValueError(f"matrix is far from the identity (by {away[:2, :2].max():g}), must turn and scale little")
        return value


class Warp:
    """Moves planes from a sensor to the spike grid of the frames; the sensor's border is repeated.

    Lanczos' kernel of four pixels to each side: a bilinear one blurs single spikes, which cost up to 1.2 dB after
    restoration. Its sums may leave the range of the values by a few tenths of it. With IDENTITY nothing is interpolated
    and planes keep their type. Both grids are of one size (h, w).
    """

    def __init__(self, matrix: Matrix | np.ndarray, size: Size) -> None:
        self.moves = not np.array_equal(matrix, IDENTITY)
        if not self.moves:
            self.outside = 0.0
            return
        y, x = np.mgrid[: size[0], : size[1]]
        there = np.tensordot(np.asarray(matrix, np.float64), np.stack([x, y, np.ones_like(x)]), 1)
        exact = there[:2] / there[2]
        limits = np.array([size[1] - 1, size[0] - 1])[:, None, None]
        self.outside = float(((exact < -0.5) | (exact > limits + 0.5)).any(0).mean())  # share of the frame's pixels
        self._where = np.rint(np.clip(exact, 0, limits) * FINENESS) / FINENESS

    def region(self, box: Box) -> Box:
        """Return the part of the sensor that a part of the frame is made of."""
        if not self.moves:
            return box
        x, y = self._where[:, box.rows, box.cols]
        limits = self._where.shape[2] - 1, self._where.shape[1] - 1
        (left, right), (top, bottom) = (
            (max(int(at.min()) - REACH + 1, 0), min(int(at.max()) + REACH, last))
            for at, last in zip((x, y), limits, strict=True)
        )
        return Box(top, left, bottom - top + 1, right - left + 1)

    def __call__(self, planes: np.ndarray, box: Box) -> np.ndarray:
        """Move planes (S, h, w) of `region(box)` to the wanted part, (S, box.height, box.width) float32."""
        if not self.moves:
            return planes
        region = self.region(box)
        x, y = self._where[:, box.rows, box.cols]
        x, y = (x - region.left).astype(np.float32), (y - region.top).astype(np.float32)
        how = cv2.INTER_LANCZOS4, None, cv2.BORDER_REPLICATE
        return np.stack([cv2.remap(plane.astype(np.float32), x, y, *how) for plane in planes])  # type: ignore[call-overload]


def displaced(matrix: Matrix, by: tuple[float, float]) -> Matrix:
    """Return the matrix of a sensor each of whose pixels sees what lies (down, right) of its place, in pixels."""
    x, y, one = np.array(matrix)
    moved = np.array([x - by[1] * one, y - by[0] * one, one])
    return tuple(tuple(map(float, row)) for row in moved)  # type: ignore[return-value]


warp_of = lru_cache(maxsize=16)(Warp)
