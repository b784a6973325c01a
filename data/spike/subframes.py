"""Stored light: gray sub-frames at the spike grid, from which spikes are fired anew for every training sample.

`<root>/<clip>/<frame>.npy`, or an LMDB of these: (T, h, w) uint8, the light of each spike step of the frame's `.dat`,
row 0 at the top. Values are those of gray RGB frames: white is 255, and if the manifest's transfer is "linear" they are
sRGB-encoded, which keeps dark light apart.
"""

from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from tokenize import TokenError

import numpy as np
from numpy.lib import format as npy

from data.lmdb_store import LmdbStore, is_lmdb
from utils.utils_error import UserError
from utils.utils_file import own_path

Shape = tuple[int, int, int]
HEADER = 1024  # bytes that surely hold the header of a .npy
MAKE_AGAIN = "make the data set again"


class SubFrames:
    """The sub-frames below a folder or in an LMDB; `shape_of` a clip's frame is the (T, h, w) of its spikes."""

    def __init__(self, root: Path, shape_of: Callable[[str, str], Shape]) -> None:
        self.root, self._shape_of = root, shape_of
        self._store = LmdbStore(root) if is_lmdb(root) else None

    def read(self, clip: str, frame: str) -> np.ndarray:
        """Map the sub-frames of one frame, (T, h, w) uint8, read on access.

        Raises:
            UserError: there are none, they do not match the frame's spikes, or the file is damaged.
        """
        where = self.where(clip, frame)
        array: np.ndarray
        try:
            array = npy.open_memmap(where, mode="r") if self._store is None else in_memory(self._store.get(clip, frame))
        except FileNotFoundError:
            raise UserError(f"{where}: no such file, expected sub-frames; make the data set with them") from None
        except (OSError, ValueError, TokenError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"{where}: not a readable .npy ({reason}); {MAKE_AGAIN}") from None
        wanted = self._shape_of(clip, frame)
        if array.shape != wanted or array.dtype != np.uint8:
            raise UserError(
                f"{where}: {array.dtype} of {array.shape}, expected uint8 of {wanted}, one sub-frame per spike step at "
                f"the spike grid; {MAKE_AGAIN}"
            )
        return array

    def where(self, clip: str, frame: str) -> str:
        """Return the place of a frame's sub-frames, for a message."""
        if self._store is not None:
            return f"{self.root} key {clip}/{frame}"
        return str(own_path(self.root, clip) / f"{frame}.npy")

    def problems(self, clips: Mapping[str, tuple[str, ...]]) -> list[str]:
        """Look for the sub-frames of all frames, and into the first of each clip; one line per clip with a problem."""
        found = []
        for clip, frames in clips.items():
            there = self._names(clip)
            missing = [frame for frame in frames if frame not in there]
            if missing:
                found.append(
                    f"clip {clip} frame {missing[0]}: {self.where(clip, missing[0])}: no sub-frames of {len(missing)} "
                    f"of the clip's {len(frames)} frames; make the data set with them, or set dataroot_subframes to "
                    "null"
                )
                continue
            try:
                self.read(clip, frames[0])
            except UserError as error:
                found.append(f"clip {clip} frame {frames[0]}: {error}")
        return found

    def _names(self, clip: str) -> set[str]:
        if self._store is not None:
            return set(self._store.frames(clip))
        return {path.stem for path in own_path(self.root, clip).glob("*.npy")}


def in_memory(data: np.ndarray) -> np.ndarray:
    """Return the array of a .npy of bytes, (n,) uint8, without copying it; ValueError if it is damaged."""
    file = BytesIO(data[:HEADER].tobytes())
    version = npy.read_magic(file)
    header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, is_fortran, dtype = header(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    return data[file.tell() :].view(dtype).reshape(shape, order="F" if is_fortran else "C")
