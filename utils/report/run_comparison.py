"""Compare two tests of the same frames: read and pair them, and estimate their difference."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from utils import utils_metric
from utils.utils_error import UserError
from utils.utils_file import read_text
from utils.utils_run_folder import ResultsFolder

LEVEL = 0.95
DRAWS, SEED = 10_000, 0  # of the bootstrap
AT_ONCE = 2**22  # frames drawn at once; bounds the memory
MAKE = "give a folder written by main_test_vrt.py or scripts/evaluate.py --out"

Interval = tuple[float, float]


@dataclass(frozen=True)
class Run:
    """One metric of a test: clip -> frame -> value. Frames without a value are left out, infinite values are not."""

    folder: Path
    protocol: str
    clips: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Pair:
    """One clip in both runs: frame names and values, (n,) float64, possibly infinite."""

    clip: str
    frames: tuple[str, ...]
    a: np.ndarray
    b: np.ndarray

    @property
    def gains(self) -> np.ndarray:
        """B - A per frame, (n,); NaN where one of the two is infinite."""
        finite = np.isfinite(self.a) & np.isfinite(self.b)
        gains: np.ndarray = np.subtract(self.b, self.a, out=np.full(len(self.a), math.nan), where=finite)
        return gains

    @property
    def counted(self) -> np.ndarray:
        """B - A without the NaNs."""
        gains: np.ndarray = self.gains[np.isfinite(self.gains)]
        return gains

    @property
    def means(self) -> tuple[float, float, float]:
        """Means of A, B and B - A over the frames with a finite difference; without any: over all frames, and NaN."""
        finite = np.isfinite(self.gains)
        if not finite.any():
            return utils_metric.mean_of(self.a), utils_metric.mean_of(self.b), math.nan
        return float(self.a[finite].mean()), float(self.b[finite].mean()), float(self.counted.mean())


@dataclass(frozen=True)
class Summary:
    """All clips together: means of clips, and intervals of the difference (None for a single clip)."""

    a: float
    b: float
    gain: float
    student: Interval | None
    bootstrap: Interval | None
    clips: int
    frames: int
    left_out: int
    better_clips: int
    better_frames: int


def lower_is_better(metric: str) -> bool:
    """Whether lower values of a metric, with or without prefix, are better."""
    return utils_metric.lower_is_better(metric.removeprefix("lq_").removeprefix("sdm_"))


def read_run(folder: Path, metric: str) -> Run:
    """Read a column of the metrics.csv of a test; UserError names a file that is missing, damaged or lacks it."""
    if not folder.is_dir():
        raise UserError(f"{folder}: is not a folder, expected the results of a test; {MAKE}")
    results = ResultsFolder(folder)
    path = results.metrics
    try:
        result = json.loads(_text(path))
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({error}); test again, or {MAKE}") from None
    protocol = result.get("protocol") if isinstance(result, dict) else None
    if not isinstance(protocol, str):
        raise UserError(f'{path}: has no text "protocol", so these are not the metrics of a test; {MAKE}')
    equal = result.get("equal_frames")
    infinite = equal.get(metric) if isinstance(equal, dict) else None
    return Run(folder, protocol, _frames(results.frame_metrics, metric, infinite))


def paired(a: Run, b: Run, common: bool) -> list[Pair]:
    """Pair the frames of two runs, in the order of the first; with `common`, only those that both have.

    Raises UserError if the protocols differ, the frames differ without `common`, or no frame is in both.
    """
    if a.protocol != b.protocol:
        raise UserError(
            f"the protocols differ: {a.folder} has '{a.protocol}', {b.folder} has '{b.protocol}'; "
            "measure both the same way, e.g. with scripts/evaluate.py"
        )
    shared = {clip: [name for name in a.clips[clip] if name in b.clips[clip]] for clip in a.clips if clip in b.clips}
    shared = {clip: names for clip, names in shared.items() if names}
    count = f"{_count(shared)} frames of {len(shared)} clips"
    differing = _difference(a, b)
    if differing and not shared:
        raise UserError(f"{differing}; no frame is in both runs: compare tests of the same data set")
    if differing and not common:
        raise UserError(f"{differing}; --common compares the {count} that both have")
    return [
        Pair(clip, tuple(names), *(np.array([run.clips[clip][name] for name in names]) for run in (a, b)))
        for clip, names in shared.items()
    ]


def summarize(pairs: Sequence[Pair], metric: str) -> Summary:
    """Average the clips, with confidence intervals for the mean difference."""
    measured = [pair for pair in pairs if len(pair.counted)]
    if not measured:
        raise UserError(f"{metric} is infinite in one of the runs for every frame; choose another --metric")
    means = np.array([pair.means for pair in measured])
    a, b, gain = means.mean(axis=0)
    sign = -1 if lower_is_better(metric) else 1
    frames = np.concatenate([pair.counted for pair in measured])
    return Summary(
        a=float(a),
        b=float(b),
        gain=float(gain),
        student=student_interval(means[:, 2]),
        bootstrap=bootstrap_interval([pair.counted for pair in measured]),
        clips=len(measured),
        frames=len(frames),
        left_out=sum(len(pair.frames) for pair in pairs) - len(frames),
        better_clips=int((sign * means[:, 2] > 0).sum()),
        better_frames=int((sign * frames > 0).sum()),
    )


def student_interval(gains: np.ndarray) -> Interval | None:
    """Student's t interval for the mean of (n,) differences, one per clip; None for fewer than two."""
    if len(gains) < 2:
        return None
    reach = stats.t.ppf((1 + LEVEL) / 2, len(gains) - 1) * stats.sem(gains)
    return float(gains.mean() - reach), float(gains.mean() + reach)


def bootstrap_interval(clips: Sequence[np.ndarray]) -> Interval | None:
    """Bootstrap percentile interval for the mean of clip means: draws clips with replacement, then frames within each.

    `clips` are the differences of the frames of each, (n,). The draws are the same every time; None for fewer than two
    clips.
    """
    if len(clips) < 2:
        return None
    random = np.random.default_rng(SEED)
    drawn = random.integers(len(clips), size=(DRAWS, len(clips)))
    means = np.empty(drawn.shape)
    for number, gains in enumerate(clips):
        places = drawn == number
        means[places] = _means_of_draws(gains, int(places.sum()), random)
    low, high = np.quantile(means.mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}), expected the metrics of a test; {MAKE}") from None


def _frames(path: Path, metric: str, infinite: int | None) -> dict[str, dict[str, float]]:
    """Read one column of metrics.csv, in which `infinite` values are infinite, if known."""
    reader = csv.DictReader(io.StringIO(_text(path), newline=""))
    names = [name for name in reader.fieldnames or () if name not in ("clip", "frame")]
    if not {"clip", "frame"} <= set(reader.fieldnames or ()):
        raise UserError(f"{path}: has no columns clip and frame, so these are not metrics of frames; {MAKE}")
    if metric not in names:
        found = f"it has {', '.join(names)}" if names else "there were no sharp frames to compare with"
        raise UserError(f"{path}: has no {metric}; {found}: choose another --metric, or test with it in val.metrics")
    clips: dict[str, dict[str, float]] = {}
    blank = []
    for row in reader:
        clip, frame = row["clip"], row["frame"]
        if frame in clips.setdefault(clip, {}):
            raise UserError(f"{path} line {reader.line_num}: clip {clip} frame {frame} is there twice; test again")
        clips[clip][frame] = value = _value(row, metric, f"{path} line {reader.line_num}")
        if math.isinf(value) and ("psnr" not in metric or not any(row[name] for name in names)):
            blank.append((clip, frame))
    # A blank row is a frame without a sharp one, or an equal one for which only PSNR was measured.
    if "psnr" not in metric or infinite != sum(math.isinf(value) for of in clips.values() for value in of.values()):
        for clip, frame in blank:
            del clips[clip][frame]
    clips = {clip: of_clip for clip, of_clip in clips.items() if of_clip}
    if not clips:
        raise UserError(f"{path}: has no frame with a value of {metric}; choose another --metric")
    return clips


def _value(row: Mapping[str, str | None], metric: str, where: str) -> float:
    """The metric in a row of metrics.csv, infinite if its cell is empty; `where` names the row for the message."""
    text = row[metric]
    if text is None or None in row or None in row.values():
        raise UserError(f"{where}: has a different number of columns than the first line; test again")
    try:
        value = float(text) if text else math.inf
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise UserError(f"{where}: {metric} is {text!r}, expected a number or nothing; test again")
    return value


def _count(clips: Mapping[str, Sized]) -> int:
    return sum(map(len, clips.values()))


def _difference(a: Run, b: Run) -> str:
    """Describe the first clip or frame that one of two runs lacks, with the counts; empty if there is none."""
    for has, lacks in ((a, b), (b, a)):
        for clip in has.clips:
            if clip not in lacks.clips:
                counts = f"{len(has.clips)} and {len(lacks.clips)} clips"
                return f"{lacks.folder} lacks clip {clip}, which {has.folder} has ({counts})"
    for has, lacks in ((a, b), (b, a)):
        for clip, frames in has.clips.items():
            for frame in frames:
                if frame not in lacks.clips[clip]:
                    counts = f"{_count(has.clips)} and {_count(lacks.clips)} frames in all"
                    return f"{lacks.folder} lacks clip {clip} frame {frame}, which {has.folder} has ({counts})"
    return ""


def _means_of_draws(gains: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Means of `count` resamples of (n,) values, drawn with replacement."""
    step = max(AT_ONCE // len(gains), 1)
    parts = [
        gains[random.integers(len(gains), size=(min(step, count - first), len(gains)), dtype=np.int32)].mean(axis=1)
        for first in range(0, count, step)
    ]
    return np.concatenate([np.empty(0), *parts])
