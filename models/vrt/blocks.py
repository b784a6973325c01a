"""Temporal mutual self attention (TMSA) blocks, and groups of them."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts, noop_context_fn

from models.vrt.attention import WindowAttention
from models.vrt.geglu import geglu_by_rows
from models.vrt.linear import Linear, takes_onednn
from models.vrt.window import Triple, effective_window, from_windows, pad_to_windows, to_windows, window_plan


@dataclass(frozen=True)
class BlockArgs:
    """What all blocks of one stage share.

    keep_attended: when recomputing the attention part, keep the output of its self attention: the most expensive step,
        for one more tensor of the input's size.
    """

    dim: int  # channels
    heads: int
    mlp_ratio: float = 2.0  # hidden width of the feed-forward part, relative to dim
    qkv_bias: bool = True
    checkpoint_attn: bool = False  # recompute the attention part in the backward pass (training only)
    checkpoint_ffn: bool = False  # the same for the feed-forward part
    keep_attended: bool = False


class GEGLU(nn.Module):
    """fc2(GELU(fc11 x) * fc12 x), on the last axis."""

    def __init__(self, dim_in: int, hidden: int, dim_out: int) -> None:
        super().__init__()
        self.fc11 = Linear(dim_in, hidden)
        self.fc12 = Linear(dim_in, hidden)
        self.fc2 = Linear(hidden, dim_out)

    def forward(self, x: Tensor, norm: nn.LayerNorm | None = None) -> Tensor:
        """(..., dim_in) -> (..., dim_out), of norm(x) if given."""
        if self.keeps_input_alone(x):
            parts = (self.fc11, self.fc12, self.fc2)
            return geglu_by_rows(x, [t for part in parts for t in (part.effective_weight(), part.bias)], norm)
        if norm is not None:
            x = norm(x)
        return self.fc2(F.gelu(self.fc11(x)) * self.fc12(x))

    def keeps_input_alone(self, x: Tensor) -> bool:
        """Whether the backward pass needs only x, so that checkpointing would save no memory."""
        return takes_onednn(x, self.fc11.weight)


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
        saving, args = self.training and torch.is_grad_enabled(), self.args
        x = x + self.drop_path(_run(self._attention, x, saving and args.checkpoint_attn, args.keep_attended))
        saving = saving and not self.mlp.keeps_input_alone(x)
        return x + self.drop_path(_run(self._feed_forward, x, saving and args.checkpoint_ffn))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.mlp(x, self.norm2)

    def _attention(self, x: Tensor) -> Tensor:
        _, depth, height, width, _ = x.shape
        window, shift = effective_window((depth, height, width), self.window, self.shift)
        x = pad_to_windows(self.norm1(x), window)
        padded = (x.shape[1], x.shape[2], x.shape[3])
        plan = window_plan(x.shape[0], padded, window, shift, x.device)
        x = from_windows(self.attn(to_windows(x, plan), plan.runs), plan, padded)
        return x[:, :depth, :height, :width]


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., arXiv:1603.09382): in training, drops whole samples with probability `rate`.

    Kept samples are divided by 1 - rate. The same numbers and random draws as timm's, whose import takes seconds.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.rate:
            return x
        keep = 1 - self.rate
        return x * x.new_empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(keep).div_(keep)


class TMSAGroup(nn.Module):
    """A sequence of blocks; every second one uses shifted windows."""

    def __init__(self, args: BlockArgs, window: Triple, mutual: bool, drop_paths: list[float]) -> None:
        super().__init__()
        half = (window[0] // 2, window[1] // 2, window[2] // 2)
        self.blocks = nn.ModuleList(
            TMSABlock(args, window, half if i % 2 else (0, 0, 0), mutual, rate) for i, rate in enumerate(drop_paths)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class RTMSA(nn.Module):
    """A residual group of self-attention blocks: x + linear(group(x))."""

    def __init__(self, args: BlockArgs, window: Triple, drop_paths: list[float]) -> None:
        super().__init__()
        self.residual_group = TMSAGroup(args, window, False, drop_paths)
        self.linear = Linear(args.dim, args.dim)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(self.residual_group(x))


def _run(part: Callable[[Tensor], Tensor], x: Tensor, recompute: bool, keep_attended: bool = False) -> Tensor:
    """Call part(x), which draws no random numbers; if `recompute`, keep none of its activations."""
    if not recompute:
        return part(x)
    kept = functools.partial(create_selective_checkpoint_contexts, [torch.ops.spikevrt.window_attention.default])
    context = kept if keep_attended else noop_context_fn
    return checkpoint(part, x, use_reentrant=False, preserve_rng_state=False, context_fn=context)
