"""scripts/check_data.py: every defect of a data set by clip and frame."""

import json
import logging
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.check import check_dataset, open_dataset
from data.layout import DatasetWriter, Frame
from data.spike.manifest import ClipTiming, Manifest
from data.spike.simulator import integrate_and_fire
from options.schema import DatasetOpt
from utils.spike_loader import read_spikes, write_spikes
from utils.utils_colour import to_gray
from utils.utils_error import UserError
from utils.utils_image import write_rgb

ROOT = Path(__file__).resolve().parents[2]
SIZE, STEPS, FRAMES = (24, 32), 40, 3
CLIPS = ("clip_a", "clip_b")


def still_clip(rng):
    """Frames of smooth, unrelated pictures and the spikes that a sensor at half the size gives."""
    for _ in range(FRAMES):
        coarse = rng.random((4, 5, 3), dtype=np.float32)
        small = np.clip(cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_CUBIC), 0, 1)
        spikes, _ = integrate_and_fire(np.repeat(to_gray(small)[None], STEPS, 0), 2.0, rng)
        picture = np.round(cv2.resize(small, (2 * SIZE[1], 2 * SIZE[0])) * 255).astype(np.uint8)
        yield Frame(picture, picture, spikes)


@pytest.fixture
def data(tmp_path):
    manifest = Manifest(
        spike_h=SIZE[0], spike_w=SIZE[1], rgb_h=2 * SIZE[0], rgb_w=2 * SIZE[1], flipud=True, clock_hz=1e4,
        rate_at_white=0.5, transfer="srgb", noise="none", continuous=True, clips={},
    )  # fmt: skip
    rng = np.random.default_rng(0)
    root = tmp_path / "set"
    with DatasetWriter(root, manifest) as writer:
        for clip in CLIPS:
            writer.add_clip("train", clip, still_clip(rng), ClipTiming(steps=STEPS, exposure=(0, 40), sharp_step=20))
        writer.finish()
    return root


def tree(root):
    return {
        "dataset_type": "VideoRecurrentTrainDatasetRGBSpike",
        "dataroot_gt": str(root / "train_GT"),
        "dataroot_lq": str(root / "train_GT_blurred"),
        "dataroot_spike": str(root / "GOPRO_Large_spike_seq/train"),
        "num_frame": 2,
        "gt_size": 16,
    }


def defects(root, full=True):
    return check_dataset(DatasetOpt.model_validate(tree(root)), full=full)


def dat(root, clip, frame):
    return root / f"GOPRO_Large_spike_seq/train/{clip}/spike/{frame}.dat"


@pytest.fixture
def program(tmp_path, run_program):
    """Run the script on a set: exit code, stdout, stderr."""

    def run(root):
        path = tmp_path / "opt.json"
        path.write_text(json.dumps({"task": "t", "datasets": {"train": tree(root)}}), encoding="utf-8")
        return run_program("scripts/check_data.py", "--opt", path)

    return run


def test_a_sound_set_has_no_defect(program, data):
    code, out, err = program(data)
    assert code == 0, err
    assert "no defects" in out


def test_every_defect_is_listed_with_clip_and_frame(program, data):
    (data / "train_GT/clip_a/000001.png").unlink()
    sharp = data / "train_GT/clip_b/000002.png"
    sharp.write_bytes(sharp.read_bytes()[:-20])
    write_rgb(data / "train_GT_blurred/clip_b/000000.png", np.zeros((20, 20, 3), np.uint8))
    short = dat(data, "clip_a", "000000")
    short.write_bytes(short.read_bytes()[:-5])
    dat(data, "clip_a", "000002").unlink()
    dark = dat(data, "clip_b", "000001")
    write_spikes(dark, np.zeros((STEPS, *SIZE), np.uint8))

    code, out, err = program(data)
    wanted = [
        "clip clip_a frame 000000: .*000000.dat: 3835 bytes is not a multiple",
        "clip clip_a frame 000001: missing in .*train_GT",
        "clip clip_a frame 000002: .*000002.dat: no such spike file",
        "clip clip_b frame 000000: the sharp frame is 48x64, expected 20x20",
        "clip clip_b frame 000001: .*000001.dat: no pixel fires in any of its 40 steps",
        "clip clip_b frame 000002: .*000002.png: .* not a complete image",
    ]
    assert code == 2
    lines = out.splitlines()
    for pattern in wanted:
        assert sum(bool(re.search(pattern, line)) for line in lines) == 1, (pattern, lines)
    assert f"{len(lines) - 1} defects" in lines[-1]
    assert "Traceback" not in err


def test_the_fast_form_lists_what_file_sizes_tell_and_decodes_nothing(data):
    dark = dat(data, "clip_b", "000001")
    write_spikes(dark, np.zeros((STEPS, *SIZE), np.uint8))
    for clip in CLIPS:
        short = dat(data, clip, "000002")
        short.write_bytes(short.read_bytes()[:-5])
    found = defects(data, full=False)
    assert [line[: len("clip clip_a frame 000002")] for line in found] == [f"clip {c} frame 000002" for c in CLIPS]


def test_rows_that_lie_upside_down_are_found(data):
    path = dat(data, "clip_a", "000001")
    write_spikes(path, read_spikes(path, *SIZE), flipud=False)
    (found,) = defects(data)
    assert "clip clip_a frame 000001" in found
    assert "upside down" in found


def test_spikes_of_another_frame_are_found(data):
    for frame in ("000000", "000001"):
        dat(data, "clip_a", frame).write_bytes(dat(data, "clip_b", "000002").read_bytes())
    found = defects(data)
    assert found
    assert all("does not match the blurred frame" in line or "upside down" in line for line in found)
    assert {line[:24] for line in found} <= {"clip clip_a frame 000000", "clip clip_a frame 000001"}


def test_a_wrong_clip_does_not_hide_the_others(data):
    for path in (data / "GOPRO_Large_spike_seq/train/clip_a/spike").iterdir():
        path.unlink()
    short = dat(data, "clip_b", "000001")
    short.write_bytes(short.read_bytes()[:-5])
    found = defects(data, full=False)
    assert any("clip clip_a: no .dat files" in line for line in found)
    assert any("clip clip_b frame 000001" in line for line in found)


def test_training_lists_all_defects_and_ends_with_the_first(data, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("spikevrt"), "propagate", True)
    for clip in CLIPS:
        (data / f"train_GT/{clip}/000001.png").unlink()
    with caplog.at_level("ERROR", "spikevrt"), pytest.raises(UserError, match="clip_a frame 000001.*and 1 more"):
        open_dataset(DatasetOpt.model_validate(tree(data)))
    assert [record.message[5:11] for record in caplog.records] == list(CLIPS)


def test_options_without_a_data_set_are_refused(tmp_path, run_program):
    path = tmp_path / "opt.json"
    path.write_text('{"task": "t"}', encoding="utf-8")
    code, _, err = run_program("scripts/check_data.py", "--opt", path)
    assert code == 2
    assert "neither train nor test" in err
