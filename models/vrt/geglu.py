"""The feed-forward part on a CPU, in chunks of rows whose hidden features fit into the cache."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from models.vrt.linear import GELU, chunk_rows, onednn, parameter_gradients


class _GEGLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        rows: Tensor,
        eps: float,
        norm_weight: Tensor | None,
        norm_bias: Tensor | None,
        *parameters: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(rows, norm_weight, norm_bias, *parameters)  # type: ignore[arg-type]
        ctx.eps = eps  # type: ignore[attr-defined]
        w11, b11, w12, b12, w2, b2 = parameters
        out = rows.new_empty(rows.shape[0], w2.shape[0])
        step = chunk_rows()
        for x, target in zip(rows.split(step), out.split(step), strict=True):
            if norm_weight is not None:
                x = F.layer_norm(x, x.shape[1:], norm_weight, norm_bias, eps)
            hidden = onednn(x, w11, b11, GELU).mul_(onednn(x, w12, b12))
            target.copy_(onednn(hidden, w2, b2))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, norm_weight, norm_bias, *parameters = ctx.saved_tensors  # type: ignore[attr-defined]
        row_grad = torch.empty_like(rows)
        needs = ctx.needs_input_grad[4:]  # type: ignore[attr-defined]
        grads = [torch.zeros_like(p) if need else None for p, need in zip(parameters, needs, strict=True)]
        norm_grads = [None if p is None else torch.zeros_like(p) for p in (norm_weight, norm_bias)]
        step = chunk_rows()
        pieces = zip(rows.split(step), grad.contiguous().split(step), row_grad.split(step), strict=True)
        for x, slope, target in pieces:
            if norm_weight is None:
                target.copy_(_piece_gradient(x, slope, parameters, grads))
                continue
            shape = x.shape[1:]
            normed, mean, scale = torch.native_layer_norm(x, shape, norm_weight, norm_bias, ctx.eps)  # type: ignore[attr-defined]
            slope = _piece_gradient(normed, slope, parameters, grads)
            results = torch.ops.aten.native_layer_norm_backward(
                slope, x, shape, mean, scale, norm_weight, norm_bias, [True, True, True]
            )
            for whole, part in zip((target.zero_(), *norm_grads), results, strict=True):
                whole.add_(part)
        return row_grad, None, *norm_grads, *grads


def _piece_gradient(x: Tensor, slope: Tensor, parameters: list[Tensor], grads: list[Tensor | None]) -> Tensor:
    """Gradient of a chunk of rows; adds the parameters' gradients to `grads`, None for frozen parameters."""
    w11, b11, w12, b12, w2, _ = parameters
    before, gate = onednn(x, w11, b11), onednn(x, w12, b12)
    active = F.gelu(before)
    hidden = onednn(slope, w2.t(), None)
    slopes = (torch.ops.aten.gelu_backward(hidden * gate, before), hidden.mul_(active), slope)
    for i, (each, source) in enumerate(zip(slopes, (x, x, active.mul_(gate)), strict=True)):
        totals = grads[2 * i : 2 * i + 2]
        if all(total is None for total in totals):
            continue
        for total, part in zip(totals, parameter_gradients(source, each), strict=True):
            if total is not None:
                total.add_(part)
    return onednn(slopes[0], w11.t(), None).add_(onednn(slopes[1], w12.t(), None))


def geglu_by_rows(x: Tensor, parameters: Sequence[Tensor], norm: nn.LayerNorm | None = None) -> Tensor:
    """fc2(GELU(fc11 y) * fc12 y), y = norm(x), in float32 on a CPU; saves only x for the backward pass.

    (..., C_in) -> (..., C_out); `parameters` are weight and bias of fc11, of fc12 and of fc2.
    """
    rows = x.reshape(-1, x.shape[-1])
    first = (1e-5, None, None) if norm is None else (norm.eps, norm.weight, norm.bias)
    return _GEGLU.apply(rows, *first, *parameters).view(*x.shape[:-1], -1)
