import json

import numpy as np
import pytest
import torch
from tiny_network import TINY, overrides

import main_test_vrt
from data import official_tasks
from data.layout import DatasetWriter, Frame
from data.spike.config_yaml import SpikeConfig
from data.spike.manifest import ClipTiming, Manifest
from models.select_network import define_G
from options.schema import NetOpt, Opt
from utils import utils_checkpoint, utils_image, utils_option, utils_zoo
from utils.report import results_folder
from utils.utils_error import UserError

RGB_TASK, SPIKE_TASK = "006_VRT_videodeblurring_GoPro", "006_SVRT_videodeblurring_GoPro_rgbspike"


def run(*words):
    main_test_vrt.main(main_test_vrt.read_job(main_test_vrt.parse_args([str(word) for word in words])))


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    manifest = Manifest(
        spike_h=8,
        spike_w=12,
        rgb_h=16,
        rgb_w=24,
        flipud=True,
        clock_hz=2000,
        rate_at_white=0.5,
        transfer="srgb",
        noise="none",
        clips={},
    )
    writer = DatasetWriter(root, manifest)
    for name, count in (("one", 3), ("two", 2)):
        blurred, sharp = rng.integers(0, 256, (2, count, 16, 24, 3), dtype=np.uint8)
        spikes = rng.integers(0, 2, (count, 30, 8, 12), dtype=np.uint8)
        frames = [Frame(*parts) for parts in zip(blurred, sharp, spikes, strict=True)]
        writer.add_clip("test", name, frames, ClipTiming(steps=30, exposure=(0, 30), sharp_step=15))
    writer.finish()
    return root


def weights(path, channels):
    utils_checkpoint.write_file(define_G(NetOpt(in_chans=channels, **TINY)).state_dict(), path)
    return path


def tiny_flags():
    return ["--set", *overrides(TINY)]


def test_option_file_restores_measures_and_reports(data_root, place, capsys):
    test = {
        "dataset_type": "VideoRecurrentTestDatasetRGBSpike",
        "dataroot_lq": str(data_root / "test_GT_blurred"),
        "dataroot_gt": str(data_root / "test_GT"),
        "dataroot_spike": str(data_root / "GOPRO_Large_spike_seq" / "test"),
    }
    opt = {"task": "tiny", "datasets": {"test": test}, "netG": {"in_chans": 4, **TINY}}
    opt["val"] = {"num_frame_testing": 2, "num_frame_overlapping": 1}
    (place / "tiny.json").write_text(json.dumps(opt))
    weights(place / "experiments" / "tiny" / "models" / "best_G.pth", 4)

    run("--opt", "tiny.json")

    folder = place / "results" / "tiny"
    assert sorted(path.name for path in (folder / "one").iterdir()) == ["000000.png", "000001.png", "000002.png"]
    assert utils_image.read_rgb(folder / "two" / "000001.png").shape == (16, 24, 3)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["clips"].keys() == {"one", "two"}
    assert {"psnr", "ssim_y", "lq_psnr", "sdm_ssim"} <= metrics["mean"].keys()
    assert len((folder / "metrics.csv").read_text().splitlines()) == 1 + 5
    assert (folder / "comparison.png").stat().st_size > 0
    assert (folder / "comparison.mp4").stat().st_size > 0
    printed = capsys.readouterr().out
    assert f"{metrics['mean']['psnr']:.2f} dB / {metrics['mean']['ssim']:.4f}" in printed
    assert "SDM" in printed


def test_a_second_test_leaves_the_results_of_the_first_alone(data_root, place):
    path, folder = weights(place / "w.pth", 4), place / "results" / "one"
    (folder / "one").mkdir(parents=True)
    (folder / "one" / "000000.png").write_text("of the first")
    with results_folder.own(folder), pytest.raises(UserError, match="results/one: .* in use by process"):
        run(
            *("--task", SPIKE_TASK, "--folder_lq", data_root / "test_GT_blurred", "--weights", path),
            *("--folder_spike", data_root / "GOPRO_Large_spike_seq" / "test", *tiny_flags(), "val.task_name=one"),
        )
    assert [path.name for path in folder.rglob("*")] == ["one", "000000.png"]


def test_older_flags_without_sharp_frames_write_restored_ones(data_root, place, capsys):
    path = weights(place / "w.pth", 4)
    run(
        *("--task", SPIKE_TASK, "--folder_lq", data_root / "test_GT_blurred", "--weights", path),
        *("--folder_spike", data_root / "GOPRO_Large_spike_seq" / "test", "--tile", 2, 16, 12),
        *("--tile_overlap", 1, 4, 4, "--num_workers", 3, "--sigma", 0, *tiny_flags()),
    )
    folder = place / "results" / SPIKE_TASK
    assert len(list(folder.glob("*/*.png"))) == 5
    assert json.loads((folder / "metrics.json").read_text())["mean"] == {}
    assert "no sharp frames" in capsys.readouterr().out


def test_older_flags_without_saving_write_only_metrics(data_root, place):
    weights(place / "model_zoo" / "vrt" / f"{RGB_TASK}.pth", 3)
    folders = ["--folder_lq", data_root / "test_GT_blurred", "--folder_gt", data_root / "test_GT"]
    earlier = place / "results" / RGB_TASK / "one" / "000001.png"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("a frame of an earlier run")
    run("--task", RGB_TASK, *folders, "--tile", 0, 0, 0, *tiny_flags())
    written = sorted(path.name for path in (place / "results" / RGB_TASK).iterdir())
    assert written == ["metrics.csv", "metrics.json", "one", "options.json", "report.html"]
    assert earlier.is_file(), "a run that writes no frames removes none of which nothing is known"
    record = place / "results" / RGB_TASK / "run.json"
    record.write_text(json.dumps({"clips": {"one": ["000001"]}}))
    run("--task", RGB_TASK, *folders, "--tile", 0, 0, 0, *tiny_flags())
    assert not earlier.exists(), "one folder shows one test"
    assert not record.exists()
    earlier.parent.mkdir()
    earlier.write_text("a frame of an interrupted run")
    record.write_text(json.dumps({"clips": {"one": ["000001", "000002"]}}))
    (place / "results" / RGB_TASK / "report.html").unlink()
    with pytest.raises(UserError, match="has 1 of 2 frames of an interrupted test"):
        run("--task", RGB_TASK, *folders, "--tile", 0, 0, 0, *tiny_flags())


def test_spikes_that_nothing_describes_are_gopros(tmp_path):
    opt = utils_option.load(official_tasks.task_file(SPIKE_TASK), Opt)
    assert official_tasks.spike_changes(opt, str(tmp_path)) == {
        "dataroot_spike": str(tmp_path),
        "spike_h": 360,
        "spike_w": 640,
    }
    SpikeConfig(filename="mine", spike_h=250, spike_w=400).save(tmp_path)
    assert official_tasks.spike_changes(opt, str(tmp_path)) == {"dataroot_spike": str(tmp_path)}


DEBLUR = (1, (6, 192, 192), (6, 8, 8), (8,) * 7 + (4,) * 4, (9, 10), (96,) * 7 + (120,) * 4, 2, 16)
SUPER = ((8,) * 7 + (4,) * 6, (11, 12), (120,) * 7 + (180,) * 6)
GEOMETRY = {
    "001_VRT_videosr_bi_REDS_6frames": (4, (6, 64, 64), (6, 8, 8), *SUPER, 2, 12),
    "002_VRT_videosr_bi_REDS_16frames": (4, (16, 64, 64), (8, 8, 8), *SUPER, 6, 24),
    "003_VRT_videosr_bi_Vimeo_7frames": (4, (8, 64, 64), (8, 8, 8), *SUPER, 4, 16),
    "004_VRT_videosr_bd_Vimeo_7frames": (4, (8, 64, 64), (8, 8, 8), *SUPER, 4, 16),
    "005_VRT_videodeblurring_DVD": DEBLUR,
    RGB_TASK: DEBLUR,
    SPIKE_TASK: DEBLUR,
    "007_VRT_videodeblurring_REDS": DEBLUR,
    "008_VRT_videodenoising_DAVIS": DEBLUR,
    "009_VRT_videofi_Vimeo_4frames": (1, (4, 192, 192), (4, 8, 8), DEBLUR[3], (), DEBLUR[5], 0, None),
}


def test_all_tasks_are_known():
    assert list(utils_option.task_files()) == sorted([*GEOMETRY, *utils_zoo.TASKS.values()])


@pytest.mark.parametrize("task", GEOMETRY)
def test_tasks_have_their_geometry(task):
    opt = utils_option.load(official_tasks.task_file(task), Opt)
    keys = ("upscale", "img_size", "window_size", "depths", "indep_reconsts", "embed_dims", "pa_frames")
    *geometry, groups = GEOMETRY[task]
    assert opt.task == task
    assert [getattr(opt.netG, key) for key in keys] == geometry
    assert groups in (None, opt.netG.deformable_groups)
    assert opt.netG.num_heads == (6,) * len(opt.netG.depths)
    assert opt.netG.in_chans == (4 if "rgbspike" in task else 3)
    assert opt.netG.nonblind_denoising == ("denoising" in task)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "008_VRT_videodenoising_DAVIS", "--folder_gt", "."], "--sigma is missing"),
        (["--task", "008_VRT_videodenoising_DAVIS", "--folder_lq", ".", "--sigma", "-1"], "--sigma is -1"),
        (["--task", "001_VRT_videosr_bi_REDS_6frames", "--folder_gt", "."], "--folder_lq is missing"),
        (["--task", "006_VRT_videodeblurring_GoPr"], f"did you mean {RGB_TASK}"),
        (["--task", RGB_TASK], "--folder_lq is missing"),
        (["--task", RGB_TASK, "--folder_lq", "nowhere"], "--folder_lq: nowhere is not a folder"),
        (["--task", RGB_TASK, "--folder_lq", ".", "--sigma", "10"], "takes no noise level"),
        (["--task", RGB_TASK, "--folder_lq", ".", "--folder_spike", "."], "takes no spikes"),
        (["--task", SPIKE_TASK, "--folder_lq", "."], "--folder_spike is missing"),
        (
            ["--task", RGB_TASK, "--folder_lq", ".", "--tile", "4", "8", "8"],
            "expected an overlap from 0 to below the size",
        ),
        (["--task", RGB_TASK, "--folder_lq", "."], f"model_zoo/vrt/{RGB_TASK}.pth .* nothing is downloaded"),
        (["--opt", "nowhere.json"], "nowhere.json"),
    ],
)
def test_mistakes_get_one_line(words, message, place):
    with pytest.raises(UserError, match=message) as error:
        run(*words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("words", [[], ["--opt", "a.json", "--task", "b"], ["--opt", "a.json", "--save_result"]])
def test_the_two_forms_do_not_mix(words):
    with pytest.raises(SystemExit) as stop:
        main_test_vrt.parse_args(words)
    assert stop.value.code == 2


def test_data_are_checked_before_the_model_is_built(data_root, place, monkeypatch):
    def never(*_):
        raise AssertionError("built a model")

    monkeypatch.setattr(main_test_vrt, "define_restorer", never)
    path = place / "w.pth"
    torch.save({}, path)
    folders = ["--folder_lq", data_root / "test_GT_blurred", "--folder_gt", data_root / "train_GT"]
    with pytest.raises(UserError, match="dataroot_gt"):
        run("--task", RGB_TASK, *folders, "--weights", path)
