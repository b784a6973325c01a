"""Metrics on uint8 RGB frames, and the protocols that tell which of them a paper reports."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from utils.evaluation import lpips_metric
from utils.evaluation.compared import LUMA, SIGMA, WINDOW, Motion, Pair, View, check_pair
from utils.utils_error import UserError

Averaging = Literal["clips", "frames"]

PREFIXES = ("", "lq_", "sdm_")

PROTOCOL = (
    "uint8 RGB, border 0; psnr over all channels; ssim 11x11 Gaussian sigma 1.5, valid region, mean of the channels; "
    "_y: of the BT.601 luma in 16..235; ssim_matlab_rgb: 3-D Gaussian over height, width and channel. "
    "mean: frames -> clip mean -> mean over clips; mean_over_frames: over all frames; "
    "infinite PSNRs (equal frames) are left out of means"
)


@dataclass(frozen=True)
class Protocol:
    """The metrics that a paper reports (its name -> ours), and how it averages them."""

    metrics: dict[str, str]
    averaging: Averaging
    description: str


PROTOCOLS: dict[str, Protocol] = {
    "kair": Protocol(
        {"psnr": "psnr", "ssim": "ssim", "psnr_y": "psnr_y", "ssim_y": "ssim_y"},
        "clips",
        "KAIR's Python tests: 2-D Gaussian SSIM of the RGB channels, _y of BT.601 luma; mean over clips of their means",
    ),
    "vrt_paper": Protocol(
        {"psnr": "psnr", "ssim": "ssim_matlab_rgb"},
        "frames",
        "the published GoPro, DVD and REDS deblurring tables: RGB PSNR, MATLAB's 3-D ssim() of the RGB array; "
        "mean over all frames",
    ),
    "spkdeblur": Protocol(
        {"psnr": "psnr", "ssim": "ssim_y"},
        "frames",
        "SpkDeblurNet: RGB PSNR, 2-D Gaussian SSIM of BT.601 luma in 16..235; mean over all frames, each counted once",
    ),
}


def by_protocol(mean: Mapping[str, float], mean_over_frames: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Report a result under the names of each protocol whose metrics were all measured.

    `mean` over clips and `mean_over_frames` are by metric, including those with the prefixes lq_ and sdm_ if measured.
    Returns per protocol `averaging`, `description`, and by prefix and the paper's name `mean_of_clips`,
    `mean_over_frames`, and `metrics`, the one of the two that the protocol uses.
    """
    found = {}
    for name, protocol in PROTOCOLS.items():
        keys = {
            prefix + theirs: prefix + ours
            for prefix in PREFIXES
            if all(prefix + metric in mean for metric in protocol.metrics.values())
            for theirs, ours in protocol.metrics.items()
        }
        if keys:
            means = {
                averaging: {theirs: values[ours] for theirs, ours in keys.items()}
                for averaging, values in (("clips", mean), ("frames", mean_over_frames))
            }
            both = {"mean_of_clips": means["clips"], "mean_over_frames": means["frames"]}
            about = {"averaging": protocol.averaging, "description": protocol.description}
            found[name] = {**about, "metrics": means[protocol.averaging], **both}
    return found


def mean_of(values: Iterable[float]) -> float:
    """Mean of the values that are not infinite; infinity if all are. NaN makes it NaN; no values are a ValueError.

    A frame restored exactly has infinite PSNR and would hide all others; `equal_frames` counts such frames.
    """
    given = np.array(list(values), dtype=np.float64)
    if not given.size:
        raise ValueError("the mean of no values is not defined")
    counted = given[~np.isinf(given)]
    return float(counted.mean()) if counted.size else float("inf")


def equal_frames(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Count by metric the infinite values of rows of frames, which `mean_of` leaves out."""
    cells = (cell for row in rows for cell in row.items())
    return dict(Counter(name for name, value in cells if isinstance(value, float) and np.isinf(value)))


@dataclass(frozen=True)
class Metric:
    """How to compare two images: `of_pair` gives the same number for (b, a) as for (a, b), and the best of all for
    equal ones.

    `check` raises UserError where something that it needs is not on this machine.
    """

    of_pair: Callable[[Pair], float]
    lower_is_better: bool = False
    check: Callable[[], None] | None = None

    def __call__(self, a: np.ndarray, b: np.ndarray, border: int = 0) -> float:
        """Compare two (H, W, 3) uint8 RGB images of one shape, without `border` pixels at each side."""
        check_pair(a, b)
        return self.of_pair(Pair(View(a, border), View(b, border)))


@dataclass(frozen=True)
class TemporalMetric:
    """How to compare the motion from one frame to the next: that of two restored frames with that of the sharp ones.

    `of_motion` gives the best number for equal ones; the rest as of Metric.
    """

    of_motion: Callable[[Motion, Motion], float]
    lower_is_better: bool = False
    check: Callable[[], None] | None = None


def measure(
    images: Mapping[str, np.ndarray], sharp: np.ndarray, names: Sequence[str], border: int = 0
) -> dict[str, float]:
    """Compare images (prefix -> (H, W, 3) uint8 RGB) with a sharp one by METRICS: prefix and name -> value."""
    shared = View(sharp, border)
    found: dict[str, float] = {}
    for prefix, image in images.items():
        check_pair(image, sharp)
        pair = Pair(View(image, border), shared)
        found |= {prefix + name: METRICS[name].of_pair(pair) for name in names}
    return found


def measure_motion(
    images: Mapping[str, tuple[np.ndarray, np.ndarray]], sharp: tuple[np.ndarray, np.ndarray], names: Sequence[str]
) -> dict[str, float]:
    """Compare several pairs of consecutive images with one sharp pair: the values of TEMPORAL_METRICS.

    `images`: prefix -> two (H, W, 3) uint8, RGB; `sharp`: two of the same shape. Returns prefix and name -> value.
    """
    wanted = Motion(*sharp)
    found: dict[str, float] = {}
    for prefix, pair in images.items():
        for image in pair:
            check_pair(image, sharp[0])
        motion = Motion(*pair)
        found |= {prefix + name: TEMPORAL_METRICS[name].of_motion(motion, wanted) for name in names}
    return found


def check_available(names: Iterable[str]) -> None:
    """Refuse metrics that cannot be computed here: UserError for LPIPS without its library or weights."""
    for name in names:
        entry = _entry(name)
        if entry is not None and entry.check is not None:
            entry.check()


def lower_is_better(name: str) -> bool:
    """Whether lower values of a metric are better; False for unknown names."""
    entry = _entry(name)
    return entry is not None and entry.lower_is_better


def _entry(name: str) -> Metric | TemporalMetric | None:
    return METRICS.get(name) or TEMPORAL_METRICS.get(name)


def _psnr(pair: Pair) -> float:
    """Peak signal-to-noise ratio over all channels in decibels; infinity for equal images."""
    return _decibels(cv2.norm(pair.a.pixels, pair.b.pixels, cv2.NORM_L2SQR), pair.a.pixels.size)


def _psnr_y(pair: Pair) -> float:
    """Like PSNR, on BT.601 luma in 16..235, not rounded."""
    difference = cv2.transform(pair.a.rgb - pair.b.rgb, LUMA[None])
    return _decibels(cv2.norm(difference, cv2.NORM_L2SQR), difference.size)


def _ssim(pair: Pair) -> float:
    """Mean structural similarity of the channels: 11x11 Gaussian, sigma 1.5, valid region; UserError if too small."""
    _check_size(pair.a.pixels)
    return pair.rgb.valid.similarity()


def _ssim_y(pair: Pair) -> float:
    """Like SSIM, on BT.601 luma in 16..235, not rounded; SpkDeblurNet's SSIM.

    Recorded for a sharp GoPro frame and its blurred copy (Gaussian, sigma 1.2, not rounded to uint8): 0.9310, and
    KAIR's `ssim` 0.9232. This luma gives 0.93099 there, less if rounded; full-range luma gives about 0.925.
    """
    _check_size(pair.a.pixels)
    return pair.luma.valid.similarity()


def lpips(pair: Pair) -> float:
    """Learned perceptual distance: LPIPS 0.1 by AlexNet on the CPU, 0 for equal images; UserError as `check`."""
    return lpips_metric.distance(pair.a.pixels, pair.b.pixels)


def _ssim_matlab_rgb(pair: Pair) -> float:
    """Like MATLAB's ssim() of an RGB array: a 3-D Gaussian over height, width and channel, edges replicated.

    The published GoPro and DVD tables use it. It is higher than `ssim`: 0.963 for a pair whose `ssim` is 0.923.
    """
    kernel = cv2.getGaussianKernel(WINDOW, SIGMA)[:, 0]
    mix = np.zeros((3, 3))  # the Gaussian over the channels
    for channel in range(3):
        for offset, weight in enumerate(kernel, start=-(WINDOW // 2)):
            mix[channel, np.clip(channel + offset, 0, 2)] += weight
    return pair.rgb.similarity(lambda rows: cv2.transform(rows, mix))


def tof(motion: Motion, sharp: Motion) -> float:
    """Temporal consistency: mean distance, in pixels, between the optical flow of restored and of sharp frames; 0 is
    best.

    tOF of Chu et al., "Learning Temporal Coherence via Self-Supervision for GAN-based Video Generation", 2020: OpenCV's
    Farneback flow on gray frames with pyramid scale 0.5, 3 levels, window 15, 3 iterations, poly_n 5 and poly_sigma
    1.2.
    """
    return float(np.linalg.norm(motion.flow - sharp.flow, axis=2).mean(dtype=np.float64))


METRICS: dict[str, Metric] = {
    "psnr": Metric(_psnr),
    "ssim": Metric(_ssim),
    "psnr_y": Metric(_psnr_y),
    "ssim_y": Metric(_ssim_y),
    "ssim_matlab_rgb": Metric(_ssim_matlab_rgb),
    "lpips": Metric(lpips, lower_is_better=True, check=lpips_metric.check),
}
TEMPORAL_METRICS: dict[str, TemporalMetric] = {"tof": TemporalMetric(tof, lower_is_better=True)}


def _check_size(image: np.ndarray) -> None:
    height, width = image.shape[:2]
    if min(height, width) < WINDOW:
        raise UserError(f"SSIM needs at least {WINDOW}x{WINDOW} pixels, found {height}x{width}; measure only PSNR")


def _decibels(squared_error: float, count: int) -> float:
    return float(10 * np.log10(255**2 * count / squared_error)) if squared_error > 0 else float("inf")


psnr, ssim, psnr_y, ssim_y = (METRICS[name] for name in ("psnr", "ssim", "psnr_y", "ssim_y"))
"""KAIR's metrics of two (H, W, 3) uint8 RGB images: `psnr(a, b, border=0)`."""
