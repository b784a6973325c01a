"""Find the image frames of clips on disk: in one folder, in one folder per clip, or one level deeper.

<root>/<frame>.png                  one clip
<root>/<clip>/<frame>.png           several clips
<root>/<outer>/<inner>/<frame>.png  clips named <outer>/<inner>, as in Vimeo-90K; if the inner folders are parts of a
                                    clip (GoPro's blur and sharp, DVD's input and GT), one part of each clip
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from data.frame_order import by_number, in_time
from utils.utils_error import UserError, say_once
from utils.utils_file import own_path
from utils.utils_run_folder import ResultsFolder

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
# Image formats that are not read, but named in messages.
OTHER_SUFFIXES = {".exr", ".hdr", ".heic", ".heif", ".avif", ".gif", ".jp2", ".jxl", ".dng", ".tga"}
VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v")
# Option -> folder names of the part of a clip that it selects.
PARTS = {"dataroot_lq": ("blur", "input"), "dataroot_gt": ("sharp", "gt")}
# Words in folder names that tell blurred from sharp clips, or splits of a data set.
_SETS = {"blur", "blurred", "sharp", "gt", "lq", "input", "train", "val", "test"}
_NOT_CLIPS = ("@eaDir", "__MACOSX")
_NAMED, _DEPTH, _LOOKED_AT = 5, 4, 2000


def image_files(folder: Path, ext: str | None) -> dict[str, str]:
    """Return the image files of a folder, {frame name: file name}, sorted by number; hidden files are ignored.

    `ext` is the extension to read, no dot, case-insensitive; None reads all image formats.

    Raises:
        UserError: two files have the same frame name.
    """
    found: dict[str, str] = {}
    for name in sorted(_files(folder)):
        stem, suffix = os.path.splitext(name)
        if not _is_wanted(suffix, ext):
            continue
        if stem in found:
            raise UserError(
                f"{folder}: {found[stem]} and {name} would both be frame {stem}; move one away, or select one "
                "extension (filename_ext, --ext)"
            )
        found[stem] = name
    return {stem: found[stem] for stem in by_number(found)}


def clip_folders(root: Path, ext: str | None) -> list[str]:
    """List the folders in a root that hold images, directly or one level deeper."""
    folders = _folders(root)
    places = {name: [root / name, *(root / name / sub for sub in _folders(root / name))] for name in folders}
    return [name for name in folders if any(_has_images(place, ext) for place in places[name])]


class ImageFolders:
    """The clips below an existing folder, found from its files.

    With `pictures_beside`, the pictures that a test writes beside its clip folders are ignored.
    If clips have a folder for each of their parts, the key dataroot_lq or dataroot_gt selects one.

    Raises:
        UserError: the root holds both frames and clip folders, its clips lack the wanted part, or it holds several
            data sets.
    """

    def __init__(self, root: Path, ext: str | None, key: str = "", *, pictures_beside: bool = False) -> None:
        self.root, self.ext, self._key = root, ext, key
        self._part, self._places = "", dict[str, Path]()
        self._files: dict[str, dict[str, str]] = {}
        frames = [name for name in _files(root) if _is_wanted(os.path.splitext(name)[1], ext)]
        folders = _folders(root)
        self._direct = [name for name in folders if _has_images(root / name, ext)]
        self._deeper: list[str] = []
        if pictures_beside and (self._direct or any(self._inner(folders).values())):
            results = ResultsFolder(root)
            frames = [name for name in frames if root / name not in (results.comparison_picture, results.instants)]
        self.is_one_clip = bool(frames)
        if self.is_one_clip and self._direct:
            raise UserError(
                f"{root}: holds frames ({min(frames)}) and clip folders ({self._direct[0]}); move the frames away"
            )
        if self._are_parts(self._direct):
            self.is_one_clip, self._part = True, self._wanted_part(self._direct)
        elif not self.is_one_clip and not self._direct:
            self._look_deeper(folders)

    def clips(self) -> list[str]:
        """List the clips that have frames; empty if the root is one clip, which serves a clip of any name."""
        return [] if self.is_one_clip else self._direct or self._deeper

    def folder(self, clip: str) -> Path:
        """Return the folder of a clip's frames, existing or not."""
        if clip not in self._places:
            self._places[clip] = (self.root if self.is_one_clip else own_path(self.root, clip)) / self._part
        return self._places[clip]

    def files(self, clip: str) -> dict[str, str]:
        """Return the files of a clip as `image_files` does, cached.

        Raises:
            UserError: there is no such folder, or two files have the same frame name.
        """
        if clip not in self._files:
            folder = self.folder(clip)
            if not folder.is_dir():
                raise UserError(f"clip {clip}: {folder} is not a folder; every clip needs one of the same name")
            self._files[clip] = image_files(folder, self.ext)
        return self._files[clip]

    def every_clip(self) -> list[str]:
        """List the clips that have frames; the root's own name if it is one clip.

        Raises:
            UserError: there are none; the message says what was found instead.
        """
        clips = [self.root.resolve().name] if self.is_one_clip else self.clips()
        if not clips:
            kind = f"*.{self.ext}" if self.ext else "image"
            raise UserError(f"{self.root}: no clip folders with {kind} frames; {self._instead()}")
        return clips

    def scan(self) -> dict[str, tuple[str, ...]]:
        """Return the frames of all clips in time order, {clip: names}; log one line on what is left out.

        Raises:
            UserError: there are none, or the names do not determine the order.
        """
        clips = self.every_clip()
        found = {clip: in_time(self.files(clip), f"clip {clip}: {self.folder(clip)}") for clip in clips}
        left_out = [*self._clips_left_out(), *self._images_left_out(clips)]
        if left_out:
            more = f" and {len(left_out) - _NAMED} more" if len(left_out) > _NAMED else ""
            say_once(f"{self.root}: left out: {', '.join(left_out[:_NAMED])}{more}")
        return found

    def untaken(self, clip: str) -> str:
        """Describe the images of a clip's folder that are not read, for a message; empty if all are."""
        kinds = [os.path.splitext(name)[1][1:] for name in self._untaken(clip)]
        return ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))

    def _are_parts(self, names: list[str]) -> bool:
        """Return whether folders are the parts of one clip, a blurred and a sharp one."""
        known = {name.lower() for name in names}
        return all(known & set(part) for part in PARTS.values())

    def _wanted_part(self, names: list[str]) -> str:
        wanted = PARTS.get(self._key, ())
        found = [name for part in wanted for name in names if name.lower() == part]
        if found:
            return found[0]
        if len(names) == 1:
            return names[0]
        raise UserError(
            f"{self.root}: each clip has the folders {', '.join(names)}, so the wanted one is ambiguous; give a folder "
            "that holds only one of them per clip"
        )

    def _inner(self, folders: list[str]) -> dict[str, list[str]]:
        """Return, for each folder, its subfolders that hold images."""
        subs = {name: _folders(self.root / name) for name in folders}
        return {name: [sub for sub in subs[name] if _has_images(self.root / name / sub, self.ext)] for name in folders}

    def _look_deeper(self, folders: list[str]) -> None:
        inner = self._inner(folders)
        names = sorted({sub for subs in inner.values() for sub in subs})
        is_numbered = any(character.isdecimal() for name in names for character in name)
        if names and (self._are_parts(names) or not is_numbered):
            self._part = self._wanted_part(names)
            self._deeper = [name for name, subs in inner.items() if self._part in subs]
        else:
            self._check_one_set([name for name, subs in inner.items() if subs])
            self._deeper = [f"{name}/{sub}" for name, subs in inner.items() for sub in subs]

    def _check_one_set(self, outer: list[str]) -> None:
        """Refuse folders that belong to several data sets, such as val_blur and val_sharp."""
        sets: dict[frozenset[str], str] = {}
        for name in outer:
            if words := _SETS.intersection(re.split(r"[\W_]+", name.lower())):
                sets.setdefault(frozenset(words), name)
        if len(sets) > 1:
            raise UserError(
                f"{self.root}: holds several data sets, in {', '.join(sets.values())}; give one of these folders"
            )

    def _clips_left_out(self) -> Iterator[str]:
        """Yield the entries of the root that look like clips but are not."""
        if self.is_one_clip:
            parts = {name for part in PARTS.values() for name in part}
            others = [name for name in self._direct if not any(name.lower().startswith(part) for part in parts)]
            yield from (f"{name} (beside the folders of one clip)" for name in others)
            return
        taken = {clip.partition("/")[0] for clip in self.clips()}
        for path in sorted(self.root.iterdir()):
            if path.is_symlink() and not path.exists():
                yield f"{path.name} (a broken link)"
            elif path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir() and not is_hidden(path.name):
                yield f"{path.name} (a video beside clip folders)"
            elif path.is_dir() and path.name not in taken and not is_hidden(path.name):
                deeper = _first_images(path, self.ext)
                kinds = _kinds(path)
                what = f"frames are in {deeper.relative_to(self.root)}" if deeper else f"holds {kinds or 'no images'}"
                yield f"{path.name} ({what})"

    def _images_left_out(self, clips: list[str]) -> Iterator[str]:
        """Yield, per clip, the first image of another format and how many more there are."""
        why = f"not *.{self.ext}" if self.ext else "not read"
        for clip in clips:
            if names := self._untaken(clip):
                more = f" and {len(names) - 1} more" if len(names) > 1 else ""
                yield f"{clip}/{names[0]}{more} ({why})"

    def _untaken(self, clip: str) -> list[str]:
        known = IMAGE_SUFFIXES | OTHER_SUFFIXES
        names = [name for name in _files(self.folder(clip)) if os.path.splitext(name)[1].lower() in known]
        return list(by_number(set(names) - set(self._files.get(clip, {}).values())))

    def _instead(self) -> str:
        """Return what was found instead of clips, and what to do, for a message."""
        deeper = _first_images(self.root, self.ext)
        if deeper:
            return (
                f"frames are deeper, in {deeper.relative_to(self.root)}: give a folder one or two levels above them, "
                f"such as {deeper.parent}"
            )
        taken = _first_images(self.root, None)
        if taken:
            kinds = _kinds(taken)
            return f"there are {kinds} files: set filename_ext to one of them, or to null for all image formats"
        others = _kinds(self.root) or next(
            (kinds for name in _folders(self.root) if (kinds := _kinds(self.root / name))), ""
        )
        if others:
            return f"there are {others} files, which are not read; convert them to 8- or 16-bit PNG"
        names = sorted(path.name for path in self.root.iterdir())
        return f"it holds {', '.join(names[:_NAMED]) or 'nothing'}{', ...' * (len(names) > _NAMED)}; correct the path"


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden or was made by a file system, not the user."""
    return name.startswith(".") or name in _NOT_CLIPS


def _is_wanted(suffix: str, ext: str | None) -> bool:
    return suffix.lower() == f".{ext.lower()}" if ext else suffix.lower() in IMAGE_SUFFIXES


def _files(folder: Path) -> Iterator[str]:
    """Yield visible names that are not folders, including broken links, so that reading reports them."""
    with os.scandir(folder) as entries:
        yield from (entry.name for entry in entries if not is_hidden(entry.name) and not _is_folder(entry))


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not is_hidden(entry.name) and _is_folder(entry))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _has_images(folder: Path, ext: str | None) -> bool:
    return any(_is_wanted(os.path.splitext(name)[1], ext) for name in _files(folder))


def _kinds(folder: Path) -> str:
    """Return the extensions of all images in a folder, readable or not."""
    suffixes = {os.path.splitext(name)[1] for name in _files(folder)}
    return ", ".join(sorted(suffix[1:] for suffix in suffixes if suffix.lower() in IMAGE_SUFFIXES | OTHER_SUFFIXES))


def _first_images(root: Path, ext: str | None) -> Path | None:
    """Find the topmost folder that holds images, at most _DEPTH levels deep."""
    level, looked_at = [root], 0
    for _ in range(_DEPTH + 1):
        for folder in level:
            if _has_images(folder, ext):
                return folder
        looked_at += len(level)
        if looked_at > _LOOKED_AT:
            return None
        level = [folder / name for folder in level for name in _folders(folder)]
    return None
