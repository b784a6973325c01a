"""Read RGB frames of clips from image files, videos or an LMDB, optionally cached in memory."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.clip_index import Clips, listed, warn_each
from data.frame_order import by_number, frame_name, template_of
from data.frame_sources import open_frames
from data.geometry import size_text
from data.lmdb_store import is_lmdb
from data.video.frames import VideoFrames
from options.schema import DatasetOpt
from utils.utils_error import UserError, counted
from utils.utils_file import one_form
from utils.utils_image import remark
from utils.utils_video import Playback


class FrameStore:
    """RGB frames of clips.

    Args:
        root: an existing folder of clips, frames or videos, an LMDB, or a video file.
        ext: extension of the image files to read, no dot; None reads all image formats. Ignored for an LMDB.
        backend: "disk" or "lmdb".
        cache: keep every decoded frame in this process's memory.
        filename_tmpl: format of frame names; videos use only its number format.
        key: option that names the root, for messages; also selects the blurred or sharp subfolder of each clip.
        pictures_beside: ignore the pictures that a test writes beside its clip folders.

    Raises:
        UserError: the root does not match the backend, or its LMDB is damaged.
    """

    def __init__(
        self,
        root: Path,
        ext: str | None = None,
        *,
        backend: str = "disk",
        cache: bool = False,
        filename_tmpl: str = "06d",
        key: str = "",
        pictures_beside: bool = False,
    ) -> None:
        self._frames = open_frames(root, ext, backend, filename_tmpl, key, pictures_beside)
        self._root, self._tmpl, self._key = root, filename_tmpl, key
        self._names: dict[str, set[str]] = {}
        self._cache: dict[tuple[str, str], np.ndarray] | None = {} if cache else None

    @property
    def is_one_clip(self) -> bool:
        """Whether the root is a clip itself: a folder of frames, or a video."""
        return self._frames.is_one_clip

    def problems(self, clips: Clips, *, exact: bool) -> list[str]:
        """Return one line per wanted frame or clip that is missing, with `exact` also per one beyond the wanted."""
        if found := self.root_problems(clips):
            return found
        found = [line for clip, wanted in clips.items() for line in self._problems(clip, wanted, exact)]
        if exact:
            wanted = {one_form(clip) for clip in clips}
            found += [
                f"clip {clip}: {self._frames.where(clip)} has frames, but dataroot_lq has no such clip; "
                "names must match"
                for clip in self._frames.clips()
                if one_form(clip) not in wanted
            ]
        return found

    def root_problems(self, clips: Clips) -> list[str]:
        """Report a root that holds a single clip when several are wanted."""
        if not self.is_one_clip or len(clips) < 2:
            return []
        return [
            f"{self._key or 'frames'}: {self._root} holds the frames of one clip, expected those of {len(clips)} "
            f"({listed(clips)}); give the folder that holds one folder per clip, or use a single clip"
        ]

    def _problems(self, clip: str, frames: tuple[str, ...], exact: bool) -> list[str]:
        try:
            names, wanted = self._frames.names(clip), set(frames)
        except UserError as error:
            return [str(error)]
        missing, extra = by_number(wanted - names), by_number(names - wanted) if exact else ()
        if not missing and not extra:
            return []
        if alike := {one_form(name) for name in extra} & {one_form(name) for name in missing}:
            return [
                f"clip {clip}: {self._frames.where(clip)} names {counted(len(alike), 'frame')}, such as "
                f"{min(alike)}, in another Unicode form than expected (as macOS does); rename them"
            ]
        where, inside, untaken = self._frames.where(clip), by_number(names), self._frames.untaken(clip)
        there = counted(len(names), "frame") + (f", {inside[0]} to {inside[-1]}" if inside else "")
        there += f", and {untaken} files, which are not read" * bool(untaken)
        advice = "names must match one to one" if exact else self._meta_advice(clip, inside, len(frames))
        if len(missing) == len(wanted):
            return [
                f"clip {clip}: {where} has none of the {len(frames)} frames {frames[0]} to {frames[-1]}; it has "
                f"{there}; {advice}"
            ]
        tail = f"(found {there}, expected {len(wanted)}); {advice}"
        return [
            *(f"clip {clip} frame {frame}: missing in {where} {tail}" for frame in missing),
            *(f"clip {clip} frame {frame}: unpaired in {where} {tail}" for frame in extra),
        ]

    def _meta_advice(self, clip: str, there: tuple[str, ...], count: int) -> str:
        """Return advice: the meta info line that would match the existing frames."""
        try:
            (template, start), (height, width) = template_of(there[0]), self.size(clip, there[0])
        except (IndexError, ValueError):
            return "correct the line of meta_info_file or the clip"
        of_template = "" if frame_name(start, self._tmpl) == there[0] else f' and set filename_tmpl to "{template}"'
        count = min(count, len(there))
        return f"write `{clip} {count} ({height},{width},3) {start}`{of_template}"

    def warn_of_losses(self, clips: Clips) -> None:
        """Warn, one line per clip, of what reading loses (see `remark`); checks the first, middle and last frame."""
        lines = []
        for clip, frames in clips.items():
            some = dict.fromkeys((frames[0], frames[len(frames) // 2], frames[-1]))
            where = self._frames.where(clip)
            files = {f"frame {frame} in {where}": self._frames.encoded(clip, frame) for frame in some}
            if found := remark({name: file for name, file in files.items() if file is not None}):
                lines.append(f"clip {clip}: {found}")
        warn_each(lines)

    def clips(self) -> Clips:
        """Return the names of each clip's frames, sorted by number."""
        return {clip: by_number(self._frames.names(clip)) for clip in self._frames.clips()}

    def has(self, clip: str, frame: str) -> bool:
        return frame in self.names(clip)

    def names(self, clip: str) -> set[str]:
        """Return the names of a clip's frames; empty if there is no such clip."""
        if clip not in self._names:
            try:
                self._names[clip] = self._frames.names(clip)
            except UserError:
                self._names[clip] = set()
        return self._names[clip]

    def playback(self, clip: str, frames: Sequence[str]) -> Playback:
        """Return how frames of a clip are shown; unknown for images."""
        return self._frames.playback(clip, frames) if isinstance(self._frames, VideoFrames) else Playback()

    def file(self, clip: str, frame: str) -> Path:
        """Return the file that holds a frame; UserError if there is none."""
        return self._frames.file(clip, frame)

    def size(self, clip: str, frame: str) -> tuple[int, int]:
        """Return (H, W) of a frame without decoding it; UserError if it is missing or not an image."""
        return self._frames.size(clip, frame)

    def read(self, clip: str, frame: str) -> np.ndarray:
        """Read a frame, (H, W, 3) uint8, RGB; do not modify.

        Raises:
            UserError: the frame is missing, empty or truncated; names clip and frame.
        """
        if self._cache is None:
            return self._frames.read(clip, frame)
        if (clip, frame) not in self._cache:
            self._cache[clip, frame] = self._frames.read(clip, frame)
        return self._cache[clip, frame]

    def read_many(
        self, clip: str, frames: tuple[str, ...], size: tuple[int, int], rows: slice, cols: slice
    ) -> np.ndarray:
        """Read the same crop of T frames, each of which must have `size` (H, W): (T, h, w, 3) uint8, RGB.

        Raises:
            UserError: a frame cannot be read or has another size; names clip and frame.
        """
        crops = []
        for frame in frames:
            image = self.read(clip, frame)
            if image.shape[:2] != size:
                raise UserError(
                    f"clip {clip} frame {frame}: in {self._frames.where(clip)} it has {size_text(image.shape[:2])} "
                    f"pixels, expected {size_text(size)}; all frames of a clip must have the same size"
                )
            crops.append(image[rows, cols])
        return np.stack(crops)


def instants_store(opt: DatasetOpt, root: Path) -> FrameStore:
    """Open the sharp frames at other instants: PNG files or an LMDB, whatever the other frames are."""
    backend = "lmdb" if is_lmdb(root) else "disk"
    return FrameStore(root, backend=backend, cache=opt.cache_data, key="dataroot_instants")


def store_of(opt: DatasetOpt, root: Path, key: str) -> FrameStore:
    """Open the folder, LMDB or video that a data set's option `key` names."""
    backend, cache, template = opt.io_backend.type, opt.cache_data, opt.filename_tmpl
    return FrameStore(root, opt.filename_ext, backend=backend, cache=cache, filename_tmpl=template, key=key)
