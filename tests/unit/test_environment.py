"""What tests inherit is the same whatever started pytest: see tests/conftest.py."""

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)
VARIABLES = {"RANK": "1", "WORLD_SIZE": "2", "WANDB_MODE": "disabled", "SPIKEVRT_DEFORM": "chunked"}
VARIABLES |= {"LC_ALL": "C", "PYTHONUTF8": "0", "COLUMNS": "20", "FORCE_COLOR": "1", "OMP_NUM_THREADS": "7"}


def inherited():
    """Signals, permissions and variables of a process that a test starts."""
    ignored = f"[signal.getsignal(number) == signal.SIG_IGN for number in {[int(number) for number in IGNORED]}]"
    variables = f"{{name: os.environ.get(name) for name in {list(VARIABLES)}}}"
    blocked = "signal.pthread_sigmask(signal.SIG_BLOCK, [])"
    report = f"import os, signal; print({ignored}, {blocked}, os.umask(0), {variables})"
    return subprocess.run([sys.executable, "-S", "-c", report], capture_output=True, text=True, check=True).stdout


def test_signals_permissions_and_variables_are_known():
    variables = dict.fromkeys(VARIABLES) | {"COLUMNS": "80", "OMP_NUM_THREADS": "1"}
    assert inherited() == f"{[False] * len(IGNORED)} set() {0o022} {variables}\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_they_are_known_under_any_parent():
    def as_a_careless_parent():
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED)
        os.umask(0o077)
        os.close(0)

    test = f"{__file__}::{test_signals_permissions_and_variables_are_known.__name__}"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test],
        cwd=ROOT,
        env=os.environ | VARIABLES,
        preexec_fn=as_a_careless_parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
