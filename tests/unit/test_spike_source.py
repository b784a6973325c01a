import logging
import shutil

import numpy as np
import pytest
from spike_scenes import GOPRO, real_file
from tiny_set import SHARP, SPIKE_SIZE, STEPS, WINDOW, make_set, options, rng

from data.augment import draw_box
from data.check import open_dataset, open_test_set, open_train_sets
from data.dataset_video_test import VideoTestDataset
from data.dataset_video_train_rgbspike import VideoTrainDatasetRGBSpike
from data.geometry import Box
from data.select_dataset import define_Dataset
from data.spike.manifest import ClipTiming, Manifest
from data.spike.planes import Representation
from data.spike.representations import upsample
from options.schema import DatasetsOpt
from utils.spike_loader import read_spikes, write_spikes
from utils.utils_colour import linear_to_srgb
from utils.utils_error import UserError
from utils.utils_image import write_rgb


def test_a_cut_of_the_planes_is_that_cut_of_the_whole(shared_set):
    dataset = VideoTrainDatasetRGBSpike(options(shared_set, use_hflip=False, use_rot=False))
    source, frame = dataset.spikes, dataset.clips["clip_a"][0]
    whole = source.planes("clip_a", frame, Box(0, 0, *SPIKE_SIZE), 2).planes
    for top, left in ((0, 0), (3, 5), (8, 16), (4, 0)):
        box = Box(top, left, 8, 8)
        assert np.allclose(source.planes("clip_a", frame, box, 2).planes, whole[:, box.rows, box.cols], atol=1e-6)


def test_a_reversed_sample_sees_its_spikes_mirrored_about_the_sharp_step(shared_set):
    source = VideoTrainDatasetRGBSpike(options(shared_set)).spikes
    seen = []

    def make(moment, window, channels):
        seen.append(moment)
        return np.zeros((1, 16, 24), "f4")

    source.represent = Representation(make, reads_exposure=False)
    for reverse in (False, True):
        source.planes("clip_a", "000047", Box(0, 0, *SPIKE_SIZE), 1, reverse=reverse)
    path = shared_set / "spikes/train/clip_a/spike/000047.dat"
    wanted = read_spikes(path, *SPIKE_SIZE, steps=(SHARP - WINDOW // 2, SHARP + WINDOW // 2 + 1))
    assert np.array_equal(seen[0].spikes, wanted)
    assert np.array_equal(seen[1].spikes, wanted[::-1])
    assert seen[0].center == seen[1].center == WINDOW // 2
    assert (seen[0].exposure, seen[1].exposure) == ((-4, 14), (-5, 13))


def test_frames_that_are_no_whole_multiple_of_the_spikes_are_refused(own_set):
    for path in own_set.rglob("*.png"):
        write_rgb(path, np.zeros((32, 72, 3), np.uint8))
    with pytest.raises(UserError, match="32x72 over spikes of 16x24 give no whole ratio"):
        VideoTrainDatasetRGBSpike(options(own_set))


# Spikes without a manifest, and of a wrong size


def gopro_set(root):
    timing = ClipTiming(steps=24, exposure=(0, 17), sharp_step=8)
    return make_set(root, clips=("GOPR0001_03_00",), manifest=False, timing=timing)


def test_gopro_rules_hold_without_a_manifest_and_are_said_once(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("spikevrt"), "propagate", True)
    root = gopro_set(tmp_path)
    last = root / "spikes/train/GOPR0001_03_00/spike/000051.dat"
    write_spikes(last, np.zeros((17, *SPIKE_SIZE), np.uint8))
    with caplog.at_level("WARNING", "spikevrt"):
        dataset = VideoTrainDatasetRGBSpike(options(root, spike_h=16, spike_w=24))
    assert sum("using GoPro's rules" in record.message for record in caplog.records) == 1
    assert dataset.spikes.reader.target_step("GOPR0001_03_00") == 8
    assert dataset.spikes.sensor == (16, 24, True, 0.5, "little")
    write_spikes(last.with_name("000050.dat"), np.zeros((17, *SPIKE_SIZE), np.uint8))
    with pytest.raises(UserError, match="frame 000050: .* has 17 steps of 16x24, expected 24"):
        VideoTrainDatasetRGBSpike(options(root, spike_h=16, spike_w=24))


def test_size_missing_everywhere_is_named(tmp_path):
    with pytest.raises(UserError, match="are null and .* has neither manifest.json nor config.yaml"):
        VideoTrainDatasetRGBSpike(options(gopro_set(tmp_path)))


def test_all_files_are_sized_up(own_set):
    path = own_set / "spikes/train/clip_b/spike/000051.dat"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match="clip clip_b frame 000051: .*000051.dat: 1147 bytes"):
        VideoTrainDatasetRGBSpike(options(own_set))
    write_spikes(path, np.zeros((STEPS + 1, *SPIKE_SIZE), np.uint8))
    with pytest.raises(UserError, match="has 25 steps of 16x24, expected 24"):
        VideoTrainDatasetRGBSpike(options(own_set))


def test_a_likelier_geometry_is_said_aloud(shared_set, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("spikevrt"), "propagate", True)
    monkeypatch.setattr("data.spike.reader.likelier_size", lambda packed, h, w: (360, 640))
    with caplog.at_level("WARNING", "spikevrt"):
        VideoTestDataset(options(shared_set, "Test"))
    assert "looks like 360x640 spikes, not like 16x24" in caplog.text


# The real thing


def test_the_real_gopro_frame_shows_its_sharp_picture(tmp_path):
    clip = "GOPR0384_11_00"
    spikes = tmp_path / "spikes/train" / clip
    spikes.mkdir(parents=True)
    shutil.copy(real_file(GOPRO), spikes / "000226.dat")
    for kind in ("lq", "gt"):
        (tmp_path / kind / clip).mkdir(parents=True)
        shutil.copy(real_file("spkgopro_000226_sharp.png"), tmp_path / kind / clip / "000226.png")
    changes = {"spike": {"window": 21}, "num_frame": 1, "gt_size": 192}
    with pytest.raises(UserError, match="250.*400.*360x640"):
        define_Dataset(options(tmp_path, **changes, spike_h=250, spike_w=400))
    with pytest.raises(UserError, match="has 352 steps of 180x320, expected 88 or 81"):
        define_Dataset(options(tmp_path, **changes, spike_h=180, spike_w=320))
    dataset = define_Dataset(options(tmp_path, **changes, spike_h=360, spike_w=640))

    whole = dataset.spikes.planes(clip, "000226", Box(0, 0, 360, 640), 2).planes
    gray = dataset.gt.read(clip, "000226") @ np.array([0.299, 0.587, 0.114]) / 255
    psnr = -10 * np.log10(np.square(upsample(whole[0], gray.shape) - gray).mean())
    assert psnr > 27
    for seed in range(20):
        box = draw_box(rng(seed), (360, 640), 96, 1)
        part = dataset.spikes.planes(clip, "000226", box, 2).planes
        assert np.allclose(part, whole[:, box.rows, box.cols], atol=1e-6)


def test_planes_of_a_sensor_of_linear_light_are_in_srgb(tmp_path):
    make_set(tmp_path)
    light = VideoTrainDatasetRGBSpike(options(tmp_path)).spikes
    name, frame = "clip_a", "000048"
    whole = Box(0, 0, *SPIKE_SIZE)
    plain = light.planes(name, frame, whole, 1).planes
    manifest = Manifest.load(tmp_path / "spikes/train")
    manifest.model_copy(update={"transfer": "linear"}).save(tmp_path / "spikes")
    coded = VideoTrainDatasetRGBSpike(options(tmp_path)).spikes.planes(name, frame, whole, 1).planes
    assert np.allclose(coded, linear_to_srgb(plain), atol=1e-6)
    assert coded.mean() > plain.mean() + 0.05


# Spikes that never or always fire


def fire(root, clip, frames, bit):
    for frame in frames:
        path = root / f"spikes/train/{clip}/spike/{frame}.dat"
        steps = read_spikes(path, *SPIKE_SIZE)
        steps[2:20] = bit  # the exposure
        write_spikes(path, steps)


FRAMES = [f"{number:06d}" for number in range(47, 52)]
OPENED = {
    "Test": lambda root: open_test_set(DatasetsOpt(test=options(root, "Test"))),
    "Train": lambda root: open_train_sets(DatasetsOpt(train=options(root))),
}
VERDICTS = {0: "no pixel fires in any step of the exposure", 1: "every pixel fires in each step of the exposure"}


@pytest.mark.parametrize("kind", OPENED)
@pytest.mark.parametrize("bit", VERDICTS)
def test_a_clip_whose_spikes_show_nothing_is_refused_and_single_frames_are_told(kind, bit, own_set, heard):
    fire(own_set, "clip_b", FRAMES[1:4], bit)
    OPENED[kind](own_set)
    said = f"clip clip_b: 3 of 5 frames, the first 000048: {VERDICTS[bit]}"
    assert [record.message.partition(";")[0] for record in heard.records if "fires" in record.message] == [said]
    fire(own_set, "clip_b", FRAMES, bit)
    with pytest.raises(UserError, match=f"clip clip_b: 5 of 5 frames, the first 000047: {VERDICTS[bit]}") as error:
        OPENED[kind](own_set)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("bit", VERDICTS)
def test_black_and_white_frames_may_have_such_spikes(bit, own_set, heard):
    for frame in FRAMES:
        write_rgb(own_set / f"lq/clip_b/{frame}.png", np.full((32, 48, 3), 255 * bit, np.uint8))
    fire(own_set, "clip_b", FRAMES, bit)
    OPENED["Test"](own_set)
    assert "fires" not in heard.text


def test_a_program_may_measure_what_a_network_does_without_spikes(own_set):
    """benchmarks/spikes_pay.py fires none on purpose, and opens its sets by `open_dataset`."""
    fire(own_set, "clip_a", FRAMES, 0)
    clip = open_dataset(options(own_set, "Test"))[0]
    assert not clip.spike(0, 1).any()
