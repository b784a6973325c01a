"""The folders and files of a data set on disk: where each thing lies, and a writer that makes a whole set.

ROOT/{train,test}_GT/<clip>/<frame>.png                            sharp
ROOT/{train,test}_GT_blurred/<clip>/<frame>.png                    blurred
ROOT/GOPRO_Large_spike_seq/{train,test}/<clip>/spike/<frame>.dat   spikes
ROOT/GOPRO_Large_spike_seq/{config.yaml,manifest.json}             geometry, physics and timing
ROOT/meta_info/meta_info_{train,test}.txt                          `clip nframes (h,w,c) startframe`
"""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from data.spike.config_yaml import SpikeConfig
from data.spike.manifest import ClipTiming, Manifest
from utils.spike_loader import write_spikes
from utils.utils_error import UserError
from utils.utils_file import read_text, write_text
from utils.utils_image import write_rgb

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")
SPIKES = "GOPRO_Large_spike_seq"
META_INFO = "meta_info"
STAGING = ".partial"
# What a data set's folder may hold; a folder with anything else in it belongs to somebody else.
_FRAMES = {f"{split}_{kind}" for split in SPLITS for kind in ("GT", "GT_blurred")}
TOP_LEVEL = _FRAMES | {f"{name}.lmdb" for name in _FRAMES} | {SPIKES, META_INFO, STAGING}


class Frame(NamedTuple):
    """One frame of a clip in memory.

    blurred, sharp: (H, W, 3) uint8, RGB. spikes: (T, h, w) uint8, 0 or 1, row 0 at the top.
    """

    blurred: np.ndarray
    sharp: np.ndarray
    spikes: np.ndarray


class MetaLine(NamedTuple):
    """One line of a meta_info file; size is (H, W) of the RGB frames, start the name of the first frame."""

    clip: str
    frames: int
    size: tuple[int, int]
    start: str

    def __str__(self) -> str:
        return f"{self.clip} {self.frames} ({self.size[0]},{self.size[1]},3) {self.start}"


def gt_dir(root: Path, split: Split) -> Path:
    """Return the folder of the sharp clips: dataroot_gt."""
    return root / f"{split}_GT"


def lq_dir(root: Path, split: Split) -> Path:
    """Return the folder of the blurred clips: dataroot_lq."""
    return root / f"{split}_GT_blurred"


def spike_dir(root: Path, split: Split) -> Path:
    """Return the folder of the clips' spikes: dataroot_spike."""
    return root / SPIKES / split


def clip_dirs(root: Path, split: Split, clip: str) -> tuple[Path, Path, Path]:
    """Return the folders of one clip: sharp, blurred and the one that holds `spike/`."""
    return gt_dir(root, split) / clip, lq_dir(root, split) / clip, spike_dir(root, split) / clip


def dat_path(root: Path, split: Split, clip: str, frame: str) -> Path:
    """Return the path of one frame's spikes."""
    return spike_dir(root, split) / clip / "spike" / f"{frame}.dat"


def meta_info_path(root: Path, split: Split) -> Path:
    """Return the path of the list of a split's clips."""
    return root / META_INFO / f"meta_info_{split}.txt"


def read_meta_info(root: Path, split: Split) -> dict[str, str]:
    """Return the lines of a split's meta_info file by clip name; empty where there is no such file."""
    path = meta_info_path(root, split)
    if not path.is_file():
        return {}
    lines = [line.strip() for line in read_text(path, "surrogateescape").splitlines()]
    return {line.split()[0]: line for line in lines if line}


def known_clips(root: Path) -> dict[str, Split]:
    """Return the split of every clip that the data set's meta_info files list."""
    return {clip: split for split in SPLITS for clip in read_meta_info(root, split)}


def merged_manifest(root: Path, manifest: Manifest) -> Manifest:
    """Add the clips of the manifest that lies in `root` to a new one; of two same names the new clip stays.

    Raises:
        UserError: geometry or physics of the two differ: one data set has one camera.
    """
    old = Manifest.load(root / SPIKES)
    if old is None:
        return manifest
    for name in type(manifest).model_fields:
        before, now = getattr(old, name), getattr(manifest, name)
        if name != "clips" and before != now:
            raise UserError(
                f"{root / SPIKES / 'manifest.json'}: {name} is {before}, the new clips have {now}; "
                "one data set has one camera, so use the same settings or another folder"
            )
    return manifest.model_copy(update={"clips": {**old.clips, **manifest.clips}})


def write_description(root: Path, manifest: Manifest, lines: dict[Split, list[MetaLine]]) -> None:
    """Write meta_info, config.yaml and manifest.json; clips that earlier calls described stay described.

    Args:
        root: the data set's folder.
        manifest: geometry, physics and the timing of the new clips.
        lines: the new clips of each split.

    Raises:
        UserError: the set in `root` has another geometry or other physics; nothing is written then.
    """
    merged = merged_manifest(root, manifest)
    for split, new in lines.items():
        clips = read_meta_info(root, split) | {line.clip: str(line) for line in new}
        write_text(meta_info_path(root, split), "".join(f"{clips[clip]}\n" for clip in sorted(clips)), names=True)
    SpikeConfig(filename=SPIKES, spike_h=manifest.spike_h, spike_w=manifest.spike_w).save(root / SPIKES)
    merged.save(root / SPIKES)


class DatasetWriter:
    """Writes clips into a data set: they become part of it all together, in `finish`.

    Until then they lie in ROOT/.partial, so an interrupted run leaves the set as it was. Leaving the context
    removes that folder. Several threads may add clips at the same time.
    """

    def __init__(self, root: Path, manifest: Manifest) -> None:
        """Start with nothing staged.

        Args:
            root: the data set's folder; made where missing.
            manifest: geometry and physics of all clips to come; its `clips` are ignored.

        Raises:
            UserError: the set in `root` has another geometry or other physics.
        """
        self.root = root
        self.manifest = manifest.model_copy(update={"clips": {}})
        merged_manifest(root, self.manifest)
        self.taken = known_clips(root)
        self.timings: dict[str, ClipTiming] = {}
        self.lines: dict[Split, list[MetaLine]] = {split: [] for split in SPLITS}
        self.staging = root / STAGING
        shutil.rmtree(self.staging, ignore_errors=True)
        self.staging.mkdir(parents=True)

    def __enter__(self) -> "DatasetWriter":
        return self

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self.staging, ignore_errors=True)

    def check_name(self, split: Split, clip: str) -> None:
        """Refuse a clip name that the other split or this call has; the same split's clip is replaced.

        Raises:
            UserError: the name is taken.
        """
        other = self.taken.get(clip, split)
        if other != split or clip in self.timings:
            where = self.root if other == split else gt_dir(self.root, other)
            raise UserError(f"{where}: clip {clip} is there already, expected a new name for {split}; rename one")

    def add_clip(self, split: Split, clip: str, frames: Iterable[Frame], timing: ClipTiming) -> int:
        """Stage one clip, frame by frame; frames are named 000000, 000001, ...

        Args:
            split: where the clip belongs.
            clip: its name, no blanks.
            frames: RGB (rgb_h, rgb_w, 3) and spikes (T, spike_h, spike_w) as the manifest says.
            timing: of the clip; `steps_of` is filled in here from the frames whose T is not `timing.steps`.

        Returns:
            How many frames were written.

        Raises:
            UserError: the name is taken, or there is no frame at all.
            ValueError: a frame has another size than the manifest says.
        """
        self.check_name(split, clip)
        self.timings[clip] = timing
        manifest = self.manifest
        rgb_shape = (manifest.rgb_h, manifest.rgb_w, 3)
        gt, lq, _ = clip_dirs(self.staging, split, clip)
        steps_of: dict[str, int] = {}
        count = 0
        for count, frame in enumerate(frames, start=1):
            name = f"{count - 1:06d}"
            shapes = frame.blurred.shape, frame.sharp.shape, frame.spikes.shape[1:]
            if shapes != (rgb_shape, rgb_shape, (manifest.spike_h, manifest.spike_w)):
                raise ValueError(f"clip {clip} frame {name} has shapes {shapes}, not those of the manifest")
            write_rgb(gt / f"{name}.png", frame.sharp)
            write_rgb(lq / f"{name}.png", frame.blurred)
            dat = dat_path(self.staging, split, clip, name)
            dat.parent.mkdir(parents=True, exist_ok=True)
            write_spikes(dat, frame.spikes, flipud=manifest.flipud)
            if len(frame.spikes) != timing.steps:
                steps_of[name] = len(frame.spikes)
        if count == 0:
            raise UserError(f"clip {clip}: 0 frames, expected 1 or more; give a longer recording")
        self.timings[clip] = timing.model_copy(update={"steps_of": steps_of})
        self.lines[split].append(MetaLine(clip, count, (manifest.rgb_h, manifest.rgb_w), "000000"))
        return count

    def finish(self) -> None:
        """Move the staged clips into the set, then write what describes them."""
        for split, lines in self.lines.items():
            for line in lines:
                staged = clip_dirs(self.staging, split, line.clip)
                for source, target in zip(staged, clip_dirs(self.root, split, line.clip), strict=True):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.rmtree(target, ignore_errors=True)
                    source.replace(target)
        manifest = self.manifest.model_copy(update={"clips": dict(sorted(self.timings.items()))})
        write_description(self.root, manifest, {split: new for split, new in self.lines.items() if new})
