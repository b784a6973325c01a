"""What goes wrong in KAIR must not go wrong here: tests for each of its known defects, here or beside their part.

Learning rate
- The cosine restarts at the last step, and the last checkpoint follows an update at the highest rate:
  tests/unit/test_training_parts.py::test_cosine_ends_at_its_minimum_and_never_restarts_at_the_last_update
- The rate that is shown is not the one that was used, with milestones:
  tests/unit/test_kair_defects.py::test_the_rate_that_is_shown_is_the_one_that_was_used
Order of the samples
- Every epoch has the same order in several processes:
  tests/unit/test_loader.py::test_every_epoch_shows_each_sample_once_in_an_order_of_its_own
- Processes draw seeds of their own, so that their shares overlap, or all augment alike:
  tests/unit/test_loader.py::test_shards_never_overlap_and_are_augmented_each_for_itself
Several processes
- One process measures for longer than the others wait, and the run is ended:
  tests/unit/test_eval.py::test_any_number_of_processes_gives_the_same_numbers
  tests/unit/test_kair_defects.py::test_others_wait_longer_than_a_long_validation_takes
- The end of a run is said and saved by every process, which has no logger or writes the same file:
  tests/unit/test_kair_defects.py::test_other_processes_can_speak_and_write_nothing
  tests/e2e/test_training.py::test_two_processes_train_and_measure_as_one_does
- The run crashes by design when frozen parts start to learn:
  tests/unit/test_training_parts.py::test_fixed_keys_stay_until_fix_iter_and_then_learn_slower
  tests/e2e/test_training.py::test_two_processes_train_and_measure_as_one_does
- One GPU goes through DataParallel, and four samples for eight GPUs become none:
  tests/unit/test_kair_defects.py::test_one_process_runs_the_network_itself
  tests/unit/test_loader.py::test_a_batch_that_cannot_be_divided_is_the_users_mistake
Options without effect
- Clipping of the gradient ends the run:
  tests/unit/test_training_parts.py::test_clipping_bounds_the_gradient
- The val options pad_seq, flip_seq and center_frame_only do nothing:
  tests/unit/test_kair_defects.py::test_sequence_options_of_the_val_block_take_effect
Restoring and measuring
- A whole clip is padded by a window more than needed in training, so that training and testing measure differently:
  tests/unit/test_kair_defects.py::test_training_and_testing_measure_the_same
  tests/unit/test_tile.py::test_no_tiling_is_one_call_on_the_whole_clip
- Tiles without overlap give an image that is not a number:
  tests/unit/test_kair_defects.py::test_tiles_without_overlap_restore_every_pixel
- Clips without sharp frames crash, and frames kept in memory cannot be saved:
  tests/unit/test_eval.py::test_without_sharp_frames_it_only_restores
  tests/unit/test_kair_defects.py::test_frames_kept_in_memory_can_be_saved
Data
- Lists of clips with three fields crash, and reading takes keys out of io_backend:
  tests/unit/test_datasets.py::test_meta_info_of_three_fields_starts_at_zero
  tests/unit/test_kair_defects.py::test_reading_leaves_the_options_alone
What is absent
- 16 bits, sums of gradients, a guard against what is not finite; and the last tile nearly repeats the one before:
  tests/unit/test_precision.py::test_restored_frames_are_those_of_float32_within_a_bound
  tests/unit/test_training_parts.py::test_accumulated_batches_equal_one_batch_of_them_all
  tests/unit/test_guard.py::test_what_is_not_finite_is_left_out_from_the_first_step_on
  tests/unit/test_tile.py::test_no_tile_nearly_repeats_another
"""

import ast
import json
import logging
import re
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from test_main_test import run
from tiny_network import TINY
from tiny_set import options, rng
from torch import nn

from data.dataset_video_test import VideoTestDataset
from data.dataset_video_train_rgbspike import VideoTrainDatasetRGBSpike
from models.model_vrt import ModelVRT
from models.select_network import define_G
from options.schema import LoggingOpt, NetOpt, Opt, TrainOpt, ValOpt
from utils import utils_checkpoint, utils_dist, utils_eval, utils_image, utils_logger, utils_option, utils_tile
from utils.report import results_folder
from utils.utils_dist import Dist
from utils.utils_rgbspike import RGBSpike
from utils.utils_tile_opt import TileOpt

ROOT = Path(__file__).resolve().parents[2]
DEFECTS = 15


class TinyNet(nn.Module):
    """Stands in for VRT: frames and spikes -> (B, T, 3, h, w)."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 3)

    def forward(self, x, spike):
        return self.body(torch.cat((x, spike), dim=2).movedim(2, -1)).movedim(-1, 2)


def batch():
    return {
        "lq": torch.rand(1, 2, 3, 4, 4),
        "spike": torch.rand(1, 2, 1, 4, 4),
        "gt": torch.rand(1, 2, 3, 4, 4),
        "key": ["clip_a/000001"],
    }


def copy_rgb(window):
    return (window.rgb if isinstance(window, RGBSpike) else window)[:, :, :3].clone()


@pytest.fixture
def option_file(shared_set, tmp_path):
    """An option file of a tiny network and the shared set; `val` is given."""

    def write(val):
        blocks = {kind.lower(): options(shared_set, kind).model_dump(mode="json") for kind in ("Train", "Test")}
        path = tmp_path / "tiny.json"
        tree = {
            "task": "tiny",
            "path": {"root": str(tmp_path / "experiments")},
            "datasets": blocks,
            "netG": {"in_chans": 4, **TINY},
            "val": val,
            "logging": {"use_tensorboard": False},
        }
        path.write_text(json.dumps(tree))
        return path

    return write


# The list above


def test_every_defect_has_tests_which_exist():
    entries = re.split(r"^- ", __doc__, flags=re.M)[1:]
    assert len(entries) == DEFECTS
    for entry in entries:
        names = re.findall(r"(tests/\S+\.py)::(\w+)", entry)
        assert names, entry
        for path, name in names:
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{path}::{name}"


# Learning rate


def test_the_rate_that_is_shown_is_the_one_that_was_used():
    opt = TrainOpt(
        total_iter=8,
        G_optimizer_lr=0.1,
        G_scheduler_type="MultiStepLR",
        G_scheduler_milestones=(2, 4),
        G_scheduler_gamma=0.5,
    )
    model = ModelVRT(TinyNet(), opt, Dist())
    shown, used = [], []
    for step in range(6):
        shown.append(model.train_step([batch()], step)["lr"])
        used += [group["lr"] for group in model.optimizer.param_groups]
    assert shown == used
    assert sorted(set(shown), reverse=True) == pytest.approx([0.1, 0.05, 0.025])


# Several processes


def test_others_wait_longer_than_a_long_validation_takes(monkeypatch):
    """The 1111 frames of GoPro took 41 minutes at 2.2 seconds each."""

    def ask(*_, timeout, **__):
        asked.append(timeout)
        raise ConnectionError

    asked = []

    store = torch.distributed.HashStore()
    monkeypatch.setattr(torch.distributed, "rendezvous", lambda *_, **__: iter([(store, 1, 2)]))
    monkeypatch.setattr(torch.distributed, "init_process_group", ask)
    for key, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(ConnectionError):
        utils_dist.init()
    assert asked[0] > timedelta(minutes=41)


def test_other_processes_can_speak_and_write_nothing(option_file, tmp_path):
    opt = utils_option.load(option_file({}), Opt)
    logger = logging.getLogger("spikevrt")
    level, handlers = logger.level, list(logger.handlers)
    try:
        run_records = utils_logger.start_run(opt.run_dir, LoggingOpt(), Dist(1, 2), opt)
        logger.info("finished")
        run_records.log(1, "train", {"G_loss": 1.0})
        run_records.write_options(opt)
        run_records.close()
    finally:
        logger.setLevel(level)
    assert logger.handlers == handlers
    assert [path.name for path in tmp_path.rglob("*")] == ["tiny.json"]


def test_one_process_runs_the_network_itself():
    net = TinyNet()
    assert utils_dist.wrap(Dist(), net) is net


# Restoring and measuring


def test_sequence_options_of_the_val_block_take_effect(option_file):
    def windows(**val):
        opt = utils_option.load(option_file({"metrics": ["psnr"], **val}), Opt)
        assert opt.datasets.test is not None
        seen = []

        def watch(window):
            seen.append(window.tensors(torch.device("cpu")))
            return copy_rgb(window)

        return seen, utils_eval.evaluate(watch, VideoTestDataset(opt.datasets.test), opt.val)["frames"]

    (plain, *_), rows = windows()
    for longer, part in zip(windows(pad_seq=True)[0][0], plain, strict=True):
        assert longer.shape[1] == part.shape[1] + 4
        assert torch.equal(longer[:, 2:-2], part)
    both = windows(flip_seq=True)[0]
    assert all(torch.equal(backwards, part.flip(1)) for part, backwards in zip(*both[:2], strict=True))
    assert [row for row in rows if "psnr" not in row] == []
    of_centre = [row["frame"] for row in windows(center_frame_only=True)[1] if "psnr" in row]
    assert of_centre == ["000049", "000049"]


def test_training_and_testing_measure_the_same(option_file, tmp_path, monkeypatch):
    """The length of the clips is no multiple of the window's."""
    monkeypatch.chdir(tmp_path)
    path = option_file({"metrics": ["psnr", "ssim"]})
    opt = utils_option.load(path, Opt)
    torch.manual_seed(0)
    net = define_G(NetOpt(in_chans=4, **TINY))
    nn.init.normal_(net.conv_last.weight, std=0.05)
    utils_checkpoint.write_weights(net.state_dict(), tmp_path / "w.pth")
    assert opt.datasets.test is not None
    in_training = utils_eval.evaluate(
        ModelVRT(net, opt.train, Dist()).restore, VideoTestDataset(opt.datasets.test), opt.val
    )
    run("--opt", path, "--set", f"path.pretrained_netG={tmp_path / 'w.pth'}")
    (found,) = tmp_path.rglob("metrics.json")
    in_testing = json.loads(found.read_text())
    for name in ("psnr", "ssim", "sdm_psnr"):
        assert in_testing["mean"][name] == in_training["mean"][name]


@pytest.mark.parametrize("frames", [0, 2])
def test_tiles_without_overlap_restore_every_pixel(frames):
    clip = torch.rand(5, 4, 20, 24)
    tile = TileOpt(frames, 0, (8, 8), (0, 0))
    restored = utils_tile.restore_tiled(copy_rgb, lambda start, stop: clip[start:stop], 5, (20, 24), tile)
    out = torch.stack([frame for _, frame in restored])
    torch.testing.assert_close(out, clip[:, :3])


def test_frames_kept_in_memory_can_be_saved(shared_set, tmp_path):
    clips = VideoTestDataset(options(shared_set, "Test", cache_data=True))
    val = ValOpt(metrics=("psnr",))
    for folder in ("first", "second"):
        utils_eval.evaluate(copy_rgb, clips, val, watchers=[results_folder.frame_writer(tmp_path / folder)])
        written = utils_image.read_rgb(tmp_path / folder / "clip_b/000051.png")
        assert np.array_equal(written, utils_image.read_rgb(shared_set / "lq/clip_b/000051.png"))


# Data


def test_reading_leaves_the_options_alone(shared_set):
    opt = options(shared_set, io_backend={"type": "disk"})
    before = opt.model_dump()
    dataset = VideoTrainDatasetRGBSpike(opt)
    first, second = dataset.sample(3, rng()), dataset.sample(3, rng())
    assert opt.model_dump() == before
    assert torch.equal(first["lq"], second["lq"])
