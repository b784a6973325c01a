"""A program that a warm start has forked cannot tell: all is as `subprocess.Popen` starts it."""

import os
import signal
import subprocess
import sys

import pytest
import warm_start

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere programs are started anew")
PROGRAM = """
import atexit, os, random, signal, sys, threading
atexit.register(print, "at the end")
print(__name__, sys.argv, sys.path[0], os.getcwd(), sorted(os.environ.items()), os.umask(0))
print(os.getpid() == os.getpgid(0) == os.getsid(0), os.getppid(), sorted(os.listdir("/proc/self/fd")))
print([signal.getsignal(number) for number in (1, 2, 13, 15)], signal.pthread_sigmask(signal.SIG_BLOCK, []))
print(threading.active_count(), os.isatty(0), sys.stdout.line_buffering, sys.stdout.encoding, sys.stdout.errors)
print("a word", file=sys.stderr, end="")
sys.stdout.flush()
if sys.argv[1] == "kill":
    os.kill(os.getpid(), 9)
if sys.argv[1] == "interrupt":
    os.kill(os.getpid(), signal.SIGINT)
if sys.argv[1] == "fail":
    {}["key"]
sys.exit(int(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", ["0", "3", "kill", "interrupt", "fail"])
def test_a_forked_program_finds_and_leaves_what_a_new_one_does(tmp_path, end):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    words, where = [str(program), end], {"cwd": tmp_path, "env": {"A": "\u00fc", "LANG": "C.UTF-8"}}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    new, forked = subprocess.Popen([sys.executable, *words], **where, **pipes), warm_start.start(words, **where)
    (new_out, new_err), (out, err) = (process.communicate(timeout=300) for process in (new, forked))
    assert out == new_out
    assert str(os.getpid()) in out
    assert forked.returncode == new.returncode
    if end in ("interrupt", "fail"):
        assert err.splitlines()[-1] == new_err.splitlines()[-1]
    else:
        assert err == new_err


def test_signals_reach_it_and_files_take_what_it_says(tmp_path):
    program, said = tmp_path / "program.py", tmp_path / "said"
    program.write_text("import signal\nprint('ready', flush=True)\nsignal.pause()\n")
    with said.open("w") as file:
        process = warm_start.start([program], cwd=tmp_path, env={}, stdout=file, stderr=file)
    assert process.poll() is None
    os.waitid(os.P_PID, process.pid, os.WNOHANG | os.WEXITED | os.WNOWAIT)  # it is this process's own child
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=300) == -signal.SIGTERM
    process.send_signal(signal.SIGTERM)  # nobody is there any more
    assert said.read_text() in ("", "ready\n")
