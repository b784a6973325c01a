"""Cost of a run's records: time of a training step with all records compared with none.

python benchmarks/logging_overhead.py [--steps 20] [--rounds 5] [--threads 1]

A small VRT trains on the CPU on random frames, in one process. Blocks of steps with and without records alternate; the
first block of each is not counted. With records, every step writes a line to train.log and metrics.jsonl, and scalars
to TensorBoard and W&B (offline). A real training does so only every train.checkpoint_print steps. Output: medians over
all steps, their difference, and the time inside the calls, which a busy machine disturbs less.
"""

import argparse
import json
import logging
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "unit"))
from tiny_network import tiny

from models.network_vrt import VRT
from options.schema import LoggingOpt
from utils.utils_dist import Dist
from utils.utils_logger import Run, Stopwatch, train_line

LOG = logging.getLogger("spikevrt")
NETWORK = tiny(
    depth=2, width=16, heads=2, in_chans=4, mlp_ratio=2.0, deformable_groups=2, optical_flow="spynet_quarter"
)


class Loop:
    """A training loop on random frames, with optional records."""

    def __init__(self, run: Run) -> None:
        torch.manual_seed(0)
        self.run, self.step, self.watch = run, 0, Stopwatch(10**6)
        self.net = VRT(**NETWORK)
        self.optimizer = torch.optim.Adam(self.net.parameters(), 1e-4)
        self.lq, self.gt = torch.rand(1, 2, 4, 32, 32), torch.rand(1, 2, 3, 32, 32)

    def one(self, recorded: bool) -> tuple[float, float]:
        """Train one step; returns its seconds, and those spent on records."""
        start = time.perf_counter()
        self.watch.data_ready(start)
        self.optimizer.zero_grad(set_to_none=True)
        loss = (self.net(self.lq) - self.gt).square().mean()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        trained = time.perf_counter()
        if recorded:
            values = {"G_loss": loss.item(), "grad_norm": norm.item(), "lr": 1e-4, "skipped": 0}
            values |= self.watch.report(self.step)
            LOG.info(train_line(0, self.step, values))
            self.run.log(self.step, "train", values)
        end = time.perf_counter()
        return end - start, end - trained


def measure(folder: Path, steps: int, rounds: int) -> dict[str, float]:
    """Medians in milliseconds, and the overhead in percent."""
    opt = LoggingOpt(use_tensorboard=True, use_wandb=True, wandb_mode="offline")
    run = Run(folder / "run", opt, Dist(), {})
    run.begin(0)
    loop = Loop(run)
    times: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for index in range(rounds + 1):
        for recorded in (True, False) if index % 2 else (False, True):
            block = [loop.one(recorded) for _ in range(steps)]
            times[recorded] += block if index else []
    run.close()
    on, off = (1e3 * statistics.median(whole for whole, _ in times[recorded]) for recorded in (True, False))
    calls = 1e3 * statistics.median(part for _, part in times[True])
    return {
        "step_ms": off,
        "step_with_records_ms": on,
        "difference_percent": 100 * (on - off) / off,
        "calls_ms": calls,
        "calls_percent": 100 * calls / off,
    }


def main() -> None:
    """Measure, print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="steps per block")
    parser.add_argument("--rounds", type=int, default=5, help="blocks of each kind")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), args.steps, args.rounds)
    print("| without records | with all records | difference | inside the calls |")
    print("|---|---|---|---|")
    print(
        f"| {found['step_ms']:.2f} ms | {found['step_with_records_ms']:.2f} ms | {found['difference_percent']:+.2f} % "
        f"| {found['calls_ms']:.2f} ms, {found['calls_percent']:.2f} % |"
    )
    facts = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__, **vars(args)}
    print(json.dumps({**facts, **{key: round(value, 3) for key, value in found.items()}}))


if __name__ == "__main__":
    main()
