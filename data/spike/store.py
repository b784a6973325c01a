"""Read the bytes of `.dat` files from folders or an LMDB."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from data.clip_index import listed
from data.frame_order import by_number
from data.lmdb_store import LmdbStore, is_lmdb
from utils.spike_loader import packed_bytes
from utils.utils_error import UserError
from utils.utils_file import own_path


class SpikeStore(Protocol):
    """The `.dat` files of clips as bytes."""

    def sizes(self, clip: str) -> dict[str, int]:
        """Return the size in bytes of a clip's `.dat` files, {frame: size}, sorted by number; UserError if none."""

    def where(self, clip: str, frame: str) -> str:
        """Return the location of a `.dat` file for a message."""

    def packed(self, clip: str, frame: str) -> np.ndarray:
        """Return the bytes of a `.dat` file, (n,) uint8, read on access; UserError if it is missing or empty."""


class SpikeFolder:
    """`<root>/<clip>/spike/<frame>.dat` or `<root>/<clip>/<frame>.dat` of the clips that will be read.

    If it is only one, root may be its folder.
    """

    def __init__(self, root: Path, clips: Iterable[str]) -> None:
        self.root, self._clips = root, list(clips)
        self._folders: dict[str, Path] = {}

    def sizes(self, clip: str) -> dict[str, int]:
        sizes = {path.stem: _size(path) for path in _dat_files(self._folder(clip))}
        return {frame: sizes[frame] for frame in by_number(sizes)}

    def where(self, clip: str, frame: str) -> str:
        return str(self._folder(clip) / f"{frame}.dat")

    def packed(self, clip: str, frame: str) -> np.ndarray:
        return packed_bytes(Path(self.where(clip, frame)))

    def _folder(self, clip: str) -> Path:
        if clip not in self._folders:
            self._folders[clip] = self._find(clip)
        return self._folders[clip]

    def _find(self, clip: str) -> Path:
        named = own_path(self.root, clip)
        own, of_root = [named / "spike", named], [self.root / "spike", self.root]
        is_alone = len(self._clips) < 2
        for folder in own + of_root * (is_alone and not self._has_clips()):
            if _has_dat_files(folder):
                return folder
        other = next(filter(_has_dat_files, of_root), None)
        if other is not None and not is_alone:
            raise UserError(
                f"clip {clip}: no .dat files in {own[0]} nor in {own[1]}; those in {other} are of one clip, expected "
                f"those of {len(self._clips)} ({listed(self._clips)}): set dataroot_spike to the folder that holds one "
                "folder per clip"
            )
        upper = next((path for folder in own for path in folder.glob("*.[dD][aA][tT]")), None)
        advice = "correct dataroot_spike" if upper is None else f"there is {upper.name}: rename such files to .dat"
        raise UserError(f"clip {clip}: no .dat files in {own[0]} nor in {own[1]}; {advice}")

    def _has_clips(self) -> bool:
        """Return whether clips have their own folders here, so that the root is not a clip itself."""
        folders = [path for path in self.root.iterdir() if path.is_dir() and path.name != "spike"]
        return any(_has_dat_files(place) for folder in folders for place in (folder, folder / "spike"))


class SpikeLmdb:
    """`.dat` files as values of an LMDB with the keys `<clip>/<frame>`."""

    def __init__(self, root: Path) -> None:
        self.root, self._store = root, LmdbStore(root)

    def sizes(self, clip: str) -> dict[str, int]:
        if not (frames := self._store.frames(clip)):
            raise UserError(f"clip {clip}: {self.root} has no such clip; write the LMDB again with --force")
        return {frame: self._store.get(clip, frame).size for frame in frames}

    def where(self, clip: str, frame: str) -> str:
        return f"{self.root} key {clip}/{frame}"

    def packed(self, clip: str, frame: str) -> np.ndarray:
        return self._store.get(clip, frame)


def _dat_files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.glob("*.dat") if not path.name.startswith("."))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}), expected a .dat; restore or remove it") from None


def _has_dat_files(folder: Path) -> bool:
    return folder.is_dir() and next(_dat_files(folder), None) is not None


def open_store(root: Path, clips: Iterable[str]) -> SpikeStore:
    """Open a folder of clips' `.dat` files, or an LMDB if the folder is one."""
    return SpikeLmdb(root) if is_lmdb(root) else SpikeFolder(root, clips)
