"""Estimate the geometry of a spike stream from its bits: step length, width, bit order.

No height, width or bit order needs to be known. Three properties are measured:

*Periodicity.* A pixel resembles itself one step later, but not its neighbours: bits a whole number of steps apart agree
more often (or, if pixels fire every other step, less often) than bits one byte further to either side. A wrong step
length shows no such peak. Whole bytes are compared, so the bit order does not matter.

*Row difference.* In the mean picture, pixels one width apart are vertical neighbours and differ little.

*Seam.* The last pixel of a byte is next to the first of the next byte. In the wrong bit order these two are 15 pixels
apart, which shows as a comb in pictures.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.spike_loader import SIZES_IN_USE, BitOrder, fitting_sizes, num_steps, packed_bytes

# The quick check reads this many bytes, but at least four steps; the search for an unknown size reads twice as many.
QUICK_BYTES = 1 << 19
SEARCH_BYTES = 1 << 20
# Thresholds in standard errors. Wrong step lengths reach 3; simulated and real streams 10 (pure shot noise) to 200.
PERIODIC_MIN = 8.0
SIGNIFICANT = 5.0
_MULTIPLES = 8  # number of multiples of the step length that are tested
_DOMINANT = 8.0  # ratio of two periodicities from which the weaker one is ignored
_LONGEST_LAG = 0.8  # as a fraction of the bytes read
_BLANK = 1e-9  # variance of the bits
_SMALLEST_STEP = 32  # bytes; at shorter lags neighbours in a row look like steps
_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)


class Mean(NamedTuple):
    """An estimate and its standard error."""

    value: float
    error: float

    def exceeds(self, other: "Mean") -> float:
        """Return by how many standard errors it exceeds another mean; 0 if both errors are 0."""
        error = float(np.hypot(self.error, other.error))
        return (self.value - other.value) / error if error > 0 else 0.0


def periodicity(packed: np.ndarray, step_bytes: int) -> float:
    """Measure how clearly the stream, (n,) uint8, repeats after H*W/8 bytes, in standard errors, see PERIODIC_MIN.

    The 30 % quantile over the first multiples of the step length: of a fraction of the true step, only every second,
    third, ... multiple has a peak. 0 if the stream is too short (under two steps) or blank.
    """
    packed = packed[: max(QUICK_BYTES, 4 * step_bytes)]
    lags = _multiples(step_bytes, packed.size)
    return _combined([abs(_peak(packed, lag)) for lag in lags]) if step_bytes > 1 else 0.0


def mean_plane(packed: np.ndarray, step_bytes: int) -> np.ndarray:
    """Return the mean firing of the first steps, of H*W/8 bytes each, in stored order.

    Returns:
        (step_bytes, 8) float32, spikes per step in [0, 1]: byte by byte, bit 0 to bit 7.
    """
    steps = max(1, min(packed.size, max(SEARCH_BYTES, 4 * step_bytes)) // step_bytes)
    bits = np.unpackbits(packed[: steps * step_bytes], bitorder="little").reshape(steps, step_bytes, 8)
    return bits.mean(axis=0, dtype=np.float32)


def seam(plane: np.ndarray) -> float:
    """Return by how many standard errors lowest-bit-first joins bytes of a mean plane (n, 8) more smoothly; negative:
    highest first. The width does not matter."""
    little = _mean(np.square(plane[:-1, 7] - plane[1:, 0]))
    big = _mean(np.square(plane[:-1, 0] - plane[1:, 7]))
    return big.exceeds(little)


def bit_order(plane: np.ndarray) -> BitOrder | None:
    """Return the bit order that the seams of a plane (n, 8) imply; None if they are inconclusive."""
    found = seam(plane)
    return None if abs(found) < SIGNIFICANT else "little" if found > 0 else "big"


def row_difference(plane: np.ndarray, width: int, order: BitOrder = "little") -> Mean:
    """Return the mean squared difference of pixels one width apart, over twice the variance: 1 unrelated, 0 equal.

    `plane` is (n, 8) from `mean_plane`; `order` matters only for widths that are not multiples of 8.
    """
    flat = (plane if order == "little" else plane[:, ::-1]).reshape(-1)
    variance = float(flat.var())
    if variance == 0 or not 0 < width < flat.size:
        return Mean(1.0, 0.0)
    return _mean(np.square(flat[width:] - flat[:-width]) / (2 * variance))


def likelier_geometry(filepath: str | Path, spike_h: int, spike_w: int) -> tuple[int, int] | None:
    """Do what `likelier_size` does for a `.dat` file; UserError if it does not fit (see `num_steps`)."""
    num_steps(filepath, spike_h, spike_w)
    return likelier_size(packed_bytes(filepath), spike_h, spike_w)


def likelier_size(packed: np.ndarray, spike_h: int, spike_w: int) -> tuple[int, int] | None:
    """Return a size (H, W) in use that fits a stream far better than the declared one, which divides it.

    None if the declared size looks right or the stream, (n,) uint8, is inconclusive.
    """
    declared = spike_h, spike_w
    likelier = [size for size in fitting_sizes(packed.size) if suits_better(packed, size, declared)]
    # Multiples of the true step are periodic too, sometimes more clearly.
    scores = {size: periodicity(packed, size[0] * size[1] // 8) for size in likelier}
    periodic = [size for size in likelier if scores[size] * _DOMINANT > max(scores.values())]
    return min(periodic, key=lambda size: size[0] * size[1]) if periodic else None


def suits_better(packed: np.ndarray, size: tuple[int, int], declared: tuple[int, int]) -> bool:
    """Return whether a stream clearly has one size (H, W) rather than the declared one, which is kept in doubt.

    Both have a multiple of 8 pixels, and the stream, (n,) uint8, at least one step of either.
    """
    step, declared_step = size[0] * size[1] // 8, declared[0] * declared[1] // 8
    if size == declared or step > packed.size or (score := periodicity(packed, step)) < PERIODIC_MIN:
        return False
    plane = mean_plane(packed, step)
    order = bit_order(plane) or "little"
    roughness = _row_difference_gain(plane, declared[1], size[1], order)
    expected = periodicity(packed, declared_step)
    if roughness < -SIGNIFICANT:
        return False
    if step < declared_step and _is_temporal(packed, step, size[1]):
        return score > expected / _DOMINANT  # nothing repeats within a step
    if roughness > SIGNIFICANT and score > expected * (0.5 if step <= declared_step else 2):
        return True
    return score > _DOMINANT * expected and 2 * declared_step <= packed.size


def find_geometry(packed: np.ndarray, more: Sequence[tuple[int, int]] = ()) -> tuple[int, int] | None:
    """Find (H, W) of a stream of unknown size, (n,) uint8: a periodic size in use or in `more`, else by a search.

    None if nothing stands out. The size divides the stream without remainder unless none does.
    """
    tried = {size for size in [*more, *fitting_sizes(packed.size)] if size[0] * size[1] > 0}
    sizes = [(h, w) for h, w in tried if h * w % 8 == 0 and packed.size % (h * w // 8) == 0]
    scores = {step: periodicity(packed, step) for step in {h * w // 8 for h, w in sizes}}
    enough = max(PERIODIC_MIN, max(scores.values(), default=0.0) / _DOMINANT)
    periodic = [step for step, score in scores.items() if score > enough]
    best = None
    if periodic:
        plane = mean_plane(packed, min(periodic))
        order = bit_order(plane) or "little"
        fitting = sorted((h, w) for h, w in sizes if h * w // 8 == min(periodic))
        best = min(fitting, key=lambda size: row_difference(plane, size[1], order).value)
    if best in SIZES_IN_USE and not _repeats_within(packed, min(periodic)):
        return best
    searched = search_geometry(packed)
    if best is None or searched is None:
        return best or searched
    return searched if suits_better(packed, searched, best) else best


def search_geometry(packed: np.ndarray) -> tuple[int, int] | None:
    """Find (H, W) of a stream of unknown size, even a truncated one; None if no step length or no width stands out.

    The first 2^20 bytes are searched, so a step must be much shorter.
    """
    steps = sorted(search_steps(packed), key=lambda step: (packed.size % step != 0, step))
    return next(filter(None, (search_width(mean_plane(packed, step)) for step in steps)), None)


def search_steps(packed: np.ndarray) -> list[int]:
    """Return the lengths in bytes after which the stream clearly repeats, ascending: the step and its multiples.

    All lengths are tested at once by the autocorrelation of the stream, computed by FFT.
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
    peaks = np.abs(np.convolve(alike, [-0.5, 1, -0.5], "same")) / (alike[0] * np.sqrt(1.5 / pairs))
    peaks = peaks[: int(_LONGEST_LAG * part.size) + 1]
    highest = _SMALLEST_STEP + np.argsort(-peaks[_SMALLEST_STEP:], kind="stable")[:40]
    lengths = {int(lag) // parts for lag in highest for parts in range(1, 33) if lag % parts == 0}
    scores = {step: _combined(peaks[_multiples(step, part.size)]) for step in lengths if step >= _SMALLEST_STEP}
    enough = max(PERIODIC_MIN, max(scores.values(), default=0.0) / _DOMINANT)
    periodic = sorted(step for step, score in scores.items() if score > enough)
    return [step for step in periodic if _is_sharp(part, step)] or periodic


def search_width(plane: np.ndarray, smallest: int = 16) -> tuple[int, int] | None:
    """Return the (H, W) with the smoothest rows among all that fit the plane (n, 8); None if none stands out."""
    pixels = plane.size
    order = bit_order(plane) or "little"
    widths = [width for width in range(smallest, pixels // smallest + 1) if pixels % width == 0]
    found = {width: row_difference(plane, width, order) for width in widths}
    if not found:
        return None
    best = min(found, key=lambda width: found[width].value)
    typical = float(np.median([mean.value for mean in found.values()]))
    is_clear = found[best].value < 0.95 * typical and Mean(typical, 0.0).exceeds(found[best]) > SIGNIFICANT
    return (pixels // best, best) if is_clear else None


def _row_difference_gain(plane: np.ndarray, width: int, other: int, order: BitOrder) -> float:
    """Return by how many standard errors rows of `width` differ more than rows of `other`, pixel by pixel."""
    flat = (plane if order == "little" else plane[:, ::-1]).reshape(-1)
    count = flat.size - max(width, other)
    if count < 2:
        return 0.0
    here = flat[:count]
    more = np.square(here - flat[width:][:count]) - np.square(here - flat[other:][:count])
    return _mean(more).exceeds(Mean(0.0, 0.0))


def _multiples(step: int, size: int) -> list[int]:
    """Return the first multiples of a step length, up to the longest useful lag in `size` bytes."""
    return [step * times for times in range(1, _MULTIPLES + 1) if step * times <= _LONGEST_LAG * size]


def _combined(peaks: Sequence[float] | np.ndarray) -> float:
    """Return what 70 % of the peaks at multiples of a length reach; 0 without any."""
    return float(np.quantile(peaks, 0.3)) if len(peaks) else 0.0


def _peak(packed: np.ndarray, lag: int) -> float:
    """Return by how many standard errors bits `lag` bytes apart differ more than bits one byte nearer or farther."""
    here = _differing(packed, lag)
    beside = (_differing(packed, lag - 1) + _differing(packed, lag + 1)) / 2
    return _in_errors(here, beside, packed.size - lag)


def _is_temporal(packed: np.ndarray, step: int, width: int) -> bool:
    """Return whether a periodicity is that of single pixels in time, not of a repetitive or streaky picture.

    A picture's periodicity shows one row farther as well.
    """
    row = step + max(1, width // 8)
    return row < _LONGEST_LAG * packed.size and _is_sharp(packed, step) and not _is_sharp(packed, row)


def _repeats_within(packed: np.ndarray, step: int) -> bool:
    """Return whether single pixels repeat after a part of `step` bytes: it is several steps of a smaller sensor."""
    part = packed[: max(QUICK_BYTES // 4, 2 * step)]
    shorter = [step // parts for parts in range(2, step // _SMALLEST_STEP + 1) if step % parts == 0]
    return any(_is_sharp(part, lag) and periodicity(part, lag) > PERIODIC_MIN for lag in shorter)


def _is_sharp(packed: np.ndarray, lag: int) -> bool:
    """Return whether the peak belongs to single pixels, as for a step; a row's peak spreads to neighbouring pixels.

    The neighbours compared are within a byte, where they are neighbours in either bit order.
    """
    packed = packed[: max(QUICK_BYTES, 4 * lag)]
    one, other = packed[:-lag], packed[lag:]
    sides = [_ONES[((one >> i) ^ (other >> (1 - i))) & 0x7F].mean() / 7 for i in (0, 1)]
    sharp = _in_errors(_differing(packed, lag), float(sum(sides)) / 2, one.size)
    return abs(sharp) > max(PERIODIC_MIN, abs(_peak(packed, lag)) / 2)


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
