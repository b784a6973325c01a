"""Profile a few steps of a run with torch.profiler."""

import logging
from pathlib import Path

from torch.profiler import ProfilerAction, profile

from options.schema_train import LoggingOpt
from utils.utils_dist import Dist
from utils.utils_file import write_text
from utils.utils_run_folder import RunFolder

LOG = logging.getLogger("spikevrt")
ROWS = 40


class ProfileWindow:
    """Records the steps profile_start .. profile_start + profile_steps - 1 once, on rank 0; `done` steps are finished.

    Writes <folder>/profile/steps_<first>-<last>.json, for chrome://tracing and Perfetto, and the most expensive
    operators as .txt. The step before the window, if any, warms the profiler up. Use as a context around the loop; a
    run that ends inside the window writes what it has.
    """

    def __init__(self, folder: Path, opt: LoggingOpt, dist: Dist, done: int) -> None:
        self._folder, self._device, self._done = RunFolder(folder).profile, dist.device, done
        self._first = opt.profile_start if dist.is_main else None
        self._last = (self._first or 0) + opt.profile_steps - 1
        self._profiler: profile | None = None

    def __enter__(self) -> "ProfileWindow":
        self._start_if_due()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def step(self, done: int) -> None:
        """Call after each step; `done` steps are finished."""
        self._done = done
        if self._profiler is None:
            self._start_if_due()
            return
        self._profiler.step()
        if done >= self._last:
            self._stop()

    def _start_if_due(self) -> None:
        if self._first is None or not self._first - 2 <= self._done < self._first:
            return
        warmup = self._first - 1 - self._done
        self._profiler = profile(
            schedule=lambda index: ProfilerAction.WARMUP if index < warmup else ProfilerAction.RECORD,
            record_shapes=True,
        )
        self._profiler.start()

    def _stop(self) -> None:
        """Write what was recorded, if anything."""
        profiler, self._profiler = self._profiler, None
        if profiler is None or self._first is None:
            return
        profiler.stop()
        if self._done < self._first:
            return
        path = self._folder / f"steps_{self._first}-{min(self._done, self._last)}.json"
        order = "self_cuda_time_total" if self._device.type == "cuda" else "self_cpu_time_total"
        try:
            write_text(path.with_suffix(".txt"), profiler.key_averages().table(order, row_limit=ROWS) + "\n")
            profiler.export_chrome_trace(str(path))
        except (OSError, RuntimeError) as error:  # a full disk must not end the run
            LOG.warning("%s: %s; this run continues without it", path, getattr(error, "strerror", None) or error)
            return
        LOG.info("profile of steps %d to %d in %s", self._first, min(self._done, self._last), self._folder)
