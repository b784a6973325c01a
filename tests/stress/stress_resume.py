"""Kill a training run again and again and compare its end with that of a run which nobody disturbed.

python tests/stress/stress_resume.py [--kills 50] [--seed S] [--steps N] [--keep DIR]

A tiny network is trained on a tiny data set on the CPU (Linux). Kills (kill -9) come at random moments: half of them
hit the main process, a quarter the main process inside the write of a checkpoint, a quarter a process that reads data.
After each the same command is started again. At the end every weight, moving average, optimizer moment and score must
equal those of the undisturbed run bit for bit. The last line is JSON; exit code 0: equal, 1: different, 2: no answer.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tiny_training import Start, TinyTraining, make_data

from utils import utils_checkpoint, utils_cli
from utils.utils_error import UserError

KINDS = ("main", "write", "worker", "main")  # in this proportion
STEPS_A_KILL, SPARE_STEPS = 6, 20
START_SHARE, START_SECONDS = 0.15, 4.0  # of the kills of the main process those that hit its start
NAMED_SHARE = 0.5  # of the kills inside a write those after the first file has got its name
AFTER_STEP_SECONDS = 0.4
SAVE_EVERY, TEST_EVERY = 4, 8


class Assailant:
    """Kills a run and counts what that cost.

    Args:
        training: the run.
        rng: draws the moments.
    """

    def __init__(self, training: TinyTraining, rng: random.Random) -> None:
        self.training, self.rng = training, rng
        self.kills = dict.fromkeys(KINDS, 0)
        self.lost: list[int] = []
        self.exits: list[int] = []
        self.resumes = self.half_written = self.named_damage = 0
        self._half = set[int]()
        self._reached = 0  # the last step that any start has finished

    def strike(self, kind: str, step: int) -> bool:
        """Start the run and kill it in the way of `kind`, not before `step` is finished; False where it ended first."""
        start = self.training.start()
        hit = self._hit(kind, start, step)
        self._account(start)
        self.kills[kind] += hit
        return hit

    def finish(self) -> int:
        """Start the run and leave it in peace; returns the exit code."""
        start = self.training.start()
        code = start.end()
        self._account(start)
        return code

    def _hit(self, kind: str, start: Start, step: int) -> bool:
        if kind == "main" and self.rng.random() < START_SHARE:
            moment = start.began + self.rng.uniform(0, START_SECONDS)
            alive = start.wait_for(lambda: time.monotonic() > moment)
            start.kill()
            return alive
        if not start.wait_for(lambda: start.step >= max(step, start.resumed + 1)):
            return False
        if kind == "write":
            return self._hit_write(start)
        moment = time.monotonic() + self.rng.uniform(0, AFTER_STEP_SECONDS)
        alive = start.wait_for(lambda: time.monotonic() > moment)
        if kind == "main" or not alive:
            start.kill()
            return alive
        return self._hit_worker(start)

    def _hit_write(self, start: Start) -> bool:
        """Kill while a temporary file of a checkpoint lies in models/.

        Chance decides how many files of the set are begun by then, and whether some have got their names already.
        """
        before, seen = self.training.temporary_files(), set[str]()
        wanted, named = self.rng.randint(1, 3), self.rng.random() < NAMED_SHARE

        def writing() -> bool:
            now = self.training.temporary_files() - before
            seen.update(now)
            return bool(now) and len(seen) >= wanted and (not named or len(now) < len(seen))

        while start.wait_for(writing, pause=0.001):
            start.pause()
            if self.training.temporary_files() - before:
                start.kill()
                return True
            start.process.send_signal(signal.SIGCONT)  # the file was finished in between
        return False

    def _hit_worker(self, start: Start) -> bool:
        if not start.wait_for(start.workers):
            return False
        os.kill(self.rng.choice(start.workers()), signal.SIGKILL)
        code = start.end()
        self.exits.append(code)
        if code <= 0:
            raise UserError(f"{start.log}: ended with {code} after its worker was killed, expected 1 or more; read it")
        return True

    def _account(self, start: Start) -> None:
        """Take down what a start has cost; `lost` are the steps that it had to repeat."""
        if start.resumed or start.step > 0:
            self.resumes += start.resumed > 0
            if self._reached:
                self.lost.append(self._reached - start.resumed)
            self._reached = max(start.step, start.resumed)
        half = {step for step, kinds in self.training.sets().items() if len(kinds) < 3}
        self.half_written += len(half - self._half)
        self._half = half
        self.named_damage += start.said.count("not whole")


def differences(one: Any, other: Any, place: str = "") -> Iterator[str]:
    """Places where two trees of dicts, sequences, tensors and values are not equal to the last bit."""
    if type(one) is not type(other):
        yield f"{place}: {type(one).__name__} and {type(other).__name__}"
    elif isinstance(one, torch.Tensor):
        if one.dtype != other.dtype or not torch.equal(one, other):
            yield f"{place}: tensors differ"
    elif isinstance(one, dict):
        yield from (f"{place} {key}: in one of them only" for key in sorted(one.keys() ^ other.keys(), key=str))
        for key in (key for key in one if key in other):
            yield from differences(one[key], other[key], f"{place} {key}".strip())
    elif isinstance(one, list | tuple):
        if len(one) != len(other):
            yield f"{place}: {len(one)} and {len(other)} entries"
        for index, pair in enumerate(zip(one, other, strict=False)):
            yield from differences(*pair, f"{place}[{index}]")
    elif one != other:
        yield f"{place}: {one!r} and {other!r}"


def outcome(training: TinyTraining, step: int) -> dict[str, Any]:
    """All that must be equal at the end: weights, averages, optimizer, best weights and all numbers of the records.

    Of a step that was run several times each different number counts.
    """
    names = (f"{step}_G.pth", f"{step}_E.pth", f"{step}_state.pth", "best_G.pth")
    found = {name: utils_checkpoint.read_file(training.models / name) for name in names}
    numbers: dict[str, set[tuple[float, ...]]] = {}
    for line in training.metrics("train"):
        numbers.setdefault(f"train {line['step']}", set()).add(
            tuple(line[key] for key in ("G_loss", "grad_norm", "lr"))
        )
    for line in training.metrics("test"):
        scores = tuple(line[key] for key in sorted(line) if key not in ("step", "split"))
        numbers.setdefault(f"test {line['step']}", set()).add(scores)
    best = json.loads((training.models / "best.json").read_text(encoding="utf-8"))
    return {**found, "best.json": best, "metrics.jsonl": numbers}


def stress(folder: Path, kills: int, steps: int, seed: int) -> tuple[list[str], dict[str, Any]]:
    """Train undisturbed and, at the same time, under attack.

    Returns:
        Differences of the two ends, and what happened.

    Raises:
        UserError: a run fails or hangs by itself, or the end comes before all kills.
    """
    began, rng = time.monotonic(), random.Random(seed)
    order = [KINDS[index % len(KINDS)] for index in range(kills)]
    rng.shuffle(order)
    data = make_data(folder / "data")
    train = {"total_iter": steps, "fix_iter": steps // 3, "checkpoint_save": SAVE_EVERY, "checkpoint_test": TEST_EVERY}
    straight, attacked = (TinyTraining(folder / name, data, train) for name in ("straight", "attacked"))
    undisturbed = straight.start()
    try:
        assailant = Assailant(attacked, rng)
        for index, kind in enumerate(order):
            print(f"kill {index + 1} of {kills}: {kind}", flush=True)
            if not assailant.strike(kind, SAVE_EVERY + 1 + index * (steps - SPARE_STEPS) // kills):
                raise UserError(
                    f"--steps {steps}: the run ended before kill {index + 1} of {kills}, or failed; give more "
                    f"steps or read {attacked.folder}/start_{attacked.starts:03d}.log"
                )
        for run, code in ((attacked, assailant.finish()), (straight, undisturbed.end())):
            if code != 0:
                raise UserError(f"{run.folder}: the run ended with {code}, expected 0; read its start_*.log")
    finally:
        undisturbed.kill()
    found = list(differences(outcome(straight, steps), outcome(attacked, steps)))
    found += [f"models/: set {step} has only {kinds}" for step, kinds in attacked.sets().items() if len(kinds) < 3]
    if max(assailant.lost, default=0) > SAVE_EVERY:
        found.append(f"{max(assailant.lost)} steps had to be repeated after a kill, expected {SAVE_EVERY} at most")
    summary = {
        "kills": assailant.kills,
        "resumes": assailant.resumes,
        "steps": steps,
        "steps_repeated": sum(assailant.lost),
        "steps_repeated_at_most": max(assailant.lost, default=0),
        "half_written_sets": assailant.half_written,
        "damaged_sets_named": assailant.named_damage,
        "exit_codes_after_a_dead_worker": sorted(set(assailant.exits)),
        "temporary_files_left": len(attacked.temporary_files()),
        "differences": len(found),
        "seconds": round(time.monotonic() - began, 1),
    }
    return found, summary


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = utils_cli.Parser(description=__doc__)
    parser.add_argument("--kills", type=utils_cli.positive, default=50, help="how often the run is killed")
    parser.add_argument("--seed", type=int, default=0, help="decides kinds and moments of the kills")
    parser.add_argument("--steps", type=utils_cli.positive, help="length of the run; not given: by the kills")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep both runs and all they said in this new folder")
    parser.add_common()
    return parser.parse_args()


def main(args: argparse.Namespace) -> int:
    """Run the attack, print the table and return the exit code."""
    steps = args.steps or args.kills * STEPS_A_KILL + SPARE_STEPS
    if steps <= SPARE_STEPS:
        raise UserError(f"--steps {steps}: leaves no room for kills, expected more than {SPARE_STEPS}")
    if args.keep is not None and args.keep.exists():
        raise UserError(f"--keep {args.keep}: exists already, expected a new folder; name another one")
    with tempfile.TemporaryDirectory(prefix="stress_resume_") as temporary:
        folder = (args.keep or Path(temporary)).resolve()
        found, summary = stress(folder, args.kills, steps, args.seed)
    print("\n" + "\n".join(f"{name.replace('_', ' '):32} {value}" for name, value in summary.items()))
    for difference in found[:20]:
        print(f"DIFFERENT {difference}")
    print("DIFFERENT" if found else "equal to the undisturbed run, bit for bit")
    print(json.dumps(summary))
    return int(bool(found))


if __name__ == "__main__":
    arguments = parse_args()
    with utils_cli.program(arguments.debug):
        raise SystemExit(main(arguments))
