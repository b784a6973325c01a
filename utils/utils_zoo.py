"""The project's folder, its commit and the weights that ship with it, found from any working folder. Needs no torch."""

import subprocess
from pathlib import Path

from utils.utils_error import UserError

ROOT = Path(__file__).resolve().parents[1]  # the project's folder
TASKS = {"guide": "spike_guide", "guide_tiny": "spike_guide_tiny"}  # name of the weights -> main_test_vrt.py --task
SHIPPED = [Path("model_zoo") / "guide" / f"{name}.safetensors" for name in TASKS]


def located(weights: str | Path) -> Path:
    """The file that a path of weights means: shipped ones lie in the project, wherever a program is called from.

    Raises:
        UserError: the weights ship with the project but are not there.
    """
    path = Path(weights).expanduser()
    if path not in SHIPPED or path.is_file():
        return path
    shipped = ROOT / path
    if not shipped.is_file():
        raise UserError(
            f"{shipped} not found: it ships with the project; get it back with `git checkout {path}` in {ROOT}, or "
            "clone the project again"
        )
    return shipped


def commit() -> str | None:
    """The project's commit; None without git or outside a repository."""
    try:
        found = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
