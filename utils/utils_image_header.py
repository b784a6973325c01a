"""Read image file headers: displayed size, orientation, bit depth, and whether the file is complete."""

import io
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, TiffImagePlugin

Read = Callable[[int, int], bytes]  # (offset, number of bytes) -> that many bytes, or fewer at the end

_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)  # orientations with rows and columns exchanged
_FLOAT = 3  # a TIFF's sample format
_LOG_LIGHT = {32844: "LogL", 32845: "LogLuv"}  # a TIFF's colours
_DAMAGE = (OSError, SyntaxError, struct.error, KeyError, IndexError, ValueError, TypeError, EOFError)
_LIGHT = {b"\x76\x2f\x31\x01": "an OpenEXR image", b"#?RA": "a Radiance HDR image", b"#?RG": "a Radiance HDR image"}
_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # JPEG markers of the frame header
_BETWEEN_SCANS = {0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)}
_SCAN, _END = 0xDA, 0xD9


class Header(NamedTuple):
    """What is known of an image before it is decoded."""

    size: tuple[int, int]  # (H, W) as displayed
    turn: int = 1  # EXIF orientation, 1 to 8, that must be applied after decoding
    bits: int = 8  # per channel
    pictures: int = 1  # number of animation frames or TIFF pages
    refused: str = ""  # kind of image, if that kind is not supported
    is_whole: bool = True  # the file contains the end of the image; trailing data does not matter


def header_of(encoded: np.ndarray) -> Header | None:
    """Read the header of an image file, (n,) uint8, touching few of its bytes; None if there is no whole one."""

    def read(place: int, count: int) -> bytes:
        return encoded[place : place + count].tobytes()

    start = read(0, 8)
    try:
        if start.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png(read)
        if start.startswith(b"\xff\xd8"):
            return _jpeg(read, encoded)
        if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return _tiff(read(0, encoded.size))
        if start[:4] in _LIGHT:
            return Header((0, 0), refused=f"{_LIGHT[start[:4]]} in linear light")
        return _other(read(0, encoded.size))
    except _DAMAGE:
        return None


def turned(image: np.ndarray, turn: int) -> np.ndarray:
    """Apply an EXIF orientation to (H, W, C)."""
    if turn in _TURNED:
        image = image.swapaxes(0, 1)
    rows = -1 if turn in (3, 4, 7, 8) else 1
    columns = -1 if turn in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(image[::rows, ::columns])


def _shown(height: int, width: int, turn: int) -> tuple[int, int]:
    return (width, height) if turn in _TURNED else (height, width)


def _orientation(exif: bytes) -> int:
    """Read the orientation from an EXIF block; 1 if it has none."""
    tags = Image.Exif()
    try:
        tags.load(exif)
        turn = tags.get(_ORIENTATION, 1)
    except _DAMAGE:
        return 1
    return turn if turn in range(1, 9) else 1


def _png(read: Read) -> Header:
    width, height, bits = struct.unpack(">IIB", read(16, 9))
    turn, pictures, place, kind = 1, 1, 8, b""
    while kind != b"IEND":
        head = read(place, 8)
        if len(head) < 8:
            return Header(_shown(height, width, turn), turn, bits, pictures, is_whole=False)
        length, kind = struct.unpack(">I4s", head)
        if kind == b"eXIf":
            turn = _orientation(read(place + 8, length))
        elif kind == b"acTL":
            pictures = int(struct.unpack(">I", read(place + 8, 4))[0])
        place += length + 12
    return Header(_shown(height, width, turn), turn, bits, pictures)


def _jpeg(read: Read, encoded: np.ndarray) -> Header | None:
    place, turn, height, width, bits = 2, 1, 0, 0, 8
    while True:
        mark, marker, length = struct.unpack(">BBH", read(place, 4))
        if mark != 0xFF:
            return None
        if marker == 0xFF:  # fill byte
            place += 1
            continue
        if marker in _SIZES:
            bits, height, width = struct.unpack(">BHH", read(place + 4, 5))
        elif marker == 0xE1 and read(place + 4, 6) == b"Exif\0\0":
            turn = _orientation(read(place + 4, length - 2))
        place += length + 2
        if marker == _SCAN:
            whole = _reaches_end(encoded[place:])
            return Header(_shown(height, width, turn), turn, bits, is_whole=whole) if height and width else None


def _reaches_end(scans: np.ndarray) -> bool:
    """Whether the scans of a JPEG, (n,) uint8 after the first scan header, reach the end marker."""
    places = np.flatnonzero(scans[:-1] == 0xFF)
    follows = scans[places + 1]
    is_marker = (follows != 0) & (follows != 0xFF) & ((follows < 0xD0) | (follows > 0xD7))
    places, markers = places[is_marker], follows[is_marker]
    at = 0
    while at < len(places) and int(markers[at]) in _BETWEEN_SCANS:
        place = int(places[at])
        length = int.from_bytes(scans[place + 2 : place + 4].tobytes(), "big")
        at = int(np.searchsorted(places, place + 2 + length))
    return at < len(places) and int(markers[at]) == _END


def _tiff(data: bytes) -> Header:
    tags = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if 43 in data[2:4] else 8])  # 43: BigTIFF
    file, pages = io.BytesIO(data), 0
    first: dict[int, tuple[Any, ...]] = {}
    while tags.next and pages < 10_000:
        file.seek(tags.next)
        tags.load(file)
        first = first or {tag: of if isinstance(of := tags[tag], tuple) else (of,) for tag in tags}
        pages += 1
    (width,), (height,), bits = first[256], first[257], max(first.get(258, (1,)))
    starts, counts = (first.get(273) or first[324]), (first.get(279) or first[325])
    is_float = _FLOAT in first.get(339, ())
    refused = f"a {bits}-bit {'float ' * is_float}TIFF" if is_float or bits > 16 else ""
    if light := _LOG_LIGHT.get(first.get(262, (0,))[0]):
        refused = f"a {light} TIFF in linear light"
    whole = all(start + count <= len(data) for start, count in zip(starts, counts, strict=False))
    # The TIFF decoder already applies the orientation.
    return Header(_shown(height, width, first.get(274, (1,))[0]), 1, bits, pages, refused, whole)


def _other(data: bytes) -> Header:
    """Read the header of any other format with Pillow."""
    with Image.open(io.BytesIO(data)) as image:
        turn = _orientation(image.info["exif"]) if "exif" in image.info else 1
        bits = 16 if image.mode.startswith("I") else 8
        return Header(_shown(image.height, image.width, turn), turn, bits, getattr(image, "n_frames", 1))
