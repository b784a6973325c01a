"""The ideal integrate-and-fire sensor: from intensities to spikes."""

import numpy as np

# Pixels simulated together over all steps: charge, scratch and one step's light stay in the CPU cache.
BLOCK = 65536


def integrate_and_fire(
    intensity: np.ndarray, theta: float, rng: np.random.Generator | None = None, charge: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Simulate pixels that add up intensity step by step, fire at `theta` and keep the rest (soft reset).

    The firing rate is min(intensity / theta, 1): at most one spike per step. A pixel that gets more than theta per
    step is saturated: the excess is lost, so the remaining charge is always below theta, and no spikes follow after
    the light is gone. A long stream can be simulated in pieces by passing the charge on; the spikes do not depend on
    where it is cut.

    Args:
        intensity: (T, H, W) float32, 0 or more, the charge of each step; white is 1.
        theta: firing threshold, > 0.
        rng: draws the initial charge, uniform in [0, theta), if `charge` is None.
        charge: (H, W) float32 of the previous piece; not modified.

    Returns:
        Spikes (T, H, W) uint8, 0 or 1, and the charge left, (H, W) float32 in [0, theta).

    Raises:
        ValueError: theta is not positive, a shape does not fit, or neither rng nor charge is given.
    """
    if theta <= 0 or intensity.ndim != 3:
        raise ValueError(f"theta must be > 0 and intensity (T, H, W), found theta={theta}, {intensity.shape}")
    charge = first_charge(intensity.shape[1:], theta, rng) if charge is None else charge
    if charge.shape != intensity.shape[1:]:
        raise ValueError(f"charge {charge.shape} does not fit intensity {intensity.shape}")
    threshold = np.float32(theta)
    left = np.minimum(charge, np.nextafter(threshold, np.float32(0)), dtype=np.float32, order="C")
    light, pixels = intensity.reshape(len(intensity), left.size), left.reshape(-1)
    spikes = np.empty(light.shape, bool)
    for start in range(0, pixels.size, BLOCK):
        block = slice(start, start + BLOCK)
        _fire(light[:, block], threshold, pixels[block], spikes[:, block])
    return spikes.view(np.uint8).reshape(intensity.shape), left


def first_charge(shape: tuple[int, ...], theta: float, rng: np.random.Generator | None) -> np.ndarray:
    """Return (H, W) float32 uniform in [0, theta): pixels start out of phase."""
    if rng is None:
        raise ValueError("integrate_and_fire needs rng or charge")
    return rng.random(shape, dtype=np.float32) * np.float32(theta)


def _fire(light: np.ndarray, threshold: np.float32, charge: np.ndarray, spikes: np.ndarray) -> None:
    """Simulate all steps of some pixels: light (T, n) float32; writes charge (n,) float32 and spikes (T, n) bool.

    With rest = charge - threshold, `rest where rest >= 0 else charge` is the minimum of their bits as unsigned
    integers, because a float's sign is its highest bit. This takes a third of the time.
    """
    limit = np.nextafter(threshold, np.float32(0))
    rest = np.empty_like(charge)
    charge_bits, rest_bits = charge.view(np.uint32), rest.view(np.uint32)
    for step, fired in zip(light, spikes, strict=True):
        np.add(charge, step, out=charge)
        np.subtract(charge, threshold, out=rest)
        np.greater_equal(rest, 0, out=fired)
        np.minimum(charge_bits, rest_bits, out=charge_bits)
        np.minimum(charge, limit, out=charge)
