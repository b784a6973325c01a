"""Windows over (D, H, W): effective sizes, partition and its exact inverse, labels that keep shifted windows apart."""

import torch
import torch.nn.functional as F
from torch import Tensor

Triple = tuple[int, int, int]


def effective_window(size: Triple, window: Triple, shift: Triple) -> tuple[Triple, Triple]:
    """Shrink the window to the volume: an axis no longer than its window is one window and is not shifted."""
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


def unpartition(windows: Tensor, window: Triple, size: Triple) -> Tensor:
    """Exact inverse of `partition`: (B * windows, tokens, C) -> (B, D, H, W, C) for size (D, H, W)."""
    kd, kh, kw = window
    d, h, w = size
    x = windows.view(-1, d // kd, h // kh, w // kw, kd, kh, kw, windows.shape[-1])
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(-1, d, h, w, windows.shape[-1])


def region_labels(size: Triple, window: Triple, shift: Triple, device: torch.device) -> Tensor:
    """Label the regions that a cyclic shift has brought together: (windows, tokens) int64.

    Tokens of one window may attend to one another where their labels are equal. `size` is the padded (D, H, W).
    An axis that is not shifted carries no restriction.
    """
    label = torch.zeros(1, 1, 1, 1, 1, dtype=torch.int64, device=device)
    for axis, (n, k, s) in enumerate(zip(size, window, shift, strict=True)):
        position = torch.arange(n, device=device)
        region = (position >= n - k).long() + (position >= n - s).long() if s else torch.zeros_like(position)
        view = [1, 1, 1, 1, 1]
        view[axis + 1] = n
        label = 3 * label + region.view(view)
    return partition(label, window).squeeze(-1)
