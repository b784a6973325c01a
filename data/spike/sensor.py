"""Combine what options, manifest.json and config.yaml say about a spike camera, without guessing."""

from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from data.spike.config_yaml import SpikeConfig
from data.spike.manifest import GOPRO_RATE_AT_WHITE, Manifest
from options.schema import DatasetOpt
from utils.utils_error import UserError

T = TypeVar("T")

GOPRO_FLIPUD = True
GOPRO_BIT_ORDER: Literal["little"] = "little"


class Sensor(NamedTuple):
    """Geometry and gain of the spikes of a data set."""

    height: int
    width: int
    flipud: bool
    rate_at_white: float
    bit_order: Literal["little", "big"] = "little"

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width


def resolve_sensor(opt: DatasetOpt, manifest: Manifest | None, where: str, size: int) -> Sensor:
    """Combine options, manifest and config.yaml; without a manifest, GoPro's flip, bit order and rate are the defaults.

    Raises:
        UserError: a value is missing or contradictory; the message has both values and what one of the set's files, of
            `size` bytes, says of them.
    """
    spike, root = opt.spike, opt.dataroot_spike
    config = SpikeConfig.load(Path(root)) if root else None
    sides = _size(opt, manifest, config, where, size)
    if manifest is None:
        return Sensor(
            *sides,
            GOPRO_FLIPUD if spike.flipud is None else spike.flipud,
            GOPRO_RATE_AT_WHITE if spike.rate_at_white is None else spike.rate_at_white,
            spike.bit_order or GOPRO_BIT_ORDER,
        )
    return Sensor(
        *sides,
        _agreed(root, "spike.flipud", spike.flipud, manifest.flipud),
        _agreed(root, "spike.rate_at_white", spike.rate_at_white, manifest.rate_at_white),
        _agreed(root, "spike.bit_order", spike.bit_order, manifest.bit_order),
    )


def _size(
    opt: DatasetOpt, manifest: Manifest | None, config: SpikeConfig | None, where: str, size: int
) -> tuple[int, int]:
    """Return (H, W); all sources that give one must agree."""
    given = {
        "the options say": (opt.spike_h, opt.spike_w),
        "manifest.json says": (manifest.spike_h, manifest.spike_w) if manifest else (None, None),
        "config.yaml says": (config.spike_h, config.spike_w) if config else (None, None),
    }
    sizes = {source: (h, w) for source, (h, w) in given.items() if h is not None and w is not None}
    if not sizes:
        raise UserError(
            f"spike_h, spike_w: are null and {opt.dataroot_spike} has neither manifest.json nor config.yaml; "
            "set them in the options"
        )
    if len(set(sizes.values())) > 1:
        said = ", ".join(f"{source} {h}x{w}" for source, (h, w) in sizes.items())
        steps = {sides: divmod(size * 8, sides[0] * sides[1]) for sides in sizes.values()}
        judged = ", ".join(
            f"no whole number of {h}x{w} steps" if rest else f"{whole} steps of {h}x{w}"
            for (h, w), (whole, rest) in steps.items()
        )
        raise UserError(
            f"spike_h, spike_w: {said} for {opt.dataroot_spike}; {where} has {size} bytes: {judged}; leave the keys "
            "out of the options, set them to null, or correct the wrong file"
        )
    return next(iter(sizes.values()))


def _agreed(root: str | None, key: str, given: T | None, recorded: T) -> T:
    """Return the manifest's value; UserError if the options contradict it."""
    if given is not None and given != recorded:
        raise UserError(
            f"{key}: the options say {given}, the manifest.json of {root} says {recorded}; "
            "remove the key from the options or correct the manifest"
        )
    return recorded
