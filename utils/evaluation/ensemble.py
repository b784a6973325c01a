"""Self-ensembles: average the restorations of a window and of its mirror images."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from utils.utils_rgbspike import Window
from utils.utils_tile import Restore

MIRRORS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))


def restore_both_ways(restore: Restore, planes_in_time: slice = slice(0, 0)) -> Restore:
    """Average the restorations of a window played forwards and backwards, when `planes_in_time` turn as well."""

    def backwards(window: Window) -> Window:
        window = window.flip(1)
        if isinstance(window, Tensor):
            return window
        order = list(range(window.spike.shape[2]))
        order[planes_in_time] = order[planes_in_time][::-1]
        return window.with_planes(order)

    return lambda window: (restore(window) + restore(backwards(window)).flip(1)) / 2


def restore_mirrored(restore: Restore, transposed: bool = False) -> Restore:
    """Average the restorations of a window and its three mirror images; `transposed`: of these four transposed, too."""

    def average(window: Window) -> Tensor:
        total = torch.zeros(())
        ways = [(dims, transpose) for transpose in ([False, True] if transposed else [False]) for dims in MIRRORS]
        for dims, transpose in ways:
            mirrored = window.flip(dims)
            out = restore(mirrored.mT.contiguous()).mT if transpose else restore(mirrored)
            total = total + out.flip(dims)
        return total / len(ways)

    return average


ENSEMBLES: dict[str, Callable[[Restore], Restore]] = {
    "none": lambda restore: restore,
    "flips": restore_mirrored,
    "flips_transposed": partial(restore_mirrored, transposed=True),
}
WAYS = {"none": 1, "flips": 4, "flips_transposed": 8}
