"""Spike streams with a picture in them, and the files of the real ones."""

import cv2
import numpy as np
from golden_files import shared_file

GOPRO, REDS, UHSR = "spkgopro_000226.dat", "reds_200_part1.dat", "real_capture_uhsr.npz"


def real_file(name):
    return shared_file(f"data/{name}")


def scene(h, w):
    """A smooth picture in [0, 1] with structure along both axes, brighter at the top, unlike itself mirrored."""
    y, x = np.mgrid[0:h, 0:w] / max(h, w)
    waves = 0.5 + 0.3 * np.sin(9 * x + 3 * y) + 0.2 * np.cos(7 * y - 2 * x)
    return (0.8 * waves + 0.2 * (1 - y * max(h, w) / h)).astype(np.float32)


def textured(h, w, seed=0):
    """The same with fine texture: neighbours are alike, pixels two apart hardly."""
    grain = cv2.GaussianBlur(np.random.default_rng(seed).standard_normal((h, w)).astype(np.float32), (0, 0), 1)
    return np.clip(0.6 * scene(h, w) + 0.15 + 0.4 * grain, 0, 1)


def fire(picture, steps, rng, white=0.5):
    """A soft-reset sensor in closed form: spike where the accumulated charge passes a whole number."""
    times = np.arange(steps + 1, dtype=np.float32)[:, None, None]
    fired = np.floor(rng.random(picture.shape, np.float32) + times * picture * np.float32(white))
    return np.diff(fired, axis=0).astype(np.uint8)


def pack(spikes, *, flipud=True, bit_order="little"):
    """The bytes of a .dat: (n,) uint8."""
    return np.packbits(spikes[:, ::-1] if flipud else spikes, bitorder=bit_order)
