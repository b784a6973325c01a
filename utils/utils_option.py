"""Load option files into a checked, frozen tree of options, and save them. Independent of the options themselves.

The schema is a pydantic model. It may define the class variables `IGNORED_KEYS`, dotted patterns of keys that are
accepted and dropped, and `MOVED_KEYS`, root keys -> where they belong, `block.key`; and a property `notes`, lines about
options that are set but have no effect.
"""

import difflib
import json
import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from utils.utils_error import UserError, shown
from utils.utils_file import write_text
from utils.utils_json import read_json
from utils.utils_zoo import OPTIONS, ROOT, option_file

T = TypeVar("T", bound=BaseModel)
Tree = dict[str, Any]
TASK_FOLDER = ROOT / OPTIONS / "tasks"
BASE_KEY = "_base_"
EDITOR_KEY = "$schema"  # where an editor finds what may stand in the file
SET = "--set"
LIKELY = 0.6  # similarity from which a name is a likely match
LONGEST_VALUE = 60  # characters shown of a wrong value
KIND_TAGS = ("{}", "[]")  # by which a schema tells an object from a list of them (pydantic.Tag); no part of a key

LOG = logging.getLogger("spikevrt")


def load(path: Path, schema: type[T], overrides: Sequence[str] = ()) -> T:
    """Read an option file and check it.

    Args:
        path: the file, or the name of one that ships (`utils_zoo.option_file`). With `"_base_": FILE`, relative to the
            file itself, it extends that file: objects are merged key by key, an object over a list of objects changes
            these (see `_merged`), everything else is replaced.
        schema: root of the options.
        overrides: "dotted.key=VALUE", VALUE in JSON; anything else is a string. A number in the key means one object of
            a list; without it, all of them change.

    Raises:
        UserError: names the first problem (key, file, value found, allowed values) and counts the others.
    """
    path = option_file(Path(path).expanduser())
    sources = _read_chain(path, ())
    if overrides:
        sources.append((SET, _read_overrides(overrides, schema)))
    return _checked(sources, str(path), schema)


def load_tree(tree: Tree, name: str, schema: type[T]) -> T:
    """`load` for options that lie elsewhere than in an option file of their own, at `name`."""
    return _checked([(name, tree)], name, schema)


def _checked(sources: list[tuple[str, Tree]], path: str, schema: type[T]) -> T:
    """Merge trees, the later over the earlier ones, and check the result; `path` names it in the log."""
    sources = [(name, _moved(tree, schema, name)) for name, tree in sources]
    tree: Tree = {}
    for name, part in sources:
        tree = _merged(tree, part, f"{name}: ")
    ignored = _drop_ignored(tree, getattr(schema, "IGNORED_KEYS", ()))
    try:
        opt = schema.model_validate(tree)
    except ValidationError as error:
        first, *rest = _problems(error, schema)
        others = ", ".join(dict.fromkeys(_dotted(detail["loc"], schema) or "options" for detail in rest))
        more = f" (and {len(rest)} more: {others})" if rest else ""
        raise UserError(f"{_origin(first['loc'], sources)}: {_problem(first, schema)}{more}") from None
    if ignored:
        LOG.info("%s: these keys of KAIR have no effect here: %s", path, ", ".join(ignored))
    for note in getattr(opt, "notes", ()):
        LOG.info("%s: %s", path, note)
    return opt


def task_files() -> dict[str, Path]:
    """The option files of the official tasks, by task name."""
    return {path.stem: path for path in sorted(TASK_FOLDER.glob("*.json"))}


def save(opt: BaseModel, path: Path) -> None:
    """Write options to a file atomically, without secrets; `load` reads them back. Missing folders are created."""
    write_text(path, opt.model_dump_json(indent=2) + "\n")


def _read_chain(path: Path, heirs: tuple[Path, ...]) -> list[tuple[str, Tree]]:
    """Read a file and all its bases, the deepest base first; `heirs` are the files that inherit from this one."""
    if path.resolve() in heirs:
        circle = " -> ".join(str(shown(heir)) for heir in (*heirs, path.resolve()))
        raise UserError(f"{path}: inherits from itself: {circle}; remove one {BASE_KEY}")
    tree = read_json(path)
    tree.pop(EDITOR_KEY, None)
    if BASE_KEY not in tree:
        return [(str(path), tree)]
    base = tree.pop(BASE_KEY)
    if not isinstance(base, str):
        raise UserError(f"{path}: {BASE_KEY}: found {_shown(base)}, expected the name of an option file")
    base_path = shown(path.parent / Path(base).expanduser())
    if not base_path.is_file():
        raise UserError(f"{path}: {BASE_KEY}: {base_path} does not exist; give a path relative to this file")
    return [*_read_chain(base_path, (*heirs, path.resolve())), (str(path), tree)]


def _merged(base: Mapping[str, Any], over: Mapping[str, Any], place: str = "") -> Tree:
    """Merge objects key by key; over a list of objects, keys "0", "1", ... change one of these, other keys all of them.

    `place` is the source and the keys above, for the UserError if a list has no object of a number.
    """
    tree = dict(base)
    for key, value in over.items():
        old, dotted = tree.get(key), f"{place}{key}"
        if isinstance(value, dict) and isinstance(old, dict):
            tree[key] = _merged(old, value, f"{dotted}.")
        elif isinstance(value, dict) and isinstance(old, list) and old and all(isinstance(item, dict) for item in old):
            tree[key] = _merged_items(old, value, dotted)
        else:
            tree[key] = value
    return tree


def _merged_items(items: Sequence[Tree], over: Mapping[str, Any], place: str) -> list[Any]:
    """Merge an object over a list of objects; see `_merged`."""
    for_all = {key: value for key, value in over.items() if not key.isdecimal()}
    for_one = {int(key): value for key, value in over.items() if key.isdecimal()}
    beyond = [number for number in for_one if number >= len(items)]
    if beyond:
        raise UserError(f"{place}: found block {beyond[0]}, expected 0 to {len(items) - 1}; correct the number")
    merged: list[Any] = [_merged(item, for_all, f"{place}.") for item in items]
    for number, value in for_one.items():
        both = isinstance(value, dict)
        merged[number] = _merged(merged[number], value, f"{place}.{number}.") if both else value
    return merged


def _read_overrides(overrides: Sequence[str], schema: type[BaseModel]) -> Tree:
    tree: Tree = {}
    known = dict(_walk(schema))
    ignored = getattr(schema, "IGNORED_KEYS", ())
    for text in overrides:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UserError(f"{SET}: found {key!r}, expected KEY=VALUE, e.g. train.total_iter=200")
        moved, plain = getattr(schema, "MOVED_KEYS", {}), _without_numbers(key)
        if plain not in known and key not in moved and not any(fnmatchcase(key, pattern) for pattern in ignored):
            raise UserError(f"{SET}: {_unknown(key, schema)}")
        part = _value(value, known.get(moved.get(key, plain)))
        for name in reversed(key.split(".")):
            part = {name: part}
        tree = _merged(tree, part, f"{SET}: ")
    return tree


def _value(text: str, annotation: Any) -> Any:
    """The JSON value of a text; the text itself if it is not JSON, or if a text option gets a number or boolean."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, (int, float)) and {str, SecretStr} & _kinds(annotation) else value


def _kinds(annotation: Any) -> set[Any]:
    """The plain types that an annotation allows: str and NoneType of `Annotated[str, ...] | None`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kinds(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return set().union(*(_kinds(part) for part in get_args(annotation)))
    return {annotation}


def _moved(tree: Tree, schema: type[BaseModel], source: str) -> Tree:
    """Move root keys of MOVED_KEYS to where they belong."""
    for key, place in getattr(schema, "MOVED_KEYS", {}).items():
        if key not in tree:
            continue
        block, name = place.split(".")
        if isinstance(tree.get(block), dict) and name in tree[block]:
            raise UserError(f"{source}: {key} and {place} are both given; remove one of them")
        part = {block: {name: tree[key]}}
        tree = _merged(part, {other: value for other, value in tree.items() if other != key})
    return tree


def _drop_ignored(tree: Tree, patterns: Sequence[str], place: str = "") -> list[str]:
    """Remove keys that match a pattern; return them."""
    dropped = []
    for key in list(tree):
        dotted = place + key
        if any(fnmatchcase(dotted, pattern) for pattern in patterns):
            del tree[key]
            dropped.append(dotted)
            continue
        for inner in tree[key] if isinstance(tree[key], list) else [tree[key]]:
            if isinstance(inner, dict):
                dropped += _drop_ignored(inner, patterns, dotted + ".")
    return list(dict.fromkeys(dropped))


def _block(annotation: Any) -> type[BaseModel] | None:
    """Return the model in an annotation like `Model`, `Model | None` or `tuple[Model, ...]`."""
    if get_origin(annotation) is None:
        return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    return next((block for part in get_args(annotation) if (block := _block(part))), None)


def _without_numbers(key: str) -> str:
    """Return the key without the numbers of blocks in lists: datasets.train.gt_size of datasets.train.1.gt_size."""
    return re.sub(r"\.\d+(?=\.|$)", "", key)


def _walk(schema: type[BaseModel], place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every dotted key of a schema with its annotation."""
    for name, field in schema.model_fields.items():
        yield place + name, field.annotation
        block = _block(field.annotation)
        if block:
            yield from _walk(block, f"{place}{name}.")


def _nearest(key: str, schema: type[BaseModel]) -> str:
    """Return the known dotted key closest to an unknown one."""
    block, _, name = key.rpartition(".")
    known = [(dotted.rpartition("."), dotted) for dotted, _ in _walk(schema)]
    misplaced = [dotted for (_, _, leaf), dotted in known if leaf == name]
    if misplaced:
        return difflib.get_close_matches(key, misplaced, n=1, cutoff=0)[0]
    siblings = {leaf: dotted for (place, _, leaf), dotted in known if place == block}
    others = {leaf: dotted for (_, _, leaf), dotted in reversed(known)}
    for names, cutoff in ((siblings, LIKELY), (others, LIKELY), (siblings, 0.0), (others, 0.0)):
        close = difflib.get_close_matches(name, names, n=1, cutoff=cutoff)
        if close:
            return names[close[0]]
    return ""


def _unknown(key: str, schema: type[BaseModel]) -> str:
    place, _, name = key.rpartition(".")
    if place and name.isdecimal():
        return f"{key}: {place} is no list of blocks; leave out .{name}"
    plain, numbered = _without_numbers(place), f"{place}."
    nearest = _nearest(f"{plain}.{name}".lstrip("."), schema)
    if plain != place and nearest.startswith(f"{plain}."):
        nearest = numbered + nearest.removeprefix(f"{plain}.")
    return f"{key}: unknown option; did you mean {nearest}?"


def _problems(error: ValidationError, schema: type[BaseModel]) -> list[ErrorDetails]:
    """The problems found by pydantic, unknown keys first; one per value, even if it may have several types."""
    known = {key for key, _ in _walk(schema)}
    found: dict[tuple[int | str, ...], list[ErrorDetails]] = {}
    for detail in sorted(error.errors(include_url=False), key=lambda detail: detail["type"] != "extra_forbidden"):
        loc = tuple(step for step in detail["loc"] if step not in KIND_TAGS)
        end = len(loc) if detail["type"] == "extra_forbidden" else _end_of_place(loc, known)
        place = (*loc[:end], *(step for step in loc[end:] if isinstance(step, int)))
        found.setdefault(loc[:end], []).append({**detail, "loc": place})
    return [_one_of_several(tried) for tried in found.values()]


def _end_of_place(loc: Sequence[int | str], known: Collection[str]) -> int:
    """Number of leading steps that are keys and indices; pydantic appends the type it tried of several."""
    keys = (".".join(step for step in loc[: at + 1] if isinstance(step, str)) for at in range(len(loc)))
    return next((at for at, key in enumerate(keys) if key not in known), len(loc))


def _one_of_several(tried: Sequence[ErrorDetails]) -> ErrorDetails:
    """The problem of a value that fits none of several types: with the closest type if there is one, else with all."""
    for detail in tried:
        if len(detail["loc"]) > len(tried[0]["loc"]) or not detail["type"].endswith("_type"):
            return detail
    kinds = [detail["msg"].removeprefix("Input should be ") for detail in tried]
    return {**tried[0], "msg": f"Input should be {' or '.join(kinds)}"}


def _origin(loc: Sequence[int | str], sources: Sequence[tuple[str, Tree]]) -> str:
    """Return the last file (or --set) that gave a value; the option file itself if none did."""
    giving = [name for name, tree in sources if loc and _has(tree, loc)]
    return (giving or [name for name, _ in sources if name != SET])[-1]


def _has(tree: Any, loc: Sequence[int | str]) -> bool:
    """Whether a tree gives the value at a place; an object that changes a list gives those of its items."""
    if not loc:
        return True
    step, rest = loc[0], loc[1:]
    if isinstance(step, str):
        return isinstance(tree, dict) and step in tree and _has(tree[step], rest)
    if isinstance(tree, dict):
        return (str(step) in tree and _has(tree[str(step)], rest)) or _has(tree, rest)
    return not isinstance(tree, list) or (step < len(tree) and _has(tree[step], rest))


def _dotted(loc: Sequence[int | str], schema: type[BaseModel]) -> str:
    """Write ("netG", "depths", 3) as netG.depths[3]; ("datasets", "train", 1), a block, as datasets.train.1."""
    known, text = dict(_walk(schema)), ""
    for step in loc:
        is_value = isinstance(step, int) and not _block(known.get(_without_numbers(text)))
        text += f"[{step}]" if is_value else f".{step}" if text else f"{step}"
    return text


def _problem(detail: ErrorDetails, schema: type[BaseModel]) -> str:
    key = _dotted(detail["loc"], schema)
    if detail["type"] == "extra_forbidden":
        return _unknown(key, schema)
    message = re.sub(r"^\w+ should", "must", detail["msg"].removeprefix("Value error, "))
    if detail["type"] == "missing":
        return f"{key}: is missing; give it a value"
    if detail["type"] == "value_error" and not message.startswith("must"):
        return f"{key}: {message}" if key else message
    message = re.sub(r" after validation, not \d+", "", message.replace("a valid tuple", "a list"))
    own_words = {"model_type": "must be an object {...}", "bool_type": "must be true or false"}
    message = own_words.get(detail["type"], message)
    kinds = _kinds(dict(_walk(schema)).get(_without_numbers(key)))
    is_item = isinstance(detail["loc"][-1], int)  # of a list, which may be null, while its items may not
    secret, null = SecretStr in kinds, " or null" * (NoneType in kinds and not is_item)
    return f"{key}: found {'(hidden)' if secret else _shown(detail['input'])}, {message}{null}"


def _shown(value: Any) -> str:
    """Show a value as JSON; lists and objects only by kind, as they may be long or contain secrets."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "..."
