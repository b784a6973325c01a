"""Random numbers that depend only on (seed, rank, step), so that a resumed run draws the same as an unbroken one."""

import random

import numpy as np
import torch


def seed_all(seed: int, rank: int, step: int) -> None:
    """Seed the global generators of Python, NumPy and torch for one training step of one process."""
    words = np.random.SeedSequence([seed, rank, step]).generate_state(3, np.uint32)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002 - libraries may draw from the global generator
    torch.manual_seed(int(words[2]))
