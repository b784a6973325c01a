"""What `pip install .` brings: a package built from a copy of the checkout, without network, and used elsewhere."""

import ast
import json
import os
import shutil
import subprocess
import sys
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

import restorer
import spikevrt
from utils import __version__

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("data", "model_zoo/guide", "models", "options", "scripts", "spikevrt", "utils")
MODULES = ("main_test_vrt.py", "main_train_vrt.py", "restorer.py")
LISTS = ("requirement.txt", "requirement-dev.txt")
SHIPPED = ("model_zoo/README.md", *LISTS)  # beside what lies in the folders
FILES = ("LICENSE", "README.md", "pyproject.toml", "setup.py", *SHIPPED)
COMMANDS = {"train": MODULES[1], "test": MODULES[0], "spike": "scripts/spike.py", "doctor": "scripts/doctor.py"}
HERE = [name for name, program in COMMANDS.items() if (ROOT / program).is_file()]
# The build is tried as in a checkout, where an older one left a module that is gone.
BUILD = """
import os, pathlib, shutil, sys, tarfile
from setuptools import build_meta
out = sys.argv[1]
source = build_meta.build_sdist(out)
with tarfile.open(f"{out}/{source}") as packed:
    packed.extractall(out)
os.chdir(f"{out}/{source.removesuffix('.tar.gz')}")
shutil.rmtree("spike_vrt.egg-info")
gone = pathlib.Path("build/lib/spikevrt/gone.py")
gone.parent.mkdir(parents=True)
gone.touch()
before = sorted(pathlib.Path().rglob("*"))
build_meta.get_requires_for_build_wheel()
build_meta.build_wheel(out)
assert sorted(pathlib.Path().rglob("*")) == before, "it leaves nothing"
"""
# Beside modules of an application: runs commands, each by its name and words, and writes its exit code.
CALLS = """
import json, sys
import utils, data
import spikevrt
from spikevrt import commands
assert (utils.mine, data.mine) == (1, 2)
print("VERSION", spikevrt.__version__, "torch" in sys.modules)
for name, *words in json.loads(sys.argv[1]):
    sys.argv, code = [f"/bin/spikevrt-{name}", *words], 0
    try:
        getattr(commands, name)()
    except SystemExit as end:
        code = end.code or 0
    sys.stderr.flush()
    print("CODE", code, flush=True)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, made from the archive of sources."""
    checkout, out = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("out")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (*FILES, *MODULES):
        shutil.copy(ROOT / name, checkout / name)
    built = subprocess.run([sys.executable, "-c", BUILD, str(out)], cwd=checkout, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder)
    return folder


@pytest.fixture
def application(tmp_path):
    (tmp_path / "utils.py").write_text("mine = 1")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "__init__.py").write_text("mine = 2")
    return tmp_path


def call(installed, application, *calls):
    """Returns exit codes, stdout, stderr."""
    command = [sys.executable, "-c", CALLS, json.dumps(calls)]
    env = os.environ | {"PYTHONPATH": str(installed), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=application, env=env, capture_output=True, text=True)
    codes = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("CODE")]
    return codes, done.stdout, done.stderr


def test_the_wheel_holds_every_module_and_file_below_one_name(wheel):
    with zipfile.ZipFile(wheel) as packed:
        found = {name for name in packed.namelist() if ".dist-info/" not in name}
    here = [path.relative_to(ROOT) for name in FOLDERS for path in (ROOT / name).rglob("*") if path.is_file()]
    wanted = [*SHIPPED, *MODULES, *(path.as_posix() for path in here if path.suffix not in (".pyc", ".sbatch", ".sh"))]
    assert found == {f"spikevrt/{name.removeprefix('spikevrt/')}" for name in wanted}


def test_its_modules_import_each_other_from_there_only(installed):
    ours = {name.partition("/")[0] for name in FOLDERS} | {Path(name).stem for name in MODULES}
    for path in (installed / "spikevrt").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not (ours - {"spikevrt"}) & {name.partition(".")[0] for name in names}, path


def test_what_the_wheel_needs_is_requirement_txt(installed):
    info = next(installed.glob("*.dist-info"))
    metadata = message_from_string((info / "METADATA").read_text(encoding="utf-8"))
    assert metadata["Version"] == __version__
    wanted, extra = ((ROOT / name).read_text().split() for name in LISTS)
    assert metadata.get_all("Requires-Dist") == wanted + [f'{line}; extra == "dev"' for line in extra]
    lines = [line for line in (info / "entry_points.txt").read_text().splitlines() if "=" in line]
    assert sorted(lines) == sorted(f"spikevrt-{name} = spikevrt.commands:{name}" for name in COMMANDS)


def test_the_commands_answer_beside_an_applications_own_modules(installed, application):
    missing = ["test", "--task", "spike_guide", "--folder_lq", "none", "--folder_spike", "s"]
    calls = [*([name, "--help"] for name in HERE), ["test", "--tusk"], missing, ["train", "--opt", "demo"]]
    codes, out, err = call(installed, application, *calls, ["train", "--opt", "demmo"])
    assert codes == [0] * len(HERE) + [2] * 4, err
    assert f"VERSION {__version__} False" in out
    assert all(f"usage: spikevrt-{name} " in out for name in HERE)
    errors = err.splitlines()
    assert len(errors) == 4
    assert "--folder_lq: none is not a folder" in errors[1]
    assert "datasets/demo/train_GT_blurred is not a folder" in errors[2]
    assert "demmo: no such file" in errors[3]


def test_its_doctor_looks_for_data_sets_where_it_was_called(installed, application):
    (application / "datasets/mine/train_GT_blurred").mkdir(parents=True)
    script = "from spikevrt.scripts import doctor; print(doctor.disk().state, *doctor.probed(['sets']))"
    env = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run([sys.executable, "-c", script], cwd=application, env=env, capture_output=True, text=True)
    assert "'name': 'datasets/mine'" in done.stdout, done.stderr
    assert not (installed / "spikevrt" / "datasets").exists()


@pytest.mark.slow
def test_it_restores_with_its_own_weights_and_writes_where_it_was_called(installed, application, shared_set):
    words = ["--folder_lq", str(shared_set / "lq"), "--folder_spike", str(shared_set / "spikes/train")]
    codes, _, err = call(installed, application, ["test", "--task", "spike_guide", *words])
    assert codes == [0], err
    report = (application / "results" / "spike_guide" / "report.html").read_text(encoding="utf-8")
    assert str(installed / "spikevrt" / "model_zoo" / "guide" / "guide.safetensors") in report


def test_in_a_checkout_it_is_the_same_modules(tmp_path):
    assert spikevrt.Restorer is restorer.Restorer
    assert spikevrt.__version__ == __version__
    with pytest.raises(AttributeError, match="spikevrt has no attribute Restore"):
        spikevrt.Restore  # noqa: B018
    # As `pip install -e` makes it known: by its own folder, not by the checkout's.
    (tmp_path / "spikevrt").symlink_to(ROOT / "spikevrt")
    script = "import spikevrt; from utils.utils_error import UserError; assert UserError is spikevrt.UserError"
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=env, check=True)
