"""The project's version: said once, written into what is made, and no reason to refuse what another one made."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import torch
from trainee import Trainee

import main_train_vrt
from options.schema import Opt
from utils import __version__, utils_dist
from utils.checkpoint import run_checkpoints
from utils.report import metric_files, page_template, results_folder

ROOT = Path(__file__).resolve().parents[2]
OTHER = "0.0.9"
RECORD = {"weights": "abc", "clips": {}}


def test_it_is_said_once_and_the_changes_lead_up_to_it():
    assert 'version = { attr = "utils.__version__" }' in (ROOT / "pyproject.toml").read_text()
    newest = re.search(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest[1] == __version__


def test_checkpoints_have_it_and_those_of_another_one_are_resumed(tmp_path, monkeypatch):
    opt = Opt.model_validate({"task": "t", "path": {"root": str(tmp_path)}})
    training = SimpleNamespace(opt=opt, model=Trainee(), dist=utils_dist.Dist())
    main_train_vrt.Saver(training, 0).save(1)
    state = torch.load(opt.run_dir / "models" / "1_state.pth", weights_only=True)
    assert state["record"]["version"] == __version__
    monkeypatch.setattr(main_train_vrt, "__version__", OTHER)
    main_train_vrt.Saver(training, 1).save(2)
    found = run_checkpoints.resume(opt.run_dir, Trainee(seed=1), opt.model_dump(mode="json"))
    assert (found.step, found.record["version"], found.changes) == (2, OTHER, ())


def test_results_have_it_and_those_of_another_one_are_gone_on_with(tmp_path, monkeypatch):
    results_folder.begin(tmp_path, RECORD, [])
    assert json.loads((tmp_path / "run.json").read_text())["version"] == __version__
    monkeypatch.setattr(results_folder, "__version__", OTHER)
    results_folder.begin(tmp_path, RECORD, [])
    assert json.loads((tmp_path / "run.json").read_text())["version"] == OTHER
    assert results_folder.check_same(tmp_path, RECORD)


def test_metrics_and_pages_have_it(tmp_path):
    metric_files.write_metrics({"mean": {}, "clips": {}, "frames": []}, tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["version"] == __version__
    assert f"made with Spike-VRT {__version__}</footer>" in page_template.render("page.html", title="t")
