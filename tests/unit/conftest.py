"""What many tests need: a data set that stays as it is, a copy for those that spoil it, and what the program says."""

import logging
import shutil

import pytest


@pytest.fixture(scope="session")
def shared_set(tmp_path_factory):
    from tiny_set import make_set  # here: what needs no data set starts without torch

    return make_set(tmp_path_factory.mktemp("set"))


@pytest.fixture
def own_set(tmp_path, shared_set):
    return shutil.copytree(shared_set, tmp_path / "set")


@pytest.fixture
def heard(caplog, monkeypatch):
    """The program's log, as pytest's `caplog`."""
    monkeypatch.setattr(logging.getLogger("spikevrt"), "propagate", True)
    caplog.set_level("INFO", "spikevrt")
    return caplog
