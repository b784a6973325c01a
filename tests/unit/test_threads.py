"""Threads: as many as there are free cores, chosen once and said, fewer when others come, never against the user."""

import os

import pytest

from utils.processes import thread_count
from utils.processes.thread_count import Load, Look, before_torch, choose, fewer, look, threads_for, usable_cores


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine of four cores, all of them free for this process, and nobody's wish."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(thread_count, "usable_cores", lambda: 4)


def load_of(monkeypatch, *looks):
    """A Load that sees these looks: (clock, CPU seconds of all, CPU seconds of this process)."""
    seen = iter(looks)
    monkeypatch.setattr(thread_count, "look", lambda: Look(*found) if (found := next(seen)) else None)
    return Load()


@pytest.mark.parametrize(
    ("most", "cores", "others", "threads"),
    [
        (2, 2, 0.0, 2),
        (2, 2, 0.4, 2),  # a desktop's noise
        (2, 2, 1.0, 1),
        (2, 2, 2.0, 1),  # never none
        (8, 16, 3.0, 8),  # PyTorch's own number is the most
        (8, 16, 11.0, 5),
        (32, 2, 0.0, 2),  # a container of two cores on a large machine
    ],
)
def test_threads_fit_beside_the_others(most, cores, others, threads):
    assert threads_for(most, cores, others) == threads


def test_own_work_is_not_taken_for_that_of_others(monkeypatch):
    load = load_of(monkeypatch, (100, 50, 5), (102, 53, 7))  # in 2 s three of all, two of them its own

    assert load.others() == pytest.approx(0.5)


def test_looks_follow_each_other(monkeypatch):
    load = load_of(monkeypatch, (0, 0, 0), (2, 4, 2), (4, 6, 4))

    assert load.others() == pytest.approx(1.0)
    assert load.others() == pytest.approx(0.0)


def test_two_looks_at_once_say_nothing_and_lose_nothing(monkeypatch):
    load = load_of(monkeypatch, (0, 0, 0), (0.1, 0.1, 0), (2, 2, 0))

    assert load.others() is None
    assert load.others() == pytest.approx(1.0)


def test_a_program_that_begins_says_what_it_chose(monkeypatch, heard):
    busy = load_of(monkeypatch, (0, 0, 0), (2, 6, 2))

    assert choose(busy, 4) == 2
    assert "2 threads on 4 cores, 2.0 of them busy with other processes" in heard.text


def test_the_users_number_stays(monkeypatch, heard):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    busy = load_of(monkeypatch, (0, 0, 0), (2, 8, 0), (4, 16, 0))

    assert choose(busy, 3) == 3
    assert fewer(busy, 3) == 3
    assert "3 threads, set by OMP_NUM_THREADS" in heard.text


def test_a_run_gives_way_to_others_that_come_and_says_so_once(monkeypatch, heard):
    load = load_of(monkeypatch, (0, 0, 0), (2, 8, 8), (4, 16, 13), (6, 24, 18))

    assert fewer(load, 4) == 4
    assert fewer(load, 4) == 3
    assert fewer(load, 3) == 3
    assert heard.text.count("instead of 4") == 1


def test_a_system_that_tells_nothing_leaves_the_number(monkeypatch, tmp_path):
    monkeypatch.setattr(thread_count, "CPU_TIMES", tmp_path / "absent")

    assert look() is None
    assert choose(Load(), 4) == 4
    assert fewer(Load(), 4) == 4


def test_idle_and_guest_time_are_no_work(monkeypatch, tmp_path):
    times = tmp_path / "stat"
    times.write_text("cpu  999 0 0 0\ncpu0 100 20 30 4000 500 6 7 8 90 0\ncpu9 100 0 0 0 0 0 0 0 0 0\nintr 5\n")
    monkeypatch.setattr(thread_count, "CPU_TIMES", times)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})

    assert look().busy == pytest.approx((100 + 20 + 30 + 6 + 7 + 8) / os.sysconf("SC_CLK_TCK"))


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 8), ("150000 100000", 2), ("50000 100000", 1), ("900000 100000", 8), ("", 8)]
)
def test_a_containers_quota_counts(monkeypatch, tmp_path, quota, cores):
    monkeypatch.undo()
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    monkeypatch.setattr(thread_count, "QUOTA", file)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))

    assert usable_cores() == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1", 8), ("150000", 2)])
def test_an_older_containers_quota_counts(monkeypatch, tmp_path, quota, cores):
    monkeypatch.undo()
    files = tmp_path / "quota", tmp_path / "period"
    for file, text in zip(files, (quota, "100000"), strict=True):
        file.write_text(f"{text}\n")
    monkeypatch.setattr(thread_count, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(thread_count, "QUOTA_V1", files)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))

    assert usable_cores() == cores


def test_waiting_threads_sleep_soon_unless_the_user_wants_otherwise(monkeypatch):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    before_torch()
    assert os.environ["GOMP_SPINCOUNT"] == "5000"

    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    before_torch()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
