"""Super-resolution, denoising and frame interpolation: folders in, folders out."""

import json

import numpy as np
import pytest
import torch
from test_main_test import run
from tiny_network import TINY

from data.dataset_video_test import VideoTestDataset
from data.frame_order import by_number
from data.task_clips import NoisyClip, middle_clips, middle_name
from models.select_network import define_G
from options.schema import DatasetOpt, NetOpt
from utils import utils_checkpoint, utils_eval, utils_image, utils_metric
from utils.evaluation.ensemble import restore_both_ways
from utils.utils_error import UserError
from utils.utils_tile import restore_tiled
from utils.utils_tile_opt import TileOpt

SUPER_TASK, NOISE_TASK = "001_VRT_videosr_bi_REDS_6frames", "008_VRT_videodenoising_DAVIS"
MIDDLE_TASK = "009_VRT_videofi_Vimeo_4frames"
HEIGHT, WIDTH = 16, 20


def write_clip(root, clip, names, height=HEIGHT, width=WIDTH, seed=0):
    """Noise frames under the given names; returns them, (T, H, W, 3) uint8."""
    frames = np.random.default_rng(seed).integers(0, 256, (len(names), height, width, 3), dtype=np.uint8)
    for name, frame in zip(names, frames, strict=True):
        utils_image.write_rgb(root / clip / f"{name}.png", frame)
    return frames


def numbered(*numbers):
    return [f"{number:06d}" for number in numbers]


def clips_of(root, gt=None):
    return VideoTestDataset(DatasetOpt(dataset_type="VideoRecurrentTestDataset", dataroot_lq=str(root), dataroot_gt=gt))


def run_task(place, task, *words, **changes):
    """Run a task with a tiny network of random weights; returns its metrics.json."""
    tiny = {**TINY, **changes}
    net = define_G(NetOpt(in_chans=3, **tiny))
    torch.nn.init.normal_(net.conv_last.weight, std=0.05)
    utils_checkpoint.write_weights(net.state_dict(), place / "w.pth", "params")
    sets = [f"netG.{key}={json.dumps(value)}" for key, value in tiny.items()]
    run("--task", task, "--weights", place / "w.pth", *words, "--set", *sets)
    return json.loads((place / "results" / task / "metrics.json").read_text())


# Super-resolution


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_enlarged_tiles_join_to_the_enlarged_clip(scale):
    clip = torch.rand(5, 3, 17, 23)

    def restore(window):
        return window.repeat_interleave(scale, 3).repeat_interleave(scale, 4)

    tile = TileOpt(3, 1, (8, 10), (3, 4))
    frames = [frame for _, frame in restore_tiled(restore, lambda a, b: clip[a:b], 5, (17, 23), tile)]
    torch.testing.assert_close(torch.stack(frames), restore(clip[None])[0], atol=1e-6, rtol=0)


def test_super_resolution_reads_small_frames_and_measures_against_large_ones(place):
    write_clip(place / "small", "a", numbered(0, 1, 2))
    large = write_clip(place / "large", "a", numbered(0, 1, 2), 2 * HEIGHT, 2 * WIDTH, seed=1)
    folders = ("--folder_lq", place / "small", "--folder_gt", place / "large", "--save_result")
    metrics = run_task(place, SUPER_TASK, *folders, "--tile", 2, 16, 16, "--tile_overlap", 1, 4, 4, upscale=2)
    folder = place / "results" / SUPER_TASK
    restored = [utils_image.read_rgb(folder / "a" / f"{name}.png") for name in numbered(0, 1, 2)]
    assert restored[0].shape == large[0].shape
    psnrs = [utils_metric.METRICS["psnr"](one, gt) for one, gt in zip(restored, large, strict=True)]
    assert metrics["mean"]["psnr"] == pytest.approx(np.mean(psnrs))
    assert "lq_psnr" in metrics["mean"]
    assert "enlarged bilinearly" in metrics["protocol"]
    assert (folder / "comparison.png").is_file()


def test_sharp_frames_of_another_size_are_named(place):
    write_clip(place / "small", "a", numbered(0, 1))
    write_clip(place / "large", "a", numbered(0, 1), 3 * HEIGHT, 3 * WIDTH)
    folders = ("--folder_lq", place / "small", "--folder_gt", place / "large")
    with pytest.raises(UserError, match="3 times as large.*netG.upscale is 2"):
        run_task(place, SUPER_TASK, *folders, upscale=2)


# Denoising


def test_noise_is_that_of_its_frame_whatever_is_read(tmp_path):
    write_clip(tmp_path, "a", numbered(*range(6)), 64, 64)
    write_clip(tmp_path, "b", numbered(*range(6)), 64, 64)
    first, other = (NoisyClip(clip, sigma=25) for clip in clips_of(tmp_path).clips)
    whole = first.network_input(0, 6)
    assert whole.shape == (6, 4, 64, 64)
    assert torch.equal(first.network_input(2, 5), whole[2:5])
    assert torch.equal(first.lq(0, 6), whole[:, :3])
    assert (whole[:, 3] == 25 / 255).all()
    clean = clips_of(tmp_path)[0]
    noise = first.lq(0, 6) - clean.lq(0, 6)
    assert noise.std().item() == pytest.approx(25 / 255, rel=0.02)
    assert abs(noise.mean().item()) < 0.002
    for a, b in ((noise[0], noise[1]), (noise[0], other.lq(0, 1)[0] - clips_of(tmp_path)[1].lq(0, 1)[0])):
        assert abs(torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1]) < 0.05
    assert first.lq(0, 6).min() < 0, "noise is not clipped"


def test_without_noise_frames_stay_as_they_are(tmp_path):
    write_clip(tmp_path, "a", numbered(0, 1))
    clean = clips_of(tmp_path)[0]
    assert torch.equal(NoisyClip(clean, 0).network_input(0, 2)[:, :3], clean.lq(0, 2))


@pytest.mark.parametrize("flag", ["--folder_lq", "--folder_gt"])
def test_denoising_with_one_folder_measures_against_it(place, flag):
    clean = write_clip(place / "clean", "a", numbered(0, 1, 2))
    metrics = run_task(place, NOISE_TASK, flag, place / "clean", "--sigma", 30, nonblind_denoising=True)
    noisy = NoisyClip(clips_of(place / "clean")[0], 30)
    psnrs = [utils_metric.METRICS["psnr"](utils_image.to_uint8(noisy.lq(i, i + 1)[0]), clean[i]) for i in range(3)]
    assert metrics["mean"]["lq_psnr"] == pytest.approx(np.mean(psnrs))
    assert "psnr" in metrics["mean"]
    assert "sigma 30" in metrics["protocol"]
    assert not list((place / "results" / NOISE_TASK).rglob("*.png")), "only --save_result writes frames"


# Frame interpolation


@pytest.mark.parametrize(
    ("left", "right", "middle"),
    [
        ("000003", "000005", "000004"),
        ("im3", "im5", "im4"),
        ("000003", "000004", "000003_to_000004"),
        ("000003", "000008", "000003_to_000008"),
        ("09", "11", "10"),
        ("9", "11", "10"),
        ("9999", "10001", "10000"),
        ("9", "0011", "9_to_0011"),
        ("a3", "b5", "a3_to_b5"),
        ("left", "right", "left_to_right"),
    ],
)
def test_the_middle_frame_has_a_name_of_its_own(left, right, middle):
    assert middle_name(left, right) == middle
    if left < right:
        assert by_number({right, middle, left}) == (left, middle, right)


def half_of(window):
    """A network in small: the average of the two frames in the middle of each four."""
    count = window.shape[1]
    return torch.stack([(window[:, i + 1] + window[:, i + 2]) / 2 for i in range(count - 3)], dim=1)[:, :, :3]


def test_middle_frames_are_made_of_the_right_ones_in_any_tiles(tmp_path):
    write_clip(tmp_path / "all", "a", numbered(*range(13)))
    for number in range(0, 13, 2):
        (tmp_path / "half/a").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"half/a/{number:06d}.png").symlink_to(tmp_path / f"all/a/{number:06d}.png")
    test_set = clips_of(tmp_path / "half")
    opt = DatasetOpt(
        dataset_type="VideoRecurrentTestDataset",
        dataroot_lq=str(tmp_path / "half"),
        dataroot_gt=str(tmp_path / "all"),
    )
    (clip,) = middle_clips(test_set, opt, 4)
    assert clip.frames == numbered(3, 5, 7, 9)
    assert np.array_equal(clip.gt(1, 3)[1], utils_image.read_rgb(tmp_path / "all/a/000007.png"))
    for tile in (TileOpt(), TileOpt(1, 0), TileOpt(2, 1, (8, 8), (2, 2)), TileOpt(3, 0)):
        for restore in (half_of, restore_both_ways(half_of)):
            frames = dict(restore_tiled(restore, clip.network_input, 4, clip.size, tile))
            torch.testing.assert_close(torch.stack([frames[i] for i in range(4)]), clip.lq(0, 4), atol=1e-6, rtol=0)


def test_interpolation_writes_middle_frames_and_measures_those_that_there_are(place):
    write_clip(place / "in", "a", numbered(0, 2, 4, 6, 7, 8))
    write_clip(place / "in", "b", numbered(0, 1, 2, 3))
    sharp = write_clip(place / "all", "a", numbered(*range(9)), seed=1)
    write_clip(place / "all", "b", numbered(*range(9)))
    geometry = {"pa_frames": 0, "img_size": [4, 16, 16], "window_size": [4, 2, 2]}
    folders = ("--folder_lq", place / "in", "--folder_gt", place / "all", "--save_result")
    metrics = run_task(place, MIDDLE_TASK, *folders, "--tile", 5, 0, 0, "--tile_overlap", 2, 0, 0, **geometry)
    folder = place / "results" / MIDDLE_TASK
    assert sorted(path.stem for path in (folder / "a").iterdir()) == ["000003", "000005", "000006_to_000007"]
    assert [path.stem for path in (folder / "b").iterdir()] == ["000001_to_000002"]
    restored = [utils_image.read_rgb(folder / "a" / f"{name}.png") for name in numbered(3, 5)]
    psnrs = [utils_metric.METRICS["psnr"](one, gt) for one, gt in zip(restored, sharp[[3, 5]], strict=True)]
    assert metrics["clips"]["a"]["psnr"] == pytest.approx(np.mean(psnrs))
    assert metrics["clips"]["b"] == {}
    assert "average of the two frames" in metrics["protocol"]


def test_interpolation_without_sharp_frames_only_writes(place):
    write_clip(place / "in", "a", numbered(*range(5)))
    geometry = {"pa_frames": 0, "img_size": [4, 16, 16], "window_size": [4, 2, 2]}
    metrics = run_task(place, MIDDLE_TASK, "--folder_lq", place / "in", **geometry)
    assert metrics["mean"] == {}
    folder = place / "results" / MIDDLE_TASK
    assert len(list((folder / "a").iterdir())) == 2
    assert (folder / "comparison.mp4").is_file()


def test_clips_that_do_not_suit_interpolation_are_named(tmp_path):
    write_clip(tmp_path / "short", "a", numbered(0, 1, 2))
    write_clip(tmp_path / "in", "a", numbered(0, 1, 2, 3))
    opt = DatasetOpt(dataset_type="VideoRecurrentTestDataset", dataroot_lq=str(tmp_path))
    with pytest.raises(UserError, match="clip a: has 3 frames, frame interpolation needs 4"):
        middle_clips(clips_of(tmp_path / "short"), opt, 4)
    with pytest.raises(UserError, match="dataroot_gt: .* has none .* clip a frame 000001_to_000002"):
        middle_clips(clips_of(tmp_path / "in"), opt.model_copy(update={"dataroot_gt": str(tmp_path / "in")}), 4)


def test_mirrored_ends_are_refused_where_frames_are_interpolated(place):
    write_clip(place / "in", "a", numbered(*range(5)))
    utils_checkpoint.write_file({}, place / "w.pth")
    with pytest.raises(UserError, match="val.pad_seq is true"):
        run(
            *("--task", MIDDLE_TASK, "--folder_lq", place / "in", "--weights", place / "w.pth"),
            *("--set", "val.pad_seq=true"),
        )


# Both


def test_a_noise_level_belongs_to_denoising_in_option_files_too(place):
    write_clip(place / "in", "a", numbered(0, 1))
    test = {"dataset_type": "VideoRecurrentTestDataset", "dataroot_lq": str(place / "in")}
    opt = {"task": "own", "datasets": {"test": test}, "netG": TINY}
    (place / "own.json").write_text(json.dumps(opt))
    with pytest.raises(UserError, match="--sigma is 5, but own takes no noise level"):
        run("--opt", "own.json", "--sigma", 5)


def test_the_evaluation_never_resizes_what_was_restored(tmp_path):
    write_clip(tmp_path / "small", "a", numbered(0))
    write_clip(tmp_path / "large", "a", numbered(0), 2 * HEIGHT, 2 * WIDTH)
    test_set = clips_of(tmp_path / "small", str(tmp_path / "large"))
    from options.schema import ValOpt

    with pytest.raises(ValueError, match="expected two uint8"):
        utils_eval.evaluate(lambda window: window, test_set, ValOpt())
