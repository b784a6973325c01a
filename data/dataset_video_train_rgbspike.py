"""Training samples: T blurred RGB frames, their spikes and sharp targets, cropped and flipped alike."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.augment import draw_box, draw_flips
from data.clip_index import Clips, count_windows, existing_folder, find_clips, raise_first, short_clips, warn_of_gaps
from data.frame_store import FrameStore, instants_store, store_of
from data.geometry import Box, whole_ratio
from data.instants import at_instant, instants_of
from data.spike.frame_planes import stacked
from data.spike.refire import Refired, draw_sensor
from data.spike.source import SpikeSource
from data.spike.subframes import SubFrames
from options.schema import DatasetOpt
from utils.utils_error import UserError
from utils.utils_image import to_float


class VideoTrainDatasetRGBSpike:
    """One sample per window of `num_frame` frames of all clips; spikes are optional.

    The index lists the windows of the smallest interval. Within a clip, all windows of an interval are equally likely.

    Raises:
        UserError: folders, frames or `.dat` files are missing or do not match.
    """

    def __init__(self, opt: DatasetOpt) -> None:
        self.opt = opt
        self.shuffle = opt.dataloader_shuffle
        folders = [existing_folder(getattr(opt, key), f"{opt.name}: {key}") for key in ("dataroot_lq", "dataroot_gt")]
        self.lq, self.gt = store_of(opt, folders[0], "dataroot_lq"), store_of(opt, folders[1], "dataroot_gt")
        self.clips = self._find_clips(folders[0])
        self.spikes = None
        if opt.uses_spikes:
            is_moved = bool(opt.augment.aligned)
            self.spikes = SpikeSource(opt, self.clips, self.lq.read, self._size, is_moved=is_moved)
        self.refired = self._find_light() if self.spikes and opt.augment.refires else None
        self.instants = self._find_instants() if opt.augment.instant else {}
        self.sizes = {clip: self._size(clip) for clip in self.clips}
        self.ratios = {clip: self.spikes.ratio(self.sizes[clip], clip) if self.spikes else 1 for clip in self.clips}
        self.scale = self._find_scale()
        self._check_crop()
        self.index = [
            (clip, start)
            for clip, frames in self.clips.items()
            for start in range(count_windows(len(frames), opt.num_frame, min(opt.interval_list)))
        ]

    def __len__(self) -> int:
        return len(self.index)

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """Read the sample of a window; `rng` draws interval (and a window that it fits), crop, flips and reversal.

        Returns:
            lq (T, 3, h, w), gt (T, 3, h * scale, w * scale): float32, RGB in [0, 1];
            spike (T, S, h / r, w / r): on the sensor's grid, float32, white is 1, noise may exceed it; or counts
            and spike_scale (T, S), the intensity that a count means; is_linear, where intensities are linear light;
            key: `<clip>/<first frame>`.

        Raises:
            UserError: a file is missing, empty or truncated; names clip and frame.
        """
        opt = self.opt
        clip, frames = self._frames(index, rng)
        ratio, side = self.ratios[clip], opt.gt_size // self.scale
        box = draw_box(rng, self.sizes[clip], side, step=ratio)
        flips = draw_flips(rng, use_hflip=opt.use_hflip, use_rot=opt.use_rot, random_reverse=opt.random_reverse)
        if flips.reverse:
            frames = frames[::-1]

        time = self._draw_instant(clip, rng)
        sensor = draw_sensor(rng, opt.augment) if self.refired else None
        lq = self._read(self.lq, clip, frames, box, scale=1)
        sharp, targets = (self.gt, frames) if time is None else (self.instant_frames, at_instant(frames, time))
        gt = self._read(sharp, clip, targets, box.scaled(self.scale), scale=self.scale)
        sample = {"lq": to_float(lq), "gt": to_float(gt)}
        if self.spikes:
            part = Box(box.top // ratio, box.left // ratio, side // ratio, side // ratio)
            center = None if time is None else self.spikes.reader.step_at(clip, time)
            made = [
                self.refired.planes(clip, frame, part, sensor, center=center, reverse=flips.reverse)
                if self.refired and sensor
                else self.spikes.planes(clip, frame, part, ratio, blur, center=center, reverse=flips.reverse)
                for frame, blur in zip(frames, lq, strict=True)
            ]
            planes, scale = stacked(made)
            sample["spike"] = torch.from_numpy(planes)
        sample = {name: flips.apply(value) for name, value in sample.items()}
        if self.spikes and scale is not None:
            sample["spike_scale"] = torch.from_numpy(scale)
        if self.spikes and self.spikes.is_linear:
            sample["is_linear"] = torch.tensor(True)
        return sample | {"key": f"{clip}/{frames[0]}"}

    def _draw_instant(self, clip: str, rng: np.random.Generator) -> float | None:
        """Draw the fraction of the exposure that a sample's target shows; None: the sharp step."""
        if not self.instants or rng.random() >= self.opt.augment.instant:
            return None
        return float(rng.choice(self.instants[clip]))

    def _find_light(self) -> Refired:
        """Open the stored light, if any."""
        opt, light = self.opt, None
        assert self.spikes is not None
        if opt.dataroot_subframes is not None:
            root = existing_folder(opt.dataroot_subframes, f"{opt.name}: dataroot_subframes")
            light = SubFrames(root, self.spikes.reader.shape)
            raise_first(light.problems(self.clips))
        return Refired(self.spikes, light, opt.augment.theta)

    def _find_instants(self) -> dict[str, list[float]]:
        """Open the sharp frames at other instants; returns the fractions that all frames of each clip have."""
        opt = self.opt
        assert self.spikes is not None
        root = existing_folder(opt.dataroot_instants, f"{opt.name}: dataroot_instants")
        self.instant_frames = instants_store(opt, root)
        names = self.instant_frames.names
        found = {clip: instants_of(names(clip), frames) for clip, frames in self.clips.items()}
        raise_first(
            [
                f"clip {clip}: {root} has no instant of all {len(self.clips[clip])} frames, expected names such as "
                f"{self.clips[clip][0]}_t0.25; make the data set with instants or set augment.instant to 0"
                for clip, times in found.items()
                if not times
            ]
        )
        times = sorted({time for times in found.values() for time in times})
        raise_first(self.spikes.reader.problems(self.clips, times))
        return found

    def name(self, index: int, rng: np.random.Generator) -> str:
        """Return the clip and frames that `sample` reads for the same arguments, for messages."""
        clip, frames = self._frames(index, rng)
        return f"clip {clip} frames {' '.join(frames)}"

    def _frames(self, index: int, rng: np.random.Generator) -> tuple[str, tuple[str, ...]]:
        """Draw the interval; return clip and frames of a sample in time order."""
        clip, start = self.index[index]
        names = self.clips[clip]
        interval = int(rng.choice(self.opt.interval_list))
        windows = count_windows(len(names), self.opt.num_frame, interval)
        if start >= windows:
            start = int(rng.integers(windows))
        return clip, names[start : start + self.opt.num_frame * interval : interval]

    def _size(self, clip: str) -> tuple[int, int]:
        """Return (H, W) of a clip's blurred frames."""
        return self.lq.size(clip, self.clips[clip][0])

    def _read(self, store: FrameStore, clip: str, frames: tuple[str, ...], box: Box, scale: int) -> np.ndarray:
        height, width = self.sizes[clip]
        return store.read_many(clip, frames, (height * scale, width * scale), box.rows, box.cols)

    def _find_clips(self, lq_root: Path) -> Clips:
        opt = self.opt
        clips = find_clips(lq_root, opt.filename_ext, opt.meta_info_file, opt.filename_tmpl)
        exact = not opt.meta_info_file
        problems = self.lq.problems(clips, exact=exact) + self.gt.problems(clips, exact=exact)
        raise_first(problems + short_clips(clips, opt.num_frame, max(opt.interval_list)))
        warn_of_gaps(clips, lq_root)
        for store in (self.lq, self.gt):
            store.warn_of_losses(clips)
        return clips

    def _find_scale(self) -> int:
        """Return gt size / lq size, the same integer for all clips."""
        scales = set()
        for clip, size in self.sizes.items():
            gt_size = self.gt.size(clip, self.clips[clip][0])
            scales.add(whole_ratio(gt_size, size))
            if 0 in scales or len(scales) > 1:
                raise UserError(
                    "clip {}: gt frames are {}x{}, lq frames {}x{}; expected the same whole ratio along both axes "
                    "and in all clips; restore the frames or leave the clip out".format(clip, *gt_size, *size)
                )
        return scales.pop()

    def _check_crop(self) -> None:
        size = self.opt.gt_size
        for clip, (height, width) in self.sizes.items():
            grid = self.scale * self.ratios[clip]
            if size % grid or size > min(height, width) * self.scale:
                multiple = f"a multiple of {grid} " if grid > 1 else ""
                raise UserError(
                    f"gt_size: {size} does not fit clip {clip}, expected {multiple}up to "
                    f"{min(height, width) * self.scale} pixels; correct it"
                )
