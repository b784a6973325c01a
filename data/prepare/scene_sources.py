"""The pictures and videos that scenes are made of, and who sees which: nothing held out is trained on."""

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from data.geometry import size_text
from data.image_folders import IMAGE_SUFFIXES
from data.layout import Split
from data.prepare.photo_scene import FINEST
from data.prepare.recordings import Source
from utils.utils_error import UserError, counted, say_once
from utils.utils_file import digest
from utils.utils_image import read_rgb
from utils.utils_progress import progress

HASH_SIDE = 8  # the hash compares neighbours on a grid of 8 x 9 mean grays
ALIKE = 6  # bits of 64 by which the hashes of look-alikes differ at most
MOST_ENLARGED = 1.5  # smaller pictures are left out
KEPT_PICTURES = 512


@dataclass(frozen=True)
class Picture:
    """A picture and its split.

    Attributes:
        path: of the file.
        name: last folder and path below the place that was given.
        digest: of the file's bytes, SHA-256.
        split: train or test.
    """

    path: Path
    name: str
    digest: str
    split: Split


def find_pictures(
    places: Sequence[Path], test_places: Sequence[Path], holdout: float, least: tuple[int, int]
) -> list[Picture]:
    """Find pictures, one of those that look alike, and split them.

    Args:
        places: folders, searched to the bottom, and files. A share of their pictures is held out, by their bytes.
        test_places: likewise; all of their pictures are held out.
        holdout: that share.
        least: (H, W) that pictures should have; those of less than two thirds are left out.

    Returns:
        In the order of their bytes, so that neither names nor places change what is made of them.

    Raises:
        UserError: a place is missing, a file is not an image, or a split has no picture.
    """
    held_out = [(path, name, "test") for path, name in _files(test_places)]
    files = held_out + [(path, name, "") for path, name in _files(places)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looks = list(progress(pool.map(_look, [path for path, _, _ in files]), total=len(files), unit="picture"))
    small = [min(look.height / least[0], look.width / least[1]) * MOST_ENLARGED < 1 for look in looks]
    if any(small):
        needed = size_text((math.ceil(least[0] / MOST_ENLARGED), math.ceil(least[1] / MOST_ENLARGED)))
        say_once(f"left out: {sum(small)} of {counted(len(files), 'picture')}, smaller than {needed} pixels")
    fitting = [index for index, is_small in enumerate(small) if not is_small]
    kept = _one_of_alike(fitting, looks, [split == "test" for _, _, split in files])
    if len(kept) < len(fitting):
        say_once(f"left out: {len(fitting) - len(kept)} of {counted(len(fitting), 'picture')}, alike to others")
    pictures = []
    for index in progress(kept, unit="picture"):
        path, name, split = files[index]
        sha256 = digest(path)
        is_test = split == "test" or int(sha256[:8], 16) < holdout * 2**32
        pictures.append(Picture(path, name, sha256, "test" if is_test else "train"))
    return sorted(pictures, key=lambda picture: picture.digest)


def video_digests(videos: Mapping[Split, Sequence[Source]]) -> dict[Split, list[str]]:
    """Return the SHA-256 of each video's file, in their order.

    Raises:
        UserError: a video to hold out has the bytes of one to train on.
    """
    digests = {split: [digest(video.path) for video in found] for split, found in videos.items()}
    for video, sha256 in zip(videos["test"], digests["test"], strict=True):
        if sha256 in digests["train"]:
            same = videos["train"][digests["train"].index(sha256)].path
            raise UserError(
                f"--test-videos: {video.path} has the same bytes as {same} of --videos, expected videos that are not "
                "trained on; leave one of them out"
            )
    return digests


def _files(places: Sequence[Path]) -> list[tuple[Path, str]]:
    """List image files with the names that they are recorded by."""
    found = []
    for place in places:
        if place.is_file():
            found.append((place, place.name))
            continue
        if not place.is_dir():
            raise UserError(f"{place}: no such folder or file, expected pictures; check the path")
        paths = sorted(path for path in place.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
        if not paths:
            raise UserError(f"{place}: has no pictures, expected {', '.join(sorted(IMAGE_SUFFIXES))}; check the path")
        root = place.resolve().name
        found += [(path, f"{root}/{path.relative_to(place).as_posix()}") for path in paths]
    return found


class _Look(NamedTuple):
    """Size of a picture, and a hash that look-alikes share: which of neighbouring mean grays is larger, (64,) bool."""

    height: int
    width: int
    hash: np.ndarray


def _look(path: Path) -> _Look:
    gray = cv2.cvtColor(read_rgb(path), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(gray, (HASH_SIDE + 1, HASH_SIDE), interpolation=cv2.INTER_AREA).astype(np.int16)
    return _Look(gray.shape[0], gray.shape[1], np.asarray(small[:, 1:] > small[:, :-1]).reshape(-1))


def _one_of_alike(fitting: list[int], looks: list[_Look], is_test: list[bool]) -> list[int]:
    """Return those of which no two look alike: the largest, or one that is held out."""
    kept: list[int] = []
    for index in sorted(fitting, key=lambda index: (not is_test[index], -looks[index].height * looks[index].width)):
        hashes = np.array([looks[other].hash for other in kept])
        if not kept or int((hashes != looks[index].hash).sum(1).min()) > ALIKE:
            kept.append(index)
    return kept


@lru_cache(KEPT_PICTURES)
def read_picture(path: Path, least: tuple[int, int]) -> np.ndarray:
    """Read a picture, (H, W, 3) uint8 RGB, not much finer than scenes of at least (H, W) pixels need."""
    picture = read_rgb(path)
    scale = FINEST * max(least[0] / picture.shape[0], least[1] / picture.shape[1])
    return picture if scale >= 1 else cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
