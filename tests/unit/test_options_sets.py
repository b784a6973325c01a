"""A list of training sets in the options: what the blocks share, how files and --set change them, and mistakes."""

import json
from pathlib import Path

import pytest
from test_options import error_of
from tiny_set import options

from data.clip_index import check_folders
from options.schema import Opt
from scripts import runtime_config, summary
from utils import utils_option
from utils.checkpoint.option_changes import changes
from utils.utils_error import UserError

ROOT = Path(__file__).resolve().parents[2]
GOPRO = {
    "dataset_type": "TrainDatasetRGBSpike",
    "dataroot_gt": "a/gt",
    "dataroot_lq": "a/lq",
    "dataroot_spike": "a/spike",
    "gt_size": 64,
    "dataloader_batch_size": 4,
}
OTHER = {
    "dataset_type": "TrainDatasetRGBSpike",
    "dataroot_gt": "b/gt",
    "dataroot_lq": "b/lq",
    "dataroot_spike": "b/spike",
}
PLAIN = {"dataset_type": "TrainDataset", "dataroot_gt": "c/gt", "dataroot_lq": "c/lq", "weight": 0.5}


def write(folder, train=(GOPRO, OTHER, PLAIN), name="opt.json", **more):
    path = folder / name
    path.write_text(json.dumps({"task": "t", "datasets": {"train": train}} | more), encoding="utf-8")
    return path


def load(path, *sets):
    return utils_option.load(path, Opt, sets)


def values(opt, key):
    return [getattr(block, key) for block in opt.datasets.train]


# Blocks


def test_all_sets_have_what_the_first_one_shares_and_the_rest_of_their_own(tmp_path):
    opt = load(write(tmp_path))
    assert values(opt, "gt_size") == [64, 64, 64]
    assert values(opt, "dataloader_batch_size") == [4, 4, 4]
    assert values(opt, "weight") == [1.0, 1.0, 0.5]
    assert values(opt, "dataroot_lq") == ["a/lq", "b/lq", "c/lq"]
    assert values(opt, "spike_channels") == [1, 1, 0]
    assert opt.netG.in_chans == 4
    assert list(opt.datasets.sets) == ["train.0", "train.1", "train.2"]
    assert (opt.datasets.dropping, opt.datasets.loaded) == (["train.2"], opt.datasets.train[0])
    assert opt.untrained is None


def test_options_of_a_run_load_again(tmp_path):
    opt = load(write(tmp_path))
    utils_option.save(opt, tmp_path / "options.json")
    assert load(tmp_path / "options.json") == opt


def test_one_block_stays_one_block(tmp_path):
    opt = load(write(tmp_path, GOPRO))
    assert opt.datasets.train_sets == {"train": opt.datasets.train}
    assert json.loads(opt.model_dump_json())["datasets"]["train"]["gt_size"] == 64
    alone = load(write(tmp_path, [GOPRO]))
    assert alone.datasets.train == (opt.datasets.train,)
    assert alone.datasets.dropping == []


def test_sets_without_spikes_alone_train_a_network_without_spikes(tmp_path):
    opt = load(write(tmp_path, [PLAIN, PLAIN]))
    assert (opt.netG.in_chans, opt.datasets.dropping) == (3, [])


def test_the_planes_are_those_of_the_first_set_with_spikes(tmp_path):
    moment = {"spike": {"representation": "moment", "planes": 5}}
    opt = load(
        write(
            tmp_path, [PLAIN, GOPRO | moment | {"gt_size": 192, "dataloader_batch_size": 1}], netG={"net_type": "guide"}
        )
    )
    assert opt.netG.guide.planes == 5


TEST = {"dataset_type": "TestDataset", "dataroot_lq": "d/lq"}


@pytest.mark.parametrize("train", [[GOPRO, PLAIN], GOPRO | {"augment": {"drop_spikes": 0.05}}], ids=["none", "dropped"])
def test_a_test_set_without_spikes_is_read_if_training_shows_such_clips(tmp_path, train):
    opt = load(write(tmp_path, datasets={"train": train, "test": TEST}))
    assert opt.datasets.dropping[-1:] == ["test"]
    assert opt.netG.in_chans == 4
    spiky = TEST | {"dataset_type": "TestDatasetRGBSpike", "dataroot_spike": "d/spike"}
    assert "test" not in load(write(tmp_path, datasets={"train": train, "test": spiky})).datasets.dropping


@pytest.mark.parametrize("net", [{}, {"net_type": "guide"}], ids=["VRT", "guide"])
def test_a_test_set_without_spikes_is_refused_if_training_never_lacks_them(tmp_path, net):
    train = GOPRO | ({"spike": {"representation": "moment"}} if net else {})
    with pytest.raises(
        UserError, match=r"datasets.test.dataset_type is 'VideoRecurrentTestDataset', without .*train "
    ) as caught:
        load(write(tmp_path, datasets={"train": train, "test": TEST}, netG=net))
    assert "more" not in str(caught.value), "one line, one problem"
    assert load(write(tmp_path, datasets={"train": [PLAIN], "test": TEST})).datasets.dropping == []


def test_keys_of_kair_are_dropped_in_every_block(tmp_path, heard):
    opt = load(write(tmp_path, [GOPRO | {"phase": "train"}, OTHER | {"phase": "train", "mode": "x"}]))
    assert len(opt.datasets.train) == 2
    assert heard.messages[0].endswith(": datasets.train.phase, datasets.train.mode")


def test_the_example_mixes_recorded_and_simulated_spikes_and_none():
    opt = load(ROOT / "options/vrt/guide_mixed.json")
    assert [block.uses_spikes for block in opt.datasets.train] == [True, True, False]
    assert len(set(values(opt, "dataroot_lq"))) == 3
    assert len(set(values(opt, "weight"))) > 1
    assert opt.netG == load(ROOT / "options/vrt/guide.json").netG


# Inheriting and overriding


def test_an_object_over_a_list_changes_all_blocks_or_those_of_its_numbers(tmp_path):
    write(tmp_path, name="base.json")
    tree = {
        "_base_": "base.json",
        "datasets": {"train": {"cache_data": True, "1": {"dataroot_lq": "new", "spike": {"edge": "mirror"}}}},
    }
    (tmp_path / "opt.json").write_text(json.dumps(tree))
    opt = load(
        tmp_path / "opt.json", "datasets.train.gt_size=32", "datasets.train.2.weight=3", "datasets.train.2.name=2024"
    )
    assert values(opt, "cache_data") == [True, True, True]
    assert values(opt, "dataroot_lq") == ["a/lq", "new", "c/lq"]
    assert [block.spike.edge for block in opt.datasets.train] == ["error", "mirror", "error"]
    assert values(opt, "gt_size") == [32, 32, 32]
    assert values(opt, "weight") == [1.0, 1.0, 3.0]
    assert values(opt, "name") == ["dataset", "dataset", "2024"]


def test_a_number_wins_over_all_in_whatever_order_they_are_given(tmp_path):
    sets = ["datasets.train.0.use_rot=true", "datasets.train.use_rot=false"]
    for order in (sets, sets[::-1]):
        assert values(load(write(tmp_path), *order), "use_rot") == [True, False, False]


@pytest.mark.parametrize("base", [GOPRO, [GOPRO, PLAIN, PLAIN]])
def test_a_list_replaces_what_is_inherited_and_an_object_without_a_list_stays_one(tmp_path, base):
    write(tmp_path, base, name="base.json")
    opt = load(write(tmp_path, [GOPRO, OTHER], _base_="base.json"))
    assert values(opt, "dataroot_lq") == ["a/lq", "b/lq"]
    assert load(write(tmp_path), "datasets.train=" + json.dumps([GOPRO])).datasets.train[0].dataroot_lq == "a/lq"
    assert load(write(tmp_path), "datasets.train=null").datasets.train is None


@pytest.mark.parametrize(
    ("sets", "parts"),
    [
        (["datasets.train.3.gt_size=32"], ["--set: datasets.train: found block 3, expected 0 to 2"]),
        (["datasets.train.1.gt_size=32"], ["datasets.train: gt_size is 32 in block 1 and 64 in block 0", "0 alone"]),
        (["datasets.train.1.gt_szie=32"], ["--set: datasets.train.1.gt_szie: unk", "mean datasets.train.1.gt_size?"]),
        (["datasets.train.1.weight=0"], ["--set: datasets.train.1.weight: found 0, must be greater than 0"]),
        (["datasets.train.1.weight=1e-4"], ["weight is 0.0001 in block 1", "expected 0.001 or more"]),
        (["datasets.train.1=null"], ["--set: datasets.train.1: found null, must be an object {...}!"]),
        (["datasets.train.cache_data=3"], ["--set: datasets.train.0.cache_data: found 3, must be true or false"]),
        (["datasets.train=[]"], ["--set: datasets.train: found a list of 0, must have at least 1 item"]),
        (["datasets.train=3"], ["--set: datasets.train: found 3, must be an object {...}", "null"]),
        (["datasets.train.2.dataroot_lq=null"], ["datasets.train.2: dataroot_lq missing"]),
        (["datasets.train.0.dataset_type=SingleTestDataset"], ["datasets.train.0: ", "cannot be used in the train"]),
        (["datasets.train.1.spike.window=9"], ["train.0.spike.window is 21, but datasets.train.1.spike.window is 9"]),
        (['datasets.train.1.spike={"representation":"isi"}', "datasets.train.1.spike_channels=3"], ["train.1.spike_c"]),
        (['datasets.train.spike.representation=sdm'], ["datasets.train.2 has no spikes", "'sdm'", "remove the block"]),
        (["train.0.total_iter=3"], ["train.0: train is no list of blocks; leave out .0"]),
        (["netG.depths.0=3"], ["netG.depths"]),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_line_that_names_the_block(tmp_path, sets, parts):
    message = error_of(write(tmp_path), *sets) + "!"
    assert all(part in message for part in parts), message
    assert not [word for word in ("[]:", "{}", "tuple") if word in message.replace("{...}", "")], message


def test_a_number_without_a_list_is_refused(tmp_path):
    message = error_of(write(tmp_path, GOPRO), "datasets.train.0.gt_size=32")
    assert message == "--set: datasets.train.0: datasets.train is no list of blocks; leave out .0"


def test_the_file_that_holds_a_blocks_wrong_value_is_named(tmp_path):
    write(tmp_path, [GOPRO, OTHER | {"num_frame": "6"}], name="base.json")
    (tmp_path / "opt.json").write_text('{"_base_": "base.json", "datasets": {"train": {"use_rot": false}}}')
    assert 'base.json: datasets.train.1.num_frame: found "6"' in error_of(tmp_path / "opt.json")
    (tmp_path / "opt.json").write_text('{"_base_": "base.json", "datasets": {"train": {"1": {"num_frame": "7"}}}}')
    assert 'opt.json: datasets.train.1.num_frame: found "7"' in error_of(tmp_path / "opt.json")


def test_a_test_set_is_one(tmp_path):
    test = PLAIN | {"dataset_type": "TestDataset"}
    path = write(tmp_path, datasets={"train": [PLAIN], "test": [test]})
    assert "datasets.test: found a list of 1, must be an object {...} or null" in error_of(path)


def test_a_resumed_run_lists_what_changed_by_block(tmp_path):
    before, after = (
        load(write(tmp_path), *sets).model_dump(mode="json") for sets in ((), ("datasets.train.1.dataroot_lq=new",))
    )
    assert list(map(str, changes(before, after))) == ['datasets.train.1.dataroot_lq: "b/lq" -> "new"']
    fewer = load(write(tmp_path, [GOPRO, OTHER])).model_dump(mode="json")
    assert [change.key for change in changes(before, fewer)] == ["datasets.train"]


# Programs


def test_missing_folders_are_named_by_block(tmp_path, heard):
    with pytest.raises(UserError, match=r"^datasets\.train\.0\.dataroot_lq: a/lq is not .* \(and 7 more\)"):
        check_folders(load(write(tmp_path)).datasets)
    assert any(message.startswith("datasets.train.2.dataroot_gt: c/gt") for message in heard.messages)


def test_check_data_checks_every_block(tmp_path, own_set, run_program):
    (own_set / "gt/clip_b/000049.png").unlink()
    blocks = [options(own_set, spikes=spikes).model_dump(mode="json") for spikes in (True, False)]
    code, out, err = run_program("scripts/check_data.py", "--fast", "--opt", write(tmp_path, blocks))
    assert code == 2, err
    assert [line for line in out.splitlines() if line.endswith(": 1 defect")] == [
        f"datasets.train.{number} ({own_set}/lq): 1 defect" for number in (0, 1)
    ]


def test_the_summary_is_of_the_crop_and_batch_that_all_share(tmp_path):
    one, several = (load(write(tmp_path, train)) for train in (GOPRO, [GOPRO, OTHER, PLAIN]))
    assert summary.input_shapes(several, None) == summary.input_shapes(one, None)
    assert summary.training_of(several, 1e12) == summary.training_of(one, 1e12)


@pytest.mark.parametrize(("root", "lmdb"), [(Path("d"), False), (None, True)])
def test_one_root_for_a_list_is_refused_in_training_and_leaves_a_test_alone(tmp_path, monkeypatch, root, lmdb):
    monkeypatch.chdir(tmp_path)
    test = {"dataset_type": "TestDatasetRGBSpike", "dataroot_lq": "x", "dataroot_spike": "y"}
    path = write(tmp_path, datasets={"train": [GOPRO, OTHER], "test": test})
    with pytest.raises(
        UserError, match=r"opt.json: datasets\.train is a list of 2, but --dataset-root, .* --set datas"
    ) as caught:
        runtime_config.write_runtime_config(path, "train", root, None, [], lmdb=lmdb)
    assert "\n" not in str(caught.value)
    copy = runtime_config.write_runtime_config(path, "test", root, None, [], lmdb=lmdb)
    opt = load(copy)
    assert values(opt, "dataroot_lq") == ["a/lq", "b/lq"]
    assert opt.datasets.test.dataroot_lq != "x"
