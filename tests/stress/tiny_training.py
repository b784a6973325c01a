"""A tiny data set and runs of main_train_vrt.py on it in processes of their own, for the stress programs beside."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
from tiny_network import TRAINED

from scripts.data_preparation.make_demo_dataset import Recipe, build
from utils.utils_error import UserError

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 180.0  # seconds until a process that neither goes on nor ends counts as hanging
WORKER = "pt_data_worker"  # what PyTorch calls its reading processes
NOT_PASSED_ON = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "WANDB_API_KEY")
STEP_LINE = re.compile(r"<epoch:.*?iter:\s*([\d,]+)")
RESUMED = re.compile(r"resumed from step (\d+)")
TRAIN: dict[str, Any] = {
    "E_decay": 0.9,
    "G_optimizer_lr": 1e-3,
    "checkpoint_print": 1,
    "checkpoint_save": 5,
    "keep_checkpoints": 3,
    "manual_seed": 3,
    "fix_keys": ["spynet"],
}


def make_data(root: Path) -> Path:
    """Make three clips of 4 frames, 48x64 pixels, and return their folder."""
    build(root, Recipe(height=48, width=64, frames=4, train_clips=2, test_clips=1))
    return root


def _dataset(data: Path, split: str) -> dict[str, Any]:
    return {
        "dataset_type": f"VideoRecurrent{split.title()}DatasetRGBSpike",
        "dataroot_gt": str(data / f"{split}_GT"),
        "dataroot_lq": str(data / f"{split}_GT_blurred"),
        "dataroot_spike": str(data / f"GOPRO_Large_spike_seq/{split}"),
        "num_frame": 2,
        "gt_size": 32,
        "dataloader_num_workers": 1,
    }


class Start:
    """One start of a run: a process in a group of its own that writes all it says to a file."""

    def __init__(self, command: list[str], folder: Path, log: Path, env: Mapping[str, str]) -> None:
        self.log, self.began = log, time.monotonic()
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command, cwd=folder, env=env, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def said(self) -> str:
        """All that the run has said so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def resumed(self) -> int:
        """The step that this start went on from."""
        found = RESUMED.search(self.said)
        return int(found[1]) if found else 0

    @property
    def step(self) -> int:
        """The last step that this start has finished; -1 before the first."""
        found = STEP_LINE.findall(self.said)
        return int(found[-1].replace(",", "")) if found else -1

    def workers(self) -> list[int]:
        """Process ids of the run's reading processes."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
            except OSError:
                continue  # it has ended meanwhile
            session = int(rest.split()[3])
            if session == self.process.pid and name == WORKER:
                found.append(int(stat.parent.name))
        return found

    def wait_for(self, condition: Callable[[], object], pause: float = 0.01) -> bool:
        """Wait until `condition` holds, which gives True, or until the process ends, which gives False.

        Raises:
            UserError: neither happens.
        """
        end = time.monotonic() + PATIENCE
        while not condition():
            if self.process.poll() is not None:
                return False
            if time.monotonic() > end:
                self.kill()
                raise UserError(f"{self.log}: nothing happened for {PATIENCE:g} s, expected a step or an end; read it")
            time.sleep(pause)
        return True

    def pause(self) -> None:
        """Stop the main process where it is; returns when it stands still."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def kill(self) -> None:
        """kill -9 for the main process; what it leaves behind is killed as well."""
        self.process.kill()
        self.process.wait()
        self.clear()

    def clear(self) -> None:
        """kill -9 for the processes that an ended main process has left behind."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def end(self) -> int:
        """Wait for the end and return the exit code."""
        self.wait_for(lambda: False, 0.05)
        self.clear()
        return self.process.returncode


class TinyTraining:
    """A folder with an option file, and the runs of it.

    Args:
        folder: where it lies; made if it is absent.
        data: of `make_data`.
        train: what differs from `TRAIN`.
    """

    def __init__(self, folder: Path, data: Path, train: Mapping[str, Any]) -> None:
        self.folder, self.run_dir = folder, folder / "experiments/tiny"
        self.models, self.starts = self.run_dir / "models", 0
        folder.mkdir(parents=True, exist_ok=True)
        blocks = {
            "path": {"root": "experiments"},  # relative: runs in several folders have equal options
            "datasets": {split: _dataset(data, split) for split in ("train", "test")},
            "netG": TRAINED,
            "train": {**TRAIN, **train},
            "logging": {"use_tensorboard": False},
        }
        (folder / "tiny.json").write_text(json.dumps({"task": "tiny", **blocks}), encoding="utf-8")

    def start(self, log: Path | None = None) -> Start:
        """Start the run, or go on with it: always the same command, on the CPU."""
        self.starts += 1
        env = {key: value for key, value in os.environ.items() if key not in NOT_PASSED_ON}
        env |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, str(ROOT / "main_train_vrt.py"), "--opt", "tiny.json"]
        return Start(command, self.folder, log or self.folder / f"start_{self.starts:03d}.log", env)

    def temporary_files(self) -> set[str]:
        """Names of the files in models/ that are not yet, or never became, part of a checkpoint."""
        try:
            return {entry.name for entry in os.scandir(self.models) if ".tmp" in entry.name}
        except FileNotFoundError:
            return set()

    def sets(self) -> dict[int, set[str]]:
        """Kinds of files of each checkpoint set that lies in models/, by step."""
        found: dict[int, set[str]] = {}
        for path in self.models.glob("[0-9]*_*.pth"):
            step, _, kind = path.stem.partition("_")
            found.setdefault(int(step), set()).add(kind)
        return found

    def metrics(self, split: str) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl of "train" or "test"."""
        lines = (self.run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [line for line in map(json.loads, lines) if line["split"] == split]
