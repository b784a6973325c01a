"""Deformable convolution: every backend agrees with torchvision's, in values and gradients."""

import logging

import pytest
import torch
from deform_cases import arguments, gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.op import deform_conv, deform_conv2d, deform_cpu, deform_torchvision
from utils.utils_error import UserError


@pytest.fixture(autouse=True)
def own_choice(monkeypatch):
    monkeypatch.delenv(deform_conv.OVERRIDE, raising=False)
    yield
    deform_conv._check_and_log.cache_clear()
    deform_conv.why_no_triton.cache_clear()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.integers(0, 2),
    st.sampled_from([(1, 1), (2, 1), (2, 2), (3, 3), (6, 2), (16, 1)]),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([0.7, 5.0, 1e6]),
    st.sampled_from([1, 3000, deform_cpu.CHUNK_BYTES]),
)
def test_chunks_equal_torchvision(n, groups, per_group, outputs, height, width, spread, chunk_bytes):
    groups, conv_groups = groups
    args = arguments(n, groups, per_group, outputs * conv_groups, height, width, spread, conv_groups=conv_groups)
    results = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deform_cpu, "CHUNK_BYTES", chunk_bytes)
        for name in ("torchvision", "chunks"):
            patch.setenv(deform_conv.OVERRIDE, name)
            results.append(gradients(deform_conv2d, args))
    for reference, own in zip(*results, strict=True):
        assert reference.shape == own.shape
        assert torch.allclose(reference, own, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("chunk_bytes", [300, deform_cpu.CHUNK_BYTES])
def test_gradcheck(monkeypatch, chunk_bytes):
    monkeypatch.setattr(deform_cpu, "CHUNK_BYTES", chunk_bytes)
    args = [tensor.requires_grad_() for tensor in arguments(2, 2, 1, 2, 2, 3, 0.6)]
    assert torch.autograd.gradcheck(deform_conv2d, args)


@pytest.mark.parametrize("far", [1e6, -1e30, float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_samples_are_zero_and_have_finite_gradients(far, dtype):
    x, offset, mask, weight, bias = arguments(1, 2, 2, 3, 4, 5, 1.0, dtype)
    args = (x, torch.full_like(offset, far), mask, weight, bias)
    out, *grads = gradients(deform_conv2d, args)
    assert torch.equal(out, bias[:, None, None].expand_as(out))
    assert all(grad.isfinite().all() for grad in grads)
    assert not grads[0].any()
    assert not grads[1].any()


@pytest.mark.parametrize("shape", [(5, 96, 16, 8, 8), (2, 4, 2, 40, 30), (1, 8, 2, 64, 64)])
def test_columns_of_a_batch_are_never_alive_at_once(monkeypatch, shape):
    n, channels, groups, height, width = shape
    monkeypatch.setattr(deform_cpu, "CHUNK_BYTES", 2**18)
    sizes, sample = [], deform_cpu.F.grid_sample

    def recorded(*args, **kwargs):
        columns = sample(*args, **kwargs)
        sizes.append(columns.nbytes)
        return columns

    monkeypatch.setattr(deform_cpu.F, "grid_sample", recorded)
    gradients(deform_conv2d, arguments(n, groups, channels // groups, 4, height, width, 1.0, torch.float32))
    assert max(sizes) <= 2**18
    assert sum(sizes) == 2 * 4 * n * channels * 9 * height * width, "each column once forward and once backward"


def test_no_offset_and_full_mask_is_a_plain_convolution():
    x, offset, mask, weight, bias = arguments(1, 2, 3, 4, 6, 5, 0.0)
    plain = nn.functional.conv2d(x, weight, bias, padding=1)
    assert torch.allclose(deform_conv2d(x, offset, torch.ones_like(mask), weight, bias), plain)


@pytest.mark.parametrize("backend", ["chunks", "torchvision"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_is_computed_in_single_precision(monkeypatch, dtype, backend):
    monkeypatch.setenv(deform_conv.OVERRIDE, backend)
    half = [tensor.to(dtype) for tensor in arguments(1, 2, 2, 4, 5, 6, 1.0, torch.float32)]
    expected, *expected_grads = gradients(deform_conv2d, [tensor.float() for tensor in half])
    with torch.autocast("cpu", dtype):
        out, *grads = gradients(deform_conv2d, half)
    assert out.dtype == torch.float32
    assert torch.equal(out, expected)
    for grad, one in zip(grads, expected_grads, strict=True):
        assert grad.dtype == dtype
        assert torch.equal(grad, one.to(dtype))


@pytest.mark.parametrize("requires_grad", [False, True])
def test_compiles_into_one_graph(requires_grad):
    args = [tensor.requires_grad_(requires_grad) for tensor in arguments(2, 2, 2, 3, 5, 4, 1.0)]

    def program(*tensors):
        return deform_conv2d(*tensors).square()

    compiled = torch.compile(program, fullgraph=True, backend="aot_eager")
    if requires_grad:
        for one, other in zip(gradients(compiled, args), gradients(program, args), strict=True):
            assert torch.allclose(one, other)
    else:
        assert torch.allclose(compiled(*args), program(*args))


@pytest.mark.parametrize("n", [0, 2])
def test_custom_op_is_registered_as_pytorch_wants_it(n):
    args = [tensor.requires_grad_() for tensor in arguments(n, 2, 2, 3, 5, 4, 1.0)]
    torch.library.opcheck(torch.ops.spikevrt.deform_conv2d.default, args)


def test_the_backend_is_said_once(caplog):
    args = arguments(1, 1, 1, 1, 2, 2, 1.0)
    with caplog.at_level(logging.INFO, logger="spikevrt"):
        deform_conv2d(*args)
        deform_conv2d(*args)
    assert caplog.messages == ["deformable alignment: chunks on cpu"]


def test_without_triton_cuda_takes_torchvision_and_says_why(monkeypatch, caplog):
    monkeypatch.setattr(deform_conv.importlib.util, "find_spec", lambda name: None)
    device = torch.device("cuda", 0)
    with caplog.at_level(logging.INFO, logger="spikevrt"):
        deform_conv._check_and_log(deform_conv.own_backend(device), device)
    assert caplog.messages == ["deformable alignment: torchvision on cuda:0 (triton is not installed)"]


@pytest.mark.parametrize("name", ["im2col", "triton"])
def test_a_backend_that_cannot_run_is_refused(monkeypatch, name):
    monkeypatch.setenv(deform_conv.OVERRIDE, name)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(UserError, match=f"SPIKEVRT_DEFORM is '{name}'"):
        deform_conv2d(*arguments(1, 1, 1, 1, 2, 2, 1.0))


def test_unequal_conv_groups_leave_triton():
    triton_form = pytest.importorskip("models.op.deform_triton", reason="triton is not installed")
    fits = arguments(1, 4, 2, 4, 3, 3, 1.0, torch.float32, conv_groups=2)
    assert triton_form.supports(fits[0], fits[2], fits[3])
    for args in (
        arguments(1, 3, 2, 4, 3, 3, 1.0, torch.float32, conv_groups=2),
        arguments(1, 1, 40, 4, 3, 3, 1.0, torch.float32),
        arguments(1, 4, 2, 4, 3, 3, 1.0, torch.float64),
    ):
        assert not triton_form.supports(args[0], args[2], args[3])


def test_torchvision_backward_is_that_of_its_public_function():
    args = arguments(2, 4, 2, 6, 7, 9, 2.0)
    out, *expected = gradients(deform_torchvision.forward, args)  # of the sum of squares, hence 2 * out
    for one, other in zip(expected, deform_torchvision.backward(2 * out, *args[:4]), strict=True):
        assert torch.allclose(one, other)
