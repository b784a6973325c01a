"""Skips the training steps whose loss or gradient would harm the weights."""

import logging
import math
from typing import Any

LOG = logging.getLogger("spikevrt")
DECAY = 0.99  # of the running mean of the loss: about 100 steps
WARM_UP = 20  # steps taken before a loss can count as too high


class StepGuard:
    """Decides for each step whether it may change the weights, and counts the skipped ones.

    A step is skipped if its loss or gradient norm is not finite, or if its loss exceeds `spike` times the running mean
    of the losses of the steps taken. After `limit` skipped steps in a row:

    - not finite: the guard is `exhausted` and the run must stop, because every further step would fail the same way.
    - too high: the next finite loss is accepted as the new level, and the running mean restarts from it. A lasting rise
      is no accident (new data, or frozen parameters that start to learn), and the weights cannot recover without a
      step. At least WARM_UP steps are taken between two new levels.

    Decisions depend only on the numbers given. Processes that pass the same means over all processes therefore agree
    without further communication; one non-finite loss makes the mean non-finite. Without `spike` no loss is too high.
    """

    def __init__(self, limit: int, spike: float | None) -> None:
        self.limit, self.spike = limit, spike
        self.total = 0  # steps skipped in the whole run
        self._not_finite = self._too_high = 0  # in a row
        self._sum, self._taken = 0.0, 0  # the running mean before its correction, and the steps in it

    @property
    def in_row(self) -> int:
        """Steps skipped since the last one taken."""
        return self._not_finite + self._too_high

    @property
    def exhausted(self) -> bool:
        return self._not_finite >= self.limit

    @property
    def mean(self) -> float | None:
        """Running mean of the losses of the steps taken; None before the first."""
        return self._sum / (1 - DECAY**self._taken) if self._taken else None

    def reason_to_skip(self, loss: float, norm: float) -> str | None:
        """Why to skip this step; None: take it."""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return f"loss {loss:g}, gradient norm {norm:g}"
        if self._judges_height() and self._is_high(loss):
            return f"loss jumps to {loss:g}, more than {self.spike:g} times the running mean {self.mean:g}"
        return None

    def count_skipped(self, loss: float, norm: float) -> None:
        self.total += 1
        if math.isfinite(loss) and math.isfinite(norm):
            self._too_high += 1
        else:
            self._not_finite += 1

    def count_taken(self, loss: float, norm: float) -> None:
        """Count a step that was taken; ends a row of skipped ones."""
        if self._too_high >= self.limit and self._is_high(loss):
            LOG.warning(
                "the loss stayed high for %d steps in a row (train.nonfinite_limit): %g is the new level; "
                "gradient norm %g, running mean so far %g",
                *(self._too_high, loss, norm, self.mean),
            )
            self._sum, self._taken = 0.0, 0
        self._sum = DECAY * self._sum + (1 - DECAY) * loss
        self._taken += 1
        self._not_finite = self._too_high = 0

    def state_dict(self) -> dict[str, Any]:
        """All that later decisions depend on, besides the options."""
        skipped = {"total": self.total, "not_finite": self._not_finite, "too_high": self._too_high}
        return skipped | {"sum": self._sum, "taken": self._taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total, self._not_finite, self._too_high = state["total"], state["not_finite"], state["too_high"]
        self._sum, self._taken = state["sum"], state["taken"]

    def _judges_height(self) -> bool:
        return self.spike is not None and self._taken >= WARM_UP and self._too_high < self.limit

    def _is_high(self, loss: float) -> bool:
        return self.spike is not None and self.mean is not None and loss > self.spike * self.mean
