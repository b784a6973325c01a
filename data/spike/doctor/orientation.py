"""Which way up a stream is: told by a paired picture, else only guessed."""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from data.image_folders import IMAGE_SUFFIXES
from data.layout import SPIKES, SPLITS, gt_dir
from data.spike.light import to_gray

# A picture decides if one orientation correlates with it at least this much, and this much better than the others.
ALIKE = 0.4
BETTER = 0.1
# Most scenes are brighter at the top. Of 17 photographs and captures, 8 had a correlation of brightness and height
# beyond this, 6 of them with the bright side up: a hint, no proof.
_TILTED = 0.25
_BESIDE = ("_sharp", "_gt", "")  # what the name of a picture beside a spike file adds to its stem


class Match(NamedTuple):
    """Correlation of a plane with a picture, in [-1, 1], for four ways to lay one on the other."""

    as_is: float
    upside_down: float
    mirrored: float
    turned: float

    @property
    def best(self) -> str | None:
        """The name of the orientation that the picture decides for, or None."""
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
    return Match(*(_correlation(turned, gray) for turned in (plane, plane[::-1], plane[:, ::-1], plane[::-1, ::-1])))


def brighter_up(plane: np.ndarray) -> float:
    """Correlation of brightness and height in (H, W), positive where the top is brighter; 0 where that is no hint."""
    height = np.broadcast_to(np.linspace(1, -1, len(plane), dtype=np.float32)[:, None], plane.shape)
    tilt = _correlation(plane, height)
    return tilt if abs(tilt) > _TILTED else 0.0


def paired_picture(path: Path) -> Path | None:
    """Find the sharp picture of a spike file: in the GoPro layout, or beside it with the same stem."""
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


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if a.size < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])
