"""One page on this machine: what is fine, what will not work, and what to type.

python scripts/doctor.py [--json]

Each line is ok, a warning (works, but slowly or in part) or red (does not work). Any Python can run it, with no package
installed. A Python without the project's packages hands over to .venv, as the launchers do. --json prints the same for
a bug report, without the names of host and user and the paths of home folders.
Exit code 0, or 1 if a line is red.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 - before the imports, which an older Python cannot read
    print("red  Python is {}.{}, expected 3.10 or newer; nothing of the project runs".format(*sys.version_info))
    print("     type: python3.12 scripts/doctor.py, or the name of another Python; if there is none, install one")
    sys.exit(1)

import json
import math
import os
import platform
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
sys.path.append(str(ROOT / "scripts"))
from check_requirements import installed, release

from data import shared_memory
from utils import __version__
from utils.processes import host_memory
from utils.processes.thread_count import usable_cores
from utils.report.doctor_page import MARK, OK, RED, WARNING, Line, anonymous, text_of
from utils.utils_cli import EXIT_FAILURE, Parser, program
from utils.utils_file import read_text
from utils.utils_zoo import IS_CHECKOUT, commit

VENV = ROOT / ".venv"
FOLDER = ROOT if IS_CHECKOUT else Path()  # where data sets and results lie
GIB = 2**30
PATIENCE = 120.0  # seconds that one part may take

# Name in requirement.txt -> the module to import, what needs it.
LIBRARIES = {
    "torch": ("torch", "networks: training, testing, restoring"),
    "torchvision": ("torchvision", "alignment on GPUs that cannot run Triton's kernels, ONNX files of VRT"),
    "einops": ("einops", "VRT's stages"),
    "numpy": ("numpy", "everything"),
    "opencv-python-headless": ("cv2", "reading, writing and resizing pictures"),
    "scikit-image": ("skimage", "the demo's pictures"),
    "scipy": ("scipy", "comparing runs"),
    "pillow": ("PIL", "sizes of pictures, comparison sheets"),
    "tensorboard": ("tensorboard", "training curves (logging.use_tensorboard)"),
    "wandb": ("wandb", "curves on Weights & Biases (logging.use_wandb)"),
    "lmdb": ("lmdb", "LMDB data sets"),
    "safetensors": ("safetensors", "the weights that ship"),
    "pydantic": ("pydantic", "option files: every program"),
    "json5": ("json5", "option files with comments: every program"),
    "pyyaml": ("yaml", "config.yaml of spike data"),
    "typing-extensions": ("typing_extensions", "reading training data"),
    "tqdm": ("tqdm", "progress bars"),
    "av": ("av", "reading and writing videos"),
    "jinja2": ("jinja2", "HTML reports"),
    "matplotlib": ("matplotlib", "curves in HTML reports"),
}
OPTIONAL = "scripts/check.sh and scripts/export_network.py"  # what needs requirement-dev.txt
# Part of doctor_probes.py -> title of its lines, what will not work and what to type if the part cannot be looked at.
PARTS = {
    "gpu": ("GPU", "any use of a GPU", "nvidia-smi (then update the driver, or install a PyTorch that fits it)"),
    "triton": ("Triton", "VRT's alignment", "export SPIKEVRT_DEFORM=torchvision (if it is about Triton)"),
    "video": ("videos", "reading and writing videos", 'python -m pip install --force-reinstall "av>=12"'),
    "sets": ("data sets", "training and testing", "python scripts/check_data.py --opt CONFIG.json --debug"),
    "weights": ("weights", "restoring with the weights that ship", "git checkout model_zoo options"),
}


def machine() -> Iterator[Line]:
    """Look at the machine; what cannot be read is a line, too."""
    for look in (python, cores, memory, disk, shm, open_files, driver):
        try:
            yield look()
        except (OSError, ImportError, ValueError, KeyError, subprocess.SubprocessError) as error:
            found = f"cannot be read ({error})"
            yield Line(look.__name__, WARNING, found, "only this line", "python scripts/doctor.py --json")


def graded(name: str, free: float, levels: tuple[float, float], found: str, effect: str, fix: str) -> Line:
    """Return a line that is a warning or red if `free` is below the first or second level."""
    state = RED if free < levels[1] else WARNING if free < levels[0] else OK
    return Line(name, state, found) if state == OK else Line(name, state, found, effect, fix)


def python() -> Line:
    """This Python, which is new enough."""
    launched = " (.venv, which the launchers use)" if Path(sys.prefix) == VENV else ""
    return Line("Python", OK, f"{platform.python_version()}, {sys.executable}{launched}")


def cores() -> Line:
    """Usable processor cores."""
    return Line("CPU", OK, f"{usable_cores()} of {os.cpu_count()} cores may be used (affinity, container)")


def memory() -> Line:
    """Free memory."""
    free, total = host_memory.free_bytes() / GIB, host_memory.total_bytes() / GIB
    found = f"{free:.1f} GiB free of {total:.1f} GiB" if free < math.inf else "unknown on this system"
    effect = "large pictures and VRT, which may run out of memory"
    return graded("memory", free, (4, 1), found, effect, "python scripts/summary.py --opt CONFIG.json --fit")


def disk() -> Line:
    """Free disk below the project's folder, and the right to write there."""
    free = shutil.disk_usage(FOLDER).free / GIB
    if not os.access(FOLDER, os.W_OK):
        effect = "writing experiments/ and results/"
        found, fix = ("the project's", "cp -r . ~/spike-vrt") if IS_CHECKOUT else ("this", "cd ~")
        return Line("disk", RED, f"{found} folder is read-only", effect, fix)
    effect = "the set-up (7 GB), data sets and long trainings, for lack of space"
    return graded("disk", free, (10, 1), f"{free:.1f} GiB free", effect, "du -sh .venv datasets experiments results")


def shm() -> Line:
    """Free shared memory."""
    free = shared_memory.free_bytes() / GIB
    found = f"{free:.2f} GiB free" if free < math.inf else "not used on this system"
    effect = "data workers of a training, whose batches may not fit"
    fix = "docker run --shm-size=8g ..., or add --set datasets.train.dataloader_num_workers=0"
    return graded("/dev/shm", free, (1, 1 / 16), found, effect, fix)


def open_files() -> Line:
    """The limit of open files."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    most, highest = (math.inf if limit == resource.RLIM_INFINITY else limit for limit in limits)
    effect = "data workers of a training ('Too many open files')"
    return graded("open files", most, (1024, 128), f"{most:.0f} at most", effect, f"ulimit -n {min(4096, highest)}")


def driver() -> Line:
    """NVIDIA's driver and the cards that it knows."""
    query = ["nvidia-smi", "--query-gpu=driver_version,name,memory.total", "--format=csv,noheader"]
    if not shutil.which(query[0]):
        return Line("GPU driver", OK, "no nvidia-smi")
    done = subprocess.run(query, capture_output=True, text=True, timeout=PATIENCE, check=False)
    cards = [line.split(", ") for line in done.stdout.splitlines() if line.count(", ") == 2]
    if done.returncode or not cards:
        said = " ".join((done.stdout + done.stderr).split()) or f"exit code {done.returncode}"
        fix = "sudo reboot (after an update of the driver), or install the driver again"
        return Line("GPU driver", RED, f"nvidia-smi: {said}", "any use of a GPU", fix)
    return Line("GPU driver", OK, f"NVIDIA {cards[0][0]}: " + "; ".join(f"{name}, {size}" for _, name, size in cards))


def needed(file: str) -> dict[str, str]:
    """Return the lowest version of each package of a list; empty without that file."""
    path = ROOT / file
    return dict(line.split(">=") for line in read_text(path).split()) if path.is_file() else {}


def problem(name: str, lowest: str) -> str:
    """Return why a package's version is none that the project can use; empty if it is."""
    version = installed(name)
    if version is None:
        return f"not installed, expected {lowest} or newer"
    return "" if release(version) >= release(lowest) else f"{version} is too old, expected {lowest} or newer"


def install(packages: Sequence[str], again: bool = False) -> str:
    """Return the command that brings packages, given as NAME>=VERSION, into this Python."""
    own = Path(sys.prefix) == VENV
    in_environment = sys.prefix != sys.base_prefix or Path(sys.prefix, "conda-meta").is_dir()
    is_unfinished = own and not (VENV / "installed_requirement.txt").exists()
    if IS_CHECKOUT and not again and (is_unfinished or not in_environment):
        return "./scripts/setup_env.sh"
    with_uv = own and shutil.which("uv") is not None
    tool = f"uv pip install --python {sys.executable}" if with_uv else f"{sys.executable} -m pip install"
    flag = (" --reinstall" if with_uv else " --force-reinstall") if again else ""
    return f"{tool}{flag} " + " ".join(f'"{package}"' for package in packages)


def libraries() -> Iterator[Line]:
    """Look at each library of requirement.txt: version, import; then at those of requirement-dev.txt together."""
    lowest = needed("requirement.txt")
    if not lowest:
        fix = "git checkout requirement.txt"
        yield Line("requirement.txt", RED, "not here", "every set-up, and this check of libraries", fix)
    problems = {name: problem(name, version) for name, version in lowest.items()}
    absent = install([f"{name}>={lowest[name]}" for name, text in problems.items() if text])
    known = {name: LIBRARIES.get(name, (name.replace("-", "_"), f"what needs {name}")) for name in lowest}
    looks = probed([f"import:{known[name][0]}" for name, text in problems.items() if not text])
    for name, text in problems.items():
        use, fix = known[name][1], absent
        failure = None if text else next(looks)[1]
        if isinstance(failure, str):
            text, fix = f"{installed(name)} cannot be imported: {failure}", install([f"{name}>={lowest[name]}"], True)
        if text:
            yield Line(name, RED, text, use, fix)
        else:
            yield Line(name, OK, str(installed(name)), use=use)
    missing = [name for name, version in needed("requirement-dev.txt").items() if problem(name, version)]
    found = f"{', '.join(missing)} not installed: only {OPTIONAL} need them" if missing else "all installed"
    yield Line("for developers", OK, found)


def parts(found_before: Sequence[Line]) -> Iterator[Line]:
    """Look at graphics cards, videos, data sets and weights.

    Args:
        found_before: the lines of the libraries, whose first red one is likely the reason if a look fails.
    """
    cause = next((line for line in found_before if line.state == RED), None)
    for part, found in probed(list(PARTS)):
        if not isinstance(found, str):
            yield from (Line(**row) for row in found)
            continue
        name, effect, fix = PARTS[part]
        if cause and re.match("ModuleNotFoundError|ImportError|OSError", found):
            yield Line(name, WARNING, f"not checked: {found}", effect, cause.fix)
        else:
            yield Line(name, RED, found, effect, fix)


def probed(names: Sequence[str]) -> Iterator[tuple[str, list[dict[str, str]] | str]]:
    """Run doctor_probes.py on parts; yield for each its lines or, if it ended the process, the reason."""
    left = list(names)
    while left:
        said: list[str] = []
        command = [sys.executable, str(ROOT / "scripts" / "doctor_probes.py"), *left]
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace", cwd=FOLDER
        )
        assert child.stdout is not None
        for found in _rows(child, child.stdout, said):
            yield left.pop(0), found
        code = child.wait()
        if left:
            yield left.pop(0), _reason(code, said)


def _rows(child: "subprocess.Popen[str]", lines: IO[str], said: list[str]) -> Iterator[Any]:
    """Yield what a child prints of each part, and collect the rest in `said`; kill it if one part takes too long."""
    while True:
        timer = threading.Timer(PATIENCE, child.kill)
        timer.daemon = True  # Ctrl-C does not wait for it
        timer.start()
        row = None
        for line in lines:
            if line.startswith(MARK) and line.endswith("\n"):
                row = line[len(MARK) :]
                break
            said += [line.strip()] if line.strip() else []
        timer.cancel()
        if row is None:
            return
        said.clear()
        yield json.loads(row)


def _reason(code: int, said: Sequence[str]) -> str:
    """Say in one line why a child ended early."""
    if code < 0:
        why = f", out of memory or more than {PATIENCE:.0f} s" if -code == signal.SIGKILL else ""
        return f"the process was ended by signal {-code} ({signal.Signals(-code).name}{why})"
    if not code or not said:
        return f"the process ended with exit code {code}"
    errors = [line for line in said if re.match(r"[\w.]+(Error|Exception)\b", line)]
    return re.sub(r"^(\w+\.)+(?=\w)", "", (errors or said)[-1])


def show(title: str, lines: Iterable[Line], quiet: bool) -> list[Line]:
    """Return the lines of one part of the page; unless `quiet`, print each as it comes."""
    if quiet:
        return list(lines)
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    print(f"\n{title}", flush=True)
    shown: list[Line] = []
    for line in chain(lines, [None]):
        if shown:
            print(text_of(shown[-1], line, colour), flush=True)
        if line is not None:
            shown.append(line)
    return shown


def hand_over() -> None:
    """Continue in .venv if this Python lacks packages and that one runs, unless $PYTHON makes the launchers take it."""
    other = VENV / "bin" / "python"
    here = os.environ.get("PYTHON") or Path(sys.prefix) == VENV
    if here or not any(problem(*pair) for pair in needed("requirement.txt").items()):
        return
    try:
        subprocess.run(
            [other, "-c", "import sys; sys.exit(sys.version_info < (3, 10))"], capture_output=True, check=True
        )
        os.execv(other, [str(other), __file__, *sys.argv[1:]])
    except (OSError, subprocess.CalledProcessError):
        return


def main() -> None:
    """Read the command line, look, and print."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object instead of the page, for a bug report"
    )
    args = parser.parse_args()
    with program():
        hand_over()
        if not args.json:
            here = "the project's" if IS_CHECKOUT else "the current"
            print(f"Spike-VRT {__version__}. Paths and commands are relative to {here} folder.")
        system = show("machine", map(anonymous, machine()), args.json)
        packages = show("libraries", map(anonymous, libraries()), args.json)
        rest = show("cards, videos, data, weights", map(anonymous, parts(packages)), args.json)
        lines = [*system, *packages, *rest]
        count = {state: sum(line.state == state for line in lines) for state in (OK, WARNING, RED)}
        if args.json:
            facts = {"version": __version__, "commit": commit(), "platform": platform.platform(), "count": count}
            print(json.dumps({**facts, "lines": [line._asdict() for line in lines]}, indent=1))
        else:
            print("\n" + ", ".join(f"{number} {state}" for state, number in count.items()))
        if count[RED]:
            raise SystemExit(EXIT_FAILURE)


if __name__ == "__main__":
    main()
