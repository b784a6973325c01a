"""Find which way up a stream is, from a paired picture, or guess it."""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from data.image_folders import IMAGE_SUFFIXES
from data.layout import SPIKES, SPLITS, gt_dir
from utils.utils_colour import to_gray

# One orientation must correlate with the picture at least this much, and this much better than the others.
ALIKE = 0.4
BETTER = 0.1
# Most scenes are brighter at the top. Of 17 photographs and captures, 8 exceeded this correlation of brightness and
# height, 6 of them with the bright side up: a hint, not proof.
_TILTED = 0.25
_BESIDE = ("_sharp", "_gt", "")  # suffixes of a paired picture's stem beside the spike file


class Match(NamedTuple):
    """Correlation of a plane with a picture, in [-1, 1], in four orientations."""

    as_is: float
    upside_down: float
    mirrored: float
    turned: float

    @property
    def best(self) -> str | None:
        """The orientation that clearly matches the picture, or None."""
        ranked = sorted(zip(self, self._fields, strict=True), reverse=True)
        decided = ranked[0][0] >= ALIKE and ranked[0][0] - ranked[1][0] >= BETTER
        return ranked[0][1] if decided else None


def match(plane: np.ndarray, picture: np.ndarray) -> Match:
    """Compare a plane with a picture of the same scene.

    Args:
        plane: (H, W) float32, spikes per step.
        picture: (h, w, 3) uint8, RGB, of any size.
    """
    gray = to_gray(picture.astype(np.float32) / 255)
    gray = cv2.resize(gray, (plane.shape[1], plane.shape[0]), interpolation=cv2.INTER_AREA)
    return Match(*(correlation(turned, gray) for turned in (plane, plane[::-1], plane[:, ::-1], plane[::-1, ::-1])))


def brighter_up(plane: np.ndarray) -> float:
    """Return the correlation of brightness and height in (H, W), positive if the top is brighter; 0 if inconclusive."""
    height = np.broadcast_to(np.linspace(1, -1, len(plane), dtype=np.float32)[:, None], plane.shape)
    tilt = correlation(plane, height)
    return tilt if abs(tilt) > _TILTED else 0.0


def paired_picture(path: Path) -> Path | None:
    """Find the sharp picture of a spike file, beside it with the same stem or in the GoPro layout."""
    path = path.resolve()
    places: list[tuple[Path, tuple[str, ...]]] = [(path.parent, _BESIDE)]
    clip = path.parent.parent if path.parent.name == "spike" else path.parent
    split, spikes = clip.parent, clip.parent.parent
    if split.name in SPLITS and spikes.name == SPIKES:
        places.append((gt_dir(spikes.parent, split.name) / clip.name, ("",)))
    for folder, endings in places:
        for ending in endings:
            for suffix in sorted(IMAGE_SUFFIXES):
                picture = folder / f"{path.stem}{ending}{suffix}"
                if picture.is_file() and picture != path:
                    return picture
    return None


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return the correlation of two arrays of one shape; 0 if one of them is constant."""
    if a.size < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])
