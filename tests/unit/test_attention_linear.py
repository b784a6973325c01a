"""Linear layers give PyTorch's own results and gradients, whichever kernel computes them."""

import pytest
import torch
import torch.nn.functional as F

from models.vrt import linear as linear_module
from models.vrt.blocks import GEGLU
from models.vrt.linear import Linear, linear, takes_onednn


@pytest.mark.parametrize("shape", [(7,), (2, 3, 7), (1, 2, 3, 4, 7)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_output_and_gradients_of_a_linear_layer(shape, with_bias, monkeypatch):
    torch.manual_seed(0)
    x = torch.randn(shape, requires_grad=True)
    weight = torch.randn(5, 7, requires_grad=True)
    bias = torch.randn(5, requires_grad=True) if with_bias else None
    monkeypatch.setattr(linear_module, "CHUNK_ROWS", 4)  # several chunks, the last one shorter
    inputs = [t for t in (x, weight, bias) if t is not None]
    own, want = linear(x, weight, bias), F.linear(x, weight, bias)
    assert torch.allclose(own, want, atol=1e-5)
    slope = torch.randn_like(want)
    for one, other in zip(
        torch.autograd.grad(own, inputs, slope), torch.autograd.grad(want, inputs, slope), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-5)


def test_strided_inputs():
    x = torch.randn(6, 4, 7).transpose(0, 1)
    layer = Linear(7, 3)
    with torch.no_grad():
        assert torch.allclose(layer(x), F.linear(x, layer.weight, layer.bias), atol=1e-6)
        assert layer(torch.zeros(0, 7)).shape == (0, 3)


def test_other_precisions_and_autocast_take_the_usual_kernel():
    x, weight = torch.randn(2, 4), torch.randn(3, 4)
    assert not takes_onednn(x.double(), weight.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not takes_onednn(x, weight)
        assert Linear(4, 3)(x).dtype == torch.bfloat16


@pytest.mark.parametrize("normed", [False, True])
def test_feed_forward_by_rows_equals_the_formula(normed, monkeypatch):
    torch.manual_seed(0)
    layer = GEGLU(6, 12, 4)
    norm = torch.nn.LayerNorm(6) if normed else None
    x = torch.randn(2, 3, 9, 7, 6, requires_grad=True)
    inputs = [x, *layer.parameters(), *(norm.parameters() if normed else ())]
    for parameter in inputs[1:]:
        torch.nn.init.normal_(parameter)
    monkeypatch.setattr(linear_module, "CHUNK_ROWS", 16)
    own = layer(x, norm)
    monkeypatch.setattr(linear_module, "ONEDNN", False)
    want = layer(x, norm)
    assert torch.allclose(own, want, atol=1e-4)
    slope = torch.randn_like(want)
    for one, other in zip(
        torch.autograd.grad(own, inputs, slope), torch.autograd.grad(want, inputs, slope), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-3, rtol=1e-3)
