"""A Python for scripts: PYTHON and PYTHON_EXEC of a launcher's environment that start programs by warm_start.

The script it writes asks the test's process for a program, forwards signals to it, and ends with its exit code.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time

import warm_start

CLIENT = f"""#!{sys.executable} -IS
import json, os, signal, socket, sys
if sys.argv[1:2] == ["-c"]:
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
if sys.argv[1].endswith("check_requirements.py"):
    sys.exit(0)
server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
server.connect(os.environ["WARM_PYTHON"])
words = [word for word in sys.argv[1:] if word != "-u"]
request = json.dumps({{"command": words, "cwd": os.getcwd(), "env": dict(os.environ)}})
socket.send_fds(server, [request.encode()], [1, 2])
pid = int(server.recv(64))
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, lambda number, frame: os.kill(pid, number))
code = int(server.recv(64))
sys.exit(code if code >= 0 else 128 - code)
"""


class WarmPython:
    """The script, and the programs that it has started; serves it until it is closed.

    Args:
        folder: where the script is written.
        sessions: gets the sessions of the programs.
    """

    def __init__(self, folder, sessions):
        self.path, self.sessions, self.started, self._lock = folder / "python", sessions, [], threading.Lock()
        self.path.write_text(CLIENT)
        self.path.chmod(0o755)
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._server.bind(str(folder / "warm"))
        self._server.listen()
        self.env = {"PYTHON": str(self.path), "PYTHON_EXEC": str(self.path), "WARM_PYTHON": str(folder / "warm")}
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self):
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def running(self, program, **variables):
        """Process ids of a program, with such variables, that has not ended."""
        with self._lock:
            return [
                process.pid
                for process, env in self.started
                if program in process.args[0] and variables.items() <= env.items() and process.poll() is None
            ]

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._run, args=(client,), daemon=True).start()

    def _run(self, client):
        with client, contextlib.suppress(OSError):
            request, outputs, *_ = socket.recv_fds(client, 1 << 20, 2)
            with contextlib.ExitStack() as files:
                out, err = (files.enter_context(os.fdopen(output, "w")) for output in outputs)
                given = json.loads(request)
                with self._lock:
                    process = warm_start.start(**given, stdout=out, stderr=err)
                    self.started.append((process, given["env"]))
                    self.sessions.add(process.pid)
            client.send(str(process.pid).encode())
            while (code := self._poll(process)) is None:
                time.sleep(0.005)
            client.send(str(code).encode())

    def _poll(self, process):
        with self._lock:
            return process.poll()
