"""From intensities to spikes: the ideal integrate-and-fire sensor and the transfer curves in front of it."""

import numpy as np


def integrate_and_fire(
    intensity: np.ndarray,
    theta: float,
    rng: np.random.Generator | None = None,
    charge: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Every pixel adds its intensity step by step, fires at `theta` and keeps the rest (soft reset).

    The firing rate is min(intensity / theta, 1): at most one spike a step. A pixel that gets more than theta
    a step is saturated: what it cannot fire away is lost, so the charge left is always below theta, and no
    spikes follow when the light has gone. A long stream is simulated in pieces by handing the charge on.

    Args:
        intensity: (T, H, W) float32 in [0, 1], the charge of each step.
        theta: firing threshold, > 0.
        rng: draws the first charge, uniform in [0, theta), where `charge` is None.
        charge: (H, W) float32 from the previous piece; left unchanged.

    Returns:
        Spikes (T, H, W) uint8, 0 or 1, and the charge left, (H, W) float32 in [0, theta).

    Raises:
        ValueError: theta is not positive, a shape does not fit, or neither rng nor charge is given.
    """
    if theta <= 0 or intensity.ndim != 3:
        raise ValueError(f"theta must be > 0 and intensity (T, H, W), found theta={theta}, {intensity.shape}")
    limit = np.nextafter(np.float32(theta), np.float32(0))
    if charge is None:
        if rng is None:
            raise ValueError("integrate_and_fire needs rng or charge")
        charge = rng.random(intensity.shape[1:], dtype=np.float32) * np.float32(theta)
    if charge.shape != intensity.shape[1:]:
        raise ValueError(f"charge {charge.shape} does not fit intensity {intensity.shape}")
    charge = np.minimum(charge, limit, dtype=np.float32)
    spikes = np.empty(intensity.shape, np.uint8)
    for step, light in enumerate(intensity):
        charge += light
        fired = charge >= theta
        np.subtract(charge, theta, out=charge, where=fired)
        np.minimum(charge, limit, out=charge)
        spikes[step] = fired
    return spikes, charge


def to_gray(rgb: np.ndarray) -> np.ndarray:
    """BT.601 luma of (..., 3) float RGB: (...), same dtype and range."""
    return rgb @ np.array([0.299, 0.587, 0.114], rgb.dtype)


def srgb_to_linear(srgb: np.ndarray) -> np.ndarray:
    """sRGB-encoded values in [0, 1] to linear light in [0, 1] (IEC 61966-2-1)."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).astype(srgb.dtype)


def linear_to_srgb(linear: np.ndarray) -> np.ndarray:
    """Linear light in [0, 1] to sRGB-encoded values in [0, 1]; the inverse of `srgb_to_linear`."""
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055).astype(linear.dtype)
