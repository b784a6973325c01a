"""The only evaluation loop: restore, score, hand over, frame by frame, over any number of processes."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from tqdm import tqdm

from utils import utils_dist, utils_image, utils_metric, utils_tile
from utils.utils_error import UserError
from utils.utils_tile import Restore, TileOpt

logger = logging.getLogger("spikevrt")


class ValOptions(Protocol):
    """What the evaluation reads of the options' `val` block."""

    @property
    def num_frame_testing(self) -> int: ...
    @property
    def num_frame_overlapping(self) -> int: ...
    @property
    def size_patch_testing(self) -> int: ...
    @property
    def size_patch_overlapping(self) -> int: ...
    @property
    def metrics(self) -> Sequence[str]: ...
    @property
    def pad_seq(self) -> bool: ...
    @property
    def flip_seq(self) -> bool: ...
    @property
    def center_frame_only(self) -> bool: ...


class Clip(Protocol):
    """A test clip that is read when asked; frames are [start, stop) of those to restore, H and W those of the input."""

    name: str
    frames: list[str]
    size: tuple[int, int]

    @property
    def has_gt(self) -> bool: ...
    @property
    def has_spike(self) -> bool: ...
    def lq(self, start: int, stop: int) -> torch.Tensor:
        """(t, 3, H, W) float32 in [0, 1]."""
        ...

    def gt(self, start: int, stop: int) -> np.ndarray:
        """(t, H * s, W * s, 3) uint8; a frame that has no sharp one is left out."""
        ...

    def spike(self, start: int, stop: int) -> torch.Tensor:
        """(t, S, H, W) float32 in [0, 1]."""
        ...

    def network_input(self, start: int, stop: int) -> torch.Tensor:
        """(n, C, H, W) float32: all that the restored frames are made of."""
        ...

    def baseline(self, index: int) -> np.ndarray | None:
        """(H, W, 3) uint8, the estimate from blur and spikes without any training; None without spikes."""
        ...


class TestSet(Protocol):
    """A sequence of clips."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Clip: ...


class StoppedError(Exception):
    """An evaluation that was asked to end early."""


@dataclass(frozen=True)
class Frame:
    """One restored frame, (H * s, W * s, 3) uint8, with its place and its metrics (none where nothing was scored)."""

    clip: Clip
    index: int
    restored: np.ndarray
    metrics: dict[str, float]

    @property
    def name(self) -> str:
        return self.clip.frames[self.index]


def tile_of(val: ValOptions) -> TileOpt:
    """The tiles that the options ask for."""
    size, overlap = val.size_patch_testing, val.size_patch_overlapping
    return TileOpt(val.num_frame_testing, val.num_frame_overlapping, (size, size), (overlap, overlap))


def frame_writer(folder: Path) -> Callable[[Frame], None]:
    """A watcher for `evaluate` that writes <folder>/<clip>/<frame>.png."""
    return lambda frame: utils_image.write_rgb(folder / frame.clip.name / f"{frame.name}.png", frame.restored)


def evaluate(
    restore: Restore,
    test_set: TestSet,
    val: ValOptions,
    dist: utils_dist.Dist | None = None,
    *,
    tile: TileOpt | None = None,
    watchers: Sequence[Callable[[Frame], None]] = (),
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Restore all clips and compare them with their sharp frames where there are any.

    Process r takes the clips r, r + N, ...; each frame is scored as soon as it is final, then dropped.

    Args:
        restore: (1, n, C, h, w) -> (1, t, 3, h * s, w * s), e.g. `ModelVRT.restore`; n frames are read for t restored.
        test_set: clips, read lazily.
        val: tiles, metrics and sequence options.
        dist: the process group, None = a single process.
        tile: instead of the tiles of `val`, for tiles that are not square.
        watchers: each called for each restored frame in the process that restored it, in order.
        stop: asked after each frame; True ends the evaluation in all processes.

    Raises:
        StoppedError: in every process, if `stop` said so in one of them.

    Returns:
        The same in every process. `clips`: per clip the mean of its frames; `mean`: the mean of the clips;
        `mean_over_frames`; `frames`: a row per frame with `clip`, `frame` and its metrics; `protocol`.
        Metrics are those of `val.metrics` of the restored frame, with prefix `lq_` of the input, and with
        prefix `sdm_` of the training-free estimate, both enlarged bilinearly to the size of the sharp frame where they
        are smaller. Frames without a sharp one have none.
    """
    tile = tile or tile_of(val)
    rank, world_size = (dist.rank, dist.world_size) if dist else (0, 1)
    mine, stopped = _measure(restore, test_set, val, tile, range(rank, len(test_set), world_size), watchers, stop)
    gathered = utils_dist.gather_objects(dist, (mine, stopped)) if dist else [(mine, stopped)]
    if any(ended for _, ended in gathered):
        raise StoppedError
    rows = {index: rows for part, _ in gathered for index, rows in part.items()}
    if rank == 0:
        for index in sorted(set(rows) - set(mine)):
            _log_clip(index, len(test_set), rows[index])
    result = summarize([row for index in sorted(rows) for row in rows[index]])
    if val.center_frame_only:
        result["protocol"] += "; only the centre frame of each clip"
    if rank == 0:
        logger.info("Average over %d clips - %s", len(rows), _line(result["mean"]))
    return result


def _measure(
    restore: Restore,
    test_set: TestSet,
    val: ValOptions,
    tile: TileOpt,
    indices: range,
    watchers: Sequence[Callable[[Frame], None]],
    stop: Callable[[], bool],
) -> tuple[dict[int, list[dict[str, Any]]], bool]:
    """Rows of this process's clips by their index, and whether `stop` cut them short."""
    rows: dict[int, list[dict[str, Any]]] = {}
    for index in indices:
        rows[index] = []
        for frame in _restored_frames(restore, test_set[index], val, tile, show=indices.start == 0):
            rows[index].append({"clip": frame.clip.name, "frame": frame.name, **frame.metrics})
            for watcher in watchers:
                watcher(frame)
            if stop():
                return rows, True
        if indices.start == 0:
            _log_clip(index, len(test_set), rows[index])
    return rows, False


def summarize(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Average rows of frames, see `evaluate`; the order of the rows is that of the clips."""
    by_clip: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_clip.setdefault(row["clip"], []).append(row)
    clips = {name: _mean(of_clip) for name, of_clip in by_clip.items()}
    return {
        "protocol": utils_metric.PROTOCOL,
        "mean": _mean(list(clips.values())),
        "mean_over_frames": _mean(rows),
        "clips": clips,
        "frames": rows,
    }


def _with_advice(restore: Restore) -> Restore:
    """Turn "out of memory" into what the user can do about it."""

    def advised(window: torch.Tensor) -> torch.Tensor:
        try:
            return restore(window)
        except torch.OutOfMemoryError as error:
            _, frames, _, height, width = window.shape
            raise UserError(
                f"out of GPU memory: {frames} frames of {height}x{width} were restored at once; set smaller "
                "tiles by val.num_frame_testing and val.size_patch_testing (--tile)"
            ) from error

    return advised


def _restored_frames(restore: Restore, clip: Clip, val: ValOptions, tile: TileOpt, show: bool) -> Iterator[Frame]:
    tiled = utils_tile.restore_padded if val.pad_seq else utils_tile.restore_tiled
    restore = _with_advice(restore)
    restore = utils_tile.restore_both_ways(restore) if val.flip_seq else restore
    count = len(clip.frames)
    frames = tiled(restore, clip.network_input, count, clip.size, tile)
    for index, restored in tqdm(frames, clip.name, count, leave=False, disable=None if show else True):
        if not torch.isfinite(restored).all():
            raise FloatingPointError(
                f"clip {clip.name}, frame {clip.frames[index]}: the network's output is not finite"
            )
        image = utils_image.to_uint8(restored)
        wanted = clip.has_gt and (index == count // 2 or not val.center_frame_only)
        yield Frame(clip, index, image, _score(clip, index, image, val.metrics) if wanted else {})


def _score(clip: Clip, index: int, restored: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    sharp = clip.gt(index, index + 1)
    if not len(sharp):
        return {}
    gt = sharp[0]
    given = {"lq_": utils_image.to_uint8(clip.lq(index, index + 1)[0]), "sdm_": clip.baseline(index)}
    images = {prefix: _enlarged(image, gt.shape) for prefix, image in given.items() if image is not None}
    return {
        prefix + name: utils_metric.METRICS[name](image, gt, 0)
        for prefix, image in {"": restored, **images}.items()
        for name in names
    }


def _enlarged(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(h, w, 3) uint8 at the size of (H, W, 3), bilinear."""
    return image if image.shape == shape else cv2.resize(image, shape[1::-1], interpolation=cv2.INTER_LINEAR)


def _mean(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Mean of each metric over the rows that have it."""
    names = list(dict.fromkeys(key for row in rows for key in row if key not in ("clip", "frame")))
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}


def _log_clip(index: int, count: int, rows: list[dict[str, Any]]) -> None:
    logger.info("Testing %s (%2d/%d) - %s", rows[0]["clip"], index + 1, count, _line(_mean(rows)))


def _line(means: dict[str, float]) -> str:
    shown = [
        f"{name.upper()}: {value:.2f} dB" if "psnr" in name else f"{name.upper()}: {value:.4f}"
        for name, value in means.items()
        if not name.startswith(("lq_", "sdm_"))
    ]
    return "; ".join(shown) or "no sharp frames to compare with"
