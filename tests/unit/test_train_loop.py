"""The loop of main_train_vrt.py on a model that only counts: when it stops, and what it saves before."""

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import main_train_vrt
from options.schema import Opt
from utils import utils_dist
from utils.checkpoint import run_checkpoints
from utils.processes.signals import StopRequest
from utils.utils_dist import Dist


class Source:
    """Samples of one number; the one at `at` asks `stop`."""

    shuffle = False

    def __init__(self, stop=None, at=None):
        self.stop, self.at = stop, at

    def __len__(self):
        return 1000

    def sample(self, index, rng):
        if index == self.at:
            self.stop.name = "SIGTERM"
        return {"lq": torch.tensor([float(index)]), "key": f"a/{index}"}

    def name(self, index, rng):
        return f"clip a frame {index:06d}"


@pytest.fixture
def loop(tmp_path, monkeypatch):
    """Train; returns what `train` gave and, in order, the steps taken, saved and tested."""
    done = []

    def train(source, stop, *, dist=None, start=0, test=None, train=(), workers=0, batch=1, tested=True):
        block = {"total_iter": 12, "checkpoint_save": 100, "checkpoint_test": 4, "checkpoint_print": 100}
        places = {"dataroot_lq": "lq", "dataroot_gt": "gt", "dataset_type": "VideoRecurrentTrainDataset", "name": "t"}
        places |= {"dataloader_num_workers": workers, "dataloader_batch_size": batch}
        opt = Opt.model_validate(
            {
                "task": "t",
                "path": {"root": str(tmp_path)},
                "datasets": {"train": places},
                "train": block | dict(train),
            }
        )
        model = SimpleNamespace(
            guard=SimpleNamespace(exhausted=False),
            train_step=lambda batches, step: done.append(f"step {step + 1}") or {"G_loss": 0.0, "lr": 0.0},
        )
        run = SimpleNamespace(log=lambda *given: None, has_test=lambda step: tested)

        def measure(tester, step):
            done.append(f"test {step}")
            return test is None or test(step)

        monkeypatch.setattr(main_train_vrt.Tester, "test", measure)
        monkeypatch.setattr(main_train_vrt.Saver, "_write", lambda saver, step: done.append(f"save {step}"))
        parts = main_train_vrt.Training(opt, model, source, object() if test else None, dist or Dist(), run)
        return main_train_vrt.train(parts, start, stop), done

    return train


@pytest.mark.parametrize("at", [0, 5, 6, 7])
def test_a_request_during_loading_saves_the_step_before_and_takes_none(loop, at):
    """Also one that comes with the last sample of a batch."""
    stop = StopRequest()
    (step, finished), done = loop(Source(stop, at), stop, batch=2)
    assert (step, finished) == (at // 2, False)
    assert done == [f"step {number}" for number in range(1, step + 1)] + [f"save {step}"] * (step > 0)


def test_a_request_to_another_process_is_heard_by_one_that_waits_for_a_batch(loop, monkeypatch):
    looks = iter([False] * 3)
    monkeypatch.setattr(utils_dist, "any_asked", lambda own: next(looks, True))
    votes = []
    monkeypatch.setattr(utils_dist, "any_true", lambda dist, flags: votes.append(flags[0]) or flags)
    (step, finished), done = loop(Source(), StopRequest(), dist=Dist(1, 2), train={"total_iter": 500}, batch=4)
    assert finished is False
    assert votes == [False] * step + [True], "all processes decide alike, before a step"


def test_what_was_trained_is_saved_before_a_test_and_a_test_that_stops_ends_the_run(loop):
    (step, finished), done = loop(Source(), StopRequest(), test=lambda step: step < 8)
    assert (step, finished) == (8, False)
    steps = [f"step {number}" for number in range(1, 9)]
    assert done == [*steps[:4], "save 4", "test 4", *steps[4:], "save 8", "test 8"]


def test_the_start_is_tested_on_request_alone(loop):
    for wanted in (False, True):
        _, done = loop(Source(), StopRequest(), test=lambda step: True, train={"test_start": wanted}, tested=False)
        assert done[-1] == "test 12"
        assert (done[0] == "test 0") is wanted
        done.clear()


def test_a_test_that_stops_at_the_last_step_is_not_the_end(loop):
    (step, finished), done = loop(Source(), StopRequest(), start=11, test=lambda step: False)
    assert (step, finished) == (12, False)
    assert done == ["step 12", "save 12", "test 12"]


def test_a_checkpoint_by_time_is_of_the_steps_that_are_done(loop, monkeypatch):
    now = iter(range(0, 10000, 31))
    clocks = SimpleNamespace(monotonic=lambda: float(next(now)), perf_counter=time.perf_counter)
    monkeypatch.setattr(main_train_vrt, "time", clocks)
    (step, finished), done = loop(Source(), StopRequest(), train={"total_iter": 5, "checkpoint_minutes": 1.0})
    assert (step, finished) == (5, True)
    saves = [index for index, what in enumerate(done) if what.startswith("save")]
    assert len(saves) > 2
    assert all(done[index - 1] == f"step {done[index].split()[1]}" for index in saves)
    assert done[-1] == "save 5"


# Validations


def parts_of(folder, dist=None, **val):
    opt = Opt.model_validate({"task": "t", "path": {"root": str(folder)}, "val": val})
    model = SimpleNamespace(state_dicts=lambda: {"G": {"weight": torch.zeros(1)}}, restore=None)
    run = SimpleNamespace(log_test=lambda step, result: None)
    return main_train_vrt.Training(opt, model, None, [], dist or Dist(), run)


@pytest.fixture
def measured(monkeypatch):
    """The tiles that are chosen by measuring, one after the other."""
    chosen = []

    def prepare(restore, dist, net, test_set, val, tile, *, auto):
        chosen.append(replace(tile, size=(64 + 8 * len(chosen), 64), frames=6))
        return chosen[-1]

    monkeypatch.setattr(main_train_vrt.choose_tile, "prepare", prepare)
    return chosen


def test_a_tile_of_its_own_choice_is_chosen_once_a_run(tmp_path, measured):
    tiles = [main_train_vrt.tile_of_run(parts_of(tmp_path, tile="auto")) for _ in range(3)]
    assert tiles == [measured[0]] * 3, "also in a run that goes on"
    bounded = parts_of(tmp_path, tile="auto", size_patch_testing=128)
    assert main_train_vrt.tile_of_run(bounded) == measured[1], "under other bounds it is another one"
    assert main_train_vrt.tile_of_run(parts_of(tmp_path)).frames == 0
    assert len(measured) == 2


def test_all_processes_take_the_tile_that_the_first_one_has_kept(tmp_path, measured, monkeypatch):
    """Whether or not the others see its file."""
    main_train_vrt.tile_of_run(parts_of(tmp_path, tile="auto"))
    sent = []
    monkeypatch.setattr(utils_dist, "gather_objects", lambda dist, value: sent.append(value) or sent)
    for rank, folder in ((0, tmp_path), (1, tmp_path / "elsewhere")):
        parts = parts_of(folder, Dist(rank, 2), tile="auto")
        assert main_train_vrt.tile_of_run(parts) == measured[0]
    assert sent[1] == {}


def result_of(mean, frames=2, protocol="border 0"):
    rows = [{"clip": "a", "frame": f"{number:06d}"} for number in range(frames)]
    return {"mean": mean, "frames": rows, "protocol": protocol}


INPUT = {"psnr": 20.0, "lq_psnr": 15.0}


@pytest.mark.parametrize(
    ("result", "val"),
    [
        (result_of(INPUT, frames=3), {}),
        (result_of(INPUT | {"lq_psnr": 14.9}), {}),
        (result_of(INPUT | {"sdm_psnr": 14.9}), {}),
        (result_of(INPUT, protocol="border 8"), {}),
        (result_of(INPUT), {"num_frame_testing": 6}),
    ],
    ids=["a frame more", "other input", "with spikes", "another protocol", "other tiles"],
)
def test_after_another_test_set_or_protocol_the_next_weights_are_the_best(tmp_path, monkeypatch, result, val):
    shown = SimpleNamespace(show=lambda *given: None)
    monkeypatch.setattr(main_train_vrt.metric_files, "BoardImages", lambda test_set: shown)
    measured = [({}, result_of(INPUT | {"psnr": 30.0})), ({"tile_batch": 2}, result_of(INPUT)), (val, result)]
    for step, (val_of_step, found) in enumerate(measured, start=1):
        monkeypatch.setattr(main_train_vrt, "evaluate", lambda *given, found=found, **more: found)
        parts = parts_of(tmp_path, **val_of_step)
        main_train_vrt.Tester(parts, StopRequest()).test(step)
        assert run_checkpoints.best(parts.opt.run_dir)["step"] == (3 if step == 3 else 1)


@pytest.mark.parametrize(
    ("metrics", "scores", "best"),
    [
        (["ssim", "psnr"], [{"psnr": 30.0, "ssim": 0.9}, {"psnr": 29.0, "ssim": 0.95}], {"step": 1, "psnr": 30.0}),
        (["ssim", "tof"], [{"ssim": 0.9, "tof": 1.0}, {"ssim": 0.95, "tof": 2.0}], {"step": 2, "ssim": 0.95}),
        (["tof", "ssim"], [{"ssim": 0.9, "tof": 1.0}, {"ssim": 0.95, "tof": 2.0}], {"step": 1, "tof": 1.0}),
        ([], [{}, {}], None),
    ],
)
def test_whatever_is_measured_chooses_the_best_weights(tmp_path, monkeypatch, metrics, scores, best):
    shown = SimpleNamespace(show=lambda *given: None)
    monkeypatch.setattr(main_train_vrt.metric_files, "BoardImages", lambda test_set: shown)
    parts = parts_of(tmp_path, metrics=metrics)
    for step, mean in enumerate(scores, start=1):
        monkeypatch.setattr(main_train_vrt, "evaluate", lambda *given, mean=mean, **more: result_of(mean))
        assert main_train_vrt.Tester(parts, StopRequest()).test(step)
    assert run_checkpoints.best(parts.opt.run_dir) == best
    assert (parts.opt.run_dir / "models/best_G.pth").is_file() == (best is not None)
