"""Errors that are the user's to mend, one line, no traceback; and warnings that are said once."""

import logging
from collections.abc import Sequence
from functools import cache


class UserError(ValueError):
    """A mistake in options, files or arguments; str() is one line: what, found, expected, what to do."""


class SaidError(UserError):
    """A mistake that another process of this program says."""


class ProblemsError(UserError):
    """Several mistakes at once; str() is the first one and how many more there are."""

    def __init__(self, problems: Sequence[str]) -> None:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{problems[0]}{more}")
        self.problems = list(problems)


@cache
def say_once(warning: str) -> None:
    """Log a warning, the same one once in a process."""
    logging.getLogger("spikevrt").warning(warning)
