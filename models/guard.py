"""Which training steps are left out: those whose loss or gradient would harm the weights."""

import logging
import math
from typing import Any

LOG = logging.getLogger("spikevrt")
DECAY = 0.99  # of the running mean of the loss: about 100 steps
WARM_UP = 20  # steps that must have been taken before a loss can be called too high
TOO_HIGH = "loss jumps"  # how such a reason begins


class StepGuard:
    """Judges each step before it reaches the weights, and keeps count.

    A step is left out if its loss or its gradient's norm is not finite, or if its loss is more than `spike` times the
    running mean of the losses of the steps taken. Two different things happen after `limit` of them in a row:

    - not finite: the guard is `exhausted`; the run can only stop, as nothing that it could do next differs.
    - too high: the next finite loss is taken whatever it is, and the running mean begins anew from it. A level that
      stays is no accident (another part of the data, parts of the network that begin to learn), and without a step the
      weights would never leave it. Between two new levels lie at least WARM_UP steps taken.

    The answers depend on nothing but the numbers given. Several processes must give the same ones, the means over all
    of them, and then agree without a further exchange: one loss that is not finite makes the mean so.

    Args:
        limit: steps in a row.
        spike: factor above 1; None: no loss is too high.

    Attributes:
        in_row: steps left out since the last one taken.
        total: steps left out in the whole run.
    """

    def __init__(self, limit: int, spike: float | None) -> None:
        self.limit, self.spike = limit, spike
        self.total = 0
        self._not_finite = self._too_high = 0  # in a row
        self._sum, self._taken = 0.0, 0  # the running mean before its correction, and the steps in it

    @property
    def in_row(self) -> int:
        """Steps left out since the last one taken."""
        return self._not_finite + self._too_high

    @property
    def exhausted(self) -> bool:
        """Whether the run should stop."""
        return self._not_finite >= self.limit

    @property
    def mean(self) -> float | None:
        """Running mean of the losses taken; None where there is none yet."""
        return self._sum / (1 - DECAY**self._taken) if self._taken else None

    def verdict(self, loss: float, norm: float) -> str | None:
        """Why this step should be left out; None: it should be taken."""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return f"loss {loss:g}, gradient norm {norm:g}"
        if self._judges_height() and self._is_high(loss):
            return f"{TOO_HIGH} to {loss:g}, more than {self.spike:g} times the running mean {self.mean:g}"
        return None

    def skipped(self, reason: str) -> None:
        """Count a step that was left out, `reason` as `verdict` gave it."""
        self.total += 1
        if reason.startswith(TOO_HIGH):
            self._too_high += 1
        else:
            self._not_finite += 1

    def taken(self, loss: float, norm: float) -> None:
        """Count a step that was taken; ends a row of others."""
        if self._too_high >= self.limit and self._is_high(loss):
            LOG.warning(
                "the loss stayed high for %d steps in a row (train.nonfinite_limit): %g is the new level, gradient "
                "norm %g, running mean so far %g",
                self._too_high,
                loss,
                norm,
                self.mean,
            )
            self._sum, self._taken = 0.0, 0
        self._sum = DECAY * self._sum + (1 - DECAY) * loss
        self._taken += 1
        self._not_finite = self._too_high = 0

    def state_dict(self) -> dict[str, Any]:
        """All that later answers depend on, besides the options."""
        return {
            "total": self.total,
            "not_finite": self._not_finite,
            "too_high": self._too_high,
            "sum": self._sum,
            "taken": self._taken,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Exact inverse of `state_dict`."""
        self.total = state["total"]
        self._not_finite, self._too_high = state["not_finite"], state["too_high"]
        self._sum, self._taken = state["sum"], state["taken"]

    def _judges_height(self) -> bool:
        return self.spike is not None and self._taken >= WARM_UP and self._too_high < self.limit

    def _is_high(self, loss: float) -> bool:
        return self.spike is not None and self.mean is not None and loss > self.spike * self.mean
