"""Windows over (D, H, W): effective sizes, token order, and labels of the regions in shifted windows."""

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

Triple = tuple[int, int, int]


def effective_window(size: Triple, window: Triple, shift: Triple) -> tuple[Triple, Triple]:
    """Shrink the window to the volume; an axis no longer than the window is one window, without a shift."""
    pairs = [(n, 0) if n <= w else (w, s) for n, w, s in zip(size, window, shift, strict=True)]
    windows, shifts = zip(*pairs, strict=True)
    return windows, shifts


def pad_to_windows(x: Tensor, window: Triple) -> Tensor:
    """Zero-pad (B, D, H, W, C) at the end of D, H and W to multiples of the window."""
    d, h, w = ((-n) % k for n, k in zip(x.shape[1:4], window, strict=True))
    return F.pad(x, (0, 0, 0, w, 0, h, 0, d)) if d or h or w else x


def partition(x: Tensor, window: Triple) -> Tensor:
    """Cut (B, D, H, W, C), sizes multiples of the window, into (B * windows, tokens, C); tokens run d, h, w."""
    b, d, h, w, c = x.shape
    kd, kh, kw = window
    x = x.view(b, d // kd, kd, h // kh, kh, w // kw, kw, c)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, kd * kh * kw, c)


@dataclass(frozen=True)
class Run:
    """Consecutive windows with the same mask."""

    count: int  # of windows
    labels: Tensor | None  # (tokens,) int64 below 8; tokens attend only to those with the same label. None: to all


@dataclass(frozen=True)
class WindowPlan:
    """How a volume is shifted, cut into windows and reassembled."""

    rows: Tensor  # (B * D * H * W,) int64, the pixel at each place of the windows
    places: Tensor  # the inverse permutation
    runs: tuple[Run, ...]  # the windows in order, grouped by how the shift cuts them


def window_plan(batch: int, size: Triple, window: Triple, shift: Triple, device: torch.device) -> WindowPlan:
    """Plan the windows of (batch, D, H, W, C), `size` = (D, H, W) multiples of the window.

    A cyclic shift joins opposite ends of an axis only in its last window, so there are at most eight kinds of windows.
    """
    pixels = torch.arange(batch * math.prod(size), device=device).view(batch, *size)
    if any(shift):
        pixels = torch.roll(pixels, tuple(-s for s in shift), (1, 2, 3))
    counts = tuple(n // k for n, k in zip(size, window, strict=True))
    windows = partition(pixels[..., None], window).view(batch, *counts, -1)
    halves = [((0, n - 1), (n - 1, n)) if s else ((0, n),) for n, s in zip(counts, shift, strict=True)]
    pieces, runs = [], []
    for d, h, w in itertools.product(*halves):
        piece = windows[:, slice(*d), slice(*h), slice(*w)].flatten(0, 3)
        joined = [s if s and start else 0 for s, (start, _) in zip(shift, (d, h, w), strict=True)]
        labels = joined_labels(window, (joined[0], joined[1], joined[2]), device) if any(joined) else None
        pieces.append(piece)
        runs.append(Run(piece.shape[0], labels))
    rows = torch.cat(pieces).flatten()
    places = torch.empty_like(rows)
    places[rows] = torch.arange(rows.numel(), device=device)
    return WindowPlan(rows, places, tuple(runs))


def joined_labels(window: Triple, shift: Triple, device: torch.device) -> Tensor:
    """(tokens,) int64: the region each token of a last window comes from, of those that the shift joined."""
    label = torch.zeros(1, 1, 1, dtype=torch.int64, device=device)
    for axis, (k, s) in enumerate(zip(window, shift, strict=True)):
        far = (torch.arange(k, device=device) >= k - s).long()
        label = 2 * label + far.view([k if i == axis else 1 for i in range(3)])
    return label.expand(window).flatten()


class _Reorder(torch.autograd.Function):
    """Permute rows; the gradient uses the inverse permutation, which is faster than scatter-add."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, rows: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(rows, places)
        return x.index_select(0, rows)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None]:
        """grad[places]; itself differentiable."""
        rows, places = ctx.saved_tensors  # type: ignore[attr-defined]
        return _Reorder.apply(grad, places, rows), None, None


def to_windows(x: Tensor, plan: WindowPlan) -> Tensor:
    """(B, D, H, W, C) -> (windows, tokens, C), in one copy."""
    windows = sum(run.count for run in plan.runs)
    return _Reorder.apply(x.flatten(0, 3), plan.rows, plan.places).view(windows, -1, x.shape[-1])


def from_windows(windows: Tensor, plan: WindowPlan, size: Triple) -> Tensor:
    """Exact inverse of `to_windows` for size (D, H, W)."""
    x = _Reorder.apply(windows.flatten(0, 1), plan.places, plan.rows)
    return x.view(-1, *size, windows.shape[-1])
