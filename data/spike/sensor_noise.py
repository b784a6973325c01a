"""A non-ideal sensor: pixels differ, and every step is noisy.

For one pixel, in spikes per step, with I the light (white = 1):

    rate = (gain / theta * I + dark) / (capacitance * (1 + offset / swing))

Each step adds shot noise to the light and jitter to the threshold. The constants are those of the SCSim camera model;
what it leaves open (the unit of the dark current, the threshold's jitter) or lacks (hot and dead pixels) is fitted to a
real capture of 200 steps, 250 x 250 pixels. There, pixels under the same light differ by 8, 12 and 19 % at rates of
.055, .032 and .017 spikes per step, and a pixel's intervals by 1 to 6 % (median 3 %): each pixel is almost regular, but
no two are alike. `data/spike/doctor/statistics.py` measures both.

All noise is per step, whatever the duration of a step: the statistics at a given rate are those of the real sensor.
Its loss of 0.2 % of the step after a spike, during the reset, is not modelled.
"""

from dataclasses import dataclass

import numpy as np

from data.spike.simulator import first_charge


@dataclass(frozen=True)
class SensorNoise:
    """The constants: means and standard deviations of normal distributions over pixels unless noted otherwise."""

    gain_std: float = 0.0584 / 1.0128  # relative to the mean gain; SCSim: photo-response N(1.0128, .0584^2)
    capacitance_std: float = 0.0128 / 4.348  # relative to the mean; SCSim: N(4.348, .0128^2)
    swing: float = 1.1  # volts from reset to threshold; SCSim: 3.3 - 2.2
    offset_mean: float = -0.0076  # volts, added to the swing; SCSim
    offset_std: float = 0.0497  # volts; SCSim
    dark_mean: float = 0.4442  # arbitrary unit; SCSim
    dark_std: float = 0.1731  # arbitrary unit; SCSim
    dark_unit: float = 0.0172  # spikes per step; fitted to the capture's spread at rate .017, 19 %
    jitter_std: float = 0.04  # of the threshold, per step; fitted: SCSim's .00636 gives .006 as volts, .07 as volts^2
    electrons: float = 5e4  # mean shot count of a white pixel per step; SCSim
    hot_fraction: float = 7e-4  # of the pixels; the capture has 44 in 62,500 that fire .03 more than their neighbours
    hot_dark: tuple[float, float] = (0.03, 0.1)  # additional spikes per step, uniform; the same 44 pixels
    dead_fraction: float = 3e-5  # of the pixels, which never fire; the capture has 2 in 62,500

    def camera(self, shape: tuple[int, int], theta: float, seed: int) -> "Camera":
        """Draw one camera's fixed pattern; the same seed and shape (H, W) give the same camera.

        `theta` is the firing threshold of the mean pixel, in white pixels x steps.
        """
        rng = np.random.default_rng([seed, 1])
        swing = 1 + rng.normal(self.offset_mean, self.offset_std, shape) / self.swing
        full = rng.normal(1, self.capacitance_std, shape) * swing
        gain = rng.normal(1, self.gain_std, shape) / (full * theta)
        dark = np.maximum(rng.normal(self.dark_mean, self.dark_std, shape), 0) * self.dark_unit / full
        dark += (rng.random(shape) < self.hot_fraction) * rng.uniform(*self.hot_dark, shape)
        alive = rng.random(shape) >= self.dead_fraction
        return Camera((gain * alive).astype(np.float32), (dark * alive).astype(np.float32), theta, self)


@dataclass(frozen=True)
class Camera:
    """One sensor with its fixed pattern."""

    gain: np.ndarray  # (H, W) float32, spikes per step that white light adds
    dark: np.ndarray  # (H, W) float32, spikes per step without light
    theta: float
    noise: SensorNoise

    def rate_at_white(self) -> float:
        """Return the mean rate of all pixels under white light, dark current included, in spikes per step."""
        return float(np.minimum(self.gain + self.dark, 1).mean(dtype=np.float64))

    def fire(
        self, intensity: np.ndarray, rng: np.random.Generator, charge: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Do what `integrate_and_fire` does, with this sensor's pixels and noise.

        A long stream can be simulated in pieces by passing charge and rng on; the spikes do not depend on where it is
        cut. A pixel that fires early by jitter keeps a negative charge, so jitter does not change its mean rate.

        Returns:
            Spikes (T, H, W) uint8, 0 or 1, and the charge left, (H, W) float32, as a fraction of the threshold;
            jitter may keep it just above 1.

        Raises:
            ValueError: a shape does not match the sensor.
        """
        shape = self.gain.shape
        charge = first_charge(shape, 1, rng) if charge is None else charge.copy()
        if intensity.shape[1:] != shape or charge.shape != shape:
            raise ValueError(f"intensity {intensity.shape} and charge {charge.shape} do not fit a sensor of {shape}")
        shot = np.float32(1 / (self.theta * self.noise.electrons))  # variance of a unit of charge
        jitter = np.float32(self.noise.jitter_std)
        limit = np.nextafter(np.float32(1), np.float32(0))
        spikes = np.empty(intensity.shape, bool)
        added, random = np.empty(shape, np.float32), np.empty(shape, np.float32)
        for light, fired in zip(intensity, spikes, strict=True):
            np.multiply(self.gain, light, out=added)
            charge += added
            charge += self.dark
            np.sqrt(np.multiply(added, shot, out=added), out=added)
            charge += np.multiply(added, rng.standard_normal(out=random, dtype=np.float32), out=added)
            rest = np.subtract(charge, 1, out=added)
            rng.standard_normal(out=random, dtype=np.float32)
            np.greater_equal(rest, np.multiply(random, jitter, out=random), out=fired)
            np.copyto(charge, np.minimum(rest, limit, out=rest), where=fired)
        return spikes.view(np.uint8), charge
