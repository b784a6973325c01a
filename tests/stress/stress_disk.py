"""What a training run says, and what survives, when the disk is full or read-only and when checkpoints are damaged.

python tests/stress/stress_disk.py [--keep DIR]

A tiny network is trained on the CPU on a small file system of its own (Linux, a tmpfs: as root, or after
`unshare --user --map-root-user --mount`). Each case ends with the same command going on to the last step. Prints a
table: case, exit code, what was said, what survived. Exit code 0: all as it should be, 1: something is not.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tiny_training import Start, TinyTraining, make_data

from utils import utils_checkpoint, utils_cli
from utils.utils_error import UserError

TRAIN = {"total_iter": 20, "checkpoint_save": 5, "checkpoint_test": 20, "keep_checkpoints": 0, "fix_iter": 5}
EVERY = ("total_iter", "checkpoint_save", "checkpoint_test")
STEPS = (5, 10, 15)  # of the sets that lie there before a case
SMALL, LARGE = "90m", "400m"  # room for three sets of 25 MB but not for four; room for all
TELLING = ("error:", "failure:", "resumed", "whole", "checkpoint ", "refused", "damaged", "written", "without it")


@dataclass
class Case:
    """One mishap and its end; `wrong` are the expectations that did not come true."""

    name: str
    code: int = 0
    said: list[str] = field(default_factory=list)
    survived: str = ""
    wrong: list[str] = field(default_factory=list)

    def expect(self, holds: object, what: str) -> None:
        """Take down what does not hold."""
        if not holds:
            self.wrong.append(what)

    def take(self, start: Start, code: int) -> None:
        """Take down how a start has ended and what it has said that matters."""
        self.code = code
        lines = [line for line in start.said.splitlines() if "<epoch" not in line and any(t in line for t in TELLING)]
        self.said += [line.split(" : ", 1)[-1] for line in lines if not line.endswith("(train.memory)")]

    def go_on(self, training: TinyTraining, log: Path, since: int) -> None:
        """Start the run again: it has to go on from step `since` to its end."""
        start = training.start(log)
        code = start.end()
        self.expect(code == 0, f"the same command ends with {code}, expected 0: {start.said[-300:]}")
        self.expect(start.resumed == since, f"goes on from step {start.resumed}, expected {since}")
        self.expect(20 in whole_sets(training), "there is no whole set of the last step")
        self.survived += f"; the same command goes on from step {start.resumed} to its end"


def mount(*words: str) -> None:
    """Run mount(8).

    Raises:
        UserError: it is not permitted.
    """
    done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(
            f"mount {' '.join(words)}: {done.stderr.strip()}; run this as root, or put "
            "`unshare --user --map-root-user --mount` before the command"
        )


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of a few megabytes at `folder`, gone at the end."""
    folder.mkdir()
    mount("-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def whole_sets(training: TinyTraining) -> list[int]:
    """Steps whose three files are there and can be read."""
    found = []
    for step, kinds in sorted(training.sets().items()):
        try:
            for kind in ("G", "E", "state"):
                utils_checkpoint.read_file(training.models / f"{step}_{kind}.pth")
        except UserError:
            continue
        found += [step] if len(kinds) == len(("G", "E", "state")) else []
    return found


def files(training: TinyTraining) -> dict[str, bytes]:
    """Content of all checkpoint files."""
    return {path.name: path.read_bytes() for path in training.models.glob("[0-9]*.pth")}


def full_disk(folder: Path, data: Path) -> Case:
    """The file system fills up in the middle of a checkpoint; then there is room again."""
    case = Case("the disk is full")
    with small_disk(folder / "full") as disk:
        training = TinyTraining(disk / "run", data, TRAIN)
        start = training.start(folder / "full_1.log")
        case.take(start, start.end())
        whole = whole_sets(training)
        case.expect(case.code > 0, f"ends with {case.code}, expected 1 or more")
        case.expect(whole and set(training.sets()) == set(whole), f"sets {training.sets()}, whole are {whole}")
        case.expect(" space" in start.said, "does not say that there is no space left")
        case.expect("Traceback" not in start.said, "shows a traceback")
        case.expect(not training.temporary_files(), f"leaves {training.temporary_files()} behind")
        case.survived = f"sets {whole}, all whole"
        mount("-o", f"remount,size={LARGE}", str(disk))
        case.go_on(training, folder / "full_2.log", max(whole, default=0))
    return case


def no_room_for_logs(folder: Path, data: Path) -> Case:
    """Something else fills the file system while the run only writes its records; there is room for the checkpoint."""
    case = Case("no room for the records")
    with small_disk(folder / "logs") as disk:
        training = TinyTraining(disk / "run", data, {**TRAIN, **dict.fromkeys(EVERY, 50)})
        start = training.start(folder / "logs_1.log")
        start.wait_for(lambda: start.step >= 1)
        with suppress(OSError), (disk / "other").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        case.expect(start.wait_for(lambda: start.step >= 40), "training ends")  # a page of records is full by then
        (disk / "other").unlink()
        case.take(start, start.end())
        case.expect(case.code == 0, f"ends with {case.code}, expected 0: {start.said[-300:]}")
        case.expect("Traceback" not in start.said, "shows a traceback")
        case.expect(whole_sets(training) == [50], f"whole sets are {whole_sets(training)}, expected the last one")
        recorded = {line["step"] for line in training.metrics("train")}
        case.expect(0 < len(recorded) < 50, f"{len(recorded)} steps are recorded: the disk was not full")
        case.survived = f"sets {whole_sets(training)}; records of {len(recorded)} of 50 steps"
    return case


def read_only(folder: Path, data: Path, finished: TinyTraining) -> Case:
    """The run's folder cannot be written to when the run is started again."""
    case = Case("the folder is read-only")
    with small_disk(folder / "readonly") as disk:
        mount("-o", f"remount,size={LARGE}", str(disk))
        training = TinyTraining(disk / "run", data, TRAIN)
        shutil.copytree(finished.run_dir, training.run_dir)
        before = files(training)
        mount("-o", "remount,ro", str(disk))
        start = training.start(folder / "readonly_1.log")
        case.take(start, start.end())
        case.expect(case.code > 0, f"ends with {case.code}, expected 1 or more")
        case.expect("Read-only" in start.said, "does not say that the file system is read-only")
        case.expect("Traceback" not in start.said, "shows a traceback")
        case.expect(files(training) == before, "a checkpoint has changed")
        case.survived = f"sets {whole_sets(training)}, not a byte changed"
        mount("-o", "remount,rw", str(disk))
        case.go_on(training, folder / "readonly_2.log", STEPS[-1])
    return case


def truncate(path: Path, _: Path) -> None:
    """Cut a file in half."""
    os.truncate(path, path.stat().st_size // 2)


def flip_bit(path: Path, _: Path) -> None:
    """Turn one bit over in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


class Payload:
    """An object whose unpickling makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.marker),)


def plant(path: Path, marker: Path) -> None:
    """Put code into a checkpoint that runs when it is unpickled without care."""
    content = utils_checkpoint.read_file(path)
    utils_checkpoint.write_file({**content, "more": Payload(marker)}, path)


def damaged(
    name: str, folder: Path, data: Path, finished: TinyTraining, kind: str, damage: Callable[[Path, Path], None]
) -> Case:
    """A file of the newest set is damaged: the set before has to be used, and that has to be said."""
    case = Case(name)
    place = folder / name.replace(" ", "_")
    training, marker = TinyTraining(place, data, TRAIN), place / "payload_has_run"
    shutil.copytree(finished.run_dir, training.run_dir)
    damage(training.models / f"{STEPS[-1]}_{kind}.pth", marker)
    start = training.start()
    case.take(start, start.end())
    case.expect(case.code == 0, f"ends with {case.code}, expected 0")
    case.expect(start.resumed == STEPS[-2], f"goes on from step {start.resumed}, expected {STEPS[-2]}")
    named = [line for line in case.said if f"{STEPS[-1]}_{kind}.pth" in line or f"checkpoint {STEPS[-1]} " in line]
    case.expect(named, "does not name the damaged set")
    case.expect(not marker.exists(), "THE PAYLOAD HAS RUN")
    case.survived = f"goes on from step {start.resumed} to its end; sets {whole_sets(training)}"
    case.survived += "; the payload has not run" if kind == "state" and not marker.exists() else ""
    return case


def run_cases(folder: Path) -> Iterator[Case]:
    """All cases, one after the other."""
    data = make_data(folder / "data")
    finished = TinyTraining(folder / "finished", data, TRAIN)
    start = finished.start()
    if not start.wait_for(lambda: start.step > STEPS[-1]):
        raise UserError(f"{start.log}: the run without any mishap ended too soon; read it")
    start.kill()
    yield full_disk(folder, data)
    yield no_room_for_logs(folder, data)
    yield read_only(folder, data, finished)
    yield damaged("a truncated checkpoint", folder, data, finished, "G", truncate)
    yield damaged("a flipped bit in a checkpoint", folder, data, finished, "E", flip_bit)
    yield damaged("a checkpoint with code in it", folder, data, finished, "state", plant)


def show(case: Case) -> None:
    """Print a case: each column in lines of its own where it is long."""
    print(f"\n{case.name} | exit code {case.code} | {'WRONG' if case.wrong else 'as it should be'}")
    rows = [("said", line) for line in case.said] + [("survived", case.survived)]
    rows += [("WRONG", wrong) for wrong in case.wrong]
    for name, text in rows:
        print(textwrap.fill(text, 118, initial_indent=f"  {name:9} ", subsequent_indent=" " * 12))


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = utils_cli.Parser(description=__doc__)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep what the runs said in this new folder")
    parser.add_common()
    return parser.parse_args()


def main(args: argparse.Namespace) -> int:
    """Run all cases, print them and return the exit code."""
    if args.keep is not None and args.keep.exists():
        raise UserError(f"--keep {args.keep}: exists already, expected a new folder; name another one")
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="stress_disk_") as temporary:
        folder = (args.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        for case in run_cases(folder):
            show(case)
            wrong += bool(case.wrong)
    print(f"\n{wrong} case(s) not as they should be" if wrong else "\nall as it should be")
    return int(wrong > 0)


if __name__ == "__main__":
    arguments = parse_args()
    with utils_cli.program(arguments.debug):
        raise SystemExit(main(arguments))
