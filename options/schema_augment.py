"""Options of the sensor that training samples are fired with anew."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from options.schema_base import Block, Fraction, NotNegative

MOST_SHIFT = 4.0  # spike pixels


def _bounded(value: tuple[float, float]) -> tuple[float, float]:
    if value[1] > MOST_SHIFT:
        raise ValueError(f"must be at most {MOST_SHIFT:g} spike pixels, found {value[1]:g}")
    return value


def _as_range(value: object) -> object:
    return (value, value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"must be [low, high] or one number, found {list(value)}")
    return value


Range = Annotated[
    tuple[NotNegative, NotNegative], Field(strict=False), BeforeValidator(_as_range), AfterValidator(_ordered)
]
ShareRange = Annotated[
    tuple[Fraction, Fraction], Field(strict=False), BeforeValidator(_as_range), AfterValidator(_ordered)
]


class AugmentOpt(Block):
    """Spikes fired anew for each training sample, as another sensor would have. A number is that value, two are a range
    from which each sample draws. 0 everywhere: spikes as recorded."""

    theta: Range = (0, 0)
    """Threshold, in white pixels x steps, drawn log-uniformly. 0: that of the set. Without dataroot_subframes it is a
    whole multiple of the set's, so not below it: every m-th spike is kept."""
    pattern: ShareRange = (0, 0)
    """Fixed pattern: standard deviation of the pixels' gains, relative to their mean."""
    dark: ShareRange = (0, 0)
    """Dark current in spikes per step."""
    jitter: ShareRange = (0, 0)
    """Standard deviation of each step's threshold, relative to it."""
    hot: ShareRange = (0, 0)
    """Share of hot pixels, which fire 0.03 to 0.1 times more per step."""
    dead: ShareRange = (0, 0)
    """Share of pixels that never fire."""
    shift: Annotated[Range, AfterValidator(_bounded)] = (0, 0)
    """Misalignment: length in spike pixels, up to 4, of a shift in a random direction; half of the draws come from the
    lowest quarter of the range. Needs dataroot_subframes."""
    time_shift: Range = (0, 0)
    """Spike steps, rounded, by which the stream is early or late, drawn like shift; not where a clip's stream lacks
    these steps."""
    aligned: Fraction = 0.0
    """Share of samples whose spikes are interpolated, as those of two cameras that have been aligned
    (docs/alignment.md). Needs dataroot_subframes."""
    drop_spikes: Fraction = 0.0
    """Share of samples without any spikes."""
    instant: Fraction = 0.0
    """Share of samples whose target is another instant of the exposure, one of those that all frames of the clip have
    in dataroot_instants."""

    @property
    def refires(self) -> bool:
        """Whether spikes change."""
        return self != AugmentOpt(instant=self.instant)
