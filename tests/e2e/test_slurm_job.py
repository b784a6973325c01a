"""A SLURM job on two nodes that is pre-empted twice. The nodes are loopback addresses, SLURM's programs stand-ins."""

import os
import signal
import subprocess
import sys

import pytest
import torch
from ports import free_port
from training_run import FIX, OTHERS, PATIENCE, ROOT, STARTED, TRAIN, Training, finish, make_blurred_set, wait_until

from utils.utils_run_folder import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="nodes are loopback addresses")]
STEPS = 9
PAIR = "datasets.train.dataloader_batch_size=2"
SRUN = """#!/usr/bin/env bash
# Starts one task per node, forwards USR1 to them, and ends with the highest exit code.
while [[ "$1" == --* ]]; do shift; done
export SLURM_STEP_NUM_NODES=2 SLURM_STEP_NUM_TASKS=2 SLURM_STEP_NODELIST="127.0.0.[1-2]"
for node in 0 1; do
    SLURM_NODEID=$node SLURMD_NODENAME=127.0.0.$((node + 1)) "$@" &
    tasks+=($!)
done
trap 'interrupted=true; kill -USR1 "${tasks[@]}"; echo forwarded >>"$CALLS"' USR1
highest=0
for task in "${tasks[@]}"; do
    interrupted=true
    while $interrupted; do
        interrupted=false code=0
        wait "$task" || code=$?
    done
    if ((code > highest)); then highest=$code; fi
done
exit "$highest"
"""
SCONTROL = """#!/usr/bin/env bash
echo "scontrol $*" >>"$CALLS"
"""


class Job:
    """A job that trains on two nodes."""

    def __init__(self, training):
        self.training, self.calls, self.starts = training, training.folder / "calls", 0
        for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
            (training.folder / name).write_text(text)
            (training.folder / name).chmod(0o755)
        slurm = {"JOB_ID": "7", "NNODES": "2", "NODEID": "0", "NTASKS": "2", "JOB_NODELIST": "127.0.0.[1-2]"}
        own = {"PATH": f"{training.folder}:{os.environ['PATH']}", "CALLS": str(self.calls), "CUDA_VISIBLE_DEVICES": ""}
        self.env = {key: value for key, value in os.environ.items() if key not in OTHERS} | own
        self.env |= training.python().env
        self.env |= {f"SLURM_{name}": value for name, value in slurm.items()} | {"SLURM_SUBMIT_DIR": str(ROOT)}

    def start(self, *overrides):
        """Start, or start again, the batch script."""
        command = ["bash", ROOT / "scripts/slurm_train.sbatch", self.training.config, "--set", *overrides]
        env = self.env | {"SLURM_RESTART_COUNT": str(self.starts), "MASTER_PORT": free_port()}
        self.starts += 1
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        batch = subprocess.Popen(command, cwd=self.training.folder, env=env, start_new_session=True, **pipes)
        self.training.sessions.add(batch.pid)
        STARTED.add(self.training)
        return batch

    def pre_empt(self, batch):
        """Send USR1 to the batch script alone; the training stands still until it is forwarded."""
        processes = self.training.python().running("main_train_vrt.py")
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        forwarded = self.said("forwarded")
        batch.send_signal(signal.SIGUSR1)
        wait_until(lambda: self.said("forwarded") > forwarded, batch)
        for pid in processes:
            os.kill(pid, signal.SIGCONT)

    def said(self, line):
        """How often a stand-in has written a line."""
        return self.calls.read_text().splitlines().count(line) if self.calls.exists() else 0


def test_a_job_that_is_pre_empted_twice_ends_with_the_weights_of_an_uninterrupted_one(tmp_path):
    data = make_blurred_set(tmp_path / "set")
    train = TRAIN | FIX | {"total_iter": STEPS, "checkpoint_save": 1000, "checkpoint_test": 1000}
    whole, halted = (Training(tmp_path / name, data, train=train) for name in ("whole", "halted"))
    for process in whole.start_as_a_platform_does(2, PAIR):
        finish(process)

    job, stopped = Job(halted), []
    for requeued in (1, 2):
        batch = job.start(PAIR)
        wait_until(lambda: len(halted.lines("train")) > 2 * job.starts, batch)
        job.pre_empt(batch)
        _, err = batch.communicate(timeout=PATIENCE)
        assert batch.returncode == 0, err
        assert err.splitlines()[-1].startswith("the training is not finished; requeueing job 7")
        assert job.said("scontrol requeue 7") == requeued
        stopped.append(RunFolder(halted.run_dir).steps()[-1])
        wait_until(lambda: not halted.alive())
    batch = job.start(PAIR)
    out, err = batch.communicate(timeout=PATIENCE)
    assert batch.returncode == 0, err
    assert "2 processes on cpu" in out
    assert f"resumed from step {stopped[1]}" in out
    assert err.splitlines()[-1] == "the training is finished; the job is not requeued"
    assert job.said("scontrol requeue 7") == 2
    assert 0 < stopped[0] < stopped[1] < STEPS

    assert [line["G_loss"] for line in halted.lines("train")] == [line["G_loss"] for line in whole.lines("train")]
    for name in (f"{STEPS}_G.pth", f"{STEPS}_E.pth"):
        expected, found = whole.weights(name), halted.weights(name)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected)
