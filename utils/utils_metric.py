"""Named metrics on uint8 RGB frames, and the protocols that say which of them a paper's numbers are."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np

from utils.evaluation import lpips_metric
from utils.utils_error import UserError

Averaging = Literal["clips", "frames"]

WINDOW, SIGMA = 11, 1.5
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
STRIP = 16  # rows whose intermediate results stay in the processor's cache
LUMA = np.array([65.481, 128.553, 24.966]) / 255  # BT.601; black is 16, white 235
FARNEBACK = (0.5, 3, 15, 3, 5, 1.2, 0)  # pyramid scale, levels, window, iterations, poly_n, poly_sigma, flags
PREFIXES = ("", "lq_", "sdm_")

PROTOCOL = (
    "uint8 RGB, border 0; psnr over all channels; ssim 11x11 Gaussian sigma 1.5, valid region, mean of the channels; "
    "_y: of the BT.601 luma in 16..235; ssim_matlab_rgb: 3-D Gaussian over height, width and channel. "
    "mean: frames -> clip mean -> mean over clips; mean_over_frames: over all frames; "
    "infinite PSNRs (equal frames) are left out of means"
)


@dataclass(frozen=True)
class Protocol:
    """Which of our metrics a paper's numbers are, by the names that the paper gives them, and how it averages."""

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
    """Name the numbers of a result as each protocol does, if all of its metrics were measured.

    Args:
        mean: means over clips by metric, of restored frames and with the prefixes lq_ and sdm_ where measured.
        mean_over_frames: the same, over all frames.

    Returns:
        Per protocol `averaging` ("clips" or "frames", its own), `description`, and by the paper's names with the
        prefixes in front `mean_of_clips`, `mean_over_frames`, and `metrics`: that of the two which is its own.
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
            found[name] = {
                "averaging": protocol.averaging,
                "description": protocol.description,
                "metrics": means[protocol.averaging],
                "mean_of_clips": means["clips"],
                "mean_over_frames": means["frames"],
            }
    return found


def mean_of(values: Iterable[float]) -> float:
    """Mean of the values that are not infinite; infinity if all are.

    One frame that is restored exactly has an infinite PSNR and would hide all others; `equal_frames` counts those.
    NaN is no such case and makes the mean NaN.

    Raises:
        ValueError: there are no values.
    """
    given = np.array(list(values), dtype=np.float64)
    if not given.size:
        raise ValueError("the mean of no values is not defined")
    counted = given[~np.isinf(given)]
    return float(counted.mean()) if counted.size else float("inf")


def equal_frames(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Count the infinite values, which `mean_of` leaves out, by metric; metrics without any are not named.

    Each row has a frame's metrics; what else it has is passed over.
    """
    counts: dict[str, int] = {}
    for row in rows:
        for name, value in row.items():
            if isinstance(value, float) and np.isinf(value):
                counts[name] = counts.get(name, 0) + 1
    return counts


def psnr(a: np.ndarray, b: np.ndarray, border: int = 0) -> float:
    """Peak signal-to-noise ratio over all channels.

    Args:
        a: (H, W, 3) uint8, RGB.
        b: the same shape.
        border: pixels cut off at each side before comparing.

    Returns:
        Decibels; infinity for equal images.
    """
    return _psnr(_pair(a, b, border))


def ssim(a: np.ndarray, b: np.ndarray, border: int = 0) -> float:
    """Mean structural similarity of the channels: 11x11 Gaussian, sigma 1.5, valid region. See `psnr`.

    Raises:
        UserError: an image is smaller than the Gaussian.
    """
    return _ssim(_pair(a, b, border))


def psnr_y(a: np.ndarray, b: np.ndarray, border: int = 0) -> float:
    """Like `psnr`, of the BT.601 luma in 16..235, not rounded."""
    return _psnr_y(_pair(a, b, border))


def ssim_y(a: np.ndarray, b: np.ndarray, border: int = 0) -> float:
    """Like `ssim`, of the BT.601 luma in 16..235, not rounded; SpkDeblurNet's SSIM.

    Recorded for a sharp GoPro frame and its blurred copy (Gaussian, sigma 1.2, not rounded to uint8): 0.9310, and
    KAIR's `ssim` 0.9232. This luma gives 0.93099 there, rounded it gives less; full-range luma gives about 0.925.
    """
    return _ssim_y(_pair(a, b, border))


def ssim_matlab_rgb(a: np.ndarray, b: np.ndarray, border: int = 0) -> float:
    """Like MATLAB's ssim() of an RGB array: a 3-D Gaussian over height, width and channel, edges replicated.

    The published GoPro and DVD tables use this one. It lies above `ssim`: 0.963 for the pair that has 0.923 there.
    """
    return _ssim_matlab_rgb(_pair(a, b, border))


def lpips(a: np.ndarray, b: np.ndarray, border: int = 0) -> float:
    """Learned perceptual distance: LPIPS 0.1 with AlexNet, on the CPU; 0 for equal images.

    Raises:
        UserError: the library or AlexNet's weights are not there, see `check_available`.
    """
    return _lpips(_pair(a, b, border))


def tof(before: np.ndarray, after: np.ndarray, sharp_before: np.ndarray, sharp_after: np.ndarray) -> float:
    """Temporal consistency: how far the restored frames' optical flow is from that of the sharp ones.

    tOF of Chu et al., "Learning Temporal Coherence via Self-Supervision for GAN-based Video Generation", 2020:
    Farneback's flow by OpenCV on gray frames with pyramid scale 0.5, 3 levels, window 15, 3 iterations, poly_n 5 and
    poly_sigma 1.2; the mean over all pixels of the length of the difference.

    Args:
        before: (H, W, 3) uint8, RGB, a restored frame.
        after: the restored frame that follows it.
        sharp_before: the sharp frame of the first.
        sharp_after: the sharp frame of the second.

    Returns:
        Pixels; 0 is best.
    """
    return measure_motion({"": (before, after)}, (sharp_before, sharp_after), ["tof"])["tof"]


METRICS: dict[str, Callable[[np.ndarray, np.ndarray, int], float]] = {
    "psnr": psnr,
    "ssim": ssim,
    "psnr_y": psnr_y,
    "ssim_y": ssim_y,
    "ssim_matlab_rgb": ssim_matlab_rgb,
    "lpips": lpips,
}
TEMPORAL_METRICS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], float]] = {"tof": tof}
LOWER_IS_BETTER = {"tof", "lpips"}


def measure(
    images: Mapping[str, np.ndarray], sharp: np.ndarray, names: Sequence[str], border: int = 0
) -> dict[str, float]:
    """Compare several images with one sharp image: what METRICS give, in less time.

    Args:
        images: prefix of the metrics -> (H, W, 3) uint8, RGB.
        sharp: the same shape.
        names: keys of METRICS.
        border: see `psnr`.

    Returns:
        Prefix and name -> value, the images one after the other.
    """
    shared = _View(sharp, border)
    found: dict[str, float] = {}
    for prefix, image in images.items():
        _check_pair(image, sharp)
        pair = _Pair(_View(image, border), shared)
        found |= {prefix + name: _OF_PAIR[name](pair) for name in names}
    return found


def measure_motion(
    images: Mapping[str, tuple[np.ndarray, np.ndarray]], sharp: tuple[np.ndarray, np.ndarray], names: Sequence[str]
) -> dict[str, float]:
    """Compare several pairs of consecutive images with one pair of sharp ones: what TEMPORAL_METRICS give.

    `images`: prefix -> two (H, W, 3) uint8, RGB; `sharp`: two of that shape. Returns prefix and name -> value.
    """
    if "tof" not in names:
        return {}
    wanted = _flow(*sharp)
    found = {}
    for prefix, pair in images.items():
        for image in pair:
            _check_pair(image, sharp[0])
        found[f"{prefix}tof"] = float(np.linalg.norm(_flow(*pair) - wanted, axis=2).mean(dtype=np.float64))
    return found


def check_available(names: Iterable[str]) -> None:
    """Refuse a metric that cannot be computed here, before any work is done.

    Raises:
        UserError: LPIPS is among them, and its library or AlexNet's weights are not there; nothing is downloaded.
    """
    if "lpips" in names:
        lpips_metric.check()


class _View:
    """One image without its border, and what several metrics take from it."""

    def __init__(self, image: np.ndarray, border: int) -> None:
        height, width = image.shape[:2]
        if not 0 <= 2 * border < min(height, width):
            raise UserError(f"a border of {border} pixels leaves nothing of {height}x{width}; make it smaller")
        self.pixels = image[border : height - border, border : width - border]

    @cached_property
    def rgb(self) -> np.ndarray:
        return self.pixels.astype(np.float64)

    @cached_property
    def luma(self) -> np.ndarray:
        return cv2.transform(self.rgb, np.append(LUMA, 16)[None])

    @cached_property
    def mean_rgb(self) -> np.ndarray:
        return _blur(self.rgb)

    @cached_property
    def mean_luma(self) -> np.ndarray:
        return _blur(self.luma)


class _Moments(NamedTuple):
    """Gaussian means around each pixel: of either image; of their product and their squares' sum."""

    a: np.ndarray
    b: np.ndarray
    product: np.ndarray
    squares: np.ndarray

    def similarity(self, change: Callable[[np.ndarray], np.ndarray] = lambda rows: rows) -> float:
        """Mean structural similarity, Wang et al. 2004, equation 13; `change` is made to some rows at a time."""
        total = 0.0
        for first in range(0, len(self.a), STRIP):
            rows = slice(first, first + STRIP)
            a, b, product, squares = (change(of[rows]) for of in self)
            means, squared_means = a * b, a**2 + b**2
            covariance, variances = product - means, squares - squared_means
            total += np.sum((2 * means + C1) * (2 * covariance + C2) / ((squared_means + C1) * (variances + C2)))
        return float(total / self.a.size)

    @property
    def valid(self) -> "_Moments":
        """Those of windows that lie inside the image."""
        inner = slice(WINDOW // 2, -(WINDOW // 2))
        return _Moments(*(of[inner, inner] for of in self))


class _Pair:
    """Two images of the same shape, and what several metrics take from both."""

    def __init__(self, a: _View, b: _View) -> None:
        self.a, self.b = a, b

    @cached_property
    def rgb(self) -> _Moments:
        return _moments(self.a.rgb, self.b.rgb, self.a.mean_rgb, self.b.mean_rgb)

    @property
    def luma(self) -> _Moments:
        return _moments(self.a.luma, self.b.luma, self.a.mean_luma, self.b.mean_luma)


def _psnr(pair: _Pair) -> float:
    return _decibels(cv2.norm(pair.a.pixels, pair.b.pixels, cv2.NORM_L2SQR), pair.a.pixels.size)


def _psnr_y(pair: _Pair) -> float:
    difference = cv2.transform(pair.a.rgb - pair.b.rgb, LUMA[None])
    return _decibels(cv2.norm(difference, cv2.NORM_L2SQR), difference.size)


def _ssim(pair: _Pair) -> float:
    _check_size(pair.a.pixels)
    return pair.rgb.valid.similarity()


def _ssim_y(pair: _Pair) -> float:
    _check_size(pair.a.pixels)
    return pair.luma.valid.similarity()


def _lpips(pair: _Pair) -> float:
    return lpips_metric.distance(pair.a.pixels, pair.b.pixels)


def _ssim_matlab_rgb(pair: _Pair) -> float:
    kernel = cv2.getGaussianKernel(WINDOW, SIGMA)[:, 0]
    mix = np.zeros((3, 3))  # the Gaussian over the channels
    for channel in range(3):
        for offset, weight in enumerate(kernel, start=-(WINDOW // 2)):
            mix[channel, np.clip(channel + offset, 0, 2)] += weight
    return pair.rgb.similarity(lambda rows: cv2.transform(rows, mix))


_OF_PAIR: dict[str, Callable[[_Pair], float]] = {
    "psnr": _psnr,
    "ssim": _ssim,
    "psnr_y": _psnr_y,
    "ssim_y": _ssim_y,
    "ssim_matlab_rgb": _ssim_matlab_rgb,
    "lpips": _lpips,
}


def _pair(a: np.ndarray, b: np.ndarray, border: int) -> _Pair:
    _check_pair(a, b)
    return _Pair(_View(a, border), _View(b, border))


def _check_pair(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape or a.ndim != 3 or a.dtype != np.uint8 or b.dtype != np.uint8:
        raise ValueError(f"expected two uint8 (H, W, 3) images, got {a.dtype} {a.shape} and {b.dtype} {b.shape}")


def _check_size(image: np.ndarray) -> None:
    height, width = image.shape[:2]
    if min(height, width) < WINDOW:
        raise UserError(f"SSIM needs at least {WINDOW}x{WINDOW} pixels, got {height}x{width}; ask for PSNR only")


def _decibels(squared_error: float, count: int) -> float:
    return float(10 * np.log10(255**2 * count / squared_error)) if squared_error > 0 else float("inf")


def _moments(a: np.ndarray, b: np.ndarray, mean_a: np.ndarray, mean_b: np.ndarray) -> _Moments:
    product, squares = a * b, a**2
    squares += b**2
    return _Moments(mean_a, mean_b, _blur(product), _blur(squares))


def _blur(plane: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(plane, (WINDOW, WINDOW), SIGMA, borderType=cv2.BORDER_REPLICATE)


def _flow(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    gray = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (before, after)]
    return np.asarray(cv2.calcOpticalFlowFarneback(*gray, None, *FARNEBACK))  # type: ignore[call-overload]
