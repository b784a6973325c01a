"""The option files of KAIR's nine VRT tasks load; those that are trained here train, the others say how to test."""

import argparse
import json
import logging
from pathlib import Path

import pytest
from test_main_test import run
from test_tasks import numbered, write_clip
from tiny_network import TINY, overrides

import main_train_vrt
from data.select_dataset import define_Dataset
from models.select_network import define_G
from options.kair_keys import OTHER_DATASET_TYPES
from options.schema import NetOpt, Opt
from utils import utils_checkpoint, utils_option
from utils.utils_error import UserError
from utils.utils_json import read_json

STYLE = read_json(Path(__file__).resolve().parents[1] / "golden/kair_style.json")
DIMS = {"embed_dims": [96] * 7 + [120] * 4, "num_heads": [6] * 11, "depths": [8] * 7 + [4] * 4}
SUPER = {
    "upscale": 4,
    "depths": [8] * 7 + [4] * 6,
    "embed_dims": [120] * 7 + [180] * 6,
    "num_heads": [6] * 13,
    "indep_reconsts": [11, 12],
}
VIMEO = {"img_size": [8, 64, 64], "window_size": [8, 8, 8], "pa_frames": 4, "deformable_groups": 16}
VIMEO_SET = {
    "dataset_type": "VideoRecurrentTrainVimeoDataset",
    "meta_info_file": "data/meta_info/meta_info_Vimeo90K_train_GT.txt",
    "num_frame": -1,
    "pad_sequence": True,
    "mirror_sequence": True,
}
VIMEO_TEST = {"dataset_type": "VideoTestVimeo90KDataset", "pad_sequence": True, "meta_info_file": "m.txt"}
DENOISING = {
    "dataset_type": "VideoRecurrentTrainNonblindDenoisingDataset",
    "dataroot_lq": None,
    "sigma_min": 0,
    "sigma_max": 50,
}
BETWEEN = {
    "dataset_type": "VideoRecurrentTrainVimeoVFIDataset",
    "color_jitter": True,
    "pad_sequence": True,
    "num_frame": -1,
}
FRAMES_BETWEEN = {
    "img_size": [4, 192, 192],
    "window_size": [4, 8, 8],
    "indep_reconsts": [],
    "pa_frames": 0,
    "deformable_groups": 0,
    **DIMS,
}
# File -> what it changes in the blocks netG, datasets.train, datasets.test and train of a GoPro file.
FILES = {
    "001_train_vrt_videosr_bi_reds_6frames": (
        SUPER | {"img_size": [6, 64, 64], "window_size": [6, 8, 8], "deformable_groups": 12},
        {"val_partition": "REDS4", "filename_tmpl": "08d"},
        {},
        {},
    ),
    "002_train_vrt_videosr_bi_reds_16frames": (
        SUPER | {"img_size": [16, 64, 64], "window_size": [8, 8, 8], "pa_frames": 6, "deformable_groups": 24},
        {"val_partition": "REDS4", "num_frame": 16, "temporal_scale": 1},
        {},
        {},
    ),
    "003_train_vrt_videosr_bi_vimeo": (SUPER | VIMEO, VIMEO_SET, VIMEO_TEST, {}),
    "004_train_vrt_videosr_bd_vimeo": (SUPER | VIMEO, VIMEO_SET, {}, {}),
    "005_train_vrt_videodeblurring_dvd": ({}, {"filename_tmpl": "05d", "filename_ext": "jpg"}, {}, {}),
    "006_train_vrt_videodeblurring_gopro": ({}, {}, {}, {}),
    "007_train_vrt_videodeblurring_reds": ({}, {"val_partition": "official"}, {}, {}),
    "008_train_vrt_videodenoising_davis": (
        {"nonblind_denoising": True},
        DENOISING,
        {"dataroot_lq": None, "sigma": 30},
        {},
    ),
    "009_train_vrt_videofi_vimeo": (
        FRAMES_BETWEEN,
        BETWEEN,
        {"dataset_type": "VFI_DAVIS"},
        {"fix_iter": -1, "fix_lr_mul": 0, "fix_keys": None},
    ),
}
TESTED_ONLY = [name for name in FILES if name[:3] in ("003", "004", "008", "009")]


def kair_file(folder, name, **test):
    """Write one of the nine files; `test` changes its test set."""
    net, train_set, test_set, train = FILES[name]
    tree = json.loads(json.dumps(STYLE)) | {"task": name}
    tree["netG"] |= net
    tree["datasets"]["train"] |= train_set
    tree["datasets"]["test"] |= test_set | test
    tree["train"] |= train
    path = folder / f"{name}.json"
    path.write_text("// as KAIR writes it\n" + json.dumps(tree), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", FILES)
def test_kairs_file_loads_for_a_test_and_as_saved(tmp_path, name):
    path = kair_file(tmp_path, name)
    opt = utils_option.load(path, Opt)
    assert opt.datasets.test.dataset_type == "VideoRecurrentTestDataset"
    utils_option.save(opt, tmp_path / "options.json")
    assert utils_option.load(tmp_path / "options.json", Opt) == opt
    official = next(file for task, file in utils_option.task_files().items() if task.startswith(f"{name[:3]}_VRT"))
    geometry = ("img_size", "window_size", "depths", "embed_dims", "num_heads", "pa_frames", "indep_reconsts")
    expected = utils_option.load(official, Opt).netG
    assert [getattr(opt.netG, key) for key in geometry] == [getattr(expected, key) for key in geometry]


@pytest.mark.parametrize("name", FILES)
def test_a_training_starts_or_says_that_testing_works_and_how(tmp_path, name):
    path = kair_file(tmp_path, name)
    with pytest.raises(UserError) as caught:
        main_train_vrt.main(main_train_vrt.read_options(argparse.Namespace(opt=path, set=[], debug=False)))
    message = str(caught.value)
    assert "\n" not in message
    if name in TESTED_ONLY:
        assert f"main_test_vrt.py --task {name[:3].replace('004', '003')}_VRT" in message
        assert str(path) in message
    else:
        assert "dataroot" in message  # it went on to its data, which is not here


def test_every_key_without_effect_is_named(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("spikevrt"), "propagate", True)
    keys = {"008": "sigma_min sigma_max", "009": "color_jitter pad_sequence netG.spynet_path", "003": "mirror_sequence"}
    for name in FILES:
        caplog.clear()
        with caplog.at_level(logging.INFO, "spikevrt"):
            utils_option.load(kair_file(tmp_path, name), Opt)
        assert [key for key in keys.get(name[:3], "").split() if key not in caplog.text] == []


def test_a_file_of_denoising_is_tested_with_its_own_noise_level(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny = {**TINY, "nonblind_denoising": True, "no_checkpoint_attn_blocks": [], "no_checkpoint_ffn_blocks": []}
    write_clip(tmp_path / "clean", "a", numbered(0, 1))
    net = define_G(NetOpt(in_chans=3, **tiny))
    utils_checkpoint.write_weights(net.state_dict(), tmp_path / "w.pth")
    name = "008_train_vrt_videodenoising_davis"
    path = kair_file(tmp_path, name, dataroot_gt=str(tmp_path / "clean"))
    sets = overrides(tiny)
    run("--opt", path, "--set", f"path.pretrained_netG={tmp_path / 'w.pth'}", "val.metrics=[]", *sets)
    found = json.loads((tmp_path / "results" / name / "run.json").read_text(encoding="utf-8"))
    assert found["sigma"] == 30


def test_a_noise_level_without_a_network_for_it_is_named(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("spikevrt"), "propagate", True)
    with caplog.at_level(logging.INFO, "spikevrt"):
        utils_option.load(kair_file(tmp_path, "006_train_vrt_videodeblurring_gopro", sigma=10), Opt)
    assert "datasets.test.sigma has no effect" in caplog.text


def test_options_of_training_in_the_test_block_are_named(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("spikevrt"), "propagate", True)
    with caplog.at_level(logging.INFO, "spikevrt"):
        path = kair_file(tmp_path, "006_train_vrt_videodeblurring_gopro", dataloader_batch_size=2, use_rot=True)
        utils_option.load(path, Opt)
    assert "datasets.test.dataloader_batch_size has no effect" in caplog.text
    assert "use_rot" not in caplog.text  # as it is by itself


def test_a_dataset_type_may_be_written_in_any_case(tmp_path):
    path = kair_file(tmp_path, "006_train_vrt_videodeblurring_gopro", dataset_type="videorecurrenttestdataset")
    assert utils_option.load(path, Opt).datasets.test.dataset_type == "VideoRecurrentTestDataset"


@pytest.mark.parametrize("kind", OTHER_DATASET_TYPES)
def test_a_training_set_of_another_task_says_that_testing_works(tmp_path, kind):
    tree = {"task": "t", "datasets": {"train": {"dataset_type": kind}}}
    (tmp_path / "t.json").write_text(json.dumps(tree), encoding="utf-8")
    opt = utils_option.load(tmp_path / "t.json", Opt)
    assert OTHER_DATASET_TYPES[kind] in opt.untrained
    with pytest.raises(UserError, match=OTHER_DATASET_TYPES[kind]):
        define_Dataset(opt.datasets.train)


def test_alignment_needs_its_groups(tmp_path):
    path = kair_file(tmp_path, "006_train_vrt_videodeblurring_gopro")
    with pytest.raises(UserError, match="deformable_groups is 0, must be 1 or more"):
        utils_option.load(path, Opt, ["netG.deformable_groups=0"])


@pytest.mark.parametrize(
    "key", ["datasets.train.dataloader_persistent_workers", "datasets.test.dataloader_persistent_workers"]
)
def test_keys_of_kair_without_effect_are_taken_and_named(tmp_path, heard, key):
    path = tmp_path / "t.json"
    path.write_text('{"task": "t", "train": {"G_optimizer_reuse": true}}')
    places = [f"datasets.{block}.{root}=x" for block in ("train", "test") for root in ("dataroot_lq", "dataroot_gt")]
    kinds = [f"datasets.{block}.dataset_type=VideoRecurrent{block.title()}Dataset" for block in ("train", "test")]
    names = [f"datasets.{block}.name=n" for block in ("train", "test")]
    utils_option.load(path, Opt, [*places, *kinds, *names, f"{key}=true"])
    (line,) = heard.messages
    assert line.endswith(f"these keys of KAIR have no effect here: train.G_optimizer_reuse, {key}")
