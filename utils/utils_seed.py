"""Random numbers that depend on (seed, rank, step) only, so that a resumed run draws what an unbroken one would."""

import random

import numpy as np
import torch


def seed_all(seed: int, rank: int, step: int) -> None:
    """Seed Python's, NumPy's and torch's global generators for one training step of one process."""
    words = np.random.SeedSequence([seed, rank, step]).generate_state(3, np.uint32)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002 - libraries that draw from the global generator must be repeatable too
    torch.manual_seed(int(words[2]))
