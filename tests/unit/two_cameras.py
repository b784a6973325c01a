"""A small data set of two cameras that see one moving scene: the spikes' camera elsewhere, and late."""

import cv2
import numpy as np
from spike_scenes import textured

from data.layout import DatasetWriter, Frame
from data.spike.manifest import ClipTiming, Manifest

SIZE = (48, 64)  # spike pixels
STEPS, EXPOSURE, SHARP = 24, (2, 20), 10
FRAMES = 6


def matrix_of(right=0.0, down=0.0, turn=0.0, scale=1.0, size=SIZE):
    """The matrix from a frame's spike grid to the sensor: about the middle, turn in degrees."""
    y, x = ((side - 1) / 2 for side in size)
    c, s = scale * np.cos(np.radians(turn)), scale * np.sin(np.radians(turn))
    return np.array([[c, -s, x + right - c * x + s * y], [s, c, y + down - s * x - c * y], [0, 0, 1]])


def corner_distance(first, second, size=SIZE):
    corners = np.array([[0, 0, 1], [size[1] - 1, 0, 1], [0, size[0] - 1, 1], [size[1] - 1, size[0] - 1, 1]]).T
    a, b = (np.asarray(matrix) @ corners for matrix in (first, second))
    return float(np.hypot(*(a[:2] / a[2] - b[:2] / b[2])).max())


def light(step, matrix, photo, moves=True):
    """What a camera of the matrix sees at a step: (2 h, 2 w) float32 in [0, 1]; the identity: the frames' camera."""
    to_fine = np.array([[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1]])
    fine = to_fine @ matrix @ np.linalg.inv(to_fine)
    away = [12 * np.sin(step / 17) + 5 * np.sin(step / 6), 9 * np.cos(step / 13)] if moves else [0, 0]
    there = np.array([[1, 0, 40 + away[0]], [0, 1, 40 + away[1]], [0, 0, 1]]) @ np.linalg.inv(fine)
    return cv2.warpPerspective(
        photo, there, (2 * SIZE[1], 2 * SIZE[0]), flags=cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP
    )  # fmt: skip


def make_pair(root, clips=("clip",), *, matrix=None, late=0, moves=True, level=None, scene=None, pattern=0.0):
    """Write a set in our layout; level: frames and spikes of one gray; scene: another seed for the spikes' camera."""
    matrix = np.eye(3) if matrix is None else matrix
    height, width = SIZE
    manifest = Manifest(
        spike_h=height, spike_w=width, rgb_h=2 * height, rgb_w=2 * width, flipud=True, clock_hz=1000.0,
        rate_at_white=0.5, theta=2.0, transfer="srgb", noise="none", continuous=True, clips={},
    )  # fmt: skip
    timing = ClipTiming(steps=STEPS, exposure=EXPOSURE, sharp_step=SHARP)
    with DatasetWriter(root, manifest) as writer:
        for number, clip in enumerate(clips):
            made = _frames(number, matrix, late, moves, level, scene, pattern)
            writer.add_clip("test", clip, made, timing)
        writer.finish()
    return root


def _frames(seed, matrix, late, moves, level, scene, pattern):
    rng = np.random.default_rng(seed)
    photos = [textured(200, 220, seed if other is None else other) for other in (None, scene)]
    gain = 1 + np.float32(pattern) * rng.standard_normal(SIZE).astype(np.float32)
    charge = rng.random(SIZE).astype(np.float32)
    for frame in range(FRAMES):
        steps = range(frame * STEPS, (frame + 1) * STEPS)
        pictures = [light(step, np.eye(3), photos[0], moves) for step in steps]
        fine = [light(step - late, matrix, photos[1], moves) for step in steps]
        seen = [cv2.resize(each, SIZE[::-1], interpolation=cv2.INTER_AREA) for each in fine]
        if level is not None:
            pictures, seen = (
                [np.full_like(each, level) for each in pictures],
                [np.full_like(each, level) for each in seen],
            )
        added = charge + np.cumsum(np.stack(seen) * gain / 2, axis=0)
        spikes = np.diff(np.floor(added), axis=0, prepend=np.floor(charge)[None]).clip(0, 1).astype(np.uint8)
        charge = added[-1]
        blurred, sharp = np.mean(pictures[slice(*EXPOSURE)], axis=0), pictures[SHARP]
        rgb = [
            np.repeat(np.rint(255 * each.clip(0, 1)).astype(np.uint8)[..., None], 3, axis=2)
            for each in (blurred, sharp)
        ]
        yield Frame(rgb[0], rgb[1], spikes, np.rint(255 * np.stack(seen).clip(0, 1)).astype(np.uint8))
