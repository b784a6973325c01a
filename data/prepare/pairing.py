"""The spikes that belong to the frames of a recording: which file, which way up, and how they count light."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from data.geometry import size_text
from data.image_folders import is_hidden
from data.prepare.video_light import Transfer, gray_light
from data.spike.description import SPIKE_SUFFIXES
from data.spike.doctor.declared import Given
from data.spike.doctor.examine import DEFAULT_FLIPUD, Report
from data.spike.doctor.inspection import inspect_file
from data.spike.doctor.orientation import Match, correlation, match
from data.spike.formats import BARE, RAW416_PICTURE, Format, Found, format_of, open_spikes, step_reader
from data.spike.texture import SIGNIFICANT
from utils.spike_loader import Size
from utils.utils_error import UserError

Reader = Callable[[int, int, int], np.ndarray]  # frame and its steps [first, last) -> (t, H, W) uint8, upright
CLOCK_HZ: dict[Format, float] = {"raw416": 20000.0}  # formats of one camera only
_COARSE = 16  # rows at which brightness is compared, so that small shifts do not matter
_CLEARER = 0.005  # difference of two correlations


@dataclass(frozen=True)
class Streams:
    """The spikes of a recording, as stored but for the flips.

    paths: one file, or one per frame.
    is_one: there is one stream for all frames.
    found: their properties; all files are alike but for their steps.
    flipud, fliplr: rows are stored bottom-up, columns right to left.
    """

    paths: tuple[Path, ...]
    is_one: bool
    found: tuple[Found, ...]
    flipud: bool
    fliplr: bool

    @property
    def size(self) -> Size:
        """(H, W) of the sensor."""
        return self.found[0].height, self.found[0].width

    def totals(self, frames: int) -> list[int]:
        """Return the steps of each frame's stream."""
        steps = [found.steps for found in self.found]
        return steps * frames if self.is_one else steps

    def reader(self) -> Reader:
        """Open the files; arrays of one stream stay in memory."""
        one = step_reader(self.paths[0], self.found[0]) if self.is_one else None

        def read(frame: int, first: int, last: int) -> np.ndarray:
            steps = (one or step_reader(self.paths[frame], self.found[frame]))(first, last)
            return steps[:, :: -1 if self.flipud else 1, :: -1 if self.fliplr else 1]

        return read


class Sample(NamedTuple):
    """A frame and the mean of its spikes over the exposure.

    plane: (h, w) float32, spikes per step. rgb: (r h, r w, 3) uint8.
    """

    plane: np.ndarray
    rgb: np.ndarray


def open_streams(path: Path, frames: Sequence[str], given: Given, format: Format | None) -> tuple[Streams, Report]:
    """Find the spikes of frames, and let the doctor determine what they are.

    Args:
        path: a spike file for all frames, or a folder with it or with one per frame.
        frames: their names.
        given: what the user declares.
        format: None detects it.

    Returns:
        The streams, with the declared flip or that of the format, and the doctor's report on one file.

    Raises:
        UserError: a file is missing, the doctor found something wrong, or it cannot tell size or bit order.
    """
    paths = _files(path, frames)
    is_one = path.is_file() or paths[0].stem not in frames
    report = inspect_file(paths[len(paths) // 2], given, format=format, find_up=False)
    if report.wrong and given.bit_order is None:  # perhaps the bits contradict the default order, which nobody declared
        as_found = given._replace(bit_order=report.bit_order)
        report = inspect_file(paths[len(paths) // 2], as_found, format=format, find_up=False)
    if report.wrong:
        raise UserError(f"{report.file}: {'; '.join(report.wrong)}")
    is_packed = report.format in BARE
    for each in paths if format is None else ():
        if (kind := format_of(each)) != format_of(Path(report.file)):
            raise UserError(
                f"{each}: is {kind}, expected {report.format} as {Path(report.file).name}; give files of one format"
            )
    if is_packed and given.bit_order is None and abs(report.evidence["seam"]) < SIGNIFICANT:
        raise UserError(
            f"{report.file}: the bits do not show their order, expected a textured picture; add --bit_order little, or "
            "big if spike.py preview --bit_order big looks smoother"
        )
    size = None if not is_packed else RAW416_PICTURE if report.format == "raw416" else report.size
    found = [
        open_spikes(each, size=size, flipud=False, bit_order=report.bit_order, format=report.format, steps=(0, 1))[1]
        for each in paths
    ]
    for each, other in zip(paths, found, strict=True):
        if (other.height, other.width) != (found[0].height, found[0].width):
            sizes = [size_text((one.height, one.width)) for one in (other, found[0])]
            raise UserError(f"{each}: has steps of {sizes[0]}, expected {sizes[1]} as in {paths[0].name}; remove it")
    flipud = given.flipud if given.flipud is not None else is_packed and DEFAULT_FLIPUD
    return Streams(paths, is_one, tuple(found), flipud, fliplr=False), report


def _files(path: Path, frames: Sequence[str]) -> tuple[Path, ...]:
    if path.is_file():
        return (path,)
    if not path.is_dir():
        raise UserError(f"--spikes {path}: no such file or folder, expected spikes; check the path")
    files: dict[str, Path] = {}
    for each in sorted(path.iterdir()):
        if each.suffix not in SPIKE_SUFFIXES or is_hidden(each.name):
            continue
        if (other := files.setdefault(each.stem, each)) is not each:
            raise UserError(
                f"--spikes {path}: {other.name} and {each.name} would both be the spikes of frame {each.stem}; move "
                "one away"
            )
    if len(files) == 1 and not files.keys() & set(frames):
        return tuple(files.values())
    missing = [frame for frame in frames if frame not in files]
    if missing:
        names = ", ".join(each.name for each in list(files.values())[:3]) or "none"
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UserError(
            f"--spikes {path}: no spike file for frame {missing[0]}{more}, found {names}; name "
            "them after the frames, or give the file of one stream"
        )
    return tuple(files[frame] for frame in frames)


def upright(streams: Streams, samples: Sequence[Sample], given: Given, fliplr: bool | None) -> tuple[Streams, Match]:
    """Determine the flips of streams by samples read from them; flips that the user declares stay.

    Returns:
        The streams, and how well their mean matched the frames in each orientation.

    Raises:
        UserError: neither the frames nor the user nor the format determine the flip.
    """
    found = Match(*np.mean([match(*sample) for sample in samples], axis=0).tolist())
    turned = {"upside_down": (True, False), "mirrored": (False, True), "turned": (True, True)}
    down, across = turned.get(found.best or "", (False, False))
    if found.best is None and given.flipud is None and streams.found[0].format == "dat":
        raise UserError(
            f"{streams.paths[0]}: the frames do not show which way up the spikes are (correlation {found.as_is:.2f} "
            f"with flipud, {found.upside_down:.2f} without, expected one near 1): check the times and the field of "
            "view, or add --flipud or --no-flipud"
        )
    flipud = streams.flipud ^ (down and given.flipud is None)
    return replace(streams, flipud=flipud, fliplr=across if fliplr is None else fliplr), found


class Light(NamedTuple):
    """How spikes count light: what the sensor integrates, spikes per step at white, and the correlations with both."""

    transfer: Transfer
    rate_at_white: float
    correlations: dict[Transfer, float]


def light(samples: Sequence[Sample], transfer: Transfer | None = None) -> Light:
    """Estimate what the sensor integrates, and its rate at white, from frames that see the same light.

    The rate at white is the mean rate over the mean light of the frames. Linear light is assumed if it fits better than
    sRGB values or neither does.

    Args:
        samples: upright.
        transfer: what the sensor integrates, if known.

    Raises:
        UserError: the frames are black.
    """
    rates = np.concatenate([_coarse(sample.plane).ravel() for sample in samples])
    transfers: tuple[Transfer, ...] = ("srgb", "linear")
    gray = {one: np.concatenate([_coarse(gray_light(each.rgb, one)).ravel() for each in samples]) for one in transfers}
    fits = {one: correlation(rates, gray[one]) for one in transfers}
    chosen: Transfer = transfer or ("srgb" if fits["srgb"] > fits["linear"] + _CLEARER else "linear")
    brightness = float(gray[chosen].mean())
    if brightness <= 0:
        raise UserError("--frames: all frames are black, expected pictures; check the frames and the camera's exposure")
    return Light(chosen, min(1.0, max(1e-4, round(float(rates.mean()) / brightness, 4))), fits)


def _coarse(plane: np.ndarray) -> np.ndarray:
    """Average a plane (H, W) to about 16 rows."""
    height, width = plane.shape
    rows = min(_COARSE, height)
    return cv2.resize(plane, (max(1, round(width * rows / height)), rows), interpolation=cv2.INTER_AREA)
