"""Several training sets in one training: each batch comes from one of them."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch

from options.schema_data import ROUND
from utils.utils_error import UserError

SETS = 2  # separates the random stream of a round's order from those of the samples and epochs
SPIKES = ("spike", "spike_scale")


class SampleSource(Protocol):
    """A training set.

    `sample` returns a dict of tensors and a `key`; `name` describes what `sample` reads for the same arguments;
    `shuffle` requests random order.
    """

    shuffle: bool

    def __len__(self) -> int: ...

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]: ...

    def name(self, index: int, rng: np.random.Generator) -> str: ...


class Mixture:
    """Training sets, one of which gives each batch, so that all samples of a batch have the same shapes.

    In every ROUND of batches each set comes as often as its weight says, in an order drawn from the seed and the round.
    So the set of a batch depends on nothing else, and how often it came before is known without a count. Weights are
    above 0; none may be below 1 / ROUND of their sum.
    """

    def __init__(self, sets: Sequence[SampleSource], weights: Sequence[float] = (1.0,)) -> None:
        self.sets, self.per_round = tuple(sets), _shares(weights)

    def __len__(self) -> int:
        return sum(map(len, self.sets))

    def of_batch(self, number: int, seed: int) -> tuple[SampleSource, int]:
        """Return the set that a batch comes from, and the number of the batch among those of this set."""
        finished, place = divmod(number, ROUND)
        drawn = _round(self.per_round, seed, finished)
        which = int(drawn[place])
        before = int((drawn[:place] == which).sum())
        return self.sets[which], finished * self.per_round[which] + before


class OneOfSeveral:
    """A set among others: what is said of its samples names it.

    Args:
        source: the set.
        label: names it in messages.
    """

    def __init__(self, source: SampleSource, label: str) -> None:
        self.source, self.label, self.shuffle = source, label, source.shuffle

    def __len__(self) -> int:
        return len(self.source)

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """Read a sample; its key and a UserError begin with the label."""
        try:
            sample = self.source.sample(index, rng)
        except UserError as error:
            raise UserError(f"{self.label}: {error}") from None
        return sample | {"key": f"{self.label}: {sample['key']}"}

    def name(self, index: int, rng: np.random.Generator) -> str:
        """Describe what `sample` reads, after the label."""
        return f"{self.label}: {self.source.name(index, rng)}"


class WithoutSpikes:
    """A set without spikes beside one with them: samples as `augment.drop_spikes` makes them, with planes of zeros.

    Their shape is that of a sample of `like`, a set with spikes and of the same crop size.
    """

    def __init__(self, source: SampleSource, like: SampleSource) -> None:
        self.source, self.shuffle = source, source.shuffle
        shown = like.sample(0, np.random.default_rng(0))
        self._more = {name: torch.zeros_like(shown[name]) for name in SPIKES if name in shown}
        self._more |= {name: shown[name] for name in ("is_linear",) if name in shown}

    def __len__(self) -> int:
        return len(self.source)

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        return self.source.sample(index, rng) | self._more

    def name(self, index: int, rng: np.random.Generator) -> str:
        return self.source.name(index, rng)


def _shares(weights: Sequence[float]) -> tuple[int, ...]:
    """Return how many batches of a round each set gives; largest remainders are rounded up."""
    exact = np.array(weights) / sum(weights) * ROUND
    shares = np.floor(exact).astype(int)
    up = np.argsort(shares - exact, kind="stable")[: ROUND - shares.sum()]
    shares[up] += 1
    return tuple(shares.tolist())


@lru_cache(maxsize=2)  # the workers read ahead into the next round
def _round(shares: tuple[int, ...], seed: int, number: int) -> np.ndarray:
    """Return the set of each batch of a round, (ROUND,) int64."""
    sets = np.repeat(np.arange(len(shares)), shares)
    return np.random.default_rng([seed, number, SETS]).permutation(sets)
