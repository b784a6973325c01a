import csv
import errno
import json
import os
from contextlib import contextmanager
from functools import partial

import av
import numpy as np
import pytest
from test_eval import FakeClip, Val, restore

from utils import utils_dist, utils_eval, utils_image, utils_video
from utils.evaluation.clip import Frame
from utils.report import comparison_video, metric_files, results_folder
from utils.report.comparison_video import comparison
from utils.utils_file import DiskError

ALONE = utils_dist.Dist()


@pytest.fixture
def clips():
    return [FakeClip("alpha", 3), FakeClip("b", 2, size=(17, 31))]


@pytest.fixture
def result(clips, tmp_path):
    return utils_eval.evaluate(restore, clips, Val(), watchers=[results_folder.frame_writer(tmp_path)])


def test_metric_files(result, tmp_path):
    result["clips"]["alpha"]["psnr"] = float("inf")
    result["frames"][0]["psnr"] = float("inf")
    metric_files.write_metrics(result, tmp_path)
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["mean"] == result["mean"]
    assert content["clips"].keys() == {"alpha", "b"}
    assert content["clips"]["alpha"]["psnr"] is None
    assert content["protocol"] == result["protocol"]
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["clip"], row["frame"]) for row in rows] == [(row["clip"], row["frame"]) for row in result["frames"]]
    assert rows[0]["psnr"] == ""
    assert float(rows[1]["lq_ssim"]) == pytest.approx(result["frames"][1]["lq_ssim"])


def test_table_shows_every_clip_and_the_gain(result):
    lines = metric_files.table(result).splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["alpha", "b"]
    assert lines[-1].startswith("mean")
    assert len({len(line) for line in lines}) == 1
    mean = result["mean"]
    assert f"{mean['psnr'] - mean['lq_psnr']:+.2f} dB" in lines[-1]
    assert f"{mean['sdm_psnr']:.2f} dB / {mean['sdm_ssim']:.4f}" in lines[-1]


def test_table_without_sharp_frames_says_so(clips):
    for clip in clips:
        clip.has_gt = False
    assert "no sharp frames" in metric_files.table(utils_eval.evaluate(restore, clips, Val()))


def test_panels_follow_what_the_clip_has(clips):
    clip = clips[0]
    image = clip._gt[0]
    labels = list(metric_files.panels(Frame(clip, 0, image, {"psnr": 30.0, "lq_psnr": 20.0}, sharp=image)))
    assert labels == ["blurred  20.00 dB", "spikes", "restored  30.00 dB", "sharp"]
    clip.has_spike = False
    assert list(metric_files.panels(Frame(clip, 0, image, {}))) == ["blurred", "restored"]


def test_row_holds_the_pictures_unchanged_but_for_their_size():
    red, blue = np.zeros((2, 90, 160, 3), dtype=np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    row = metric_files.side_by_side("clip", {"one": red, "two": blue})
    assert row.dtype == np.uint8
    assert (row == [255, 0, 0]).all(axis=2).sum() == 180 * 320
    assert (row == [0, 0, 255]).all(axis=2).sum() == 180 * 320


def test_pictures_in_rows_of_columns_stand_where_their_labels_are():
    given = {str(level): np.full((90, 320, 3), level, np.uint8) for level in (50, 100, 150, 200, 250)}
    row, rows = (metric_files.side_by_side("clip", given, columns=columns) for columns in (None, 3))
    top = len(row) - metric_files.GAP - 90
    assert rows.shape[0] == 2 * len(row) - 30, "one title"
    assert rows.shape[1] == 3 * 326 + 6
    assert (rows[top : top + 90, 6 + 326 : 326 + 326] == 100).all()
    assert (rows[-6 - 90 : -6, 6 + 326 : 326 + 326] == 250).all()
    assert (rows[-6 - 90 : -6, 6 + 2 * 326 :] == rows[-1, -1]).all(), "no sixth picture"


class Board(dict):
    def image(self, step, name, image):
        assert (name, step) not in self
        self[name, step] = image


def shown(clips, limit, world_size, monkeypatch):
    """What is on rank 0's board after an evaluation by several processes."""
    watchers, parts = [], []
    for rank in range(world_size):
        monkeypatch.setattr(utils_dist, "gather_objects", lambda dist, value: [value])
        watchers.append(metric_files.BoardImages(clips, limit))
        utils_eval.evaluate(restore, clips, Val(), utils_dist.Dist(rank, world_size), watchers=[watchers[-1]])
        parts.append(watchers[-1]._rows)
    monkeypatch.setattr(utils_dist, "gather_objects", lambda dist, value: parts)
    board = Board()
    watchers[0].show(board, 7, utils_dist.Dist(0, world_size))
    return board


def test_board_gets_one_picture_of_each_of_the_first_clips(clips, monkeypatch):
    clips += [FakeClip("c", 1), FakeClip("d", 2)]
    board = shown(clips, 3, 1, monkeypatch)
    assert list(board) == [(f"test_pictures/{clip}", 7) for clip in ("alpha", "b", "c")]
    assert all(image.dtype == np.uint8 and image.shape[1] > 3 * 320 for image in board.values())
    several = shown(clips, 3, 2, monkeypatch)
    assert list(several) == list(board)
    assert all(np.array_equal(several[key], board[key]) for key in board)


def test_board_shows_the_middle_frame_and_its_error(clips, monkeypatch):
    titles, labels = [], []

    def keep(title, pictures, columns):
        titles.append(title)
        labels.append(list(pictures))
        return np.zeros((2, 2, 3), np.uint8)

    monkeypatch.setattr(metric_files, "side_by_side", keep)
    clips[1].has_gt = clips[1].has_spike = False
    shown(clips, 4, 1, monkeypatch)
    assert titles == ["alpha  000006", "b  000006"]
    assert [label.split()[0] for label in labels[0]] == ["blurred", "spikes", "restored", "sharp", "mean"]
    assert labels[0][-1] == "mean error 0 .. 32 of 255"
    assert labels[1] == ["blurred", "restored"]


def test_panels_of_a_frame_without_a_sharp_one(clips):
    clip, frames = clips[0], []
    clip.gt = lambda start, stop: np.zeros((0, *clip.size, 3), np.uint8)
    utils_eval.evaluate(restore, [clip], Val(), watchers=[frames.append])
    assert [list(metric_files.panels(frame)) for frame in frames] == [["blurred", "spikes", "restored"]] * clip.length


def test_error_map_has_a_fixed_scale():
    sharp = np.full((4, 5, 3), 100, np.uint8)
    restored = sharp.copy()
    restored[0, 0] = 68  # 32 levels in each channel
    restored[0, 1] = 250
    restored[0, 2] = 148, 100, 100  # 16 on average
    restored[0, 3] = 116
    colours = metric_files.error_map(restored, sharp).astype(int)
    assert colours.shape == (4, 5, 3)
    black = colours[1, 1]
    assert black.sum() < 15
    assert np.array_equal(colours[0, 0], colours[0, 1])
    assert np.array_equal(colours[0, 2], colours[0, 3])
    brightness = colours @ (0.299, 0.587, 0.114)
    assert brightness[1, 1] < brightness[0, 2] < brightness[0, 0]
    assert colours[0, 0, 0] > 240  # pale yellow: red and green, less blue
    assert colours[0, 0, 2] < colours[0, 0, 1]
    assert np.array_equal(metric_files.error_map(sharp, restored), metric_files.error_map(restored, sharp))


def compare(clips, folder, dist=ALONE):
    with comparison(folder, dist) as watcher:
        utils_eval.evaluate(restore, clips, Val(), watchers=[watcher])


def test_comparison_files(clips, tmp_path):
    compare(clips, tmp_path)
    picture = utils_image.read_rgb(tmp_path / "comparison.png")
    with av.open(str(tmp_path / "comparison.mp4")) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == metric_files.FRAMES_PER_SECOND
    assert len(frames) == 5
    assert all(side % 2 == 0 for side in frames[0].shape[:2])
    assert picture.shape[1] >= 4 * 320
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_any_number_of_processes_gives_the_same_comparison(clips, tmp_path, monkeypatch):
    @contextmanager
    def write_pictures(path, rate):  # the encoder's bytes are not always the same
        pictures = []
        yield pictures.append
        path.write_bytes(b"".join(picture.tobytes() for picture in pictures))

    monkeypatch.setattr(comparison_video, "video_writer", write_pictures)
    compare(clips, tmp_path)
    alone = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    frames, laid_aside = [], []
    utils_eval.evaluate(restore, clips, Val(), watchers=[frames.append])

    def process(rank, part):
        with comparison(tmp_path, utils_dist.Dist(rank, 3)) as watcher:
            for frame in part:
                watcher(frame)

    def gather(dist, value):
        """Each process waits here for the one before it."""
        if value is not None and dist.rank:
            laid_aside.insert(0, value)
            process(dist.rank - 1, {1: frames[:2], 2: []}[dist.rank])
        return [value, *laid_aside]

    pids = iter(range(100))
    monkeypatch.setattr(os, "getpid", lambda: next(pids))  # these are no processes of their own
    monkeypatch.setattr(utils_dist, "gather_objects", gather)
    process(2, frames[2:])
    assert len(laid_aside) == 2
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == alone


def test_a_comparison_that_cannot_be_written_ends_the_test_with_a_line(clips, tmp_path, monkeypatch):
    @contextmanager
    def full(path, rate, fails):
        def add(picture):
            if fails == "in the middle":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        yield add
        if fails == "at the end":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for fails in ("in the middle", "at the end"):
        monkeypatch.setattr(comparison_video, "video_writer", partial(full, fails=fails))
        with pytest.raises(DiskError, match=r"comparison.mp4: No space left on device"):
            compare(clips, tmp_path)


def test_a_test_that_ends_early_leaves_no_half_comparison(clips, tmp_path):
    def interrupted(window):
        if window.shape[1] == clips[1].length:
            raise KeyboardInterrupt
        return restore(window)

    with pytest.raises(KeyboardInterrupt), comparison(tmp_path, ALONE) as watcher:
        utils_eval.evaluate(interrupted, clips, Val(), watchers=[watcher])
    assert list(tmp_path.iterdir()) == []


def test_video_shows_what_went_in(tmp_path):
    ramp = np.tile(np.linspace(20, 230, 65).astype(np.uint8)[None, :, None], (33, 1, 3))
    utils_video.write_video(tmp_path / "v.mp4", iter([ramp, ramp[::-1], np.zeros((90, 200, 3), np.uint8)]))
    with av.open(str(tmp_path / "v.mp4")) as container:
        first, _, last = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
    assert first.shape == (34, 66, 3)
    assert np.abs(first[:33, :65].astype(int) - ramp).mean() < 4
    assert last[:20].mean() < 30
