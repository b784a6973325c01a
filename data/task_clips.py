"""Test clips for denoising (noise is added) and frame interpolation (the frames in between)."""

import re
import zlib
from dataclasses import replace

import numpy as np
import torch

from data.check import open_dataset, open_test_set
from data.clip_index import existing_folder, raise_first
from data.dataset_video_test import TestClip, VideoTestDataset
from data.frame_store import FrameStore, store_of
from options.schema import DatasetOpt, Opt
from utils.evaluation.clip import TestSet
from utils.utils_error import UserError
from utils.utils_image import to_uint8
from utils.utils_rgbspike import Window

NUMBERED = re.compile(r"(.*?)(\d+)")


class _TaskClip:
    """What these clips share: they show no spikes, and their `lq` is the only baseline."""

    name: str
    has_spike = False

    def lq(self, start: int, stop: int) -> torch.Tensor:
        raise NotImplementedError

    def spike(self, start: int, stop: int) -> torch.Tensor:
        raise ValueError(f"clip {self.name} shows no spikes in this task")

    def references(self, index: int) -> dict[str, np.ndarray]:
        """Return the clipped `lq` as "lq_", (H, W, 3) uint8, RGB."""
        return {"lq_": to_uint8(self.lq(index, index + 1)[0])}


class NoisyClip(_TaskClip):
    """A clip of clean frames with added Gaussian noise (`sigma`: white is 255), and the network's noise map.

    A frame's noise depends only on the names of clip and frame, not on tiles, order or processes.
    """

    def __init__(self, clip: TestClip, sigma: float) -> None:
        self._clip, self._sigma = clip, sigma / 255
        self.name, self.frames, self.size, self.has_gt = clip.name, clip.frames, clip.size, clip.has_gt
        self.planes_in_time, self.playback = clip.planes_in_time, clip.playback

    def lq(self, start: int, stop: int) -> torch.Tensor:
        """Return noisy frames, (t, 3, H, W) float32, not clipped."""
        return self._clip.lq(start, stop) + self._noise(start, stop)

    def gt(self, start: int, stop: int) -> np.ndarray:
        """Return clean frames, (t, H, W, 3) uint8, RGB."""
        return self._clip.gt(start, stop)

    def network_input(self, start: int, stop: int) -> Window:
        """Return the network's input: noisy frames and noise map (t, 4, H, W) float32, with spikes if any."""
        window = self._clip.network_input(start, stop)
        rgb = window if isinstance(window, torch.Tensor) else window.rgb
        noise_map = rgb.new_full((len(rgb), 1, *self.size), self._sigma)
        noisy = torch.cat((rgb + self._noise(start, stop), noise_map), dim=1)
        return noisy if isinstance(window, torch.Tensor) else replace(window, rgb=noisy)

    def _noise(self, start: int, stop: int) -> torch.Tensor:
        frames = []
        for frame in self.frames[start:stop]:
            seed = zlib.crc32(f"{self.name}/{frame}".encode())
            frames.append(torch.randn(3, *self.size, generator=torch.Generator().manual_seed(seed)))
        return torch.stack(frames) * self._sigma


class MiddleClip(_TaskClip):
    """The frames to interpolate, each in the middle of `window` consecutive frames of a clip.

    Raises:
        UserError: the clip has fewer frames than `window`, or sharp frames to measure against of another size.
    """

    def __init__(self, clip: TestClip, window: int, sharp: FrameStore | None) -> None:
        count = len(clip.frames)
        if count < window:
            raise UserError(f"clip {clip.name}: has {count} frames, frame interpolation needs {window} or more")
        self._clip, self._window, self._sharp = clip, window, sharp
        self.name, self.size = clip.name, clip.size
        self.planes_in_time = clip.planes_in_time
        before = clip.frames[window // 2 - 1 :]
        self.frames = [middle_name(*pair) for pair in zip(before[: count - window + 1], before[1:], strict=False)]
        self.playback = clip.playback.between(window // 2 - 1, len(self.frames))
        measured = [frame for frame in self.frames if sharp is not None and sharp.has(clip.name, frame)]
        self._measured = set(measured)
        if sharp is not None and measured and (found := sharp.size(clip.name, measured[0])) != clip.size:
            raise UserError(
                "clip {}: frame {} of dataroot_gt is {}x{}, expected {}x{} as the frames around it; restore it".format(
                    clip.name, measured[0], *found, *clip.size
                )
            )

    @property
    def has_gt(self) -> bool:
        return bool(self._measured)

    def lq(self, start: int, stop: int) -> torch.Tensor:
        """Return the average of the two neighbours of each frame, (t, 3, H, W) float32: the baseline."""
        around = self._clip.lq(start + self._window // 2 - 1, stop + self._window // 2)
        return (around[:-1] + around[1:]) / 2

    def gt(self, start: int, stop: int) -> np.ndarray:
        """Return the existing sharp frames in [start, stop), (t, H, W, 3) uint8, RGB.

        Raises:
            UserError: a frame cannot be read or differs in size from the clip.
        """
        names = tuple(frame for frame in self.frames[start:stop] if frame in self._measured)
        if self._sharp is None or not names:
            return np.zeros((0, *self.size, 3), np.uint8)
        return self._sharp.read_many(self.name, names, self.size, slice(None), slice(None))

    def network_input(self, start: int, stop: int) -> Window:
        """Return the t + window - 1 input frames needed to make frames [start, stop), (.., 3, H, W) float32."""
        return self._clip.network_input(start, stop + self._window - 1)


def middle_clips(test_set: VideoTestDataset, opt: DatasetOpt, window: int) -> list[MiddleClip]:
    """Return the frames to interpolate in all clips of a test set, see MiddleClip.

    `opt.dataroot_gt`, if any, holds the frames to measure against, possibly among others.

    Raises:
        UserError: a clip is too short, or dataroot_gt is not a folder or has none of the frames.
    """
    sharp = None
    if opt.dataroot_gt is not None:
        root = existing_folder(opt.dataroot_gt, f"{opt.name}: dataroot_gt")
        sharp = store_of(opt, root, "dataroot_gt")
        raise_first(sharp.root_problems({clip.name: tuple(clip.frames) for clip in test_set.clips}))
    clips = [MiddleClip(clip, window, sharp) for clip in test_set.clips]
    if sharp is not None and not any(clip.has_gt for clip in clips):
        raise UserError(
            f"dataroot_gt: {opt.dataroot_gt} has none of the middle frames, e.g. clip {clips[0].name} frame "
            f"{clips[0].frames[0]}; give the full clips of which dataroot_lq has every second frame, or leave it out"
        )
    return clips


def middle_name(left: str, right: str) -> str:
    """Name the frame halfway between two: "000004" for "000003" and "000005", else "000003_to_000004".

    The name never equals that of an existing neighbour.
    """
    ends = NUMBERED.fullmatch(left), NUMBERED.fullmatch(right)
    if ends[0] and ends[1] and ends[0][1] == ends[1][1]:
        width, first, last = len(ends[0][2]), int(ends[0][2]), int(ends[1][2])
        is_alike = ends[1][2] == f"{last:0{width}d}"  # 9 and 11, 0009 and 0011, 9999 and 10001
        if is_alike and first < last and (last - first) % 2 == 0:
            return f"{ends[0][1]}{(first + last) // 2:0{width}d}"
    return f"{left}_to_{right}"


def clips_to_restore(opt: Opt, sigma: float | None) -> TestSet:
    """The test set of the task: unchanged, with noise, or the frames to interpolate.

    Raises:
        UserError: it has defects, or the options do not suit the task.
    """
    test = opt.datasets.test
    assert test is not None
    if opt.netG.pa_frames:
        given = open_test_set(opt.datasets, opt.netG.upscale)
        if opt.val.times:
            given.show_instants(opt.val.times)
        if sigma is not None and opt.netG.nonblind_denoising:
            return [NoisyClip(clip, sigma) for clip in given.clips]
        return given
    return middle_clips(open_dataset(test.model_copy(update={"dataroot_gt": None})), test, opt.netG.img_size[0])


def protocol_of(opt: Opt, sigma: float | None) -> str:
    """The task's addition to the definition of the metrics."""
    if opt.netG.nonblind_denoising:
        return f"; input: clean frames with Gaussian noise, sigma {sigma:g} of 255, not clipped"
    if not opt.netG.pa_frames:
        return "; lq_: the average of the two frames around the restored one"
    if opt.val.times:
        return f"; at {len(opt.val.times)} instants of each exposure; lq_: the blurred frame"
    return "; lq_: the input, enlarged bilinearly" if opt.netG.upscale > 1 else ""
