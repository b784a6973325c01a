import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from tiny_set import FIRST, SHARP, SPIKE_SIZE, make_set, options, rng, sdm

from data.augment import Flips, draw_box
from data.clip_index import find_clips
from data.dataset_video_test import VideoTestDataset
from data.dataset_video_train_rgbspike import VideoTrainDatasetRGBSpike
from data.loader import StepBatches, train_batches
from data.select_dataset import define_Dataset
from models.vrt.reconstruct import enlarge
from utils.spike_loader import read_spikes
from utils.utils_error import UserError
from utils.utils_image import write_rgb

# Training samples


def test_sample_has_the_promised_parts(shared_set):
    dataset = define_Dataset(options(shared_set))
    assert isinstance(dataset, VideoTrainDatasetRGBSpike)
    assert len(dataset) == 6
    sample = dataset.sample(4, rng())
    assert sample.keys() == {"lq", "gt", "spike", "key"}
    assert sample["key"] in ("clip_b/000048", "clip_b/000050")
    for name, shape in (("lq", (3, 3, 16, 16)), ("gt", (3, 3, 16, 16)), ("spike", (3, 1, 8, 8))):
        assert sample[name].shape == shape
        assert sample[name].dtype == torch.float32
        assert sample[name].is_contiguous()


def test_without_spikes_there_are_none(shared_set):
    sample = define_Dataset(options(shared_set, spikes=False)).sample(0, rng())
    assert sample.keys() == {"lq", "gt", "key"}


@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_cuts_flips_and_reversal_act_on_all_parts_alike(tmp_path, ratio):
    dataset = VideoTrainDatasetRGBSpike(options(make_set(tmp_path, ratio=ratio), gt_size=8 * ratio))
    seen = set()
    for seed in range(24):
        sample = dataset.sample(seed % len(dataset), rng(seed))
        assert torch.equal(sample["lq"], sample["gt"])
        apart = sample["lq"][:, :1] - enlarge(sample["spike"][None], ratio)[0]
        assert apart[..., ratio:-ratio, ratio:-ratio].abs().max() < 0.51 / 255  # lq was made of the whole frame
        seen.add(sample["lq"].numpy().tobytes())
    assert len(seen) == 24


def test_reversal_turns_the_order_of_the_frames(shared_set):
    dataset = VideoTrainDatasetRGBSpike(options(shared_set, use_hflip=False, use_rot=False, gt_size=32))
    keys = {dataset.sample(0, rng(seed))["key"] for seed in range(8)}
    assert keys == {"clip_a/000047", "clip_a/000049"}


def test_flips_are_horizontal_then_vertical_then_transposed():
    x = torch.arange(6).reshape(1, 2, 3)
    flipped = Flips(hflip=True, vflip=True, transpose=True, reverse=False).apply(x)
    assert torch.equal(flipped[0], x[0].flip(1).flip(0).T)


def test_boxes_reach_every_corner_of_the_grid():
    corners = {(box.top, box.left) for seed in range(200) for box in [draw_box(rng(seed), (12, 10), 8, 2)]}
    assert corners == {(top, left) for top in (0, 2, 4) for left in (0, 2)}


@pytest.mark.parametrize("intervals", [[1], [2], [1, 2], [1, 1, 3]])
def test_over_whole_epochs_every_window_is_read_equally_often(tmp_path, intervals):
    """One interval: exactly. Several: those of one interval in one clip are equally likely, however long it is."""
    make_set(tmp_path, clips=["short"], frames=7)
    make_set(tmp_path, clips=["long"], frames=11)
    dataset = VideoTrainDatasetRGBSpike(options(tmp_path, spikes=False, interval_list=intervals, gt_size=32))
    epochs = 3 if len(intervals) == 1 else 400
    batches = StepBatches(dataset, seed=1, batch_size=1, rank=0, world_size=1)
    read = Counter(batches.name(position) for position in range(epochs * len(dataset)))
    for clip, length in (("short", 7), ("long", 11)):
        per_epoch = length - 2 * min(intervals)
        for interval in set(intervals):
            names = [f"{frame:06d}" for frame in range(FIRST, FIRST + length)]
            windows = [names[start : start + 2 * interval + 1 : interval] for start in range(length - 2 * interval)]
            counts = [read.pop(f"clip {clip} frames {' '.join(window)}") for window in windows]
            wanted = epochs * per_epoch * intervals.count(interval) / len(intervals) / len(windows)
            assert max(abs(count - wanted) for count in counts) <= (0 if epochs == 3 else 4 * wanted**0.5)
    assert not read


def test_interval_skips_frames(shared_set):
    opt = options(shared_set, interval_list=[2], use_hflip=False, use_rot=False, random_reverse=False, gt_size=32)
    dataset = VideoTrainDatasetRGBSpike(opt)
    wanted = dataset.lq.read("clip_a", "000051")
    sample = dataset.sample(0, rng())
    assert sample["key"] == "clip_a/000047"
    assert any(
        np.array_equal(np.round(sample["lq"][2].numpy() * 255).transpose(1, 2, 0), wanted[:, x : x + 32])
        for x in range(0, 17, 2)
    )


def test_smaller_lq_gives_a_smaller_cut(own_set):
    for path in (own_set / "lq").rglob("*.png"):
        write_rgb(path, np.zeros((16, 24, 3), np.uint8))
    sample = VideoTrainDatasetRGBSpike(options(own_set)).sample(0, rng())
    assert sample["lq"].shape == (3, 3, 8, 8)
    assert sample["spike"].shape == (3, 1, 8, 8)
    assert sample["gt"].shape == (3, 3, 16, 16)


def test_cache_keeps_frames_as_uint8(own_set):
    dataset = VideoTrainDatasetRGBSpike(options(own_set, cache_data=True, random_reverse=False, gt_size=32))
    before = dataset.sample(0, rng())
    assert dataset.lq.read("clip_a", "000047").dtype == np.uint8
    shutil.rmtree(own_set / "lq")
    assert torch.equal(dataset.sample(0, rng())["lq"], before["lq"])


# Which clips and frames


def test_meta_info_names_the_clips(shared_set, tmp_path):
    meta = tmp_path / "meta.txt"
    meta.write_text("clip_b 3 (32,48,3) 000048\n\n")
    dataset = VideoTrainDatasetRGBSpike(options(shared_set, meta_info_file=str(meta)))
    assert dataset.clips == {"clip_b": ("000048", "000049", "000050")}


def test_meta_info_of_three_fields_starts_at_zero(tmp_path):
    meta = tmp_path / "meta.txt"
    meta.write_text("000 2 (720,1280,3)\n001 1 (720, 1280, 3) 7\n")
    assert find_clips(tmp_path, None, str(meta), "08d") == {"000": ("00000000", "00000001"), "001": ("00000007",)}


@pytest.mark.parametrize("line", ["clip_a", "clip_a 0 (1,2,3) 0", "clip_a 5 (1,2,3) 0 1", "a 1 (1,2,3)\na 1 (1,2,3)"])
def test_other_meta_lines_are_named(tmp_path, line):
    meta = tmp_path / "meta.txt"
    meta.write_text(line)
    with pytest.raises(UserError, match="meta.txt line"):
        find_clips(tmp_path, None, str(meta), "06d")


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("lq", "dataroot_lq: .*lq is not a folder"),
        ("lq/clip_b", "clip clip_b: .*gt/clip_b has frames, but dataroot_lq has no such clip"),
        ("gt/clip_b", "clip clip_b: .*gt/clip_b is not a folder"),
        ("gt/clip_a/000049.png", "clip clip_a frame 000049: missing in .*"),
        ("lq/clip_a/000049.png", "clip clip_a frame 000049: unpaired in"),
        ("spikes/train/clip_b", "clip clip_b: no .dat files"),
        ("spikes/train/clip_b/spike/000050.dat", "clip clip_b frame 000050: .*no such spike file"),
    ],
)
@pytest.mark.parametrize("kind", ["Train", "Test"])
def test_what_is_missing_is_named_at_construction(own_set, kind, gone, message):
    remove(own_set / gone)
    with pytest.raises(UserError, match=message) as caught:
        define_Dataset(options(own_set, kind))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_frame": 6}, "clip clip_a: has 5 frames, num_frame 6 .* needs 6.*and 1 more"),
        ({"interval_list": [1, 3]}, "needs 7"),
        ({"gt_size": 64}, "gt_size: 64 .* multiple of 2 up to 32"),
        ({"gt_size": 15}, "gt_size: 15 .* multiple of 2"),
        ({"filename_ext": "jpg"}, "there are png files: set filename_ext"),
        ({"io_backend": {"type": "lmdb"}}, "is a folder of images .*--generate-lmdb"),
        (
            {"spike": {"window": 23}},
            r"steps -1..21 are needed, .* 0..21 .*not continuous.*and 4 more of its 5 .*and 1 more",
        ),
        ({"spike": {"window": 5, "center": 22}}, r"steps 20\.\.24 are needed, the stream has 20\.\.23"),
        (
            {"spike_h": 20, "spike_w": 16},
            "options say 20x16, manifest.json says 16x24 .*1152 bytes: no whole number of 20x16 steps, 24 steps of 16",
        ),
        ({"spike": {"window": 9, "flipud": False}}, "spike.flipud: the options say False, .* says True"),
        (
            {"spike": {"window": 9, "rate_at_white": 1.0}},
            "spike.rate_at_white: the options say 1.0, .* says 0.5",
        ),
    ],
)
def test_options_that_do_not_fit_are_named(shared_set, changes, message):
    with pytest.raises(UserError, match=message):
        VideoTrainDatasetRGBSpike(options(shared_set, **changes))


def test_sharp_frames_of_another_shape_are_refused(own_set):
    for path in (own_set / "gt/clip_b").glob("*.png"):
        write_rgb(path, np.zeros((64, 48, 3), np.uint8))
    for kind in ("Train", "Test"):
        with pytest.raises(UserError, match="clip clip_b: gt frames are 64x48, lq frames 32x48"):
            define_Dataset(options(own_set, kind))


# Files that vanish or are cut off later


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("name", ["lq/clip_a/000049.png", "spikes/train/clip_a/spike/000049.dat"])
@pytest.mark.parametrize("damage", ["gone", "empty", "cut"])
def test_damage_in_the_middle_of_an_epoch_names_clip_and_frame(own_set, num_workers, name, damage):
    dataset = VideoTrainDatasetRGBSpike(options(own_set))
    path = own_set / name
    data = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(data[: len(data) // 2 if damage == "cut" else 0])
    batches = train_batches(dataset, seed=0, start_step=0, total_steps=5, batch_size=2, num_workers=num_workers)
    with pytest.raises(UserError, match="^clip clip_a frame 000049: ") as caught:
        list(batches)
    assert "\n" not in str(caught.value)


# Test clips


def test_test_clip_reads_ranges(shared_set):
    dataset = define_Dataset(options(shared_set, "Test"))
    assert isinstance(dataset, VideoTestDataset)
    clip = dataset[1]
    assert (len(dataset), clip.name, clip.size, clip.has_gt, clip.has_spike) == (
        2,
        "clip_b",
        (32, 48),
        True,
        True,
    )
    assert clip.frames == [f"{FIRST + i:06d}" for i in range(5)]
    x = clip.network_input(1, 4)
    assert (x.shape, x.spike.shape) == ((3, 3, 32, 48), (3, 1, *SPIKE_SIZE))
    rgb, spike = x.tensors(torch.device("cpu"))
    assert torch.equal(rgb, clip.lq(1, 4))
    assert torch.equal(spike, clip.spike(1, 4))
    assert (rgb[:, :1] - enlarge(spike[None], 2)[0]).abs().max() < 0.51 / 255
    assert np.array_equal(clip.gt(1, 4), np.round(rgb.permute(0, 2, 3, 1).numpy() * 255))


def test_baseline_is_the_blur_times_a_ratio_of_rates(shared_set):
    clip = VideoTestDataset(options(shared_set, "Test"))[0]
    spikes = read_spikes(shared_set / "spikes/train/clip_a/spike/000049.dat", *SPIKE_SIZE).astype(np.float32)
    blur = clip.gt(2, 3)[0].astype(np.float32) / 255
    wanted = sdm(blur, spikes[SHARP - 4 : SHARP + 5].mean(0), spikes[2:20].mean(0))
    found = clip.references(2)["sdm_"]
    assert found.dtype == np.uint8
    assert np.abs(found - wanted * 255).max() < 0.501


def test_gt_and_spikes_may_be_absent(shared_set):
    clip = VideoTestDataset(options(shared_set, "Test", spikes=False, dataroot_gt=None))[0]
    single = define_Dataset(options(shared_set, spikes=False, dataset_type="SingleVideoRecurrentTestDataset"))
    assert not single[0].has_gt
    assert (clip.has_gt, clip.has_spike, list(clip.references(0))) == (False, False, ["lq_"])
    assert clip.network_input(0, 2).shape == (2, 3, 32, 48)


def test_the_folder_may_be_one_clip(shared_set):
    changes = {"dataroot_lq": str(shared_set / "lq/clip_b"), "dataroot_gt": str(shared_set / "gt/clip_b")}
    clips = VideoTestDataset(options(shared_set, "Test", **changes))
    assert [clip.name for clip in clips] == ["clip_b"]
    assert clips[0].network_input(0, 1).shape == (1, 3, 32, 48)
    assert clips[0].network_input(0, 1).spike.shape == (1, 1, *SPIKE_SIZE)
    assert clips[0].gt(0, 5).shape == (5, 32, 48, 3)


def test_only_the_asked_frames_are_read(own_set):
    clip = VideoTestDataset(options(own_set, "Test"))[0]
    remove(own_set / "lq/clip_a/000050.png")
    clip.network_input(0, 3)
    with pytest.raises(UserError, match="clip clip_a frame 000050"):
        clip.lq(2, 4)


def test_sharp_frames_must_be_as_much_larger_as_the_network_makes_them(shared_set):
    with pytest.raises(UserError, match="1 times as large.*netG.upscale is 4"):
        define_Dataset(options(shared_set), upscale=4)
    with pytest.raises(UserError, match="1 times as large.*netG.upscale is 4"):
        define_Dataset(options(shared_set, "Test"), upscale=4)
