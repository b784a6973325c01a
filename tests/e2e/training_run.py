"""Runs of main_train_vrt.py in processes of their own, on a tiny network and a tiny data set."""

import contextlib
import json
import os
import signal
import time
import uuid
from pathlib import Path

import cv2
import torch
import warm_start
from ports import free_port
from tiny_network import TRAINED
from tiny_set import make_set, options
from warm_python import WarmPython

from utils.checkpoint import run_checkpoints
from utils.utils_image import read_rgb, write_rgb

ROOT = Path(__file__).resolve().parents[2]
TAG = "SPIKEVRT_TEST_RUN"  # marks all processes of a run in their environment
PATIENCE = 300.0  # seconds; a run that takes longer hangs, however busy the machine is
STARTED = set()  # trainings of which a test has started runs
OTHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "WANDB_API_KEY")
TRAIN = {
    "E_decay": 0.9,
    "G_optimizer_lr": 1e-3,
    "total_iter": 8,
    "checkpoint_print": 1,
    "checkpoint_save": 2,
    "checkpoint_test": 4,
    "keep_checkpoints": 0,
    "manual_seed": 3,
}
FIX = {"fix_iter": 5, "fix_keys": ["spynet"]}
LOADER = {"dataloader_num_workers": 1, "num_frame": 2, "gt_size": 32}
# A network whose step costs a tenth of the VRT's: where a test is about processes, and any network does.
GUIDE = {"net_type": "guide", "guide": {"width": 4, "blocks": [1, 1]}}
MOMENT = {"spike": {"representation": "moment", "planes": 5, "edge": "mirror"}, "spike_channels": 7}


def make_blurred_set(root, **more):
    """A tiny set whose blurred frames differ from the sharp ones; other arguments are make_set's."""
    for path in (make_set(root, **more) / "lq").glob("*/*.png"):
        write_rgb(path, cv2.blur(read_rgb(path), (1, 5)))
    return root


class Training:
    """A folder with an option file, and the runs of it.

    Args:
        folder: where it lies; made if it is absent.
        data: of `make_set`.
        guide: train the guide alone.
        changes: replace whole blocks of the options.
    """

    def __init__(self, folder, data, guide=False, **changes):
        self.folder, self.config = folder, folder / "tiny.json"
        self.run_dir, self.models = folder / "experiments/tiny", folder / "experiments/tiny/models"
        self.tag, self.sessions, self._python = uuid.uuid4().hex, set(), None
        folder.mkdir(exist_ok=True)
        planes = MOMENT if guide else {}
        train, test = options(data, "Train", **LOADER, **planes), options(data, "Test", **planes)
        blocks = {
            "path": {"root": str(folder / "experiments")},
            "datasets": {"train": given(train), "test": given(test)},
            "netG": GUIDE if guide else TRAINED,
            "train": TRAIN if guide else TRAIN | FIX,
            "val": {"metrics": ["psnr", "ssim"]},
        }
        self.config.write_text(json.dumps({"task": "tiny", **blocks, **changes}))

    def start(self, *overrides, program=ROOT / "main_train_vrt.py", torchrun=(), new=False, flags=(), **env):
        """Start a run on the CPU, all in a session of its own.

        Args:
            overrides: those of --set.
            program: what to start.
            torchrun: arguments of torchrun, which then starts the program.
            new: torchrun starts new Pythons, not such as have their imports behind them.
            flags: more words for the program.
            env: more variables.
        """
        clean = {key: value for key, value in os.environ.items() if key not in OTHERS}
        own = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", TAG: self.tag}
        command = [str(ROOT / "scripts/torchrun.py"), *torchrun] if torchrun else []
        command += [str(program), "--opt", str(self.config), *flags, *(["--set", *overrides] if overrides else [])]
        where = {"cwd": self.folder, "env": clean | own | env}
        if torchrun and not new:
            where["env"] |= self.python().env
        process = warm_start.start(command, **where)
        self.sessions.add(process.pid)
        STARTED.add(self)
        return process

    def python(self):
        """The Python that torchrun's processes are started with, and what it has started."""
        if self._python is None:
            self._python = WarmPython(self.folder, self.sessions)
        return self._python

    def start_as_a_platform_does(self, processes, *overrides, **more):
        """Start processes without torchrun, by the variables that a platform sets."""
        shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
        ranks = [str(rank) for rank in range(processes)]
        return [self.start(*overrides, **shared, RANK=rank, LOCAL_RANK=rank, **more) for rank in ranks]

    def end(self):
        """End what still runs."""
        if self._python is not None:
            self._python.close()
        while pids := self.alive():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def run(self, *overrides, **more):
        """Run to the end; returns what it printed."""
        return finish(self.start(*overrides, **more))

    def lines(self, split):
        """The lines of metrics.jsonl of "train" or "test"."""
        path = self.run_dir / "metrics.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [line for line in lines if line["split"] == split]

    def weights(self, name):
        """The content of a file in models/."""
        return torch.load(self.models / name, weights_only=True)

    @property
    def best(self):
        """Step and score of the run's best weights."""
        return run_checkpoints.best(self.models.parent)

    def alive(self):
        """Processes of all runs in this folder that still run; torchrun gives each of its own a session."""
        mark = f"{TAG}={self.tag}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                state, _, _, session = stat(folder.name)[:4]
                if state != "Z" and (
                    int(session) in self.sessions or mark in (folder / "environ").read_bytes().split(b"\0")
                ):
                    found.append(int(folder.name))
            except OSError:
                continue
        return found


def given(block):
    """What differs from the defaults of options, as JSON has it."""
    return block.model_dump(mode="json", exclude_unset=True)


def stat(pid):
    """State, parent, process group, session and so on of a process, as words."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def finish(process):
    """Wait for the end of a run, which must be a good and quiet one; returns what it printed."""
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, "")
    return out


def wait_until(condition, process=None, seconds=PATIENCE):
    """Wait for something that a process does; the process must not end before."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.01)


def assert_same(one, other, place=""):
    """Equal to the last bit, whatever the tree."""
    assert type(one) is type(other), place
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), place
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            assert_same(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{place}[{index}]")
    else:
        assert one == other, place
