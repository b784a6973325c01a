"""The deformable convolution on a CUDA card beside torchvision's, at the four stage sizes of a 6x192x192 sample."""

import pytest
import torch
from deform_cases import arguments, gradients

from models.op import deform_conv, deform_conv2d

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]

STAGES = [192, 96, 48, 24]
PAIRS, CHANNELS, GROUPS = 10, 96, 16
# Largest difference relative to the largest value; half precision rounds samples, weights and gradients.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3}


def on_card(*shape, dtype=torch.float32, conv_groups=1):
    x, *others = (tensor.cuda() for tensor in arguments(*shape, torch.float32, conv_groups=conv_groups))
    return [x.to(dtype), *others]


def assert_equal_torchvision(monkeypatch, args):
    results = []
    for backend in ("torchvision", "triton"):
        monkeypatch.setenv(deform_conv.OVERRIDE, backend)
        results.append(gradients(deform_conv2d, args))
    for reference, own in zip(*results, strict=True):
        assert own.dtype == reference.dtype
        difference = (own.float() - reference.float()).abs().max() / reference.float().abs().max()
        assert difference < TOLERANCE[args[0].dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", STAGES)
def test_equals_torchvision(monkeypatch, size, dtype):
    args = on_card(PAIRS, GROUPS, CHANNELS // GROUPS, CHANNELS, size, size, 3.0, dtype=dtype)
    assert_equal_torchvision(monkeypatch, args)


@pytest.mark.parametrize(
    ("shape", "conv_groups"),
    [
        ((10, 12, 10, 120, 64, 64, 3.0), 1),
        ((10, 24, 15, 120, 32, 32, 3.0), 3),
        ((5, 4, 6, 24, 72, 88, 3.0), 1),
        ((2, 4, 9, 36, 9, 11, 1e6), 1),
        ((1, 2, 3, 5, 1, 7, 1.0), 1),
    ],
)
def test_equals_torchvision_at_other_sizes(monkeypatch, shape, conv_groups):
    assert_equal_torchvision(monkeypatch, on_card(*shape, conv_groups=conv_groups))


def test_tf32_by_option_only(monkeypatch):
    args = on_card(4, GROUPS, CHANNELS // GROUPS, CHANNELS, 32, 32, 3.0)
    monkeypatch.setenv(deform_conv.OVERRIDE, "triton")
    exact = deform_conv2d(*args)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        rough = deform_conv2d(*args)
    finally:
        torch.set_float32_matmul_precision(before)
    difference = (rough - exact).abs().max() / exact.abs().max()
    assert 1e-6 < difference < 1e-2


def test_cuda_takes_triton_and_no_columns_are_written(monkeypatch):
    pytest.importorskip("triton", reason="triton is not installed")
    monkeypatch.delenv(deform_conv.OVERRIDE, raising=False)
    args = on_card(PAIRS, GROUPS, CHANNELS // GROUPS, CHANNELS, 96, 96, 3.0)
    assert deform_conv.own_backend(args[0].device) == "triton"
    deform_conv2d(*args)  # compiles
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    deform_conv2d(*args)
    columns = 9 * args[0].nbytes
    assert torch.cuda.max_memory_allocated() - before < columns / 2


def test_compiles_into_one_graph():
    args = on_card(2, 4, 6, 24, 24, 24, 3.0, dtype=torch.bfloat16)
    compiled = torch.compile(deform_conv2d, fullgraph=True, backend="aot_eager")
    for one, other in zip(gradients(compiled, args), gradients(deform_conv2d, args), strict=True):
        assert torch.allclose(one.float(), other.float(), rtol=1e-2, atol=1e-2)
