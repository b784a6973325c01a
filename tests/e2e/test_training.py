"""Whole training runs: what follows the end, several processes, the files of a run, and mistakes."""

import logging
import os
import re
import runpy
import shutil
import signal
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_network import TRAINED
from training_run import FIX, PATIENCE, ROOT, TRAIN, Training, assert_same, finish, make_blurred_set, wait_until

from models.select_network import define_G
from options.schema import NetOpt, Opt
from utils import utils_checkpoint, utils_cli, utils_option

PROC = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
KAIR_LINE = re.compile(
    r"\d\d-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} : <epoch:[ \d]{3}, iter:[ \d,]{8}, lr:\d\.\d{3}e[+-]\d\d> "
    r"G_loss: \d\.\d{3}e[+-]\d\d .*time: \d+\.\d{3}s data: \d+\.\d{3}s ETA: \d+:\d\d:\d\d"
)
TORCHRUNS_OWN = re.compile(r"[WE]\d{4} .*torch/distributed/elastic/")
TWO = ("--standalone", "--nproc_per_node=2")
ENDLESS = "train.total_iter=100000"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_blurred_set(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory):
    """A run of 8 steps without interruption."""
    training = Training(tmp_path_factory.mktemp("straight"), data)
    training.run()
    return training


def own_copy(training, data, folder):
    """The same options and the same finished run in another folder."""
    copy = Training(folder, data)
    shutil.copytree(training.run_dir, copy.run_dir)
    return copy


def mistakes(process):
    """Exit code and stderr of a run that must fail, without what torchrun itself says."""
    _, err = process.communicate(timeout=PATIENCE)
    return process.returncode, [line for line in err.splitlines() if not TORCHRUNS_OWN.match(line)]


# Going on


@pytest.mark.slow
def test_after_the_end_there_is_nothing_to_do_until_more_steps_are_asked_for(straight, data, tmp_path):
    again, more, unmeasured = (own_copy(straight, data, tmp_path / name) for name in ("again", "more", "unmeasured"))
    before = {path.name: path.stat().st_mtime_ns for path in again.models.iterdir()}
    metrics = (straight.run_dir / "metrics.jsonl").read_text()
    harm = "train.G_scheduler_eta_min=0.05"
    lines = metrics.splitlines(keepends=True)
    (unmeasured.run_dir / "metrics.jsonl").write_text("".join(lines[:-1]))
    processes = again.start(), more.start("train.total_iter=10", harm), unmeasured.start()

    printed = finish(processes[0])
    assert "resumed from step 8" in printed
    assert "finished at step 8" in printed
    assert "<epoch" not in printed
    assert {path.name: path.stat().st_mtime_ns for path in again.models.iterdir()} == before
    assert (again.run_dir / "metrics.jsonl").read_text() == metrics

    assert "time    0:00:" in finish(processes[2]), "what the last test showed is summed up"
    assert unmeasured.lines("test") == straight.lines("test")

    assert "finished at step 10" in finish(processes[1])
    assert (more.run_dir / "metrics.jsonl").read_text().startswith(metrics)
    assert [line["step"] for line in more.lines("train")] == list(range(1, 11))
    assert more.weights("10_state.pth")["optimizer"]["state"][0]["step"] == 10
    assert (more.weights("10_G.pth")["conv_last.weight"] != more.weights("8_G.pth")["conv_last.weight"]).any()
    scores = [line["psnr"] for line in more.lines("test")]
    assert scores[-1] < max(scores) == more.best["psnr"]
    assert_same(more.weights("best_G.pth"), straight.weights("best_G.pth"))


# Several processes


@pytest.mark.slow
def test_two_processes_train_and_measure_as_one_does(data, tmp_path):
    train = TRAIN | FIX | {"total_iter": 4, "E_decay": 0.0, "G_scheduler_eta_min": 0.0, "accumulate": 2}
    train |= {"fix_iter": 2, "fix_keys": ["spynet", "deform"], "fix_lr_mul": 0.125}
    network = TRAINED | {"drop_path_rate": 0.0}
    one, two, more = (Training(tmp_path / name, data, train=train, netG=network) for name in ("one", "two", "more"))
    batch = "datasets.train.dataloader_batch_size=2"
    for process in (one.start(batch), two.start(batch, torchrun=TWO, new=True)):
        finish(process)

    for training in (one, two):
        assert [line["step"] for line in training.lines("train")] == list(range(1, 5))
        assert [line["step"] for line in training.lines("test")] == [4]
    curves = [[line["G_loss"] for line in training.lines("train")] for training in (one, two)]
    assert curves[0] == pytest.approx(curves[1], abs=1e-5)
    assert len(set(curves[0])) == 4
    weights = two.weights("4_G.pth")
    for key, value in one.weights("4_G.pth").items():
        torch.testing.assert_close(weights[key], value, rtol=1e-3, atol=1e-5)

    # The last step of a run has learning rate 0: step 5 measures the very weights that step 4 did.
    shutil.copytree(one.run_dir, more.run_dir)
    for process in more.start_as_a_platform_does(2, batch, "train.total_iter=5"):
        finish(process)
    before, after = more.lines("test")
    assert before.pop("step") == 4
    assert after.pop("step") == 5
    assert before == after
    assert before["psnr"] != before["lq_psnr"]


# Files


@pytest.mark.slow
def test_options_of_a_run_give_the_same_run(straight):
    given = utils_option.load(straight.config, Opt)
    assert utils_option.load(straight.run_dir / "options.json", Opt) == given


@pytest.mark.slow
def test_log_has_the_line_that_readers_of_kair_logs_know(straight):
    lines = (straight.run_dir / "train.log").read_text().splitlines()
    steps = [line for line in lines if "<epoch" in line]
    assert len(steps) == 8
    assert [line for line in steps if not KAIR_LINE.fullmatch(line)] == []
    assert re.search(r"<epoch:  0, iter:       4, lr:5\.000e-04> ", steps[3])
    assert "finished at step 8" in lines[-1]


@pytest.mark.slow
def test_metrics_are_one_object_a_line(straight):
    train, test = straight.lines("train"), straight.lines("test")
    assert [line["step"] for line in train] == list(range(1, 9))
    assert [line["step"] for line in test] == [4, 8]
    assert all({"G_loss", "grad_norm", "lr", "time", "data_time", "eta"} < line.keys() for line in train)
    scores = {prefix + name for prefix in ("", "lq_", "sdm_") for name in ("psnr", "ssim")}
    assert test[0].keys() == {"step", "split"} | scores


@pytest.mark.slow
def test_tensorboard_has_curves_and_pictures(straight):
    board = EventAccumulator(str(straight.run_dir / "tb_logger"), {"scalars": 0, "images": 0})
    board.Reload()
    for split, name in (("train", "G_loss"), ("train", "lr"), ("test", "psnr")):
        shown = {event.step: event.value for event in board.Scalars(f"{split}/{name}")}
        assert shown == pytest.approx({line["step"]: line[name] for line in straight.lines(split)})
    assert board.Tags()["images"] == ["test_pictures/clip_a", "test_pictures/clip_b"]
    pictures = board.Images("test_pictures/clip_a")
    assert [picture.step for picture in pictures] == [4, 8]
    row = cv2.imdecode(np.frombuffer(pictures[0].encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    assert row.shape[1] > 3 * 320 > row.shape[0]  # two rows: blurred, spikes, restored; sharp, error


@pytest.mark.slow
def test_checkpoints_are_plain_and_the_best_is_kept(straight):
    sets = {f"{step}_{kind}.pth" for step in (2, 4, 6, 8) for kind in ("G", "E", "state")}
    assert {path.name for path in straight.models.iterdir()} == sets | {"best_G.pth", "best.json"}
    net = define_G(NetOpt.model_validate(TRAINED))
    for name in ("8_G.pth", "8_E.pth", "best_G.pth"):
        assert straight.weights(name).keys() == net.state_dict().keys()
        assert utils_checkpoint.load_weights(net, straight.models / name).missing == []
    scores = {line["step"]: line["psnr"] for line in straight.lines("test")}
    best = max(scores, key=scores.get)
    assert straight.best == {"step": best, "psnr": scores[best]}
    assert_same(straight.weights("best_G.pth"), straight.weights(f"{best}_E.pth"))


@pytest.mark.slow
def test_the_key_of_an_account_is_written_nowhere(data, tmp_path):
    account = {"use_wandb": True, "wandb_mode": "offline", "wandb_api_key": "s3cr3t-in-file"}
    training = Training(tmp_path, data, True, logging=account)
    process = training.start(
        *("train.total_iter=1", "logging.wandb_api_key=s3cr3t-in-words"), WANDB_API_KEY="s3cr3t-in-environment"
    )
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    written = {path: path.read_bytes() for path in training.run_dir.rglob("*") if path.is_file()}
    assert any(path.suffix == ".wandb" for path in written)
    assert "s3cr3t" not in out + err
    assert [path for path, content in written.items() if b"s3cr3t" in content] == []
    opt = utils_option.load(training.run_dir / "options.json", Opt)
    given = utils_option.load(training.config, Opt, ["train.total_iter=1", "logging.wandb_api_key=null"])
    assert opt == given


# Mistakes


@pytest.fixture
def own_logger():
    """The program's logger as it is in a new process."""
    logger = logging.getLogger("spikevrt")
    before, level, propagate = list(logger.handlers), logger.level, logger.propagate
    logger.handlers = []
    yield
    for handler in logger.handlers:
        handler.close()
    logger.handlers, logger.level, logger.propagate = before, level, propagate


@pytest.fixture
def program(monkeypatch, capsys, own_logger):
    """main_train_vrt.py as `python main_train_vrt.py` runs it, in this process: returns exit code and stderr."""

    def call(training, *words):
        monkeypatch.setattr(sys, "argv", ["main_train_vrt.py", "--opt", str(training.config), *words])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(ROOT / "main_train_vrt.py"), run_name="__main__")
        return stop.value.code, capsys.readouterr().err

    return call


@pytest.fixture
def training(own_data, tmp_path):
    """A run of its own, with data of its own that may be damaged."""
    return Training(tmp_path / "run", own_data)


@pytest.fixture
def own_data(data, tmp_path):
    return shutil.copytree(data, tmp_path / "set")


def assert_one_line(result, *parts):
    code, err = result
    assert code == 2, err
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    assert [part for part in parts if part not in err] == [], err


def test_mistakes_in_the_options_get_one_line(program, data, tmp_path):
    wrong = Training(tmp_path, data, train=TRAIN | {"total_itr": 5})
    parts = [str(wrong.config), "train.total_itr: unknown option", "did you mean train.total_iter?"]
    assert_one_line(program(wrong), *parts)
    right = Training(tmp_path, data)
    parts = ["--set: train.total_iter", '"20"', "must be a valid integer"]
    assert_one_line(program(right, "--set", 'train.total_iter="20"'), *parts)
    assert not right.run_dir.exists()


def test_a_missing_folder_gets_one_line(program, training, tmp_path):
    shutil.rmtree(tmp_path / "set/lq")
    assert_one_line(program(training), "dataroot_lq", str(tmp_path / "set/lq"), "is not a folder", "correct the path")


def test_a_spike_file_of_wrong_size_gets_one_line(program, training, tmp_path):
    path = tmp_path / "set/spikes/train/clip_b/spike/000049.dat"
    path.write_bytes(path.read_bytes()[:100])
    assert_one_line(program(training), str(path), "100 bytes", "H=16", "W=24", "remainder 4")


def test_missing_weights_get_one_line(program, training):
    name = "spynet_sintel_final-3d2a1287.pth"
    parts = [f"nowhere/{name} not found", "never downloaded", "github.com/JingyunLiang/VRT"]
    assert_one_line(program(training, "--set", f"netG.spynet_path=nowhere/{name}"), *parts)


def test_weights_of_another_geometry_get_one_line(program, training, tmp_path):
    other = TRAINED | {"depths": [1] * 9, "embed_dims": [8] * 9, "num_heads": [2] * 9, "mlp_ratio": 1.0}
    path = tmp_path / "other.pth"
    utils_checkpoint.write_file(define_G(NetOpt.model_validate(other)).state_dict(), path)
    result = program(training, "--set", f"path.pretrained_netG={path}")
    assert_one_line(result, f"{path} does not fit", " missing (", " unexpected (", " mismatched (", "(8, 8) -> (16, 8)")


@pytest.mark.slow
def test_a_run_that_goes_on_with_another_network_gets_one_line(program, straight, data, tmp_path):
    training = own_copy(straight, data, tmp_path)
    result = program(training, "--set", "netG.mlp_ratio=1.0")
    assert_one_line(result, f"{training.models}/8_*.pth cannot be resumed", "another task name")


def test_debug_shows_where(program, training):
    code, err = program(training, "--debug", "--set", "netG.spynet_path=nowhere.pth")
    assert code == 2, err
    assert err.startswith("Traceback")
    assert "in check_exists" in err
    assert err.splitlines()[-1].startswith("error: nowhere.pth not found")


@pytest.mark.parametrize("debug", [False, True])
def test_a_reading_process_that_loses_its_program_speaks_only_in_debugging(own_logger, capfd, debug):
    with utils_cli.program(debug):
        if (child := os.fork()) == 0:
            sys.excepthook(EOFError, EOFError("gone"), None)
            os._exit(0)
        os.waitpid(child, 0)
    assert ("EOFError: gone" in capfd.readouterr().err) == debug


@pytest.mark.slow
def test_a_batch_that_two_processes_cannot_share_gets_one_line(data, tmp_path):
    training = Training(tmp_path, data, True)
    processes = training.start_as_a_platform_does(2, "datasets.train.dataloader_batch_size=3")
    line = "error: dataloader_batch_size: 3 samples cannot be divided among 2 processes; use a multiple of 2"
    assert mistakes(processes[0]) == (2, [line])
    assert mistakes(processes[1])[0] == 2


@PROC
@pytest.mark.slow
def test_a_file_cut_off_while_training_gets_one_line(own_data, tmp_path):
    """Of the two processes only the second one meets the last frame of the set."""
    training = Training(tmp_path / "run", own_data, True)
    one_by_one = ["num_frame=1", "dataloader_shuffle=false", "dataloader_batch_size=2"]
    given = [ENDLESS, *(f"datasets.train.{text}" for text in one_by_one)]
    process = training.start(*given, torchrun=TWO)
    wait_until(lambda: training.lines("train"), process)
    path = tmp_path / "set/spikes/train/clip_b/spike/000051.dat"
    path.write_bytes(path.read_bytes()[:96])
    code, err = mistakes(process)
    assert code == 2, err
    assert len(err) == 1, err
    assert err[0].startswith(f"error: clip clip_b frame 000051: {path} has 2 steps of 16x24, expected 24")
    wait_until(lambda: not training.alive())


@PROC
@pytest.mark.slow
def test_ctrl_c_saves_and_ends_all_processes(data, tmp_path):
    """Sent to the process alone, and to its whole group as a terminal does."""
    runs = [Training(tmp_path / name, data, True) for name in ("alone", "group")]
    processes = [run.start(ENDLESS) for run in runs]
    for run, process, send in zip(runs, processes, (os.kill, os.killpg), strict=True):
        wait_until(lambda run=run: run.lines("train"), process)
        assert len(run.alive()) == 2  # and a worker
        send(process.pid, signal.SIGINT)
        printed = finish(process)
        step = int(re.search(r"stopped by SIGINT at step (\d+); run the same command again to resume", printed)[1])
        assert run.weights(f"{step}_state.pth")["step"] == step
        wait_until(lambda run=run: not run.alive())
