"""Records of a training run: train.log, metrics.jsonl, boards, timing, summary. A failing disk only costs lines."""

import errno
import json
import logging
import os
import resource
import shlex
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from numpy import ndarray
from pydantic import BaseModel

from options.schema_train import LoggingOpt
from utils import utils_option
from utils.processes import folder_lock
from utils.processes.folder_lock import Lock
from utils.records.boards import Boards, open_boards
from utils.utils_dist import Dist
from utils.utils_error import UserError, counted
from utils.utils_file import disk_errors_in_words, read_text, write_text
from utils.utils_json import finite
from utils.utils_run_folder import RunFolder, step_of_line

LOG = logging.getLogger("spikevrt")
NEEDED = "the run must write there: free space or grant access, or change path.root"
OTHER_RUN = "wait until it ends, or give this run its own name with --set task=NAME"
NOT_IN_LINE = ("lr", "time", "data_time", "data_share", "eta", "samples_per_s", "memory_gib", "skipped")


class LineFile:
    """A text file that grows line by line and is reopened for each, for `logging.StreamHandler` and others.

    Each line is written completely or not at all. A full, read-only or missing disk costs lines, with one warning and
    one message when writing works again.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lost = path, 0

    def write(self, line: str) -> None:
        """Append a line, including its line break."""
        end: int | None = None
        try:
            with self._path.open("ab", buffering=0) as file:
                end = file.seek(0, os.SEEK_END)
                data = line.encode("utf-8", errors="backslashreplace")
                if file.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            if end is not None:
                with suppress(OSError):
                    os.truncate(self._path, end)
            self._lost += 1
            if self._lost == 1:
                LOG.warning("%s: %s; this run continues without it", self._path.name, error.strerror or error)
            return
        lost, self._lost = self._lost, 0
        if lost:
            LOG.info("%s: writing works again; lost: %s", self._path.name, counted(lost, "line"))


class Run:
    """Records what happens in a run, on rank 0 only; UserError if the folder cannot be created.

    `config` is the resolved options without secrets, for W&B; `lock` that of the folder, released at the end.
    """

    def __init__(
        self, folder: Path, opt: LoggingOpt, dist: Dist, config: Mapping[str, Any], lock: Lock | None = None
    ) -> None:
        self.folder, self.is_main, self._lock = folder, dist.is_main, lock
        self._files = RunFolder(folder)
        self._opt, self._config, self._boards = opt, config, Boards({})
        self._started, self._last_test = time.monotonic(), dict[str, float]()
        if not self.is_main:
            LOG.setLevel(logging.ERROR)
            return
        with disk_errors_in_words(folder, NEEDED, kind=UserError):
            folder.mkdir(parents=True, exist_ok=True)
        self._metrics = LineFile(self._files.metrics)
        self._handler = logging.StreamHandler(LineFile(self._files.log))
        form = "%(asctime)s.%(msecs)03d : %(message)s"
        self._handler.setFormatter(logging.Formatter(form, datefmt="%y-%m-%d %H:%M:%S"))
        LOG.addHandler(self._handler)

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """Close everything; after an error, leave out the boards, which notice it themselves."""
        if kind is None:
            self._boards.close()
        if self.is_main:
            LOG.removeHandler(self._handler)
        if self._lock is not None:
            self._lock.release()

    def begin(self, step: int) -> None:
        """Open the boards of a run with `step` finished steps; records of later steps are removed."""
        if self.is_main:
            reached = drop_after(self._files.metrics, step)
            self._boards = open_boards(self.folder, self._opt, self._config, step, reached)

    def log(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Append {"step", "split", ...} to metrics.jsonl and the boards; split is "train" or "test"."""
        if self.is_main:
            line = {"step": step, "split": split, **finite(dict(values))}
            self._metrics.write(json.dumps(line, allow_nan=False) + "\n")
            self._boards.scalars(step, {f"{split}/{key}": value for key, value in values.items()})

    def log_test(self, step: int, result: Mapping[str, Any]) -> None:
        """Record a result of `evaluate`: its means and, on the boards only, test_<metric>_by_clip/<clip>."""
        self._last_test = result["mean"]
        self.log(step, "test", result["mean"])
        curves = {
            f"test_{key}_by_clip/{clip}": value
            for clip, values in result["clips"].items()
            for key, value in values.items()
            if not key.startswith(("lq_", "sdm_"))  # constant over the run
        }
        self._boards.scalars(step, curves)

    def has_test(self, step: int) -> bool:
        """Whether metrics.jsonl has a test at this step."""
        return self._files.has_test(step)

    def image(self, step: int, name: str, image: ndarray) -> None:
        """Show a picture, (H, W, 3) uint8 RGB, on the boards."""
        self._boards.image(step, name, image)

    def write_options(self, options: BaseModel) -> None:
        """Write options.json; UserError if that fails, as checkpoints could not be written either."""
        if self.is_main:
            with disk_errors_in_words(self._files.options, NEEDED, kind=UserError):
                utils_option.save(options, self._files.options)

    def summary(self, step: int, weights: Path, best: Mapping[str, Any] | None = None, skipped: int = 0) -> list[str]:
        """Lines that summarise the run at its end.

        `weights` is the file to test, `best` the {"step", <metric>} of the best weights, if any were measured,
        `skipped` the steps skipped since the run began.
        """
        files = self._files
        test = ["python", "main_test_vrt.py", "--opt", str(files.options), "--set"]
        test += ["path.pretrained_netE=null", f"path.pretrained_netG={weights}"]
        measured = ", ".join(f"{key} {value:.4f}" for key, value in self._last_test.items() if "_" not in key)
        best = best or {}
        facts = [
            ("steps", f"{step:,d}" + (f", {skipped:,d} skipped" if skipped else "")),
            ("time", f"{timedelta(seconds=round(time.monotonic() - self._started))} since this start"),
            *(("best", f"{key} {value:.4f} at step {best['step']:,d}") for key, value in best.items() if key != "step"),
            ("last", measured),
            ("weights", str(weights)),
            ("log", f"{files.log}, {files.metrics}"),
            *(("board", where) for where in self._boards.where),
            *((path.name, str(path)) for path in (files.images, files.profile) if path.is_dir()),
            ("test", shlex.join(test)),
        ]
        return [f"{name:<8}{text}" for name, text in facts if text]

    def close(self) -> None:
        """Close everything and release the folder."""
        self.__exit__(None)


class Stopwatch:
    """Times the steps of a loop, of `samples` over all processes, and their wait for data, averaged between reports."""

    def __init__(self, total_steps: int, samples: int = 1) -> None:
        self.total_steps, self.samples = total_steps, samples
        self.restart()

    def restart(self) -> None:
        """Start a new average, so that a validation, for example, does not count as step time."""
        self._start, self._data, self._steps = time.perf_counter(), 0.0, 0

    def data_ready(self, asked_at: float) -> None:
        """Record the arrival of a step's data, requested at time.perf_counter() `asked_at`."""
        self._data += time.perf_counter() - asked_at
        self._steps += 1

    def report(self, step: int) -> dict[str, float]:
        """Return the averages and start new ones.

        time and data_time (seconds per step, and of it waiting for data), data_share (their ratio), samples_per_s,
        memory_gib, and eta (seconds left).
        """
        steps = max(self._steps, 1)
        seconds = (time.perf_counter() - self._start) / steps
        values = {
            "time": seconds,
            "data_time": self._data / steps,
            "data_share": self._data / steps / seconds,
            "samples_per_s": self.samples / seconds,
            "memory_gib": memory_gib(),
            "eta": seconds * (self.total_steps - step),
        }
        self.restart()
        return values


def memory_gib() -> float:
    """Peak memory so far in GiB: allocated by PyTorch on the GPU or, without one, resident in this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def start_run(folder: Path, opt: LoggingOpt, dist: Dist, options: BaseModel) -> Run:
    """Create and lock the run's folder, and open its records; UserError if it cannot be written or is in use."""
    lock = None
    if dist.is_main:
        with disk_errors_in_words(folder, NEEDED, kind=UserError):
            folder.mkdir(parents=True, exist_ok=True)
            lock = folder_lock.acquire(folder / folder_lock.NAME, f"{folder}: this run", OTHER_RUN)
    run = Run(folder, opt, dist, options.model_dump(mode="json"), lock)
    LOG.info("records and checkpoints in %s", folder)
    return run


def drop_after(path: Path, step: int) -> int:
    """Remove lines after `step`, and truncated ones, from metrics.jsonl; returns the last step before that, or -1."""
    try:
        text = read_text(path, "replace")
        lines = [(line, step_of_line(line)) for line in text.splitlines()]
        kept = "".join(f"{line}\n" for line, its_step in lines if 0 <= its_step <= step)
        if kept != text:
            write_text(path, kept)
    except FileNotFoundError:
        return -1
    except OSError as error:
        LOG.warning("%s: %s; lines of steps after %d stay in it", path.name, error.strerror or error, step)
        return step
    return max((its_step for _, its_step in lines), default=-1)


def train_line(epoch: int, step: int, values: Mapping[str, float]) -> str:
    """KAIR's line: <epoch:  0, iter:     200, lr:4.000e-04> G_loss: 3.100e-02 ..., then times and the time left."""
    text = f"<epoch:{epoch:3d}, iter:{step:8,d}, lr:{values['lr']:.3e}> "
    text += " ".join(f"{key}: {values[key]:.3e}" for key in values if key not in NOT_IN_LINE)
    text += f" skipped: {values['skipped']:.0f}" if values.get("skipped") else ""
    left = timedelta(seconds=round(values["eta"]))
    return f"{text} time: {values['time']:.3f}s data: {values['data_time']:.3f}s ETA: {left}"
