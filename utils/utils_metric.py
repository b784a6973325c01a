"""Named image metrics on uint8 RGB frames: what the numbers of a paper are computed with."""

from collections.abc import Callable

import cv2
import numpy as np

from utils.utils_error import UserError

WINDOW, SIGMA = 11, 1.5
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
PROTOCOL = (
    "vrt: uint8 RGB, frames -> clip mean -> mean over clips, border 0; PSNR over all channels; "
    "SSIM 11x11 Gaussian sigma 1.5, valid region, mean of the channels; _y: BT.601 studio luma; "
    "ssim_matlab_rgb: 3-D Gaussian over height, width and channel"
)


def psnr(a: np.ndarray, b: np.ndarray, border: int = 0) -> float:
    """Peak signal-to-noise ratio over all channels.

    Args:
        a: (H, W, 3) uint8, RGB.
        b: the same shape.
        border: pixels cut off at each side before comparing.

    Returns:
        Decibels; infinity for equal images.
    """
    return _psnr(*_pair(a, b, border))


def ssim(a: np.ndarray, b: np.ndarray, border: int = 0) -> float:
    """Mean structural similarity of the channels: 11x11 Gaussian, sigma 1.5, valid region. See `psnr`."""
    return _ssim(*_pair(a, b, border))


def psnr_y(a: np.ndarray, b: np.ndarray, border: int = 0) -> float:
    """Like `psnr`, of the BT.601 luma in 16..235, not rounded."""
    return _psnr(*map(_luma, _pair(a, b, border)))


def ssim_y(a: np.ndarray, b: np.ndarray, border: int = 0) -> float:
    """Like `ssim`, of the BT.601 luma in 16..235, not rounded."""
    return _ssim(*map(_luma, _pair(a, b, border)))


def ssim_matlab_rgb(a: np.ndarray, b: np.ndarray, border: int = 0) -> float:
    """Like MATLAB's ssim() of an RGB array: a 3-D Gaussian over height, width and channel, edges replicated.

    The published GoPro and DVD tables use this one; it lies about 0.01 above `ssim`.
    """
    kernel = cv2.getGaussianKernel(WINDOW, SIGMA)[:, 0]
    mix = np.zeros((3, 3))
    for channel in range(3):
        for offset, weight in enumerate(kernel, start=-(WINDOW // 2)):
            mix[channel, np.clip(channel + offset, 0, 2)] += weight

    def blur(image: np.ndarray) -> np.ndarray:
        plane = cv2.GaussianBlur(image, (WINDOW, WINDOW), SIGMA, borderType=cv2.BORDER_REPLICATE)
        return cv2.transform(plane, mix)

    return float(_ssim_map(*_pair(a, b, border), blur).mean())


METRICS: dict[str, Callable[[np.ndarray, np.ndarray, int], float]] = {
    "psnr": psnr,
    "ssim": ssim,
    "psnr_y": psnr_y,
    "ssim_y": ssim_y,
    "ssim_matlab_rgb": ssim_matlab_rgb,
}


def _pair(a: np.ndarray, b: np.ndarray, border: int) -> tuple[np.ndarray, np.ndarray]:
    if a.shape != b.shape or a.ndim != 3 or a.dtype != np.uint8 or b.dtype != np.uint8:
        raise ValueError(f"expected two uint8 (H, W, 3) images, got {a.dtype} {a.shape} and {b.dtype} {b.shape}")
    height, width = a.shape[:2]
    inner = slice(border, height - border), slice(border, width - border)
    return a[inner].astype(np.float64), b[inner].astype(np.float64)


def _luma(rgb: np.ndarray) -> np.ndarray:
    return rgb @ np.array([65.481, 128.553, 24.966]) / 255 + 16


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a - b) ** 2)
    return float(20 * np.log10(255 / np.sqrt(error))) if error > 0 else float("inf")


def _ssim(a: np.ndarray, b: np.ndarray) -> float:
    if min(a.shape[:2]) < WINDOW:
        raise UserError(
            f"SSIM needs at least {WINDOW}x{WINDOW} pixels, got {a.shape[0]}x{a.shape[1]}; ask for PSNR only"
        )
    valid = slice(WINDOW // 2, -(WINDOW // 2))

    def blur(image: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(image, (WINDOW, WINDOW), SIGMA)[valid, valid]

    return float(_ssim_map(a, b, blur).mean())


def _ssim_map(a: np.ndarray, b: np.ndarray, blur: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Structural similarity of each pixel, Wang et al. 2004, equation 13."""
    mean_a, mean_b = blur(a), blur(b)
    mean_ab, squares = mean_a * mean_b, mean_a**2 + mean_b**2
    covariance = blur(a * b) - mean_ab
    variances = blur(a * a + b * b) - squares
    return (2 * mean_ab + C1) * (2 * covariance + C2) / ((squares + C1) * (variances + C2))
