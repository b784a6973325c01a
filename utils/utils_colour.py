"""Gray values, and conversion between sRGB and linear light."""

import cv2
import numpy as np

BT601 = (0.299, 0.587, 0.114)  # weights of red, green and blue in the gray value
# sRGB (IEC 61966-2-1): a straight line up to the knee, then a power.
SRGB_KNEE, LIGHT_KNEE, SLOPE, OFFSET, EXPONENT = 0.04045, 0.0031308, 12.92, 0.055, 2.4


def to_gray(rgb: np.ndarray) -> np.ndarray:
    """Return the BT.601 luma of (..., 3) float RGB: (...), same dtype and range."""
    return np.asarray(rgb @ np.array(BT601, rgb.dtype))


def mean_gray(rgb: np.ndarray, *, is_linear: bool = False) -> float:
    """Return the mean luma in [0, 1] of (H, W, 3) sRGB, uint8 or float in [0, 1]; `is_linear`: of its light."""
    if is_linear:
        rgb = cv2.LUT(rgb, LIGHT) if rgb.dtype == np.uint8 else srgb_to_linear(rgb)
    white = 255 if rgb.dtype == np.uint8 else 1
    return float(to_gray(np.array(cv2.mean(rgb)[:3]))) / white


def srgb_to_linear(srgb: np.ndarray) -> np.ndarray:
    """Convert sRGB values in [0, 1] to linear light in [0, 1]."""
    power = ((srgb + OFFSET) / (1 + OFFSET)) ** EXPONENT
    return np.where(srgb <= SRGB_KNEE, srgb / SLOPE, power).astype(srgb.dtype)


def linear_to_srgb(linear: np.ndarray) -> np.ndarray:
    """Convert linear light in [0, 1] to sRGB values in [0, 1]; the inverse of `srgb_to_linear`."""
    power = (1 + OFFSET) * linear ** (1 / EXPONENT) - OFFSET
    return np.where(linear <= LIGHT_KNEE, linear * SLOPE, power).astype(linear.dtype)


LIGHT = srgb_to_linear(np.arange(256, dtype=np.float32) / np.float32(255))  # linear light of an sRGB byte
