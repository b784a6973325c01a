"""The lines of scripts/doctor.py: their content, what they leave out, their layout. Needs only the standard library."""

import getpass
import os
import re
import socket
import textwrap
from contextlib import suppress
from typing import NamedTuple

from utils.utils_zoo import ROOT, typed

OK, WARNING, RED = "ok", "warning", "red"
COLOURS = {OK: "32", WARNING: "33", RED: "31"}  # SGR codes of terminals
NAME, WIDTH = 23, 100  # columns: of a line's name, and of the page
MARK = "DOCTOR "  # starts what scripts/doctor_probes.py prints for scripts/doctor.py


class Line(NamedTuple):
    """One line of the page.

    Attributes:
        name: what was looked at.
        state: OK, WARNING or RED.
        found: what was found.
        effect: what will not work.
        fix: what to type.
        use: what it is for; shown if it is fine.
    """

    name: str
    state: str
    found: str
    effect: str = ""
    fix: str = ""
    use: str = ""


def _private() -> list[tuple[str, str]]:
    """Patterns of what nobody else needs to know, and what to show for it."""
    home, host = os.path.expanduser("~"), socket.gethostname()
    start = r"(?<![\w.-])"  # of a path
    homes = [start + re.escape(path) for path in (home, os.path.realpath(home)) if path.count("/") and len(path) > 1]
    project = start + re.escape(str(ROOT))
    found = [(rf"{project}/", ""), (rf"{project}(?=\W|$)", "."), *((rf"{path}(?=\W|$)", "~") for path in homes)]
    found.append((r"/(home|Users)/[^/\s:'\"]+", "~"))
    with suppress(OSError, KeyError, ImportError):  # a container without that user's name
        found.append((rf"(?<=/){re.escape(getpass.getuser())}(?=\W|$)", "USER"))
    return found if host in ("", "localhost") else [*found, (rf"\b{re.escape(host)}\b", "HOST")]


def anonymous(line: Line) -> Line:
    """Take host, user and the paths of home folders out of a line; paths in the project become relative, and commands
    those of an installed copy."""
    texts = {"found": line.found, "effect": typed(line.effect), "fix": typed(line.fix)}
    for pattern, shown in _private():
        texts = {key: re.sub(pattern, shown, text) for key, text in texts.items()}
    return line._replace(**texts)


def text_of(line: Line, following: Line | None, colour: bool) -> str:
    """Return a line of the page; one that is not fine ends with its command, unless the next line has the same."""
    state = f"\033[{COLOURS[line.state]}m{line.state:8}\033[0m" if colour else f"{line.state:8}"
    found = f"{line.found:12} {line.use}" if line.use else line.found
    if line.state != OK:
        found = f"{line.found}; {'will not work' if line.state == RED else 'affected'}: {line.effect}"
    indent = " " * (9 + NAME)
    first, *more = textwrap.wrap(found, WIDTH - len(indent), break_long_words=False, break_on_hyphens=False) or [""]
    rows = [f"{state} {line.name:{NAME - 1}} {first}", *(indent + row for row in more)]
    if line.state != OK and (following is None or following.fix != line.fix):
        rows.append(f"{indent}type: {line.fix}")  # not wrapped: it is to be copied
    return "\n".join(rows)
