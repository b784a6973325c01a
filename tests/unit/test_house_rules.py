"""The shape of the house: which layer may import which, and how long things may get."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAY_IMPORT: dict[str, set[str]] = {
    "options": set(),
    "utils": {"options"},
    "data": {"utils", "options"},
    "models": {"utils", "options"},
}
NOBODY_IMPORTS = {"scripts", "tests", "benchmarks", "restorer", "spikevrt"} | {
    path.stem for path in ROOT.glob("main_*.py")
}
MAX_FILE, MAX_CLASS, MAX_FUNCTION = 400, 250, 60
# A longer table or a ported network block goes here by name, with its reason.
ALLOWED_LONG = {"models/network_vrt.py:__init__"}  # the published signature has 23 arguments

NOT_OURS = {"tests", ".venv", "build", "datasets", "experiments", "results", "wandb"}
SOURCES = [path for path in ROOT.rglob("*.py") if not NOT_OURS & set(path.relative_to(ROOT).parts)]


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names & (MAY_IMPORT.keys() | NOBODY_IMPORTS)


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_layer_imports_only_downwards(layer):
    for path in (ROOT / layer).rglob("*.py"):
        illegal = imports_of(path) - MAY_IMPORT[layer] - {layer}
        assert not illegal, f"{path.relative_to(ROOT)} imports {illegal}"


def room_of(module: str) -> str:
    """The folder of a layer's module, or the module itself where it lies in the layer's own folder."""
    return ".".join(module.split(".")[:2])


def arrows_within(layer: str) -> dict[str, set[str]]:
    """By folder or module of a layer, those that it imports."""
    arrows: dict[str, set[str]] = {}
    for path in (ROOT / layer).rglob("*.py"):
        own = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            arrows.setdefault(own, set()).update(room_of(name) for name in names if name.startswith(f"{layer}."))
    return {own: others - {own} for own, others in arrows.items()}


@pytest.mark.parametrize("layer", ["models", "options", "utils"])
def test_folders_of_a_layer_do_not_import_each_other_in_a_circle(layer):
    list(graphlib.TopologicalSorter(arrows_within(layer)).static_order())  # names the circle, if there is one


def test_every_layer_is_a_regular_package():
    # Without __init__.py an installed package called `utils` would win over ours.
    for layer in MAY_IMPORT:
        assert (ROOT / layer / "__init__.py").is_file(), layer


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_too_long(path):
    text = path.read_text(encoding="utf-8")
    name = str(path.relative_to(ROOT))
    too_long = [] if text.count("\n") <= MAX_FILE or name in ALLOWED_LONG else [name]
    for node in ast.walk(ast.parse(text)):
        limit = {ast.ClassDef: MAX_CLASS, ast.FunctionDef: MAX_FUNCTION}.get(type(node))
        if limit and node.end_lineno - node.lineno >= limit and f"{name}:{node.name}" not in ALLOWED_LONG:
            too_long.append(f"{name}:{node.name}")
    assert not too_long


def test_every_option_of_a_program_has_a_help_text():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
                where = f"{path.relative_to(ROOT)}:{node.lineno}"
                assert any(keyword.arg == "help" for keyword in node.keywords), where


def test_messages_count_in_words_not_with_a_plural_in_brackets():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found = re.findall(r"[a-zA-Z]+\(e?s\)", node.value)
                assert not found, f"{path.relative_to(ROOT)}:{node.lineno}: {found}; call utils_error.counted"


def test_file_names_of_runs_and_tests_have_one_home():
    home = ROOT / "utils" / "utils_run_folder.py"
    # The others name a layer, and the file in a command to copy.
    excused = {home, ROOT / "setup.py", ROOT / "models" / "replay.py"}
    names = {"best_G.pth", "best.json", "models", "run.json", "tb_logger", "tile.json", "train.log", "wandb_run.json"}
    names |= {"metrics.csv", "metrics.json", "metrics.jsonl", "options.json"}
    for path in SOURCES:
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if path not in excused else ()
        used = names & {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        assert not used, f"{path.relative_to(ROOT)} spells {used}; take it from {home.name}"


@pytest.mark.parametrize("path", sorted((ROOT / "scripts").rglob("*.py")), ids=lambda path: path.name)
def test_scripts_find_the_house_before_they_import_from_it(path):
    """A script's own folder is on sys.path, not the project's."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    own = [
        node.lineno
        for node in body
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").split(".")[0] in ("data", "models", "options", "utils")
    ]
    inserts = [
        node.lineno for node in body if "sys.path" in ast.unparse(node) and not isinstance(node, ast.FunctionDef)
    ]
    assert not own or (inserts and inserts[0] < own[0])
