"""The layout of a data set on disk, and a writer that makes a whole set.

ROOT/{train,test}_GT/<clip>/<frame>.png                            sharp
ROOT/{train,test}_GT_blurred/<clip>/<frame>.png                    blurred
ROOT/GOPRO_Large_spike_seq/{train,test}/<clip>/spike/<frame>.dat   spikes
ROOT/{train,test}_subframes/<clip>/<frame>.npy                     on request: light of each spike step
ROOT/{train,test}_GT_instants/<clip>/<frame>_t0.25.png             on request: sharp, at other instants
ROOT/GOPRO_Large_spike_seq/{config.yaml,manifest.json}             geometry, physics and timing
ROOT/meta_info/meta_info_{train,test}.txt                          `clip nframes (h,w,c) startframe`
"""

import shutil
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from data.instants import instant_name
from data.lmdb_store import record_path
from data.meta_info import MetaLine, read_meta_info
from data.spike.config_yaml import SpikeConfig
from data.spike.manifest import FILE_NAME, ClipTiming, Manifest
from utils.processes import folder_lock
from utils.processes.folder_lock import Lock, acquire
from utils.spike_loader import write_spikes
from utils.utils_error import UserError
from utils.utils_file import disk_errors_in_words, write_text
from utils.utils_image import write_rgb

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")
SPIKES = "GOPRO_Large_spike_seq"
META_INFO = "meta_info"
STAGING = ".partial"
TURN = 600.0  # seconds; moving clips is quick, removing abandoned ones takes longer
# What a data set's folder may hold; a folder with anything else is not ours.
_FRAMES = {f"{split}_{kind}" for split in SPLITS for kind in ("GT", "GT_blurred", "GT_instants", "subframes")}
_LMDBS = {f"{name}.lmdb" for name in _FRAMES}
TOP_LEVEL = _FRAMES | _LMDBS | {record_path(Path(name)).name for name in _LMDBS} | {SPIKES, META_INFO, STAGING}


class Frame(NamedTuple):
    """One frame of a clip in memory.

    blurred, sharp: (H, W, 3) uint8, RGB; sharp is None in all frames of a clip without sharp frames. spikes: (T, h, w)
        uint8, 0 or 1, row 0 at the top.
    light: (T, h, w) uint8, the gray light of each spike step as data.spike.subframes has it; None: not stored.
    instants: sharp frames like `sharp` at other fractions of the exposure.
    """

    blurred: np.ndarray
    sharp: np.ndarray | None
    spikes: np.ndarray
    light: np.ndarray | None = None
    instants: Mapping[float, np.ndarray] = {}


def subframe_dir(root: Path, split: Split) -> Path:
    """Return the folder of stored light, dataroot_subframes."""
    return root / f"{split}_subframes"


def instant_dir(root: Path, split: Split) -> Path:
    """Return the folder of the sharp frames at other instants, dataroot_instants."""
    return root / f"{split}_GT_instants"


def gt_dir(root: Path, split: Split) -> Path:
    """Return the folder of the sharp clips, dataroot_gt."""
    return root / f"{split}_GT"


def lq_dir(root: Path, split: Split) -> Path:
    """Return the folder of the blurred clips, dataroot_lq."""
    return root / f"{split}_GT_blurred"


def spike_dir(root: Path, split: Split) -> Path:
    """Return the folder of the clips' spikes, dataroot_spike."""
    return root / SPIKES / split


def how_to_restore(root: Path, *, has_sharp: bool) -> str:
    """Return a line with the command that restores the test clips of a set."""
    sharp = f" --folder_gt {gt_dir(root, 'test')} --save_result" if has_sharp else ""
    folders = f"--folder_lq {lq_dir(root, 'test')} --folder_spike {spike_dir(root, 'test')}{sharp}"
    return f"restore it: python main_test_vrt.py --task spike_guide {folders}"


def clip_dirs(root: Path, split: Split, clip: str) -> tuple[Path, Path, Path]:
    """Return the folders of one clip: sharp, blurred, and the parent of `spike/`."""
    return gt_dir(root, split) / clip, lq_dir(root, split) / clip, spike_dir(root, split) / clip


def extra_dirs(root: Path, split: Split, clip: str) -> tuple[Path, Path]:
    """Return the folders of what only some sets have of a clip: stored light, sharp frames at other instants."""
    return subframe_dir(root, split) / clip, instant_dir(root, split) / clip


def dat_path(root: Path, split: Split, clip: str, frame: str) -> Path:
    """Return the path of one frame's spikes."""
    return spike_dir(root, split) / clip / "spike" / f"{frame}.dat"


def meta_info_path(root: Path, split: Split) -> Path:
    """Return the path of a split's meta_info file."""
    return root / META_INFO / f"meta_info_{split}.txt"


def described_clips(root: Path, split: Split) -> dict[str, MetaLine]:
    """Return the lines of a split's meta_info file by clip name; empty if there is no such file."""
    path = meta_info_path(root, split)
    return read_meta_info(path) if path.is_file() else {}


def known_clips(root: Path) -> dict[str, Split]:
    """Return the split of every clip listed in the data set's meta_info files."""
    return {clip: split for split in SPLITS for clip in described_clips(root, split)}


def other_clips(root: Path, replaced: Collection[str]) -> Manifest | None:
    """Return the manifest in `root`; None if there is none, or if it has no clips but those that are replaced."""
    path = root / SPIKES / FILE_NAME
    found = Manifest.read(path) if path.is_file() else None
    return found if found and not (found.clips and found.clips.keys() <= set(replaced)) else None


def merged_manifest(root: Path, manifest: Manifest) -> Manifest:
    """Add the clips of the manifest in `root` to a new manifest, whose own clips take precedence.

    Raises:
        UserError: geometry or physics differ: one data set has one camera.
    """
    path = root / SPIKES / FILE_NAME
    old = Manifest.read(path) if path.is_file() else manifest
    for name in type(manifest).model_fields:
        before, now = getattr(old, name), getattr(manifest, name)
        if name != "clips" and before != now:
            raise UserError(
                f"{path}: {name} is {before}, the new clips have {now}; "
                "one data set has one camera, so use the same settings or another folder"
            )
    return manifest.model_copy(update={"clips": dict(sorted({**old.clips, **manifest.clips}.items()))})


def set_locked(root: Path) -> Lock:
    """Lock a set's description and the start of new clips; waits, and UserError if another process takes too long."""
    return _acquire(root, "", wait=TURN)


def claim(root: Path, clip: str) -> Lock:
    """Reserve a clip of a set until the lock is released; UserError if another process has reserved it."""
    return _acquire(root, f"clip {clip}", wait=0.0)


def write_description(root: Path, manifest: Manifest, lines: dict[Split, list[MetaLine]]) -> None:
    """Write meta_info, config.yaml and manifest.json of new clips, keeping those that other calls described.

    Raises:
        UserError: the set in `root` has different geometry or physics; nothing is written.
    """
    with set_locked(root):
        _describe(root, merged_manifest(root, manifest), lines)
    remove_if_empty(root / STAGING)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder if it is empty."""
    with suppress(OSError):
        folder.rmdir()


def _lock_name(part: str) -> str:
    return f".{part}{folder_lock.NAME}" if part else folder_lock.NAME


def _acquire(root: Path, part: str, wait: float) -> Lock:
    what, name = f"{root}: {part}" if part else str(root), _lock_name(part)
    advice = "wait until it ends and give the same command again, or use another folder"
    folder = root / STAGING
    while True:
        with disk_errors_in_words(root, "choose a folder that can be written", kind=UserError):
            folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # another process has finished and removed the folder
            return acquire(folder / name, what, advice, wait=wait)


def _describe(root: Path, merged: Manifest, lines: dict[Split, list[MetaLine]]) -> None:
    for split, new in lines.items():
        clips = described_clips(root, split) | {line.clip: line for line in new}
        if clips:
            write_text(meta_info_path(root, split), "".join(f"{clips[clip]}\n" for clip in sorted(clips)), names=True)
    SpikeConfig(filename=SPIKES, spike_h=merged.spike_h, spike_w=merged.spike_w).save(root / SPIKES)
    merged.save(root / SPIKES)


def _write_extras(folders: tuple[Path, Path], name: str, frame: Frame) -> None:
    light, instants = folders
    if frame.light is not None:
        light.mkdir(parents=True, exist_ok=True)
        np.save(light / f"{name}.npy", frame.light)
    for time, sharp in frame.instants.items():
        write_rgb(instants / f"{instant_name(name, time)}.png", sharp)


class DatasetWriter:
    """Writes clips into a data set; all of them become part of it together, in `finish`.

    Until then they are staged in ROOT/.partial/<clip>, so an interrupted run leaves the set unchanged. Leaving the
    context removes them. Several threads and processes may add clips at the same time: a clip is reserved from `claim`,
    or the beginning of `add_clip`, to the end.

    The manifest has the geometry and physics of all clips to come; its own `clips` are ignored. If the set has no clips
    but those that will be `replaced`, its geometry and physics may change.

    Raises:
        UserError: the set in `root` has different geometry or physics.
    """

    def __init__(self, root: Path, manifest: Manifest, replaced: Collection[str] = ()) -> None:
        self.root = root
        self.manifest = manifest.model_copy(update={"clips": {}})
        if other_clips(root, replaced) is not None:
            merged_manifest(root, self.manifest)
        self.timings: dict[str, ClipTiming] = {}
        self.unsharp: set[str] = set()  # clips without sharp frames
        self.lines: dict[Split, list[MetaLine]] = {split: [] for split in SPLITS}
        self.locks: dict[str, Lock] = {}

    def __enter__(self) -> "DatasetWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self._leave()

    def staging(self, clip: str) -> Path:
        """Return the folder in which a clip is staged, in the layout of a set."""
        return self.root / STAGING / clip

    def claim(self, split: Split, clips: Iterable[str]) -> None:
        """Reserve clips for this writer, and remove what killed writers left staged.

        An existing clip of the same name and split is replaced.

        Raises:
            UserError: the other split has a clip of that name, or another process has reserved one.
        """
        with set_locked(self.root):
            taken = known_clips(self.root)
            for clip in clips:
                other = taken.get(clip, split)
                if other != split or clip in self.locks:
                    where = self.root if other == split else gt_dir(self.root, other)
                    raise UserError(f"{where}: clip {clip} already exists, expected a new name for {split}; rename one")
                self.locks[clip] = claim(self.root, clip)
                shutil.rmtree(self.staging(clip), ignore_errors=True)
            self._sweep()

    def _sweep(self) -> None:
        """Remove staged clips that nobody has reserved; call with the set locked.

        Does not wait to see whether writers on other machines are alive: they have many clips.
        """
        for folder in self.root.joinpath(STAGING).glob("[!.]*"):
            lock = folder.with_name(_lock_name(f"clip {folder.name}"))
            with suppress(UserError):
                if folder.name not in self.locks and not folder_lock.is_held(lock):
                    with claim(self.root, folder.name):
                        shutil.rmtree(folder)

    def _leave(self) -> None:
        for clip, lock in self.locks.items():
            shutil.rmtree(self.staging(clip), ignore_errors=True)
            lock.release()
        self.locks.clear()
        remove_if_empty(self.root / STAGING)

    def add_clip(self, split: Split, clip: str, frames: Iterable[Frame], timing: ClipTiming) -> int:
        """Stage one clip, frame by frame, and return their number; frames are named 000000, 000001, ...

        Frames are of the manifest's sizes. `steps_of` of the timing is set from those whose T is not `timing.steps`.

        Raises:
            UserError: the name is taken, or there are no frames.
            ValueError: a frame's size differs from the manifest's.
        """
        if clip not in self.locks or clip in self.timings:
            self.claim(split, [clip])
        self.timings[clip] = timing
        manifest = self.manifest
        rgb_shape = (manifest.rgb_h, manifest.rgb_w, 3)
        staging = self.staging(clip)
        gt, lq, _ = clip_dirs(staging, split, clip)
        steps_of: dict[str, int] = {}
        count = 0
        for count, frame in enumerate(frames, start=1):
            name = f"{count - 1:06d}"
            sharp = frame.blurred if frame.sharp is None else frame.sharp
            shapes = frame.blurred.shape, sharp.shape, frame.spikes.shape[1:]
            if shapes != (rgb_shape, rgb_shape, (manifest.spike_h, manifest.spike_w)):
                raise ValueError(f"clip {clip} frame {name} has shapes {shapes}, not those of the manifest")
            if frame.light is not None and frame.light.shape != frame.spikes.shape:
                raise ValueError(f"clip {clip} frame {name} has light of {frame.light.shape}, not of {shapes[2]}")
            if frame.sharp is None:
                self.unsharp.add(clip)
            else:
                write_rgb(gt / f"{name}.png", frame.sharp)
            write_rgb(lq / f"{name}.png", frame.blurred)
            dat = dat_path(staging, split, clip, name)
            dat.parent.mkdir(parents=True, exist_ok=True)
            write_spikes(dat, frame.spikes, flipud=manifest.flipud)
            _write_extras(extra_dirs(staging, split, clip), name, frame)
            if len(frame.spikes) != timing.steps:
                steps_of[name] = len(frame.spikes)
        if count == 0:
            raise UserError(f"clip {clip}: 0 frames, expected 1 or more; give a longer recording")
        self.timings[clip] = timing.model_copy(update={"steps_of": steps_of})
        self.lines[split].append(MetaLine(clip, count, f"{manifest.rgb_h},{manifest.rgb_w},3", "000000"))
        return count

    def finish(self) -> None:
        """Count the staged files, move them into the set, then write its description.

        Raises:
            UserError: the set's geometry or physics have changed meanwhile.
            RuntimeError: staged files are missing; nothing is moved.
        """
        manifest = self.manifest.model_copy(update={"clips": dict(sorted(self.timings.items()))})
        added = [(split, line) for split, lines in self.lines.items() for line in lines]
        for split, line in added:
            self._count(split, line)
        with set_locked(self.root):
            stay = other_clips(self.root, manifest.clips) is not None  # else it may be another camera
            merged = merged_manifest(self.root, manifest) if stay else manifest
            for split, line in added:
                staged, own = (
                    clip_dirs(root, split, line.clip) + extra_dirs(root, split, line.clip)
                    for root in (self.staging(line.clip), self.root)
                )
                for source, target in zip(staged, own, strict=True):
                    shutil.rmtree(target, ignore_errors=True)
                    remove_if_empty(target.parent)
                    if source.exists():
                        target.parent.mkdir(parents=True, exist_ok=True)
                        source.replace(target)
            _describe(self.root, merged, {split: new for split, new in self.lines.items() if new})
        self._leave()

    def _count(self, split: Split, line: MetaLine) -> None:
        """Compare the number of staged files of a clip with the number written."""
        gt, lq, spikes = clip_dirs(self.staging(line.clip), split, line.clip)
        sharp = [] if line.clip in self.unsharp else [(gt, "*.png")]
        for folder, pattern in [(lq, "*.png"), (spikes / "spike", "*.dat"), *sharp]:
            if (found := len(list(folder.glob(pattern)))) != line.frames:
                raise RuntimeError(
                    f"{folder}: {found} files, {line.frames} were written: another program removes files there; the "
                    "set is unchanged"
                )
