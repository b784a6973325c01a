"""Ports for processes that a test starts."""

import contextlib
import random
import socket


def free_port():
    """A port of this machine that nobody uses, from below those that the system gives to connections."""
    for port in random.SystemRandom().sample(range(20000, 32000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return str(port)
    raise AssertionError("no free port")
