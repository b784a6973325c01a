"""The written pages: their links lead somewhere, the files and options they name exist, their commands can be typed."""

import argparse
import functools
import json
import re
import runpy
import sys
from collections import Counter
from pathlib import Path

import pytest

from options.schema import Opt
from utils import utils_option

ROOT = Path(__file__).resolve().parents[2]
NOT_OURS = {"datasets", "experiments", "results", "wandb", "site"}
TOPS = [path for path in ROOT.iterdir() if path.name not in NOT_OURS and path.name[0] != "."]
PAGES = sorted(page for top in TOPS for page in (top, *top.rglob("*.md")) if page.suffix == ".md")
HISTORY = ("docs/LOG.md", "CHANGELOG.md", "benchmarks/results/")  # they name what there was
PRESENT = [path for path in PAGES if not path.relative_to(ROOT).as_posix().startswith(HISTORY)]

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.M | re.S)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
FILE = re.compile(r"\b(?:benchmarks|data|docs|models|options|scripts|tests|utils)/[\w./-]+\.(?:py|sh|sbatch|json|md)\b")
PROGRAM = re.compile(r"\bpython ((?:scripts/|benchmarks/|main_)[\w/]*\.py)([^\n;|&#]*)")
LAUNCHER = re.compile(r"(launch_(?:train|test))\.sh([^\n;|&#]*)")
FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
SETTING = re.compile(r"[\s'\"]([a-zA-Z_]+(?:\.\w+)+|task)=")
ANY_BLOCK = re.compile(r"\.(train|test)(\.\d+)?\.")

names = functools.partial(map, lambda path: str(path.relative_to(ROOT)))
every_page = pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
every_present_page = pytest.mark.parametrize("page", PRESENT, ids=names(PRESENT))


@functools.cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@functools.cache
def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ +(.+?) *$", FENCE.sub("", text_of(page)), re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return found


def code_of(page: Path) -> list[str]:
    """Code between backticks and in blocks of commands, a command a line."""
    text = text_of(page)
    blocks = [block for _, language, block in FENCE.findall(text) if language in ("bash", "")]
    return [*(block.replace("\\\n", " ") for block in blocks), *SPAN.findall(FENCE.sub("", text))]


@functools.cache
def flags_of(program: str) -> set[str]:
    """Flags that a program's parser takes."""
    if program.startswith("benchmarks/"):
        return set(re.findall(r'"(--[\w-]+)"', (ROOT / program).read_text(encoding="utf-8")))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", _stop)
        patch.setattr(sys, "argv", [program])
        patch.setattr(sys, "path", [*sys.path])
        try:
            runpy.run_path(str(ROOT / program), run_name="__main__")
        except _ReadyError as ready:
            return _flags(ready.args[0])
    raise AssertionError(f"{program} reads no command line")


class _ReadyError(Exception):
    """A program's parser is ready."""


def _stop(parser: argparse.ArgumentParser, *_: object) -> None:
    raise _ReadyError(parser)


def _flags(parser: argparse.ArgumentParser) -> set[str]:
    found = {flag for action in parser._actions for flag in action.option_strings}
    parts = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return found.union(*(_flags(one) for part in parts for one in part.choices.values()))


@functools.cache
def known_options() -> set[str]:
    """Dotted names of all options and their blocks; training and test sets share theirs."""
    keys = {ANY_BLOCK.sub(".train|test.", key) for key, _ in utils_option._walk(Opt)}
    return keys | {key[: match.start()] for key in keys for match in re.finditer(r"\.", key)}


@every_page
def test_links_and_anchors_lead_somewhere(page):
    for target in LINK.findall(SPAN.sub("", FENCE.sub("", text_of(page)))):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), f"{target}: there is no such file"
        assert there.is_relative_to(ROOT), f"{target}: outside the project"
        if anchor:
            assert anchor in anchors(there), f"{target}: no such heading; there are {sorted(anchors(there))}"


def test_every_page_is_in_the_index_and_in_the_sites_list():
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert pages <= set(LINK.findall(text_of(ROOT / "docs" / "index.md")))
    assert pages <= set(re.findall(r": (\S+\.md)$", text_of(ROOT / "mkdocs.yml"), re.M))


def test_the_site_shows_the_notebook_and_links_nothing_that_it_lacks():
    changed = runpy.run_path(str(ROOT / "docs/site_hooks.py"))["on_page_markdown"]
    page = changed(text_of(ROOT / "docs/notebook.md"), page=None)
    cells = json.loads(text_of(ROOT / "docs/quickstart.ipynb"))["cells"]
    for cell in cells:
        text = "".join(cell["source"])
        assert (f"```python\n{text}\n```" if cell["cell_type"] == "code" else text) in page
    assert len(re.findall(r"^# ", FENCE.sub("", page), re.M)) == 1, "one title"
    assert "](quickstart.ipynb)" in page
    other = changed("[a](quickstart.ipynb) [README](../README.md) [list](../requirement.txt#x)")
    assert other == "[a](notebook.md) `README.md` list (`requirement.txt`)"


@every_present_page
def test_files_that_are_named_exist(page):
    missing = {name for code in code_of(page) for name in FILE.findall(code) if not _exists(page, name)}
    assert not missing


def _exists(page: Path, name: str) -> bool:
    return (ROOT / name).exists() or (page.parent / name).exists()


@every_present_page
def test_commands_name_programs_and_flags_that_exist(page):
    for code in code_of(page):
        for program, rest in PROGRAM.findall(code):
            assert (ROOT / program).is_file(), f"{program}: there is no such file"
            unknown = set(FLAG.findall(rest))
            unknown -= flags_of(program) if unknown else set()
            assert not unknown, f"{program} does not know {unknown}"
        for launcher, rest in LAUNCHER.findall(code):
            known = re.search(r'^FLAGS="(.*)"$', (ROOT / "scripts/launch_common.sh").read_text(), re.M)[1]
            unknown = set(FLAG.findall(rest)) - {*known.split(), *("--demo", "--max-restarts")[: "train" in launcher]}
            assert not unknown, f"{launcher}.sh does not know {unknown}"


@every_present_page
def test_options_that_are_set_exist(page):
    settings = {key for code in code_of(page) if "--set" in code for key in SETTING.findall(code.split("--set", 1)[1])}
    unknown = {key for key in settings if ANY_BLOCK.sub(".train|test.", key) not in known_options()}
    assert not unknown


def test_pages_that_programs_and_options_name_exist():
    sources = [path for top in TOPS if top.name != "tests" for path in (top, *top.rglob("*"))]
    for path in sources:
        if path.suffix in (".py", ".sh", ".json") and path.is_file():
            missing = [name for name in re.findall(r"docs/[\w.]+\.md", text_of(path)) if not (ROOT / name).exists()]
            assert not missing, f"{path} names {missing}"
