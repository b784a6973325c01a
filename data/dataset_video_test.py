"""Whole clips for validation and testing, read piece by piece."""

from functools import partial

import numpy as np
import torch

from data.clip_index import existing_folder, find_clips, raise_first, warn_of_gaps
from data.frame_store import FrameStore, store_of
from data.geometry import whole_ratio
from data.recent import Recent
from data.spike.source import SpikeSource
from options.schema import DatasetOpt
from utils.utils_error import UserError
from utils.utils_image import to_float
from utils.utils_video import Playback

RGB = 3

RecentFrames = Recent[tuple[str, str], np.ndarray]


class TestClip:
    """One clip; frames are addressed by half-open index ranges and read on demand.

    Args:
        name: name of the clip.
        frames: names of its frames, in order.
        lq: blurred frames.
        gt: sharp frames, or None.
        spikes: spikes, or None.
        recent: cache of blurred frames by clip and frame, shared by all clips.
    """

    __test__ = False  # not a pytest class

    def __init__(
        self,
        name: str,
        frames: tuple[str, ...],
        lq: FrameStore,
        gt: FrameStore | None,
        spikes: SpikeSource | None,
        recent: RecentFrames,
    ) -> None:
        self.name, self.frames = name, list(frames)
        self._lq, self._gt, self._spikes, self._recent = lq, gt, spikes, recent
        self.size = lq.size(name, frames[0])
        self.gt_size = gt.size(name, frames[0]) if gt else None
        if self.gt_size and not whole_ratio(self.gt_size, self.size):
            raise UserError(
                "clip {}: gt frames are {}x{}, lq frames {}x{}; expected the same whole ratio along both axes".format(
                    name, *self.gt_size, *self.size
                )
            )
        self._ratio = spikes.ratio(self.size, name) if spikes else 1

    @property
    def playback(self) -> Playback:
        """How the frames are shown, as far as the recording tells."""
        return self._lq.playback(self.name, self.frames)

    @property
    def has_gt(self) -> bool:
        """Whether the clip has sharp frames."""
        return self._gt is not None

    @property
    def has_spike(self) -> bool:
        """Whether the clip has spikes."""
        return self._spikes is not None

    def lq(self, start: int, stop: int) -> torch.Tensor:
        """Return blurred frames, (t, 3, H, W) float32 in [0, 1]."""
        return to_float(self._blurred(start, stop))

    def gt(self, start: int, stop: int) -> np.ndarray:
        """Return sharp frames, (t, H, W, 3) uint8, RGB.

        Raises:
            ValueError: the clip has no sharp frames.
        """
        if self._gt is None or self.gt_size is None:
            raise ValueError(f"clip {self.name} has no sharp frames")
        return self._read(self._gt, tuple(self.frames[start:stop]), self.gt_size)

    def spike(self, start: int, stop: int) -> torch.Tensor:
        """Return spike planes on the RGB grid, (t, S, H, W) float32; white is 1.

        Raises:
            ValueError: the clip has no spikes.
        """
        return self._planes(start, stop, self._blurred(start, stop))

    def network_input(self, start: int, stop: int) -> torch.Tensor:
        """Return the network's input, (t, 3 + S, H, W) float32: blurred frames, then spike planes if any."""
        lq = self._blurred(start, stop)
        return torch.cat([to_float(lq), self._planes(start, stop, lq)], dim=1) if self.has_spike else to_float(lq)

    @property
    def planes_in_time(self) -> slice:
        """The channels of the network's input that are consecutive in time within a frame."""
        return slice(RGB, RGB + self._spikes.channels) if self._spikes and self._spikes.in_time else slice(0, 0)

    def references(self, index: int) -> dict[str, np.ndarray]:
        """Return the baselines that are measured too, (H, W, 3) uint8, RGB, by the prefix of their metrics.

        lq_: the blurred frame; sdm_, with spikes: the training-free estimate, the blurred frame times a ratio of spike
        rates.
        """
        blur = self._blurred(index, index + 1)[0]
        if self._spikes is None:
            return {"lq_": blur}
        return {"lq_": blur, "sdm_": self._spikes.estimate(self.name, self.frames[index], blur)}

    def _planes(self, start: int, stop: int, lq: np.ndarray) -> torch.Tensor:
        if self._spikes is None:
            raise ValueError(f"clip {self.name} has no spikes")
        self._spikes.hold(stop - start)
        frames = zip(self.frames[start:stop], lq, strict=True)
        planes = [
            self._spikes.whole_planes(self.name, name, self._ratio, blur, estimate=self.has_gt) for name, blur in frames
        ]
        return torch.from_numpy(np.stack(planes))

    def _blurred(self, start: int, stop: int) -> np.ndarray:
        """Return blurred frames, (t, H, W, 3) uint8, RGB."""
        self._recent.hold(stop - start)
        reads = {name: partial(self._read, self._lq, (name,), self.size) for name in self.frames[start:stop]}
        return np.concatenate([self._recent.get((self.name, name), read) for name, read in reads.items()])

    def _read(self, store: FrameStore, names: tuple[str, ...], size: tuple[int, int]) -> np.ndarray:
        return store.read_many(self.name, names, size, slice(None), slice(None))


class VideoTestDataset:
    """All clips below `opt.dataroot_lq`, or the one clip that this folder is.

    Args:
        opt: options of the test set; dataroot_gt may be null.

    Raises:
        UserError: folders, frames or `.dat` files are missing or do not match.
    """

    def __init__(self, opt: DatasetOpt) -> None:
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
        spikes = None
        if opt.uses_spikes:
            spikes = SpikeSource(opt, clips, lambda clip: lq.size(clip, clips[clip][0]), keep_files=True)
        warn_of_gaps(clips, root)
        for store in filter(None, (lq, gt)):
            store.warn_of_losses(clips)
        recent = RecentFrames()
        self.clips = [TestClip(name, frames, lq, gt, spikes, recent) for name, frames in clips.items()]

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

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> TestClip:
        return self.clips[index]


class SingleVideoTestDataset(VideoTestDataset):
    """Clips to restore without measuring: sharp frames are ignored."""

    def __init__(self, opt: DatasetOpt) -> None:
        super().__init__(opt.model_copy(update={"dataroot_gt": None}))
