"""Read spike files of any format as (T, H, W) uint8, 0 or 1, row 0 at the top.

| format | content |
| --- | --- |
| dat | bare bit planes (`utils.spike_loader`) |
| raw416 | raw file of a 250x400 camera: rows of 416 bits, the last 16 of them a header |
| raw1024 | raw file of a 1000x1000 camera: rows of 2 x 512 bits, the last 12 of each half a header |
| npz | NumPy archive with the array `spk`, upright |
| npy | NumPy array, upright |
"""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from data.geometry import size_text
from data.spike.texture import bit_order as stored_order
from data.spike.texture import find_geometry, mean_plane
from utils.spike_loader import BitOrder, Range, decode, packed_bytes
from utils.utils_error import UserError

Format = Literal["dat", "raw416", "raw1024", "npz", "npy"]
FORMATS: tuple[Format, ...] = get_args(Format)
BARE: tuple[Format, ...] = ("dat", "raw416")  # their flip and bit order differ from file to file

RAW416 = 250, 416
RAW416_PICTURE = 250, 400  # without the row headers
_HEADER_CONTRAST = 3.0  # times the usual difference of neighbouring columns

RAW1024 = 1000, 1024
RAW1024_PICTURE = 1000, 1000  # without the row headers
_FRAME1024 = 1000 * 1024 // 8
_HALF_ROW, _HALF_PIXELS, _WORD = 64, 500, 16  # bytes, pixels, bytes
_START_LINE, _START_CHANNEL = 500, 0

# Magic numbers of files mistaken for spikes, and advice.
_ADVICE_VIDEO = "simulate_spike_dataset.py --video makes spikes of a video"
_ADVICE_IMAGE = "simulate_spike_dataset.py --frames makes spikes of a folder of images"
_KINDS: tuple[tuple[int, bytes, str, str], ...] = (
    (4, b"ftyp", "an MP4 video", _ADVICE_VIDEO),
    (0, b"\x1aE\xdf\xa3", "a Matroska or WebM video", _ADVICE_VIDEO),
    (0, b"RIFF", "an AVI or WebP file", _ADVICE_VIDEO),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image", _ADVICE_IMAGE),
    (0, b"\xff\xd8\xff", "a JPEG image", _ADVICE_IMAGE),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", "save its spikes as .npy (T, H, W) first"),
    (0, b"\x1f\x8b\x08", "a gzip archive", "unpack it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first"),
    (0, b"%PDF-", "a PDF document", "give a spike file"),
)
_TEXT_HEAD = 4096


class Found(NamedTuple):
    """Properties of a file, found on opening it."""

    format: Format
    height: int
    width: int
    steps: int  # in the file, not only those read
    flipud: bool  # the file stores its rows bottom-up
    bit_order: BitOrder | None  # None if the file is not packed
    skipped: tuple[int, int] = (0, 0)  # bytes before the first and after the last whole step


def open_spikes(
    path: str | Path,
    *,
    size: tuple[int, int] | None = None,
    flipud: bool = True,
    bit_order: BitOrder | None = None,
    format: Format | None = None,
    steps: Range = None,
) -> tuple[np.ndarray, Found]:
    """Read spikes from a file of any format.

    Args:
        path: the file.
        size: (H, W) of a .dat, without row headers; None estimates it from the bits.
        flipud: a .dat or raw416 stores its rows bottom-up; the other formats are upright.
        bit_order: bit order of a .dat; None estimates it from the bits, "little" if they are inconclusive.
        format: one of FORMATS; None detects it from the content.
        steps: [first, last) in time; None reads all.

    Returns:
        (t, H, W) uint8, 0 or 1, row 0 at the top, and the file's properties.

    Raises:
        UserError: the file is missing, empty, not a spike file, does not fit, or `steps` are out of range.
    """
    path = Path(path)
    kind = format or format_of(path)
    if kind in ("npy", "npz"):
        array = _load_array(path, kind)
        _check_given(path, size, array.shape[1:])
        found = Found(kind, array.shape[1], array.shape[2], len(array), flipud=False, bit_order=None)
        return array[_window(path, steps, len(array))], found
    packed = packed_bytes(path)
    if kind == "raw1024":
        _check_given(path, size, RAW1024_PICTURE)
        return _open_raw1024(path, packed, steps)
    if kind == "raw416":
        _check_given(path, size, RAW416, RAW416_PICTURE)
    size = RAW416 if kind == "raw416" else size or find_geometry(packed, [RAW416])
    if size is None:
        raise UserError(f"{path}: its {packed.size} bytes do not imply a size; give --spike_h and --spike_w")
    if format is None and is_raw416(packed, size):
        kind = "raw416"
    try:
        order = bit_order or _order(packed, size)
        spikes = read_bits(packed, size, header=kind == "raw416", steps=steps, flipud=flipud, bit_order=order)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    total = packed.size * 8 // (size[0] * size[1])
    return spikes, Found(kind, spikes.shape[1], spikes.shape[2], total, flipud, order)


def step_reader(path: Path, found: Found) -> Callable[[int, int], np.ndarray]:
    """Return a function that reads the steps [first, last) of a file whose properties are known.

    A packed file is read on access; the array of a .npy or .npz file is kept in memory.
    """
    if found.format in ("npy", "npz"):
        array = _load_array(path, found.format)
        return lambda first, last: array[_window(path, (first, last), len(array))]
    packed = packed_bytes(path)
    if found.format == "raw1024":
        return lambda first, last: _read_raw1024(packed, found.skipped[0], _window(path, (first, last), found.steps))
    header = found.format == "raw416"
    size = RAW416 if header else (found.height, found.width)
    order = found.bit_order or "little"
    return lambda first, last: read_bits(
        packed, size, header=header, steps=(first, last), flipud=found.flipud, bit_order=order
    )


def read_bits(
    packed: np.ndarray,
    size: tuple[int, int],
    *,
    header: bool,
    steps: Range = None,
    flipud: bool = True,
    bit_order: BitOrder = "little",
) -> np.ndarray:
    """Decode the bytes of a bare stream or, with `header`, of raw416; `size` includes the header, the result does not.

    Raises:
        UserError: see `utils.spike_loader.decode`.
    """
    cols = (0, RAW416_PICTURE[1]) if header else None
    return decode(packed, *size, steps=steps, cols=cols, flipud=flipud, bit_order=bit_order)


def format_of(path: Path) -> Format:
    """Detect the format of a file from its first bytes and name; raw camera files are reported as "dat".

    Raises:
        UserError: the file is missing, empty, or of another kind; says which and what to do.
    """
    head = packed_bytes(path)[: max(_TEXT_HEAD, 16)].tobytes()
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith(b"PK\x03\x04"):
        return "npz"
    for offset, magic, name, advice in _KINDS:
        if head[offset:].startswith(magic):
            raise UserError(f"{path}: is {name}, expected spikes (.dat, .npz, .npy); {advice}")
    if path.suffix in (".npy", ".npz"):
        raise UserError(f"{path}: is not a NumPy file, expected one; save it again with NumPy")
    if _is_text(head):
        raise UserError(f"{path}: is a text file, expected spikes (.dat, .npz, .npy); give a spike file")
    return "dat"


def is_raw416(packed: np.ndarray, size: tuple[int, int]) -> bool:
    """Return whether the last 16 columns of 250x416 steps are clearly not part of the picture."""
    if size != RAW416 or packed.size * 8 < RAW416[0] * RAW416[1]:
        return False
    step = RAW416[0] * RAW416[1] // 8
    plane = mean_plane(packed, step)
    picture = (plane[:, ::-1] if stored_order(plane) == "big" else plane).reshape(RAW416)
    change = np.abs(np.diff(picture, axis=1)).mean(axis=0)
    border = RAW416_PICTURE[1]
    return bool(change[border - 1] > _HEADER_CONTRAST * np.median(change[: border - 1]))


def is_raw1024(packed: np.ndarray) -> bool:
    """Return whether at least three frames start like raw1024 frames; fewer may do so by chance."""
    first = frame_start1024(packed)
    return first is not None and packed.size - first >= 3 * _FRAME1024


def frame_start1024(packed: np.ndarray) -> int | None:
    """Return the offset of the first whole frame of a raw1024 stream, or None.

    The last 12 bits of each half row hold channel (2 bits) and line (10 bits); a frame starts with the half row of
    line 500, channel 0. Picture bits may look the same by chance, so every later frame must start the same way.
    """
    words = packed[: packed.size // _WORD * _WORD].reshape(-1, _WORD)
    header = words[:, -2].astype(np.uint16) | words[:, -1].astype(np.uint16) << 8
    starts = (header >> 14 == _START_CHANNEL) & (header >> 4 & 0x3FF == _START_LINE)
    for word in np.flatnonzero(starts):
        first = (int(word) + 1) * _WORD - _HALF_ROW
        frames = (packed.size - first) // _FRAME1024
        if first >= 0 and frames and starts[word :: _FRAME1024 // _WORD][:frames].all():
            return first
    return None


def _open_raw1024(path: Path, packed: np.ndarray, steps: Range) -> tuple[np.ndarray, Found]:
    first = frame_start1024(packed)
    if first is None:
        raise UserError(
            f"{path}: its {packed.size} bytes hold no whole frame of 1000x1024 (128000 bytes) that starts with line "
            "500, channel 0; give the right --format or copy the file again"
        )
    total, rest = divmod(packed.size - first, _FRAME1024)
    spikes = _read_raw1024(packed, first, _window(path, steps, total))
    _, height, width = spikes.shape
    found = Found("raw1024", height, width, total, flipud=False, bit_order="little", skipped=(first, rest))
    return spikes, found


def _read_raw1024(packed: np.ndarray, first: int, steps: slice) -> np.ndarray:
    """Decode steps of a raw1024 stream whose first whole frame starts at a byte; returns (t, 1000, 1000) uint8."""
    total = (packed.size - first) // _FRAME1024
    frames = packed[first : first + total * _FRAME1024].reshape(total, RAW1024[0], 2, _HALF_ROW)[steps]
    bits = np.unpackbits(frames, axis=3, bitorder="little")[..., :_HALF_PIXELS]
    return bits.reshape(len(frames), RAW1024[0], 2 * _HALF_PIXELS)


def _load_array(path: Path, kind: Format) -> np.ndarray:
    """Return (T, H, W) uint8 of a .npy file, or of the array `spk` of a .npz file."""
    try:
        content: Any = np.load(path, allow_pickle=False)
        if kind == "npz":
            with content:
                if "spk" not in content.files:
                    keys = ", ".join(content.files) or "nothing"
                    raise UserError(f"{path}: holds {keys}, expected the array spk; save the spikes as spk")
                content = content["spk"]
    except UserError:
        raise
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zipfile.LargeZipFile, MemoryError) as error:
        raise UserError(
            f"{path}: cannot be read as .{kind} ({error}), expected a numeric array; save it again"
        ) from None
    if not isinstance(content, np.ndarray) or content.ndim != 3 or content.size == 0:
        raise UserError(f"{path}: has shape {getattr(content, 'shape', None)}, expected (T, H, W); reshape it")
    if content.dtype not in (np.uint8, np.bool_):
        raise UserError(f"{path}: holds {content.dtype}, expected uint8 or bool of 0 and 1; convert it")
    if content.max() > 1:
        raise UserError(f"{path}: has values up to {content.max()}, expected 0 and 1 only; give spikes, not images")
    return content.astype(np.uint8)


def _order(packed: np.ndarray, size: tuple[int, int]) -> BitOrder:
    """Return the stored bit order, "little" if the stream is inconclusive."""
    step = size[0] * size[1] // 8
    return (stored_order(mean_plane(packed, step)) if 0 < step <= packed.size else None) or "little"


def _check_given(path: Path, size: tuple[int, int] | None, *allowed: tuple[int, ...]) -> None:
    if size is not None and size not in allowed:
        expected = " or ".join(map(size_text, allowed))
        raise UserError(
            f"{path}: --spike_h {size[0]} --spike_w {size[1]}, but the file has {expected}; correct or omit them"
        )


def _window(path: Path, steps: Range, total: int) -> slice:
    first, last = steps or (0, total)
    if not 0 <= first < last <= total:
        raise UserError(f"{path}: steps [{first}, {last}) must be a non-empty part of [0, {total}); correct it")
    return slice(first, last)


def _is_text(head: bytes) -> bool:
    """Return whether the bytes are readable text; spikes practically never are."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4 or len(head) < _TEXT_HEAD:
            return False
        text = head[: error.start].decode("utf-8")
    return (
        len(text) > 3 and any(char.isalnum() for char in text) and all(c.isprintable() or c in "\r\n\t" for c in text)
    )
