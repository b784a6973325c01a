import logging
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from utils import utils_dist, utils_eval, utils_image, utils_metric
from utils.report import results_folder
from utils.utils_rgbspike import RGBSpike
from utils.utils_tile_opt import TileOpt

NAMES = ["psnr", "ssim", "psnr_y", "ssim_y"]


@dataclass(frozen=True)
class Val:
    num_frame_testing: int = 0
    frames_shared: int = 2
    size_patch_testing: int = 0
    size_patch_overlapping: int = 4
    blend: str = "smooth"
    tile_batch: int = 1
    self_ensemble: str = "none"
    metrics: tuple[str, ...] = ("psnr", "ssim", "psnr_y", "ssim_y")
    pad_seq: bool = False
    flip_seq: bool = False
    center_frame_only: bool = False


@dataclass
class FakeClip:
    name: str
    length: int
    has_gt: bool = True
    has_spike: bool = True
    size: tuple[int, int] = (20, 24)
    reads: list[tuple[int, int]] = field(default_factory=list)

    planes_in_time, rate = slice(0, 0), None

    def __post_init__(self):
        rng = np.random.default_rng(len(self.name) + self.length)
        self.frames = [f"{index:06d}" for index in range(5, 5 + self.length)]
        self._gt = rng.integers(0, 256, (self.length, *self.size, 3), dtype=np.uint8)
        self._lq = np.clip(self._gt + rng.integers(-30, 31, self._gt.shape), 0, 255).astype(np.uint8)

    def lq(self, start, stop):
        return utils_image.to_float(self._lq[start:stop])

    def gt(self, start, stop):
        assert self.has_gt
        return self._gt[start:stop]

    def spike(self, start, stop):
        return self.lq(start, stop)[:, :1]

    def network_input(self, start, stop):
        self.reads.append((start, stop))
        return torch.cat([self.lq(start, stop), self.spike(start, stop)], dim=1)

    def references(self, index):
        return {"lq_": self._lq[index]} | ({"sdm_": self._lq[index] // 2} if self.has_spike else {})


def restore(window):
    return (window.rgb if isinstance(window, RGBSpike) else window)[:, :, :3] * 0.9


@pytest.fixture
def clips():
    return [
        FakeClip("a", 5),
        FakeClip("bb", 3),
        FakeClip("ccc", 4),
        FakeClip("dddd", 2),
        FakeClip("eeeee", 1),
    ]


def test_keys_and_averages(clips):
    result = utils_eval.evaluate(restore, clips, Val())
    assert list(result["mean"]) == [prefix + name for prefix in ("", "lq_", "sdm_") for name in NAMES]
    assert list(result["clips"]) == [clip.name for clip in clips]
    assert len(result["frames"]) == sum(clip.length for clip in clips)
    assert result["frames"][0].keys() == {"clip", "frame"} | result["mean"].keys()
    of_a = [row["psnr"] for row in result["frames"] if row["clip"] == "a"]
    assert result["clips"]["a"]["psnr"] == pytest.approx(np.mean(of_a))
    assert result["mean"]["psnr"] == pytest.approx(np.mean([clip["psnr"] for clip in result["clips"].values()]))
    assert result["mean_over_frames"]["psnr"] == pytest.approx(np.mean([row["psnr"] for row in result["frames"]]))
    assert "clip mean" in result["protocol"]
    expected = utils_metric.METRICS["ssim"](clips[0]._lq[0], clips[0]._gt[0])
    assert result["frames"][0]["lq_ssim"] == pytest.approx(expected)


def windowed(window):
    """What a frame becomes depends on all of its window, as with a real network."""
    return restore(window) + window.mean(dim=(1, 2, 3, 4), keepdim=True) / 10


def evaluate_together(world_size, clips, val, monkeypatch, **more):
    """The result of every process of a group, and the rows that each has contributed."""
    parts = []
    with monkeypatch.context() as patch:
        patch.setattr(utils_dist, "gather_objects", lambda dist, value: parts.append(value) or [value])
        for rank in range(world_size):
            utils_eval.evaluate(windowed, clips, val, utils_dist.Dist(rank, world_size), **more)
        patch.setattr(utils_dist, "gather_objects", lambda dist, value: parts)
        results = [
            utils_eval.evaluate(windowed, clips, val, utils_dist.Dist(rank, world_size), **more)
            for rank in range(world_size)
        ]
    return results, [set(part.rows) for part in parts]


@pytest.mark.parametrize("world_size", [2, 3, 8])
@pytest.mark.parametrize("pad_seq", [False, True])
def test_any_number_of_processes_gives_the_same_numbers(clips, world_size, pad_seq, monkeypatch):
    val = Val(num_frame_testing=3, frames_shared=1, pad_seq=pad_seq, metrics=(*NAMES[:2], "tof"))
    clips = [*clips, FakeClip("long", 37)]
    single = utils_eval.evaluate(windowed, clips, val)
    results, parts = evaluate_together(world_size, clips, val, monkeypatch)
    assert all(result == single for result in results), "to the last digit"
    assert sum(map(len, parts)) == len(set().union(*parts)) == sum(clip.length for clip in clips), "each frame once"
    assert sum(any(clip == 5 for clip, _ in part) for part in parts) > 1, "a long clip is shared"
    assert [set(row) >= {"tof"} for row in single["frames"][:2]] == [False, True], "of two frames, with the second"


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 16])
def test_processes_get_about_the_same_work(world_size):
    clips = [FakeClip(f"c{index}", length) for index, length in enumerate((40, 3, 5, 90, 8))]
    val, tile = Val(), TileOpt(6, 2)
    alone = utils_eval.calls(clips, val, tile)[0]
    counts = utils_eval.calls(clips, val, tile, world_size)
    assert max(counts) <= alone / world_size + 2
    assert sum(counts) <= alone + world_size - 1, "one piece more for each cut at most"
    whole = utils_eval.shares(clips, val, TileOpt(), 5)
    assert [(part.first, part.stop) for share in whole for part in share] == [(0, clip.length) for clip in clips]


def test_a_stop_in_one_process_ends_the_evaluation_in_all(clips, monkeypatch):
    parts, seen = [], []
    nothing = SimpleNamespace(rows={}, logged=set(), stopped=False)
    monkeypatch.setattr(utils_dist, "gather_objects", lambda dist, value: parts.append(value) or [nothing])
    ended = {"watchers": [seen.append], "stop": lambda: len(seen) == 2}
    utils_eval.evaluate(restore, clips, Val(), utils_dist.Dist(1, 2), **ended)
    assert (len(seen), parts[0].stopped) == (2, True)
    monkeypatch.setattr(utils_dist, "gather_objects", lambda dist, value: [value, parts[0]])
    with pytest.raises(utils_eval.StoppedError):
        utils_eval.evaluate(restore, clips, Val(), utils_dist.Dist(0, 2))


@pytest.mark.parametrize("calls", [0, 1, 3, 5])
def test_a_stop_is_heard_between_tiles(clips, calls):
    """Of six tiles a piece; also while a frame is mirrored, or restored forwards and backwards."""
    seen = []

    def watch(window):
        seen.append(window)
        return restore(window)

    val = Val(size_patch_testing=12, flip_seq=True)
    with pytest.raises(utils_eval.StoppedError):
        utils_eval.evaluate(watch, clips, val, stop=lambda: len(seen) == calls)
    assert len(seen) == calls


def test_without_sharp_frames_it_only_restores():
    clips = [FakeClip("a", 3, has_gt=False), FakeClip("b", 2, has_gt=False)]
    seen = []
    result = utils_eval.evaluate(restore, clips, Val(), watchers=[seen.append])
    assert result["mean"] == {}
    assert result["clips"] == {"a": {}, "b": {}}
    assert [(frame.clip.name, frame.index) for frame in seen] == [
        ("a", 0),
        ("a", 1),
        ("a", 2),
        ("b", 0),
        ("b", 1),
    ]


def test_without_spikes_there_is_no_training_free_estimate():
    result = utils_eval.evaluate(restore, [FakeClip("a", 2, has_spike=False)], Val(metrics=("psnr",)))
    assert list(result["mean"]) == ["psnr", "lq_psnr"]


def test_frames_are_written(tmp_path, clips):
    utils_eval.evaluate(restore, clips, Val(), watchers=[results_folder.frame_writer(tmp_path)])
    assert len(list(tmp_path.rglob("*"))) == len(clips) + sum(clip.length for clip in clips)
    expected = utils_image.to_uint8(clips[0].lq(1, 2)[0] * 0.9)
    assert np.array_equal(utils_image.read_rgb(tmp_path / "a" / "000006.png"), expected)


def test_frames_are_handed_over_while_later_ones_are_still_unread():
    clip = FakeClip("long", 20)
    behind = []
    utils_eval.evaluate(
        restore,
        [clip],
        Val(num_frame_testing=4, frames_shared=1, metrics=("psnr",)),
        watchers=[lambda frame: behind.append(clip.reads[-1][1] - frame.index)],
    )
    assert max(behind) <= 4
    assert max(stop - start for start, stop in clip.reads) == 4


def test_tiles_come_from_the_options_and_can_be_given(clips):
    shapes = set()

    def watch(window):
        shapes.add(tuple(window.shape[1:]))
        return restore(window)

    utils_eval.evaluate(watch, clips[:1], Val(num_frame_testing=3, size_patch_testing=12))
    assert shapes == {(3, 4, 12, 12)}
    shapes.clear()
    utils_eval.evaluate(watch, clips[:1], Val(), tile=TileOpt(0, 0, (10, 24), (2, 0)))
    assert shapes == {(5, 4, 10, 24)}


def test_sequence_options(clips):
    val = Val(center_frame_only=True, num_frame_testing=2, frames_shared=1)
    result = utils_eval.evaluate(restore, clips[:1], val)
    assert [row["frame"] for row in result["frames"]] == [clips[0].frames[2]]
    assert min(clips[0].reads) == (1, 3), "the others are not restored"
    assert "centre frame" in result["protocol"]

    lengths = []

    def watch(window):
        lengths.append(window.shape[1])
        return restore(window)

    plain = utils_eval.evaluate(restore, clips[:1], Val())
    both = utils_eval.evaluate(watch, clips[:1], Val(pad_seq=True, flip_seq=True))
    assert lengths == [9, 9], "two mirrored frames at each end, forwards and backwards"
    assert both["frames"] == plain["frames"], "nothing changes for a network that works frame by frame"


def test_log_reads_like_kairs(clips, caplog):
    logger = logging.getLogger("spikevrt")
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO, "spikevrt"):
        utils_eval.evaluate(restore, clips, Val())
    logger.removeHandler(caplog.handler)
    lines = list(dict.fromkeys(caplog.messages))
    assert len(lines) == len(clips) + 1
    assert lines[0].startswith("Testing a ( 1/5) - PSNR: ")
    assert " dB; SSIM: 0." in lines[0]
    assert "; PSNR_Y: " in lines[0]
    assert lines[-1].startswith("Average over 5 clips - PSNR: ")


def test_without_sharp_frames_the_log_has_no_average(clips, heard):
    for clip in clips:
        clip.has_gt = False
    utils_eval.evaluate(restore, clips, Val())
    assert heard.messages
    assert not [line for line in heard.messages if "Average" in line]


def test_output_that_is_not_finite_is_an_error(clips):
    with pytest.raises(FloatingPointError, match="clip a, frame 000005"):
        utils_eval.evaluate(lambda window: restore(window) * float("nan"), clips, Val())


def test_frames_that_are_there_are_measured_and_not_restored_again(clips, tmp_path):
    val = Val(num_frame_testing=3, frames_shared=1, metrics=("psnr", "tof"))
    write = results_folder.frame_writer(tmp_path)
    fresh = utils_eval.evaluate(windowed, clips, val, watchers=[write])
    gone = [("a", 0), ("a", 3), ("ccc", 2), ("ccc", 3)]
    for name, index in gone:
        clip = next(clip for clip in clips if clip.name == name)
        results_folder.frame_path(tmp_path, clip, index).unlink()
    damaged = results_folder.frame_path(tmp_path, clips[1], 1)
    damaged.write_bytes(damaged.read_bytes()[:-20])
    for clip in clips:
        clip.reads.clear()
    new = []
    resumed = utils_eval.evaluate(
        windowed,
        clips,
        val,
        watchers=[write, lambda frame: new.append((frame.clip.name, frame.index)) if frame.is_new else None],
        restored=results_folder.existing_frames(tmp_path),
    )
    assert resumed == fresh
    assert sorted(new) == sorted([*gone, ("bb", 1)])
    assert clips[3].reads == clips[4].reads == []
    assert clips[0].reads == [(0, 3), (2, 5)]
    assert clips[1].reads == [(0, 3)]


def test_protocols_are_named_with_both_averages(clips):
    result = utils_eval.evaluate(restore, clips, Val(metrics=(*NAMES, "ssim_matlab_rgb")))
    assert list(result["protocols"]) == ["kair", "vrt_paper", "spkdeblur"]
    kair, paper = result["protocols"]["kair"], result["protocols"]["vrt_paper"]
    assert kair["metrics"]["psnr"] == result["mean"]["psnr"] != result["mean_over_frames"]["psnr"]
    assert paper["metrics"]["ssim"] == result["mean_over_frames"]["ssim_matlab_rgb"]
    assert paper["mean_of_clips"]["ssim"] == result["mean"]["ssim_matlab_rgb"]


def test_equal_frames_do_not_hide_the_others(clips):
    clips[0]._lq[0] = clips[0]._gt[0]
    result = utils_eval.evaluate(lambda window: window[:, :, :3], clips, Val(metrics=("psnr",)))
    assert result["frames"][0]["psnr"] == np.inf
    assert result["equal_frames"] == {"psnr": 1, "lq_psnr": 1}
    others = [row["psnr"] for row in result["frames"][1:5]]
    assert result["clips"]["a"]["psnr"] == pytest.approx(np.mean(others))
