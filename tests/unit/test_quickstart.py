"""docs/quickstart.ipynb: its cells run in order, in a folder that has nothing but the checkout and a small demo set."""

import json
import sys
from pathlib import Path

import av
import pytest

from scripts.data_preparation.make_demo_dataset import Recipe, make_demo_dataset

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"


@pytest.fixture(scope="module")
def cells():
    """The notebook's cells, (type, text)."""
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert content["nbformat"] == 4
    return [(cell["cell_type"], "".join(cell["source"])) for cell in content["cells"]]


def test_the_notebook_is_small_and_has_no_outputs():
    assert NOTEBOOK.stat().st_size < 30_000
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


def test_its_links_lead_somewhere(cells):
    text = "".join(text for kind, text in cells if kind == "markdown")
    links = [part.split(")")[0] for part in text.split("](")[1:]]
    assert links
    assert [link for link in links if not (NOTEBOOK.parent / link).is_file()] == []


def test_its_cells_restore_a_slow_motion(cells, tmp_path, monkeypatch, capsys):
    for entry in ROOT.iterdir():
        if entry.suffix == ".py" or entry.name in ("data", "docs", "model_zoo", "options", "scripts", "utils"):
            (tmp_path / entry.name).symlink_to(entry)
    make_demo_dataset(tmp_path / "datasets/demo", Recipe(train_clips=1, test_clips=1, frames=3))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", [*sys.path])
    capsys.readouterr()
    names = {}
    for kind, text in cells:
        if kind == "code":
            exec(compile(text, NOTEBOOK.name, "exec"), names)  # noqa: S102 - the notebook is ours
    with av.open(str(names["video"])) as file:
        assert file.streams.video[0].frames == 4 * 14
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("instant")]
    assert len(lines) == 8
    assert all(float(line[6]) > float(line[3]) + 3 for line in lines), "each is far sharper than the blurred frame"
