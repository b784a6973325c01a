"""Locate runs, results and checkpoints by file names alone, without torch and without loading anything."""

import json
import re
from pathlib import Path
from typing import Any

from utils.utils_error import UserError
from utils.utils_file import read_text

RESULTS = Path("results")  # folder of all tests; the results of one go to <folder>/<task>
RELEASE = "the official VRT release (github.com/JingyunLiang/VRT, release v0.0)"
STATE_FILE = re.compile(r"(\d+)_state\.pth")
MOST_NAMED = 3  # other runs named in an error
KAIR_FILE = re.compile(r"(\d+)_(G|E|optimizerG)\.pth")


def saved_steps(run_dir: Path) -> list[int]:
    """Steps that have a state file, ascending."""
    matches = (STATE_FILE.fullmatch(path.name) for path in (run_dir / "models").glob("*_state.pth"))
    return sorted(int(match[1]) for match in matches if match)


def kair_steps(folder: Path) -> dict[str, list[int]]:
    """Steps of each kind of KAIR file, ascending; other file names are ignored."""
    found: dict[str, list[int]] = {"G": [], "E": [], "optimizerG": []}
    for path in folder.glob("*.pth"):
        match = KAIR_FILE.fullmatch(path.name)
        if match:
            found[match[2]].append(int(match[1]))
    return {kind: sorted(numbers) for kind, numbers in found.items()}


def find_weights(run_dir: Path, pretrained_netE: str | None, pretrained_netG: str | None) -> tuple[Path, str]:
    """Choose the weights to test: those given in the options, else the run's best, else its last.

    A given file that the run itself started from is not meant for testing; the run's own weights are used instead.

    Returns:
        The file and the reason for the choice, as text.

    Raises:
        UserError: there are no weights.
    """
    own = _own_weights(run_dir)
    for key, given in (("pretrained_netE", pretrained_netE), ("pretrained_netG", pretrained_netG)):
        if given is None or given == "auto":
            continue
        if own is None or _started_from(run_dir).get(key) != given:
            return Path(given), f"given by path.{key}"
        own = own[0], f"{own[1]}; it started from {given}"
    if own is None:
        folder = run_dir / "models"
        others = [path.name for path in sorted(run_dir.parent.glob("*/")) if _own_weights(path)][:MOST_NAMED]
        named = f", or test another run: --set task={' or task='.join(others)}" if others else ""
        raise UserError(f"no weights to test in {folder}; train first, or set path.pretrained_netG to a file{named}")
    return own


def check_exists(weights: Path) -> None:
    """Refuse a weights file that is not there; raises UserError."""
    if not weights.is_file():
        raise UserError(
            f"{weights} not found: weights are never downloaded; get {weights.name} from {RELEASE}, train your own, or "
            "set the option to null"
        )


def _own_weights(run_dir: Path) -> tuple[Path, str] | None:
    """A run's best weights, else its last ones, and which of the two they are; None if there are none."""
    folder = run_dir / "models"
    best = folder / "best_G.pth"
    if best.is_file():
        return best, "the run's best"
    for step in reversed(saved_steps(run_dir) or kair_steps(folder)["G"]):
        for kind in ("E", "G"):
            path = set_file(folder, step, kind)
            if path.is_file():
                return path, f"the run's last, step {step}"
    return None


def _started_from(run_dir: Path) -> dict[str, Any]:
    """The `path` block of the options that a run was trained with."""
    try:
        return dict(json.loads(read_text(run_dir / "options.json"))["path"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def set_file(folder: Path, step: int, kind: str) -> Path:
    """The file of one kind ("G", "E" or "state") at a step."""
    return folder / f"{step}_{kind}.pth"
