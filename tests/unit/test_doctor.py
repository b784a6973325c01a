"""The doctor: what it says of a machine, libraries, data and weights that are whole, missing, old or broken."""

import ast
import errno
import getpass
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tiny_set import make_set

from data import shared_memory
from scripts import doctor, doctor_probes
from utils import utils_cli, utils_video, utils_zoo
from utils.report.doctor_page import Line, anonymous, text_of

ROOT = Path(__file__).resolve().parents[2]
# Package -> version and source of its module; the list asks for 2.
PACKAGES = {
    "fine": ("2.0", "print('a library that talks', end='')"),
    "old": ("1.9", ""),
    "broken": ("2.1", "raise OSError('libfar.so: cannot open shared object file\\nsee the manual')"),
    "crashing": ("2.2", "import os\nos.kill(os.getpid(), 11)"),
    "leaving": ("2.3", "import sys\nsys.exit(0)"),
    "torch": ("2.9", "raise ImportError('no libtorch.so in ' + __file__)"),
}


class Checkout:
    """A checkout with a list of its own, and packages that fail in all ways."""

    def __init__(self, root: Path) -> None:
        self.root, self.home = root / "home" / "spike-vrt", root / "home"
        (self.root / "scripts").mkdir(parents=True)
        for name in ("scripts/doctor.py", "scripts/doctor_probes.py", "scripts/check_requirements.py"):
            shutil.copy(ROOT / name, self.root / name)
        for name in ("data", "models", "options", "utils"):
            (self.root / name).symlink_to(ROOT / name)
        for name, (version, source) in PACKAGES.items():
            info = self.home / "site" / f"{name}-{version}.dist-info"
            info.mkdir(parents=True)
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            (self.home / "site" / f"{name}.py").write_text(source)
        self.require("absent", *PACKAGES)
        (self.root / "requirement-dev.txt").write_text("no-such-tool>=1\n")
        self.env = os.environ | {
            "HOME": str(self.home),
            "PYTHONPATH": str(self.home / "site"),
            "PYTHON": sys.executable,
        }

    def require(self, *names: str) -> None:
        (self.root / "requirement.txt").write_text("".join(f"{name}>=2\n" for name in names))

    def run(self, *words: str, **more) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(self.root / "scripts" / "doctor.py"), *words]
        given = {"cwd": "/", "env": self.env, "capture_output": True, "text": True, "check": False}
        return subprocess.run(command, **(given | more))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return Checkout(tmp_path_factory.mktemp("doctor"))


@pytest.fixture(scope="module")
def sick(checkout):
    """(JSON, lines by name) of that checkout, from another folder."""
    done = checkout.run("--json")
    assert (done.returncode, done.stderr) == (1, "")
    told = json.loads(done.stdout)
    return done.stdout, {line["name"]: line for line in told["lines"]}


@pytest.mark.parametrize(
    ("name", "state", "found"),
    [
        ("fine", "ok", "2.0"),
        ("absent", "red", "not installed, expected 2 or newer"),
        ("old", "red", "1.9 is too old, expected 2 or newer"),
        ("broken", "red", "2.1 cannot be imported: OSError: libfar.so: cannot open shared object file"),
        ("crashing", "red", "2.2 cannot be imported: the process was ended by signal 11 (SIGSEGV)"),
        ("leaving", "red", "2.3 cannot be imported: the process ended with exit code 0"),
        ("torch", "red", "2.9 cannot be imported: ImportError: no libtorch.so in ~/site/torch.py"),
    ],
)
def test_each_library_is_one_line_whatever_it_does(sick, name, state, found):
    line = sick[1][name]
    assert (line["state"], line["found"][: len(found)]) == (state, found)
    assert bool(line["fix"]) == (state == "red")


def test_what_will_not_work_is_said_of_each(sick):
    assert sick[1]["torch"]["effect"] == "networks: training, testing, restoring"
    assert all(line["effect"] for line in sick[1].values() if line["state"] != "ok")


@pytest.mark.parametrize(
    ("prefix", "again", "command"),
    [
        ("bare", False, "./scripts/setup_env.sh"),
        ("bare", True, 'python -m pip install --force-reinstall "a>=1" "b>=2"'),
        ("environment", False, 'python -m pip install "a>=1" "b>=2"'),
        (".venv", False, "./scripts/setup_env.sh"),  # its installation was interrupted
    ],
)
def test_what_to_type_for_a_library(monkeypatch, tmp_path, prefix, again, command):
    monkeypatch.setattr(doctor, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(sys, "executable", "python")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / prefix))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path / "bare"))
    assert doctor.install(["a>=1", "b>=2"], again) == command


def test_what_needs_a_broken_library_points_to_it(sick):
    for name in ("GPU", "Triton", "weights"):
        line = sick[1][name]
        assert (line["state"], line["fix"]) == ("warning", sick[1]["absent"]["fix"])
        assert line["found"] == "not checked: ImportError: no libtorch.so in ~/site/torch.py"


def test_a_bug_report_names_no_home_host_or_user(sick, checkout, monkeypatch):
    assert str(checkout.home) not in sick[0]
    for name, value in (("HOME", "/srv/ann"), ("LOGNAME", "ann")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(socket, "gethostname", lambda: "box7")
    text = f"/home/eve/x {ROOT}/a/b {ROOT} /srv/ann/c box7 /data/ann/d /srv/anna"
    assert anonymous(Line("box7", "ok", text))[2] == "~/x a/b . ~/c HOST /data/USER/d /srv/anna"


def test_the_page_has_no_traceback_and_no_colour_for_a_pipe(checkout):
    checkout.require("absent", "fine")
    done = checkout.run()
    assert (done.returncode, done.stderr) == (1, "")
    assert "Traceback" not in done.stdout
    assert "\033" not in done.stdout
    assert "red      absent                 not installed, expected 2 or newer; will not work: " in done.stdout
    assert re.search(r"^ {32}type: \S+", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(("no_colour", "shown"), [("", "\033[31mred     \033[0m a"), ("1", "red      a")])
def test_colours_on_a_terminal(capsys, monkeypatch, no_colour, shown):
    monkeypatch.setenv("NO_COLOR", no_colour)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    doctor.show("part", [Line("a", "red", "gone", effect="all", fix="mend")], quiet=False)
    assert capsys.readouterr().out.splitlines()[2].startswith(shown)


def test_a_python_without_packages_hands_over_to_the_venv(checkout):
    python = checkout.root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\n[ "$1" = -c ] || echo "in .venv: $*"\n')
    python.chmod(0o755)
    env = {key: value for key, value in checkout.env.items() if key != "PYTHON"}
    assert checkout.run("--json", env=env).stdout == f"in .venv: {checkout.root}/scripts/doctor.py --json\n"
    python.write_text("#!/bin/sh\nexit 1\n")
    assert "absent" in {line["name"] for line in json.loads(checkout.run("--json", env=env).stdout)["lines"]}
    shutil.rmtree(checkout.root / ".venv")


@pytest.mark.parametrize("version", [(3, 6, 15, "final", 0), (3, 9, 18, "final", 0)])
def test_an_older_python_is_told_in_words(capsys, monkeypatch, version):
    source = (ROOT / "scripts/doctor.py").read_text()
    ast.parse(source, feature_version=version[:2])
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(SystemExit) as stop:
        exec(compile(source, "doctor.py", "exec"), {"__name__": "__main__"})  # noqa: S102
    assert stop.value.code == 1
    assert f"Python is 3.{version[1]}, expected 3.10 or newer" in capsys.readouterr().out


def test_a_program_that_lacks_a_library_names_the_doctor(capsys):
    with pytest.raises(SystemExit), utils_cli.program():
        raise ModuleNotFoundError("No module named 'torch'")
    assert "No module named 'torch' (--debug shows where); see python3 scripts/doctor.py\n" in capsys.readouterr().err


def test_every_requirement_has_its_use():
    assert doctor.needed("requirement.txt").keys() == doctor.LIBRARIES.keys()


@pytest.mark.parametrize(("mib", "state"), [(2048, "ok"), (512, "warning"), (32, "red")])
def test_little_shared_memory(monkeypatch, mib, state):
    monkeypatch.setattr(shared_memory, "free_bytes", lambda: mib * 2.0**20)
    line = doctor.shm()
    assert line.state == state
    assert ("--shm-size" in line.fix) == (state != "ok")


def test_what_the_system_does_not_tell_is_a_line(monkeypatch):
    def refused():
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shared_memory, "free_bytes", refused)
    line = next(line for line in doctor.machine() if line.name == "shm")
    assert (line.state, line.found) == ("warning", "cannot be read ([Errno 13] Permission denied)")


@pytest.mark.parametrize("where", ["made", "written"])
def test_a_full_disk_is_told_as_such(monkeypatch, where):
    def full(*args, **given):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*((tempfile, "TemporaryDirectory") if where == "made" else (utils_video, "write_video")), full)
    line, _ = doctor_probes.video()
    assert (line.name, line.state) == ("video writing", "red")
    assert "No space left on device" in line.found
    assert "TMPDIR" in line.fix


@pytest.mark.parametrize("name", ["home", "shared memory", "programs", "memory"])
def test_what_cannot_be_looked_at_never_ends_the_page(monkeypatch, name):
    def refused(*args, **given):
        raise PermissionError(13, "Permission denied")

    if name == "home":
        monkeypatch.setenv("HOME", "/root/none")
        monkeypatch.setattr(os.path, "realpath", str)
        monkeypatch.setattr(getpass, "getuser", refused)
    elif name == "programs":
        monkeypatch.setenv("PATH", "")
    else:
        monkeypatch.setattr(Path, "is_dir" if name == "shared memory" else "read_text", refused)
    lines = list(map(anonymous, doctor.machine()))
    assert len(lines) == 7
    assert all(line.found for line in lines)


def test_a_data_set_that_may_not_be_read_is_a_line(project, monkeypatch):
    (project / "datasets/closed").mkdir(parents=True)

    def refused(root, split):
        raise PermissionError(13, "Permission denied", str(root))

    monkeypatch.setattr(doctor_probes, "_block", refused)
    lines = doctor_probes.sets()
    assert [(line.name, line.state) for line in lines] == [("datasets", "red"), ("datasets/closed", "red")]
    assert "Permission denied" in lines[1].found


@pytest.mark.parametrize(
    ("command", "installed"),
    [
        (
            f"./launch_train.sh --demo, or {doctor_probes.PREPARE}",
            "python -m spikevrt.scripts.data_preparation.make_demo",
        ),
        ("python scripts/summary.py --opt CONFIG.json", "python -m spikevrt.scripts.summary --opt CONFIG.json"),
        ("python scripts/doctor.py --json", "spikevrt-doctor --json"),
        ("main_test_vrt.py --task guide", "spikevrt-test --task guide"),
        ("./launch_train.sh with x.json", "spikevrt-train with x.json"),
        ("git checkout model_zoo options", "python -m pip install --force-reinstall --no-deps CLONE"),
    ],
)
def test_an_installed_copy_names_its_own_commands(monkeypatch, command, installed):
    line = Line("a", "red", "gone", effect=command, fix=command)
    assert anonymous(line)[3:5] == (command, command)
    monkeypatch.setattr(utils_zoo, "IS_CHECKOUT", False)
    for text in anonymous(line)[3:5]:
        assert text.startswith(installed)
        assert not re.search(r"\./|\.py|git checkout", text)


@pytest.mark.parametrize(
    ("program", "state", "found"),
    [
        ("echo '550.54, NVIDIA H200, 143771 MiB'", "ok", "NVIDIA 550.54: NVIDIA H200, 143771 MiB"),
        ("echo 'Driver/library version mismatch'; exit 18", "red", "nvidia-smi: Driver/library version mismatch"),
    ],
)
def test_the_driver(tmp_path, monkeypatch, program, state, found):
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{program}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert doctor.driver()[:3] == ("GPU driver", state, found)


def test_a_command_is_said_once_for_lines_that_share_it():
    lines = [Line(name, "red", "gone", effect="all", fix="mend") for name in "ab"]
    assert "type" not in text_of(lines[0], lines[1], colour=False)
    assert text_of(lines[1], None, colour=False).endswith("type: mend")


# Data sets and weights


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "options").symlink_to(ROOT / "options")
    return tmp_path


def test_no_data_set(project):
    (line,) = doctor_probes.sets()
    assert line[:3] == ("data sets", "warning", "none in datasets/")
    assert "--demo" in line.fix


def test_data_sets_are_found_and_their_defects_named(project):
    root = make_set(project / "datasets/mine")
    for name, place in (("lq", "train_GT_blurred"), ("gt", "train_GT"), ("spikes", "GOPRO_Large_spike_seq")):
        (root / name).rename(root / place)
    (project / "datasets/download").mkdir()
    other, mine = doctor_probes.sets()
    assert mine[:3] == ("datasets/mine", "ok", "train: 2 clips, 10 frames, with spikes")
    assert other[:2] == ("datasets/download", "warning")
    dat = root / "GOPRO_Large_spike_seq/train/clip_b/spike/000049.dat"
    dat.write_bytes(dat.read_bytes()[:-1])
    line = doctor_probes.sets()[1]
    assert line.state == "red"
    assert "clip_b" in line.found
    assert "check_data.py" in line.fix


def test_weights_are_read(project, monkeypatch):
    monkeypatch.setattr(utils_zoo, "ROOT", project)
    shutil.copytree(ROOT / "model_zoo/guide", project / "model_zoo/guide")
    guide, tiny, flow = doctor_probes.weights()
    assert (guide.name, guide.state, tiny.state) == ("guide", "ok", "ok")
    assert "0.63 M values, ships with the project" in guide.found
    assert (flow.name, flow.state) == ("optical flow", "warning")
    (project / utils_zoo.SHIPPED[0]).write_bytes(b"cut")
    (project / utils_zoo.SHIPPED[1]).unlink()
    for line, path in zip(doctor_probes.weights(), utils_zoo.SHIPPED, strict=False):
        assert (line.state, line.fix) == ("red", f"git checkout {path}")


@pytest.mark.slow
def test_this_machine():
    command = [sys.executable, str(ROOT / "scripts/doctor.py"), "--json"]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    told = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (int(told["count"]["red"] > 0), "")
    lines = {line["name"]: line for line in told["lines"]}
    for name in (*doctor.LIBRARIES, "video writing", "video reading", "Triton", "guide"):
        assert lines[name]["state"] == "ok", lines[name]
    assert all(line["effect"] and line["fix"] for line in told["lines"] if line["state"] != "ok")


def test_it_starts_where_no_package_is_installed():
    words = [sys.executable, "-I", "-S", str(ROOT / "scripts/doctor.py"), "--help"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--json" in done.stdout
