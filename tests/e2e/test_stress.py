"""A run that is killed again and again, in the short form of tests/stress/stress_resume.py."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import warm_start

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def stress(monkeypatch, capsys):
    """Run the script here, its runs by warm starts: returns exit code, stdout and stderr."""
    monkeypatch.syspath_prepend(str(ROOT / "tests/stress"))
    import stress_resume
    import tiny_training

    def start(command, cwd, env, stdout, **_):
        return warm_start.start(command[1:], cwd, env, stdout, stdout)

    monkeypatch.setattr(stress_resume, "SPARE_STEPS", 9)
    monkeypatch.setattr(tiny_training, "subprocess", SimpleNamespace(Popen=start, STDOUT=subprocess.STDOUT))

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["stress_resume.py", *words])
        return stress_resume.main(stress_resume.parse_args()), *capsys.readouterr()

    return run


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.slow
def test_kills_in_every_place_leave_no_trace_in_the_result(stress):
    """In the main process, inside the write of a checkpoint, and in a process that reads data."""
    code, out, err = stress("--kills", "3", "--steps", "15", "--seed", "1")
    assert code == 0, out + err
    summary = json.loads(out.splitlines()[-1])
    assert summary["kills"] == {"main": 1, "write": 1, "worker": 1}
    assert summary["resumes"] == 3
    assert 0 < summary["steps_repeated_at_most"] <= 4  # a checkpoint is written every 4 steps
    assert min(summary["exit_codes_after_a_dead_worker"]) > 0
    assert summary["differences"] == 0
