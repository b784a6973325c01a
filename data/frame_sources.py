"""Frames of clips in image files, an LMDB or videos, behind one interface."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from data.clip_index import holds_videos
from data.frame_order import number_format
from data.image_folders import ImageFolders
from data.lmdb_store import DATA, LmdbStore, is_lmdb, lmdb_path
from data.video.frames import VideoFrames
from utils.utils_error import UserError
from utils.utils_image import decode_rgb, image_size, mapped, read_rgb

T = TypeVar("T")


class Frames(Protocol):
    """The frames below one root."""

    is_one_clip: bool  # the root is a clip itself, and serves a clip of any name

    def clips(self) -> list[str]:
        """List the clips that have frames; empty if the root is one clip."""

    def names(self, clip: str) -> set[str]:
        """Return the names of a clip's frames; UserError if there is no such clip."""

    def where(self, clip: str) -> str:
        """Return a clip's location for a message."""

    def untaken(self, clip: str) -> str:
        """Describe the images there that are not read as frames, for a message; empty if all are."""

    def file(self, clip: str, frame: str) -> Path:
        """Return the file that holds a frame; UserError if there is none."""

    def size(self, clip: str, frame: str) -> tuple[int, int]:
        """Return (H, W) without decoding; UserError if there is no such image."""

    def encoded(self, clip: str, frame: str) -> np.ndarray | None:
        """Return the bytes of an image file, (n,) uint8, read on access; None for a video."""

    def read(self, clip: str, frame: str) -> np.ndarray:
        """Return (H, W, 3) uint8, RGB; UserError if the frame is missing or damaged."""


class DiskFrames(ImageFolders):
    """Frames in the image files that `ImageFolders` finds."""

    def names(self, clip: str) -> set[str]:
        return set(self.files(clip))

    def where(self, clip: str) -> str:
        return str(self.folder(clip))

    def file(self, clip: str, frame: str) -> Path:
        name = self.files(clip).get(frame)
        if name is None:
            raise UserError(f"clip {clip} frame {frame}: {self.where(clip)} has no image of that name; restore it")
        return self.folder(clip) / name

    def size(self, clip: str, frame: str) -> tuple[int, int]:
        return self._of(image_size, clip, frame)

    def encoded(self, clip: str, frame: str) -> np.ndarray:
        return mapped(self.file(clip, frame))

    def read(self, clip: str, frame: str) -> np.ndarray:
        return self._of(read_rgb, clip, frame)

    def _of(self, read: Callable[[Path], T], clip: str, frame: str) -> T:
        path = self.file(clip, frame)
        try:
            return read(path)
        except UserError as error:
            raise UserError(f"clip {clip} frame {frame}: {error}") from None


class LmdbFrames:
    """Frames in an LMDB with the keys `<clip>/<frame>`."""

    is_one_clip = False

    def __init__(self, root: Path) -> None:
        self.root, self._store = root, LmdbStore(root)

    def clips(self) -> list[str]:
        return list(self._store.clips())

    def names(self, clip: str) -> set[str]:
        if not (names := self._store.frames(clip)):
            raise UserError(f"clip {clip}: {self.root} has no such clip; every clip needs one of the same name")
        return set(names)

    def where(self, clip: str) -> str:
        return f"{self.root} key {clip}"

    def untaken(self, clip: str) -> str:
        return ""

    def file(self, clip: str, frame: str) -> Path:
        return self.root / DATA

    def size(self, clip: str, frame: str) -> tuple[int, int]:
        height, width, *_ = self._store.entry(clip, frame).size
        return height, width

    def encoded(self, clip: str, frame: str) -> np.ndarray:
        return self._store.get(clip, frame)

    def read(self, clip: str, frame: str) -> np.ndarray:
        image = decode_rgb(self._store.get(clip, frame))
        if image is None:
            raise UserError(
                f"clip {clip} frame {frame}: {self.root} has no valid image at {clip}/{frame}; create the LMDB again"
            )
        return image


def open_frames(
    root: Path, ext: str | None, backend: str, filename_tmpl: str, key: str, pictures_beside: bool
) -> Frames:
    """Open a folder of images, an LMDB of images, a video or a folder of videos; arguments as in `FrameStore`.

    Raises:
        UserError: the root does not match `backend`, the LMDB is damaged, or videos and images are mixed.
    """
    if backend == "lmdb" and not is_lmdb(root):
        ready = lmdb_path(root)
        advice = f"use {ready}" if is_lmdb(ready) else f"create {ready} with --generate-lmdb"
        raise UserError(f'io_backend.type: is "lmdb", but {root} is a folder of images (no data.mdb); {advice}')
    if backend == "disk" and is_lmdb(root):
        raise UserError(f'io_backend.type: is "disk", but {root} is an LMDB; set it to "lmdb" or use the images')
    if backend == "lmdb":
        return LmdbFrames(root)
    if holds_videos(root, ext):
        return VideoFrames(root, number_format(filename_tmpl))
    return DiskFrames(root, ext, key, pictures_beside=pictures_beside)
