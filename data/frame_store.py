"""Reading RGB frames of clips: from disk, or from memory once read."""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from data.clip_index import Clips, frame_names
from utils.utils_error import UserError
from utils.utils_image import read_rgb


class FrameStore:
    """RGB frames `<root>/<clip>/<frame>.<ext>`, or `<root>/<frame>.<ext>` where root is itself one clip.

    Args:
        root: an existing folder.
        ext: extension of the frames, no dot.
        backend: "disk".
        cache: keep every decoded frame (uint8) in the memory of this process.

    Raises:
        UserError: the backend is not available.
    """

    def __init__(self, root: Path, ext: str, *, backend: str = "disk", cache: bool = False) -> None:
        if backend != "disk":
            raise UserError(f'io_backend.type: "{backend}" is not available yet; use "disk"')
        self.root, self.ext = root, ext
        self._is_one_clip = bool(frame_names(root, ext))
        self._cache: dict[tuple[str, str], np.ndarray] | None = {} if cache else None

    def folder(self, clip: str) -> Path:
        """Return the folder of a clip."""
        return self.root if self._is_one_clip else self.root / clip

    def path(self, clip: str, frame: str) -> Path:
        """Return the file of a frame."""
        return self.folder(clip) / f"{frame}.{self.ext}"

    def problems(self, clips: Clips, *, exact: bool) -> list[str]:
        """Compare wanted clips and frames with the files.

        Args:
            clips: the wanted frames of each clip.
            exact: whether clips and frames beyond the wanted ones are a problem as well.

        Returns:
            One line per clip that does not match; empty if all do.
        """
        checked = [self._problem(clip, set(wanted), exact) for clip, wanted in clips.items()]
        found = [problem for problem in checked if problem]
        if exact and not self._is_one_clip:
            extra = [path for path in sorted(self.root.iterdir()) if path.is_dir() and path.name not in clips]
            found += [
                f"clip {path.name}: {path} has frames, but dataroot_lq has no such clip; names must match"
                for path in extra
                if frame_names(path, self.ext)
            ]
        return found

    def _problem(self, clip: str, wanted: set[str], exact: bool) -> str | None:
        folder = self.folder(clip)
        if not folder.is_dir():
            return f"clip {clip}: {folder} is no folder; every clip needs one of the same name"
        names = set(frame_names(folder, self.ext))
        missing, extra = sorted(wanted - names), sorted(names - wanted) if exact else []
        if not missing and not extra:
            return None
        what = f"lacks frame {missing[0]}" if missing else f"has the unpaired frame {extra[0]}"
        counts = f"{len(names)} *.{self.ext} files, {len(wanted)} frames expected"
        return f"clip {clip}: {folder} {what} ({counts}); names must match one to one"

    def size(self, clip: str, frame: str) -> tuple[int, int]:
        """Read (H, W) of a frame from its header alone.

        Raises:
            UserError: the file is missing or no image; names clip and frame.
        """
        path = self.path(clip, frame)
        try:
            with Image.open(path) as image:
                return image.height, image.width
        except (OSError, UnidentifiedImageError) as error:
            raise UserError(f"clip {clip} frame {frame}: {path} is no readable image ({error})") from None

    def read(self, clip: str, frame: str) -> np.ndarray:
        """Read a frame.

        Returns:
            (H, W, 3) uint8, RGB; not to be written into.

        Raises:
            UserError: the file is missing, empty or truncated; names clip and frame.
        """
        if self._cache is not None and (clip, frame) in self._cache:
            return self._cache[clip, frame]
        try:
            image = read_rgb(self.path(clip, frame))
        except UserError as error:
            raise UserError(f"clip {clip} frame {frame}: {error}") from None
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
                    f"clip {clip} frame {frame}: {self.path(clip, frame)} is {found} pixels, expected "
                    f"{size[0]}x{size[1]}; all frames of a clip need one size"
                )
            cuts.append(image[rows, cols])
        return np.stack(cuts)
