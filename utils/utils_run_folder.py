"""The folders of runs and of tests: every file name in them, and which weights to use. Needs no torch."""

import json
import re
from pathlib import Path
from typing import Any

from utils.utils_error import UserError
from utils.utils_file import read_text
from utils.utils_zoo import located

RELEASE = "the official VRT release (github.com/JingyunLiang/VRT, release v0.0)"
MOST_NAMED = 3  # other runs named in an error
WEIGHTS = "models"
SET_FILE = re.compile(r"(\d+)_(G|E|state|optimizerG)\.pth")
VIDEO_SUFFIXES = {"h264": ".mp4", "lossless": ".mkv"}


class RunFolder:
    """Files of a run; `root` is its folder, experiments/<task>."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.options = root / "options.json"  # the options of the run, resolved
        self.log = root / "train.log"
        self.metrics = root / "metrics.jsonl"  # one JSON object per line: values of training and of tests
        self.weights = root / WEIGHTS  # folder of the checkpoints
        self.best = self.weights / "best_G.pth"  # the weights with the best test result so far
        self.best_score = self.weights / "best.json"  # their step, score, and what it was measured on
        self.tile = root / "tile.json"  # the tile of the run's tests, if it was chosen automatically
        self.images = root / "images"  # folder of the frames restored in tests, by step
        self.profile = root / "profile"  # folder of torch.profiler's records
        self.tensorboard = root / "tb_logger"  # folder of TensorBoard's event files
        self.wandb = root / "wandb_run.json"  # the id of the run on W&B

    def checkpoint(self, step: int, kind: str) -> Path:
        """One file of the checkpoint of a step; `kind` is "G", "E" or "state", in KAIR's runs also "optimizerG"."""
        return self.weights / f"{step}_{kind}.pth"

    def steps(self, kind: str = "state") -> list[int]:
        """Steps that have a checkpoint file of a kind, ascending; "state", written last, marks whole checkpoints."""
        matches = (SET_FILE.fullmatch(path.name) for path in self.weights.glob("*.pth"))
        return sorted(int(match[1]) for match in matches if match and match[2] == kind)

    def has_test(self, step: int) -> bool:
        """Whether metrics.jsonl has a test at this step."""
        try:
            lines = read_text(self.metrics, "replace").splitlines()
        except OSError:
            return False
        return any('"split": "test"' in line and step_of_line(line) == step for line in lines)

    def is_finished(self) -> bool:
        """Whether the last step has a checkpoint and, if there are test clips, a test."""
        options = read_options(self.options)
        last, has_clips = options["train"]["total_iter"], options.get("datasets", {}).get("test") is not None
        return last in self.steps() and (self.has_test(last) or not has_clips)


class ResultsFolder:
    """Files of a test; `root` is the folder of its results, results/<task>."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.options = root / "options.json"  # the options of the test, resolved
        self.record = root / "run.json"  # everything that the frames depend on
        self.metrics = root / "metrics.json"  # means by metric and clip
        self.frame_metrics = root / "metrics.csv"  # one row of metrics per frame
        self.report = root / "report.html"  # the results on one page
        self.difference = root / "compare.html"  # the page that compares this test with another one
        self.comparison_picture = root / "comparison.png"  # input and result side by side, one frame per clip
        self.comparison_video = root / "comparison.mp4"  # the same, all frames
        self.instants = root / "instants.png"  # one blurred frame per clip and its restored instants, with val.times

    @property
    def summaries(self) -> tuple[Path, ...]:
        """What a test writes besides its record, frames and videos."""
        pictures = self.comparison_picture, self.comparison_video, self.instants
        return self.metrics, self.frame_metrics, self.report, self.difference, *pictures

    def frame(self, clip: str, frame: str) -> Path:
        """A restored frame."""
        return self.root / clip / f"{frame}.png"

    def video(self, clip: str, kind: str) -> Path:
        """The video of a clip, by a key of VIDEO_SUFFIXES."""
        return self.root / f"{clip}{VIDEO_SUFFIXES[kind]}"


def step_of_line(line: str) -> int:
    """Step of a line of metrics.jsonl; -1 if the line is incomplete."""
    try:
        record = json.loads(line)
    except ValueError:
        return -1
    step = record.get("step") if isinstance(record, dict) else None
    return step if isinstance(step, int) else -1


def read_options(path: Path) -> dict[str, Any]:
    """Read the options.json of a run or a test; OSError or ValueError if there is none, or it is damaged."""
    options: dict[str, Any] = json.loads(read_text(path))
    return options


def options_of(weights: Path) -> Path | None:
    """The option file of the run that a weights file or a run's folder belongs to; None if it belongs to no run."""
    if weights.is_dir():
        return RunFolder(weights).options
    return RunFolder(weights.parent.parent).options if weights.parent.name == WEIGHTS else None


def find_weights(
    run_dir: Path, pretrained_netE: str | None, pretrained_netG: str | None, shipped_netG: str | None = None
) -> tuple[Path, str]:
    """Choose the weights to test: those given in the options, else the run's best, else its last, else shipped ones.

    A given file that the run itself started from is not meant for testing; the run's own weights are used instead.
    Returns the file and the reason for the choice, as text; raises UserError if there are no weights.
    """
    run = RunFolder(run_dir)
    own = _own_weights(run)
    for key, given in (("pretrained_netE", pretrained_netE), ("pretrained_netG", pretrained_netG)):
        if given is None or given == "auto":
            continue
        if own is None or _started_from(run).get(key) != given:
            return located(given), f"given by path.{key}"
        own = own[0], f"{own[1]}; it started from {given}"
    if own is None and shipped_netG is not None:
        return located(shipped_netG), f"path.shipped_netG; {run.weights} has no weights yet"
    if own is None:
        others = [path.name for path in sorted(run_dir.parent.glob("*/")) if _own_weights(RunFolder(path))][:MOST_NAMED]
        named = f", or test another run: --set task={' or task='.join(others)}" if others else ""
        raise UserError(
            f"no weights to test in {run.weights}; train first, or set path.pretrained_netG to a file{named}"
        )
    return own


def check_exists(weights: Path, advice: str = "") -> None:
    """Refuse a weights file that is not there; raises UserError with how to get it."""
    if not weights.is_file():
        advice = advice or f"get {weights.name} from {RELEASE}, train your own"
        raise UserError(f"{weights} not found: weights are never downloaded; {advice}, or set the option to null")


def _own_weights(run: RunFolder) -> tuple[Path, str] | None:
    """A run's best weights, else its last ones, and which of the two they are; None if there are none."""
    if run.best.is_file():
        return run.best, "the run's best"
    for step in reversed(run.steps() or run.steps("G")):
        for kind in ("E", "G"):
            path = run.checkpoint(step, kind)
            if path.is_file():
                return path, f"the run's last, step {step}"
    return None


def _started_from(run: RunFolder) -> dict[str, Any]:
    """The `path` block of the options that a run was trained with."""
    try:
        return dict(read_options(run.options)["path"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
