"""Reading RGB frames of clips: from image files, videos or an LMDB, or from memory once read."""

from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from data.clip_index import Clips, frame_names, holds_videos
from data.frame_order import by_number, number_format
from data.lmdb_store import LmdbStore, is_lmdb, lmdb_path
from data.video_frames import VideoFrames
from options.schema import DatasetOpt
from utils.utils_error import UserError
from utils.utils_image import decode_rgb, read_rgb


class Frames(Protocol):
    """The frames below one root."""

    def clips(self) -> list[str]:
        """List the clips that have frames; empty where the root may be a clip of any name."""

    def names(self, clip: str) -> set[str]:
        """Return the names of a clip's frames; UserError if there is no such clip."""

    def where(self, clip: str) -> str:
        """Name the place of a clip for a message."""

    def size(self, clip: str, frame: str) -> tuple[int, int]:
        """Return (H, W) without decoding; UserError if there is no such image."""

    def read(self, clip: str, frame: str) -> np.ndarray:
        """Return (H, W, 3) uint8, RGB; UserError if the frame is missing or damaged."""


class DiskFrames:
    """Frames `<root>/<clip>/<frame>.<ext>`, or `<root>/<frame>.<ext>` where root is itself one clip."""

    def __init__(self, root: Path, ext: str) -> None:
        self.root, self.ext = root, ext
        self._is_one_clip = bool(frame_names(root, ext))

    def clips(self) -> list[str]:
        """See Frames."""
        if self._is_one_clip:
            return []
        folders = sorted(path for path in self.root.iterdir() if path.is_dir())
        return [folder.name for folder in folders if frame_names(folder, self.ext)]

    def names(self, clip: str) -> set[str]:
        """See Frames."""
        folder = self._folder(clip)
        if not folder.is_dir():
            raise UserError(f"clip {clip}: {folder} is no folder; every clip needs one of the same name")
        return set(frame_names(folder, self.ext))

    def where(self, clip: str) -> str:
        """See Frames."""
        return str(self._folder(clip))

    def size(self, clip: str, frame: str) -> tuple[int, int]:
        """See Frames; the file's header alone is read."""
        path = self._path(clip, frame)
        try:
            with Image.open(path) as image:
                return image.height, image.width
        except (OSError, UnidentifiedImageError) as error:
            raise UserError(f"clip {clip} frame {frame}: {path} is no readable image ({error})") from None

    def read(self, clip: str, frame: str) -> np.ndarray:
        """See Frames."""
        try:
            return read_rgb(self._path(clip, frame))
        except UserError as error:
            raise UserError(f"clip {clip} frame {frame}: {error}") from None

    def _folder(self, clip: str) -> Path:
        return self.root if self._is_one_clip else self.root / clip

    def _path(self, clip: str, frame: str) -> Path:
        return self._folder(clip) / f"{frame}.{self.ext}"


class LmdbFrames:
    """Frames of an LMDB with the keys `<clip>/<frame>`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._store = LmdbStore(root)
        self._clips = self._store.clips()

    def clips(self) -> list[str]:
        """See Frames."""
        return list(self._clips)

    def names(self, clip: str) -> set[str]:
        """See Frames."""
        if clip not in self._clips:
            raise UserError(f"clip {clip}: {self.root} has no such clip; every clip needs one of the same name")
        return set(self._clips[clip])

    def where(self, clip: str) -> str:
        """See Frames."""
        return f"{self.root} key {clip}"

    def size(self, clip: str, frame: str) -> tuple[int, int]:
        """See Frames; taken from meta_info.txt."""
        height, width, *_ = self._store.entry(clip, frame).size
        return height, width

    def read(self, clip: str, frame: str) -> np.ndarray:
        """See Frames."""
        image = decode_rgb(self._store.get(clip, frame))
        if image is None:
            raise UserError(
                f"clip {clip} frame {frame}: {self.root} has no whole image at {clip}/{frame}; create the LMDB again"
            )
        return image


def open_frames(root: Path, ext: str, backend: str, filename_tmpl: str = "06d") -> Frames:
    """Open a folder of images, an LMDB of them, a video or a folder of videos.

    Raises:
        UserError: `backend` is one and the root the other, the LMDB is damaged, or there are videos beside images.
    """
    if backend == "lmdb" and not is_lmdb(root):
        ready = lmdb_path(root)
        advice = f"use {ready}" if is_lmdb(ready) else f"create {ready} with --generate-lmdb"
        raise UserError(f'io_backend.type: is "lmdb", but {root} is a folder of images (no data.mdb); {advice}')
    if backend == "disk" and is_lmdb(root):
        raise UserError(f'io_backend.type: is "disk", but {root} is an LMDB; set it to "lmdb" or use the images')
    if backend == "lmdb":
        return LmdbFrames(root)
    return VideoFrames(root, number_format(filename_tmpl)) if holds_videos(root, ext) else DiskFrames(root, ext)


class FrameStore:
    """RGB frames of clips.

    Args:
        root: an existing folder: of clips, of frames, of videos, or an LMDB; or a video file.
        ext: extension of image files, no dot; an LMDB has its own.
        backend: "disk" or "lmdb".
        cache: keep every decoded frame (uint8) in the memory of this process.
        filename_tmpl: format of the numbers that name a video's frames.

    Raises:
        UserError: the root does not suit the backend, or its LMDB is damaged.
    """

    def __init__(
        self, root: Path, ext: str, *, backend: str = "disk", cache: bool = False, filename_tmpl: str = "06d"
    ) -> None:
        self._frames = open_frames(root, ext, backend, filename_tmpl)
        self.ext = "video" if isinstance(self._frames, VideoFrames) else ext
        self._names: dict[str, set[str]] = {}
        self._cache: dict[tuple[str, str], np.ndarray] | None = {} if cache else None

    def problems(self, clips: Clips, *, exact: bool) -> list[str]:
        """Compare wanted clips and frames with those that are there.

        Args:
            clips: the wanted frames of each clip.
            exact: whether clips and frames beyond the wanted ones are a problem as well.

        Returns:
            One line per frame or clip that does not match; empty if all do.
        """
        found = [line for clip, wanted in clips.items() for line in self._problems(clip, set(wanted), exact)]
        if exact:
            found += [
                f"clip {clip}: {self._frames.where(clip)} has frames, but dataroot_lq has no such clip; "
                "names must match"
                for clip in self._frames.clips()
                if clip not in clips
            ]
        return found

    def _problems(self, clip: str, wanted: set[str], exact: bool) -> list[str]:
        try:
            names = self._frames.names(clip)
        except UserError as error:
            return [str(error)]
        where = self._frames.where(clip)
        tail = f"({len(names)} {self.ext} frames, {len(wanted)} expected); names must match one to one"
        missing = [f"clip {clip} frame {frame}: {where} lacks it {tail}" for frame in by_number(wanted - names)]
        extra = [f"clip {clip} frame {frame}: {where} has it unpaired {tail}" for frame in by_number(names - wanted)]
        return missing + extra if exact else missing

    def has(self, clip: str, frame: str) -> bool:
        """Say whether there is such a frame."""
        if clip not in self._names:
            try:
                self._names[clip] = self._frames.names(clip)
            except UserError:
                self._names[clip] = set()
        return frame in self._names[clip]

    def rate(self, clip: str) -> Fraction | None:
        """Return a clip's mean number of frames a second, None where images or the video do not say."""
        return self._frames.rate(clip) if isinstance(self._frames, VideoFrames) else None

    def size(self, clip: str, frame: str) -> tuple[int, int]:
        """Return (H, W) of a frame without decoding it.

        Raises:
            UserError: the frame is missing or no image; names clip and frame.
        """
        return self._frames.size(clip, frame)

    def read(self, clip: str, frame: str) -> np.ndarray:
        """Read a frame.

        Returns:
            (H, W, 3) uint8, RGB; not to be written into.

        Raises:
            UserError: the frame is missing, empty or truncated; names clip and frame.
        """
        if self._cache is not None and (clip, frame) in self._cache:
            return self._cache[clip, frame]
        image = self._frames.read(clip, frame)
        if self._cache is not None:
            self._cache[clip, frame] = image
        return image

    def read_many(
        self, clip: str, frames: tuple[str, ...], size: tuple[int, int], rows: slice, cols: slice
    ) -> np.ndarray:
        """Read the same cut of several frames.

        Args:
            clip: clip name.
            frames: T frame names, in the order wanted.
            size: (H, W) that every frame must have.
            rows: rows of the cut.
            cols: columns of the cut.

        Returns:
            (T, h, w, 3) uint8, RGB.

        Raises:
            UserError: a frame cannot be read or has another size; names clip and frame.
        """
        cuts = []
        for frame in frames:
            image = self.read(clip, frame)
            if image.shape[:2] != size:
                found = "x".join(map(str, image.shape[:2]))
                raise UserError(
                    f"clip {clip} frame {frame}: in {self._frames.where(clip)} it has {found} pixels, expected "
                    f"{size[0]}x{size[1]}; all frames of a clip need one size"
                )
            cuts.append(image[rows, cols])
        return np.stack(cuts)


def store_of(opt: DatasetOpt, root: Path) -> FrameStore:
    """Open one of the folders, LMDBs or videos of a data set as its options say."""
    return FrameStore(
        root, opt.filename_ext, backend=opt.io_backend.type, cache=opt.cache_data, filename_tmpl=opt.filename_tmpl
    )
