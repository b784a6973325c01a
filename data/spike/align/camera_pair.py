"""Align a data set: measure its clips, find out whether they agree on one pair of cameras, write the manifest."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data.clip_index import Clips, existing_folder, find_clips, listed, raise_first
from data.frame_store import FrameStore, store_of
from data.layout import SPIKES, SPLITS, lq_dir, spike_dir
from data.spike.align.fit import Fit, agreement
from data.spike.align.footage import read_footage, with_room
from data.spike.align.measure import Choice, Measured, fit_at, grid_of, measure, simplest
from data.spike.align.model import MODELS, Grid, matrix_of
from data.spike.alignment import IDENTITY, Alignment, Model, Warp
from data.spike.description import find_description
from data.spike.manifest import FILE_NAME, Manifest
from data.spike.reader import SpikeReader
from options.schema import DatasetOpt
from utils.utils_error import UserError, counted
from utils.utils_file import own_name
from utils.utils_progress import progress

FRAMES = 12  # per clip; more say little more
FLOOR = 0.02  # pixels; no clip is trusted to be better than that
TOLERANCE, TOLERANCE_STEPS = 0.25, 1.0  # pixels and steps by which clips of one pair of cameras may differ
CLEARLY = 5.0  # standard errors, likewise
AGREE = 0.05  # pixels by which cameras that agree may seem to differ
MAJORITY = 0.6  # share of clips that must agree for a common alignment


@dataclass(frozen=True)
class Settings:
    """How to align.

    model: geometry; "auto": the simplest that agrees as well.
    most_steps: largest offset in time.
    per_clip: each clip by itself; otherwise one alignment for all clips that agree.
    length: measure the length of the exposure too.
    """

    model: Choice = "auto"
    most_steps: int = 24
    per_clip: bool = False
    length: bool = False


class Row(NamedTuple):
    """One clip of the report.

    alignment: what its manifest entry becomes; None: it is left as it is.
    off: (pixels at the worst corner, steps) from what the manifest said before; None: not measured.
    correlation: of frames and spikes, (before, after); None: not measured.
    outside: share of the frame that the sensor does not see.
    note: what was not measured and why, or where the alignment comes from.
    """

    clip: str
    size: tuple[int, int]
    alignment: Alignment | None
    off: tuple[float, float] | None
    correlation: tuple[float, float] | None
    outside: float
    note: str


class Aligned(NamedTuple):
    """What `align_set` found: the manifest's file, a row per clip, and lines about the set."""

    path: Path
    rows: list[Row]
    lines: list[str]


class _Clip(NamedTuple):
    name: str
    size: tuple[int, int]
    known: Alignment | None
    measured: Measured
    correlation: tuple[float, float] | None


def blocks_in(root: Path) -> list[DatasetOpt]:
    """Return the test options of each split of a data set in our layout; UserError if there is none."""
    if not root.is_dir():
        raise UserError(f"{root}: no such folder, expected a data set; check the path")
    found = [split for split in SPLITS if lq_dir(root, split).is_dir() and spike_dir(root, split).is_dir()]
    if not found:
        raise UserError(
            f"{root}: has no {lq_dir(root, 'train').name}/ beside {SPIKES}/train/ (nor those of test), expected a data "
            "set in the layout of docs/data.md; or name its folders in an option file and give it as --opt"
        )
    kind = {"dataset_type": "VideoRecurrentTestDatasetRGBSpike"}
    roots = [{"dataroot_lq": lq_dir(root, split), "dataroot_spike": spike_dir(root, split)} for split in found]
    return [DatasetOpt.model_validate(kind | {key: str(path) for key, path in each.items()}) for each in roots]


def align_set(blocks: Sequence[DatasetOpt], settings: Settings = Settings(), *, write: bool = True) -> Aligned:
    """Measure all clips of a data set, and write what was found into its manifest.

    Raw spikes and the manifest's own exposures are measured, so a second call finds the same.

    Args:
        blocks: `datasets.train` and `datasets.test`, or what `blocks_in` returns; all with one manifest.
        settings: how.
        write: change the manifest.

    Raises:
        UserError: there is no manifest or more than one, files are missing or do not match, or no clip can be measured.
    """
    path = _manifest_of(blocks)
    clips = [clip for block in blocks for clip in _measured(block, settings)]
    rows, lines = _rows(clips, settings)
    if not any(row.alignment for row in rows):
        raise UserError(f"{path}: no clip could be aligned ({_reasons(rows)}); record a clip with texture and motion")
    if write:
        _write(path, {row.clip: row.alignment for row in rows if row.alignment})
    return Aligned(path, rows, lines)


def open_pair(block: DatasetOpt) -> tuple[Clips, FrameStore, SpikeReader]:
    """Open the blurred frames and the spikes of a data set; UserError if their names or sizes do not match.

    Of the spikes nothing but the exposures is needed, whatever `spike.representation` needs.
    """
    exposed = block.spike.model_copy(update={"representation": "bins"})
    block = block.model_copy(update={"cache_data": False, "spike": exposed})
    root = existing_folder(block.dataroot_lq, f"{block.name}: dataroot_lq")
    clips = find_clips(root, block.filename_ext, block.meta_info_file, block.filename_tmpl)
    lq = store_of(block, root, "dataroot_lq")
    return clips, lq, SpikeReader(block, clips, lambda clip: lq.size(clip, clips[clip][0]))


def _manifest_of(blocks: Sequence[DatasetOpt]) -> Path:
    roots = [existing_folder(block.dataroot_spike, f"{block.name}: dataroot_spike") for block in blocks]
    paths = {root: find_description(root, FILE_NAME) for root in roots}
    for root, path in paths.items():
        if path is None:
            raise UserError(
                f"{root}: no {FILE_NAME} describes these spikes, expected one to write the alignment to; write it as "
                "docs/spikes.md shows"
            )
    if len(set(paths.values())) > 1:
        raise UserError(f"{FILE_NAME}: found {' and '.join(map(str, set(paths.values())))}; align one set at a time")
    return next(path for path in paths.values() if path)


def _measured(block: DatasetOpt, settings: Settings) -> Iterable[_Clip]:
    clips, lq, reader = open_pair(block)
    for clip, names in progress(clips.items(), what="align", unit="clip"):
        raise_first(reader.problems({clip: names}))
        frames = with_room(reader, clip, names, settings.most_steps, FRAMES)
        footage = read_footage(reader, lq, clip, frames, settings.most_steps)
        known = reader.timings[clip].alignment
        kept = fit_at(known, grid_of(footage))
        found = measure(footage, settings.model, time=kept.time, length=settings.length)
        pair = (agreement(footage, kept), found.fit.correlation) if found.fits else None
        yield _Clip(clip, reader.sensor_of(clip).size, known, found, pair)


class _Common(NamedTuple):
    """What the clips of one sensor size agree on."""

    model: Model
    fit: Fit
    steps_error: float | None
    agreeing: set[str]


def _rows(clips: Sequence[_Clip], settings: Settings) -> tuple[list[Row], list[str]]:
    rows, lines = [], []
    for size in dict.fromkeys(clip.size for clip in clips):
        own = [clip for clip in clips if clip.size == size]
        common = None if settings.per_clip else _common([clip for clip in own if clip.measured.fits])
        measured = sum(bool(clip.measured.fits) for clip in own)
        if common and measured > 1:
            apart = [clip.name for clip in own if clip.measured.fits and clip.name not in common.agreeing]
            others = f"; {listed(apart)} differ and keep their own" if apart else ""
            lines.append(f"one alignment for {len(own) - len(apart)} of {counted(len(own), 'clip')}{others}")
        elif measured > 1 and not settings.per_clip:
            lines.append("the clips do not agree on one alignment: each has its own")
        rows += [_row(clip, common) for clip in own]
    return rows, lines


def _row(clip: _Clip, common: _Common | None) -> Row:
    found, note = clip.measured, clip.measured.reason
    if common and (not found.fits or clip.name in common.agreeing):
        model, fit, steps_error = common.model, common.fit, common.steps_error
        if not found.fits:
            note += "; takes what the other clips say"
        elif note and steps_error is not None:
            note = note.replace("the time is left", "takes the time of the other clips")
    elif found.fits:
        model, fit, steps_error = found.model, found.fit, found.steps_error
    else:
        return Row(clip.name, clip.size, None, None, None, 0.0, note)
    made = _alignment(fit, model, steps_error, found.grid)
    kept = fit_at(clip.known, found.grid)
    off = found.grid.apart(kept.params, fit.params) * found.grid.factor, abs(made.steps - kept.time[0])
    outside = Warp(np.array(made.matrix), clip.size).outside
    return Row(clip.name, clip.size, made, off, clip.correlation, outside, note)


def _alignment(fit: Fit, model: Model, steps_error: float | None, grid: Grid) -> Alignment:
    """Round a fit; cameras that agree almost get the identity, which leaves every spike as it is."""
    agree = grid.apart(fit.params, np.zeros_like(fit.params)) * grid.factor < AGREE
    rounded: Any = tuple(tuple(float(f"{value:.9g}") for value in row) for row in matrix_of(fit.params, grid))
    steps, end = (round(float(time)) for time in fit.time)
    return Alignment(
        matrix=IDENTITY if agree else rounded,
        model=model,
        error=round(fit.error(grid) * grid.factor, 4),
        steps=steps,
        steps_error=None if steps_error is None else round(steps_error, 3),
        longer=end - steps,
    )


def _common(clips: Sequence[_Clip]) -> _Common | None:
    """Return what most clips agree on, leaving out the one that differs most until the others agree; None: too few."""
    kept = list(clips)
    while kept and len(kept) >= MAJORITY * len(clips):
        grid = kept[0].measured.grid
        fits = {
            model: _joint([clip.measured.fits[model] for clip in kept], model, grid) for model in kept[0].measured.fits
        }
        timed = [clip for clip in kept if clip.measured.steps_error is not None]
        time, steps_error = _joint_time(timed) if timed else (kept[0].measured.fit.time, None)
        model = simplest(fits, grid)
        found = replace(fits[model], time=time)
        worst, name = max((_differs(clip, found, model), clip.name) for clip in kept)
        if worst <= 1:
            return _Common(model, found, steps_error, {clip.name for clip in kept})
        kept = [clip for clip in kept if clip.name != name]
    return None


def _joint(fits: Sequence[Fit], model: Model, grid: Grid) -> Fit:
    """Return the mean of fits, weighted by how much each knows."""
    basis = MODELS[model]
    inverse = np.linalg.pinv(basis)
    floor = np.eye(basis.shape[1]) * (FLOOR / grid.unit / grid.factor) ** 2
    known = [np.linalg.inv(inverse @ fit.covariance[:8, :8] @ inverse.T + floor) for fit in fits]
    covariance = np.linalg.inv(sum(known))
    where = covariance @ sum(weight @ inverse @ fit.params for weight, fit in zip(known, fits, strict=True))
    full = np.zeros_like(fits[0].covariance)
    full[:8, :8] = basis @ covariance @ basis.T
    return replace(fits[0], params=basis @ where, covariance=full)


def _joint_time(clips: Sequence[_Clip]) -> tuple[np.ndarray, float]:
    errors = [clip.measured.steps_error for clip in clips if clip.measured.steps_error is not None]
    weights = 1 / (np.array(errors) ** 2 + FLOOR**2)
    times = np.stack([clip.measured.fit.time for clip in clips])
    return weights @ times / weights.sum(), float(weights.sum() ** -0.5)


def _differs(clip: _Clip, common: Fit, model: Model) -> float:
    """Return how far a clip is from what is common, as a share of what is allowed."""
    own, grid = clip.measured.fits[model], clip.measured.grid
    away = grid.apart(own.params, common.params) * grid.factor
    share = away / max(TOLERANCE, CLEARLY * own.error(grid) * grid.factor)
    if clip.measured.steps_error is None:
        return share
    late = abs(own.time[0] - common.time[0]) / max(TOLERANCE_STEPS, CLEARLY * clip.measured.steps_error)
    return max(share, float(late))


def _reasons(rows: Sequence[Row]) -> str:
    return "; ".join(dict.fromkeys(f"clip {row.clip}: {row.note}" for row in rows[:2])) + "; ..." * (len(rows) > 2)


def _write(path: Path, alignments: Mapping[str, Alignment]) -> None:
    manifest = Manifest.read(path)  # as it is now: measuring takes a while
    own = {own_name(name, manifest.clips): alignment for name, alignment in alignments.items()}
    clips = {
        name: timing.model_copy(update={"alignment": own[name]}) if name in own else timing
        for name, timing in manifest.clips.items()
    }
    manifest.model_copy(update={"clips": clips}).save(path.parent)
