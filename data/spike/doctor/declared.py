"""Collect what is declared about a spike file: on the command line, in manifest.json, in config.yaml."""

from pathlib import Path
from typing import NamedTuple

from data.spike import config_yaml
from data.spike.config_yaml import SpikeConfig
from data.spike.description import find_description
from data.spike.formats import BARE, Format
from data.spike.manifest import FILE_NAME, ClipTiming, Manifest, gopro_timing
from utils.spike_loader import BitOrder
from utils.utils_error import UserError
from utils.utils_file import own_name

GIVEN = "the command line"
Size = tuple[int, int]


class Given(NamedTuple):
    """The user's declarations; None if not given."""

    size: Size | None = None
    bit_order: BitOrder | None = None
    flipud: bool | None = None


class Declared(NamedTuple):
    """All declarations about one file, in order of precedence; they may contradict each other."""

    sizes: dict[str, Size]  # source -> (H, W)
    orders: dict[str, BitOrder]
    flips: dict[str, bool]
    manifest: Manifest | None = None
    timing: ClipTiming | None = None


def declared_for(path: Path, given: Given = Given()) -> Declared:  # noqa: B008 - immutable
    """Collect the declarations about a file: the user's, then the nearest manifest.json, then the nearest config.yaml.

    `find_description` says where these two may be.

    Args:
        path: a spike file.
        given: the user's declarations.

    Raises:
        UserError: the manifest or the configuration cannot be read.
    """
    sizes = {GIVEN: given.size} if given.size else {}
    orders: dict[str, BitOrder] = {GIVEN: given.bit_order} if given.bit_order else {}
    flips = {GIVEN: given.flipud} if given.flipud is not None else {}
    at = find_description(path.parent, FILE_NAME)
    manifest = Manifest.read(at) if at else None
    if manifest is not None:
        sizes[str(at)] = manifest.spike_size(clip_of(path.resolve()))
        orders[str(at)], flips[str(at)] = manifest.bit_order, manifest.flipud
    timing = timing_of(path, manifest)
    place = find_description(path.parent, config_yaml.FILE_NAME)
    config = SpikeConfig.read(place) if place else None
    if config and not (manifest and timing and timing.spike_size):  # config.yaml has one size for all clips
        sizes[str(place)] = config.spike_h, config.spike_w
    return Declared(sizes, orders, flips, manifest, timing)


def refuse_unused(path: Path, kind: Format, given: Given) -> None:
    """Raise UserError if the user declares what files of a format do not have: a flip or a bit order."""
    unused = [f"--bit_order {given.bit_order}"] if given.bit_order else []
    if given.flipud is not None:
        unused.append("--flipud" if given.flipud else "--no-flipud")
    if unused and kind not in BARE:
        raise UserError(
            f"{path}: is {kind}, upright and of one bit order, expected no {' '.join(unused)}; leave the option out"
        )


def clip_of(path: Path) -> str:
    """Return the clip that a file belongs to: its folder, or the one above `spike`."""
    return path.parent.parent.name if path.parent.name == "spike" else path.parent.name


def timing_of(path: Path, manifest: Manifest | None) -> ClipTiming | None:
    """Return the timing of a file's clip, from the manifest or a GoPro clip's name; None if unknown."""
    clip = clip_of(path.resolve())
    if manifest is not None:
        return manifest.clips.get(own_name(clip, manifest.clips))
    try:
        return gopro_timing(clip)
    except UserError:
        return None
