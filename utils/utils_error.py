"""Errors for the user to fix, one line without a traceback; warnings that appear once; counts and paths in messages."""

import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path


class UserError(ValueError):
    """A mistake in options, files or arguments; str() is one line: what, found, expected, what to do."""


class SaidError(UserError):
    """A mistake that another process of this program reports."""


class ProblemsError(UserError):
    """Several mistakes at once; str() is the first one and the number of others."""

    def __init__(self, problems: Sequence[str]) -> None:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{problems[0]}{more}")
        self.problems = list(problems)


def counted(count: int, noun: str) -> str:
    """Format a count with its noun: 1 clip, 2,103 frames, 2 processes."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{'' if count == 1 else plural}"


def shown(path: Path) -> Path:
    """Return a path as messages show it: relative to the working folder if it lies below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


@cache
def say_once(warning: str) -> None:
    """Log a warning, each one once per process."""
    logging.getLogger("spikevrt").warning(warning)
