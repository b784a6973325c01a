"""The one truth of `.dat` spike files: size, bits, windows, writing, and the check of height and width.

A file is the bare bit planes of a spike camera, one after another: row-major, one bit a pixel, least
significant bit first, no header. Cameras and most data sets store rows bottom-up, hence the default
`flipud=True`: stored row H-1-r is upright row r. H*W must be a multiple of 8: every step starts on a byte.
"""

from pathlib import Path

import numpy as np

from utils.utils_error import UserError
from utils.utils_file import whole_file

SIZES_IN_USE: tuple[tuple[int, int], ...] = (
    (250, 400),
    (180, 320),
    (360, 640),
    (500, 800),
    (1000, 1000),
    (720, 1280),
    (384, 384),
    (256, 256),
)

# The texture check reads this many bytes at most (or one step). It speaks up only when the picture of the
# given size is rough (white noise scores 2, photographs 0.02 to 1) and another size is this much smoother.
_CHECK_BYTES = 1 << 19
_CHECK_STEPS = 255  # counts fit uint8
_ROUGH = 0.5
_SMOOTHER = 2.0


def num_steps(filepath: str | Path, spike_h: int, spike_w: int) -> int:
    """Number of sensor steps in a file, from its size alone.

    Args:
        filepath: a `.dat` file.
        spike_h: rows of the sensor.
        spike_w: columns of the sensor.

    Returns:
        Steps, at least 1.

    Raises:
        UserError: the file is missing or empty, H*W is no multiple of 8, or the size is no multiple of
                H*W/8 bytes; the last names the sizes in use that would fit.
    """
    path = Path(filepath)
    if spike_h < 1 or spike_w < 1 or spike_h * spike_w % 8:
        raise UserError(
            f"{path}: spike_h={spike_h}, spike_w={spike_w}: both must be positive and H*W a multiple of 8 "
            f"(a step is whole bytes), found H*W={spike_h * spike_w}; set them to the sensor's size"
        )
    if not path.is_file():
        raise UserError(
            f"{path}: no such spike file, expected a .dat of {spike_h}x{spike_w} steps; check dataroot_spike"
        )
    size = path.stat().st_size
    if size == 0:
        raise UserError(f"{path}: the spike file is empty (0 bytes), expected {spike_h}x{spike_w} steps; copy it again")
    step_bytes = spike_h * spike_w // 8
    steps, remainder = divmod(size, step_bytes)
    if remainder:
        fitting = ", ".join(f"{h}x{w} ({size * 8 // (h * w)} steps)" for h, w in _fitting_sizes(size))
        raise UserError(
            f"{path}: {size} bytes is no multiple of H*W/8 = {step_bytes} bytes (H={spike_h}, W={spike_w}), "
            f"remainder {remainder} bytes; sizes in use that fit: {fitting or 'none (cut off?)'}; "
            "correct spike_h and spike_w or copy the file again"
        )
    return steps


def read_spikes(
    filepath: str | Path,
    spike_h: int,
    spike_w: int,
    *,
    steps: tuple[int, int] | None = None,
    rows: tuple[int, int] | None = None,
    cols: tuple[int, int] | None = None,
    flipud: bool = True,
) -> np.ndarray:
    """Read a window of a spike file; only the bytes of that window are touched.

    Args:
        filepath: a `.dat` file of (T, H, W) bits.
        spike_h: H, rows of the sensor.
        spike_w: W, columns of the sensor.
        steps: [first, last) in time; None reads all.
        rows: [first, last) in the returned, upright orientation; None reads all.
        cols: [first, last) from the left; None reads all.
        flipud: the file stores its rows bottom-up.

    Returns:
        (steps, rows, cols) uint8, 0 or 1, row 0 at the top, contiguous.

    Raises:
        UserError: the file does not fit (see `num_steps`), or a range is empty or leaves the file.
    """
    total = num_steps(filepath, spike_h, spike_w)
    t0, t1 = _checked_range(filepath, "steps", steps, total)
    r0, r1 = _checked_range(filepath, "rows", rows, spike_h)
    c0, c1 = _checked_range(filepath, "cols", cols, spike_w)
    if flipud:
        r0, r1 = spike_h - r1, spike_h - r0
    upright = slice(None, None, -1 if flipud else 1)
    packed = np.asarray(np.memmap(filepath, np.uint8, "r")).reshape(total, -1)[t0:t1]
    if spike_w % 8 == 0:
        window = packed.reshape(t1 - t0, spike_h, spike_w // 8)[:, r0:r1, c0 // 8 : -(-c1 // 8)]
        first = c0 % 8
        bits = np.unpackbits(window[:, upright], axis=2, bitorder="little")[:, :, first : first + c1 - c0]
    else:  # rows start inside bytes: cut the step to the bytes that hold the rows, then trim bits
        start, stop = r0 * spike_w, r1 * spike_w
        flat = np.unpackbits(packed[:, start // 8 : -(-stop // 8)], axis=1, bitorder="little")
        flat = flat[:, start % 8 : start % 8 + stop - start]
        bits = flat.reshape(t1 - t0, r1 - r0, spike_w)[:, upright, c0:c1]
    return np.ascontiguousarray(bits)


def write_spikes(filepath: str | Path, spikes: np.ndarray, *, flipud: bool = True) -> None:
    """Write a spike file: the exact inverse of `read_spikes`. The file appears whole or not at all.

    Args:
        filepath: where to; missing folders are made.
        spikes: (T, H, W) uint8 or bool, 0 or 1, row 0 at the top, H*W a multiple of 8.
        flipud: store the rows bottom-up.

    Raises:
        ValueError: another shape, other values than 0 and 1, or H*W no multiple of 8.
    """
    if spikes.ndim != 3 or spikes.size == 0 or spikes[0].size % 8:
        raise ValueError(f"{filepath}: spikes must be (T, H, W) with H*W a multiple of 8, found {spikes.shape}")
    if spikes.dtype not in (np.uint8, np.bool_) or spikes.max() > 1:
        raise ValueError(f"{filepath}: spikes must be uint8 or bool with values 0 and 1, found {spikes.dtype}")
    stored = spikes[:, ::-1] if flipud else spikes
    with whole_file(filepath) as temporary:
        np.packbits(stored.reshape(-1), bitorder="little").tofile(temporary)


def likelier_geometry(filepath: str | Path, spike_h: int, spike_w: int) -> tuple[int, int] | None:
    """Ask the texture of the first steps whether a size in use suits the file far better than the given one.

    A wrong width tears vertical neighbours apart, a wrong number of pixels a step mixes places: both make the
    mean firing plane rough. The same bytes are judged under every size.

    Args:
        filepath: a `.dat` file whose size fits (H, W).
        spike_h: H as declared.
        spike_w: W as declared.

    Returns:
        (H, W) of the likelier size, or None where the declared one looks right or the picture tells nothing.

    Raises:
        UserError: the file does not fit (see `num_steps`).
    """
    num_steps(filepath, spike_h, spike_w)
    packed = np.asarray(np.memmap(filepath, np.uint8, "r"))
    declared = _roughness(packed, spike_h, spike_w)
    if declared is None or sum(declared) < _ROUGH:
        return None
    vertical, horizontal = declared
    best, best_roughness = None, sum(declared) / _SMOOTHER
    for h, w in _fitting_sizes(packed.size):
        # Global flicker shows as smooth bands under sizes that are no part of a step: then ask for torn rows.
        if vertical < 1.1 * horizontal and spike_h * spike_w % (h * w):
            continue
        candidate = _roughness(packed, h, w)
        if candidate is not None and sum(candidate) < best_roughness:
            best, best_roughness = (h, w), sum(candidate)
    return best


class SpikeStreamSimple:
    """One spike file with its size, as SpikeCV's users know it.

    Args:
        filepath: a `.dat` file.
        spike_h: rows of the sensor.
        spike_w: columns of the sensor.

    Raises:
        UserError: the file does not fit (see `num_steps`).
    """

    def __init__(self, filepath: str | Path, spike_h: int, spike_w: int) -> None:
        self.filepath = Path(filepath)
        self.spike_h = spike_h
        self.spike_w = spike_w
        self.num_steps = num_steps(filepath, spike_h, spike_w)

    def get_spike_matrix(self, flipud: bool = True) -> np.ndarray:
        """All spikes, (T, H, W) uint8, 0 or 1; `flipud` says that the file stores its rows bottom-up."""
        return read_spikes(self.filepath, self.spike_h, self.spike_w, flipud=flipud)


def _fitting_sizes(size: int) -> list[tuple[int, int]]:
    """The sizes in use whose steps divide a file of `size` bytes."""
    return [(h, w) for h, w in SIZES_IN_USE if size % (h * w // 8) == 0]


def _checked_range(filepath: str | Path, name: str, wanted: tuple[int, int] | None, length: int) -> tuple[int, int]:
    """`wanted`, or the whole of [0, length); UserError if it is empty or leaves it."""
    first, last = wanted or (0, length)
    if not 0 <= first < last <= length:
        raise UserError(f"{filepath}: {name} [{first}, {last}) must be a non-empty part of [0, {length}); correct it")
    return first, last


def _roughness(packed: np.ndarray, h: int, w: int) -> tuple[float, float] | None:
    """Mean squared difference of vertical and of horizontal neighbours in the firing plane over 2 variances.

    Each is 1 for white noise and near 0 for a smooth picture; None for a flat one. Upright or not is all one.
    """
    step_bytes = h * w // 8
    steps = int(np.clip(min(packed.size, _CHECK_BYTES) // step_bytes, 1, _CHECK_STEPS))
    bits = np.unpackbits(packed[: steps * step_bytes], bitorder="little").reshape(steps, h, w)
    plane = np.add.reduce(bits, axis=0, dtype=np.uint8).astype(np.float32)
    variance = float(plane.var())
    if variance == 0 or h < 2 or w < 2:
        return None
    vertical, horizontal = (float(np.square(np.diff(plane, axis=axis)).mean()) / (2 * variance) for axis in (0, 1))
    return vertical, horizontal
