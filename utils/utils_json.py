"""Read JSON as KAIR users write it: with comments, trailing commas and leading commas."""

import json
import math
import re
from pathlib import Path
from typing import Any

import json5

from utils.utils_error import UserError
from utils.utils_file import read_text

TOKEN = re.compile(
    r'"(?:\\.|[^"\\\n])*"'
    r"|'(?:\\.|[^'\\\n])*'"
    r"|//[^\n]*|/\*.*?\*/|\s+"  # comments and whitespace
    r"""|[^\s{}\[\],:"'/]+|.""",  # words and numbers; any other character
    re.DOTALL,
)
ESCAPE = re.compile(r"""\\(?P<known>["'/\\bfnrtv\r\n]|0(?!\d)|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2})|\\.""", re.DOTALL)
JSON5_MESSAGE = re.compile(r"<string>:(\d+) (.*)", re.DOTALL)


def read_json(path: Path) -> dict[str, Any]:
    """Read an object from a JSON file, see `read_text`.

    Raises UserError if the file is missing or unreadable, its syntax is wrong (names the line), an object has a key
    twice (names the key and both lines), or the value is not an object.
    """
    try:
        text = read_text(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give an existing option file") from None
    text = _without_leading_commas(text, path)
    try:
        value = _loads(text)
    except ValueError as error:
        found = JSON5_MESSAGE.match(str(error))
        line, what = (f":{found[1]}", found[2]) if found else ("", str(error))
        raise UserError(f"{path}{line}: {' '.join(what.split())}; correct the JSON there or just before") from None
    except RecursionError:
        raise UserError(f"{path}: is nested too deeply for an option file") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: contains a {type(value).__name__}, expected an object {{...}}")
    return value


def _loads(text: str) -> Any:
    """Parse JSON5; plain JSON, as runs and programs write it, by the standard library: 200 times faster."""
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except ValueError:
        return json5.loads(text, allow_duplicate_keys=False)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key twice")
    return dict(pairs)


def _without_leading_commas(text: str, path: Path) -> str:
    """Blank each comma that directly follows an opening bracket; refuse duplicate keys in an object."""
    pieces: list[str] = []
    objects: list[dict[str, int] | None] = []  # key -> line, of every open {; None for every open [
    before = ""
    line = 1
    for match in TOKEN.finditer(text):
        token = match[0]
        if token[0] in ("'", '"'):
            _check_backslashes(token, text[match.start() :].partition("\n")[0], f"{path}:{line}")
        if token[0].isspace() or token.startswith(("//", "/*")):
            pieces.append(token)
            line += token.count("\n")
            continue
        if token == "," and before in ("{", "["):
            token = " "
        elif token in ("{", "["):
            objects.append({} if token == "{" else None)
        elif token in ("}", "]") and objects:
            objects.pop()
        elif token == ":" and objects:
            _note_key(objects[-1], before[1:-1] if before[:1] in ("'", '"') else before, line, path)
        pieces.append(token)
        before = token
        line += token.count("\n")
    return "".join(pieces)


def _check_backslashes(token: str, rest: str, where: str) -> None:
    """Refuse a string with an invalid escape, whose backslash JSON5 would drop, or with an escaped closing quote.

    `token` is the string, or the opening quote of an unterminated one, `rest` the line from there on, `where` file and
    line.
    """
    lone = next((escape[0] for escape in ESCAPE.finditer(token) if escape["known"] is None), None)
    if lone or (len(token) == 1 and "\\" in rest):
        what = f"{token}: {lone} is not an escape" if lone else f"{rest}: the string has no end"
        raise UserError(f"{where}: {what}; write / or \\\\ for each \\ of a path in JSON")


def _note_key(keys: dict[str, int] | None, key: str, line: int, path: Path) -> None:
    if keys is None:
        return
    if key in keys:
        raise UserError(f"{path}:{line}: key {key!r} is already in line {keys[key]}; remove one of them")
    keys[key] = line


def finite(value: Any) -> Any:
    """Replace non-finite numbers by None, at any depth of dicts: JSON cannot represent them."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
