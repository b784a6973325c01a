"""Skipped steps: which, for how long, and the same after a resume."""

import logging
import math

import numpy as np
import pytest

from models.guard import WARM_UP, StepGuard

NAN, INF = math.nan, math.inf


def step(guard, loss, norm=1.0):
    """Judge and count a step as a run does; returns the reason to skip it."""
    reason = guard.reason_to_skip(loss, norm)
    if reason is None:
        guard.count_taken(loss, norm)
    else:
        guard.count_skipped(loss, norm)
    return reason


def settled(limit=3, spike=4.0, level=1.0, steps=WARM_UP):
    guard = StepGuard(limit, spike)
    for _ in range(steps):
        assert step(guard, level) is None
    return guard


@pytest.mark.parametrize(("loss", "norm"), [(NAN, 1.0), (INF, 1.0), (1.0, NAN), (1.0, INF), (-INF, NAN)])
@pytest.mark.parametrize("spike", [None, 4.0])
def test_what_is_not_finite_is_left_out_from_the_first_step_on(loss, norm, spike):
    reason = StepGuard(3, spike).reason_to_skip(loss, norm)
    assert f"loss {loss:g}" in reason
    assert f"norm {norm:g}" in reason


def test_a_verdict_alone_counts_nothing():
    guard = settled()
    before = guard.state_dict()
    guard.reason_to_skip(NAN, 1.0)
    guard.reason_to_skip(1e9, 1.0)
    assert guard.state_dict() == before


def test_the_run_stops_at_the_limit_of_a_row_and_a_taken_step_ends_the_row():
    guard = StepGuard(3, None)
    for loss in (NAN, NAN, 1.0, NAN, NAN):
        step(guard, loss)
        assert not guard.exhausted
    assert (guard.in_row, guard.total) == (2, 4)
    step(guard, NAN)
    assert guard.exhausted
    assert (guard.in_row, guard.total) == (3, 5)


def test_a_loss_that_jumps_is_left_out_with_the_numbers_that_say_why():
    guard = settled(level=0.5)
    assert step(guard, 1.9) is None
    reason = step(settled(level=0.5), 2.1)
    for number in ("2.1", "4 times", "0.5"):
        assert number in reason


def test_no_loss_is_too_high_without_the_option_nor_before_there_is_a_level():
    assert step(settled(spike=None), 1e9) is None
    assert step(settled(steps=WARM_UP - 1), 1e9) is None
    assert step(settled(steps=WARM_UP), 1e9) is not None


def test_the_level_is_the_mean_of_the_losses_taken_and_follows_them():
    guard = settled(steps=5, level=2.0)
    assert guard.mean == pytest.approx(2.0)  # no pull towards zero at the start
    step(guard, NAN)
    assert guard.mean == pytest.approx(2.0)
    for _ in range(1000):
        step(guard, 0.1)
    assert guard.mean == pytest.approx(0.1, rel=1e-3)


def test_losses_left_out_do_not_raise_the_level():
    guard = settled(limit=100)
    for _ in range(50):
        assert step(guard, 5.0) is not None
    assert guard.mean == pytest.approx(1.0)


def test_a_level_that_stays_high_is_accepted_once_and_said(caplog):
    guard = settled(limit=3)
    with caplog.at_level(logging.WARNING, "spikevrt"):
        verdicts = [step(guard, 10.0) is None for _ in range(4)]
    assert verdicts == [False, False, False, True]
    assert not guard.exhausted
    assert len(caplog.records) == 1
    assert "10 is the new level" in caplog.text
    assert guard.mean == pytest.approx(10.0)
    assert (guard.in_row, guard.total) == (0, 3)
    assert all(step(guard, 10.0) is None for _ in range(WARM_UP))
    assert step(guard, 100.0) is not None


def test_a_loss_that_comes_back_keeps_the_old_level(caplog):
    guard = settled(limit=3)
    for _ in range(3):
        step(guard, 10.0)
    assert step(guard, 1.2) is None
    assert guard.mean == pytest.approx(1.0, rel=0.05)
    assert not caplog.records


def test_jumps_never_stop_a_run_but_what_is_not_finite_among_them_does():
    guard = settled(limit=3)
    for loss in (9.0, NAN, 9.0, NAN):
        step(guard, loss)
        assert not guard.exhausted
    step(guard, NAN)
    assert guard.exhausted


def losses(count=400):
    rng = np.random.default_rng(0)
    values = 0.05 * rng.lognormal(0.0, 0.4, count)
    values[rng.random(count) < 0.05] *= 50
    values[rng.random(count) < 0.05] = NAN
    values[200:] *= 20
    return values.tolist()


@pytest.mark.parametrize("stop", [1, 19, 57, 203, 205])
def test_a_resumed_guard_goes_on_exactly(stop):
    straight, first, second = (StepGuard(4, 5.0) for _ in range(3))
    expected = [step(straight, loss) for loss in losses()]
    answers = [step(first, loss) for loss in losses()[:stop]]
    second.load_state_dict(first.state_dict())
    answers += [step(second, loss) for loss in losses()[stop:]]
    assert answers == expected
    assert second.state_dict() == straight.state_dict()
    assert any(reason and "jumps" in reason for reason in expected)
    assert any(reason and "nan" in reason for reason in expected)


def test_the_options_of_today_hold_after_a_resume():
    guard = StepGuard(2, 2.0)
    guard.load_state_dict(settled(limit=9, spike=50.0).state_dict())
    assert guard.reason_to_skip(3.0, 1.0) is not None
    assert (guard.limit, guard.spike) == (2, 2.0)
