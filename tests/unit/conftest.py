"""What many tests need: a data set that stays as it is, a copy for those that spoil it, and what the program says."""

import logging
import runpy
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def shared_set(tmp_path_factory):
    from tiny_set import make_set  # here: what needs no data set starts without torch

    return make_set(tmp_path_factory.mktemp("set"))


@pytest.fixture
def own_set(tmp_path, shared_set):
    return shutil.copytree(shared_set, tmp_path / "set")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The working folder, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def heard(caplog, monkeypatch):
    """The program's log, as pytest's `caplog`."""
    monkeypatch.setattr(logging.getLogger("spikevrt"), "propagate", True)
    caplog.set_level("INFO", "spikevrt")
    return caplog


@pytest.fixture
def run_program(monkeypatch, capsys):
    """Run a program of the project as `python PROGRAM WORDS...` does, but here: returns exit code, stdout, stderr."""

    def run(program, *words):
        monkeypatch.setattr(sys, "argv", [str(program), *map(str, words)])
        try:
            runpy.run_path(str(ROOT / program), run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    return run
