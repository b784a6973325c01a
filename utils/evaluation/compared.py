"""Images as metrics see them, in pairs: what several metrics need is computed once."""

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np

from utils.utils_error import UserError

WINDOW, SIGMA = 11, 1.5
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
STRIP = 16  # rows processed at once; their intermediate results fit into the CPU cache
LUMA = np.array([65.481, 128.553, 24.966]) / 255  # BT.601; black is 16, white 235
FARNEBACK = (0.5, 3, 15, 3, 5, 1.2, 0)  # pyramid scale, levels, window, iterations, poly_n, poly_sigma, flags


class View:
    """One image without its border, with intermediate results shared by several metrics."""

    def __init__(self, image: np.ndarray, border: int) -> None:
        height, width = image.shape[:2]
        if not 0 <= 2 * border < min(height, width):
            raise UserError(f"a border of {border} pixels leaves nothing of {height}x{width}; make it smaller")
        self.pixels = image[border : height - border, border : width - border]

    @cached_property
    def rgb(self) -> np.ndarray:
        return self.pixels.astype(np.float64)

    @cached_property
    def luma(self) -> np.ndarray:
        return cv2.transform(self.rgb, np.append(LUMA, 16)[None])

    @cached_property
    def mean_rgb(self) -> np.ndarray:
        return _blur(self.rgb)

    @cached_property
    def mean_luma(self) -> np.ndarray:
        return _blur(self.luma)


class _Moments(NamedTuple):
    """Gaussian means around each pixel: of both images, of their product, and of the sum of their squares."""

    a: np.ndarray
    b: np.ndarray
    product: np.ndarray
    squares: np.ndarray

    def similarity(self, change: Callable[[np.ndarray], np.ndarray] = lambda rows: rows) -> float:
        """Mean structural similarity, Wang et al. 2004, equation 13; `change` is applied to STRIP rows at a time."""
        total = 0.0
        for first in range(0, len(self.a), STRIP):
            rows = slice(first, first + STRIP)
            a, b, product, squares = (change(of[rows]) for of in self)
            means, squared_means = a * b, a**2 + b**2
            covariance, variances = product - means, squares - squared_means
            total += np.sum((2 * means + C1) * (2 * covariance + C2) / ((squared_means + C1) * (variances + C2)))
        return float(total / self.a.size)

    @property
    def valid(self) -> "_Moments":
        """The moments of windows that lie inside the image."""
        inner = slice(WINDOW // 2, -(WINDOW // 2))
        return _Moments(*(of[inner, inner] for of in self))


class Pair:
    """Two images of the same shape, with intermediate results shared by several metrics."""

    def __init__(self, a: View, b: View) -> None:
        self.a, self.b = a, b

    @cached_property
    def rgb(self) -> _Moments:
        return _moments(self.a.rgb, self.b.rgb, self.a.mean_rgb, self.b.mean_rgb)

    @property
    def luma(self) -> _Moments:
        return _moments(self.a.luma, self.b.luma, self.a.mean_luma, self.b.mean_luma)


class Motion:
    """Two consecutive frames, with their optical flow."""

    def __init__(self, before: np.ndarray, after: np.ndarray) -> None:
        self.before, self.after = before, after

    @cached_property
    def flow(self) -> np.ndarray:
        """Farneback's optical flow of the gray frames by OpenCV, (H, W, 2) in pixels."""
        gray = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (self.before, self.after)]
        return np.asarray(cv2.calcOpticalFlowFarneback(*gray, None, *FARNEBACK))  # type: ignore[call-overload]


def check_pair(a: np.ndarray, b: np.ndarray) -> None:
    """Raise ValueError where two images are not of the same shape (H, W, 3) and uint8."""
    if a.shape != b.shape or a.ndim != 3 or a.dtype != np.uint8 or b.dtype != np.uint8:
        raise ValueError(f"expected two uint8 (H, W, 3) images, got {a.dtype} {a.shape} and {b.dtype} {b.shape}")


def _moments(a: np.ndarray, b: np.ndarray, mean_a: np.ndarray, mean_b: np.ndarray) -> _Moments:
    product, squares = a * b, a**2
    squares += b**2
    return _Moments(mean_a, mean_b, _blur(product), _blur(squares))


def _blur(plane: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(plane, (WINDOW, WINDOW), SIGMA, borderType=cv2.BORDER_REPLICATE)
