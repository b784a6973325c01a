"""Test sets of other sensors: the held-out clips of a set, whose spikes are fired anew from their stored light."""

import os
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data.layout import SPIKES, clip_dirs, dat_path, extra_dirs, instant_dir, subframe_dir
from data.spike.manifest import FILE_NAME, ClipTiming, Manifest
from data.spike.refire import LEVELS, Draw, charge_of_light, draw_pixels, fire, margin_of, shifted
from utils.spike_loader import write_spikes
from utils.utils_colour import LIGHT
from utils.utils_error import UserError


@dataclass(frozen=True)
class Condition:
    """How a test set is recorded and restored.

    Attributes:
        draw: the sensor; its `steps_late` is how late the whole stream is.
        is_any_instant: the stored other instants are restored, not the sharp step.
        is_aligned: the set is aligned before it is restored.
    """

    draw: Draw = field(default_factory=Draw)
    is_any_instant: bool = False
    is_aligned: bool = False


def fire_set(source: Path, out: Path, draw: Draw, clips: Sequence[str], frames: int | None = None) -> Path:
    """Write a test set with spikes of another sensor; frames and manifest are those of `source`.

    The manifest still states the threshold of `source`, so the new one is not told.

    Args:
        source: a set with stored light of its test clips, see data/layout.py.
        out: folder of the new set; frames are links.
        draw: the sensor, one camera for all clips.
        clips: test clips.
        frames: frames per clip, from the first one; None: all.
    """
    manifest = Manifest.read(source / SPIKES / FILE_NAME)
    if not subframe_dir(source, "test").is_dir() or not instant_dir(source, "test").is_dir():
        raise UserError(f"{source}: expected stored light and instants of its test clips; make the set with both")
    for clip in clips:
        timing, light = manifest.timing(clip), extra_dirs(source, "test", clip)[0]
        paths = sorted(light.glob("*.npy"))[:frames]
        _link_frames(source, out, clip, [path.stem for path in paths])
        spikes = fired(np.concatenate([np.load(path) for path in paths]), manifest, draw, clip)
        first = 0
        for path in paths:
            steps = timing.num_steps(path.stem)
            dat = dat_path(out, "test", clip, path.stem)
            dat.parent.mkdir(parents=True, exist_ok=True)
            write_spikes(dat, spikes[first : first + steps], flipud=manifest.flipud)
            first += steps
    timings: dict[str, ClipTiming] = {clip: manifest.timing(clip) for clip in clips}
    manifest.model_copy(update={"clips": timings}).save(out / SPIKES)
    return out


def _link_frames(source: Path, out: Path, clip: str, frames: Sequence[str]) -> None:
    """Link the sharp and blurred frames of a clip, and its sharp frames at other instants."""
    folders = [*clip_dirs(source, "test", clip)[:2], extra_dirs(source, "test", clip)[1]]
    targets = [*clip_dirs(out, "test", clip)[:2], extra_dirs(out, "test", clip)[1]]
    for there, here in zip(folders, targets, strict=True):
        here.mkdir(parents=True, exist_ok=True)
        for path in there.iterdir():
            if path.stem.split("_t")[0] in frames and not (here / path.name).exists():
                os.symlink(path.resolve(), here / path.name)


def fired(light: np.ndarray, manifest: Manifest, draw: Draw, clip: str) -> np.ndarray:
    """Fire from the stored light of a whole clip, (T, h, w) uint8; late streams begin with the first step's light."""
    if draw.is_dropped:
        return np.zeros(light.shape, np.uint8)
    late = draw.steps_late
    if late:
        light = np.concatenate((np.repeat(light[:1], late, axis=0), light[: len(light) - late]))
    margin = margin_of(draw.shift)
    light = np.pad(light, ((0, 0), (margin, margin), (margin, margin)), mode="edge")
    intensities = LIGHT if manifest.transfer == "linear" else LEVELS
    theta = draw.theta or manifest.theta or 1 / manifest.rate_at_white
    charges = shifted(np.take(intensities / np.float32(theta), light), draw.shift)
    sensor = draw_pixels(np.random.default_rng(draw.seed), draw, (charges.shape[1], charges.shape[2]))
    noise = np.random.default_rng([draw.seed, zlib.crc32(clip.encode())])
    return fire(charge_of_light(np.ascontiguousarray(charges), sensor), draw.jitter, noise)
