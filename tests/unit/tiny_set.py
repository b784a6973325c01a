"""A data set of a few small frames, for tests."""

import numpy as np

from data.spike.manifest import ClipTiming, Manifest
from data.spike.representations import exposure_ratio, sharpened, upsample
from options.schema import DatasetOpt
from utils.spike_loader import write_spikes
from utils.utils_image import write_rgb

STEPS, SHARP, WINDOW, RATE = 24, 10, 9, 0.5
SPIKE_SIZE = (16, 24)
FIRST = 47  # frame names start anywhere


def spikes_of(plane, rng):
    """(T,h,w) spikes: `plane` of them in the window around the sharp step, noise elsewhere."""
    spikes = rng.integers(2, size=(STEPS, *plane.shape)).astype(np.uint8)
    order = rng.permuted(np.broadcast_to(np.arange(WINDOW), (*plane.shape, WINDOW)), axis=-1)
    spikes[SHARP - 4 : SHARP + 5] = np.moveaxis(order < plane[..., None], -1, 0)
    return spikes


def make_set(root, clips=("clip_a", "clip_b"), frames=5, ratio=2, manifest=True, timing=None):
    """A data set whose red channel (lq and gt) is what the spikes of the same frame give."""
    rng = np.random.default_rng(0)
    timing = timing or ClipTiming(steps=STEPS, exposure=(2, 20), sharp_step=SHARP)
    height, width = (side * ratio for side in SPIKE_SIZE)
    for clip in clips:
        folder = root / "spikes/train" / clip / "spike"
        folder.mkdir(parents=True)
        for frame in range(FIRST, FIRST + frames):
            counts = rng.integers(5, size=SPIKE_SIZE)
            spikes = spikes_of(counts, rng)
            write_spikes(folder / f"{frame:06d}.dat", spikes[:1].repeat(timing.steps, 0) if not manifest else spikes)
            red = upsample((counts / WINDOW / RATE).astype(np.float32), (height, width))
            image = rng.integers(256, size=(height, width, 3)).astype(np.uint8)
            image[..., 0] = np.round(red * 255)
            for kind in ("gt", "lq"):
                write_rgb(root / kind / clip / f"{frame:06d}.png", image)
    if manifest:
        Manifest(
            spike_h=SPIKE_SIZE[0],
            spike_w=SPIKE_SIZE[1],
            rgb_h=height,
            rgb_w=width,
            flipud=True,
            clock_hz=20000.0,
            rate_at_white=RATE,
            transfer="srgb",
            noise="none",
            clips=dict.fromkeys(clips, timing),
        ).save(root / "spikes")
    return root


def sdm(blur, tfp_short, tfp_exposure):
    """The training-free estimate of (H, W, 3) in [0, 1], from rates (h, w)."""
    return sharpened(blur, upsample(exposure_ratio(tfp_short, tfp_exposure), blur.shape[:2]))


def intensities(made):
    """(S, h, w) float32, what the planes of one frame (data.spike.source.FramePlanes) mean; white is 1."""
    return made.planes if made.scale is None else made.planes * made.scale[:, None, None]


def options(root, kind="Train", spikes=True, **changes):
    given = {
        "name": "tiny",
        "dataset_type": f"VideoRecurrent{kind}Dataset" + "RGBSpike" * spikes,
        "dataroot_gt": str(root / "gt"),
        "dataroot_lq": str(root / "lq"),
        "dataroot_spike": str(root / "spikes/train") if spikes else None,
        "spike_channels": 1 if spikes else 0,
        "spike": {"representation": "tfp", "window": WINDOW},
        "num_frame": 3,
        "gt_size": 16,
        "interval_list": [1],
        "random_reverse": True,
        "use_hflip": True,
        "use_rot": True,
    }
    return DatasetOpt.model_validate(given | changes)


def rng(seed=0):
    return np.random.default_rng(seed)
