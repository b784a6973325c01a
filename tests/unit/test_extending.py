"""The additions that docs/extending.md shows: each is small, runs, and keeps to the contract of its kind."""

import importlib
import re
import runpy
from pathlib import Path

import pytest
from contracts import CHECKS, check

ROOT = Path(__file__).resolve().parents[2]
MOST_LINES = 25
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## An? (.+?)\n(.+?)(?=^## |\Z)", PAGE, re.M | re.S))
LINE = re.compile(r"^- in `(\w+)` of `([\w/.]+)`:\s+`(.+)`$", re.M)


def test_every_kind_has_its_example():
    assert SECTIONS.keys() == CHECKS.keys()


@pytest.mark.parametrize("kind", CHECKS)
def test_the_example_runs_and_keeps_to_the_contract(kind, tmp_path, monkeypatch, shared_set):
    code = re.search(r"^```python\n(.+?)^```", SECTIONS[kind], re.M | re.S)[1]
    lines = LINE.findall(SECTIONS[kind])
    assert len(lines) == 2
    assert len([line for line in code.splitlines() if line.strip()]) + len(lines) <= MOST_LINES
    (tmp_path / "part.py").write_text(code, encoding="utf-8")
    part, added = runpy.run_path(str(tmp_path / "part.py")), ""
    for table, path, entry in lines:
        if not table.isupper():  # an option that lists its names
            name = re.escape(table)
            assert re.search(rf"^    {name}: .*\n?.*Literal\[", (ROOT / path).read_text(encoding="utf-8"), re.M)
            assert entry.strip('"') == added
            continue
        module = importlib.import_module(path.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
        (tmp_path / "entry.py").write_text(f"ADDED = {{{entry}}}", encoding="utf-8")
        (added, value), *more = runpy.run_path(str(tmp_path / "entry.py"), {**vars(module), **part})["ADDED"].items()
        assert not more
        assert added not in getattr(module, table)
        monkeypatch.setitem(getattr(module, table), added, value)
    check(kind, added, shared_set)
