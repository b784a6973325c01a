"""Runs of several processes: the same curve whatever their number, and what happens when one ends or is told to."""

import os
import re
import signal
from pathlib import Path

import pytest
import warm_start
from ports import free_port
from training_run import PATIENCE, ROOT, TRAIN, Training, finish, make_blurred_set, stat, wait_until

PROC = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
pytestmark = [pytest.mark.slow, PROC]
ENDLESS = "train.total_iter=100000"
OFTEN = {"checkpoint_save": 1, "checkpoint_test": 1000000, "keep_checkpoints": 2}
PAIR = "datasets.train.dataloader_batch_size=2"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_blurred_set(tmp_path_factory.mktemp("data") / "set")


def start_node(training, node, port, *overrides, restarts):
    """Start one machine's torchrun out of two; its processes carry the machine's number in NODE."""
    torchrun = ["--nnodes=2", f"--node_rank={node}", "--nproc_per_node=1", "--master_addr=127.0.0.1"]
    torchrun += [f"--master_port={port}", f"--max-restarts={restarts}"]
    return training.start(*overrides, torchrun=torchrun, NODE=str(node))


def parent(pid):
    return int(stat(pid)[1])


def data_workers(training, pid):
    """Processes of a run that the process has started."""
    return [child for child in training.alive() if parent(child) == pid]


def newest(training):
    """Number of the last step that a whole checkpoint exists of."""
    return max((int(path.name.split("_")[0]) for path in training.models.glob("*_state.pth")), default=0)


def curve(training):
    return [line["G_loss"] for line in training.lines("train")]


# The same run


def test_four_processes_train_and_measure_as_one_does(data, tmp_path):
    train, batch = TRAIN | {"E_decay": 0.0, "G_scheduler_eta_min": 0.0}, "datasets.train.dataloader_batch_size=4"
    one, four = (Training(tmp_path / name, data, True, train=train) for name in ("one", "four"))
    for process in (one.start(batch), *four.start_as_a_platform_does(4, batch)):
        finish(process)
    assert curve(one) == pytest.approx(curve(four), abs=1e-5)
    assert len(set(curve(one))) == 8

    # Of two clips, two of the processes measure nothing. Scores of the input do not depend on the weights.
    (alone, _), (together, _) = one.lines("test"), four.lines("test")
    assert together == pytest.approx(alone, abs=1e-3)
    for score in ("psnr", "ssim"):
        assert together[f"lq_{score}"] == alone[f"lq_{score}"]
        assert together[score] != together[f"lq_{score}"]


# When a process dies


def test_a_killed_process_is_missed_without_torchrun(data, tmp_path):
    training = Training(tmp_path, data, True, train=TRAIN | OFTEN)
    first, second = training.start_as_a_platform_does(2, ENDLESS, PAIR)
    wait_until(lambda: newest(training) > 0, first)
    second.kill()
    _, err = first.communicate(timeout=PATIENCE)
    assert first.returncode == 1
    assert err.splitlines()[-1].startswith("failure: ")
    second.communicate()
    wait_until(lambda: not training.alive())


def test_a_killed_process_of_two_machines_is_started_again(data, tmp_path):
    training, port = Training(tmp_path, data, True, train=TRAIN | OFTEN), free_port()
    given = "train.total_iter=60", PAIR
    nodes = [start_node(training, node, port, *given, restarts=1) for node in (0, 1)]
    wait_until(lambda: newest(training) > 0, nodes[0])
    (victim,) = training.python().running("main_train_vrt.py", NODE="1")
    os.kill(victim, signal.SIGKILL)
    printed = [node.communicate(timeout=PATIENCE) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], printed
    assert re.search(r"resumed from step [1-9]", printed[0][0])
    assert newest(training) == 60
    assert {line["step"] for line in training.lines("train")} == set(range(1, 61))
    wait_until(lambda: not training.alive())


def test_a_killed_data_worker_names_its_sample_or_that_it_had_none(data, tmp_path):
    training = Training(tmp_path, data, True, train=TRAIN | OFTEN)
    process = training.start(ENDLESS)
    wait_until(lambda: newest(training) > 0, process)
    (worker,) = data_workers(training, process.pid)
    os.kill(worker, signal.SIGKILL)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    (line,) = err.splitlines()
    place = r"(while reading clip clip_[ab] frames( 0000\d\d){2}|between two batches)"
    assert re.match(rf"failure: DeadWorkerError: data worker {worker} was ended by SIGKILL .*{place}", line)


# When a run is told to stop


def test_a_signal_to_the_whole_group_saves_the_step_and_the_same_command_goes_on(data, tmp_path):
    """As a terminal or SLURM sends it: data workers get it too."""
    training = Training(tmp_path, data, True, train=TRAIN | OFTEN | {"checkpoint_save": 1000000})
    process = training.start(ENDLESS)
    wait_until(lambda: len(training.lines("train")) > 2, process)
    os.killpg(process.pid, signal.SIGTERM)
    printed = finish(process)
    stopped = re.search(r"stopped by SIGTERM at step (\d+); run the same command again to resume", printed)
    step = int(stopped[1])
    assert newest(training) == step == training.lines("train")[-1]["step"]
    wait_until(lambda: not training.alive())

    again = training.start(ENDLESS)
    wait_until(lambda: training.lines("train")[-1]["step"] > step, again)
    assert [line["step"] for line in training.lines("train")][: step + 1] == list(range(1, step + 2))
    again.send_signal(signal.SIGINT)
    assert f"resumed from step {step} " in (printed := finish(again))
    assert "stopped by SIGINT at step" in printed


def test_a_signal_to_one_process_stops_all_at_the_same_step(data, tmp_path):
    training = Training(tmp_path, data, True, train=TRAIN | OFTEN | {"checkpoint_save": 1000000})
    processes = training.start_as_a_platform_does(2, ENDLESS, PAIR, flags=("--stop-code", "75"))
    wait_until(lambda: len(training.lines("train")) > 2, processes[0])
    processes[1].send_signal(signal.SIGUSR1)
    printed = [process.communicate(timeout=PATIENCE) for process in processes]
    assert [process.returncode for process in processes] == [75, 75]
    assert "stopped by another process at step" in printed[0][0]
    assert [err for _, err in printed] == ["", ""]
    assert newest(training) == training.lines("train")[-1]["step"]
    wait_until(lambda: not training.alive())


def test_a_sample_that_breaks_one_process_is_left_out_by_both(data, tmp_path):
    train = TRAIN | {"checkpoint_test": 8, "checkpoint_save": 8, "nonfinite_limit": 2}
    one, two = (Training(tmp_path / name, data, True, train=train) for name in ("one", "two"))
    given = {"program": Path(__file__).with_name("broken_sample.py"), "BROKEN": "7"}  # of step 4, in the second process
    processes = one.start(PAIR, **given), *two.start_as_a_platform_does(2, PAIR, **given)
    first, *second = (finish(process) for process in processes)
    printed = first, "".join(second)

    for training in (one, two):
        assert [line["G_loss"] is None for line in training.lines("train")] == [step == 4 for step in range(1, 9)]
        assert training.lines("train")[-1]["skipped"] == 1
    assert "step 3 skipped: loss nan, gradient norm nan; 1 in a row, clip_" in printed[1]
    curves = [[line["G_loss"] for line in t.lines("train") if line["step"] != 4] for t in (one, two)]
    assert curves[0] == pytest.approx(curves[1], abs=1e-5)
    keys = [re.search(r"1 in a row, (.*)", text)[1].split(", ") for text in printed]
    assert len(keys[0]) == 2  # both samples of the batch may be at fault where one process has them
    assert keys[1] == keys[0][1:]


def test_a_run_that_makes_no_step_any_more_keeps_the_batch_and_says_how_to_look_at_it(data, tmp_path):
    training = Training(tmp_path, data, True, train=TRAIN | {"nonfinite_limit": 2})
    process = training.start(program=Path(__file__).with_name("broken_sample.py"), BROKEN="2,4,5")
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "no finite loss or gradient in 2 steps in a row" in err
    script, *words = re.search(r"python (scripts/replay\.py --opt \S+ --batch \S+?);", err)[1].split()
    out, _ = warm_start.start([ROOT / script, *words], cwd=ROOT, env=os.environ).communicate()
    assert "lq of clip_" in out
