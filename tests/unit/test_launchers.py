"""The launch scripts' arguments, processes and signals, with a stand-in for Python that records how it is called."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import warm_start
from tiny_set import make_set

from options.schema import Opt
from scripts import runtime_config
from utils import utils_option

ROOT = Path(__file__).resolve().parents[2]
FLAGS = (
    "--opt --gpus --set --prepare-data --generate-lmdb --force-prepare --dataset-root --gopro-root --spike-root "
    "--debug --quiet"
)
TRAIN_FLAGS, TEST_FLAGS = "--demo --max-restarts --stop-code", "--resume"
STUB = """#!/usr/bin/env bash
case "$1" in
    -c | *check_requirements.py) exit 0 ;;
    *runtime_config.py) echo experiments/x/runtime.json ;;
esac
(IFS=$'\\x1f'; printf '%s\\n' "$*" >>"$CALLS")
printf '%s\\n' "${CUDA_VISIBLE_DEVICES-unset}" >"$CALLS.gpus"
if [[ "$*" == *"${HANG_IN:-nowhere}"* ]]; then sleep 300 & echo "$$ $!" >"$CALLS.pids"; wait; fi
if [[ "$*" == *"${FAIL_IN:-nowhere}"* ]]; then exit "$CODE"; fi
"""


class Machine:
    """A machine with a given number of GPUs and a Python that only records."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls_file = folder, folder / "calls"
        self.executable("python", STUB)
        self.gpus(0)
        self.config = folder / "mine.json"
        self.config.write_text("{}")
        self.env = {
            "PATH": f"{folder}:/usr/bin:/bin",
            "HOME": str(folder),
            "PYTHON": str(folder / "python"),
            "CALLS": str(self.calls_file),
        }

    def executable(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o755)

    def gpus(self, count: int) -> None:
        lines = "".join(f"echo 'GPU {index}: NVIDIA (UUID: GPU-{index})'\n" for index in range(count))
        self.executable("nvidia-smi", f"#!/bin/sh\n{lines}")

    def launch(self, *args: str, mode: str = "train", cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
        self.calls_file.unlink(missing_ok=True)
        command = [str(ROOT / f"launch_{mode}.sh"), *args]
        return subprocess.run(command, cwd=cwd, env=self.env | env, capture_output=True, text=True, timeout=60)

    def start(self, *args: str, ignored: Sequence[int] = (), **env: str) -> subprocess.Popen[str]:
        def ignore() -> None:
            for number in ignored:
                signal.signal(number, signal.SIG_IGN)

        process = subprocess.Popen(
            [str(ROOT / "launch_train.sh"), *args],
            cwd=ROOT,
            env=self.env | env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            preexec_fn=ignore,
        )
        wait_until(lambda: (self.folder / "calls.pids").exists() and (self.folder / "calls.pids").read_text())
        return process

    @property
    def calls(self) -> list[list[str]]:
        if not self.calls_file.exists():
            return []
        return [line.split("\x1f") for line in self.calls_file.read_text().splitlines()]

    @property
    def visible(self) -> str:
        return (self.folder / "calls.gpus").read_text().strip()


def wait_until(condition, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def assert_refused(result: subprocess.CompletedProcess[str], machine: Machine, *words: str) -> None:
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert all(word in result.stderr for word in words), result.stderr
    assert machine.calls == []


@pytest.mark.parametrize("mode", ["train", "test"])
def test_help_names_every_flag(machine, mode):
    result = machine.launch("--help", mode=mode)
    assert result.returncode == 0
    assert [flag for flag in FLAGS.split() if flag not in result.stdout] == []
    assert [flag in result.stdout for flag in TRAIN_FLAGS.split()] == [mode == "train"] * 3
    assert (TEST_FLAGS in result.stdout) == (mode == "test")
    assert machine.calls == []


@pytest.mark.parametrize("mode", ["train", "test"])
@pytest.mark.parametrize("form", [["--opt", "{}"], ["--opt={}"], ["{}"], ["0", "{}"], ["{}", "0"]], ids=" ".join)
def test_forms_of_the_option_file(machine, mode, form):
    args = [arg.format(machine.config) for arg in form]
    assert machine.launch(*args, mode=mode).returncode == 0
    assert machine.calls == [[f"main_{mode}_vrt.py", "--opt", str(machine.config)]]


def test_an_option_file_of_the_project_goes_by_its_name(machine):
    assert machine.launch("--opt", "curriculum/stage1", cwd=machine.folder).returncode == 0
    assert machine.calls == [["main_train_vrt.py", "--opt", "options/vrt/curriculum/stage1.json"]]


def test_file_and_roots_are_taken_from_the_callers_folder(machine):
    assert machine.launch("mine.json", "--dataset-root", "sets", cwd=machine.folder).returncode == 0
    folder = str(machine.folder)
    assert machine.calls[0][-4:] == ["--opt", f"{folder}/mine.json", "--dataset-root", f"{folder}/sets"]


def test_a_tilde_that_the_shell_leaves_is_the_home(machine):
    assert machine.launch("--opt=~/mine.json", "--dataset-root=~/sets", cwd=machine.folder).returncode == 0
    folder = str(machine.folder)
    assert machine.calls[0][-4:] == ["--opt", f"{folder}/mine.json", "--dataset-root", f"{folder}/sets"]


def test_a_path_in_an_option_that_exists_here_is_said_to_be_taken_from_the_checkout(machine):
    (machine.folder / "docs").mkdir()
    sets = ["--set", "datasets.test.dataroot_lq=docs", "task=docs", "datasets.test.dataroot_gt=gone"]
    result = machine.launch("mine.json", *sets, cwd=machine.folder)
    assert (result.returncode, machine.calls[0][-3:]) == (0, sets[1:])
    assert re.findall("note: .*", result.stderr) == [
        f"note: --set datasets.test.dataroot_lq=docs is taken from {ROOT}, not from this folder; for the one here give "
        f"{machine.folder}/docs"
    ]
    assert "note: " not in machine.launch("0", *sets).stderr


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--gpu", "1"], ["--gpu", "did you mean --gpus?"]),
        (["--dataset_root=x"], ["did you mean --dataset-root?"]),
        (["--datset-root", "x"], ["did you mean --dataset-root?"]),
        (["--nonsense"], ["unknown argument --nonsense", "--help"]),
        (["--debug=1"], ["--debug"]),
        (["nonsense"], ["no option file nonsense", "see options/vrt/"]),
        (["-1"], ["unknown argument -1"]),
        (["--opt"], ["--opt needs a value"]),
        (["--opt", "--debug"], ["--opt needs a value"]),
        (["--gpus="], ["--gpus needs a value"]),
        (["--set", "train.total_iter"], ["KEY=VALUE"]),
        (["missing.json"], ["no option file missing.json"]),
        (["a.json", "--opt", "b.json"], ["a.json", "b.json"]),
        (["1", "2"], ["two GPU counts"]),
        (["--demo", "a.json"], ["--demo"]),
        (["--max-restarts"], ["--max-restarts needs a value"]),
        (["--max-restarts", "many"], ["--max-restarts many", "0 or more"]),
        (["--max-restart=1"], ["did you mean --max-restarts?"]),
        (["--demo", "--prepare-data"], ["--demo"]),
        (["--demo", "--stop-code", "3"], ["--demo"]),
        (["--stop-code", "high"], ["--stop-code high", "0 or more"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_wrong_arguments_are_refused_in_one_line(machine, given, words):
    assert_refused(machine.launch(*given), machine, *words)


@pytest.mark.parametrize("form", [["{}"], ["--opt", "{}"]], ids=["alone", "--opt"])
@pytest.mark.parametrize(
    ("given", "near"),
    [("options/vrt/guide.jsn", "options/vrt/guide.json"), ("mien.json", "mine.json"), ("giude", "guide")],
)
def test_an_option_file_that_is_not_there_is_named_with_one_that_is_alike(machine, form, given, near):
    result = machine.launch(*(word.format(given) for word in form), cwd=machine.folder, PYTHON=sys.executable)
    assert_refused(result, machine, f"no option file {given}; did you mean {near}?")


def test_the_test_launcher_has_no_demo(machine):
    assert_refused(machine.launch("--demo", mode="test"), machine, "launch_train.sh")


def test_set_takes_several_pairs_and_is_repeatable(machine):
    pairs = ["train.total_iter=2", "task=a b", 'netG.depths=[1, "x=y"]']
    result = machine.launch("--set", *pairs[:2], str(machine.config), f"--set={pairs[2]}", "--debug")
    assert result.returncode == 0
    assert machine.calls == [
        ["main_train_vrt.py", "--opt", str(machine.config), "--debug", "--set", *pairs],
    ]


@pytest.mark.parametrize("code", [1, 2, 7, 130])
def test_exit_code_is_the_programs_own(machine, code):
    args = [str(machine.config), "--prepare-data"]
    assert machine.launch(*args, FAIL_IN="main_train", CODE=str(code)).returncode == code
    assert machine.launch(*args, FAIL_IN="prepare_gopro", CODE=str(code)).returncode == code
    assert len(machine.calls) == 2
    assert machine.launch(*args, FAIL_IN="--check", CODE=str(code)).returncode == code
    assert len(machine.calls) == 1
    result = machine.launch(args[0], "--spike-root", "x", FAIL_IN="runtime_config", CODE=str(code))
    assert result.returncode == code


@pytest.mark.parametrize(
    ("present", "given", "visible", "processes"),
    [
        (0, [], "", 1),
        (0, ["0"], "", 1),
        (1, [], "unset", 1),
        (4, [], "unset", 1),
        (4, ["0"], "", 1),
        (4, ["1"], "unset", 1),
        (4, ["3"], "unset", 3),
        (4, ["--gpus", "2"], "2", 1),
        (4, ["--gpus=0,2"], "0,2", 2),
        (4, ["1", "--gpus", "0,2"], "0,2", 1),
    ],
)
def test_processes_on_one_machine(machine, present, given, visible, processes):
    machine.gpus(present)
    result = machine.launch(*given, str(machine.config))
    assert result.returncode == 0, result.stderr
    torchrun = ["scripts/torchrun.py", "--standalone", f"--nproc_per_node={processes}"]
    expected = torchrun * (processes > 1) + ["main_train_vrt.py", "--opt", str(machine.config)]
    assert machine.calls == [expected]
    assert machine.visible == visible


@pytest.mark.parametrize(
    ("present", "given", "words"),
    [
        (0, ["1"], ["GPU_COUNT is 1", "at most 0", "scripts/doctor.py"]),
        (2, ["3"], ["GPU_COUNT is 3", "at most 2"]),
        (4, ["3", "--gpus", "0,2"], ["GPU_COUNT is 3", "at most 2"]),
        (2, ["--gpus", "0,2"], ["no GPU 2", "2 present"]),
        (2, ["--gpus", "all"], ["--gpus all"]),
        (2, ["--gpus", "0,,1"], ["--gpus 0,,1"]),
    ],
)
def test_more_gpus_than_there_are(machine, present, given, words):
    machine.gpus(present)
    assert_refused(machine.launch(*given, str(machine.config)), machine, *words)


def test_gpus_hidden_by_the_environment_do_not_count(machine):
    machine.gpus(8)
    args = [str(machine.config), "--gpus", "1"]
    assert machine.launch(*args, CUDA_VISIBLE_DEVICES="4,6").returncode == 0
    assert machine.visible == "6"
    assert_refused(machine.launch("3", args[0], CUDA_VISIBLE_DEVICES="4,6"), machine, "at most 2")
    assert machine.launch(args[0], CUDA_VISIBLE_DEVICES="").returncode == 0
    assert machine.visible == ""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--max-restarts", "3"], "--standalone --nproc_per_node=1 --max-restarts=3"),
        (["2", "--max-restarts=3"], "--standalone --nproc_per_node=2 --max-restarts=3"),
        (["2", "--max-restarts=0"], "--standalone --nproc_per_node=2"),
    ],
)
def test_restarts_are_torchruns(machine, given, expected):
    machine.gpus(2)
    assert machine.launch(str(machine.config), *given).returncode == 0
    assert machine.calls == [
        ["scripts/torchrun.py", *expected.split(), "main_train_vrt.py", "--opt", str(machine.config)]
    ]


def test_resume_goes_to_the_test_alone(machine):
    assert machine.launch(str(machine.config), "--resume", mode="test").returncode == 0
    assert machine.calls == [["main_test_vrt.py", "--opt", str(machine.config), "--resume"]]


def test_a_training_needs_no_word_to_go_on(machine):
    assert_refused(machine.launch(str(machine.config), "--resume"), machine, "--resume", "resumes where it stopped")


def test_restarts_where_torchrun_has_no_say(machine):
    assert machine.launch(str(machine.config), "--max-restarts", "0").returncode == 0
    assert machine.calls == [["main_train_vrt.py", "--opt", str(machine.config)]]
    assert_refused(machine.launch(str(machine.config), "--max-restarts", "1", mode="test"), machine, "launch_train.sh")
    env = {"WORLD_SIZE": "8", "RANK": "3"}
    assert_refused(machine.launch(str(machine.config), "--max-restarts", "1", **env), machine, "the platform")


def test_the_code_of_a_stop_is_passed_on(machine):
    assert machine.launch(str(machine.config), "--stop-code=143").returncode == 0
    assert machine.calls == [["main_train_vrt.py", "--opt", str(machine.config), "--stop-code", "143"]]
    assert_refused(machine.launch(str(machine.config), "--stop-code", "1", mode="test"), machine, "launch_train.sh")


SLURM = {"SLURM_NNODES": "2", "SLURM_NODEID": "1", "SLURM_JOB_NODELIST": "gpu[03-04,7]", "SLURM_NTASKS": "2"}
PLAIN = {"NNODES": "3", "NODE_RANK": "2", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1234"}
STATIC = "--nnodes=3 --nproc_per_node=2 --node_rank=2 --master_addr=10.0.0.1 --master_port=1234"
JOB = SLURM | {"SLURM_JOB_ID": "70012", "SLURMD_NODENAME": "gpu04"}
C10D = "--rdzv-backend=c10d --rdzv-id=70012 --local-addr=gpu04 --rdzv-endpoint=gpu03:20012 --rdzv-conf=is_host=0,"
COUNTS_MACHINES = {"WORLD_SIZE": "3", "RANK": "2", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1234"}


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        (PLAIN, STATIC),
        ({f"PET_{name}": value for name, value in PLAIN.items()}, STATIC),
        (COUNTS_MACHINES, STATIC),
        (COUNTS_MACHINES | {"WORLD_SIZE": "6", "PET_NNODES": "3", "PET_NODE_RANK": "2"}, STATIC),
        (SLURM, "--nnodes=2 --nproc_per_node=2 --node_rank=1 --master_addr=gpu03 --master_port=29500"),
        (JOB, f"--nnodes=2 --nproc_per_node=2 {C10D}read_timeout=900"),
        (JOB | PLAIN, STATIC),
        ({"NNODES": "1", "NODE_RANK": "0"}, "--standalone --nproc_per_node=2"),
    ],
    ids=["plain", "torchrun's", "counts machines", "counts both", "slurm", "slurm job", "both", "one machine"],
)
def test_several_machines(machine, env, expected):
    machine.gpus(2)
    assert machine.launch("2", str(machine.config), **env).returncode == 0
    command = ["scripts/torchrun.py", *expected.split(), "main_train_vrt.py", "--opt", str(machine.config)]
    assert machine.calls == [command]


@pytest.mark.parametrize(
    ("env", "word"),
    [
        ({"NNODES": "two"}, "NNODES"),
        ({"NNODES": "2"}, "NODE_RANK"),
        ({"NNODES": "2", "NODE_RANK": "2", "MASTER_ADDR": "a"}, "0 to 1"),
        ({"NNODES": "2", "NODE_RANK": "0"}, "MASTER_ADDR"),
        (SLURM | {"SLURM_NTASKS": "8"}, "--ntasks-per-node=1"),
    ],
)
def test_incomplete_description_of_several_machines(machine, env, word):
    assert_refused(machine.launch(str(machine.config), **env), machine, word)


def test_one_gpu_per_process_of_a_platform_needs_no_torchrun(machine):
    machine.gpus(1)
    for words in ([], ["1"]):
        assert machine.launch(*words, str(machine.config), **COUNTS_MACHINES).returncode == 0
        assert machine.calls == [["main_train_vrt.py", "--opt", str(machine.config)]]


def test_a_platforms_processes_are_left_alone(machine):
    machine.gpus(4)
    env = {"WORLD_SIZE": "8", "RANK": "3", "LOCAL_RANK": "3", "NNODES": "2"}
    assert machine.launch("4", str(machine.config), **env).returncode == 0
    assert machine.calls == [["main_train_vrt.py", "--opt", str(machine.config)]]
    assert machine.visible == "unset"
    assert_refused(machine.launch("--prepare-data", str(machine.config), **env), machine, "prepare once")


def test_preparation_gets_the_roots_and_runs_first(machine):
    roots = ["--dataset-root", "d", "--gopro-root=g", "--spike-root", "s"]
    result = machine.launch(str(machine.config), *roots, "--generate-lmdb", "--force-prepare", "--set", "task=t")
    assert result.returncode == 0
    check, prepare, runtime, train = machine.calls
    script = "scripts/data_preparation/prepare_gopro_spike_dataset.py"
    given = "--gopro-root g --spike-root s --dataset-root d --generate-lmdb --force"
    assert prepare == [script, *given.split()]
    roots_of_run = "--dataset-root d --lmdb --set task=t"  # prepared spikes lie below the data set
    config = ["--mode", "train", "--opt", str(machine.config)]
    assert runtime == ["scripts/runtime_config.py", *config, *roots_of_run.split()]
    assert check == [*runtime, "--check"]
    assert train == ["main_train_vrt.py", "--opt", "experiments/x/runtime.json", "--set", "task=t"]


@pytest.mark.parametrize("mode", ["train", "test"])
def test_lmdb_folders_are_read_wherever_the_option_file_has_its_data(machine, mode):
    assert machine.launch(str(machine.config), "--generate-lmdb", mode=mode).returncode == 0
    _, prepare, runtime, run = machine.calls
    assert prepare[1:] == ["--generate-lmdb"]
    assert runtime == ["scripts/runtime_config.py", "--mode", mode, "--opt", str(machine.config), "--lmdb"]
    assert run == [f"main_{mode}_vrt.py", "--opt", "experiments/x/runtime.json"]


def test_demo_trains_and_tests_both_stages_and_shows_instants(machine):
    result = machine.launch("--demo", "--debug", "--set", "train.total_iter=1")
    assert result.returncode == 0
    sets, quick = ["--debug", "--set", "train.total_iter=1"], 'val.metrics=["psnr"]'
    guide = ["--opt", "options/vrt/demo.json", *sets, "task=demo"]
    second = ["--opt", "options/vrt/demo_guided_vrt.json", *sets, "task=demo_guided_vrt"]
    weights = "netG.guide.weights=experiments/demo/models/best_G.pth"
    *checks, made, first, tested, then, last, slow, compared = machine.calls
    runs, files = [first, tested, then, last], ("demo", "demo_guided_vrt")
    config = ["scripts/runtime_config.py", "--mode", "train", "--opt"]
    assert checks == [[*config, f"options/vrt/{name}.json", *sets[1:], "--check"] for name in files]
    assert made == ["scripts/data_preparation/make_demo_dataset.py", "--debug"]
    assert runs == [
        ["main_train_vrt.py", *guide, quick],
        ["main_test_vrt.py", *guide],
        ["main_train_vrt.py", *second, quick, weights, "val.center_frame_only=true"],
        ["main_test_vrt.py", *second, weights],
    ]
    assert slow[:6] == ["main_test_vrt.py", *guide[:3], "--slowmo", "8"]
    assert "val.task_name=demo_slowmo" in slow
    assert compared == ["scripts/compare.py", "results/demo", "results/demo_guided_vrt", "--debug"]
    for path in ("results/demo/comparison.png", "results/demo_slowmo/instants.png"):
        assert path in result.stdout
    assert "results/mine/comparison.png" in machine.launch("--demo", "--set", "task=mine").stdout


@pytest.mark.parametrize("given", [["--demo"], ["--prepare-data", "--dataset-root", "d", "mine.json"]], ids=" ".join)
def test_quiet_reaches_all_programs_and_the_launcher(machine, given):
    loud = machine.launch(*given, cwd=machine.folder)
    assert "options: " in loud.stderr or "== " in loud.stderr
    result = machine.launch(*given, "--quiet", cwd=machine.folder)
    assert (result.returncode, result.stderr) == (0, "")
    silent = [call[0] for call in machine.calls if "--quiet" not in call]
    assert set(silent) == {"scripts/runtime_config.py"}, "which shows warnings alone"


@pytest.mark.parametrize("program", ["make_demo", "main_train", "main_test"])
def test_demo_stops_at_the_first_failure(machine, program):
    result = machine.launch("--demo", FAIL_IN=program, CODE="5")
    assert result.returncode == 5
    assert program in machine.calls[-1][0]
    assert "results/demo" not in result.stdout


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("args", [["--demo"], ["--prepare-data"], []], ids=["demo", "prepare", "train"])
def test_a_signal_stops_all_that_was_started(machine, args, number, code):
    where = {"--demo": "make_demo", "--prepare-data": "prepare_gopro"}.get("".join(args), "main_train")
    process = machine.start(*args, *([] if args == ["--demo"] else [str(machine.config)]), HANG_IN=where)
    pids = [int(pid) for pid in (machine.folder / "calls.pids").read_text().split()]
    try:
        if args:
            process.send_signal(number)  # to the launcher alone
            assert process.wait(timeout=20) == code
        else:
            os.killpg(process.pid, number)  # to all, as a terminal does; the launcher has become the program
            assert process.wait(timeout=20) in (code, -number)
        if args or number == signal.SIGTERM:  # the stand-in's own child ignores Ctrl-C
            wait_until(lambda: not any(is_running(pid) for pid in pids))
        assert where in machine.calls[-1][0]
    finally:
        for pid in filter(is_running, pids):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_in_the_background_it_outlives_the_terminal_and_ends_on_sigterm(machine):
    process = machine.start("--demo", HANG_IN="make_demo", ignored=[signal.SIGHUP, signal.SIGINT])
    pids = [int(pid) for pid in (machine.folder / "calls.pids").read_text().split()]
    try:
        for number in (signal.SIGHUP, signal.SIGINT):
            os.killpg(process.pid, number)
            process.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.2)
        assert all(map(is_running, pids))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 128 + signal.SIGTERM
        wait_until(lambda: not any(map(is_running, pids)))
    finally:
        for pid in filter(is_running, pids):
            os.kill(pid, signal.SIGKILL)


def test_a_search_path_of_cd_changes_no_folder(machine):
    """With CDPATH `cd` may go elsewhere, and prints where it went."""
    command = [f"{ROOT.name}/launch_train.sh", str(machine.config)]
    result = subprocess.run(command, cwd=ROOT.parent, env=machine.env | {"CDPATH": f".:{ROOT.parent}"}, check=False)
    assert result.returncode == 0
    assert machine.calls == [["main_train_vrt.py", "--opt", str(machine.config)]]


@pytest.fixture
def option_file(tmp_path: Path) -> Path:
    kind = "VideoRecurrent{}DatasetRGBSpike"
    roots = {"dataroot_gt": "a", "dataroot_lq": "b", "dataroot_spike": "c", "meta_info_file": "m.txt"}
    tree = {
        "task": "mine",
        "path": {"root": str(tmp_path / "experiments")},
        "datasets": {
            "train": roots | {"dataset_type": kind.format("Train"), "gt_size": 64},
            "test": {"dataset_type": kind.format("Test"), "dataroot_lq": "b", "dataroot_spike": "c"},
        },
        "netG": {"in_chans": 4},
    }
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(tree))
    return path


def test_other_roots_go_into_a_copy(option_file, tmp_path):
    before = option_file.read_text()
    root = tmp_path / "set"
    (root / "meta_info").mkdir(parents=True)
    (root / "meta_info" / "meta_info_train.txt").touch()
    path = runtime_config.write_runtime_config(option_file, "train", root, None, ["task=other"])
    assert path == tmp_path / "experiments" / "other" / "runtime_train.json"
    assert option_file.read_text() == before
    opt = utils_option.load(path, Opt)
    assert opt.datasets.train.dataroot_gt == f"{root}/train_GT"
    assert opt.datasets.train.dataroot_lq == f"{root}/train_GT_blurred"
    assert opt.datasets.train.dataroot_spike == f"{root}/GOPRO_Large_spike_seq/train"
    assert opt.datasets.train.meta_info_file == f"{root}/meta_info/meta_info_train.txt"
    assert opt.datasets.train.gt_size == 64
    assert opt.datasets.test.dataroot_gt is None
    assert opt.datasets.test.dataroot_lq == f"{root}/test_GT_blurred"
    assert opt.datasets.test.dataroot_spike == f"{root}/GOPRO_Large_spike_seq/test"


def test_the_copy_of_a_test_lies_beside_its_results(option_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = runtime_config.write_runtime_config(option_file, "test", tmp_path / "set", None, ["task=other"])
    assert path == Path("results/other/runtime_test.json")
    assert utils_option.load(path, Opt).datasets.test.dataroot_lq == f"{tmp_path}/set/test_GT_blurred"
    path = runtime_config.write_runtime_config(option_file, "test", tmp_path / "set", None, ["val.task_name=mine"])
    assert path == Path("results/mine/runtime_test.json")


def moved_by(option_file: Path, root: Path | None, **more: bool) -> dict[str, dict[str, object]]:
    path = runtime_config.write_runtime_config(option_file, "train", root, None, [], **more)
    utils_option.load(path, Opt)
    return json.loads(path.read_text())["datasets"]


def test_generated_lmdb_folders_are_read(option_file, tmp_path):
    for split in ("train", "test"):
        spikes = tmp_path / f"set/GOPRO_Large_spike_seq/{split}.lmdb"
        spikes.mkdir(parents=True)
        (spikes / "data.mdb").touch()
    moved = moved_by(option_file, tmp_path / "set", lmdb=True)
    for split, keys in (("train", {"dataroot_gt", "dataroot_lq"}), ("test", {"dataroot_lq"})):
        names = {"dataroot_gt": f"{split}_GT.lmdb", "dataroot_lq": f"{split}_GT_blurred.lmdb"}
        wanted = {key: f"{tmp_path}/set/{names[key]}" for key in keys}
        wanted["dataroot_spike"] = f"{tmp_path}/set/GOPRO_Large_spike_seq/{split}.lmdb"
        assert moved[split] == wanted | {"io_backend": {"type": "lmdb"}}


def test_without_another_root_the_lmdb_folders_lie_beside_the_option_files_own(option_file):
    moved = moved_by(option_file, None, lmdb=True)
    backend = {"io_backend": {"type": "lmdb"}}
    assert moved == {
        "train": {"dataroot_gt": "a.lmdb", "dataroot_lq": "b.lmdb"} | backend,  # of the spikes there are .dat alone
        "test": {"dataroot_lq": "b.lmdb"} | backend,
    }


def test_an_option_file_for_lmdb_finds_them_at_another_root(option_file, tmp_path):
    tree = json.loads(option_file.read_text())
    tree["datasets"]["test"]["io_backend"] = {"type": "lmdb"}
    option_file.write_text(json.dumps(tree))
    moved = moved_by(option_file, tmp_path / "set")
    assert moved["train"]["dataroot_lq"] == f"{tmp_path}/set/train_GT_blurred"
    assert moved["test"] == {
        "dataroot_lq": f"{tmp_path}/set/test_GT_blurred.lmdb",
        "dataroot_spike": f"{tmp_path}/set/GOPRO_Large_spike_seq/test",
    }


BLOCK = {"dataset_type": "TrainDatasetRGBSpike", "dataroot_lq": "a", "dataroot_gt": "b", "dataroot_spike": "c"}


@pytest.mark.parametrize(
    ("mode", "given", "message"),
    [
        ("train", "tsk=x", "tsk"),
        ("train", "datasets.train=null", "datasets.train is null"),
        ("train", "netG.pa_frames=0", "can be tested here but not trained"),
        ("train", f"datasets.train=[{json.dumps(BLOCK)}]", "datasets.train is a list of 1"),
        ("test", "datasets.test=null", "datasets.test is null"),
    ],
)
def test_mistakes_are_found_before_data_are_prepared(run_program, option_file, mode, given, message):
    words = ["scripts/runtime_config.py", "--check", "--mode", mode, "--dataset-root", "gone", "--opt", option_file]
    code, out, err = run_program(*words, "--set", given)
    assert (code, out) == (2, "")
    assert re.fullmatch(f"error: .*{message}.*\n", err)


def test_options_without_mistakes_pass_before_there_are_data(run_program, option_file, tmp_path):
    words = ["scripts/runtime_config.py", "--check", "--mode", "train", "--lmdb", "--opt", option_file]
    assert run_program(*words) == (0, "", "")
    assert not (tmp_path / "experiments").exists()


@pytest.mark.parametrize(("name", "kept"), [("elsewhere", False), ("clip_b", True)])
def test_the_list_of_another_set_gives_way_at_a_root_without_one(option_file, tmp_path, capsys, name, kept):
    tree = json.loads(option_file.read_text())
    listed = tmp_path / "list.txt"
    listed.write_text(f"{name} 5 (32,48,3) 47\n")
    tree["datasets"]["train"]["meta_info_file"] = str(listed)
    option_file.write_text(json.dumps(tree))
    (tmp_path / "set/train_GT_blurred/clip_b").mkdir(parents=True)
    moved = moved_by(option_file, tmp_path / "set")["train"]
    assert moved.get("meta_info_file", "as it was") == ("as it was" if kept else None)
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert f"{listed} is used" in err if kept else f"{listed} names none of its clips" in err


def test_spike_size_of_the_options_gives_way_to_a_config_yaml_at_the_new_root(option_file, tmp_path):
    (tmp_path / "spikes/train").mkdir(parents=True)
    (tmp_path / "spikes/config.yaml").write_text("spike_h: 250\nspike_w: 400\nfilename: mine\n")
    path = runtime_config.write_runtime_config(option_file, "train", None, tmp_path / "spikes", [])
    moved = json.loads(path.read_text())["datasets"]["train"]
    assert moved == {"dataroot_spike": f"{tmp_path}/spikes/train", "spike_h": None, "spike_w": None}


def test_spike_root_moves_the_spikes_only(option_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = runtime_config.write_runtime_config(option_file, "test", None, Path("/spikes"), [])
    moved = json.loads(path.read_text())["datasets"]
    assert moved == {split: {"dataroot_spike": f"/spikes/{split}"} for split in ("train", "test")}


def test_spike_size_of_the_options_gives_way_to_a_manifest_at_the_new_root(option_file, tmp_path):
    make_set(tmp_path / "set")
    path = runtime_config.write_runtime_config(option_file, "train", None, tmp_path / "set/spikes", [])
    moved = json.loads(path.read_text())["datasets"]["train"]
    assert moved == {"dataroot_spike": f"{tmp_path}/set/spikes/train", "spike_h": None, "spike_w": None}


def test_runtime_config_prints_the_path_or_one_line(run_program, option_file, tmp_path):
    words = ["scripts/runtime_config.py", "--mode", "train", "--spike-root", "s", "--opt", option_file]
    code, out, _ = run_program(*words)
    assert (code, out) == (0, f"{tmp_path}/experiments/mine/runtime_train.json\n")
    code, out, err = run_program(*words, "--set", "tsk=x")
    assert (code, out) == (2, "")
    assert "tsk" in err


@pytest.mark.slow
@pytest.mark.parametrize(("action", "code"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", 137), ("pass", 0)])
def test_torchrun_ends_with_the_programs_exit_code(tmp_path, action, code):
    program = tmp_path / "program.py"
    program.write_text(f"import os, sys\nif os.environ['RANK'] == '1':\n    {action}\n")
    command = [ROOT / "scripts/torchrun.py", "--standalone", "--nproc_per_node=2", program]
    process = warm_start.start(command, cwd=tmp_path, env=os.environ)
    _, err = process.communicate(timeout=300)
    assert process.returncode == code
    assert "Traceback" not in err
