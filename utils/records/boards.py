"""Boards for a run's curves and pictures: TensorBoard and W&B. A failing board is dropped; the run continues."""

import json
import logging
import os
import shlex
import sys
import threading
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from numpy import ndarray

from options.schema_train import LoggingOpt
from utils.utils_file import printable, read_text, write_text
from utils.utils_run_folder import RunFolder

LOG = logging.getLogger("spikevrt")
KEY, KEY_OPTION = "WANDB_API_KEY", "wandb_api_key"


class Boards:
    """Several boards as one, by functions that open them. A board is dropped at its first failure, with one warning."""

    def __init__(self, makers: Mapping[str, "Callable[[], TensorBoard | WandB]"]) -> None:
        self._boards: dict[str, TensorBoard | WandB] = {}
        for name, make in makers.items():
            self._try(name, partial(self._add, name, make))

    @property
    def where(self) -> list[str]:
        """The URL of each board that still works, or the command that opens it."""
        return [board.where for board in self._boards.values()]

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve on all boards."""
        shown = {printable(key): value for key, value in values.items()}
        self._each(lambda board: board.scalars(step, shown))

    def image(self, step: int, name: str, image: ndarray) -> None:
        """Show (H, W, 3) uint8, RGB, on all boards."""
        self._each(lambda board: board.image(step, printable(name), image))

    def close(self) -> None:
        """Write everything that is still pending, and close all boards."""
        self._each(lambda board: board.close())
        self._boards.clear()

    def _each(self, call: "Callable[[TensorBoard | WandB], None]") -> None:
        for name, board in list(self._boards.items()):
            self._try(name, partial(call, board))

    def _add(self, name: str, make: "Callable[[], TensorBoard | WandB]") -> None:
        self._boards[name] = make()

    def _try(self, name: str, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - W&B documents "unknown or internal errors", TensorBoard nothing
            self._boards.pop(name, None)
            reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
            if os.environ.get(KEY):
                reason = reason.replace(os.environ[KEY], "(hidden)")
            LOG.warning("%s: %s; this run continues without it", name, reason)


class TensorBoard:
    """Event files in <folder>/tb_logger; points of steps after `step`, left by an earlier start, are hidden."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._hook = threading.excepthook
        threading.excepthook = partial(_hide_traceback, self._hook)
        logs = str(RunFolder(folder).tensorboard)
        self.where = f"tensorboard --logdir {shlex.quote(logs)}"
        self._writer = SummaryWriter(logs, purge_step=step + 1, max_queue=1000)  # a full queue would block training

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def image(self, step: int, name: str, image: ndarray) -> None:
        self._writer.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()
        threading.excepthook = self._hook


class WandB:
    """A W&B run, the same one for all starts: its id is kept in <folder>/wandb_run.json.

    Steps that W&B already has are not sent again, so the starts of an offline run do not overlap, as `wandb sync
    --append` expects; `reached` is the last step recorded by earlier starts, or -1. Code, terminal output and git data
    are never sent. `config` is the resolved options without secrets.
    """

    def __init__(self, folder: Path, opt: LoggingOpt, config: Mapping[str, Any], reached: int) -> None:
        record = _run_record(RunFolder(folder).wandb, reached)
        given = opt.wandb_api_key.get_secret_value() if opt.wandb_api_key else ""
        if key := (os.environ.get(KEY) or given).strip():
            os.environ[KEY] = key  # where W&B looks for it
        # W&B records the command line.
        sys.argv = [
            f"{word.split(KEY_OPTION)[0]}{KEY_OPTION}=null" if KEY_OPTION in word else word for word in sys.argv
        ]
        if opt.wandb_mode == "offline":
            os.environ["WANDB_ERROR_REPORTING"] = "false"  # send no error reports either
        os.environ["WANDB_SILENT"] = "true"  # some versions print in spite of `silent` below
        import wandb

        self._make_image = wandb.Image
        self._run = wandb.init(
            project=opt.wandb_project,
            entity=opt.wandb_entity,
            name=opt.wandb_name or folder.name,
            mode=opt.wandb_mode,
            dir=str(folder),
            config=dict(config),
            allow_val_change=True,
            id=record["id"],
            resume="allow",
            settings={"silent": True, "console": "off", "disable_git": True, "save_code": False},
        )
        self._next = max(self._run.step, record["reached"] + 1)
        offline = f"wandb sync --append {folder / 'wandb'}/offline-run-*-{record['id']}"
        self.where = offline if opt.wandb_mode == "offline" else str(self._run.url)
        LOG.info("W&B: %s", self.where)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._log(step, dict(values))

    def image(self, step: int, name: str, image: ndarray) -> None:
        self._log(step, {name: self._make_image(image)})

    def close(self) -> None:
        self._run.finish()

    def _log(self, step: int, values: dict[str, Any]) -> None:
        if step >= self._next:
            self._next = step
            self._run.log(values, step=step)


def open_boards(folder: Path, opt: LoggingOpt, config: Mapping[str, Any], step: int, reached: int) -> Boards:
    """Open the boards that the options ask for; arguments as for TensorBoard and WandB."""
    makers: dict[str, Callable[[], TensorBoard | WandB]] = {}
    if opt.use_tensorboard:
        makers["TensorBoard"] = partial(TensorBoard, folder, step)
    if opt.use_wandb and opt.wandb_mode != "disabled":
        makers["W&B"] = partial(WandB, folder, opt, config, reached)
    return Boards(makers)


def _run_record(path: Path, reached: int) -> dict[str, Any]:
    """W&B id of the run and the last step that any start recorded; stored for the next start."""
    new = {"id": uuid.uuid4().hex[:12], "reached": -1}
    kept: dict[str, Any] = json.loads(read_text(path)) if path.exists() else new
    record = {"id": kept["id"], "reached": max(kept["reached"], reached)}
    write_text(path, json.dumps(record) + "\n")
    return record


def _hide_traceback(hook: Callable[[threading.ExceptHookArgs], Any], failed: threading.ExceptHookArgs) -> None:
    """Hide tracebacks of TensorBoard's writer thread: its next call raises the error again."""
    if not type(failed.thread).__module__.startswith("tensorboard."):
        hook(failed)
