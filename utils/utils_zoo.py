"""The project's folder, its commit, and the files that ship with it, found from any working folder. Needs no torch."""

import difflib
import subprocess
from pathlib import Path

from utils.utils_error import UserError

ROOT = Path(__file__).resolve().parents[1]  # the project's folder
TASKS = {"guide": "spike_guide", "guide_tiny": "spike_guide_tiny"}  # name of the weights -> main_test_vrt.py --task
OPTIONS = Path("options") / "vrt"
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
            "clone or install the project again"
        )
    return shipped


def option_file(path: Path) -> Path:
    """The option file that a path means: `options/vrt/demo.json`, or `demo` for short, is found from any folder.

    Raises:
        UserError: no file has this name, which has no suffix; names the nearest one.
    """
    folder, is_name = ROOT / OPTIONS, not path.suffix and not path.is_absolute()
    shipped = folder / f"{path}.json" if is_name else ROOT / path
    if path.is_file():
        return path
    if shipped.is_file() and (is_name or path.is_relative_to(OPTIONS)):
        return shipped
    if is_name and not path.exists():
        names = [str(file.relative_to(folder).with_suffix("")) for file in sorted(folder.rglob("*.json"))]
        near = difflib.get_close_matches(str(path), names, n=1, cutoff=0)[0]
        raise UserError(f"{path}: no such file, nor an option file of {OPTIONS}; did you mean {near}?")
    return path


def commit() -> str | None:
    """The project's commit, with "-dirty" if files differ from it; None without git or in an installed copy."""
    git = ["git", "-C", str(ROOT), "--git-dir", ".git"]  # not that of a repository around an installed copy
    describe = [*git, "describe", "--always", "--abbrev=12", "--dirty", "--exclude", "*"]
    try:
        found = subprocess.run(describe, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
