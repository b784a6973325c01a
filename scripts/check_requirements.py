"""Check whether this Python satisfies requirement lists: `PYTHON scripts/check_requirements.py requirement.txt ...`.

Exit code 0: it can. 2: it cannot; one line on stderr says what is missing. Needs only the standard library.
`PYTHON scripts/check_requirements.py --forget-partial` removes the metadata of packages whose installation was
interrupted, so that pip and uv install them again.
"""

import csv
import re
import shutil
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

# Packages that provide the same module.
SAME = {"opencv-python-headless": ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless")}


def release(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version without trailing zeros: "2.8.0+cu128" -> (2, 8)."""
    found = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in found.group().split(".")] if found else [0]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def installed(name: str) -> str | None:
    """Return the version of a package or an equivalent one; None if none is installed."""
    for candidate in (name, *SAME.get(name, ())):
        try:
            return metadata.version(candidate)
        except metadata.PackageNotFoundError:
            continue
    return None


def missing(requirements: str) -> list[str]:
    """Return the lines `name>=version` that this Python does not satisfy."""
    problems = []
    for line in requirements.split():
        name, lowest = line.split(">=")
        found = installed(name)
        if found is None:
            problems.append(line)
        elif release(found) < release(lowest):
            problems.append(f"{line} (has {found})")
    return problems


def is_whole(info: Path) -> bool:
    """Whether all files of an installed package are there, with the sizes that its RECORD says."""
    if not (info / "RECORD").is_file():
        return False
    with (info / "RECORD").open(encoding="utf-8", newline="") as record:
        for row in filter(len, csv.reader(record)):
            name, size = row[0], row[-1]
            file = info.parent / name
            is_there = name.endswith(".pyc") or (file.is_file() and size in ("", str(file.stat().st_size)))
            if not is_there:
                return False
    return True


def main() -> int:
    """Check the files named on the command line, or remove the metadata of packages that are not whole."""
    if sys.argv[1:] == ["--forget-partial"]:
        for info in Path(sysconfig.get_path("purelib")).glob("*.dist-info"):
            if not is_whole(info):
                print(f"{info.name.removesuffix('.dist-info')} is incomplete; installing it again", file=sys.stderr)
                shutil.rmtree(info)
        return 0
    problems = []
    for name in sys.argv[1:]:
        with open(name, encoding="utf-8-sig") as file:
            problems += missing(file.read())
    if problems:
        print("missing " + ", ".join(problems), file=sys.stderr)
    return 2 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
