"""Option files: how they are read, what they mean, and what a mistake in them gets."""

import inspect
import json
import logging
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from options.kair_keys import OTHER_DATASET_TYPES
from options.schema import DatasetOpt, NetOpt, Opt
from utils import utils_option
from utils.utils_error import UserError
from utils.utils_json import read_json

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / "options/vrt").glob("*.json"))
DATASET = {
    "dataset_type": "VideoRecurrentTrainDatasetRGBSpike",
    "dataroot_gt": "a",
    "dataroot_lq": "b",
    "dataroot_spike": "c",
}
RGB = {"dataset_type": "VideoRecurrentTrainDataset", "dataroot_gt": "a", "dataroot_lq": "b"}
KAIR_STYLE = ROOT / "tests/golden/kair_style.json"


def write(folder: Path, tree: object, name: str = "opt.json") -> Path:
    path = folder / name
    path.write_text(tree if isinstance(tree, str) else json.dumps(tree), encoding="utf-8")
    return path


def error_of(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        utils_option.load(path, Opt, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Shipped files


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_file_loads_and_survives_a_round_trip(path, tmp_path):
    opt = utils_option.load(path, Opt)
    utils_option.save(opt, tmp_path / "options.json")
    assert utils_option.load(tmp_path / "options.json", Opt) == opt
    written = json.loads((tmp_path / "options.json").read_text(encoding="utf-8"))
    assert written["train"]["keep_checkpoints"] == opt.train.keep_checkpoints
    assert [file.name for file in tmp_path.iterdir()] == ["options.json"]


def test_each_training_has_a_run_of_its_own():
    opts = [utils_option.load(path, Opt) for path in (ROOT / "options/vrt").rglob("*.json")]
    tasks = [opt.task for opt in opts if opt.datasets.train is not None]
    assert len(tasks) > 8
    assert sorted(tasks) == sorted(set(tasks))


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("demo_vrt.json", "demo_rgb.json"),
        (
            "006_train_vrt_videodeblurring_gopro_rgbspike.json",
            "006_train_vrt_videodeblurring_gopro.json",
        ),
    ],
)
def test_twin_without_spikes_differs_in_nothing_else(name, twin):
    spiky, plain = (utils_option.load(ROOT / "options/vrt" / file, Opt) for file in (name, twin))
    assert spiky.datasets.train.uses_spikes
    assert not plain.datasets.train.uses_spikes
    assert (plain.netG.in_chans, plain.datasets.test.spike_channels) == (3, 0)
    assert spiky.task != plain.task
    assert (spiky.train, spiky.val) == (plain.train, plain.val)
    assert spiky.netG.model_copy(update={"in_chans": 3}) == plain.netG


# Reading


def test_kair_style_file_loads_and_its_unused_keys_are_named_in_one_line(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("spikevrt"), "propagate", True)
    with caplog.at_level(logging.INFO, "spikevrt"):
        opt = utils_option.load(KAIR_STYLE, Opt)
    (record,) = caplog.records
    for key in ("gpu_ids", "dist", "use_static_graph", "datasets.train.test_mode", "netG.init_gain"):
        assert key in record.getMessage()
    assert "train.F_lossfn_weight" in record.getMessage()
    assert opt.datasets.train.name == "train_dataset"
    assert opt.datasets.test.dataroot_lq == "testsets/GoPro//test_GT_blurred"
    assert opt.train.G_scheduler_periods == (300000,)
    assert opt.netG.depths == (8,) * 7 + (4,) * 4


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": "http://x//y /* no comment */"}', {"a": "http://x//y /* no comment */"}),
        ('{ // "a": 1\n , "b": [ , 1, 2, ], /* c */ }', {"b": [1, 2]}),
        ('\ufeff{"a": "say \\"//\\" loud",}', {"a": 'say "//" loud'}),
        ('{"a": {"x": 1}, "b": {"x": 1}, "c": [{"x": 1}, {"x": 2}]}', None),
        ('{"a": ",", "b": "{,", "c": "[,"}', None),
    ],
)
def test_json_with_comments_and_commas(tmp_path, text, value):
    assert read_json(write(tmp_path, text)) == (json.loads(text) if value is None else value)


JSON_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text("ab,{[/*\"'\\ :", max_size=6), JSON_VALUE, max_size=3))
def test_any_json_means_the_same_with_comments(tmp_path_factory, tree):
    text = json.dumps(tree, indent=1, ensure_ascii=False).replace("\n", ' // {, "a": \'x\n')
    assert read_json(write(tmp_path_factory.mktemp("json"), text)) == tree


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('{"task": "x",\n "train": }', ["opt.json:2", '"}"']),
        ('{"task": "x"\n\n "train": {}}', ["opt.json:3"]),
        ('{"task": "x",\n "train": {"fix_iter": 1,\n // \n "fix_iter": 2}}', ["opt.json:4", "fix_iter", "line 2"]),
        ('{"task": "x",\n "t\\u0061sk": "y"}', ["opt.json", "task"]),
        ('{,, "task": "x"}', ["opt.json:1"]),
        ("[]", ["object"]),
        ("", ["opt.json"]),
        ('{"task": "x"', ["opt.json:1", "end of input"]),
        ("[" * 20000, ["opt.json"]),
    ],
)
def test_broken_json_names_file_line_and_cause(tmp_path, text, parts):
    message = error_of(write(tmp_path, text))
    assert all(part in message for part in parts), message


def test_missing_and_undecodable_files(tmp_path):
    assert "none.json" in error_of(tmp_path / "none.json")
    (tmp_path / "latin.json").write_bytes(b'{"task": "\xe9"}')
    assert "UTF-8" in error_of(tmp_path / "latin.json")


# Inheriting and overriding


def test_bases_merge_objects_and_replace_lists(tmp_path):
    (tmp_path / "sub").mkdir()
    write(tmp_path, {"task": "a", "train": {"total_iter": 10, "fix_keys": ["x", "y"]}}, "far.json")
    write(tmp_path, {"_base_": "../far.json", "train": {"fix_iter": 3}}, "sub/near.json")
    path = write(tmp_path, {"_base_": "sub/near.json", "task": "b", "train": {"fix_keys": ["z"]}})
    opt = utils_option.load(path, Opt)
    assert (opt.task, opt.train.total_iter, opt.train.fix_iter, opt.train.fix_keys) == ("b", 10, 3, ("z",))


def test_bad_bases(tmp_path):
    write(tmp_path, {"_base_": "opt.json"}, "other.json")
    message = error_of(write(tmp_path, {"_base_": "other.json"}))
    assert "inherits from itself" in message
    assert "other.json" in message
    assert "gone.json" in error_of(write(tmp_path, {"_base_": "gone.json"}))
    assert "found 3" in error_of(write(tmp_path, {"_base_": 3}))


def test_an_error_names_the_file_that_holds_the_key(tmp_path):
    write(tmp_path, {"task": "a", "train": {"totl_iter": 10}}, "base.json")
    message = error_of(write(tmp_path, {"_base_": "base.json", "train": {"fix_iter": 0}}))
    assert "base.json: train.totl_iter" in message


def test_overrides_are_json_or_else_strings(tmp_path):
    path = write(tmp_path, {"task": "a", "datasets": {"train": RGB, "test": RGB | {"dataset_type": "TestDataset"}}})
    sets = [
        "task=b",
        "train.total_iter=200",
        "train.G_optimizer_lr=1e-3",
        "datasets.train.dataroot_lq=/d/a=b",
        "datasets.test=null",
        "train.fix_keys=[]",
        "logging.use_wandb=true",
        "gpu_ids=[0]",
    ]
    opt = utils_option.load(path, Opt, sets)
    assert (opt.task, opt.train.total_iter, opt.train.G_optimizer_lr) == ("b", 200, 1e-3)
    assert (opt.datasets.train.dataroot_lq, opt.datasets.test) == ("/d/a=b", None)
    assert opt.logging.use_wandb
    assert opt.run_dir == Path("experiments/b")


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("train.totl_iter=3", ["train.totl_iter", "did you mean train.total_iter?"]),
        ("total_iter=3", ["did you mean train.total_iter?"]),
        ("datasets.tst.gt_size=3", ["did you mean datasets.test.gt_size?"]),
        ("trian.total_iter=3", ["did you mean train.total_iter?"]),
        ("train", ["expected KEY=VALUE"]),
        ('train.total_iter="4"', ["--set: train.total_iter", 'found "4"', "integer"]),
    ],
)
def test_bad_overrides(tmp_path, override, parts):
    message = error_of(write(tmp_path, {"task": "a"}), override)
    assert all(part in message for part in parts), message


def test_a_value_that_no_type_takes_is_blamed_on_its_source(tmp_path):
    assert error_of(write(tmp_path, {"task": "a"}), "val.size_patch_testing=[1,2,3]").startswith("--set: val.size_")


@pytest.mark.parametrize("text", ["2024", "1e5", "true", "NaN", "007", '"2024"'])
def test_an_option_of_text_takes_what_looks_like_a_number(tmp_path, text):
    sets = [f"{key}={text}" for key in ("task", "val.task_name", "path.pretrained_netG", "wandb_api_key")]
    opt = utils_option.load(write(tmp_path, {"task": "a"}), Opt, sets)
    key = opt.logging.wandb_api_key.get_secret_value()
    assert {opt.task, opt.val.task_name, opt.path.pretrained_netG, key} == {text.strip('"')}


def test_null_is_no_text(tmp_path):
    path = write(tmp_path, {"task": "a", "val": {"task_name": "b"}})
    assert utils_option.load(path, Opt, ["val.task_name=null"]).val.task_name is None
    assert "--set: task: found null" in error_of(path, "task=null")


# Mistakes in values


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"train": {"G_optimzer_lr": 1}}, ["train.G_optimzer_lr", "did you mean train.G_optimizer_lr?"]),
        ({"datasets": {"train": RGB | {"dataroot_gtt": "x"}}}, ["datasets.train.dataroot_gtt", "dataroot_gt?"]),
        ({"netG": {"G_optimizer_lr": 1}}, ["netG.G_optimizer_lr", "did you mean train.G_optimizer_lr?"]),
        ({"trian": {}}, ["trian", "did you mean train?"]),
        ({"train": {"total_iter": "4"}}, ["train.total_iter", 'found "4"', "integer"]),
        ({"train": {"total_iter": True}}, ["train.total_iter", "found true", "integer"]),
        ({"train": {"total_iter": 1.5}}, ["train.total_iter", "found 1.5", "integer"]),
        ({"train": {"E_decay": True}}, ["train.E_decay", "found true", "number"]),
        ({"train": {"E_decay": 1}}, ["train.E_decay", "found 1", "less than 1"]),
        ({"train": {"G_optimizer_lr": 0}}, ["train.G_optimizer_lr", "greater than 0"]),
        ({"train": {"checkpoint_save": 0}}, ["train.checkpoint_save", "greater than or equal to 1"]),
        ({"train": {"G_optimizer_betas": [0.9]}}, ["train.G_optimizer_betas"]),
        ({"train": {"G_optimizer_type": "sgd"}}, ["train.G_optimizer_type", '"sgd"', "'adam' or 'adamw'"]),
        ({"train": {"amp": True}}, ["train.amp", "found true", "object"]),
        ({"train": None}, ["train: found null", "object"]),
        ({"train": {"fix_iter": 5}}, ["fix_iter is 5", "fix_keys"]),
        ({"train": {"G_scheduler_milestones": [5, 5]}}, ["G_scheduler_milestones is [5, 5]", "increase"]),
        ({"train": {"G_scheduler_type": "MultiStepLR"}}, ["G_scheduler_milestones is empty"]),
        ({"train": {"G_scheduler_periods": [0]}}, ["train.G_scheduler_periods[0]", "found 0"]),
        ({"val": {"num_frame_testing": 2}}, ["num_frame_overlapping is 2", "num_frame_testing, 2"]),
        ({"val": {"size_patch_testing": 16}}, ["size_patch_overlapping is 20", "size_patch_testing, 16"]),
        ({"val": {"size_patch_testing": [64, 16]}}, ["size_patch_overlapping is 20", "size_patch_testing, (64, 16)"]),
        ({"val": {"size_patch_testing": [64]}}, ["val.size_patch_testing[1]: is missing"]),
        ({"val": {"size_patch_testing": [8, 8, 8]}}, ["val.size_patch_testing: found a list of 3", "at most 2 items"]),
        ({"val": {"size_patch_testing": "x"}}, ['val.size_patch_testing: found "x"', "integer or a list"]),
        ({"val": {"size_patch_testing": [8, "x"]}}, ['val.size_patch_testing[1]: found "x"', "integer"]),
        ({"val": {"size_patch_testing": -1}}, ["val.size_patch_testing: found -1", "greater than or equal to 0"]),
        ({"val": {"temporal_ensemble": 3}}, ["temporal_ensemble is 3", "num_frame_testing, 0"]),
        ({"val": {"tile": "Auto"}}, ["val.tile", '"Auto"', "'auto' or null"]),
        ({"train": {"G_optimizer_clipgrad": 0}}, ["G_optimizer_clipgrad", "greater than 0 or null"]),
        ({"datasets": {"test": 5}}, ["datasets.test: found 5", "object {...} or null"]),
        ({"val": {"output": []}}, ["val.output"]),
        ({"val": {"temporal_ensemble": 2, "num_frame_testing": 6, "tile": "auto"}}, ["temporal_ensemble is 2", "tile"]),
        ({"val": {"center_frame_only": True, "metrics": ["psnr", "tof"]}}, ["metrics has tof", "center_frame_only"]),
        (
            {
                "val": {"temporal_ensemble": 2, "num_frame_testing": 6},
                "netG": {"pa_frames": 0, "img_size": [4, 64, 64]},
            },
            ["val.temporal_ensemble is 2", "restores each frame once"],
        ),
        ({"val": {"metrics": ["lpip"]}}, ["val.metrics[0]", '"lpip"', "'ssim_y'"]),
        ({"val": {"save_img": "yes"}}, ["val.save_img", '"yes"', "true or false"]),
        ({"netG": {"depths": [8] * 10}}, ["depths has 10 entries and embed_dims has 11"]),
        ({"netG": {"num_heads": [7] * 11}}, ["num_heads 7 does not divide embed_dims 96"]),
        ({"netG": {"deformable_groups": 7}}, ["deformable_groups 7", "embed_dims 96"]),
        ({"netG": {"embed_dims": [96] * 6 + [48] + [120] * 4}}, ["embed_dims", "seven stages", "one value"]),
        ({"netG": {"window_size": [8, 8]}}, ["netG.window_size"]),
        ({"netG": {"img_size": [6, 8, 8, 8]}}, ["netG.img_size", "3"]),
        ({"netG": {"indep_reconsts": [11]}}, ["indep_reconsts has 11", "7 to 10"]),
        ({"netG": {"depths": 8}}, ["netG.depths", "found 8", "a list"]),
        ({"netG": {"in_chans": 4}, "datasets": {"train": RGB}}, ["netG.in_chans is 4", "spike_channels (0)"]),
        (
            {"datasets": {"train": DATASET}, "netG": {"in_chans": 3}},
            ["netG.in_chans is 3", "datasets.train.spike_channels (1) = 4"],
        ),
        (
            {"datasets": {"train": DATASET}, "netG": {"in_chans": 3, "nonblind_denoising": True}},
            ["nonblind_denoising"],
        ),
        ({"datasets": {"train": DATASET | {"spike_channels": 2}}}, ["spike_channels is 2", "'tfp'", "gives 1"]),
        ({"datasets": {"train": RGB | {"spike_channels": 1}}}, ["spike_channels is 1", "TrainDataset", "gives 0"]),
        ({"datasets": {"train": DATASET | {"spike": {"window": 20}}}}, ["spike.window", "found 20", "odd"]),
        ({"datasets": {"train": DATASET | {"spike_h": 250}}}, ["spike_h is 250", "spike_w is None"]),
        ({"datasets": {"train": RGB | {"gt_size": 0}}}, ["datasets.train.gt_size", "found 0"]),
        ({"datasets": {"train": RGB | {"num_frame": -1}}}, ["num_frame is -1"]),
        ({"datasets": {"train": RGB | {"dataloader_batch_size": 0}}}, ["dataloader_batch_size", "found 0"]),
        ({"datasets": {"train": RGB | {"dataroot_lq": None}}}, ["datasets.train", "dataroot_lq missing"]),
        ({"datasets": {"train": RGB | {"dataset_type": "Vimeo"}}}, ['found "Vimeo"', "TrainDatasetRGBSpike"]),
        ({"datasets": {"train": RGB | {"dataset_type": "SingleTestDataset"}}}, ["cannot be used in the train block"]),
        ({"datasets": {"test": RGB}}, ["VideoRecurrentTrainDataset", "cannot be used in the test block"]),
        ({"datasets": {"train": {"dataroot_gt": "a"}}}, ["datasets.train.dataset_type: is missing"]),
        ({"task": "a/b"}, ["task", '"a/b"', "letters, digits"]),
        ({"task": "my run"}, ["task", '"my run"', "without blanks"]),
        ({"datasets": {"train": RGB | {"filename_tmpl": "6"}}}, ["filename_tmpl", '"6"', '"06d"']),
        ({"datasets": {"train": RGB | {"filename_ext": ".png"}}}, ["filename_ext", '".png"', "without its dot"]),
        ({"task": 6}, ["task", "found 6", "string"]),
    ],
)
def test_a_wrong_value_gets_one_line(tmp_path, change, parts):
    message = error_of(write(tmp_path, {"task": "t"} | change))
    assert "opt.json" in message
    assert all(part in message for part in parts), message
    assert not [word for word in ("constrained", "tuple", "pattern", "validation") if word in message], message


def test_missing_task(tmp_path):
    assert "opt.json: task: is missing" in error_of(write(tmp_path, {}))


def test_all_problems_are_counted_and_unknown_keys_come_first(tmp_path):
    tree = {"task": 1, "val": {"save_image": True}, "train": {"total_iter": 0, "E_decay": 2}}
    message = error_of(write(tmp_path, tree))
    assert "val.save_image: unknown option; did you mean val.save_img?" in message
    assert "(and 3 more: task, train.E_decay, train.total_iter)" in message


# Meaning


@pytest.mark.parametrize(
    ("block", "short", "meant"),
    [
        ("train", "TrainDatasetRGBSpike", "VideoRecurrentTrainDatasetRGBSpike"),
        ("train", "TrainDataset", "VideoRecurrentTrainDataset"),
        ("test", "TrainDatasetRGBSpike", "VideoRecurrentTestDatasetRGBSpike"),
        ("test", "TestDataset", "VideoRecurrentTestDataset"),
        ("test", "SingleTestDataset", "SingleVideoRecurrentTestDataset"),
    ],
)
def test_short_dataset_types(tmp_path, block, short, meant):
    in_chans = 4 if "Spike" in short else 3
    tree = {"task": "t", "netG": {"in_chans": in_chans}, "datasets": {block: DATASET | {"dataset_type": short}}}
    dataset = getattr(utils_option.load(write(tmp_path, tree), Opt).datasets, block)
    assert dataset.dataset_type == meant
    assert (dataset.uses_spikes, dataset.spike_channels) == (in_chans == 4, in_chans - 3)


def test_test_set_needs_no_sharp_frames(tmp_path):
    tree = {"task": "t", "datasets": {"test": {"dataset_type": "SingleTestDataset", "dataroot_lq": "~/x"}}}
    opt = utils_option.load(write(tmp_path, tree), Opt)
    assert opt.datasets.train is None
    assert opt.datasets.test.dataroot_gt is None
    assert opt.datasets.test.dataroot_lq == str(Path.home() / "x")


def test_periods(tmp_path):
    for value, periods in ((None, (200,)), (7, (7,)), ([7, 8], (7, 8))):
        tree = {"task": "t", "train": {"total_iter": 200, "G_scheduler_periods": value}}
        assert utils_option.load(write(tmp_path, tree), Opt).train.scheduler_periods == periods


def test_network_kwargs_are_the_arguments_of_vrt_with_their_defaults():
    network = pytest.importorskip("models.network_vrt")
    defaults = {name: part.default for name, part in inspect.signature(network.VRT).parameters.items()}
    assert defaults == NetOpt().network_kwargs()


def test_options_are_frozen():
    opt = Opt(task="t")
    with pytest.raises(ValidationError):
        opt.task = "u"
    with pytest.raises(ValidationError):
        opt.train.total_iter = 3


def test_every_option_is_documented_and_none_is_ignored():
    keys = [key for key, _ in utils_option._walk(Opt)]
    assert len(keys) > 100
    assert not [key for key in keys for pattern in Opt.IGNORED_KEYS if fnmatchcase(key, pattern)]
    blocks = [Opt]
    for block in blocks:
        for name, field in block.model_fields.items():
            assert field.description, f"{block.__name__}.{name}"
            inner = utils_option._block(field.annotation)
            blocks += [inner] if inner else []
    assert DatasetOpt in blocks


# The secret


@pytest.mark.parametrize("tree", [{"wandb_api_key": "s3cr3t"}, {"logging": {"wandb_api_key": "s3cr3t"}}])
def test_secret_is_kept_out_of_everything(tmp_path, tree, caplog):
    path = write(tmp_path, {"task": "t", "dist": True} | tree)
    with caplog.at_level(logging.DEBUG):
        opt = utils_option.load(path, Opt)
    assert opt.logging.wandb_api_key.get_secret_value() == "s3cr3t"
    utils_option.save(opt, tmp_path / "saved.json")
    saved = (tmp_path / "saved.json").read_text(encoding="utf-8")
    assert "wandb_api_key" not in saved
    assert "s3cr3t" not in saved + repr(opt) + str(opt) + caplog.text + opt.model_dump_json() + str(opt.model_dump())
    again = utils_option.load(tmp_path / "saved.json", Opt)
    assert again.logging.wandb_api_key is None
    assert again.train == opt.train


@pytest.mark.parametrize(
    "tree",
    [
        {"wandb_api_key": 5318008},
        {"wandb_api_key": ["5318008"]},
        {"wandb_api_kye": "5318008"},
        {"logging": [{"wandb_api_key": "5318008"}]},
        {"logging": {"wandb_api_key": "5318008", "use_wandb": 3}},
        {"wandb_api_key": "5318008", "logging": {"wandb_api_key": "5318008"}},
    ],
)
def test_errors_do_not_show_the_secret(tmp_path, tree):
    assert "5318008" not in error_of(write(tmp_path, {"task": "t"} | tree))


@pytest.mark.parametrize("name", OTHER_DATASET_TYPES)
def test_kair_files_of_other_tasks_load(tmp_path, name):
    dataset = {"dataset_type": name, "dataroot_gt": "a", "dataroot_lq": "b", "sigma_min": 0, "sigma_max": 50}
    opt = utils_option.load(write(tmp_path, {"task": "t", "datasets": {"train": dataset}}), Opt)
    assert opt.datasets.train.dataset_type == name


def test_spike_planes_of_training_and_testing_must_be_the_same():
    with pytest.raises(UserError, match=r"train\.spike\.window is 41, but datasets\.test\.spike\.window is 21"):
        utils_option.load(ROOT / "options/vrt/demo.json", Opt, ["datasets.train.spike.window=41"])
