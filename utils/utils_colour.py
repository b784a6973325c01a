"""Gray values, and conversion between sRGB and linear light."""

import cv2
import numpy as np

BT601 = (0.299, 0.587, 0.114)  # weights of red, green and blue in the gray value


def to_gray(rgb: np.ndarray) -> np.ndarray:
    """Return the BT.601 luma of (..., 3) float RGB: (...), same dtype and range."""
    return np.asarray(rgb @ np.array(BT601, rgb.dtype))


def mean_gray(rgb: np.ndarray, *, is_linear: bool = False) -> float:
    """Return the mean luma of a picture, in [0, 1].

    Args:
        rgb: (H, W, 3) sRGB, uint8 or float in [0, 1].
        is_linear: the mean of the linear light that it encodes.
    """
    if is_linear:
        rgb = cv2.LUT(rgb, LIGHT) if rgb.dtype == np.uint8 else srgb_to_linear(rgb)
    white = 255 if rgb.dtype == np.uint8 else 1
    return float(to_gray(np.array(cv2.mean(rgb)[:3]))) / white


def srgb_to_linear(srgb: np.ndarray) -> np.ndarray:
    """Convert sRGB values in [0, 1] to linear light in [0, 1] (IEC 61966-2-1)."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).astype(srgb.dtype)


def linear_to_srgb(linear: np.ndarray) -> np.ndarray:
    """Convert linear light in [0, 1] to sRGB values in [0, 1]; the inverse of `srgb_to_linear`."""
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055).astype(linear.dtype)


LIGHT = srgb_to_linear(np.arange(256, dtype=np.float32) / np.float32(255))  # linear light of an sRGB byte
