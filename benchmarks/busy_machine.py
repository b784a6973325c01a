"""The demo's training step on a busy machine, by number of threads.

python benchmarks/busy_machine.py [--steps 6] [--rounds 3] [--busy 0 1 2]

Each measurement runs in its own process: the network of demo_vrt.json, one random sample, forward and backward
pass and optimizer. Rows: one thread; two threads that spin at the end of an operator (PyTorch's default); two threads
that soon sleep instead (`GOMP_SPINCOUNT`, as the programs set it); and the number that the programs choose by the load
at their start. Columns: seconds per step, medians over all rounds, alone and next to one and two busy processes.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils import utils_option
from utils.processes import thread_count
from utils.utils_cli import Parser

# environment of a row; "": the variable is unset
ROWS: dict[str, dict[str, str]] = {
    "1 thread": {"OMP_NUM_THREADS": "1"},
    "2 threads, spinning": {"OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": ""},
    "2 threads, short spin": {"OMP_NUM_THREADS": "2"},
    "chosen at the start": {},
}
SPIN = "while True: pass"


def train_steps(count: int, load: thread_count.Load) -> dict[str, Any]:
    """Time steps of the demo's training in this process."""
    import torch

    from models.select_model import define_Model
    from options.schema import Opt
    from utils.utils_dist import Dist

    torch.set_num_threads(thread_count.choose(load, torch.get_num_threads()))
    opt = utils_option.load(Path(__file__).parents[1] / "options" / "vrt" / "demo_vrt.json", Opt, [])
    torch.manual_seed(0)
    model = define_Model(opt, Dist())
    sample = {
        "lq": torch.rand(1, 6, 3, 64, 64),
        "spike": torch.rand(1, 6, 1, 64, 64),
        "gt": torch.rand(1, 6, 3, 64, 64),
    }
    model.train_step([sample], 0)
    seconds = []
    for step in range(1, count + 1):
        began = time.perf_counter()
        model.train_step([sample], step)
        seconds.append(time.perf_counter() - began)
    return {"seconds": seconds, "threads": torch.get_num_threads()}


def measure(row: str, steps: int) -> dict[str, Any]:
    """Run `train_steps` in a separate process."""
    env = {key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "GOMP_SPINCOUNT")}
    env |= {key: value for key, value in ({"GOMP_SPINCOUNT": "5000"} | ROWS[row]).items() if value}
    command = [sys.executable, __file__, "--child", "--steps", str(steps)]
    out = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
    return json.loads(out.splitlines()[-1])


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep `count` other processes busy."""
    others = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def step_table(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Measure and print seconds per step for every row and load, alternating."""
    times: dict[tuple[str, int], list[float]] = {(row, count): [] for row in ROWS for count in args.busy}
    threads: dict[int, int] = {}
    for _ in range(args.rounds):
        for row, count in times:
            with busy(count):
                found = measure(row, args.steps)
            times[row, count] += found["seconds"]
            if not ROWS[row]:
                threads[count] = found["threads"]
    medians = {row: {str(count): round(statistics.median(times[row, count]), 3) for count in args.busy} for row in ROWS}
    print("| s per step | " + " | ".join(f"{count} busy" if count else "alone" for count in args.busy) + " |")
    print("|---" * (len(args.busy) + 1) + "|")
    for row, seconds in medians.items():
        chosen = {str(count): f" ({number})" for count, number in threads.items()} if not ROWS[row] else {}
        cells = (f"{value:.2f}{chosen.get(count, '')}" for count, value in seconds.items())
        print(f"| {row} | " + " | ".join(cells) + " |")
    return medians


def main() -> None:
    """Measure, print the tables and one line of JSON."""
    parser = Parser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6, help="steps timed per process")
    parser.add_argument("--rounds", type=int, default=3, help="times that each measurement is repeated")
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2], help="numbers of busy processes")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(train_steps(args.steps, thread_count.Load())))
        return
    medians = step_table(args)
    machine = {"machine": platform.processor() or platform.machine(), "cores": thread_count.usable_cores()}
    print(json.dumps({"benchmark": "busy_machine", **machine, "step_seconds": medians}))


if __name__ == "__main__":
    main()
