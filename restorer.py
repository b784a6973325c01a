"""Restore clips in memory, from notebooks and other programs; see docs/python.md."""

import difflib
import logging
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from data.geometry import whole_ratio
from data.official_tasks import task_file
from data.spike.alignment import Alignment, Matrix
from data.spike.arrays import Recording, planes_of
from data.spike.planes import REPRESENTATIONS
from data.spike.source import planes_in_time
from models.model_vrt import ModelVRT
from models.select_model import define_restorer
from options.schema import Opt
from utils import utils_checkpoint, utils_eval, utils_image, utils_option, utils_run_folder
from utils.utils_dist import Dist
from utils.utils_error import UserError
from utils.utils_rgbspike import RGBSpike, Window
from utils.utils_tile_opt import TileOpt, tile_of
from utils.utils_zoo import TASKS, located

LOG = logging.getLogger("spikevrt")

RGB = 3
T = TypeVar("T", np.ndarray, np.ndarray | None)


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
        path = Path(path).expanduser()
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
        if name not in TASKS:
            raise UserError(f"name: found {name!r}, expected {' or '.join(map(repr, TASKS))}, the weights that ship")
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
        frames, spikes, planes = _array("frames", frames), _array("spikes", spikes), _array("planes", planes)
        _check_frames(frames, clean=sigma is None)
        self._check_kind(frames, spikes, planes, sigma)
        shown = frames if frames.dtype == np.uint8 else frames.astype(np.float32, copy=False)
        rgb = utils_image.to_float(shown)
        if sigma is not None:
            rgb = torch.cat((rgb, rgb.new_full((len(frames), 1, *frames.shape[1:3]), sigma / 255)), dim=1)
        x: Window = rgb
        times = _checked_times(times, spikes, exposure)
        if spikes is not None:
            if transfer not in ("srgb", "linear"):
                raise UserError(f"transfer: found {transfer!r}, expected 'srgb' or 'linear'")
            is_linear = transfer == "linear"
            known = Recording(rate_at_white, sharp_step, exposure, is_linear, continuous, _matrix(alignment))
            x = self._with_spikes(rgb, shown, spikes, known, times)
        elif planes is not None:
            x = RGBSpike(rgb, _checked_planes(planes, frames, self._spike_channels))
        out = np.stack([_picture(frame, frames.dtype) for frame in self._tiled(x)])
        return out.reshape(len(frames), len(times), *out.shape[1:]) if times else out

    def _tiled(self, x: Window) -> Iterator[Tensor]:
        """Yield restored frames, (3, H * s, W * s), of (T, C, H, W) in order."""
        extra = self.opt.netG.extra_frames
        restored = utils_eval.restored_frames(
            self.model.restore,
            lambda start, stop: x[start : stop + extra],
            len(x) - extra,
            (x.shape[2], x.shape[3]),
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
        spikes = _checked_spikes(spikes, len(frames))
        made = planes_of(frames, spikes, dataset.spike, dataset.spike_channels, recording, times)
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
        return utils_option.load(Path(options), Opt)
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
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device: found {chosen}, but no GPU is usable here; pass device='cpu' or leave it out")
    return chosen


def _matrix(matrix: np.ndarray | None) -> Matrix | None:
    if matrix is None:
        return None
    try:
        return Alignment(matrix=np.asarray(matrix, float).tolist()).matrix
    except ValueError as error:
        raise UserError(
            f"alignment: found {np.asarray(matrix).tolist()}, expected a 3x3 matrix near the identity; "
            "see docs/alignment.md"
        ) from error


def _array(name: str, value: T) -> T:
    """The array without negative strides, which PyTorch does not support; None stays None."""
    if value is None:
        return value
    if not isinstance(value, np.ndarray):
        raise UserError(f"{name}: found a {type(value).__name__}, expected a NumPy array")
    return np.ascontiguousarray(value)


def _check_frames(frames: np.ndarray, *, clean: bool) -> None:
    if frames.ndim != 4 or frames.shape[3] != RGB or not all(frames.shape):
        raise UserError(f"frames: found an array of {frames.shape}, expected (T, H, W, 3) RGB, not empty")
    if frames.dtype == np.uint8:
        return
    if not np.issubdtype(frames.dtype, np.floating):
        raise UserError(f"frames: found {frames.dtype}, expected uint8 or floats in [0, 1]; convert them")
    low, high = float(frames.min()), float(frames.max())
    if not np.isfinite([low, high]).all() or (clean and (low < 0 or high > 1)):
        raise UserError(f"frames: found values from {low:g} to {high:g}, expected [0, 1]; scale or clip them")


def _picture(frame: Tensor, dtype: np.dtype) -> np.ndarray:
    """(3, H, W) -> (H, W, 3), uint8 or float32 in [0, 1]."""
    return utils_image.to_uint8(frame) if dtype == np.uint8 else frame.clamp(0, 1).movedim(0, -1).numpy()


def _checked_times(
    times: Sequence[float], spikes: np.ndarray | None, exposure: tuple[int, int] | None
) -> tuple[float, ...]:
    times = tuple(map(float, times))
    if times and (spikes is None or exposure is None):
        raise UserError("times: found, but other instants need spikes= and exposure=; give both or leave times out")
    if any(not 0 <= time <= 1 for time in times) or any(a >= b for a, b in pairwise(times)):
        raise UserError(f"times: found {list(times)}, expected ascending fractions of the exposure, from 0 to 1")
    return times


def _checked_spikes(spikes: np.ndarray, count: int) -> np.ndarray:
    """(T, steps, h, w) uint8, 0 or 1."""
    if spikes.ndim != 4 or not all(spikes.shape) or len(spikes) != count:
        raise UserError(f"spikes: found an array of {spikes.shape}, expected ({count}, steps, h, w)")
    if spikes.dtype not in (np.bool_, np.uint8) or int(spikes.max()) > 1:
        raise UserError(f"spikes: found {spikes.dtype} up to {spikes.max()}, expected bool or uint8, 0 or 1")
    return spikes.view(np.uint8)


def _checked_planes(planes: np.ndarray, frames: np.ndarray, channels: int) -> Tensor:
    """(T, S, h, w) float32."""
    wanted = (len(frames), channels, *frames.shape[1:3])
    fits = planes.shape[:2] == wanted[:2] and planes.ndim == 4 and whole_ratio(wanted[2:], planes.shape[2:])
    if not fits or not np.issubdtype(planes.dtype, np.floating):
        raise UserError(
            f"planes: found {planes.dtype} of {planes.shape}, expected floats of {wanted}, or rows and columns smaller "
            "by a whole ratio; white is 1"
        )
    if not np.isfinite(planes).all():
        raise UserError("planes: found NaN or infinite values, expected finite ones, white is 1")
    return torch.from_numpy(planes.astype(np.float32))
