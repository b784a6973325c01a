"""Temporal mutual self attention (TMSA) blocks, and groups of them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.vrt.attention import WindowAttention
from models.vrt.window import Triple, effective_window, pad_to_windows, partition, region_labels, unpartition


@dataclass(frozen=True)
class BlockArgs:
    """What all blocks of one stage share.

    Attributes:
        dim: channels.
        heads: attention heads.
        mlp_ratio: hidden width of the feed-forward part over dim.
        qkv_bias: bias of the q, k, v projections.
        checkpoint_attn: recompute the attention part in the backward pass (training only).
        checkpoint_ffn: the same for the feed-forward part.
    """

    dim: int
    heads: int
    mlp_ratio: float = 2.0
    qkv_bias: bool = True
    checkpoint_attn: bool = False
    checkpoint_ffn: bool = False


class GEGLU(nn.Module):
    """fc2(GELU(fc11 x) * fc12 x), on the last axis."""

    def __init__(self, dim_in: int, hidden: int, dim_out: int) -> None:
        super().__init__()
        self.fc11 = nn.Linear(dim_in, hidden)
        self.fc12 = nn.Linear(dim_in, hidden)
        self.fc2 = nn.Linear(hidden, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim_in) -> (..., dim_out)."""
        return self.fc2(F.gelu(self.fc11(x)) * self.fc12(x))


class TMSABlock(nn.Module):
    """x + attention(norm1(x)), then x + GEGLU(norm2(x)), in shifted or plain windows."""

    def __init__(self, args: BlockArgs, window: Triple, shift: Triple, mutual: bool, drop_path: float) -> None:
        super().__init__()
        self.args, self.window, self.shift = args, window, shift
        self.norm1 = nn.LayerNorm(args.dim)
        self.attn = WindowAttention(args.dim, window, args.heads, args.qkv_bias, mutual)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(args.dim)
        self.mlp = GEGLU(args.dim, int(args.dim * args.mlp_ratio), args.dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W, C) -> the same shape."""
        attn, ffn = self._attention, self._feed_forward
        x = x + self.drop_path(_run(attn, x, self.training and self.args.checkpoint_attn))
        return x + self.drop_path(_run(ffn, x, self.training and self.args.checkpoint_ffn))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.norm2(x))

    def _attention(self, x: Tensor) -> Tensor:
        _, depth, height, width, _ = x.shape
        window, shift = effective_window((depth, height, width), self.window, self.shift)
        x = pad_to_windows(self.norm1(x), window)
        padded = (x.shape[1], x.shape[2], x.shape[3])
        labels = None
        if any(shift):
            labels = region_labels(padded, window, shift, x.device)
            x = torch.roll(x, tuple(-s for s in shift), (1, 2, 3))
        x = unpartition(self.attn(partition(x, window), labels), window, padded)
        if any(shift):
            x = torch.roll(x, shift, (1, 2, 3))
        return x[:, :depth, :height, :width]


class TMSAGroup(nn.Module):
    """Blocks one after another; every second one works in shifted windows."""

    def __init__(self, args: BlockArgs, window: Triple, mutual: bool, drop_paths: list[float]) -> None:
        super().__init__()
        half = (window[0] // 2, window[1] // 2, window[2] // 2)
        self.blocks = nn.ModuleList(
            TMSABlock(args, window, half if i % 2 else (0, 0, 0), mutual, rate) for i, rate in enumerate(drop_paths)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W, C) -> the same shape."""
        for block in self.blocks:
            x = block(x)
        return x


class RTMSA(nn.Module):
    """A residual group of self-attention blocks: x + linear(group(x))."""

    def __init__(self, args: BlockArgs, window: Triple, drop_paths: list[float]) -> None:
        super().__init__()
        self.residual_group = TMSAGroup(args, window, False, drop_paths)
        self.linear = nn.Linear(args.dim, args.dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W, C) -> the same shape."""
        return x + self.linear(self.residual_group(x))


def _run(part: Callable[[Tensor], Tensor], x: Tensor, recompute: bool) -> Tensor:
    """Call part(x), keeping no activations of it where `recompute`."""
    return checkpoint(part, x, use_reentrant=False) if recompute else part(x)
