"""Data sets that many tests read: one that stays as it is, and a copy for those that spoil it."""

import shutil

import pytest
from tiny_set import make_set


@pytest.fixture(scope="session")
def shared_set(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("set"))


@pytest.fixture
def own_set(tmp_path, shared_set):
    return shutil.copytree(shared_set, tmp_path / "set")
