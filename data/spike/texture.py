"""What the bits of a spike stream say about its own geometry: step length, width, bit order.

Nothing here needs the right height, width or bit order beforehand. Three facts are measured:

*Echo.* A pixel is like itself one step later, unlike its neighbours: bits that lie a whole number of steps apart
agree more (or, where pixels fire every other step, less) often than bits one byte further to either side. Under a
wrong step length nothing stands out. Whole bytes are compared, so the bit order does not matter.

*Row contrast.* In the mean picture, pixels one width apart are vertical neighbours and differ little.

*Seam.* Between two bytes the last pixel of one touches the first of the next. Read in the wrong order, the two pixels
at a seam are 15 apart: the comb that one sees in pictures.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.spike_loader import SIZES_IN_USE, BitOrder, fitting_sizes, num_steps, packed_bytes

# The quick check reads this many bytes (or four steps), the search for an unknown size twice as many.
QUICK_BYTES = 1 << 19
SEARCH_BYTES = 1 << 20
# In standard errors. Wrong step lengths reach 3, simulated and real streams 10 (shot noise alone) to 200.
HEARD = 8.0
CLEAR = 5.0
_ECHOES = 8  # multiples of the step length that are listened to
_LOUDER = 8.0  # times the echo of the declared step length, for an alarm
_LONGEST_LAG = 0.8  # of the bytes that are read
_BLANK = 1e-9  # variance of the bits
_SMALLEST_STEP = 32  # bytes; below that, neighbours in a row would be taken for steps
_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)


class Mean(NamedTuple):
    """An estimate and its standard error."""

    value: float
    error: float

    def exceeds(self, other: "Mean") -> float:
        """By how many standard errors it is larger than the other one; 0 where nothing varies."""
        error = float(np.hypot(self.error, other.error))
        return (self.value - other.value) / error if error > 0 else 0.0


def echo(packed: np.ndarray, step_bytes: int) -> float:
    """How clearly the stream repeats after `step_bytes`.

    Of the first multiples of the step length, seven of ten stand out at least this much: that keeps out
    fractions of the true step, of which only every second, third, ... multiple does.

    Args:
        packed: (n,) uint8, the bytes of a stream; the first 2^19 or four steps are read.
        step_bytes: H*W/8.

    Returns:
        Standard errors, 0 where the stream is too short (under two steps) or blank; see HEARD.
    """
    packed = packed[: max(QUICK_BYTES, 4 * step_bytes)]
    lags = _multiples(step_bytes, packed.size)
    return _loudness([abs(_standing_out(packed, lag)) for lag in lags]) if step_bytes > 1 else 0.0


def mean_plane(packed: np.ndarray, step_bytes: int) -> np.ndarray:
    """Firing counts of the first steps, bits in stored order, lowest first.

    Args:
        packed: (n,) uint8, the bytes of a stream of one step or more.
        step_bytes: H*W/8.

    Returns:
        (step_bytes, 8) float32, spikes per step in [0, 1]: byte by byte, bit 0 to bit 7.
    """
    steps = max(1, min(packed.size, max(SEARCH_BYTES, 4 * step_bytes)) // step_bytes)
    bits = np.unpackbits(packed[: steps * step_bytes], bitorder="little").reshape(steps, step_bytes, 8)
    return bits.mean(axis=0, dtype=np.float32)


def seam(plane: np.ndarray) -> float:
    """Standard errors by which the lowest-bit-first reading joins bytes more smoothly; negative: highest first.

    Args:
        plane: (n, 8) of `mean_plane`; any whole number of bytes, the width does not matter.
    """
    little = _mean(np.square(plane[:-1, 7] - plane[1:, 0]))
    big = _mean(np.square(plane[:-1, 0] - plane[1:, 7]))
    return big.exceeds(little)


def bit_order(plane: np.ndarray) -> BitOrder | None:
    """The bit order that the seams of a plane (n, 8) speak for; None where they do not tell."""
    found = seam(plane)
    return None if abs(found) < CLEAR else "little" if found > 0 else "big"


def row_difference(plane: np.ndarray, width: int, order: BitOrder = "little") -> Mean:
    """Mean squared difference of pixels one width apart, over twice the variance: 1 for unrelated pixels, 0 for equal.

    Args:
        plane: (n, 8) of `mean_plane`.
        width: W, below 8 n.
        order: matters only for widths that are no multiple of 8.
    """
    flat = (plane if order == "little" else plane[:, ::-1]).reshape(-1)
    variance = float(flat.var())
    if variance == 0 or not 0 < width < flat.size:
        return Mean(1.0, 0.0)
    return _mean(np.square(flat[width:] - flat[:-width]) / (2 * variance))


def likelier_geometry(filepath: str | Path, spike_h: int, spike_w: int) -> tuple[int, int] | None:
    """Ask the stream itself whether a size in use suits it far better than the given one.

    Args:
        filepath: a `.dat` file whose size fits (H, W).
        spike_h: H as declared.
        spike_w: W as declared.

    Returns:
        (H, W) of the likelier size, or None where the declared one looks right or the stream tells nothing.

    Raises:
        UserError: the file does not fit (see `num_steps`).
    """
    num_steps(filepath, spike_h, spike_w)
    return likelier_size(packed_bytes(filepath), spike_h, spike_w)


def likelier_size(packed: np.ndarray, spike_h: int, spike_w: int) -> tuple[int, int] | None:
    """`likelier_geometry` of bytes in memory, (n,) uint8, whose number fits (H, W)."""
    declared = spike_h, spike_w
    likelier = [size for size in fitting_sizes(packed.size) if suits_better(packed, size, declared)]
    # Multiples of the true step echo as well, sometimes louder.
    heard = {size: echo(packed, size[0] * size[1] // 8) for size in likelier}
    loud = [size for size in likelier if heard[size] * _LOUDER > max(heard.values())]
    return min(loud, key=lambda size: size[0] * size[1]) if loud else None


def suits_better(packed: np.ndarray, size: tuple[int, int], declared: tuple[int, int]) -> bool:
    """Whether a stream speaks clearly for one size (H, W) against the declared one.

    Args:
        packed: (n,) uint8, the bytes of a stream, at least one step of either size.
        size: the size in question; H*W a multiple of 8.
        declared: the size to stay with in case of doubt; H*W a multiple of 8.
    """
    step, declared_step = size[0] * size[1] // 8, declared[0] * declared[1] // 8
    if size == declared or step > packed.size or (loud := echo(packed, step)) < HEARD:
        return False
    plane = mean_plane(packed, step)
    order = bit_order(plane) or "little"
    torn = _torn(plane, declared[1], size[1], order)
    expected = echo(packed, declared_step)
    if torn < -CLEAR:
        return False
    if step < declared_step and _is_temporal(packed, step, size[1]):
        return loud > expected / _LOUDER  # nothing repeats within a step
    if torn > CLEAR and loud > expected * (0.5 if step <= declared_step else 2):
        return True
    return loud > _LOUDER * expected and 2 * declared_step <= packed.size


def find_geometry(packed: np.ndarray, more: Sequence[tuple[int, int]] = ()) -> tuple[int, int] | None:
    """Find H and W of a stream of unknown size: one in use if its echo is heard, else what a search finds.

    Args:
        packed: (n,) uint8, the bytes of a stream.
        more: sizes beside those in use that are to be tried; those that do not fit are passed over.

    Returns:
        (H, W), or None where nothing stands out. The stream may have a remainder under it only if no size fits.
    """
    tried = {size for size in [*more, *fitting_sizes(packed.size)] if size[0] * size[1] > 0}
    sizes = [(h, w) for h, w in tried if h * w % 8 == 0 and packed.size % (h * w // 8) == 0]
    heard = {step: echo(packed, step) for step in {h * w // 8 for h, w in sizes}}
    enough = max(HEARD, max(heard.values(), default=0.0) / _LOUDER)
    loud = [step for step, score in heard.items() if score > enough]
    best = None
    if loud:
        plane = mean_plane(packed, min(loud))
        order = bit_order(plane) or "little"
        fitting = sorted((h, w) for h, w in sizes if h * w // 8 == min(loud))
        best = min(fitting, key=lambda size: row_difference(plane, size[1], order).value)
    if best in SIZES_IN_USE:
        return best
    searched = search_geometry(packed)
    if best is None or searched is None:
        return best or searched
    return searched if suits_better(packed, searched, best) else best


def search_geometry(packed: np.ndarray) -> tuple[int, int] | None:
    """Find H and W of a stream of unknown size, cut-off files included.

    Args:
        packed: (n,) uint8, the bytes of a stream; the first 2^20 are searched, so a step must be well below that.

    Returns:
        (H, W), or None where no step length or no width stands out.
    """
    steps = search_steps(packed)
    for step in sorted(steps, key=lambda step: (packed.size % step != 0, step)):
        found = search_width(mean_plane(packed, step))
        if found is not None:
            return found
    return None


def search_steps(packed: np.ndarray) -> list[int]:
    """The lengths in bytes after which the stream repeats clearly, shortest first: the step and multiples of it.

    All lengths are tried at once: the correlation of the stream with itself, by Fourier transform.
    """
    part = packed[:SEARCH_BYTES]
    if part.size < 4 * _SMALLEST_STEP:
        return []
    length = 1 << (2 * part.size - 1).bit_length()
    power = np.zeros(length // 2 + 1)
    for bits in np.unpackbits(part).reshape(-1, 8).T:
        power += np.square(np.abs(np.fft.rfft(bits - bits.mean(), length)))
    pairs = 8.0 * np.arange(part.size, 0, -1)
    alike = np.fft.irfft(power, length)[: part.size] / pairs
    if alike[0] <= _BLANK:
        return []
    standing = np.abs(np.convolve(alike, [-0.5, 1, -0.5], "same")) / (alike[0] * np.sqrt(1.5 / pairs))
    standing = standing[: int(_LONGEST_LAG * part.size) + 1]
    loudest = _SMALLEST_STEP + np.argsort(-standing[_SMALLEST_STEP:], kind="stable")[:40]
    lengths = {int(lag) // parts for lag in loudest for parts in range(1, 33) if lag % parts == 0}
    scores = {step: _loudness(standing[_multiples(step, part.size)]) for step in lengths if step >= _SMALLEST_STEP}
    enough = max(HEARD, max(scores.values(), default=0.0) / _LOUDER)
    heard = sorted(step for step, score in scores.items() if score > enough)
    return [step for step in heard if _is_sharp(part, step)] or heard


def search_width(plane: np.ndarray, smallest: int = 16) -> tuple[int, int] | None:
    """(H, W) with the best rows among all that multiply to the plane's (n, 8) pixels; None if none stands out."""
    pixels = plane.size
    order = bit_order(plane) or "little"
    widths = [width for width in range(smallest, pixels // smallest + 1) if pixels % width == 0]
    found = {width: row_difference(plane, width, order) for width in widths}
    if not found:
        return None
    best = min(found, key=lambda width: found[width].value)
    typical = float(np.median([mean.value for mean in found.values()]))
    clear = found[best].value < 0.95 * typical and Mean(typical, 0.0).exceeds(found[best]) > CLEAR
    return (pixels // best, best) if clear else None


def _torn(plane: np.ndarray, width: int, other: int, order: BitOrder) -> float:
    """Standard errors by which rows of one width differ more than rows of another, pixel by pixel."""
    flat = (plane if order == "little" else plane[:, ::-1]).reshape(-1)
    count = flat.size - max(width, other)
    if count < 2:
        return 0.0
    here = flat[:count]
    more = np.square(here - flat[width:][:count]) - np.square(here - flat[other:][:count])
    return _mean(more).exceeds(Mean(0.0, 0.0))


def _multiples(step: int, size: int) -> list[int]:
    """The first multiples of a step length, up to the longest useful lag in `size` bytes."""
    return [step * times for times in range(1, _ECHOES + 1) if step * times <= _LONGEST_LAG * size]


def _loudness(standing: Sequence[float] | np.ndarray) -> float:
    """What seven of ten multiples of a length reach; 0 without any."""
    return float(np.quantile(standing, 0.3)) if len(standing) else 0.0


def _standing_out(packed: np.ndarray, lag: int) -> float:
    """Standard errors by which bits `lag` bytes apart differ less or more than those a byte nearer or farther."""
    here = _differing(packed, lag)
    beside = (_differing(packed, lag - 1) + _differing(packed, lag + 1)) / 2
    return _in_errors(here, beside, packed.size - lag)


def _is_temporal(packed: np.ndarray, step: int, width: int) -> bool:
    """Whether an echo is that of single pixels in time, not that of a picture that resembles itself or has streaks.

    Those echo one row farther as well.
    """
    row = step + max(1, width // 8)
    return row < _LONGEST_LAG * packed.size and _is_sharp(packed, step) and not _is_sharp(packed, row)


def _is_sharp(packed: np.ndarray, lag: int) -> bool:
    """Whether the echo belongs to single pixels, as that of a step does; that of a row spreads to its neighbours.

    The neighbours are bits of the same byte, which are neighbours in either bit order.
    """
    packed = packed[: max(QUICK_BYTES, 4 * lag)]
    one, other = packed[:-lag], packed[lag:]
    sides = [_ONES[((one >> i) ^ (other >> (1 - i))) & 0x7F].mean() / 7 for i in (0, 1)]
    sharp = _in_errors(_differing(packed, lag), float(sum(sides)) / 2, one.size)
    return abs(sharp) > max(HEARD, abs(_standing_out(packed, lag)) / 2)


def _differing(packed: np.ndarray, lag: int) -> float:
    return float(_ONES[packed[lag:] ^ packed[:-lag]].mean()) / 8


def _in_errors(here: float, beside: float, count: int) -> float:
    spread = max(beside * (1 - beside), here * (1 - here))
    return (here - beside) / float(np.sqrt(spread * 1.5 / (8 * count))) if spread > 0 else 0.0


def _mean(values: np.ndarray) -> Mean:
    if values.size == 0:
        return Mean(0.0, 0.0)
    error = float(values.std(dtype=np.float64)) / values.size**0.5
    return Mean(float(values.mean(dtype=np.float64)), error)
