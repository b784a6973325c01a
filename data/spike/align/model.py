"""Geometry between two cameras: shift, similarity or homography, as 8 parameters in units of the picture."""

from typing import NamedTuple

import numpy as np

from data.spike.alignment import Model

_E = np.eye(8)
# Columns along which each model moves; simplest first.
MODELS: dict[Model, np.ndarray] = {
    "shift": _E[:, :2],
    "similarity": np.stack([_E[0], _E[1], _E[2] + _E[5], _E[4] - _E[3]], axis=1),
    "homography": _E,
}


class Grid(NamedTuple):
    """A picture of (height, width), possibly divided by a factor; positions are relative to its centre, the half
    diagonal is 1."""

    height: int
    width: int
    factor: int = 1

    @property
    def unit(self) -> float:
        """Pixels per unit."""
        return float(np.hypot(self.height, self.width) / 2)

    @property
    def middle(self) -> tuple[float, float]:
        """Centre (x, y) in pixels; pixel centres are whole numbers."""
        return (self.width - 1) / 2, (self.height - 1) / 2

    def places(self) -> np.ndarray:
        """Return all pixels, (2, h, w)."""
        y, x = np.mgrid[: self.height, : self.width]
        return np.stack([(x - self.middle[0]) / self.unit, (y - self.middle[1]) / self.unit])

    def pixels(self, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y in pixels, float32, of positions (2, h, w)."""
        return tuple((part * self.unit + at).astype(np.float32) for part, at in zip(where, self.middle, strict=True))

    def corners(self) -> np.ndarray:
        """Return the outermost pixels, (2, 4)."""
        x, y = np.array([-1, 1, 1, -1]) * self.middle[0], np.array([-1, -1, 1, 1]) * self.middle[1]
        return np.stack([x, y]) / self.unit

    def largest(self, change: np.ndarray) -> float:
        """Return by how many pixels a small change of the parameters moves the corner that it moves most."""
        return self.apart(change, np.zeros(8))

    def apart(self, first: np.ndarray, second: np.ndarray) -> float:
        """Return the distance in pixels between where two parameters take the corner that they take farthest apart."""
        away = moved_to(self.corners(), first) - moved_to(self.corners(), second)
        return float(np.hypot(*away).max() * self.unit)

    def corner_error(self, params: np.ndarray, covariance: np.ndarray) -> float:
        """Return the standard error in pixels at the worst corner, of parameters with a covariance (8, 8)."""
        turns = slopes(self.corners(), params)  # (8, 2, 4)
        variances = np.einsum("kac,kl,lac->c", turns, covariance, turns)
        return float(np.sqrt(max(variances.max(), 0)) * self.unit)


def moved_to(where: np.ndarray, params: np.ndarray) -> np.ndarray:
    """Return where positions (2, ...) go."""
    x, y = where
    p = params
    below = p[6] * x + p[7] * y + 1
    return np.stack([((1 + p[2]) * x + p[3] * y + p[0]) / below, (p[4] * x + (1 + p[5]) * y + p[1]) / below])


def slopes(where: np.ndarray, params: np.ndarray) -> np.ndarray:
    """Return how the positions that (2, ...) go to change with each parameter, (8, 2, ...)."""
    x, y = where
    to = moved_to(where, params)
    below = params[6] * x + params[7] * y + 1
    one, none = np.ones_like(x), np.zeros_like(x)
    across = [one, none, x, y, none, none, -to[0] * x, -to[0] * y]
    down = [none, one, none, none, x, y, -to[1] * x, -to[1] * y]
    return np.stack([np.stack(across), np.stack(down)], axis=1) / below


def matrix_of(params: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the 3x3 matrix that maps pixels (x, y, 1) of a frame's spike grid to pixels of the sensor.

    Args:
        params: (8,) in units of the grid.
        grid: the grid that was compared; its factor is the sensor's pixels per pixel.
    """
    p = params
    own = np.array([[1 + p[2], p[3], p[0]], [p[4], 1 + p[5], p[1]], [p[6], p[7], 1]])
    matrix = _to_pixels(grid) @ own @ np.linalg.inv(_to_pixels(grid))
    return matrix / matrix[2, 2]


def params_of(matrix: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the parameters of a matrix; the inverse of `matrix_of`."""
    own = np.linalg.inv(_to_pixels(grid)) @ np.asarray(matrix) @ _to_pixels(grid)
    own = own / own[2, 2] - np.eye(3)
    return np.array([own[0, 2], own[1, 2], own[0, 0], own[0, 1], own[1, 0], own[1, 1], own[2, 0], own[2, 1]])


def _to_pixels(grid: Grid) -> np.ndarray:
    """Return the matrix from positions in units of a grid to pixels of the sensor."""
    scale, first = grid.factor, (grid.factor - 1) / 2
    middle = [scale * at + first for at in grid.middle]
    return np.array([[scale * grid.unit, 0, middle[0]], [0, scale * grid.unit, middle[1]], [0, 0, 1]])
