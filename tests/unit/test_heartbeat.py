"""Processes that notice a silent one: two of gloo's, one of which is stopped or comes late to the end."""

import os
from pathlib import Path

import pytest
import warm_start
from ports import free_port

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = f"""
import os, signal, sys, time
sys.path.insert(0, {str(ROOT)!r})
from utils import utils_dist
from utils.processes import signals
from utils.processes import heartbeat
heartbeat.INTERVAL, heartbeat.MISSES = 0.1, 20
dist = utils_dist.init()
if sys.argv[1:] == [str(dist.rank)]:
    os.kill(os.getpid(), signal.SIGSTOP)
with signals.stop_on_signals():
    if not sys.argv[1:] and dist.rank == 1:
        time.sleep(4.0)  # twice the patience: it is late, not silent
        os.kill(os.getpid(), signal.SIGUSR1)  # and waits for the other, which has to hear of it
    while not sys.argv[1:] and dist.rank == 0 and not utils_dist.any_asked(False):
        time.sleep(0.01)
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
        env = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
        env |= {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
        for rank in ("0", "1"):
            started.append(warm_start.start([path, *words], cwd=tmp_path, env=env | {"RANK": rank}))
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
    last_words = f"failure: process {silent} has been silent for 2 s"
    assert any(line.startswith(last_words) for line in err.splitlines()), err


@pytest.mark.slow
def test_a_process_that_is_late_is_waited_for_and_all_hear_that_one_is_asked_to_stop(pair):
    for process in pair():
        out, err = process.communicate(timeout=60)
        # The last line: gloo of PyTorch 2.8 writes one of its own on stdout.
        assert (process.returncode, out.splitlines()[-1:], err) == (0, ["[True, False]"], "")
