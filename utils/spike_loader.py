"""Reading and writing `.dat` spike files.

A file holds the bit planes of a spike camera one after another, without a header: row-major, one bit per pixel, least
significant bit first unless `bit_order` says otherwise. Cameras and most data sets store rows bottom-up, hence the
default `flipud=True`: stored row H-1-r is upright row r. H*W must be a multiple of 8, so every step starts on a byte.
"""

import mmap
from collections.abc import Collection
from pathlib import Path
from typing import Literal

import numpy as np

from utils.utils_error import UserError
from utils.utils_file import whole_file

RATIOS = (1, 2, 3, 4)  # frame pixels per spike pixel, along each axis
FEW, MANY = 8, 4000  # plausible number of steps of one .dat
SIZES_IN_USE: tuple[tuple[int, int], ...] = (
    (250, 400), (180, 320), (360, 640), (500, 800), (1000, 1000), (720, 1280), (384, 384), (256, 256),
)  # fmt: skip

Size = tuple[int, int]  # (H, W)
BitOrder = Literal["little", "big"]
Range = tuple[int, int] | None


def num_steps(filepath: str | Path, spike_h: int, spike_w: int) -> int:
    """Number of sensor steps, at least 1, in a `.dat` file of spike_h rows and spike_w columns, computed from its size.

    Raises UserError if the file is missing or empty, H*W is not a multiple of 8, or the size is not a multiple of H*W/8
    bytes; the last names common sensor sizes that fit.
    """
    path = Path(filepath)
    if not path.is_file():
        raise UserError(
            f"{path}: no such spike file, expected a .dat of {spike_h}x{spike_w} steps; check dataroot_spike"
        )
    try:
        return steps_in(path.stat().st_size, spike_h, spike_w)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def steps_in(size: int, spike_h: int, spike_w: int, implied: str = "") -> int:
    """Number of sensor steps in `size` bytes; errors as in `num_steps`, without the file name but with `implied`."""
    if spike_h < 1 or spike_w < 1 or spike_h * spike_w % 8:
        raise UserError(
            f"spike_h={spike_h}, spike_w={spike_w}: both must be positive and H*W a multiple of 8 "
            f"(a step is whole bytes), found H*W={spike_h * spike_w}; set them to the sensor's size"
        )
    if size == 0:
        raise UserError(f"the spike file is empty (0 bytes), expected {spike_h}x{spike_w} steps; copy it again")
    step_bytes = spike_h * spike_w // 8
    steps, remainder = divmod(size, step_bytes)
    if remainder:
        fitting = ", ".join(f"{h}x{w} ({size * 8 // (h * w)} steps)" for h, w in fitting_sizes(size))
        raise UserError(
            f"{size} bytes is not a multiple of H*W/8 = {step_bytes} bytes (H={spike_h}, W={spike_w}), "
            f"remainder {remainder} bytes; {implied}sizes in use that fit: "
            f"{fitting or ('none' if implied else 'none (cut off?)')}; "
            "correct spike_h and spike_w or copy the file again"
        )
    return steps


def fitting_sizes(size: int) -> list[tuple[int, int]]:
    """Common sensor sizes (H, W) whose step size divides a file of `size` bytes."""
    return [(h, w) for h, w in SIZES_IN_USE if size % (h * w // 8) == 0]


def implied_sizes(size: int, frame: Size, steps: Collection[int]) -> list[Size]:
    """Sensor sizes (H, W) that a `.dat` of `size` bytes may have beside the frames: their size divided by one of
    RATIOS.

    Returns those that give one of the expected numbers of steps, otherwise those that give a plausible one.
    """
    sizes = [(frame[0] // ratio, frame[1] // ratio) for ratio in RATIOS if not any(side % ratio for side in frame)]
    whole = [(h, w) for h, w in sizes if h * w % 8 == 0 and size % (h * w // 8) == 0]
    expected = [(h, w) for h, w in whole if size * 8 // (h * w) in steps]
    return expected or [(h, w) for h, w in whole if FEW <= size * 8 // (h * w) <= MANY]


def read_spikes(
    filepath: str | Path,
    spike_h: int,
    spike_w: int,
    *,
    steps: Range = None,
    rows: Range = None,
    cols: Range = None,
    flipud: bool = True,
    bit_order: BitOrder = "little",
) -> np.ndarray:
    """Read a window of a spike file, as (steps, rows, cols) uint8, 0 or 1, row 0 at the top, contiguous.

    Only the bytes of that window are touched. Raises UserError if the file does not fit (see `num_steps`), or a range
    is empty or outside the file.

    Args:
        filepath: a `.dat` file of (T, H, W) bits.
        spike_h: H, rows of the sensor.
        spike_w: W, columns of the sensor.
        steps: [first, last) in time; None reads all.
        rows: [first, last) in the returned, upright orientation; None reads all.
        cols: [first, last) from the left; None reads all.
        flipud: the file stores its rows bottom-up.
        bit_order: which bit of a byte is its leftmost pixel: "little" the lowest, "big" the highest.
    """
    packed = packed_bytes(filepath)
    try:
        return decode(packed, spike_h, spike_w, steps=steps, rows=rows, cols=cols, flipud=flipud, bit_order=bit_order)
    except UserError as error:
        raise UserError(f"{filepath}: {error}") from None


def packed_bytes(filepath: str | Path) -> np.ndarray:
    """The bytes of a spike file, (n,) uint8, memory-mapped; UserError if it is missing, empty or unreadable."""
    try:
        with open(filepath, "rb") as file:
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{filepath}: no such spike file; restore it or correct the path") from None
    except ValueError:
        raise UserError(f"{filepath}: the spike file is empty (0 bytes), expected whole steps; copy it again") from None
    except OSError as error:
        raise UserError(f"{filepath}: cannot be read ({error.strerror}), expected a spike file; check it") from None


def decode(
    packed: np.ndarray,
    spike_h: int,
    spike_w: int,
    *,
    steps: Range = None,
    rows: Range = None,
    cols: Range = None,
    flipud: bool = True,
    bit_order: BitOrder = "little",
) -> np.ndarray:
    """Like `read_spikes`, from the bytes of a spike file, (n,) uint8. Errors do not name a file."""
    total = steps_in(packed.size, spike_h, spike_w)
    t0, t1 = _checked_range("steps", steps, total)
    r0, r1 = _checked_range("rows", rows, spike_h)
    c0, c1 = _checked_range("cols", cols, spike_w)
    if flipud:
        r0, r1 = spike_h - r1, spike_h - r0
    upright = slice(None, None, -1 if flipud else 1)
    packed = packed.reshape(total, -1)[t0:t1]
    if spike_w % 8 == 0:
        window = packed.reshape(t1 - t0, spike_h, spike_w // 8)[:, r0:r1, c0 // 8 : -(-c1 // 8)]
        first = c0 % 8
        bits = np.unpackbits(window[:, upright], axis=2, bitorder=bit_order)[:, :, first : first + c1 - c0]
    else:  # rows may start inside a byte: take the bytes that hold the rows, then trim bits
        start, stop = r0 * spike_w, r1 * spike_w
        flat = np.unpackbits(packed[:, start // 8 : -(-stop // 8)], axis=1, bitorder=bit_order)
        flat = flat[:, start % 8 : start % 8 + stop - start]
        bits = flat.reshape(t1 - t0, r1 - r0, spike_w)[:, upright, c0:c1]
    return np.ascontiguousarray(bits)


def write_spikes(
    filepath: str | Path, spikes: np.ndarray, *, flipud: bool = True, bit_order: BitOrder = "little"
) -> None:
    """Write a spike file atomically; the exact inverse of `read_spikes`. Missing folders are created.

    `spikes` are (T, H, W) uint8 or bool, 0 or 1, row 0 at the top, H*W a multiple of 8; anything else is a ValueError.
    With `flipud`, the rows are stored bottom-up.
    """
    if spikes.ndim != 3 or spikes.size == 0 or spikes[0].size % 8:
        raise ValueError(f"{filepath}: spikes must be (T, H, W) with H*W a multiple of 8, found {spikes.shape}")
    if spikes.dtype not in (np.uint8, np.bool_) or spikes.max() > 1:
        raise ValueError(f"{filepath}: spikes must be uint8 or bool with values 0 and 1, found {spikes.dtype}")
    stored = spikes[:, ::-1] if flipud else spikes
    with whole_file(filepath) as temporary:
        np.packbits(stored.reshape(-1), bitorder=bit_order).tofile(temporary)


class SpikeStreamSimple:
    """One `.dat` file of spike_h rows and spike_w columns, by SpikeCV's interface; UserError as `num_steps`."""

    def __init__(self, filepath: str | Path, spike_h: int, spike_w: int) -> None:
        self.filepath = Path(filepath)
        self.spike_h = spike_h
        self.spike_w = spike_w
        self.num_steps = num_steps(filepath, spike_h, spike_w)

    def get_spike_matrix(self, flipud: bool = True) -> np.ndarray:
        """All spikes, (T, H, W) uint8, 0 or 1; `flipud`: the file stores its rows bottom-up."""
        return read_spikes(self.filepath, self.spike_h, self.spike_w, flipud=flipud)


def _checked_range(name: str, wanted: tuple[int, int] | None, length: int) -> tuple[int, int]:
    """`wanted`, or [0, length) if None; UserError if it is empty or outside [0, length)."""
    first, last = wanted or (0, length)
    if not 0 <= first < last <= length:
        raise UserError(f"{name} [{first}, {last}) must be a non-empty part of [0, {length}); correct it")
    return first, last
