"""Training for a given time on any machine: a step is timed first, then as many are trained as fit."""

import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data.check import open_dataset
from data.layout import gt_dir, instant_dir, lq_dir, spike_dir, subframe_dir
from data.loader import train_batches
from models.model_vrt import ModelVRT
from models.select_network import define_G
from options.schema import Opt
from utils import utils_dist, utils_option, utils_seed
from utils.utils_eval import evaluate

WARM_UP = 3  # steps before a step is timed


def set_roots(root: Path, block: str) -> list[str]:
    """Return the options that name the folders of a set in one block of the data sets."""
    split: Any = block
    folders = {"gt": gt_dir, "lq": lq_dir, "spike": spike_dir, "instants": instant_dir}
    if block == "train":
        folders["subframes"] = subframe_dir
    return [f"datasets.{block}.dataroot_{key}={folder(root, split)}" for key, folder in folders.items()]


def network_of(opt: Opt) -> nn.Module:
    """Build the network of the options."""
    return define_G(opt.netG, opt.train.manual_seed)


@dataclass(frozen=True)
class Kind:
    """What is trained: an option file, changes of it, and how the network is made of the options."""

    file: str
    sets: tuple[str, ...] = ()
    network: Callable[[Opt], nn.Module] = network_of

    def load(self, steps: int, seed: int = 0) -> Opt:
        """Load the options with a number of steps."""
        fixed = [f"train.manual_seed={seed}", "datasets.train.dataloader_num_workers=0", f"train.total_iter={steps}"]
        return utils_option.load(Path(self.file), Opt, [*self.sets, *fixed])

    def training(self, opt: Opt) -> Iterator[ModelVRT]:
        """Train, yielding the model after every step."""
        assert opt.datasets.train is not None
        model = ModelVRT(self.network(opt), opt.train, utils_dist.init())
        batches = train_batches(
            open_dataset(opt.datasets.train),
            seed=opt.train.manual_seed,
            start_step=0,
            total_steps=opt.train.total_iter,
            batch_size=opt.datasets.train.dataloader_batch_size,
        )
        for step, batch in enumerate(batches):
            utils_seed.seed_all(opt.train.manual_seed, 0, step)
            model.train_step([batch], step)
            yield model

    def trained(self, steps: int, seed: int = 0) -> ModelVRT:
        """Train all steps."""
        return deque(self.training(self.load(steps, seed)), maxlen=1)[0]

    def seconds_per_step(self, timed: int) -> float:
        """Time a step, data included."""
        began = time.perf_counter()
        for step, _ in enumerate(self.training(self.load(WARM_UP + timed))):
            if step + 1 == WARM_UP:
                began = time.perf_counter()
        return (time.perf_counter() - began) / timed


def scores(opt: Opt, model: ModelVRT) -> dict[str, Any]:
    """Restore and measure the test clips of the options, see `evaluate`."""
    assert opt.datasets.test is not None
    return evaluate(model.restore, open_dataset(opt.datasets.test), opt.val)


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what a file keeps; without the file, make and keep it."""
    if not path.is_file():
        path.write_text(json.dumps(make()))
    return dict(json.loads(path.read_text()))


def step_times(kinds: Mapping[str, Kind], rounds: int = 3, timed: int = 8) -> dict[str, float]:
    """Time a step of all kinds, in turn: medians over rounds of the mean of `timed` steps."""
    found = [{name: kind.seconds_per_step(timed) for name, kind in kinds.items()} for _ in range(rounds)]
    return {name: median(each[name] for each in found) for name in kinds}
