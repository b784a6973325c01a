"""Linear layers that use oneDNN on a CPU, for speed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

GELU = "gelu"
CHUNK_ROWS = 2048  # per thread
GEOMETRY = [1, 1], [0, 0], [1, 1], False, [0, 0], 1  # of a convolution: stride, padding, dilation, direction, groups


def onednn(x: Tensor, weight: Tensor, bias: Tensor | None, after: str = "none") -> Tensor:
    """`F.linear`, then "none" or the exact "gelu", by oneDNN: on some CPUs twice as fast as a matrix product."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, after, [], "none" if after == GELU else "")


def _has_onednn() -> bool:
    """Whether this PyTorch has the (undocumented) oneDNN linear layer for plain tensors."""
    try:
        onednn(torch.zeros(1, 1), torch.zeros(1, 1), None, GELU)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False
    return torch.backends.mkldnn.is_available()


ONEDNN = _has_onednn()


@contextmanager
def without_onednn() -> Iterator[None]:
    """Compute without oneDNN, as on other devices."""
    global ONEDNN
    before, ONEDNN = ONEDNN, False
    try:
        yield
    finally:
        ONEDNN = before


def takes_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN computes this layer: float32 on a CPU, outside autocast and compiled graphs."""
    return (
        ONEDNN
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
    )


def chunk_rows() -> int:
    """Rows per chunk, so that their features stay in the cache."""
    return CHUNK_ROWS * torch.get_num_threads()


def parameter_gradients(x: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of a linear layer's weight and bias, by oneDNN's 1x1 convolution: faster than a product.

    x is (rows, C_in), `slope` (rows, C_out) the gradient of the layer's output.
    """
    weight, bias = slope.new_zeros(slope.shape[1], x.shape[1]), slope.new_zeros(slope.shape[1])
    step = chunk_rows()
    for some, slopes in zip(x.split(step), slope.split(step), strict=True):
        pixels, slopes = (rows[None, None].permute(0, 3, 1, 2) for rows in (some, slopes))
        _, of_weight, of_bias = torch.ops.aten.convolution_backward(
            slopes, pixels, weight[..., None, None], bias.shape, *GEOMETRY, [False, True, True]
        )
        weight += of_weight.view_as(weight)
        bias += of_bias
    return weight, bias


class _OneDNNLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return onednn(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        needs = ctx.needs_input_grad  # type: ignore[attr-defined]
        grad = grad.contiguous()
        rows = grad.view(-1, grad.shape[-1])
        of_weight, of_bias = parameter_gradients(x.reshape(-1, x.shape[-1]), rows) if any(needs[1:]) else (None, None)
        return onednn(grad, weight.t(), None) if needs[0] else None, of_weight, of_bias if needs[2] else None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear` with the fastest kernel of the device: (..., C_in) -> (..., C_out)."""
    if not takes_onednn(x, weight):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias)):
        return _OneDNNLinear.apply(x, weight, bias)
    return onednn(x, weight, bias)


class Linear(nn.Linear):
    """`nn.Linear`, computed by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.effective_weight(), self.bias)

    def effective_weight(self) -> Tensor:
        return self.weight
