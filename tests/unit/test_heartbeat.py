"""Processes that notice a silent one: two of gloo's, one of which is stopped or comes late to the end."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import os, signal, sys, time
from utils import utils_dist, utils_heartbeat
utils_heartbeat.INTERVAL, utils_heartbeat.MISSES = 0.1, 20
dist = utils_dist.init()
if sys.argv[1:] == [str(dist.rank)]:
    os.kill(os.getpid(), signal.SIGSTOP)
if not sys.argv[1:] and dist.rank == 1:
    time.sleep(4.0)  # twice the patience: it is late, not silent
print(utils_dist.any_true(dist, [dist.rank == 1, False]), flush=True)
utils_dist.close()
"""


@pytest.fixture
def pair(tmp_path):
    """Start two processes of the program; what is left of them is ended."""
    started = []

    def start(*words):
        path = tmp_path / "program.py"
        path.write_text(PROGRAM)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        env |= {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for rank in ("0", "1"):
            started.append(
                subprocess.Popen(
                    [sys.executable, str(path), *words],
                    env=env | {"RANK": rank},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        return started

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("silent", [0, 1])
def test_a_silent_process_ends_the_other_which_names_it(pair, silent):
    other = pair(str(silent))[1 - silent]
    _, err = other.communicate(timeout=60)
    assert other.returncode == 1
    # A line of its own, not always the last: libraries may write there as well when a connection ends.
    last_words = f"failure: process {silent} has given no sign of life for 2 s"
    assert any(line.startswith(last_words) for line in err.splitlines()), err


@pytest.mark.slow
def test_a_process_that_is_late_is_waited_for(pair):
    for process in pair():
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, "[True, False]\n", "")
