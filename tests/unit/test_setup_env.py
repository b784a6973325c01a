"""The set-up in a small checkout of its own, whose only requirement is a package made here: no network."""

import contextlib
import os
import re
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
# Makes an environment of this Python in no time, and installs `probe` and `needed`, which `probe` needs, unless their
# metadata is there, as uv does. $KILL_IN is where it dies, with the set-up that called it.
UV = """
import os, signal, sys
from pathlib import Path

def die_in(place):
    if os.environ.get("KILL_IN") == place:
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

root, words = Path(os.environ["HOME"]), sys.argv[1:]
shown = [*words, *(f"{name}={os.environ.get(name, '')}" for name in ("UV_TORCH_BACKEND", "PIP_EXTRA_INDEX_URL"))]
with (root / "calls").open("a") as calls:
    print(*shown, file=calls)
venv = root / ".venv"
packages = venv / "lib" / f"python3.{sys.version_info[1]}" / "site-packages"
if words[0] == "venv":
    packages.mkdir(parents=True)
    (venv / "bin").mkdir()
    (venv / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
    die_in("venv")
    (venv / "pyvenv.cfg").write_text(f"home = {Path(os.path.realpath(sys.executable)).parent}")
    sys.exit()
for name in ("probe", "needed"):
    info = packages / f"{name}-2.0.dist-info"
    if not info.exists():
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\\nName: {name}\\nVersion: 2.0\\n")
        (info / "RECORD").write_text(f"{name}.py,,5\\n{info.name}/RECORD,,\\n")
        if name == "needed":
            die_in("packages")
        (packages / f"{name}.py").write_text("x = 1")
"""
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

    def add_uv(self) -> None:
        (self.root / "uv.py").write_text(UV)
        self.executable("uv", f'exec "{os.path.realpath(sys.executable)}" "{self.root}/uv.py" "$@"')

    @property
    def uv_calls(self) -> list[str]:
        return (self.root / "calls").read_text().splitlines()

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


@pytest.mark.parametrize("place", ["venv", "packages"])
def test_a_set_up_that_was_killed_is_finished_by_the_same_command(checkout, place):
    checkout.add_uv()
    code, out, _ = checkout.run(KILL_IN=place)
    assert (code, out) == (137, "")
    venv_python = str(checkout.root / ".venv" / "bin" / "python")
    code, out, err = checkout.run()
    assert (code, out) == (0, venv_python), err
    assert ("needed-2.0 is incomplete" in err) == (place == "packages")
    assert "probe-2.0 is incomplete" not in err
    subprocess.run([venv_python, "-c", "import probe, needed"], check=True)
    assert sum(call.startswith("venv") for call in checkout.uv_calls) == (2 if place == "venv" else 1)
    assert checkout.run() == (0, venv_python, "")


def test_exact_versions_are_installed_beside_any_other_environment(checkout):
    checkout.add_uv()
    (checkout.root / "requirement.txt").write_text("pytest>=1\n")  # which this Python has
    (checkout.root / "requirement.lock").write_text("pytest==9.0.0\n")
    ready = sys.prefix
    assert checkout.run(VIRTUAL_ENV=ready)[1] == f"{ready}/bin/python"
    venv_python = str(checkout.root / ".venv" / "bin" / "python")
    for _ in range(2):
        assert checkout.run(VIRTUAL_ENV=ready, SETUP_LOCK="1")[:2] == (0, venv_python)
    assert len(checkout.uv_calls) == 2
    root = checkout.root
    assert f"-r {root}/requirement.txt -c {root}/requirement.lock " in checkout.uv_calls[1]
    (root / "requirement.txt").write_text("pytest>=2\n")  # without the lock other versions may come now
    assert checkout.run(PATH=f"{root}/bin", PYTHON=sys.executable, SETUP_LOCK="1")[2].startswith(
        "note: SETUP_LOCK has no"
    )
    (root / "bin/python3").unlink()
    assert checkout.run()[:2] == (0, venv_python)
    assert not (root / ".venv" / "installed_requirement.lock").exists()


def test_without_cuda_by_uv_or_by_an_index_that_pip_is_given(checkout):
    code, _, said = checkout.run(SETUP_CPU="1")
    assert (code, "expected it in PIP_EXTRA_INDEX_URL; set it, or install uv" in said) == (2, True)
    assert not (checkout.root / ".venv").exists()
    checkout.add_uv()
    assert checkout.run(SETUP_CPU="1")[0] == 0
    assert "UV_TORCH_BACKEND=cpu" in checkout.uv_calls[-1]


def test_uv_brings_a_python_where_there_is_none(tmp_path):
    checkout = Checkout(tmp_path, python=False)
    checkout.add_uv()
    assert checkout.run()[0] == 0
    assert "--python 3.12" in checkout.uv_calls[0]


def test_an_active_environment_that_is_left_alone_is_named_once_with_its_reason(checkout):
    checkout.add_uv()
    env = checkout.root / "env"
    (env / "bin").mkdir(parents=True)
    (env / "bin" / "python").symlink_to(checkout.root / "bin/python3")
    note = (
        f"note: {env} is active, but not used: missing probe>=1.2; to use it, install requirement.txt there "
        "(pip install -r)\n"
    )
    assert note in checkout.run(CONDA_PREFIX=str(env))[2]
    assert checkout.run(CONDA_PREFIX=str(env))[2] == ""


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


def test_the_developers_list_is_added_to_the_users_venv(checkout):
    checkout.add_uv()
    venv_python = str(checkout.root / ".venv" / "bin" / "python")
    (checkout.root / "requirement-dev.txt").write_text("needed>=2\n")
    assert checkout.run()[:2] == (0, venv_python)
    code, out, err = checkout.run(SETUP_DEV="1")
    assert (code, out) == (0, venv_python)
    assert "requirement-dev.txt" in err
    lists = [f"-r {checkout.root}/{name}" for name in LISTS]
    assert [[text in call for text in lists] for call in checkout.uv_calls[1:]] == [[True, False], [True, True]]
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


def test_the_lock_has_one_version_of_each_requirement_for_any_python():
    text = (ROOT / "requirement.lock").read_text()
    assert re.search(r"^# +uv pip compile .*requirement.txt -o requirement.lock$", text, re.MULTILINE)
    assert "://" not in text
    pins: dict[str, list[str]] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, _, version = line.partition(";")[0].strip().partition("==")
            pins.setdefault(name, []).append(version)
    for line in (ROOT / "requirement.txt").read_text().split():
        name, lowest = line.split(">=")
        release = check_requirements.release
        assert pins[name]
        assert all(release(version) >= release(lowest) for version in pins[name]), name


def test_a_package_is_whole_with_all_its_files_in_their_sizes(tmp_path):
    info = tmp_path / "probe-1.dist-info"
    info.mkdir()
    assert not check_requirements.is_whole(info)
    (tmp_path / "probe.py").write_text("x = 1")
    (tmp_path / "a, b.txt").write_text("")
    record = 'probe.py,sha256=x,5\n__pycache__/probe.pyc,,\n"a, b.txt",sha256=y,0\nprobe-1.dist-info/RECORD,,\n'
    (info / "RECORD").write_text(record)
    assert check_requirements.is_whole(info)
    (info / "RECORD").write_text(record + "other.py,sha2")
    assert not check_requirements.is_whole(info)
    (info / "RECORD").write_text(record)
    (tmp_path / "probe.py").write_text("x =")
    assert not check_requirements.is_whole(info)
    (tmp_path / "probe.py").unlink()
    assert not check_requirements.is_whole(info)


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
