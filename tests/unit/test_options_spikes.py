"""Options of the spikes: how many planes each representation gives, and that the network's channels follow."""

import json

import pytest

from data.spike.planes import REPRESENTATIONS
from options.schema import Opt
from options.schema_data import SPIKE_CHANNELS
from utils import utils_option
from utils.utils_error import UserError

DATASET = {
    "dataset_type": "VideoRecurrentTrainDatasetRGBSpike",
    "dataroot_gt": "a",
    "dataroot_lq": "b",
    "dataroot_spike": "c",
}


def load(folder, dataset, **net):
    path = folder / "opt.json"
    path.write_text(json.dumps({"task": "t", "datasets": {"train": DATASET | dataset}, "netG": net}), encoding="utf-8")
    return utils_option.load(path, Opt)


def test_the_schema_knows_every_representation():
    assert set(SPIKE_CHANNELS) | {"raw_window"} == set(REPRESENTATIONS)


@pytest.mark.parametrize(
    ("representation", "channels", "in_chans"),
    [("tfp", {}, 4), ("raw_window", {}, 24), ("bins", {"spike_channels": 6}, 9), ("isi", {"spike_channels": 5}, 8),
     ("sdm", {"spike_channels": 3}, 6), ("sdm", {}, 4)],
)  # fmt: skip
def test_in_chans_follows_the_planes(tmp_path, representation, channels, in_chans):
    opt = load(tmp_path, {"spike": {"representation": representation}} | channels)
    assert (opt.netG.in_chans, opt.datasets.train.spike_channels) == (in_chans, in_chans - 3)
    utils_option.save(opt, tmp_path / "options.json")
    assert utils_option.load(tmp_path / "options.json", Opt) == opt


@pytest.mark.parametrize(
    ("dataset", "parts"),
    [
        ({"spike": {"representation": "sdm"}, "spike_channels": 2}, ["spike_channels is 2", "'sdm'", "gives 1 or 3"]),
        ({"spike": {"representation": "raw_window"}, "spike_channels": 4}, ["spike_channels is 4", "gives 21"]),
        ({"spike": {"representation": "bins"}, "spike_channels": 0}, ["spike_channels is 0", "gives 1 or more"]),
        ({"spike": {"representation": "voxel"}}, ["representation", "voxel", "bins"]),
        ({"spike": {"edge": "zeros"}}, ["spike.edge", "zeros", "mirror"]),
    ],
)
def test_planes_that_a_representation_cannot_give_are_refused(tmp_path, dataset, parts):
    with pytest.raises(UserError) as caught:
        load(tmp_path, dataset)
    assert all(part in str(caught.value) for part in parts), caught.value


def test_given_in_chans_that_contradict_the_planes_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"in_chans is 4.*spike_channels.* = 9"):
        load(tmp_path, {"spike": {"representation": "bins"}, "spike_channels": 6}, in_chans=4)


@pytest.mark.parametrize(("key", "value"), [("nonblind_denoising", True), ("pa_frames", 0)])
def test_networks_that_cannot_be_trained_yet_say_that_testing_works(tmp_path, key, value):
    assert load(tmp_path, {}).untrained is None
    untrained = load(tmp_path, {}, **{key: value}).untrained
    assert untrained.startswith(f"netG.{key} is {str(value).lower()}: this task can be tested here but not trained")
    assert "main_test_vrt.py --task" in untrained


@pytest.mark.parametrize(("key", "value"), [("gain", "manifest"), ("steps_per_plane", 3), ("planes", 9)])
def test_spikes_mean_the_same_in_training_and_testing(tmp_path, key, value):
    spike = {"representation": "moment"}
    test = DATASET | {"dataset_type": "VideoRecurrentTestDatasetRGBSpike", "spike": spike | {key: value}}
    tree = {"train": DATASET | {"spike": spike}, "test": test}
    path = tmp_path / "opt.json"
    path.write_text(json.dumps({"task": "t", "datasets": tree, "netG": {"net_type": "guide"}}), encoding="utf-8")
    with pytest.raises(UserError, match=rf"datasets\.test\.spike\.{key} is {value}; a network needs the same planes"):
        utils_option.load(path, Opt)
