"""Heartbeats between processes: notice when one is gone, where NCCL would wait for hours."""

import atexit
import contextlib
import os
import sys
import threading
import uuid
from datetime import timedelta

import torch.distributed as torch_dist

from utils.processes import signals

INTERVAL = 1.0  # seconds between heartbeats
MISSES = 45  # missed heartbeats after which a process counts as gone
STOP = b"stop"  # in the heartbeats of a process that was asked to stop


class Heartbeat:
    """Threads that write heartbeats to the group's store and end this process when another one falls silent.

    Heartbeats also carry requests to stop, so that all processes hear of them without waiting for each other. Misses
    are counted in looks, not time, so a machine that was suspended does not find the others dead. All processes
    construct this at the same point.
    """

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank, self.others = rank, [other for other in range(world_size) if other != rank]
        runs: list[str] = [""] * world_size
        torch_dist.all_gather_object(runs, uuid.uuid4().hex)  # after a restart the store may be the old one
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        timeout = timedelta(seconds=INTERVAL * MISSES)
        store = torch_dist.TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timeout)
        self.store = torch_dist.PrefixStore(f"heartbeat/{runs[0]}", store)
        self.store.set(str(rank), "0")
        torch_dist.barrier()  # from here on every key exists
        self._last: list[bytes] = [b""] * len(self.others)
        self._is_asked = False
        self._stop = threading.Event()
        self._talker = threading.Thread(target=self._talk, name="heartbeat", daemon=True)
        self._talker.start()
        threading.Thread(target=self._watch, name="heartbeat watch", daemon=True).start()
        atexit.register(self._stop_talker)

    def pass_on(self, is_asked: bool) -> bool:
        """Pass a request to stop on to the others; returns whether any process is known to have one."""
        self._is_asked = self._is_asked or is_asked
        return self._is_asked or any(STOP in sign for sign in self._last)

    def close(self) -> None:
        """Wait for all processes to get here, then end the heartbeats."""
        torch_dist.barrier()
        self._stop.set()
        self._talker.join()
        torch_dist.barrier()  # all are silent now, so process 0 may take the store down with it

    def _stop_talker(self) -> None:
        """End the talker before the interpreter exits: a thread inside the store would abort the process."""
        self._stop.set()
        self._talker.join(timeout=INTERVAL)

    def _talk(self) -> None:
        """Exchange heartbeats until the store is gone; a call blocks for long if the store's machine is silent."""
        beats, keys = 0, [str(other) for other in self.others]
        with contextlib.suppress(torch_dist.DistError):
            while not self._stop.wait(INTERVAL):
                beats += 1
                is_asked = self._is_asked or signals.is_asked()  # the main thread may be waiting for the others
                self.store.set(str(self.rank), f"{beats} {STOP.decode() * is_asked}")
                self._last = self.store.multi_get(keys)

    def _watch(self) -> None:
        before, missed = self._last, [0] * len(self.others)
        while not self._stop.wait(INTERVAL):
            now = self._last
            for place, other in enumerate(self.others):
                missed[place] = missed[place] + 1 if now[place] == before[place] else 0
                if missed[place] > MISSES:
                    self._end(other)
            before = now

    def _end(self, other: int) -> None:
        seconds = INTERVAL * MISSES
        # One write, as other processes may write to the same place at this moment.
        sys.stderr.write(
            f"failure: process {other} has been silent for {seconds:g} s: it ended, or its machine or network failed; "
            f"process {self.rank} stops as well\n"
        )
        sys.stderr.flush()
        signals.end_children()
        os._exit(1)
