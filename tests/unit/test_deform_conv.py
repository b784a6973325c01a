"""Deformable convolution: all backends agree with torchvision's, in values and gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.op import deform_conv2d
from models.op.deform_conv import grid_sample_deform_conv2d, torchvision_deform_conv2d


def arguments(n, groups, per_group, c_out, height, width, spread, dtype=torch.float64):
    torch.manual_seed(n * height * width + groups)
    c = groups * per_group
    return [
        torch.randn(n, c, height, width, dtype=dtype),
        spread * torch.randn(n, 2 * groups * 9, height, width, dtype=dtype),
        torch.rand(n, groups * 9, height, width, dtype=dtype),
        torch.randn(c_out, c, 3, 3, dtype=dtype),
        torch.randn(c_out, dtype=dtype),
    ]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 2),
    st.sampled_from([1, 2, 4, 16]),
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([0.0, 0.7, 5.0, 100.0]),
)
def test_grid_sample_form_equals_torchvision(n, groups, per_group, c_out, height, width, spread):
    args = arguments(n, groups, per_group, c_out, height, width, spread)
    assert torch.allclose(grid_sample_deform_conv2d(*args), torchvision_deform_conv2d(*args), atol=1e-9)


def test_gradients_of_both_forms_agree():
    grads = []
    for form in (grid_sample_deform_conv2d, torchvision_deform_conv2d):
        args = [tensor.requires_grad_() for tensor in arguments(2, 4, 2, 6, 7, 9, 2.0)]
        form(*args).square().sum().backward()
        grads.append([tensor.grad for tensor in args])
    for one, other in zip(*grads, strict=True):
        assert torch.allclose(one, other, rtol=1e-7, atol=1e-7)


def test_gradcheck():
    args = [tensor.requires_grad_() for tensor in arguments(1, 2, 1, 2, 3, 4, 0.6)]
    assert torch.autograd.gradcheck(grid_sample_deform_conv2d, args)


def test_no_offset_and_full_mask_is_a_plain_convolution():
    x, offset, mask, weight, bias = arguments(1, 2, 3, 4, 6, 5, 0.0)
    plain = nn.functional.conv2d(x, weight, bias, padding=1)
    assert torch.allclose(deform_conv2d(x, offset, torch.ones_like(mask), weight, bias), plain)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_is_computed_in_single_precision(dtype):
    args = arguments(1, 2, 2, 4, 5, 6, 1.0, torch.float32)
    half = [tensor.to(dtype) for tensor in args]
    expected = deform_conv2d(*[tensor.float() for tensor in half])
    assert deform_conv2d(*half).dtype == torch.float32
    assert torch.equal(deform_conv2d(*half), expected)
