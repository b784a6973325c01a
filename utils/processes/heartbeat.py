"""Processes that notice when another one is gone, also where nobody tells them: NCCL would wait for hours."""

import atexit
import contextlib
import os
import sys
import threading
import uuid
from datetime import timedelta

import torch.distributed as torch_dist

from utils.processes import signals

INTERVAL = 1.0  # seconds between two signs of life
MISSES = 45  # looks without a new sign of life after which a process counts as gone
STOP = b"stop"  # in the signs of life of a process that was asked to stop


class Heartbeat:
    """Threads that give signs of life in the group's store and end this process when another one gives none.

    The signs say as well whether their process was asked to stop: so all hear of it without waiting for each other.

    Looks are counted, not time: a machine that slept finds nobody dead.

    Args:
        rank: this process.
        world_size: number of processes; all of them construct this at the same point.
    """

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank, self.others = rank, [other for other in range(world_size) if other != rank]
        runs: list[str] = [""] * world_size
        torch_dist.all_gather_object(runs, uuid.uuid4().hex)  # restarted processes may meet the store of those before
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        timeout = timedelta(seconds=INTERVAL * MISSES)
        store = torch_dist.TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timeout)
        self.store = torch_dist.PrefixStore(f"heartbeat/{runs[0]}", store)
        self.store.set(str(rank), "0")
        torch_dist.barrier()  # from here on everybody's key exists
        self._last: list[bytes] = [b""] * len(self.others)
        self._is_asked = False
        self._stop = threading.Event()
        self._talker = threading.Thread(target=self._talk, name="heartbeat", daemon=True)
        self._talker.start()
        threading.Thread(target=self._watch, name="heartbeat watch", daemon=True).start()
        atexit.register(self._fall_silent)

    def pass_on(self, is_asked: bool) -> bool:
        """Tell the others that this process is asked to stop, if it is; whether any process is, as far as known."""
        self._is_asked = self._is_asked or is_asked
        return self._is_asked or any(STOP in sign for sign in self._last)

    def close(self) -> None:
        """Wait until all processes have come here; none of them is missed afterwards."""
        torch_dist.barrier()
        self._stop.set()
        self._talker.join()
        torch_dist.barrier()  # nobody talks any more: process 0 may take the store with it

    def _fall_silent(self) -> None:
        """End the talker before the interpreter does, which aborts the process where a thread is inside the store."""
        self._stop.set()
        self._talker.join(timeout=INTERVAL)

    def _talk(self) -> None:
        """Exchange signs of life until the store is gone; a call waits for long where its machine does not answer."""
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
        # The last words of the process, in one piece: others may write to the same place at that moment.
        sys.stderr.write(
            f"failure: process {other} has given no sign of life for {seconds:g} s: it has ended, or its machine or "
            f"network fails; process {self.rank} stops as well\n"
        )
        sys.stderr.flush()
        signals.end_children()
        os._exit(1)
