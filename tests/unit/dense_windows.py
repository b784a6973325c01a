"""Windows the plain way, for comparison: the inverse of the partition, and a label for every token."""

import torch
from torch import Tensor

from models.vrt.window import Triple, partition


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
