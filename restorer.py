"""Restore clips in memory, from notebooks and other programs; see docs/python.md."""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from data.arguments import (
    array,
    check_frames,
    check_spikes_show,
    check_tile,
    checked_planes,
    checked_spikes,
    checked_times,
    number,
    path_of,
    recording_of,
    refused,
)
from data.clip_index import existing_folder, listed
from data.layout import SPLITS, Split, lq_dir, spike_dir
from data.official_tasks import task_file
from data.spike.arrays import Recording, planes_of
from data.spike.planes import REPRESENTATIONS
from data.spike.source import planes_in_time
from data.task_clips import clips_to_restore
from models.model_vrt import ModelVRT
from models.select_model import define_restorer
from options.schema import DatasetOpt, Opt
from utils import utils_checkpoint, utils_eval, utils_image, utils_option, utils_run_folder
from utils.utils_dist import Dist
from utils.utils_error import UserError
from utils.utils_rgbspike import RGBSpike, Window
from utils.utils_tile import Read
from utils.utils_tile_opt import TileOpt, tile_of
from utils.utils_zoo import TASKS, located

RGB = 3


class Restorer:
    """A trained network that restores arrays; `from_checkpoint` makes one. `tile` is in restored frames."""

    def __init__(self, model: ModelVRT, opt: Opt, tile: TileOpt) -> None:
        self.model, self.opt, self.tile = model, opt, tile
        self._dataset = opt.datasets.with_spikes

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        *,
        options: str | Path | Opt | None = None,
        device: str | torch.device | None = None,
        tile: TileOpt | None = None,
    ) -> "Restorer":
        """Build a network and load its weights.

        PyTorch's random state is not changed; `train.tf32` applies to the whole process from here on.

        Args:
            path: a run's folder, experiments/<task>, whose best or else last weights are loaded; or weights, a .pth
                or .safetensors file.
            options: the network's options, or their file. None: the run's options.json, else those of the official task
                that the file is named after, else those noted in the file by scripts/convert_checkpoint.py.
            device: where to compute; None: a GPU if there is one.
            tile: size of a tile, in restored frames; None: as in the `val` block of the options.

        Raises:
            UserError: there are no weights or options, or they do not fit together.
        """
        path = path_of("path", path, "a run's folder, such as experiments/<task>, or a weights file")
        check_tile(tile)
        weights, reason = _weights(path)
        opt = options if isinstance(options, Opt) else _options(path, options)
        with torch.random.fork_rng(devices=[]):
            model = define_restorer(opt, weights, reason, Dist(device=_device(device)))
        return cls(model, opt, tile or tile_of(opt.val, opt.netG.window_size, opt.netG.extra_frames, opt.netG.grid))

    @classmethod
    def from_pretrained(
        cls, name: str = "guide", *, device: str | torch.device | None = None, tile: TileOpt | None = None
    ) -> "Restorer":
        """Build a network with the weights that ship with the project, like main_test_vrt.py --task spike_<name>.

        `name` is "guide" or "guide_tiny", see model_zoo/README.md; `device` as in `from_checkpoint`, `tile` too, but
        None: whole frames. Raises UserError if there are no weights of this name, or their file is missing or damaged.
        """
        if not isinstance(name, str) or name not in TASKS:
            raise refused("name", name, f"{' or '.join(map(repr, TASKS))}, the weights that ship")
        opt = utils_option.load(task_file(TASKS[name]), Opt)
        assert opt.path.shipped_netG is not None
        return cls.from_checkpoint(located(opt.path.shipped_netG), options=opt, device=device, tile=tile)

    def restore(  # noqa: PLR0913 - one call for all kinds of networks, each of which takes a few of these
        self,
        frames: np.ndarray,
        spikes: np.ndarray | None = None,
        *,
        planes: np.ndarray | None = None,
        sigma: float | None = None,
        rate_at_white: float | None = None,
        sharp_step: int | None = None,
        exposure: tuple[int, int] | None = None,
        transfer: Literal["srgb", "linear"] = "srgb",
        continuous: bool = False,
        alignment: np.ndarray | None = None,
        times: Sequence[float] = (),
    ) -> np.ndarray:
        """Restore a clip like main_test_vrt.py.

        Args:
            frames: (T, H, W, 3) RGB, uint8 or float in [0, 1]; noisy floats (`sigma`) may exceed that range.
            spikes: (T, steps, h, w) bool or uint8, 0 or 1, row 0 at the top: the spikes of each frame; H / h = W / w is
                an integer. `datasets.test.spike` of the options defines how they become planes.
            planes: (T, S, h, w) float, planes instead of spikes, white is 1; H = r h, W = r w, any integer r.
            sigma: standard deviation of the noise in the frames, white is 255; only for denoising.
            rate_at_white: spikes per step of a white pixel; None: `spike.rate_at_white` of the options.
            sharp_step: the step of a frame's spikes that the restored frame shows; None: `spike.center`.
            exposure: [first, last), the steps that a blurred frame integrates; required by all representations except
                tfp and raw_window.
            transfer: the light that the spike sensor integrates: "srgb", as in GoPro+Spike, or "linear".
            continuous: the steps of consecutive frames form one stream: a window may reach into the next frame's.
            alignment: (3, 3) matrix of the two cameras, see docs/alignment.md; None: they see the same.
            times: n fractions of the exposure to show instead of the sharp step, from 0 (its first step) to 1 (its
                last), ascending; needs spikes and `exposure`.

        Returns:
            (T, H * s, W * s, 3) in [0, 1], s = `netG.upscale`; uint8 if `frames` is, else float32. With `times`
            (T, n, H * s, W * s, 3). With `netG.pa_frames` 0: the middle frame of every `netG.img_size[0]` consecutive
            ones.

        Raises:
            UserError: an argument does not fit the network, another argument or its range; names it.
        """
        frames, spikes, planes = array("frames", frames), array("spikes", spikes), array("planes", planes)
        sigma = None if sigma is None else number("sigma", sigma, "the noise level of the frames; white is 255")
        check_frames(frames, clean=sigma is None)
        known = recording_of(rate_at_white, sharp_step, exposure, transfer, continuous, alignment)
        self._check_kind(frames, spikes, planes, sigma)
        shown = frames if frames.dtype == np.uint8 else frames.astype(np.float32, copy=False)
        rgb = utils_image.to_float(shown)
        if sigma is not None:
            rgb = torch.cat((rgb, rgb.new_full((len(frames), 1, *frames.shape[1:3]), sigma / 255)), dim=1)
        x: Window = rgb
        times = checked_times(times)
        if times and (spikes is None or exposure is None):
            raise UserError("times: found, but other instants need spikes= and exposure=; give both or leave times out")
        if spikes is not None:
            x = self._with_spikes(rgb, shown, spikes, known, times)
        elif planes is not None:
            x = RGBSpike(rgb, checked_planes(planes, frames, self._spike_channels))
        out = np.stack([_picture(frame, frames.dtype) for frame in self._tiled(x)])
        return out.reshape(len(frames), len(times), *out.shape[1:]) if times else out

    def restore_clip(
        self, root: str | Path, clip: str, *, split: Split = "test", times: Sequence[float] = ()
    ) -> np.ndarray:
        """Restore a clip of a prepared set like main_test_vrt.py, with what its manifest says of timing and light.

        Args:
            root: the set's folder, as prepare_recording.py makes it, see docs/data.md.
            clip: name of the clip.
            split: "test" or "train".
            times: as in `restore`.

        Returns:
            As `restore`, uint8.

        Raises:
            UserError: there is no such clip, its files have defects, or they do not fit the network; names it.
        """
        times = checked_times(times)
        if self.opt.netG.nonblind_denoising:
            raise UserError("restore_clip: the network removes noise of a known level; use restore(frames, sigma=...)")
        datasets = self.opt.datasets.model_copy(update={"test": self._prepared(root, split)})
        val = self.opt.val.model_copy(update={"times": times})
        clips = clips_to_restore(self.opt.model_copy(update={"datasets": datasets, "val": val}), None)
        by_name = {each.name: each for each in (clips[index] for index in range(len(clips)))}
        if clip not in by_name:
            raise refused("clip", clip, f"one of {listed(by_name)}")
        found = by_name[clip]
        restored = self._restored(found.network_input, len(found.frames), found.size)
        out = np.stack([utils_image.to_uint8(frame) for frame in restored])
        return out.reshape(-1, len(times), *out.shape[1:]) if times else out

    def _prepared(self, root: str | Path, split: Split) -> DatasetOpt:
        """Return the options of a prepared set, with the planes that the network reads."""
        if split not in SPLITS:
            raise refused("split", split, "'test' or 'train'")
        folder = path_of("root", root, "the folder of a prepared set")
        blurred = existing_folder(lq_dir(folder, split), "root")
        given: dict[str, Any] = {"dataset_type": "VideoRecurrentTestDataset", "dataroot_lq": str(blurred)}
        if self._dataset is not None:
            given |= {
                "dataset_type": "VideoRecurrentTestDatasetRGBSpike",
                "dataroot_spike": str(spike_dir(folder, split)),
                "spike": self._dataset.spike,
                "spike_channels": self._dataset.spike_channels,
            }
        return DatasetOpt.model_validate(given)

    def _tiled(self, x: Window) -> Iterator[Tensor]:
        """Yield restored frames, (3, H * s, W * s), of (T, C, H, W) in order."""
        extra = self.opt.netG.extra_frames
        return self._restored(lambda start, stop: x[start : stop + extra], len(x) - extra, (x.shape[2], x.shape[3]))

    def _restored(self, read: Read, length: int, size: tuple[int, int]) -> Iterator[Tensor]:
        """Yield restored frames, (3, H * s, W * s); arguments as of restore_tiled."""
        restored = utils_eval.restored_frames(
            self.model.restore,
            read,
            length,
            size,
            self.opt.val,
            self.tile,
            planes_in_time=self._planes_in_time,
        )
        for index, frame in restored:
            if not torch.isfinite(frame).all():
                raise FloatingPointError(f"frame {index}: the network's output is not finite")
            yield frame

    @property
    def _planes_in_time(self) -> slice:
        dataset = self._dataset
        if dataset is None:
            return slice(0, 0)
        return planes_in_time(REPRESENTATIONS[dataset.spike.representation], dataset.spike_channels)

    @property
    def _spike_channels(self) -> int:
        return self._dataset.spike_channels if self._dataset is not None else self.opt.netG.in_chans - RGB

    def _check_kind(
        self, frames: np.ndarray, spikes: np.ndarray | None, planes: np.ndarray | None, sigma: float | None
    ) -> None:
        """Refuse arguments that the network does not use, and missing ones that it needs."""
        net, channels = self.opt.netG, self._spike_channels
        given = [name for name, value in (("spikes", spikes), ("planes", planes)) if value is not None]
        if len(given) > 1 or (given and not channels):
            why = "one of them is enough" if len(given) > 1 else f"the network takes none (netG.in_chans is {RGB})"
            raise UserError(f"{' and '.join(given)}: found, but {why}; leave {given[0]} out")
        if channels and not given:
            raise UserError(f"spikes: not given, expected spikes or planes, {channels} per frame")
        if net.nonblind_denoising and (sigma is None or not 0 <= sigma < float("inf")):
            raise UserError(f"sigma: found {sigma}, expected the noise level of the frames, 0 or more; white is 255")
        if sigma is not None and not net.nonblind_denoising:
            raise UserError(f"sigma: found {sigma:g}, but the network takes no noise level; leave it out")
        if len(frames) <= net.extra_frames:
            raise UserError(f"frames: found {len(frames)}, expected {net.img_size[0]} or more to interpolate")

    def _with_spikes(
        self, rgb: Tensor, frames: np.ndarray, spikes: np.ndarray, recording: Recording, times: Sequence[float]
    ) -> RGBSpike:
        dataset = self._dataset
        if dataset is None:
            raise UserError(
                "spikes: the options have no data set that defines how they become planes; add datasets.test with "
                "dataset_type VideoRecurrentTestDatasetRGBSpike, or pass planes="
            )
        spikes = checked_spikes(spikes, len(frames))
        made = planes_of(frames, spikes, dataset.spike, dataset.spike_channels, recording, times)
        check_spikes_show(spikes, frames, recording.exposure)
        rgb = rgb.repeat_interleave(len(times), 0) if times else rgb
        scale = None if made.scale is None else torch.from_numpy(made.scale)
        in_counts = REPRESENTATIONS[dataset.spike.representation].gives == "counts"
        return RGBSpike(rgb, torch.from_numpy(made.planes), scale, recording.is_linear and in_counts)


def _weights(path: Path) -> tuple[Path, str]:
    """The file to load, and why it was chosen."""
    if path.is_dir():
        return utils_run_folder.find_weights(path, None, None)
    path = located(path)
    if not path.is_file():
        raise UserError(f"{path}: not found, expected a run's folder, such as experiments/<task>, or a weights file")
    return path, "given"


def _options(path: Path, options: str | Path | None) -> Opt:
    """The options of the weights: the given ones, else those of their run, of an official task, of their own notes."""
    if options is not None:
        return utils_option.load(path_of("options", options, "an Opt or an option file"), Opt)
    known = utils_option.task_files()
    files = [utils_run_folder.options_of(path), None if path.is_dir() else known.get(path.stem)]
    found = next((file for file in files if file is not None and file.is_file()), None)
    if found is not None:
        return utils_option.load(found, Opt)
    noted = None if path.is_dir() else utils_checkpoint.read_notes(path).get("options")
    if noted is not None:
        return utils_option.load_tree(noted, f"the options noted in {path}", Opt)
    near = difflib.get_close_matches(path.stem, known, n=1, cutoff=0)[0]
    raise UserError(
        f"{path}: no options found: neither a run's options.json next to its models/ folder, nor an official task of "
        f"that name (nearest: {near}); pass options=, the option file of its training"
    )


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError):
        raise refused("device", device, "'cpu', 'cuda', 'cuda:1' and so on") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device: found {chosen}, but no GPU is usable here; pass device='cpu' or leave it out")
    return chosen


def _picture(frame: Tensor, dtype: np.dtype) -> np.ndarray:
    """(3, H, W) -> (H, W, 3), uint8 or float32 in [0, 1]."""
    return utils_image.to_uint8(frame) if dtype == np.uint8 else frame.clamp(0, 1).movedim(0, -1).numpy()
