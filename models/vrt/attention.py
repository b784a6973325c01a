"""Window attention: self attention with a relative position bias, and mutual attention between two frames."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.vrt.attend_window import attend
from models.vrt.linear import Linear
from models.vrt.window import Run, Triple


def relative_position_index(window: Triple) -> Tensor:
    """(N, N) int64, N = prod(window): row of the bias table for query i and key j, tokens in order d, h, w."""
    axes = torch.meshgrid(*(torch.arange(k) for k in window), indexing="ij")
    position = torch.stack(axes).flatten(1)
    delta = position[:, :, None] - position[:, None, :]
    index = torch.zeros_like(delta[0])
    for axis_delta, k in zip(delta, window, strict=True):
        index = index * (2 * k - 1) + axis_delta + k - 1
    return index


def sine_position_code(height: int, width: int, channels: int) -> Tensor:
    """(1, height * width, channels): two-dimensional sine code, half of the channels for y, the other half for x."""
    half = channels // 2
    temperature = 10000.0 ** (2 * torch.div(torch.arange(half), 2, rounding_mode="floor") / half)

    def code(length: int) -> Tensor:
        position = torch.arange(1, length + 1) / (length + 1e-6) * 2 * math.pi
        angle = position[:, None] / temperature
        return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1)

    y = code(height)[:, None].expand(height, width, half)
    x = code(width)[None].expand(height, width, half)
    return torch.cat((y, x), dim=2).reshape(1, height * width, channels)


class WindowAttention(nn.Module):
    """Attention inside windows (Wd, Wh, Ww).

    With `mutual`, the window's two frames also attend to each other, by a sine position code.
    """

    relative_position_index: Tensor
    position_bias: Tensor

    def __init__(self, dim: int, window: Triple, heads: int, qkv_bias: bool, mutual: bool) -> None:
        super().__init__()
        self.heads = heads
        self.mutual = mutual
        rows = math.prod(2 * k - 1 for k in window)
        self.relative_position_bias_table = nn.Parameter(torch.empty(rows, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", relative_position_index(window), persistent=False)
        self.qkv_self = Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = Linear(2 * dim if mutual else dim, dim)
        if mutual:
            self.register_buffer("position_bias", sine_position_code(window[1], window[2], dim), persistent=False)
            self.qkv_mut = Linear(dim, 3 * dim, bias=qkv_bias)

    def forward(self, x: Tensor, runs: Sequence[Run]) -> Tensor:
        """(windows, tokens, C) -> the same shape; `runs` as in `attend`."""
        out = self._self_attention(x, runs)
        if self.mutual:
            out = torch.cat((self._mutual_attention(x, runs), out), dim=2)
        return self.proj(out)

    def _split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).unbind(-3)
        return q, k, v

    def _self_attention(self, x: Tensor, runs: Sequence[Run]) -> Tensor:
        tokens = x.shape[1]
        index = self.relative_position_index[:tokens, :tokens].reshape(-1)
        bias = self.relative_position_bias_table[index].view(tokens, tokens, self.heads).permute(2, 0, 1).contiguous()
        return attend(*self._split(self.qkv_self(x)), bias, runs).flatten(2)

    def _mutual_attention(self, x: Tensor, runs: Sequence[Run]) -> Tensor:
        n, tokens, channels = x.shape
        half = tokens // 2
        frames = x.view(n, 2, half, channels) + self.position_bias
        q, k, v = self._split(self.qkv_mut(frames))
        # Queries of frame 2 attend to frame 1 and vice versa. The labels of the first frame serve both: only spatial
        # regions are masked, not the temporal wrap-around.
        runs = [Run(2 * run.count, None if run.labels is None else run.labels[:half]) for run in runs]
        out = attend(q.flip(1).flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), None, runs)
        return out.reshape(n, tokens, channels)
