"""Errors for the user to fix, one line without a traceback, and warnings that appear once."""

import logging
from collections.abc import Sequence
from functools import cache


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


@cache
def say_once(warning: str) -> None:
    """Log a warning, each one once per process."""
    logging.getLogger("spikevrt").warning(warning)
