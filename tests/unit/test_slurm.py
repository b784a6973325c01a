"""The batch script for SLURM: what it starts, what a signal does, when it requeues. SLURM's programs are stand-ins."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from utils.utils_run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = "scripts/slurm_train.sbatch"
PYTHON = """#!/usr/bin/env bash
if [[ "$*" == *is_finished* ]]; then echo "asked ${*:3}" >>"$CALLS"; exit "${UNFINISHED:-0}"; fi
"""
SRUN = """#!/usr/bin/env bash
echo "srun $*" >>"$CALLS"
trap 'echo "srun USR1" >>"$CALLS"; exit "${CODE:-0}"' USR1
trap 'echo "srun TERM" >>"$CALLS"; exit "${CODE:-0}"' TERM
echo ready >>"$CALLS"
while [[ -n "${HANG:-}" ]]; do sleep 0.02; done
exit "${CODE:-0}"
"""
OTHER = """#!/usr/bin/env bash
echo "$(basename "$0") $*" >>"$CALLS"
"""
SLEEP = """#!/bin/sh
case $1 in 600) echo "slept $1" >>"$CALLS" ;; *) exec /bin/sleep "$1" ;; esac
"""
JOB = {
    "SLURM_JOB_ID": "7",
    "SLURM_NNODES": "2",
    "SLURM_NODEID": "0",
    "SLURM_JOB_NODELIST": "gpu[03-04]",
    "SLURM_NTASKS": "2",
    "SLURM_SUBMIT_DIR": str(ROOT),
}
STARTED = "srun --nodes=2 --ntasks-per-node=1 ./launch_train.sh"
UNFINISHED = {"UNFINISHED": "1"}


class Job:
    """A job's first node."""

    def __init__(self, folder):
        self.folder, self.record, self.config = folder, folder / "calls", folder / "mine.json"
        self.config.write_text("{}")
        for name, text in {"python": PYTHON, "srun": SRUN, "scontrol": OTHER, "nvidia-smi": OTHER}.items():
            self.executable(name, text)
        own = {"PATH": f"{folder}:/usr/bin:/bin", "PYTHON": str(folder / "python"), "CALLS": str(self.record)}
        self.env = JOB | own

    def executable(self, name, text):
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o755)

    def start(self, *words, **env):
        """Start the script as SLURM does: a copy of it, in another folder."""
        copy = self.folder / "slurm_script"
        copy.write_text((ROOT / SCRIPT).read_text())
        command = ["bash", str(copy), *words]
        return subprocess.Popen(command, cwd=self.folder, env=self.env | env, stderr=subprocess.PIPE, text=True)

    def run(self, *words, **env):
        """Exit code and lines on stderr."""
        process = self.start(*words, **env)
        said = process.communicate(timeout=60)[1].splitlines()
        return process.returncode, said

    def signalled(self, number, **env):
        """The same for a run that gets a signal in the middle of training."""
        process = self.start(str(self.config), HANG="1", **env)
        end = time.monotonic() + 60
        while "ready" not in self.calls:
            assert time.monotonic() < end
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(number)
        said = process.communicate(timeout=60)[1].splitlines()
        return process.returncode, said

    @property
    def calls(self):
        return self.record.read_text().splitlines() if self.record.exists() else []


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path)


def test_one_launcher_per_node_gets_all_arguments(job):
    code, said = job.run("4", str(job.config), "--set", "task=x", "train.total_iter=3", SLURM_CPUS_PER_TASK="16")
    assert code == 0
    words = f"4 {job.config} --set task=x train.total_iter=3"
    start = "srun --nodes=2 --ntasks-per-node=1 --cpus-per-task=16 ./launch_train.sh"
    assert job.calls == [f"{start} {words}", "ready", f"asked {job.config} task=x train.total_iter=3"]
    assert said == [
        f"job 7, start 1, nodes: 2; ./launch_train.sh {words}",
        "the training is finished; the job is not requeued",
    ]


def test_all_gpus_of_a_node_are_used_unless_a_count_is_given(job):
    job.run(str(job.config), SLURM_GPUS_ON_NODE="8")
    assert job.calls[0] == f"{STARTED} 8 {job.config}"
    job.record.unlink()
    job.run("2", str(job.config), SLURM_GPUS_ON_NODE="8")
    assert job.calls[0] == f"{STARTED} 2 {job.config}"


@pytest.mark.parametrize("code", ["0", "138"], ids=["saved", "not yet started"])
def test_a_pre_empted_training_is_asked_to_save_and_requeued(job, code):
    ended, said = job.signalled(signal.SIGUSR1, CODE=code, SLURM_RESTART_COUNT="1", **UNFINISHED)
    assert ended == 0
    assert job.calls[2:] == ["srun USR1", f"asked {job.config}", "scontrol requeue 7"]
    assert "start 2" in said[0]
    assert said[1:] == [
        "SIGUSR1: the training is asked to save and stop",
        "the training is not finished; requeueing job 7, which resumes from the newest checkpoint",
    ]


def test_a_training_that_finished_meanwhile_is_not_requeued(job):
    assert job.signalled(signal.SIGUSR1)[0] == 0
    assert job.calls[2:] == ["srun USR1", f"asked {job.config}"]


def test_a_requeue_that_slurm_refuses_is_said(job):
    job.executable("scontrol", "#!/bin/sh\nexit 1\n")
    code, said = job.signalled(signal.SIGUSR1, **UNFINISHED)
    assert code == 1
    assert said[-1] == "error: scontrol requeue 7 failed; submit the job again; it resumes"


@pytest.mark.parametrize("number", [None, signal.SIGUSR1])
def test_a_failure_is_not_repeated(job, number):
    ended = job.signalled(number, CODE="3") if number else job.run(str(job.config), CODE="3")
    assert ended[0] == 3
    assert ended[1][-1] == "the training failed with exit code 3; the job is not requeued"
    assert job.calls[-1] in ("ready", "srun USR1")


@pytest.mark.parametrize("number", [None, signal.SIGTERM], ids=["of the step", "of the job"])
def test_another_stop_is_left_to_slurm(job, number):
    """A pre-empted job that ends by itself is not requeued, and one that was cancelled must stay so."""
    job.executable("sleep", SLEEP)
    ended = job.signalled(number, **UNFINISHED) if number else job.run(str(job.config), **UNFINISHED)
    assert ended[0] == 0
    assert "waiting for SLURM" in ended[1][-1]
    assert job.calls[-1] == "slept 600"
    assert not any("scontrol" in call for call in job.calls)


@pytest.mark.parametrize(
    ("words", "env", "expected"),
    [
        ([], {}, "no option file"),
        (["none.json"], {}, "no option file none.json"),
        (["CONFIG"], {"SLURM_JOB_ID": ""}, "submit it with sbatch"),
        (["CONFIG"], {"SLURM_SUBMIT_DIR": "/"}, "is not the checkout"),
        (["CONFIG"], {"SLURM_SUBMIT_DIR": "/none"}, "is not the checkout"),
        (["CONFIG"], {"SLURM_NTASKS": "16"}, "--ntasks-per-node=1"),
        (["CONFIG", "--prepare-data"], {}, "prepare once"),
        (["CONFIG", "--sett", "a=1"], {}, "did you mean --set"),
    ],
)
def test_mistakes_are_told_before_anything_starts(job, words, env, expected):
    code, said = job.run(*(str(job.config) if word == "CONFIG" else word for word in words), **env)
    assert code == 2
    assert job.calls == []
    assert expected in said[-1]
    assert len([line for line in said if line.startswith("error: ")]) == 1


def test_a_training_whose_last_test_is_missing_is_not_finished(tmp_path):
    run = RunFolder(tmp_path)
    run.weights.mkdir()
    run.checkpoint(8, "state").touch()
    for clips, tested, finished in ((None, "", True), ({}, "", False), ({}, '{"split": "test", "step": 8}\n', True)):
        run.options.write_text(json.dumps({"train": {"total_iter": 8}, "datasets": {"test": clips}}))
        run.metrics.write_text('{"split": "train", "step": 8}\n' + tested)
        assert run.is_finished() == finished
    run.options.write_text(json.dumps({"train": {"total_iter": 9}, "datasets": {"test": None}}))
    assert not run.is_finished()


def test_help_needs_no_job(job):
    help_ = subprocess.run(["bash", SCRIPT, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "sbatch [--nodes=N ...] scripts/slurm_train.sbatch CONFIG.json" in help_.stdout
