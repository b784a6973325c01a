"""Warn where frames and spikes of a data set disagree, from a few frames."""

import logging
from collections.abc import Sequence
from pathlib import Path

from data.clip_index import Clips
from data.frame_store import FrameStore
from data.layout import SPIKES
from data.spike.align.camera_pair import open_pair
from data.spike.align.footage import read_footage, with_room
from data.spike.align.measure import fit_at, grid_of, measure
from data.spike.reader import SpikeReader
from options.schema import DatasetOpt
from utils.utils_error import counted

LOG = logging.getLogger("spikevrt")
PIXELS, STEPS = 0.5, 4.0  # spike pixels at the worst corner and steps that are worth a warning
SURELY = 2.0  # standard errors beyond that
SEARCHED = 12  # steps
COMPARED = 3  # frames of a clip
MOST_CLIPS = 40  # that a check of the whole set compares
TRIED = 2  # clips at the start of a test, of which one is enough


def warn_at_start(block: DatasetOpt) -> None:
    """Warn in one line if a clip's frames and spikes disagree; reads a few frames of the first clip that shows it."""
    clips, lq, reader = open_pair(block)
    names = list(clips)
    for name in list(dict.fromkeys((names[len(names) // 2], names[0])))[:TRIED]:
        found = disagreement(reader, lq, name, clips[name])
        if found is not None:
            if found:
                LOG.warning("%s; %s", found, _advice(block))
            return


def warn_of_clips(block: DatasetOpt, clips: Clips, lq: FrameStore, reader: SpikeReader) -> None:
    """Warn in one line of the clips whose frames and spikes disagree; reads a few frames of some clips."""
    names = list(clips)[:: -(-len(clips) // MOST_CLIPS)]
    found = [line for name in names if (line := disagreement(reader, lq, name, clips[name]))]
    if found:
        more = f" (and {counted(len(found) - 1, 'more clip')})" if len(found) > 1 else ""
        LOG.warning("%s%s; %s", found[0], more, _advice(block))


def disagreement(reader: SpikeReader, lq: FrameStore, clip: str, frames: Sequence[str]) -> str | None:
    """Say by how much a clip's frames and spikes disagree; empty if they agree, None if it does not show."""
    if len(frames) < COMPARED:
        return None
    some = with_room(reader, clip, frames, SEARCHED, COMPARED)
    footage = read_footage(reader, lq, clip, some, SEARCHED)
    grid, known = grid_of(footage), reader.timings[clip].alignment
    begin = fit_at(known, grid)
    found = measure(footage, "similarity", begin=begin)
    if not found.fits:
        return None
    pixels = grid.apart(begin.params, found.fit.params) * grid.factor
    steps = 0.0 if found.steps_error is None else abs(float(found.fit.time[0] - begin.time[0]))
    is_apart = pixels > PIXELS + SURELY * found.fit.error(grid) * grid.factor
    if not is_apart and steps <= STEPS + SURELY * (found.steps_error or 0):
        return ""
    return f"clip {clip}: frames and spikes disagree by {pixels:.1f} spike pixels and {steps:.0f} spike steps"


def _advice(block: DatasetOpt) -> str:
    root = Path(str(block.dataroot_lq)).parent
    place = str(root) if (root / SPIKES).is_dir() else "--opt CONFIG"
    return f"measure and correct it with: python scripts/spike.py align {place}"
