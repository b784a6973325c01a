"""Window attention: self attention with a relative position bias, and mutual attention between two frames."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.vrt.window import Triple

MASKED = -100.0  # added to a logit whose key lies in another region of a shifted window


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
    """(1, height * width, channels): two-dimensional sine code, half of the channels for y, then half for x."""
    half = channels // 2
    temperature = 10000.0 ** (2 * torch.div(torch.arange(half), 2, rounding_mode="floor") / half)

    def code(length: int) -> Tensor:
        position = torch.arange(1, length + 1) / (length + 1e-6) * 2 * math.pi
        angle = position[:, None] / temperature
        return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1)

    y = code(height)[:, None].expand(height, width, half)
    x = code(width)[None].expand(height, width, half)
    return torch.cat((y, x), dim=2).reshape(1, height * width, channels)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, labels: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias + mask) v.

    Args:
        q: (B * windows, heads, tokens, head_dim).
        k: the same shape.
        v: the same shape.
        bias: (heads, tokens, tokens) or None.
        labels: (windows, tokens) of `region_labels` or None; the batch runs over windows fastest.

    Returns:
        (B * windows, heads, tokens, head_dim).
    """
    mask = None if bias is None else bias.to(q.dtype)
    if labels is not None:
        apart = (labels[:, None, :, None] != labels[:, None, None, :]).to(q.dtype) * MASKED
        mask = apart if mask is None else apart + mask
        mask = mask.repeat(q.shape[0] // labels.shape[0], 1, 1, 1)
    if mask is not None and mask.requires_grad:
        # No fused kernel returns a mask's gradient; the plain formula is then quicker than SDPA's own fallback.
        logits = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2)) + mask
        return torch.matmul(logits.softmax(dim=-1), v)
    return F.scaled_dot_product_attention(q, k, v, mask)


class WindowAttention(nn.Module):
    """Attention inside windows. With `mutual`, the window's two frames also attend to each other.

    Args:
        dim: channels.
        window: (Wd, Wh, Ww); Wd must be 2 where `mutual`.
        heads: number of heads; divides dim.
        qkv_bias: whether the q, k, v projections have a bias.
        mutual: adds mutual attention with a sine position code.
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
        self.qkv_self = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(2 * dim if mutual else dim, dim)
        if mutual:
            self.register_buffer("position_bias", sine_position_code(window[1], window[2], dim), persistent=False)
            self.qkv_mut = nn.Linear(dim, 3 * dim, bias=qkv_bias)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """(B * windows, tokens, C) -> the same shape; labels (windows, tokens) for shifted windows."""
        out = self._self_attention(x, labels)
        if self.mutual:
            out = torch.cat((self._mutual_attention(x, labels), out), dim=2)
        return self.proj(out)

    def _split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n, tokens, channels = qkv.shape
        qkv = qkv.view(n, tokens, 3, self.heads, channels // (3 * self.heads)).permute(2, 0, 3, 1, 4)
        return qkv[0], qkv[1], qkv[2]

    def _self_attention(self, x: Tensor, labels: Tensor | None) -> Tensor:
        tokens = x.shape[1]
        index = self.relative_position_index[:tokens, :tokens].reshape(-1)
        bias = self.relative_position_bias_table[index].view(tokens, tokens, self.heads).permute(2, 0, 1)
        out = attend(*self._split(self.qkv_self(x)), bias, labels)
        return out.transpose(1, 2).reshape(x.shape)

    def _mutual_attention(self, x: Tensor, labels: Tensor | None) -> Tensor:
        n, tokens, channels = x.shape
        half = tokens // 2
        frames = x.view(n, 2, half, channels) + self.position_bias
        q, k, v = self._split(self.qkv_mut(frames.view(2 * n, half, channels)))
        # Queries of frame 2 read frame 1 and the other way round.
        q = q.view(n, 2, *q.shape[1:]).flip(1).reshape(k.shape)
        if labels is not None:
            # The labels of the first frame serve both: across the temporal wrap-around only space is kept apart.
            labels = labels[:, :half].repeat_interleave(2, dim=0)
        return attend(q, k, v, None, labels).transpose(1, 2).reshape(n, tokens, channels)
