"""Progress bars with the time left: only on a terminal, never in a log file, and none with --quiet."""

import logging
import os
import threading
from collections.abc import Iterable
from functools import cache
from typing import Any

HIDE = "TQDM_DISABLE"  # environment variable that hides all bars, in child processes too


@cache
def _bars() -> Any:
    """Import tqdm for the first bar, since scripts/doctor.py runs where no package is installed.

    Bars get a lock of this process: the default one is shared with child processes, and may die with one.
    """
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())
    os.register_at_fork(after_in_child=lambda: tqdm.set_lock(threading.RLock()))  # another thread may have held it
    return tqdm


def progress(
    items: Iterable[Any] | None = None,
    *,
    total: int | None = None,
    done: int = 0,
    what: str = "",
    unit: str = "frame",
    show: bool = True,
) -> Any:
    """Make a progress bar on stderr, which vanishes at the end; `what` is the name before it.

    Without `items` to iterate over, call `update` on the bar, which is also a context manager. Without `total` or a
    length of `items` no time left is shown. `done` items were finished earlier. `show` is False in all processes but
    the first.
    """
    is_hidden = not show or bool(os.environ.get(HIDE))
    return _bars()(items, what, total, False, unit=unit, initial=done, disable=True if is_hidden else None)


class LogHandler(logging.StreamHandler):  # type: ignore[type-arg] # Python 3.10 cannot subscript it
    """Writes log lines above a bar, not into it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        if not _bars.cache_info().currsize:
            super().emit(record)
            return
        with _bars().external_write_mode(self.stream):
            super().emit(record)
