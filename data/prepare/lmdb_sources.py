"""The source files of an LMDB: image frames, which are encoded anew; spikes and stored light, which are copied."""

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import cv2
import numpy as np

from data.clip_index import Clips, scan_clips
from data.frame_order import by_number
from data.frame_store import FrameStore
from data.image_folders import is_hidden
from data.lmdb_store import Entry, stamp_of
from data.spike.store import SpikeFolder
from data.spike.subframes import in_memory
from utils.spike_loader import steps_in
from utils.utils_error import UserError
from utils.utils_image import decode_rgb


class Value(NamedTuple):
    """One value to write: its bytes (n,) uint8, its entry in meta_info.txt, and the checksum of its decoded content."""

    data: np.ndarray
    entry: Entry
    checksum: int


class Files:
    """Clips on disk that become an LMDB; a value is its file's bytes, unless a class encodes it."""

    root: Path
    clips: Clips
    suffix = ""

    def file(self, clip: str, frame: str) -> Path:
        """Return the path of a frame's file."""
        return self.root / clip / f"{frame}{self.suffix}"

    def data(self, clip: str, frame: str) -> np.ndarray:
        """Return a file's bytes, (n,) uint8, read on access; UserError if it is empty."""
        path = self.file(clip, frame)
        if not path.stat().st_size:
            raise UserError(f"{path}: is empty, expected a {self.suffix}; make it again")
        return np.memmap(path, np.uint8, "r")

    def shape(self, clip: str, frame: str, data: np.ndarray) -> tuple[int, ...]:
        """Return the size of what a file's bytes hold; UserError if they cannot be that."""
        raise NotImplementedError

    def lengths(self) -> Iterator[int]:
        """Yield the approximate bytes of each value."""
        return (self.file(clip, frame).stat().st_size for clip, frames in self.clips.items() for frame in frames)

    def size(self, clip: str, frame: str) -> tuple[int, ...]:
        """Return the size for meta_info.txt, without reading the whole file."""
        return self.shape(clip, frame, self.data(clip, frame))

    def stamp(self, clip: str, frame: str) -> tuple[int, int, int]:
        """Return a file's size in bytes, and mtime and ctime in ns."""
        return stamp_of(self.file(clip, frame))

    def value(self, clip: str, frame: str) -> Value:
        """Read a file and encode it."""
        data = self.data(clip, frame)
        entry = Entry(f"{frame}{self.suffix}", self.shape(clip, frame, data), 0)
        return Value(data, entry, self.checksum(data))

    def checksum(self, data: np.ndarray) -> int:
        """Return the checksum of the decoded content of a value's bytes; 0 if they cannot be decoded."""
        return zlib.crc32(data.data)


class PngFiles(Files):
    """Image frames `<root>/<clip>/<frame>.png`, or of another format, encoded anew as PNG.

    Args:
        root: folder of the clips.
        compression: PNG level; 0 is uncompressed and by far the fastest to decode.
        in_time: frames follow each other in time, one number in their names says how.
    """

    def __init__(self, root: Path, compression: int, *, in_time: bool = True) -> None:
        self.root, self.compression = root, compression
        self._frames = FrameStore(root)
        self.clips = scan_clips(root) if in_time else self._frames.clips()
        self._frames.warn_of_losses(self.clips)

    def file(self, clip: str, frame: str) -> Path:
        """See Files."""
        return self._frames.file(clip, frame)

    def lengths(self) -> Iterator[int]:
        """See Files; assumes all frames of a clip to be as large as its first, which is exact at level 0."""
        for clip, frames in self.clips.items():
            yield from [self.value(clip, frames[0]).data.size] * len(frames)

    def size(self, clip: str, frame: str) -> tuple[int, ...]:
        """See Files."""
        return (*self._frames.size(clip, frame), 3)

    def value(self, clip: str, frame: str) -> Value:
        """See Files."""
        image = self._frames.read(clip, frame)
        encoded = encode_png(image, self.compression)
        return Value(encoded, Entry(f"{frame}.png", image.shape, self.compression), zlib.crc32(image.data))

    def checksum(self, data: np.ndarray) -> int:
        """See Files."""
        image = decode_rgb(data)
        return 0 if image is None else zlib.crc32(image.data)


class DatFiles(Files):
    """Spikes `<root>/<clip>/spike/<frame>.dat` or `<root>/<clip>/<frame>.dat`.

    Args:
        root: folder of the clips.
        size: (H, W) of the sensor.
        sizes: (H, W) of clips whose size differs.

    Raises:
        UserError: a clip has no `.dat` files, or a file is not a whole number of steps.
    """

    suffix = ".dat"

    def __init__(
        self, root: Path, size: tuple[int, int], sizes: Mapping[str, tuple[int, int]] = MappingProxyType({})
    ) -> None:
        self.root, self._size, self._own_sizes = root, size, sizes
        names = _folder_names(root)
        if not names:
            raise UserError(f"{root}: no clip folders with *.dat files; correct the path")
        self._folder = SpikeFolder(root, names)
        sizes_in_bytes = {clip: self._folder.sizes(clip) for clip in names}
        self.clips = {clip: tuple(frames) for clip, frames in sizes_in_bytes.items()}
        for clip, frames in sizes_in_bytes.items():
            for frame, count in frames.items():
                self._shape(clip, frame, count)

    def file(self, clip: str, frame: str) -> Path:
        """See Files."""
        return Path(self._folder.where(clip, frame))

    def data(self, clip: str, frame: str) -> np.ndarray:
        """See Files."""
        return self._folder.packed(clip, frame)

    def shape(self, clip: str, frame: str, data: np.ndarray) -> tuple[int, ...]:
        """See Files."""
        return self._shape(clip, frame, data.size)

    def _shape(self, clip: str, frame: str, count: int) -> tuple[int, ...]:
        try:
            size = self._own_sizes.get(clip, self._size)
            return (steps_in(count, *size), *size)
        except UserError as error:
            raise UserError(f"{self.file(clip, frame)}: {error}") from None


class NpyFiles(Files):
    """Stored light `<root>/<clip>/<frame>.npy`.

    Args:
        root: folder of the clips.

    Raises:
        UserError: there are no files.
    """

    suffix = ".npy"

    def __init__(self, root: Path) -> None:
        self.root = root
        found = {clip: by_number(path.stem for path in (root / clip).glob("[!.]*.npy")) for clip in _folder_names(root)}
        self.clips = {clip: frames for clip, frames in found.items() if frames}
        if not self.clips:
            raise UserError(f"{root}: no clip folders with *.npy files; correct the path")

    def shape(self, clip: str, frame: str, data: np.ndarray) -> tuple[int, ...]:
        """See Files."""
        try:
            return in_memory(data).shape
        except ValueError as error:
            raise UserError(f"{self.file(clip, frame)}: not a readable .npy ({error}); make it again") from None


def _folder_names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not is_hidden(path.name))


def encode_png(image: np.ndarray, compression: int) -> np.ndarray:
    """Encode (H, W, 3) uint8, RGB, as the bytes (n,) uint8 of a PNG file; compression level 0 to 9."""
    parameters = [cv2.IMWRITE_PNG_COMPRESSION, compression]
    # Unfiltered rows decode fastest; OpenCV before 4.12 lacks the option.
    if compression == 0 and hasattr(cv2, "IMWRITE_PNG_FILTER"):
        parameters += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), parameters)[1]
