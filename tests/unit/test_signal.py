"""Requests to stop, in programs of a few lines that run in processes of their own."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest
import warm_start

from utils.processes import signals

ROOT = Path(__file__).resolve().parents[2]
NUMBERS = [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT]
WAITING = """
import ctypes, multiprocessing, os, sys, time
from utils.processes import signals

def say(*words):  # in one piece: processes of torchrun share the pipe, and print writes the end of a line apart
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def work(ready):
    signals.ignore_in_worker()
    ready.set()
    time.sleep(300)

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    with signals.stop_on_signals() as stop:
        ready = context.Event()
        worker = context.Process(target=work, args=(ready,), daemon=True)
        worker.start()
        ready.wait()
        say(worker.pid)
        while stop.name is None:
            time.sleep(0.01)
        say(stop.name, worker.is_alive())
        if "stuck" in sys.argv:
            mutex, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
            libc.pthread_mutex_lock(mutex)
            libc.pthread_mutex_lock(mutex)  # for ever, and no Python runs in the main thread
    signals.end_children()  # the context ends while its worker lives
    worker.join()
"""


@pytest.fixture
def program(tmp_path):
    """Start a program of the text; what is left of it and of all that it started is ended."""
    started, mark = [], f"PROGRAM_OF_TEST={uuid.uuid4().hex}"

    def start(text, *words, torchrun=(), before=None):
        path = tmp_path / "program.py"
        path.write_text(text)
        env = os.environ | {"PYTHONPATH": str(ROOT)} | dict([mark.split("=")])
        if torchrun:
            command = [ROOT / "scripts/torchrun.py", *torchrun, path, *words]
            process = warm_start.start(command, cwd=tmp_path, env=env)
        else:
            process = subprocess.Popen(
                [sys.executable, str(path), *words],
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
                preexec_fn=before,
            )
        started.append(process)
        return process

    yield start
    for pid in marked(mark):  # torchrun's processes are no group of its own, and hold the pipes open
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for process in started:
        process.kill()
        process.communicate(timeout=20)


def marked(mark):
    """Processes that have such an entry in their environment."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                yield int(folder.name)


def started(process):
    """Process id of the program's worker, once that is ready."""
    return int(process.stdout.readline())


def wait_until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("send", [os.kill, os.killpg])
def test_a_signal_asks_and_a_worker_lives_through_it(program, number, send):
    process = program(WAITING)
    started(process)
    send(process.pid, number)
    assert process.stdout.readline() == f"{number.name} True\n"
    assert process.wait(timeout=20) == 0
    assert process.stderr.read() == ""


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_asks_also_where_the_parent_has_ignored_and_blocked_it(program, number):
    def as_a_careless_parent():
        signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, NUMBERS)

    process = program(WAITING, before=as_a_careless_parent)
    started(process)
    process.send_signal(number)
    assert process.wait(timeout=20) == 0
    assert process.stdout.read() == f"{number.name} True\n"


@pytest.mark.parametrize("number", NUMBERS)
def test_a_second_signal_ends_all_at_once_also_where_python_does_not_run(program, number):
    process = program(WAITING, "stuck")
    worker = started(process)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "SIGTERM True\n"

    def ended():  # again and again: a repetition within a second is the same request
        process.send_signal(number)
        return process.poll() is not None

    wait_until(ended)
    assert process.returncode == 128 + number
    wait_until(lambda: gone(worker))


def test_a_repetition_of_the_same_request_is_no_second_one(monkeypatch):
    now = 100.0
    monkeypatch.setattr(signals.time, "monotonic", lambda: now)
    ends = []
    monkeypatch.setattr(signals.os, "_exit", ends.append)
    with signals.stop_on_signals() as stop:
        for number in (signal.SIGUSR1, signal.SIGTERM):
            signal.raise_signal(number)
            wait_until(lambda: stop.name)
        assert stop.name == "SIGUSR1"
        assert signals.is_asked()
    assert not signals.is_asked()
    assert ends == []


def test_handlers_are_restored():
    before = [signal.getsignal(number) for number in NUMBERS]
    threads, blocked = threading.active_count(), signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with signals.stop_on_signals() as stop:
        assert stop.name is None
        assert [signal.getsignal(number) for number in NUMBERS] != before
    assert [signal.getsignal(number) for number in NUMBERS] == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == blocked
    assert threading.active_count() == threads
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.slow
@pytest.mark.parametrize("number", NUMBERS)
def test_torchrun_hands_signals_on_and_ends_as_its_processes_do(program, number):
    process = program(WAITING, torchrun=["--standalone", "--nproc_per_node=2", "--max-restarts=1"])
    assert all(process.stdout.readline().strip().isdecimal() for _ in range(2))
    process.send_signal(number)
    assert [process.stdout.readline() for _ in range(2)] == [f"{number.name} True\n"] * 2
    assert process.wait(timeout=60) == 0
    assert "Traceback" not in process.stderr.read()
