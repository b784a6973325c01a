"""The places of GoPro's clips in a prepared set, filled with links or copies."""

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

from data.layout import Split, clip_dirs
from data.prepare.gopro_scan import SHARP, SPIKE, Scan
from utils.utils_error import UserError
from utils.utils_file import sweep, temporary_path, whole_file
from utils.utils_progress import progress

Blur = Literal["blur", "blur_gamma"]


class Place(NamedTuple):
    """A clip's folder in the set: `target` becomes a link to `source`, or gets copies of its `files`."""

    split: Split
    clip: str
    source: Path
    target: Path
    files: list[str]  # relative to both

    def has(self, name: str) -> bool:
        """Return whether the target has the file in the source's size."""
        path = self.target / name
        return path.is_file() and path.stat().st_size == (self.source / name).stat().st_size

    def is_source(self) -> bool:
        """Return whether the target already leads to the source."""
        return self.target.exists() and self.target.samefile(self.source)


def places_of(scan: Scan, dataset_root: Path, blur: Blur) -> list[Place]:
    """Return the places of a checked clip: sharp, blurred, spikes."""
    images = [f"{frame}.png" for frame in scan.frames]
    sources = (scan.source / SHARP, scan.source / blur, scan.spikes)
    files = (images, images, [f"{SPIKE}/{frame}.dat" for frame in scan.frames])
    targets = clip_dirs(dataset_root, scan.split, scan.name)
    return [Place(scan.split, scan.name, *parts) for parts in zip(sources, targets, files, strict=True)]


def place_problem(place: Place, copy: bool, force: bool, outdated: bool) -> str:
    """Return why a place cannot be filled; empty if it can be or already is.

    Args:
        place: place of a checked clip.
        copy: fill it with copies, else with a link.
        force: replace existing links and files, except folders with files that the source lacks.
        outdated: an existing folder holds copies of other frames.
    """
    target = place.target
    if target.is_symlink():
        if force or (place.is_source() and not copy):
            return ""
        if place.is_source():
            return f"{target} is a link, expected copies; --force replaces it by copies"
        return f"{target} is a link to {target.readlink()}, expected {place.source}; --force replaces it"
    if not target.exists() or place.is_source():
        return ""
    if not target.is_dir():
        return f"{target} is a file, expected a folder or nothing; move it away"
    suffix = Path(place.files[0]).suffix
    found_files = {str(path.relative_to(target)) for path in target.rglob(f"[!.]*{suffix}")}
    if foreign := min(found_files - set(place.files), default=""):
        return f"{target} holds {foreign}, which {place.source} does not; move it away"
    missing = [name for name in place.files if not (target / name).is_file()]
    if not copy and (missing or outdated):
        count = len(place.files)
        found = "copies of other frames" if outdated else f"{count - len(missing)} of {count} files"
        return f"{target} is a folder with {found}, expected a link; add --copy to fill it or move it away"
    other = [name for name in place.files if name not in missing and not place.has(name)]
    if other and not (copy and force):
        return f"{target}/{other[0]} differs in size from the source; --copy --force replaces it"
    return ""


def make_link(place: Place) -> None:
    """Make the target a link to the source, atomically replacing a link that leads elsewhere."""
    if place.is_source() or (place.target.is_dir() and not place.target.is_symlink()):
        return
    place.target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(place.target)
    try:
        temporary.symlink_to(place.source.resolve(), target_is_directory=True)
        temporary.replace(place.target)
    except OSError as error:
        raise UserError(f"{place.target}: cannot be made a link ({error.strerror}); give --copy") from None
    finally:
        temporary.unlink(missing_ok=True)


def is_filled(place: Place, copy: bool) -> bool:
    """Return whether nothing is left to do for a place without problems."""
    if place.target.is_symlink():
        return place.is_source() and not copy
    return place.is_source() or all(place.has(name) for name in place.files)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file atomically."""
    with whole_file(target) as temporary:
        shutil.copyfile(source, temporary)


def copy_places(places: Sequence[Place], workers: int) -> None:
    """Fill the targets with copies, one place after the other, skipping files that already have the source's size."""
    places = [place for place in places if place.target.is_symlink() or not place.is_source()]
    total = sum(len(place.files) for place in places)
    with ThreadPoolExecutor(workers) as pool, progress(total=total, unit="file", what="copying") as bar:
        for place in places:
            if place.target.is_symlink():
                place.target.unlink()
            sweep(*{(place.target / name).parent for name in place.files})
            missing = [name for name in place.files if not place.has(name)]
            bar.update(len(place.files) - len(missing))
            sources, targets = ([folder / name for name in missing] for folder in (place.source, place.target))
            for _ in pool.map(copy_file, sources, targets):  # an error or Ctrl-C cancels those that have not begun
                bar.update()
