"""How every program of the project starts and ends: logging to the terminal, one-line errors, honest exit codes."""

import logging
import sys
import traceback
from types import TracebackType

from utils.utils_error import UserError

EXIT_USER, EXIT_FAILURE, EXIT_INTERRUPT = 2, 1, 130


class program:  # noqa: N801 - reads as a statement: `with program(debug):`
    """Context of a whole program: turns an exception into one line on stderr and an exit code.

    UserError exits with 2, Ctrl-C with 130, anything else with 1. With `debug` the traceback is printed as well.
    """

    def __init__(self, debug: bool = False) -> None:
        self.debug = debug

    def __enter__(self) -> "program":
        logger = logging.getLogger("spikevrt")
        if not logger.handlers:
            handler = logging.StreamHandler(sys.stdout)
            handler.setFormatter(logging.Formatter("%(asctime)s : %(message)s", datefmt="%y-%m-%d %H:%M:%S"))
            logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, SystemExit):
            return
        if self.debug:
            traceback.print_exception(kind, error, trace)
        message = " ".join(str(error).split())
        if isinstance(error, KeyboardInterrupt):
            print("interrupted", file=sys.stderr)  # noqa: T201
            raise SystemExit(EXIT_INTERRUPT) from None
        if isinstance(error, UserError):
            print(f"error: {message}", file=sys.stderr)  # noqa: T201
            raise SystemExit(EXIT_USER) from None
        hint = "" if self.debug else " (--debug shows where)"
        print(f"failure: {type(error).__name__}: {message}{hint}", file=sys.stderr)  # noqa: T201
        raise SystemExit(EXIT_FAILURE) from None
