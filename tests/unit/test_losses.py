"""The training loss: its terms, their gradients, and their sum."""

import math

import pytest
import torch

from models.loss import LOSSES, charbonnier, edge, frequency, total_loss
from options.schema import TrainOpt

SHAPE = (2, 2, 3, 5, 6)
EPS = 1e-6
ALL = TrainOpt(G_lossfn_weight=2.0, G_fft_weight=0.3, G_edge_weight=0.05, G_charbonnier_eps=EPS)
TERMS = {
    **{name: lambda out, gt, f=function: f(out, gt, EPS) for name, function in LOSSES.items()},
    "frequency": frequency,
    "edge": lambda out, gt: edge(out, gt, EPS),
}


def frames(dtype=torch.float32):
    torch.manual_seed(0)
    return torch.rand(2, *SHAPE, dtype=dtype).unbind()


def test_charbonnier_floor_is_the_root_of_eps():
    assert charbonnier(torch.ones(3), torch.ones(3), 1e-6).item() == pytest.approx(1e-3)


@pytest.mark.parametrize("name", TERMS)
def test_losses_grow_with_the_distance(name):
    out, gt = frames()
    near, far = (TERMS[name](gt + part * (out - gt), gt) for part in (0.1, 0.2))
    assert TERMS[name](gt, gt) < near < far


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", TERMS)
def test_the_gradient_at_no_difference_is_finite_in_every_precision(name, dtype):
    gt = frames(dtype)[0]
    out = gt.clone().requires_grad_()
    loss = TERMS[name](out, gt)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(out.grad).all()


@pytest.mark.parametrize("name", TERMS)
def test_gradients_agree_with_finite_differences(name):
    out, gt = frames()
    out.requires_grad_()
    TERMS[name](out, gt).backward()
    direction, h = out.grad / out.grad.norm(), 1e-3
    with torch.no_grad():
        slope = (TERMS[name](out + h * direction, gt) - TERMS[name](out - h * direction, gt)) / (2 * h)
    assert slope.item() == pytest.approx(out.grad.norm().item(), rel=0.02)


def test_the_frequency_term_is_the_distance_of_the_spectra():
    out, gt = frames()
    spectra = [torch.fft.rfft2(one, norm="ortho") for one in (out, gt)]
    distance = spectra[0] - spectra[1]
    expected = (distance.real.abs().mean() + distance.imag.abs().mean()) / 2
    assert frequency(out, gt).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_frequency_term_is_zero_only_where_the_frames_are_equal():
    gt = frames()[0]
    assert frequency(gt, gt) == 0
    for pixel in torch.eye(SHAPE[-2] * SHAPE[-1]).view(-1, *SHAPE[-2:]):  # each one alone
        assert frequency(gt[0, 0, 0] + 0.01 * pixel, gt[0, 0, 0]) > 1e-4
    assert frequency(gt + 0.01, gt) > 1e-4  # a change of brightness alone


def test_the_frequency_term_weighs_a_difference_by_its_size_and_not_by_the_frames():
    small, large = (torch.randn(1, 1, 3, side, side, generator=torch.Generator().manual_seed(0)) for side in (16, 64))
    zero = torch.zeros(())
    assert frequency(small, zero).item() == pytest.approx(frequency(large, zero).item(), rel=0.1)


def test_the_edge_term_is_blind_to_brightness_and_sees_a_step():
    gt = frames()[0]
    assert edge(gt + 0.5, gt, EPS).item() == pytest.approx(math.sqrt(EPS), rel=1e-3)
    step = torch.zeros(1, 1, 1, 4, 4)
    step[..., 2:] = 1.0
    # The second difference is 1 on one side of the step and -1 on the other, 0 elsewhere and at the border.
    assert edge(step, torch.zeros_like(step), 1e-12).item() == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("side", [1, 2])
def test_the_edge_term_takes_frames_of_any_size(side):
    assert torch.isfinite(edge(torch.rand(1, 1, 3, side, side), torch.rand(1, 1, 3, side, side), EPS))


def test_the_parts_are_weighted_and_add_up():
    out, gt = frames()
    out.requires_grad_()
    total, parts = total_loss(out, gt, ALL)
    expected = {
        "G_pixel": 2.0 * charbonnier(out, gt, EPS),
        "G_fft": 0.3 * frequency(out, gt),
        "G_edge": 0.05 * edge(out, gt, EPS),
    }
    assert list(parts) == list(expected)
    for name, part in parts.items():
        assert part.item() == pytest.approx(expected[name].item())
        assert not part.requires_grad
    assert total.item() == pytest.approx(sum(part.item() for part in parts.values()))
    total.backward()
    gradient, out.grad = out.grad, None
    sum(expected.values()).backward()
    assert torch.allclose(gradient, out.grad)


def test_terms_without_weight_are_not_computed(monkeypatch):
    for name in ("frequency", "edge"):
        monkeypatch.delattr(f"models.loss.{name}")
    out, gt = frames()
    total, parts = total_loss(out, gt, TrainOpt(G_lossfn_type="l1"))
    assert list(parts) == ["G_pixel"]
    assert total == LOSSES["l1"](out, gt, 0.0)


def test_the_loss_of_a_batch_is_the_mean_of_its_samples():
    out, gt = frames()
    samples = [total_loss(out[i : i + 1], gt[i : i + 1], ALL)[0].item() for i in range(len(out))]
    assert total_loss(out, gt, ALL)[0].item() == pytest.approx(sum(samples) / len(samples))
