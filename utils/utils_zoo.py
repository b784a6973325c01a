"""The project's folder, its commit, and the files that ship with it, found from any working folder. Needs no torch."""

import difflib
import re
import subprocess
from pathlib import Path

from utils.utils_error import UserError

ROOT = Path(__file__).resolve().parents[1]  # the project's folder
IS_CHECKOUT = (ROOT / "launch_train.sh").is_file()  # else a copy that `pip install .` made
TASKS = {"guide": "spike_guide", "guide_tiny": "spike_guide_tiny"}  # name of the weights -> main_test_vrt.py --task
OPTIONS = Path("options") / "vrt"
SHIPPED = [Path("model_zoo") / "guide" / f"{name}.safetensors" for name in TASKS]

MODULE = "python -m spikevrt.scripts."
COMMANDS = {  # of the checkout -> of an installed copy
    r"\./launch_train\.sh --demo": f"{MODULE}data_preparation.make_demo_dataset; spikevrt-train --opt demo",
    r"\./launch_train\.sh --prepare-data": f"{MODULE}data_preparation.prepare_gopro_spike_dataset",
    r"\./launch_train\.sh": "spikevrt-train",
    r"main_test_vrt\.py": "spikevrt-test",
    r"python3? scripts/doctor\.py": "spikevrt-doctor",
    r"python3? scripts/(\w+)\.py": rf"{MODULE}\1",
    r"git checkout [^,;]+": "python -m pip install --force-reinstall --no-deps CLONE (the folder of a clone)",
}


def typed(text: str) -> str:
    """A text with the commands of the checkout; in an installed copy, which has others, with those."""
    if not IS_CHECKOUT:
        for pattern, command in COMMANDS.items():
            text = re.sub(pattern, command, text)
    return text


def located(weights: str | Path) -> Path:
    """The file that a path of weights means: shipped ones are found from any folder; UserError if they are gone."""
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

    Raises UserError if no file has this name; it names the nearest one. Without a file that is alike, a name with a
    suffix is returned, for the caller to fail on.
    """
    is_name = not path.suffix and not path.is_absolute()
    shipped = ROOT / OPTIONS / f"{path}.json" if is_name else ROOT / path
    if path.is_file():
        return path
    if shipped.is_file() and (is_name or path.is_relative_to(OPTIONS)):
        return shipped
    if path.exists():
        return path
    near, folder = near_option_file(path), f", nor an option file of {OPTIONS}" * is_name
    if near or is_name:
        raise UserError(f"{path}: no such file{folder}" + f"; did you mean {near}?" * bool(near))
    return path


def near_option_file(path: Path) -> str:
    """The option file whose name is most like that of a missing one: one that ships, or beside it; else empty."""
    folder = ROOT / OPTIONS
    shipped = [file.relative_to(folder) for file in sorted(folder.rglob("*.json"))]
    names = {str(file.with_suffix("")): str(file.with_suffix("")) for file in shipped}
    if path.suffix:
        beside = {file.name: str(file) for file in path.parent.glob("*.json")}
        names = {file.name: str(OPTIONS / file) for file in shipped} | beside
    alike = difflib.get_close_matches(path.name if path.suffix else str(path), names, n=1)
    return names[alike[0]] if alike else ""


def commit() -> str | None:
    """The project's commit, with "-dirty" if files differ from it; None without git or in an installed copy."""
    git = ["git", "-C", str(ROOT), "--git-dir", ".git"]  # not that of a repository around an installed copy
    describe = [*git, "describe", "--always", "--abbrev=12", "--dirty", "--exclude", "*"]
    try:
        found = subprocess.run(describe, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
