"""A run that is killed again and again, in the short form of scripts/stress_resume.py."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.slow
def test_kills_in_every_place_leave_no_trace_in_the_result():
    """In the main process, inside the write of a checkpoint, and in a process that reads data."""
    command = [sys.executable, str(ROOT / "scripts/stress_resume.py"), "--kills", "3", "--steps", "32", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["kills"] == {"main": 1, "write": 1, "worker": 1}
    assert summary["resumes"] == 3
    assert 0 < summary["steps_repeated_at_most"] <= 4  # a checkpoint is written every 4 steps
    assert min(summary["exit_codes_after_a_dead_worker"]) > 0
    assert summary["differences"] == 0
