"""Start and end of every program: logging to the terminal, one-line errors, exit codes."""

import argparse
import functools
import io
import logging
import math
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NoReturn, TextIO, TypeVar, cast

from utils.utils_error import SaidError, UserError
from utils.utils_progress import HIDE, LogHandler
from utils.utils_zoo import typed

LOG = logging.getLogger("spikevrt")
RESULT = {"is_result": True}  # `extra` of log lines that --quiet keeps
STDOUT = 1  # its file descriptor
EXIT_USER, EXIT_FAILURE, EXIT_INTERRUPT = 2, 1, 130
WAIT_FOR_OTHERS_S = 3.0  # seconds; torchrun ends all processes sooner than that once one has failed

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """One of `count` equal shares of some work: every `count`-th piece, from number `index` on."""

    index: int = 0
    count: int = 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, pieces: Sequence[T]) -> list[T]:
        """Return the pieces of this share."""
        return list(pieces[self.index :: self.count])


ALL = Shard()


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the description, and shows each option's default."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        is_unset = default is None or default is False or default in (argparse.SUPPRESS, [])
        if not action.option_strings or is_unset or "(default: " in text:
            return text
        shown = " ".join(map(str, default)) if isinstance(default, list | tuple) else str(default)
        return f"{text} (default: {shown.replace('%', '%%')})"


class Parser(argparse.ArgumentParser):
    """An argument parser that reports mistakes in one line; its help keeps line breaks and shows defaults."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**{"formatter_class": _Formatter} | given)

    def add_common(self, *, opt: str = "") -> None:
        """Add --debug, --quiet and, with `opt`, the help of the option file, also --opt and --set."""
        if opt:
            self.add_argument("--opt", type=Path, required=True, metavar="CONFIG", help=opt)
            self.add_set()
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")
        self.add_argument("--quiet", action="store_true", help="show only warnings, errors and results")

    def add_set(self) -> None:
        """Add --set."""
        example = "change options, such as train.total_iter=200"
        self.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=example)

    def add_shard(self, pieces: str) -> None:
        """Add --shard; `pieces` says of what every N-th one is taken."""
        text = f"only every N-th of the {pieces}, from the I-th on: 0/4, 1/4, 2/4 and 3/4 together make the whole set"
        self.add_argument("--shard", type=shard, default=ALL, metavar="I/N", help=text)

    def error(self, message: str) -> NoReturn:
        """Report the mistake and exit with 2."""
        self.exit(EXIT_USER, f"error: {message}; see --help\n")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """End the program, even if the reader of --help is gone."""
        _flush_stdout()
        super().exit(status, message)


def whole(text: str, least: int = 0) -> int:
    """Parse an integer of `least` or more, for `add_argument(type=...)`."""
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text} is not an integer of {least} or more")
    return int(text)


positive = functools.partial(whole, least=1)


def _number_type(expected: str, is_good: Callable[[float], bool]) -> Callable[[str], float]:
    """Return a parser of finite numbers that are good, for `add_argument(type=...)`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and is_good(value)):
            raise argparse.ArgumentTypeError(f"{text} is not a {expected}")
        return value

    return parse


number = _number_type("finite number", lambda value: True)
above_zero = _number_type("number above 0", lambda value: value > 0)
up_to_one = _number_type("number from 0 to 1", lambda value: 0 <= value <= 1)
above_zero_up_to_one = _number_type("number above 0, up to 1", lambda value: 0 < value <= 1)


def shard(text: str) -> Shard:
    """Parse I/N, I from 0 to N - 1."""
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise argparse.ArgumentTypeError(f"'{text}' is not a shard I/N with I from 0 to N - 1, such as 0/4")
    return Shard(int(match[1]), int(match[2]))


class _Stream(io.FileIO):
    """A standard stream whose reader may leave, as `head` does, or whose disk may be full, without ending the program.

    Output after the reader left is discarded; output that the disk refuses is lost, with one warning on stderr.
    """

    _lost = False

    def write(self, data: Any) -> int:
        """Write bytes; returns their number."""
        try:
            return super().write(data)
        except BrokenPipeError:
            _discard_output(self.fileno())
        except OSError as error:
            if not self._lost and self.fileno() == STDOUT:
                print(f"warning: stdout: {error.strerror}: its output is incomplete", file=sys.stderr)  # noqa: T201
            self._lost = True
        return len(data)


@contextmanager
def program(debug: bool = False, quiet: bool = False) -> Iterator[None]:
    """Context of a whole program: turns an exception into one line on stderr and an exit code.

    UserError exits with 2, Ctrl-C with 130, anything else with 1. With `debug` the traceback is printed as well, with
    `quiet` neither bars nor log lines below a warning are shown, except RESULTs. With several processes, rank 0 reports
    a mistake that all of them meet, and a single process reports its own, but not the failures that follow in others.
    """
    streams, hook, hidden, raising = (
        (sys.stdout, sys.stderr),
        sys.excepthook,
        os.environ.get(HIDE),
        logging.raiseExceptions,
    )
    sys.stdout, sys.stderr = _lenient(sys.stdout, sys.__stdout__), _lenient(sys.stderr, sys.__stderr__)
    handler = LogHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s : %(message)s", datefmt="%y-%m-%d %H:%M:%S"))
    if quiet:
        os.environ[HIDE] = "1"
        handler.addFilter(lambda line: line.levelno >= logging.WARNING or RESULT.keys() <= line.__dict__.keys())
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    logging.raiseExceptions = debug  # a log whose reader is gone or whose disk is full loses lines without a traceback
    if not debug:  # hide errors outside the main flow, such as a reader process whose batch nobody takes after Ctrl-C
        sys.excepthook = lambda *error: None
    try:
        try:
            yield
        finally:
            sys.excepthook, logging.raiseExceptions, LOG.propagate = hook, raising, True
            LOG.removeHandler(handler)
            os.environ.pop(HIDE, None)
            if hidden is not None:
                os.environ[HIDE] = hidden
            _flush_stdout()
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 - ends the program
        _exit(error, debug)
    finally:
        sys.stdout, sys.stderr = streams


def _exit(error: BaseException, debug: bool) -> NoReturn:
    """Report what went wrong, and exit."""
    rank = int(os.environ.get("RANK", "0"))
    first = isinstance(error, KeyboardInterrupt) or (rank == 0 and isinstance(error, UserError))
    if os.environ.get("WORLD_SIZE", "1") != "1" and not first:
        time.sleep(WAIT_FOR_OTHERS_S)
    if debug:
        traceback.print_exception(error)
    message = " ".join(str(error).split())
    if isinstance(error, KeyboardInterrupt):
        if rank == 0:
            print("interrupted", file=sys.stderr)  # noqa: T201
        raise SystemExit(EXIT_INTERRUPT) from None
    if isinstance(error, UserError):
        if not isinstance(error, SaidError):
            print(f"error: {message}", file=sys.stderr)  # noqa: T201
        raise SystemExit(EXIT_USER) from None
    hint = "" if debug else " (--debug shows where)"
    hint += typed("; see python3 scripts/doctor.py") if isinstance(error, ImportError) else ""
    print(f"failure: {type(error).__name__}: {message}{hint}", file=sys.stderr)  # noqa: T201
    raise SystemExit(EXIT_FAILURE) from None


def imports_follow() -> None:
    """Make Ctrl-C during the following imports, which take seconds, end the process as inside a `program`."""
    before = sys.excepthook

    def end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not isinstance(error, KeyboardInterrupt):
            before(kind, error, trace)
            return
        with program("--debug" in sys.argv):
            raise error

    sys.excepthook = end


def _flush_stdout() -> None:
    """Flush stdout; if that fails, discard its content so that the interpreter does not fail on it at exit."""
    stdout: TextIO | None = sys.stdout
    try:
        if stdout is not None:
            stdout.flush()
    except OSError:
        _discard_output(sys.stdout.fileno())


def _discard_output(descriptor: int) -> None:
    """Discard everything written to a stream from now on."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


def _lenient(stream: TextIO | None, original: TextIO | None) -> TextIO:
    """Wrap a standard stream so that failed writes do not end the program; a closed one becomes /dev/null.

    A stream that was replaced, for example by a test, stays as it is.
    """
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8", errors="backslashreplace")
    if stream is not original or not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.flush()
    raw = _Stream(stream.fileno(), "wb", closefd=False)
    return io.TextIOWrapper(
        cast(BinaryIO, raw) if stream.write_through else io.BufferedWriter(raw),
        stream.encoding,
        "backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
