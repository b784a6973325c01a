"""The evaluation loop: restore, score and pass on each frame, over any number of processes."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from options.schema_train import ValOpt
from utils import utils_dist, utils_image, utils_metric, utils_tile
from utils.checkpoint.option_changes import options_hash
from utils.evaluation import ensemble
from utils.evaluation.clip import Clip, Frame, TestSet
from utils.evaluation.work_split import Share, Work, split_work
from utils.processes.signals import StoppedError
from utils.tiles.axes import calls_for, time_axis
from utils.tiles.choice import ShrinkingTile
from utils.utils_error import counted
from utils.utils_progress import progress
from utils.utils_tile import Read, Restore
from utils.utils_tile_opt import TileOpt, tile_of

LOG = logging.getLogger("spikevrt")


def evaluate(
    restore: Restore,
    test_set: TestSet,
    val: ValOpt,
    dist: utils_dist.Dist | None = None,
    *,
    tile: TileOpt | ShrinkingTile | None = None,
    watchers: Sequence[Callable[[Frame], None]] = (),
    stop: Callable[[], bool] = lambda: False,
    restored: Callable[[Clip, int], np.ndarray | None] = lambda clip, index: None,
) -> dict[str, Any]:
    """Restore all clips and compare them with their sharp frames, if any.

    Every process takes its share, see `shares`; each frame is scored as soon as it is final, then dropped.

    Args:
        restore: (B, n, C, h, w) -> (B, t, 3, h * s, w * s), e.g. `ModelVRT.restore`; reads n frames to restore t.
        test_set: clips, read lazily.
        val: tiles, metrics and sequence options.
        dist: the process group; None: a single process.
        tile: overrides the tiles of `val`; a ShrinkingTile holds the final tile afterwards.
        watchers: each called for every frame, in order, in the process that restored it.
        stop: checked before each tile and after each frame; once True in any process, StoppedError is raised in all.
        restored: returns a frame restored earlier, (H * s, W * s, 3) uint8, which is only measured; None: restore it.

    Returns:
        The same in every process. `clips`: mean over frames per clip; `mean`: mean over clips; `mean_over_frames`;
            `frames`: one row per frame with `clip`, `frame` and its metrics; `protocol`, `protocols`. Metrics are those
            of `val.metrics` for the restored frame and, with their prefixes, for `Clip.references`, enlarged bilinearly
            to the size of the sharp frame if smaller. Frames without a sharp one have no metrics; metrics of two frames
            are recorded with the second.
    """
    shrinking = tile if isinstance(tile, ShrinkingTile) else ShrinkingTile(tile or tile_of(val))
    loop = _Loop(restore, test_set, val, shrinking, restored, watchers, stop)
    rank, world_size = (dist.rank, dist.world_size) if dist else (0, 1)
    mine = loop.run(shares(test_set, val, loop.shrinking.tile, world_size)[rank], show=rank == 0)
    gathered = utils_dist.gather_objects(dist, mine) if dist else [mine]
    if any(part.stopped for part in gathered):
        raise StoppedError
    rows = dict(sorted(row for part in gathered for row in part.rows.items()))
    if rank == 0:
        by_clip = _by_clip(rows)
        for index in range(len(test_set)):
            if index not in mine.logged:
                log_clip(test_set, index, by_clip.get(index, []))
    result = summarize(list(rows.values()))
    if val.center_frame_only:
        result["protocol"] += "; only the centre frame of each clip"
    if rank == 0 and result["mean"]:
        LOG.info("Average over %s - %s", counted(len(test_set), "clip"), _line(result["mean"]))
    return result


def restored_frames(
    restore: Restore,
    read: Read,
    length: int,
    size: tuple[int, int],
    val: ValOpt,
    tile: TileOpt | ShrinkingTile,
    *,
    planes_in_time: slice = slice(0, 0),
    frames: tuple[int, int] | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """`restore_tiled` with the mirrored ends and ensembles that the options ask for; arguments as there.

    `planes_in_time` are the input channels that are consecutive in time within a frame.
    """
    restore = ensemble.ENSEMBLES[val.self_ensemble](restore)
    if val.flip_seq:
        restore = ensemble.restore_both_ways(restore, planes_in_time)
    tiled = utils_tile.restore_padded if val.pad_seq else utils_tile.restore_tiled
    return tiled(restore, read, length, size, tile, frames)


def shares(test_set: TestSet, val: ValOpt, tile: TileOpt, world_size: int) -> list[list[Share]]:
    """What each process restores, about the same work each; clips may be cut at the starts of time windows."""
    works = []
    for clip in (test_set[index] for index in range(len(test_set))):
        count = len(clip.frames)
        pad = utils_tile.mirrored_frames(count) if val.pad_seq else 0
        time = time_axis(count + 2 * pad, tile)
        first, stop = _wanted(count, val)
        inside = [start - pad for start in time.starts if first < start - pad < stop]
        overlaps = len(time.starts) > 1 and time.starts[1] < time.side
        pixels = clip.size[0] * clip.size[1]
        works.append(Work([first, *inside, stop], time.side * pixels, int(overlaps)))
    return split_work(works, world_size)


def calls(test_set: TestSet, val: ValOpt, tile: TileOpt, world_size: int = 1) -> list[int]:
    """Number of network calls per process to restore a test set."""
    ways = (1 + val.flip_seq) * ensemble.WAYS[val.self_ensemble]
    counts = []
    for part in shares(test_set, val, tile, world_size):
        count = 0
        for index, first, stop in part:
            clip = test_set[index]
            pad = utils_tile.mirrored_frames(len(clip.frames)) if val.pad_seq else 0
            length = len(clip.frames) + 2 * pad
            count += calls_for(length, clip.size, tile, first + pad, stop + pad)
        counts.append(count * ways)
    return counts


@dataclass
class _Part:
    """Work done by one process: rows by (clip, frame), the clips already logged, and whether it was stopped."""

    rows: dict[tuple[int, int], dict[str, Any]]
    logged: set[int]
    stopped: bool = False


@dataclass
class _Loop:
    """The arguments of `evaluate`, for the shares of one process."""

    restore: Restore
    test_set: TestSet
    val: ValOpt
    shrinking: ShrinkingTile
    restored: Callable[[Clip, int], np.ndarray | None]
    watchers: Sequence[Callable[[Frame], None]]
    stop: Callable[[], bool]

    def run(self, mine: Sequence[Share], show: bool) -> _Part:
        """Restore, score and pass on the frames of the shares, until a request to stop."""
        part = _Part({}, set())
        try:
            with progress(total=sum(share.stop - share.first for share in mine), show=show) as bar:
                for share in mine:
                    self._run_share(share, show, part, bar)
        except StoppedError:
            part.stopped = True
        return part

    def _run_share(self, share: Share, show: bool, part: _Part, bar: Any) -> None:
        clip = self.test_set[share.clip]
        bar.set_description(clip.name, refresh=False)
        rows = []
        for frame in self._frames(clip, share):
            bar.update()
            rows.append({"clip": clip.name, "frame": frame.name, **frame.metrics})
            part.rows[share.clip, frame.index] = rows[-1]
            for watcher in self.watchers:
                watcher(frame)
            if self.stop():
                raise StoppedError
        if show and (share.first, share.stop) == _wanted(len(clip.frames), self.val):
            log_clip(self.test_set, share.clip, rows)
            part.logged.add(share.clip)

    def _frames(self, clip: Clip, share: Share) -> Iterator[Frame]:
        """The frames of one share, with their metrics."""
        score = _Scorer(clip, self.val.metrics)
        # Metrics of two frames also need the frame before a cut.
        lead = share.first - bool(share.first and score.of_two and not self.val.center_frame_only)
        for index, image, is_new in self._images(clip, lead, share.stop):
            sharp = score.sharp(index)
            metrics = {} if sharp is None else score(index, image, sharp)
            if index >= share.first:
                yield Frame(clip, index, image, metrics, is_new, sharp)

    def _images(self, clip: Clip, first: int, stop: int) -> Iterator[tuple[int, np.ndarray, bool]]:
        """Yield index, image and whether it is new for the frames [first, stop), restoring those not yet restored."""
        for index in range(first, stop):
            existing = self.restored(clip, index)
            if existing is not None:
                yield from self._new_images(clip, first, index)
                yield index, existing, False
                first = index + 1
        yield from self._new_images(clip, first, stop)

    def _restore(self, window: Any) -> Tensor:
        """Restore a window, unless asked to stop."""
        if self.stop():
            raise StoppedError
        return self.restore(window)

    def _new_images(self, clip: Clip, first: int, stop: int) -> Iterator[tuple[int, np.ndarray, bool]]:
        """Restore the frames [first, stop), possibly none; see `_images`."""
        if first == stop:
            return
        restored = restored_frames(
            self._restore, clip.network_input, len(clip.frames), clip.size, self.val, self.shrinking,
            planes_in_time=clip.planes_in_time, frames=(first, stop),
        )  # fmt: skip
        for index, frame in restored:
            if not torch.isfinite(frame).all():
                name = clip.frames[index]
                raise FloatingPointError(f"clip {clip.name}, frame {name}: the network output is not finite")
            yield index, utils_image.to_uint8(frame), True


class _Scorer:
    """Computes the metrics `names` of a clip's frames, in order: some compare a frame with the previous one."""

    def __init__(self, clip: Clip, names: Sequence[str]) -> None:
        self._clip = clip
        self._names = [name for name in names if name in utils_metric.METRICS]
        self.of_two = [name for name in names if name in utils_metric.TEMPORAL_METRICS]
        # Index, images and sharp frame of the previous frame.
        self._before: tuple[int, dict[str, np.ndarray], np.ndarray] = (-2, {}, np.zeros(0))

    def sharp(self, index: int) -> np.ndarray | None:
        """The sharp frame, (H, W, 3) uint8, if there is one."""
        found = self._clip.gt(index, index + 1) if self._clip.has_gt else np.zeros(0)
        return found[0] if len(found) else None

    def __call__(self, index: int, restored: np.ndarray, sharp: np.ndarray) -> dict[str, float]:
        """Metrics of one frame, by prefix and name."""
        given = {key: _enlarged(image, sharp.shape) for key, image in self._clip.references(index).items()}
        images = {"": restored, **given}
        found = utils_metric.measure(images, sharp, self._names)
        at, before, sharp_before = self._before
        if self.of_two and at == index - 1:
            pairs = {prefix: (before[prefix], image) for prefix, image in images.items()}
            found |= utils_metric.measure_motion(pairs, (sharp_before, sharp), self.of_two)
        if self.of_two:
            self._before = index, images, sharp
        return found


def summarize(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Average the rows of frames, see `evaluate`; rows must be in the order of the clips."""
    by_clip: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_clip.setdefault(row["clip"], []).append(row)
    clips = {name: _mean(of_clip) for name, of_clip in by_clip.items()}
    mean, mean_over_frames = _mean(list(clips.values())), _mean(rows)
    return {
        "protocol": utils_metric.PROTOCOL,
        "protocols": utils_metric.by_protocol(mean, mean_over_frames),
        "equal_frames": utils_metric.equal_frames(rows),
        "mean": mean,
        "mean_over_frames": mean_over_frames,
        "clips": clips,
        "frames": rows,
    }


def conditions(result: Mapping[str, Any], metric: str, val: ValOpt) -> dict[str, Any]:
    """What a score depends on besides the weights, as JSON values; scores measured under other ones do not compare.

    `result` is that of `evaluate`; `inputs`, the scores of the input frames, stands for their content.
    """
    unused = {"save_img", "output", "times", "tile_batch", "task_name", "metrics"}
    inputs = {key: result["mean"].get(key) for key in (f"lq_{metric}", f"sdm_{metric}")}
    return {
        "frames": len(result["frames"]),
        "frame_names": options_hash({"names": [(row["clip"], row["frame"]) for row in result["frames"]]}),
        "inputs": ", ".join(f"{key} {score:.4g}" for key, score in inputs.items() if score is not None),
        "protocol": result["protocol"],
        "val": val.model_dump(mode="json", exclude=unused),
    }


def _by_clip(rows: Mapping[tuple[int, int], dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    """Group rows by the index of their clip."""
    found: dict[int, list[dict[str, Any]]] = {}
    for (clip, _), row in rows.items():
        found.setdefault(clip, []).append(row)
    return found


def _enlarged(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Resize (h, w, 3) uint8 bilinearly to `shape`, (H, W, 3)."""
    return image if image.shape == shape else cv2.resize(image, shape[1::-1], interpolation=cv2.INTER_LINEAR)


def _mean(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Mean of each metric over the rows that have it."""
    names = list(dict.fromkeys(key for row in rows for key in row if key not in ("clip", "frame")))
    return {name: utils_metric.mean_of(row[name] for row in rows if name in row) for name in names}


def log_clip(test_set: TestSet, index: int, rows: list[dict[str, Any]]) -> None:
    """Log the line that KAIR writes per clip."""
    name, means = test_set[index].name, _line(_mean(rows))
    LOG.info("Testing %s (%2d/%d) - %s", name, index + 1, len(test_set), means)


def _wanted(count: int, val: ValOpt) -> tuple[int, int]:
    """The frames [first, stop) to restore and measure in a clip of `count`."""
    return (count // 2, count // 2 + 1) if val.center_frame_only else (0, count)


def _line(means: dict[str, float]) -> str:
    shown = [
        f"{name.upper()}: {value:.2f} dB" if "psnr" in name else f"{name.upper()}: {value:.4f}"
        for name, value in means.items()
        if not name.startswith(("lq_", "sdm_"))
    ]
    return "; ".join(shown) or "no sharp frames to compare with"
