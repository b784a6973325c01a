"""What benchmarks share: runs in turn or in a process of their own, time, memory, and the line of JSON at the end."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "unit"), str(ROOT / "tests" / "reference")]

T = TypeVar("T")


def in_turn(calls: Sequence[Callable[[], T]], rounds: int) -> list[tuple[T, ...]]:
    """Call all in turn, `rounds` times; return the results of each."""
    return list(zip(*([call() for call in calls] for _ in range(rounds)), strict=True))


def in_process(job: dict[str, Any], **environment: str) -> dict[str, Any]:
    """Run this program with `--job` in a process of its own; return the JSON of its last line.

    Raises:
        CalledProcessError: it failed.
    """
    command = [sys.executable, sys.argv[0], "--job", json.dumps(job)]
    done = subprocess.run(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def clock(device: str) -> float:
    """Return the time in seconds, once the device has nothing left to do."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def memory(device: str, *, peak: bool = False) -> int:
    """Return the bytes in use, or the most since `reset_peak`: allocated on CUDA, resident on Linux."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM" if peak else "VmRSS"))


def reset_peak(device: str) -> None:
    """Count the peak of `memory` from here on."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def print_result(benchmark: str, **found: object) -> None:
    """Print the machine and what was found as one line of JSON."""
    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU"
    about = {"machine": machine, "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(json.dumps({"benchmark": benchmark, **about, **found}))
