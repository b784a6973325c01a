"""Scan the files of a GoPro download and its spikes, without decoding them."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from data.frame_order import by_number
from data.layout import Split
from data.spike.manifest import GOPRO_SHORT_BY, ClipTiming
from utils.utils_image import mapped
from utils.utils_image_header import header_of

SPIKE_SCALE = 2  # RGB pixels per spike pixel, along each axis
SPIKE = "spike"
SHARP = "sharp"
_NAME = re.compile(r"\d{6}")
_TAIL, _PNG_END = 64, b"IEND"  # bytes at the end of a file that usually contain the end mark

Size = tuple[int, int]  # (H, W)


@dataclass(frozen=True)
class Scan:
    """The files of one clip: `source` holds the image folders, `spikes` the folder of the `.dat` files."""

    split: Split
    name: str
    source: Path
    spikes: Path
    images: dict[str, dict[str, Size | str]]  # folder -> frame -> size, or the file's problem
    dats: dict[str, int | str]  # frame -> bytes, or the file's problem
    strays: dict[str, list[str]]  # folder -> names that are not six digits, excluded above

    @property
    def frames(self) -> list[str]:
        """The frames of all folders together, in order."""
        return list(by_number(set(self.dats).union(*self.images.values())))

    def present(self) -> dict[str, Iterable[str]]:
        """Return the frames of each folder."""
        return {**self.images, SPIKE: self.dats}


def folder_names(folder: Path) -> list[str]:
    """Return the sorted names of the folders inside a folder; empty if it is missing."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def names_in(folder: Path, ext: str) -> tuple[str, ...]:
    """Return the stems of the files `*.<ext>` in a folder, sorted by number; empty if it is missing."""
    return by_number(path.stem for path in folder.glob(f"*.{ext}") if not path.name.startswith("."))


def byte_count(path: Path) -> int | str:
    """Return the size of a file, or why it cannot be read."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return "a broken link; restore the file or remove the link"
    except OSError as error:
        return f"cannot be read ({error.strerror}); restore it"


def image_fact(path: Path) -> Size | str:
    """Return an image's size from its header, or its problem if it is unreadable or truncated."""
    count = byte_count(path)
    if isinstance(count, str):
        return count
    try:
        with path.open("rb") as file:
            with Image.open(file, formats=["PNG"]) as image:
                size = image.height, image.width
            file.seek(max(0, count - _TAIL))
            tail = file.read()
    except OSError as error:
        return f"{count} bytes, not a readable PNG{f' ({error.strerror})' if error.strerror else ''}; extract it again"
    header = None if _PNG_END in tail else header_of(mapped(path))  # data after the end mark is allowed
    if _PNG_END not in tail and not (header and header.is_whole):
        return f"truncated after {count} bytes, expected a PNG that ends with an IEND chunk; extract it again"
    return size


def scan_clip(source: Path, spikes: Path, split: Split, name: str, blur: str) -> Scan:
    """Scan a clip's files: `source` is GOPRO_Large/<split>/<clip>, `spikes` GOPRO_Large_spike_seq/<split>/<clip>."""
    names = {kind: names_in(source / kind, "png") for kind in (SHARP, blur)}
    names[SPIKE] = names_in(spikes / SPIKE, "dat")
    strays = {kind: [frame for frame in frames if not _NAME.fullmatch(frame)] for kind, frames in names.items()}
    frames = {kind: [frame for frame in names[kind] if frame not in strays[kind]] for kind in names}
    return Scan(
        split,
        name,
        source,
        spikes,
        {kind: {frame: image_fact(source / kind / f"{frame}.png") for frame in frames[kind]} for kind in (SHARP, blur)},
        {frame: byte_count(spikes / SPIKE / f"{frame}.dat") for frame in frames[SPIKE]},
        strays,
    )


def common_size(scans: Sequence[Scan]) -> Size | None:
    """Return the most common image size, among ties the first; None if no image is readable."""
    facts = (fact for scan in scans for frames in scan.images.values() for fact in frames.values())
    counts = Counter(fact for fact in facts if isinstance(fact, tuple))
    return counts.most_common(1)[0][0] if counts else None


def short_steps(scan: Scan, timing: ClipTiming, size: Size) -> dict[str, int]:
    """Return {frame: steps} of a clip's last `.dat` file if it is short; `size` is that of the RGB frames."""
    last = by_number(scan.dats)[-1]
    steps = timing.steps - GOPRO_SHORT_BY
    return {last: steps} if scan.dats[last] == steps * step_bytes(size) else {}


def step_bytes(size: Size) -> int:
    """Return the bytes of one spike step for RGB frames of this size."""
    return (size[0] // SPIKE_SCALE) * (size[1] // SPIKE_SCALE) // 8
