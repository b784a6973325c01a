"""Stochastic depth: timm's formula, written out because importing timm takes seconds."""

import pytest
import torch

from models.vrt.blocks import DropPath


def timms(x, rate):
    """The arithmetic of timm.layers.drop_path (timm 1.0), in training."""
    keep = 1 - rate
    return x * x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep).div_(keep)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rate", [0.02, 0.2, 0.9])
def test_values_gradients_and_random_numbers_are_timms(rate, dtype):
    x = torch.randn(16, 2, 3, 4, 5, dtype=dtype, requires_grad=True)
    found = []
    for call in (lambda t: timms(t, rate), DropPath(rate).train()):
        torch.manual_seed(7)
        out = call(x)
        (grad,) = torch.autograd.grad(out.square().sum(), x)
        found.append((out, grad, torch.get_rng_state()))
    for own, expected in zip(*found, strict=True):
        assert torch.equal(own, expected)


def test_it_is_what_the_installed_timm_does():
    layers = pytest.importorskip("timm.layers", reason="timm is no requirement")
    x = torch.randn(64, 2, 3, 4, 5)
    found = []
    for module in (layers.DropPath(0.3), DropPath(0.3)):
        torch.manual_seed(7)
        found.append((module.train()(x), torch.get_rng_state(), module.eval()(x)))
    for own, expected in zip(*found, strict=True):
        assert torch.equal(own, expected)


def test_a_sample_is_dropped_whole_or_kept_in_the_mean():
    torch.manual_seed(0)
    out = DropPath(0.25).train()(torch.ones(4000, 2, 3))
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert (out == out[:, :1, :1]).all(), "by sample"
    assert out.mean().item() == pytest.approx(1, abs=0.03)


def test_nothing_is_dropped_or_drawn_in_testing_nor_at_rate_0():
    x, before = torch.randn(4, 3), torch.get_rng_state()
    for module in (DropPath(0.5).eval(), DropPath(0.0).train()):
        assert module(x) is x
    assert torch.equal(torch.get_rng_state(), before)
