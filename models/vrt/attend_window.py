"""Window attention that never holds the logits or masks of all windows at once.

Windows are grouped into runs with the same mask (`models.vrt.window.WindowPlan`), so at most one dense mask per run
exists. q, k and v are (windows, tokens, heads, head_dim), the layout that a linear layer returns.
"""

import functools
import logging
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from models.op.operator import operator
from models.vrt.window import Run

MASKED = -100.0  # added to the logit of a key in another region of a shifted window
REGIONS = 8  # a window is cut at most once along each of its three axes
HEAD_MULTIPLE = 8  # CUDA's fused kernels take head dimensions of 8, 16, 24, ...
CHUNK_BYTES = {"cpu": 1 << 20, "cuda": 256 << 20}  # logits held at once; on a CPU per thread, to fit into its cache

# (device, whether the bias needs a gradient) -> backend; other devices count as "cuda".
DEFAULTS = {("cpu", False): "runs", ("cpu", True): "chunked", ("cuda", False): "folded", ("cuda", True): "chunked"}
LOG = logging.getLogger("spikevrt")


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, runs: Sequence[Run]) -> Tensor:
    """softmax(q k^T / sqrt(head_dim) + bias + mask) v, per window and head.

    q, k, v and the result are (windows, tokens, heads, head_dim). The bias, (heads, tokens, tokens) or None, gets a
    gradient if it requires one. The runs are consecutive windows and their labels, covering all windows; tokens with
    different labels do not attend to each other.
    """
    learns = bias is not None and bias.requires_grad and torch.is_grad_enabled()
    name = DEFAULTS["cpu" if q.device.type == "cpu" else "cuda", learns]
    if not torch.compiler.is_compiling():
        _log_backend(q.device.type, learns, name)
    return BACKENDS[name](q, k, v, bias, runs)


@functools.cache
def _log_backend(device: str, learns: bool, name: str) -> None:
    LOG.info("window attention on %s%s: %s", device, " with a trained bias" if learns else "", name)


def run_bias(bias: Tensor | None, labels: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Bias and mask of one run as (heads or 1, tokens, tokens), or None."""
    if labels is None:
        return None if bias is None else bias.to(dtype)
    mask = (labels[:, None] != labels).to(dtype) * MASKED  # (tokens, tokens)
    return mask[None] if bias is None else bias.to(dtype) + mask


def fused(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float | None = None) -> Tensor:
    """PyTorch's fused attention; `bias` (heads or 1, tokens, tokens) is shared by all windows."""
    # The CPU's fused kernel needs a mask of four axes.
    mask = None if bias is None else bias[None]
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v, mask, scale=scale).transpose(1, 2)


def padded_fused(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float | None = None) -> Tensor:
    """`fused` with heads zero-padded to a multiple of `HEAD_MULTIPLE`; the scale stays that of the true size."""
    dim = v.shape[-1]
    scale = dim**-0.5 if scale is None else scale
    width = -(-q.shape[-1] // HEAD_MULTIPLE) * HEAD_MULTIPLE
    q, k, v = (t if t.shape[-1] == width else F.pad(t, (0, width - t.shape[-1])) for t in (q, k, v))
    return fused(q, k, v, bias, scale)[..., :dim]


def _fused_for(device: torch.device) -> Callable[..., Tensor]:
    return fused if device.type == "cpu" else padded_fused


def _by_run(call: Callable[..., Tensor], args: tuple[Tensor, ...], bias: Tensor | None, runs: Sequence[Run]) -> Tensor:
    """Call once per run, with the run's bias and mask."""
    counts = [run.count for run in runs]
    pieces = zip(*(tensor.split(counts) for tensor in args), strict=True)
    dtype = args[0].dtype if call is not window_attention else torch.promote_types(args[0].dtype, torch.float32)
    out = [call(*piece, run_bias(bias, run.labels, dtype)) for piece, run in zip(pieces, runs, strict=True)]
    return out[0] if len(out) == 1 else torch.cat(out)


def attend_runs(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, runs: Sequence[Run]) -> Tensor:
    """The fused kernel once per run: little overhead in arithmetic, but several calls."""
    return _by_run(_fused_for(q.device), (q, k, v), bias, runs)


def attend_chunked(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, runs: Sequence[Run]) -> Tensor:
    """`window_attention` once per run: the bias gets its gradient without the logits of all windows in memory."""
    if bias is None:
        return attend_runs(q, k, v, bias, runs)
    return _by_run(window_attention, (q, k, v), bias, runs)


def attend_folded(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, runs: Sequence[Run]) -> Tensor:
    """One fused call for all runs, without a mask: q and k carry the labels in extra channels.

    For one-hot labels a and b, a . (b - 1) is 0 if they are equal, else -1.
    """
    bias = None if bias is None else bias.to(q.dtype)
    if all(run.labels is None for run in runs):
        return padded_fused(q, k, v, bias)
    scale = q.shape[-1] ** -0.5
    labels = window_labels(runs, q.shape[1], q.device)
    hot = F.one_hot(labels, REGIONS)[:, :, None].expand(-1, -1, q.shape[2], -1)
    root = math.sqrt(-MASKED / scale)
    q = torch.cat((q, (root * hot).to(q.dtype)), dim=3)
    k = torch.cat((k, (root * (hot - 1)).to(k.dtype)), dim=3)
    return padded_fused(q, k, v, bias, scale)


def window_labels(runs: Sequence[Run], tokens: int, device: torch.device) -> Tensor:
    """(windows, tokens) int64: the labels of every window, 0 if its run has none."""
    rows = [torch.zeros(tokens, dtype=torch.int64, device=device) if r.labels is None else r.labels for r in runs]
    return torch.cat([row.expand(run.count, tokens) for row, run in zip(rows, runs, strict=True)])


@operator("window_attention")
def window_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Attention as `attend`, with one trained bias, float32 or wider, for all windows and without masks.

    The backward pass recomputes the logits chunk by chunk.
    """
    # Fused kernels refuse a mask that requires a gradient; the function below computes it.
    q, k, v, bias = (t.detach() for t in (q, k, v, bias))
    return _fused_for(q.device)(q, k, v, bias.to(q.dtype)).contiguous()


@torch.library.register_fake("spikevrt::window_attention")
def _(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return torch.empty_like(q, memory_format=torch.contiguous_format)


@operator("window_attention_backward")
def window_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, out: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and bias, given the output of `window_attention` and its gradient."""
    windows, tokens, heads, dim = q.shape
    grads = [torch.empty(q.shape, dtype=q.dtype, device=q.device) for _ in range(3)]
    bias_grad = torch.zeros_like(bias, memory_format=torch.contiguous_format)
    budget = CHUNK_BYTES["cpu"] * torch.get_num_threads() if q.device.type == "cpu" else CHUNK_BYTES["cuda"]
    step = max(1, budget // (bias.numel() * bias.element_size()))
    delta = (grad.to(bias.dtype) * out).sum(dim=3).transpose(1, 2)[..., None]
    for start in range(0, windows, step):
        piece = slice(start, min(start + step, windows))
        n = piece.stop - start
        flat = [t[piece].transpose(1, 2).reshape(n * heads, tokens, dim) for t in (q, k, v, grad)]
        results = _chunk_gradients(flat, bias, delta[piece].reshape(n * heads, tokens, 1), bias_grad)
        for whole, part in zip(grads, results, strict=True):
            whole[piece] = part.unflatten(0, (n, heads)).transpose(1, 2)
    return grads[0], grads[1], grads[2], bias_grad


def _chunk_gradients(args: list[Tensor], bias: Tensor, delta: Tensor, bias_grad: Tensor) -> tuple[Tensor, ...]:
    """Gradients of q, k, v, (windows * heads, tokens, head_dim); adds that of the bias to `bias_grad`."""
    q, k, v, grad = args
    heads, tokens, _ = bias.shape
    q = q * q.shape[-1] ** -0.5
    logits = bias.to(q.dtype).repeat(q.shape[0] // heads, 1, 1)
    weights = logits.baddbmm_(q, k.transpose(1, 2)).softmax(dim=-1, dtype=bias.dtype)
    del logits
    slope = torch.bmm(grad, v.transpose(1, 2)).to(bias.dtype).sub_(delta).mul_(weights)
    bias_grad.add_(slope.view(-1, heads, tokens, tokens).sum(0) if len(slope) > heads else slope)
    weights, slope = weights.to(q.dtype), slope.to(q.dtype)
    # On a CPU, transposing the small factor is faster than transposing the large one.
    v_grad = torch.bmm(grad.transpose(1, 2), weights).transpose(1, 2)
    k_grad = torch.bmm(q.transpose(1, 2), slope).transpose(1, 2)
    return torch.bmm(slope, k).mul_(q.shape[-1] ** -0.5), k_grad, v_grad


@torch.library.register_fake("spikevrt::window_attention_backward")
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, out: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    whole = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v, bias)]
    return whole[0], whole[1], whole[2], whole[3]


def _save(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs, output)


def _backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, ...]:
    return window_attention_backward(grad, *ctx.saved_tensors)  # type: ignore[attr-defined]


torch.library.register_autograd("spikevrt::window_attention", _backward, setup_context=_save)

BACKENDS = {"runs": attend_runs, "chunked": attend_chunked, "folded": attend_folded}
