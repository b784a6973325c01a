"""When a training run prints, and what."""

import logging

import torch

from options.schema import Opt
from utils.processes import thread_count
from utils.utils_dist import Dist
from utils.utils_logger import Run, Stopwatch, train_line

LOG = logging.getLogger("spikevrt")


class Printer:
    """Prints and records the values of a step, with times averaged since the last print.

    Args:
        opt: the options.
        samples: number of samples in an epoch.
        run: records of the run.
        dist: this process.
    """

    def __init__(self, opt: Opt, samples: int, run: Run, dist: Dist) -> None:
        loaded = opt.datasets.loaded
        assert loaded is not None
        self._train, self._samples, self._run, self._dist = opt.train, samples, run, dist
        self._batch = loaded.dataloader_batch_size * opt.train.accumulate
        self._load = thread_count.Load()
        self.watch = Stopwatch(opt.train.total_iter, self._batch)

    def is_due(self, step: int) -> bool:
        """Whether to print after this step."""
        return self._train.is_due(step, self._train.checkpoint_print)

    def print(self, step: int, values: dict[str, float]) -> None:
        """Log and record a step; on a CPU, use fewer threads if other programs have become busy."""
        values = values | self.watch.report(step)
        LOG.info(train_line(step * self._batch // self._samples, step, values))
        self._run.log(step, "train", values)
        if self._dist.device.type == "cpu":
            torch.set_num_threads(thread_count.fewer(self._load, torch.get_num_threads()))
