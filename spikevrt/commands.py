"""The commands that an installation brings: the programs of the project by name, from any folder."""

import runpy

from spikevrt import UserError

_ABOVE = UserError.__module__.removesuffix("utils.utils_error")  # "spikevrt." if installed, "" in a checkout


def _run(program: str) -> None:
    runpy.run_module(_ABOVE + program, run_name="__main__")


def train() -> None:
    """spikevrt-train: main_train_vrt.py."""
    _run("main_train_vrt")


def test() -> None:
    """spikevrt-test: main_test_vrt.py."""
    _run("main_test_vrt")


def spike() -> None:
    """spikevrt-spike: scripts/spike.py."""
    _run("scripts.spike")


def doctor() -> None:
    """spikevrt-doctor: scripts/doctor.py."""
    _run("scripts.doctor")
