"""The builders of tiny data sets lie beside the unit tests; what a failed test has started is ended."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))


@pytest.fixture(autouse=True)
def nothing_runs_on():
    from training_run import STARTED  # once sys.path has its folder

    yield
    while STARTED:
        STARTED.pop().end()
