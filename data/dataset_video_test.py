"""Whole clips for validation and testing, read piece by piece."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from data.clip_index import existing_folder, find_clips, raise_first, warn_of_gaps
from data.frame_store import FrameStore, instants_store, store_of
from data.geometry import whole_ratio
from data.instants import instant_name, steps_at
from data.recent import Recent
from data.spike.frame_planes import stacked
from data.spike.source import SpikeSource, planes_in_time
from options.schema import DatasetOpt
from utils.utils_error import UserError
from utils.utils_image import to_float
from utils.utils_rgbspike import RGBSpike, Window, without_spikes
from utils.utils_video import Playback

Dropped = Callable[[torch.Tensor], RGBSpike]
RecentFrames = Recent[tuple[str, str], np.ndarray]


class Shot(NamedTuple):
    """One picture to restore."""

    name: str
    frame: str  # name of the blurred frame
    center: int | None = None  # spike step to show; None: the target step
    sharp: tuple[FrameStore, str] | None = None  # where the sharp frame is, and its name there; None: there is none


class TestClip:
    """One clip; pictures are addressed by half-open index ranges and read on demand.

    `recent` is a cache of blurred frames by clip and frame, shared by all clips. `dropped`, if any, puts planes beside
    the frames of a clip without spikes, for a network that reads them.
    """

    __test__ = False  # not a pytest class

    def __init__(
        self, name: str, shots: Sequence[Shot], lq: FrameStore, spikes: SpikeSource | None, recent: RecentFrames
    ) -> None:
        self.name, self.frames = name, [shot.name for shot in shots]
        self._shots, self._lq, self._spikes, self._recent = list(shots), lq, spikes, recent
        self.dropped: Dropped | None = None
        self.size = lq.size(name, shots[0].frame)
        sharp = next((shot.sharp for shot in shots if shot.sharp), None)
        self.gt_size = sharp[0].size(name, sharp[1]) if sharp else None
        if self.gt_size and not whole_ratio(self.gt_size, self.size):
            raise UserError(
                "clip {}: gt frames are {}x{}, lq frames {}x{}; expected the same whole ratio along both axes; "
                "restore the frames or leave the clip out".format(name, *self.gt_size, *self.size)
            )
        if spikes:
            spikes.ratio(self.size, name)  # checks it

    def at(self, times: Sequence[float], instants: FrameStore | None) -> "TestClip":
        """Return the same clip at ascending fractions of the exposure, all in the order of time.

        `instants` are sharp frames at other instants, see data.instants; those of the target step are known.

        Raises:
            UserError: the clip has no spikes, or two of the times are the same step.
        """
        if self._spikes is None:
            raise UserError(f"val.times: clip {self.name} has no spikes that show other instants; leave it out")
        reader = self._spikes.reader
        target = reader.target_step(self.name)
        steps = steps_at(reader.timings[self.name].exposure, times, "val.times", f"clip {self.name}")
        shots = []
        for shot in self._shots:
            for time, step in zip(times, steps, strict=True):
                name = instant_name(shot.frame, time)
                sharp = (instants, name) if instants is not None and instants.has(self.name, name) else None
                shots.append(shot if step == target else Shot(name, shot.frame, step, sharp))
        return TestClip(self.name, shots, self._lq, self._spikes, self._recent)

    @property
    def playback(self) -> Playback:
        """How the pictures are shown, as far as the recording tells."""
        frames = list(dict.fromkeys(shot.frame for shot in self._shots))
        recorded, count = self._lq.playback(self.name, frames), len(self._shots) // len(frames)
        if count == 1:
            return recorded
        return replace(recorded, rate=recorded.rate and recorded.rate * count, times=None)

    @property
    def has_gt(self) -> bool:
        return self.gt_size is not None

    @property
    def has_spike(self) -> bool:
        return self._spikes is not None

    def lq(self, start: int, stop: int) -> torch.Tensor:
        """Return blurred frames, (t, 3, H, W) float32 in [0, 1]."""
        return to_float(self._blurred(start, stop))

    def gt(self, start: int, stop: int) -> np.ndarray:
        """Return the existing sharp frames of [start, stop), (t, H, W, 3) uint8, RGB; ValueError if there are none."""
        if self.gt_size is None:
            raise ValueError(f"clip {self.name} has no sharp frames")
        places = [shot.sharp for shot in self._shots[start:stop] if shot.sharp]
        found = [self._read(store, self.gt_size, name) for store, name in places]
        return np.concatenate(found) if found else np.zeros((0, *self.gt_size, 3), np.uint8)

    def spike(self, start: int, stop: int) -> torch.Tensor:
        """Return spike planes on the sensor's grid, (t, S, h, w) float32; white is 1. ValueError without spikes."""
        return self._rgbspike(start, stop).tensors(torch.device("cpu"))[1]

    def network_input(self, start: int, stop: int) -> Window:
        """Return the network's input: blurred frames (t, 3, H, W) float32, with spikes as an RGBSpike."""
        if self.has_spike:
            return self._rgbspike(start, stop)
        rgb = to_float(self._blurred(start, stop))
        return rgb if self.dropped is None else self.dropped(rgb)

    @property
    def planes_in_time(self) -> slice:
        """The spike planes that are consecutive in time within a frame."""
        return planes_in_time(self._spikes.represent, self._spikes.channels) if self._spikes else slice(0, 0)

    def references(self, index: int) -> dict[str, np.ndarray]:
        """Return the baselines that are measured too, (H, W, 3) uint8, RGB, by the prefix of their metrics.

        lq_: the blurred frame; sdm_, where the stream has the spikes for it: the training-free estimate, the blurred
        frame times a ratio of spike rates.
        """
        blur, shot = self._blurred(index, index + 1)[0], self._shots[index]
        if self._spikes is None or not self._spikes.can_estimate(self.name, shot.frame, shot.center):
            return {"lq_": blur}
        return {"lq_": blur, "sdm_": self._spikes.estimate(self.name, shot.frame, blur, shot.center)}

    def _rgbspike(self, start: int, stop: int) -> RGBSpike:
        if self._spikes is None:
            raise ValueError(f"clip {self.name} has no spikes")
        self._spikes.hold(stop - start)
        lq = self._blurred(start, stop)
        made = [
            self._spikes.whole_planes(self.name, shot.frame, blur, center=shot.center, estimate=self.has_gt)
            for shot, blur in zip(self._shots[start:stop], lq, strict=True)
        ]
        planes, scale = stacked(made)
        counts = None if scale is None else torch.from_numpy(scale)
        return RGBSpike(to_float(lq), torch.from_numpy(planes), counts, self._spikes.is_linear)

    def _blurred(self, start: int, stop: int) -> np.ndarray:
        """Return blurred frames, (t, H, W, 3) uint8, RGB."""
        self._recent.hold(stop - start)
        names = [shot.frame for shot in self._shots[start:stop]]
        read = partial(self._read, self._lq, self.size)
        return np.concatenate([self._recent.get((self.name, name), partial(read, name)) for name in names])

    def _read(self, store: FrameStore, size: tuple[int, int], frame: str) -> np.ndarray:
        return store.read_many(self.name, (frame,), size, slice(None), slice(None))


class VideoTestDataset:
    """All clips below `opt.dataroot_lq`, or the one clip that this folder is; dataroot_gt may be null.

    Raises:
        UserError: folders, frames or `.dat` files are missing or do not match.
    """

    def __init__(self, opt: DatasetOpt) -> None:
        self.opt = opt
        root = existing_folder(opt.dataroot_lq, f"{opt.name}: dataroot_lq")
        lq = store_of(opt, root, "dataroot_lq")
        clips = find_clips(root, opt.filename_ext, opt.meta_info_file, opt.filename_tmpl)
        if opt.meta_info_file:
            raise_first(lq.problems(clips, exact=False))
        gt = None
        if opt.dataroot_gt is not None:
            gt_root = existing_folder(opt.dataroot_gt, f"{opt.name}: dataroot_gt")
            gt = store_of(opt, gt_root, "dataroot_gt")
            raise_first(gt.problems(clips, exact=not opt.meta_info_file))
        spikes, recent = None, RecentFrames()
        if opt.uses_spikes:

            def blurred(clip: str, frame: str) -> np.ndarray:
                return recent.get((clip, frame), lambda: lq.read(clip, frame)[None])[0]

            spikes = SpikeSource(opt, clips, blurred, lambda clip: lq.size(clip, clips[clip][0]), keep_files=True)
        warn_of_gaps(clips, root)
        for store in filter(None, (lq, gt)):
            store.warn_of_losses(clips)
        self.clips = [
            TestClip(name, [Shot(each, each, None, (gt, each) if gt else None) for each in frames], lq, spikes, recent)
            for name, frames in clips.items()
        ]
        self.spikes, self._frames = spikes, clips
        self.scale = self._find_scale()

    def _find_scale(self) -> int | None:
        """Return gt size / lq size, the same integer for all clips; None without sharp frames."""
        scales = {clip.gt_size[0] // clip.size[0]: clip for clip in self.clips if clip.gt_size}
        if len(scales) > 1:
            found = " and ".join(
                "clip {} gt frames of {}x{} over {}x{}".format(clip.name, *(clip.gt_size or ()), *clip.size)
                for clip in list(scales.values())[:2]
            )
            raise UserError(f"dataroot_gt: {found}; expected the same ratio in all clips; restore or leave out one")
        return next(iter(scales), None)

    def show_instants(self, times: Sequence[float]) -> None:
        """Show every frame at these fractions of its exposure instead.

        Raises:
            UserError: there are no spikes, or they do not reach far enough; or dataroot_instants is not a folder.
        """
        instants = None
        if self.opt.dataroot_instants is not None and self.opt.dataroot_gt is not None:
            root = existing_folder(self.opt.dataroot_instants, f"{self.opt.name}: dataroot_instants")
            instants = instants_store(self.opt, root)
        if self.spikes is not None:
            raise_first(self.spikes.reader.problems(self._frames, times))
        self.clips = [clip.at(times, instants) for clip in self.clips]

    def drop_spikes(self, channels: int, *, is_linear: bool) -> None:
        """Show a network that reads spikes what `without_spikes` makes of the frames, whose set has none."""
        for clip in self.clips:
            clip.dropped = partial(without_spikes, channels=channels, is_linear=is_linear)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> TestClip:
        return self.clips[index]


class SingleVideoTestDataset(VideoTestDataset):
    """Clips to restore without measuring: sharp frames are ignored."""

    def __init__(self, opt: DatasetOpt) -> None:
        super().__init__(opt.model_copy(update={"dataroot_gt": None}))
