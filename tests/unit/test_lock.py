"""One owner a folder: processes that meet at a lock, die with it, or look at it from another machine."""

import json
import multiprocessing
import os
import re
import signal
import time
from pathlib import Path

import pytest

from utils import utils_file
from utils.processes import folder_lock, identity
from utils.processes.folder_lock import acquire
from utils.processes.identity import Process, this_process
from utils.utils_error import UserError

FORK = multiprocessing.get_context("fork")


def hold(pipe, path, wait=0.0, beat=folder_lock.BEAT, unlink=Path.unlink):
    """Be a process that takes a lock when told to, says whether it got it, and ends when told to."""
    folder_lock.BEAT, Path.unlink = beat, unlink
    pipe.recv()
    try:
        acquire(path, "it", "wait", wait=wait)
        pipe.send("held")
    except UserError:
        pipe.send("refused")
    pipe.recv()
    os._exit(0)  # as a process that ends without giving anything back


@pytest.fixture
def start():
    """Start a process of `hold`, with one end of a pipe to it; what still runs at the end is ended."""
    started = []

    def start(path, *, ask=True, **changes):
        ours, theirs = FORK.Pipe()
        process = FORK.Process(target=hold, args=(theirs, path), kwargs=changes)
        process.start()
        theirs.close()
        started.append(process)
        if ask:
            ours.send("take it")
        return process, ours

    yield start
    for process in started:
        process.kill()
        process.join()


@pytest.fixture
def path(tmp_path):
    return tmp_path / ".lock"


@pytest.fixture
def holder(start, path):
    """A process that holds the lock."""
    process, pipe = start(path)
    assert pipe.recv() == "held"
    process.pipe = pipe
    return process


def rewrite(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def age(path, seconds):
    os.utime(path, (time.time() - seconds,) * 2)


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_the_second_is_told_who_has_it_where_and_since_when(path, holder):
    host = this_process().host
    with pytest.raises(UserError) as caught:
        acquire(path, "experiments/x", "wait until it ends")
    pattern = rf"experiments/x is in use by process {holder.pid} on {host} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d"
    assert caught.match(pattern)
    assert caught.match(r"; wait until it ends \(its lock: .*/\.lock\)$")
    assert "\n" not in str(caught.value)


def test_a_lock_is_given_back_once_and_is_nobody_elses(path):
    first = acquire(path, "it", "wait")
    first.release()
    with acquire(path, "it", "wait"):
        first.release()
        assert path.exists()
    assert names(path.parent) == []


def test_a_process_does_not_take_its_own_lock_twice(path):
    with acquire(path, "it", "wait"), pytest.raises(UserError, match=f"process {os.getpid()} "):
        acquire(path, "it", "wait")


def test_a_forked_process_gives_nothing_back(path):
    lock = acquire(path, "it", "wait")
    child = os.fork()
    if child == 0:
        lock.release()
        os._exit(0)
    os.waitpid(child, 0)
    assert path.exists()
    lock.release()


def test_kill_stops_no_restart(path, holder):
    holder.kill()
    holder.join()
    assert path.exists()
    with acquire(path, "it", "wait"):
        assert names(path.parent) == [".lock"]


def test_a_process_that_was_killed_and_that_nobody_waited_for_is_gone(path, holder):
    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now
    with acquire(path, "it", "wait"):
        pass


def test_a_process_of_the_same_number_is_not_the_owner(path, holder):
    rewrite(path, started=json.loads(path.read_text())["started"] - 1)
    with acquire(path, "it", "wait"):
        pass


def test_waiting_ends_with_the_owner(path, holder, start):
    _, second = start(path, wait=60)
    holder.pipe.send("end")
    holder.join()
    assert second.recv() == "held"


@pytest.mark.parametrize("stale", ["", "killed", "unreadable"])
def test_one_of_many_starters_gets_it(path, start, stale):
    if stale:
        process, pipe = start(path)
        pipe.recv()
        process.kill()
        process.join()
    if stale == "unreadable":
        path.write_text("")
        age(path, 1000)
    crowd = [start(path, ask=False) for _ in range(12)]
    for _, pipe in crowd:
        pipe.send("take it")
    answers = [pipe.recv() for _, pipe in crowd]
    assert sorted(answers) == ["held"] + 11 * ["refused"]
    assert json.loads(path.read_text())["pid"] == crowd[answers.index("held")][0].pid
    assert names(path.parent) == [".lock"]


def test_a_process_killed_while_it_takes_over_stops_nobody(path, holder, start):
    holder.kill()
    holder.join()
    second, _ = start(path, unlink=lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    second.join()
    assert second.exitcode == -signal.SIGKILL
    assert len(names(path.parent)) == 2
    with acquire(path, "it", "wait"):
        pass


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(folder_lock, "BEAT", 0.05)
    monkeypatch.setattr(folder_lock, "POLL", 0.01)


def test_an_owner_on_another_machine_is_seen_by_its_touches(path, quick):
    with acquire(path, "it", "wait"):
        rewrite(path, machine="0" * 8, host="node7")
        with pytest.raises(UserError, match="on node7 since"):
            acquire(path, "it", "wait")


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", 4096 * "[", '{"host": "a"}', '{"host": "a", "pid": Infinity}', b"\xff"]
)
def test_an_owner_that_gives_no_sign_of_life_is_gone(path, holder, text):
    if text is None:
        rewrite(path, machine="0" * 8, host="node7")
    else:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    age(path, folder_lock.SILENCE + 5)
    with acquire(path, "it", "wait"):
        pass


def test_a_silent_owner_is_waited_for(path, holder, quick, monkeypatch, caplog):
    monkeypatch.setattr(folder_lock, "SILENCE", 0.3)
    caplog.set_level("INFO", logger="spikevrt")
    rewrite(path, machine="0" * 8, host="node7")
    with acquire(path, "it", "wait"):
        pass
    assert [record.getMessage().partition(" since")[0] for record in caplog.records] == [
        f"{path} is held by process {holder.pid} on node7"
    ]


def test_an_owner_whose_place_was_taken_ends(path, start, capfd):
    slow, pipe = start(path, beat=0.05)
    pipe.recv()
    rewrite(path, token="0" * 16, host="node7")
    slow.join()
    assert slow.exitcode == 1
    since = json.loads(path.read_text())["since"]
    taken = f"{path.parent} was taken over by process {slow.pid} on node7 since {since}"
    assert capfd.readouterr().err == f"failure: {taken}; this process stops\n"


def test_a_lock_that_names_paths_removes_nothing(path, holder, tmp_path):
    holder.kill()
    holder.join()
    (tmp_path / "evil.lock").write_text("mine")
    rewrite(path, token="/../evil")
    age(path, 1000)
    with acquire(path, "it", "wait"):
        pass
    assert (tmp_path / "evil.lock").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_a_system_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        acquire(tmp_path / "none" / ".lock", "it", "wait")


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("nowhere")])
def test_what_is_no_file_is_named(path, make):
    make(path)
    with pytest.raises(UserError, match=rf"^{re.escape(str(path))}: is not a file, expected a lock or nothing"):
        acquire(path, "it", "wait")


# Which process lives


def test_processes_are_told_apart(holder):
    me = this_process()
    assert me.is_alive()
    assert me == this_process()
    assert Process(me.host, holder.pid, me.started, me.machine).is_alive() is False
    assert Process("node7", me.pid, me.started, "0" * 8).is_alive() is None
    assert Process(me.host, 2**22 + 1, 1, me.machine).is_alive() is False


def test_a_process_that_the_system_hides_may_live(monkeypatch):
    def hidden(*_):
        raise PermissionError

    me = this_process()
    monkeypatch.setattr(identity.Path, "read_bytes", hidden)
    assert Process("", 1, 1, me.machine).is_alive() is None
    assert Process("", 2**22 + 1, 1, me.machine).is_alive() is False


# Unfinished files


def test_unfinished_files_of_the_dead_go_and_those_of_the_living_stay(tmp_path, holder):
    tmp_path = tmp_path / "frames"
    tmp_path.mkdir()
    me, other = this_process(), Process("", holder.pid, identity._started(holder.pid), this_process().machine)

    def leave(process, suffix=".png"):
        name = f".000005.{process.pid}-{process.started:x}-{process.machine}.tmp{suffix}"
        (tmp_path / name).write_text("half")
        return name

    living = [leave(other), ".notes.tmp.png"]
    for name in living:
        (tmp_path / name).write_text("half")
    far = leave(Process("", holder.pid, 1, "0" * 8))
    for gone in (Process("", other.pid, 1, me.machine), Process("", 2**22 + 1, 1, me.machine)):
        leave(gone)
        leave(gone, ".pth")
    with utils_file.whole_file(tmp_path / "own.png") as own:
        own.write_text("whole")
        utils_file.sweep(tmp_path)
        assert set(names(tmp_path)) == {*living, far, own.name}
    age(tmp_path / far, utils_file.ABANDONED + 5)
    (tmp_path / own.name).write_text("of a write that failed without a trace")
    utils_file.sweep(tmp_path)
    assert set(names(tmp_path)) == {*living, "own.png"}


# Names


@pytest.mark.parametrize(
    "name", ["clip", "00001/0001", "a b", "..a", "a..b", "-rf", "100% #1", "c[1]", "é", "a\\b", ".", "1:30"]
)
def test_names_of_one_or_more_levels_are_safe(name):
    assert utils_file.safe_name(name, "meta.txt") == name


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../a",
        "a/..",
        "a/../b",
        "/a",
        "a//b",
        "a/",
        "",
        "a\0b",
        "C:\\a",
        "C:a",
        "..\\a",
        "a\\..\\b",
        "\\a",
        "\\\\a\\b",
    ],
)
def test_names_that_could_leave_their_folder_are_refused(name):
    with pytest.raises(UserError, match="meta.txt line 3: the name .* could lead out of its folder"):
        utils_file.safe_name(name, "meta.txt line 3")
