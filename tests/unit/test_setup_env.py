"""The set-up in a small checkout of its own, whose only requirement is a package made here: no network."""

import contextlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import check_requirements

ROOT = Path(__file__).resolve().parents[2]
LISTS = ("requirement.txt", "requirement-dev.txt")
TOOLS = ["bash", "cat", "cmp", "cp", "cut", "dirname", "flock", "grep", "mv", "rm", "sleep", "tail", "tee"]


class Checkout:
    """A copy of the set-up script that asks for the package `probe`, and a PATH with nothing but what it needs."""

    def __init__(self, root: Path, python: bool = True) -> None:
        self.root = root
        (root / "scripts").mkdir()
        for name in ("setup_env.sh", "shell_lib.sh", "check_requirements.py"):
            shutil.copy(ROOT / "scripts" / name, root / "scripts" / name)
        (root / "requirement.txt").write_text("probe>=1.2\n")
        (root / "requirement-dev.txt").write_text("pytest>=1\n")
        (root / "bin").mkdir()
        for name in TOOLS:
            if path := shutil.which(name):
                (root / "bin" / name).symlink_to(path)
        if python:
            self.executable("python3", f'exec "{os.path.realpath(sys.executable)}" "$@"')
        self.env = {"PATH": str(root / "bin"), "HOME": str(root), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(root)}

    def executable(self, name: str, command: str) -> Path:
        path = self.root / "bin" / name
        path.write_text(f"#!{shutil.which('bash')}\n{command}\n")
        path.chmod(0o755)
        return path

    def add_wheel(self, version: str) -> None:
        info = f"probe-{version}.dist-info"
        with zipfile.ZipFile(self.root / f"probe-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr("probe.py", "")
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: probe\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")

    def start(self, **env: str) -> subprocess.Popen[str]:
        script = [str(self.root / "scripts" / "setup_env.sh")]
        pipe = subprocess.PIPE
        return subprocess.Popen(script, env=self.env | env, stdout=pipe, stderr=pipe, text=True)

    def run(self, **env: str) -> tuple[int, str, str]:
        process = self.start(**env)
        out, err = process.communicate(timeout=120)
        return process.returncode, out.strip(), err


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@contextlib.contextmanager
def no_python(*pythons: Path) -> Iterator[None]:
    """Put programs that fail in the place of Pythons."""
    for python in pythons:
        python.rename(python.with_name("kept"))
        python.write_text("#!/bin/sh\nexit 1\n")
        python.chmod(0o755)
    yield
    for python in pythons:
        python.with_name("kept").rename(python)


@pytest.mark.slow
def test_first_start_fills_a_venv_and_later_ones_do_nothing(checkout):
    venv_python = str(checkout.root / ".venv" / "bin" / "python")
    code, _, err = checkout.run()
    assert code == 1
    assert "probe" in err.splitlines()[-1]
    assert "install.log" in err.splitlines()[-1]

    # An installation that failed or was interrupted is done again; of two starts at once only one installs.
    checkout.add_wheel("1.10.0")
    both = [checkout.start(), checkout.start()]
    results = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert [out.strip() for out, _ in results] == [venv_python] * 2
    if shutil.which("flock"):
        assert sum("installing the packages" in err for _, err in results) == 1
    assert (checkout.root / ".venv" / "installed_requirement.txt").read_text() == "probe>=1.2\n"

    # Later starts are quick: they start no Python.
    with no_python(Path(venv_python), checkout.root / "bin/python3"):
        assert checkout.run() == (0, venv_python, "")

    # New requirements are noticed.
    (checkout.root / "requirement.txt").write_text("probe>=2\n")
    checkout.add_wheel("2.0")
    code, out, err = checkout.run()
    assert (code, out) == (0, venv_python)
    assert "installing the packages" in err
    assert (checkout.root / ".venv" / "installed_requirement.txt").read_text() == "probe>=2\n"


def test_given_python_must_satisfy_the_requirements(checkout):
    python = str(checkout.root / "bin" / "python3")
    code, out, err = checkout.run(PYTHON=python)
    assert (code, out) == (2, "")
    assert "missing probe>=1.2" in err
    assert f"see {python} scripts/doctor.py" in err
    assert err.count("\n") == 1
    (checkout.root / "requirement.txt").write_text("pytest>=1\n")
    assert checkout.run(PYTHON=sys.executable) == (0, sys.executable, "")
    assert not (checkout.root / ".venv").exists()


def test_only_developers_need_their_list(checkout):
    (checkout.root / "requirement.txt").write_text("pytest>=1\n")
    (checkout.root / "requirement-dev.txt").write_text("no-such-tool>=3\n")
    assert checkout.run(PYTHON=sys.executable)[0] == 0
    code, _, err = checkout.run(PYTHON=sys.executable, SETUP_DEV="1")
    assert code == 2
    assert "missing no-such-tool>=3" in err


@pytest.mark.slow
def test_the_developers_list_is_added_to_the_users_venv(checkout):
    venv_python = str(checkout.root / ".venv" / "bin" / "python")
    (checkout.root / "requirement-dev.txt").write_text("probe>=2\n")
    checkout.add_wheel("1.10")
    assert checkout.run()[:2] == (0, venv_python)
    checkout.add_wheel("2.0")
    code, out, err = checkout.run(SETUP_DEV="1")
    assert (code, out) == (0, venv_python)
    assert "requirement-dev.txt" in err
    with no_python(Path(venv_python), checkout.root / "bin/python3"):  # both kinds of start are quick now
        assert checkout.run() == checkout.run(SETUP_DEV="1") == (0, venv_python, "")


def test_a_search_path_of_cd_changes_no_folder(checkout):
    (checkout.root / "requirement.txt").write_text("pytest>=1\n")
    given = checkout.env | {"CDPATH": ".", "PYTHON": sys.executable}
    done = subprocess.run(["scripts/setup_env.sh"], cwd=checkout.root, env=given, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{sys.executable}\n", "")


def test_given_python_that_cannot_run(checkout):
    old = checkout.executable("old", "exit 1")
    assert checkout.run(PYTHON="/none/python")[0] == 2
    code, _, err = checkout.run(PYTHON=str(old))
    assert code == 2
    assert "3.10" in err


def test_active_environment_is_used_where_it_satisfies(checkout):
    env = checkout.root / "env"
    (env / "bin").mkdir(parents=True)
    python = env / "bin" / "python"
    python.symlink_to(checkout.executable("good", "exit 0"))
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        assert checkout.run(**{variable: str(env)}) == (0, str(python), "")


def test_no_python_at_all(tmp_path):
    code, _, err = Checkout(tmp_path, python=False).run()
    assert code == 2
    assert "no Python 3.10" in err
    assert err.count("\n") == 1


def test_requirements_are_lower_bounds():
    lines = [line for name in LISTS for line in (ROOT / name).read_text().split()]
    assert all(line.count(">=") == 1 for line in lines)
    assert len({line.split(">=")[0] for line in lines}) == len(lines)


@pytest.mark.parametrize(
    ("version", "numbers"),
    [("2.8.0+cu128", (2, 8)), ("2.10", (2, 10)), ("1.0.0a1", (1,)), ("2.15.0.dev20260101", (2, 15)), ("x", ())],
)
def test_release_numbers(version, numbers):
    assert check_requirements.release(version) == numbers


def test_missing_and_too_old_packages():
    found = check_requirements.missing("pytest>=1\npytest>=999\nno-such-package>=1.0\n")
    assert [problem.split()[0] for problem in found] == ["pytest>=999", "no-such-package>=1.0"]


def test_packages_that_bring_the_same_module(monkeypatch):
    def version(name: str) -> str:
        if name == "opencv-contrib-python":
            return "4.10.0"
        raise check_requirements.metadata.PackageNotFoundError

    monkeypatch.setattr(check_requirements.metadata, "version", version)
    assert check_requirements.missing("opencv-python-headless>=4.9") == []
