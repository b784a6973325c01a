"""Sort frames in time by the numbers in their names: 2 before 10, 9999 before 10000."""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import median_low

from utils.utils_error import UserError

_NUMBER = re.compile(r"(\d+)")
# Numbers that form one time: seconds and their fraction, or a date or time of at least three parts.
_TIME_STAMP = re.compile(r"#\.#|#(?:[-_.:T ]#){2,}")
_FRACTION = re.compile(r"(?<=\d\.)\d+")
_DIGITS = 20  # fractions are padded to this length, so that they compare as numbers
_YEAR = 4  # digits
_PAUSE = 10  # frames; a longer gap separates two recordings
_LONG = 9  # digits; a number as long is a time, not a recording's index: 1712345678_123456


def by_number(names: Iterable[str]) -> tuple[str, ...]:
    """Sort names by the numbers in them."""
    return tuple(sorted(names, key=_key))


def in_time(names: Iterable[str], where: str) -> tuple[str, ...]:
    """Sort the names of a clip's frames in time order.

    One number may vary between names; several may if they grow together or form a time stamp of fixed width.

    Raises:
        UserError: the names do not determine the order; the message has `where` and two of them.
    """
    found = by_number(names)
    if problem := _problem(found):
        raise UserError(
            f"{where}: {problem}; frames are ordered by the one number in their names, so rename them, or move away "
            "what does not belong to this clip"
        )
    return found


def follows(name: str, following: str, step: int = 1) -> bool:
    """Return whether two names differ only in one number, which grows by `step`."""
    first, second = _NUMBER.split(name), _NUMBER.split(following)
    differing = [at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b]
    if len(first) != len(second) or len(differing) != 1 or not differing[0] % 2:
        return False
    return int(second[differing[0]]) - int(first[differing[0]]) == step


def gaps(names: Sequence[str]) -> list[tuple[str, str]]:
    """Find the pairs of neighbours, of frames in time order, that are further apart than usual for the clip.

    Names in which not one number alone varies have no gaps.
    """
    steps = [_step(*pair) for pair in pairwise(names)]
    usual = median_low([step for step in steps if step] or [0])
    # Numbers that are times may be rounded or jitter.
    return [pair for pair, step in zip(pairwise(names), steps, strict=True) if 2 * step > 3 * usual]


def frame_name(number: int, template: str) -> str:
    """Return the name of a frame; the template is a format such as "06d", or "im{}", "frame_{:04d}" with text."""
    return template.format(number) if "{" in template else f"{number:{template}}"


def number_format(template: str) -> str:
    """Return only the number format of a template: "06d" for "06d", "04d" for "frame_{:04d}", "d" for "im{}"."""
    return (re.findall(r"\{:?(\w*)\}", template) or [template])[0] or "d"


def template_of(name: str) -> tuple[str, int]:
    """Return the template and number from which `frame_name` makes `name`; uses the last number in it.

    Raises:
        ValueError: the name has no number.
    """
    match = re.fullmatch(r"(.*?)(\d+)(\D*)", name)
    if match is None:
        raise ValueError(f"{name} has no number")
    before, digits, after = match.groups()
    number = f"0{len(digits)}d" if digits.startswith("0") and len(digits) > 1 else "d"
    return (f"{before}{{:{number}}}{after}" if before or after else number), int(digits)


def _key(name: str) -> tuple[list[str | int], str]:
    parts = _NUMBER.split(name)
    return [int(part) if at % 2 else part for at, part in enumerate(parts)], name


def _step(name: str, following: str) -> int:
    """Return by how much the one varying number grows; 0 if several vary."""
    first, second = (_NUMBER.findall(each) for each in (name, following))
    differing = [int(b) - int(a) for a, b in zip(first, second, strict=False) if a != b]
    return differing[0] if len(differing) == 1 and len(first) == len(second) else 0


def _problem(names: Sequence[str]) -> str:
    """Return why sorted names have no time order; empty if they have one."""
    if len(names) < 2:
        return ""
    below = [name for name in names if re.match(r"-\d", name)]
    if len(below) > 1:
        return f"{below[0]} and {below[1]} may be negative numbers, which would reverse the order"
    shapes = [_NUMBER.sub("#", name) for name in names]
    for name, shape in zip(names, shapes, strict=True):
        if shape != shapes[0]:
            return f"{names[0]} and {name} differ in more than a number"
    rows = [[int(number) for number in _NUMBER.findall(name)] for name in names]
    for (a, b), (first, second) in zip(pairwise(names), pairwise(rows), strict=True):
        if first == second:
            return f"{a} and {b} have the same number"
    for at, (first, second) in enumerate(pairwise(rows)):
        if any(a > b for a, b in zip(first, second, strict=True)):
            if _are_stamps(names, shapes[0]):
                break
            return f"{names[at]} and {names[at + 1]} differ in several numbers; which one is time is unclear"
    return _decimal_problem(names) if "#.#" in shapes[0] and not _is_run(names) else ""


def _decimal_problem(names: Sequence[str]) -> str:
    """Return which sorted names have another order as decimals, as 1.25 before 1.5; empty if none have."""
    for a, b in pairwise(names):
        if _key(_filled(a)) > _key(_filled(b)):
            return f"{a} comes before {b} as integers after the dot, but after it as decimals"
    return ""


def _is_run(names: Sequence[str]) -> bool:
    """Return whether the numbers count: in steps of one, or in three or more equal steps."""
    steps = {_step(*pair) for pair in pairwise(names)}
    return steps == {1} or (len(steps) == 1 and len(names) > 2)


def _filled(name: str) -> str:
    return _FRACTION.sub(lambda digits: digits[0].ljust(_DIGITS, "0"), name)


def _are_stamps(names: Sequence[str], shape: str) -> bool:
    """Return whether all varying numbers are parts of one time stamp and, except the first, of fixed width."""
    columns = list(zip(*(_NUMBER.findall(name) for name in names), strict=True))
    varying = [at for at, column in enumerate(columns) if len(set(map(int, column))) > 1]
    if any(len(set(map(len, columns[at]))) > 1 for at in varying[1:]):
        return False
    if len(columns[varying[0]][0]) >= _LONG:
        return not _are_recordings([columns[at] for at in varying])
    spans = [(shape[: m.start()].count("#"), m[0].count("#")) for m in _TIME_STAMP.finditer(shape)]
    inside = [(first, count) for first, count in spans if first <= varying[0] and varying[-1] < first + count]
    # 31-01-2024 is before 01-02-2024: such dates, with the year last, do not sort by number.
    return any(count < 3 or len(columns[first + 2][0]) < _YEAR for first, count in inside)


def _are_recordings(columns: Sequence[Sequence[str]]) -> bool:
    """Return whether sorted pairs of numbers are a long serial number (of a camera or clip) and a frame counter.

    If so, the frames of each serial start at the same number and have equal steps, and the gap between serials is
    longer than a pause.
    """
    width = sum(len(column[0]) for column in columns[1:])
    times = [int(first) * 10**width + int("".join(rest)) for first, *rest in zip(*columns, strict=True)]
    begins = [True, *(before != after for before, after in pairwise(columns[0]))]
    steps = [after - before for before, after in pairwise(times)]
    within = {step for step, new in zip(steps, begins[1:], strict=True) if not new}
    between = [step for step, new in zip(steps, begins[1:], strict=True) if new]
    firsts = {time % 10**width for time, new in zip(times, begins, strict=True) if new}
    return len(within) == len(firsts) == 1 and max(between) > _PAUSE * max(within)
