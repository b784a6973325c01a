import csv
import json

import av
import numpy as np
import pytest
from test_eval import FakeClip, Val, restore

from utils import utils_eval, utils_image, utils_report


@pytest.fixture
def clips():
    return [FakeClip("alpha", 3), FakeClip("b", 2, size=(17, 31))]


@pytest.fixture
def result(clips, tmp_path):
    return utils_eval.evaluate(restore, clips, Val(), watchers=[utils_eval.frame_writer(tmp_path)])


def test_metric_files(result, tmp_path):
    result["clips"]["alpha"]["psnr"] = float("inf")
    result["frames"][0]["psnr"] = float("inf")
    utils_report.write_metrics(result, tmp_path)
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
    lines = utils_report.table(result).splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["alpha", "b"]
    assert lines[-1].startswith("mean")
    assert len({len(line) for line in lines}) == 1
    mean = result["mean"]
    assert f"{mean['psnr'] - mean['lq_psnr']:+.2f} dB" in lines[-1]
    assert f"{mean['sdm_psnr']:.2f} dB / {mean['sdm_ssim']:.4f}" in lines[-1]


def test_table_without_sharp_frames_says_so(clips):
    for clip in clips:
        clip.has_gt = False
    assert "no sharp frames" in utils_report.table(utils_eval.evaluate(restore, clips, Val()))


def test_panels_follow_what_the_clip_has(clips):
    clip = clips[0]
    image = clip._gt[0]
    labels = list(utils_report.panels(clip, 0, image, {"psnr": 30.0, "lq_psnr": 20.0}))
    assert labels == ["blurred  20.00 dB", "spikes", "restored  30.00 dB", "sharp"]
    clip.has_gt = clip.has_spike = False
    assert list(utils_report.panels(clip, 0, image, {})) == ["blurred", "restored"]


def test_row_holds_the_pictures_unchanged_but_for_their_size():
    red, blue = np.zeros((2, 90, 160, 3), dtype=np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    row = utils_report.side_by_side("clip", {"one": red, "two": blue})
    assert row.dtype == np.uint8
    assert (row == [255, 0, 0]).all(axis=2).sum() == 180 * 320
    assert (row == [0, 0, 255]).all(axis=2).sum() == 180 * 320


def test_board_gets_one_picture_a_clip(clips):
    class Board(list):
        def image(self, step, name, image):
            self.append((step, name, image.dtype))

    board = Board()
    utils_eval.evaluate(restore, clips, Val(), watchers=[utils_report.board_images(board, 7)])
    assert board == [(7, "alpha", np.uint8), (7, "b", np.uint8)]


def test_comparison_files(result, clips, tmp_path):
    utils_report.write_comparison(result, clips, tmp_path)
    picture = utils_image.read_rgb(tmp_path / "comparison.png")
    with av.open(str(tmp_path / "comparison.mp4")) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == utils_report.FRAMES_PER_SECOND
    assert len(frames) == 5
    assert all(side % 2 == 0 for side in frames[0].shape[:2])
    assert picture.shape[1] >= 4 * 320
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_video_shows_what_went_in(tmp_path):
    ramp = np.tile(np.linspace(20, 230, 65).astype(np.uint8)[None, :, None], (33, 1, 3))
    utils_report.write_video(tmp_path / "v.mp4", iter([ramp, ramp[::-1], np.zeros((90, 200, 3), np.uint8)]))
    with av.open(str(tmp_path / "v.mp4")) as container:
        first, _, last = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
    assert first.shape == (34, 66, 3)
    assert np.abs(first[:33, :65].astype(int) - ramp).mean() < 4
    assert last[:20].mean() < 30
