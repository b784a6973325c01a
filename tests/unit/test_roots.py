"""A root that is one clip's folder serves one clip; sizes of all test clips are known before the first is restored."""

import shutil

import numpy as np
import pytest
from tiny_set import make_set, options

from data.check import check_dataset
from data.dataset_video_test import VideoTestDataset
from data.select_dataset import define_Dataset
from data.task_clips import middle_clips
from utils.utils_error import UserError
from utils.utils_image import write_rgb

BOTH = pytest.mark.parametrize("kind", ["Train", "Test"])


@BOTH
@pytest.mark.parametrize("key", ["dataroot_gt", "dataroot_spike"])
def test_one_clips_root_serves_no_second_clip(shared_set, kind, key):
    root = shared_set / {"dataroot_gt": "gt/clip_a", "dataroot_spike": "spikes/train/clip_a"}[key]
    opt = options(shared_set, kind, **{key: str(root)})
    with pytest.raises(UserError, match=f"{root}.* of one clip, expected those of 2 .clip_a, clip_b") as caught:
        define_Dataset(opt)
    assert key in str(caught.value)
    assert "\n" not in str(caught.value)
    defects = check_dataset(opt, full=key == "dataroot_gt")
    assert len(defects) == (1 if key == "dataroot_gt" else 2)
    assert all("of one clip" in line for line in defects)


@BOTH
def test_a_meta_file_of_several_clips_needs_a_root_of_several(shared_set, tmp_path, kind):
    (tmp_path / "meta.txt").write_text("clip_a 5 (32,48,3) 47\nclip_b 5 (32,48,3) 47\n")
    opt = options(
        shared_set, kind, dataroot_lq=str(shared_set / "lq/clip_a"), meta_info_file=str(tmp_path / "meta.txt")
    )
    with pytest.raises(UserError, match="dataroot_lq: .*lq/clip_a holds the frames of one clip, expected those of 2"):
        define_Dataset(opt)


def test_a_clip_without_spikes_does_not_take_those_of_the_root(own_set):
    spikes = own_set / "spikes/train"
    for path in (spikes / "clip_b/spike").iterdir():
        shutil.move(path, spikes)
    with pytest.raises(UserError, match="clip clip_b: no .dat files in .*clip_b/spike"):
        VideoTestDataset(options(own_set, "Test"))
    shutil.rmtree(own_set / "lq/clip_a")
    shutil.rmtree(own_set / "gt/clip_a")
    with pytest.raises(UserError, match="clip clip_b: no .dat files in .*clip_b/spike"):  # clip_a has a folder there
        VideoTestDataset(options(own_set, "Test"))
    shutil.rmtree(spikes / "clip_a")
    assert VideoTestDataset(options(own_set, "Test"))[0].name == "clip_b"


def test_single_clips_of_other_names_are_a_pair(tmp_path):
    root = make_set(tmp_path, clips=("clip_a",))
    (root / "gt/clip_a").rename(root / "gt/elsewhere")
    (root / "spikes/train/clip_a").rename(root / "spikes/train/again_elsewhere")
    places = {"lq": "lq/clip_a", "gt": "gt/elsewhere", "spike": "spikes/train/again_elsewhere"}
    changes = {f"dataroot_{key}": str(root / place) for key, place in places.items()}
    clip = VideoTestDataset(options(root, "Test", **changes))[0]
    assert (clip.name, clip.gt(0, 5).shape, clip.spike(0, 1).shape) == ("clip_a", (5, 32, 48, 3), (1, 1, 16, 24))


def test_one_clip_against_several_is_named(shared_set):
    opt = options(shared_set, "Test", dataroot_lq=str(shared_set / "lq/clip_a"), spikes=False)
    with pytest.raises(UserError, match="clip clip_b: .*gt/clip_b has frames, but dataroot_lq has no such clip"):
        VideoTestDataset(opt)


def test_middle_frames_are_not_those_of_another_clip(shared_set):
    opt = options(shared_set, "Test", spikes=False, dataroot_gt=str(shared_set / "gt/clip_a"))
    test_set = VideoTestDataset(opt.model_copy(update={"dataroot_gt": None}))
    with pytest.raises(UserError, match="gt/clip_a holds the frames of one clip, expected those of 2"):
        middle_clips(test_set, opt, window=2)


def test_sharp_frames_twice_as_large_in_the_second_clip_are_found_first(own_set):
    for path in (own_set / "gt/clip_b").iterdir():
        write_rgb(path, np.zeros((64, 96, 3), np.uint8))
    with pytest.raises(UserError, match="clip_a gt frames of 32x48 over 32x48 and clip clip_b .* 64x96 over 32x48"):
        VideoTestDataset(options(own_set, "Test"))


def test_middle_frames_of_another_size_are_found_first(own_set):
    for path in (own_set / "gt/clip_b").iterdir():
        write_rgb(path, np.zeros((64, 96, 3), np.uint8))
    for path in [*own_set.glob("lq/*/000048.png"), *own_set.glob("lq/*/000050.png")]:
        path.unlink()
    opt = options(own_set, "Test", spikes=False)
    test_set = VideoTestDataset(opt.model_copy(update={"dataroot_gt": None}))
    with pytest.raises(UserError, match="clip clip_b: .*64x96, .*expected 32x48"):
        middle_clips(test_set, opt, window=2)


def test_spikes_that_do_not_fit_the_second_clips_frames_are_found_first(own_set):
    for path in [*(own_set / "gt/clip_b").iterdir(), *(own_set / "lq/clip_b").iterdir()]:
        write_rgb(path, np.zeros((32, 72, 3), np.uint8))
    with pytest.raises(UserError, match="clip clip_b: RGB frames of 32x72 over spikes of 16x24 give no whole ratio"):
        VideoTestDataset(options(own_set, "Test"))


def test_spikes_with_an_upper_case_suffix_are_named(own_set):
    for path in (own_set / "spikes/train/clip_b/spike").iterdir():
        path.rename(path.with_suffix(".DAT"))
    with pytest.raises(UserError, match="clip clip_b: no .dat files in .*; there is 0000...DAT: rename such files"):
        VideoTestDataset(options(own_set, "Test"))
