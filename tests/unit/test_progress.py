"""Progress bars and --quiet: shown on a terminal only, with the time left, and never where a log is read."""

import io
import logging
import os
import re
import sys
import threading
from pathlib import Path

import pytest
from tqdm import tqdm

from utils import utils_cli
from utils.utils_progress import HIDE, _bars, progress

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("data", "models", "options", "scripts", "utils", "benchmarks")
SOURCES = [*ROOT.glob("*.py"), *(path for name in FOLDERS for path in (ROOT / name).rglob("*.py"))]
LOG = logging.getLogger("spikevrt")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def a_terminal(monkeypatch):
    """Standard streams that are one terminal."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.delenv(HIDE, raising=False)
    return stream


def test_a_bar_on_a_terminal_shows_count_and_time_left(monkeypatch):
    terminal = a_terminal(monkeypatch)
    with progress(total=4, what="reading") as bar:
        assert "reading:   0%" in terminal.getvalue(), "before the first item, which may take long"
        bar.update(2)
        bar.refresh()
        assert re.search(r"reading:  50%.* 2/4 \[\d\d:\d\d<\d\d:\d\d", terminal.getvalue())
    assert re.search(r"\r *\r$", terminal.getvalue()), "it leaves nothing on the screen"


@pytest.mark.parametrize("given", [{"show": False}, {}])
def test_hidden_bars_write_nothing(given, monkeypatch):
    terminal = a_terminal(monkeypatch)
    if not given:
        monkeypatch.setenv(HIDE, "1")
    assert list(progress(range(4), **given)) == [0, 1, 2, 3]
    assert terminal.getvalue() == ""


def test_a_log_file_gets_no_bar(monkeypatch):
    terminal = a_terminal(monkeypatch)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress(total=2) as bar:
        bar.update(2)
    assert sys.stderr.getvalue() == terminal.getvalue() == ""


def test_a_log_line_stands_above_the_bar(monkeypatch):
    terminal = a_terminal(monkeypatch)
    with utils_cli.program(), progress(total=2, what="work") as bar:
        bar.update()
        bar.refresh()
        LOG.info("a line")
    before = terminal.getvalue().partition(" : a line\n")[0]
    assert re.search(r"work: .*\r *\r\d\d-\d\d-\d\d \d\d:\d\d:\d\d$", before), "the bar was cleared first"


def test_a_child_process_can_log_whatever_another_thread_did_when_it_was_made():
    is_held, is_done = threading.Event(), threading.Event()

    def hold():
        with tqdm.get_lock():
            is_held.set()
            is_done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    is_held.wait(60)
    child = os.fork()
    if not child:
        os._exit(0 if tqdm.get_lock().acquire(timeout=1) else 1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    is_done.set()
    thread.join()
    assert code == 0


def test_quiet_shows_warnings_and_results_only(monkeypatch):
    terminal = a_terminal(monkeypatch)
    with utils_cli.program(quiet=True):
        LOG.info("details")
        LOG.info("finished", extra=utils_cli.RESULT)
        LOG.warning("careful")
        list(progress(range(4)))
        assert os.environ[HIDE], "processes that it starts show no bar either"
    lines = [line.partition(" : ")[2] for line in terminal.getvalue().splitlines()]
    assert lines == ["finished", "careful"]
    assert HIDE not in os.environ


def test_all_programs_make_their_bars_here_and_can_be_quiet():
    texts = {path.name: path.read_text(encoding="utf-8") for path in SOURCES}
    assert [name for name, text in texts.items() if re.search(r"(from|import) tqdm", text)] == ["utils_progress.py"]
    assert [name for name, text in texts.items() if re.search(r"program\([^)]*\.debug\)", text)] == []


def test_bars_have_a_lock_of_their_own_though_another_library_imported_tqdm_before():
    shared = tqdm.get_lock()
    try:
        foreign = threading.RLock()
        tqdm.set_lock(foreign)
        _bars.cache_clear()
        progress([1], show=False)
        assert tqdm.get_lock() is not foreign
    finally:
        tqdm.set_lock(shared)
