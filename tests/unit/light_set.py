"""The tiny data set with stored light and sharp frames at other instants."""

import numpy as np
from tiny_set import FIRST, SPIKE_SIZE, STEPS, options

from data.instants import instant_name
from utils.utils_image import write_rgb

PLANES = 9
TIMES = (0.0, 0.24, 0.76)  # steps 2, 6 and 15 of the exposure [2, 20)
FRAMES = [f"{number:06d}" for number in range(FIRST, FIRST + 5)]
CLIPS = ("clip_a", "clip_b")
EVERYTHING = {
    "theta": [1, 4], "pattern": [0, 0.16], "dark": [0, 0.01], "jitter": [0, 0.04], "hot": 0.01, "dead": 0.01,
    "shift": [0, 0.5], "time_shift": [0, 2], "aligned": 0.5, "drop_spikes": 0.2,
}  # fmt: skip


def add_light(root, light=None):
    """Write <root>/light; light: (T, h, w) uint8 of every frame, by default random."""
    rng = np.random.default_rng(7)
    for clip in CLIPS:
        (root / "light" / clip).mkdir(parents=True)
        for frame in FRAMES:
            random = rng.integers(256, size=(STEPS, *SPIKE_SIZE)).astype(np.uint8)
            np.save(root / "light" / clip / f"{frame}.npy", random if light is None else light)
    return root


def add_gray(root, level):
    """Make all blurred frames gray."""
    size = tuple(2 * side for side in SPIKE_SIZE)
    for clip in CLIPS:
        for frame in FRAMES:
            write_rgb(root / "lq" / clip / f"{frame}.png", np.full((*size, 3), level, np.uint8))


def add_instants(root, times=TIMES, frames=FRAMES, clips=CLIPS):
    """Write <root>/instants, random pictures."""
    rng = np.random.default_rng(8)
    size = tuple(2 * side for side in SPIKE_SIZE)
    for clip in clips:
        for frame in frames:
            for time in times:
                picture = rng.integers(256, size=(*size, 3)).astype(np.uint8)
                write_rgb(root / "instants" / clip / f"{instant_name(frame, time)}.png", picture)
    return root


def moments(root, kind="Train", **changes):
    """Options of the set with planes of the moment."""
    given = {"spike": {"representation": "moment", "planes": PLANES}, "spike_channels": PLANES + 2}
    return options(root, kind, **given | changes)
