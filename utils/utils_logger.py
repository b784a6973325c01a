"""One training run's records: train.log, metrics.jsonl, TensorBoard, W&B."""

import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from numpy import ndarray
from pydantic import BaseModel

from utils import utils_option
from utils.utils_dist import Dist
from utils.utils_json import finite

LOG = logging.getLogger("spikevrt")


class LoggingOptions(Protocol):
    """What is read of the `logging` block."""

    @property
    def use_tensorboard(self) -> bool: ...
    @property
    def use_wandb(self) -> bool: ...
    @property
    def wandb_project(self) -> str | None: ...
    @property
    def wandb_entity(self) -> str | None: ...
    @property
    def wandb_name(self) -> str | None: ...
    @property
    def wandb_mode(self) -> Any: ...
    @property
    def wandb_api_key(self) -> Any: ...


class Run:
    """Writes what happens in a run; rank 0 alone does.

    Args:
        folder: experiments/<task>.
        opt: the `logging` block of the options.
        dist: this process.
        config: resolved options without secrets, for W&B.
    """

    def __init__(self, folder: Path, opt: LoggingOptions, dist: Dist, config: dict[str, Any]) -> None:
        self.folder, self.is_main = folder, dist.is_main
        self._tensorboard = self._wandb = None
        if not self.is_main:
            LOG.setLevel(logging.ERROR)
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._file = logging.FileHandler(folder / "train.log")
        self._file.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d : %(message)s", datefmt="%y-%m-%d %H:%M:%S"))
        LOG.addHandler(self._file)
        if opt.use_tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._tensorboard = SummaryWriter(str(folder / "tb_logger"))
        if opt.use_wandb:
            self._wandb = _start_wandb(folder, opt, config)

    def log(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Append {"step", "split", ...} to metrics.jsonl and to the boards; split is "train" or "test"."""
        if not self.is_main:
            return
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "split": split, **finite(values)}, allow_nan=False) + "\n")
        if self._tensorboard is not None:
            for key, value in values.items():
                self._tensorboard.add_scalar(f"{split}/{key}", value, step)
        if self._wandb is not None:
            self._wandb.log({f"{split}/{key}": value for key, value in values.items()}, step=step)

    def write_options(self, options: BaseModel) -> None:
        """Write options.json: what this run, from here on, goes by."""
        if self.is_main:
            utils_option.save(options, self.folder / "options.json")

    def image(self, step: int, name: str, image: ndarray) -> None:
        """Put a picture, (H, W, 3) uint8 RGB, on TensorBoard."""
        if self._tensorboard is not None:
            self._tensorboard.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Flush and close everything."""
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()
        if self.is_main:
            LOG.removeHandler(self._file)
            self._file.close()


class Stopwatch:
    """Times the steps of a loop and the part of them spent waiting for data, averaged between two reports."""

    def __init__(self, total_steps: int) -> None:
        self.total_steps = total_steps
        self.restart()

    def restart(self) -> None:
        """Start a new average: what lies between, such as a validation, is no step's time."""
        self._start, self._data, self._steps = time.perf_counter(), 0.0, 0

    def data_ready(self, asked_at: float) -> None:
        """The data of a step, asked for at time.perf_counter() `asked_at`, are here."""
        self._data += time.perf_counter() - asked_at
        self._steps += 1

    def report(self, step: int) -> dict[str, float]:
        """Seconds a step, of it seconds waiting for data, and seconds left; starts a new average."""
        steps = max(self._steps, 1)
        seconds = (time.perf_counter() - self._start) / steps
        values = {
            "time": seconds,
            "data_time": self._data / steps,
            "eta": seconds * (self.total_steps - step),
        }
        self.restart()
        return values


def start_run(folder: Path, opt: LoggingOptions, dist: Dist, options: BaseModel) -> Run:
    """Make the run's folder and open its records; `options` are sent to W&B without secrets."""
    run = Run(folder, opt, dist, options.model_dump(mode="json"))
    LOG.info("records and checkpoints in %s", folder)
    return run


def _start_wandb(folder: Path, opt: LoggingOptions, config: dict[str, Any]) -> Any:
    """Open a run on W&B. The account's key goes through the environment: W&B records the command line."""
    if opt.wandb_api_key is not None:
        os.environ.setdefault("WANDB_API_KEY", opt.wandb_api_key.get_secret_value())
    sys.argv = [word for word in sys.argv if "wandb_api_key" not in word]
    import wandb

    return wandb.init(
        project=opt.wandb_project,
        entity=opt.wandb_entity,
        name=opt.wandb_name or folder.name,
        mode=opt.wandb_mode,
        dir=str(folder),
        config=config,
    )


def train_line(epoch: int, step: int, values: Mapping[str, float]) -> str:
    """KAIR's line: <epoch:  0, iter:     200, lr:4.000e-04> G_loss: 3.100e-02 ..., then times and the time left."""
    text = f"<epoch:{epoch:3d}, iter:{step:8,d}, lr:{values['lr']:.3e}> "
    text += " ".join(f"{key}: {values[key]:.3e}" for key in values if key not in ("lr", "time", "data_time", "eta"))
    left = timedelta(seconds=round(values["eta"]))
    return f"{text} time: {values['time']:.3f}s data: {values['data_time']:.3f}s ETA: {left}"
