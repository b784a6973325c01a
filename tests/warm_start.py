"""Start Python programs by forking a process that has done the project's imports: a tenth of a second of CPU, not five.

A program finds all as in a new process: arguments, folder, variables, session, output, signals, exit code. Four things
differ: modules are imported already, strings have the same hashes in all processes, /proc/PID/environ shows the
variables of the process that was forked, and at the end objects that are still alive are left to the system. This file
is also the program that forks, on Linux alone.
"""

import atexit
import ctypes
import functools
import gc
import importlib
import json
import math
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent import futures
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("options", "utils", "data", "models")
LIBRARIES = ("cv2", "torch._dynamo", "torch.distributed.run", "torch.utils.tensorboard", "torchvision")
ASKING = threading.Lock()  # one thread at a time
PR_SET_CHILD_SUBREAPER = 36  # of prctl(2): a process whose parent has ended becomes a child of this process


def start(command, cwd, env, stdout=None, stderr=None):
    """Start a Python program in a session of its own.

    Args:
        command: the program's path, then its arguments.
        cwd, env: folder and all variables.
        stdout, stderr: open files; pipes where not given.

    Returns:
        The process, as `subprocess.Popen` gives it.
    """
    if sys.platform != "linux":
        outputs = {"stdout": stdout or subprocess.PIPE, "stderr": stderr or subprocess.PIPE, "text": True}
        return subprocess.Popen([sys.executable, *command], cwd=cwd, env=env, start_new_session=True, **outputs)
    return Process([str(word) for word in command], cwd, env, stdout, stderr)


class Process:
    """A forked program, with those parts of `subprocess.Popen` that tests use."""

    def __init__(self, command, cwd, env, stdout, stderr):
        self.args, self.returncode = command, None
        self.stdout, output = (None, os.dup(stdout.fileno())) if stdout else _pipe()
        self.stderr, error = (None, os.dup(stderr.fileno())) if stderr else _pipe()
        request = {"command": command, "cwd": str(cwd), "env": dict(env)}
        with ASKING:
            control, _ = _forking_process()
            socket.send_fds(control, [json.dumps(request).encode()], [output, error])
            answer = control.recv(64)
        os.close(output)
        os.close(error)
        if not answer:
            raise ChildProcessError("the forking process has ended; its traceback is in what the first test printed")
        self.pid = int(answer)

    def poll(self):
        """The exit code, None while the program runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout=None):
        end = math.inf if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(0.005)
        return self.returncode

    def communicate(self, timeout=None):
        """What the program has said, at its end and that of all that write to the same pipes."""
        readers = futures.ThreadPoolExecutor(2)
        texts = [readers.submit(_read_all, pipe) for pipe in (self.stdout, self.stderr)]
        readers.shutdown(wait=False)
        if futures.wait(texts, timeout).not_done:
            raise subprocess.TimeoutExpired(self.args, timeout)
        self.wait(timeout)
        return tuple(text.result() for text in texts)

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def _pipe():
    end, output = os.pipe()
    return open(end, encoding="utf-8"), output


def _read_all(pipe):
    if pipe is None or pipe.closed:
        return ""
    with pipe:
        return pipe.read()


@functools.cache
def _forking_process():
    """The connection to a process that forks at every request, and the process; it ends with this one."""
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError("prctl(PR_SET_CHILD_SUBREAPER) failed")
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, __file__, str(its.fileno())]
    process = subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, pass_fds=[its.fileno()], start_new_session=True
    )
    its.close()
    return ours, process


def import_all():
    """Import what the programs do, at once or late."""
    sys.path[0] = str(ROOT)
    for name in LIBRARIES:
        importlib.import_module(name)
    for package in PACKAGES:
        for module in pkgutil.walk_packages([str(ROOT / package)], f"{package}."):
            importlib.import_module(module.name)
    assert len(os.listdir("/proc/self/task")) == 1, "forked processes would miss a thread"
    gc.collect()
    gc.freeze()  # a forked process that looked through all this at its end would copy it


def serve(control):
    """Fork at every request until nobody can ask any more; returns in a forked process, with request and outputs."""
    while True:
        request, outputs, *_ = socket.recv_fds(control, 1 << 20, 2)
        if not request:
            os._exit(0)
        child = os.fork()
        if child == 0:
            between = os.getpid()
            if os.fork() != 0:
                os._exit(0)  # the next process loses its parent, and gets the test's process as another one
            while os.getppid() == between:
                time.sleep(0.001)
            return json.loads(request), outputs
        os.waitpid(child, 0)
        for output in outputs:
            os.close(output)


def become(program, outputs):
    """Turn this process into that of a program that starts."""
    os.setsid()
    for number, output in enumerate(outputs, 1):
        os.dup2(output, number)
        os.close(output)
    os.environ.clear()
    os.environ.update(program["env"])
    os.chdir(program["cwd"])
    sys.argv = program["command"]
    sys.path[0] = str(Path(sys.argv[0]).parent)


def run(path):
    """Run a program; returns the exit code that Python gives it, below 0 the signal that Python ends it with."""
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        sys.stderr.write(f"{stop.code}\n")
        return 1
    except BaseException as error:  # noqa: BLE001 - whatever ends a program ends this one
        sys.excepthook(type(error), error, error.__traceback__)
        return -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    return 0


def end(code):
    """End this process as Python does, but take nothing apart: that would copy all memory, 0.6 s of CPU."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code & 0xFF)


if __name__ == "__main__":
    import_all()
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        become(*serve(connection))
        connection.send(str(os.getpid()).encode())
    end(run(sys.argv[0]))
