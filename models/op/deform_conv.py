"""Modulated deformable convolution (Zhu et al., "Deformable ConvNets v2", CVPR 2019), with a backend per device."""

import functools
import importlib.util
import logging
import os
from typing import Any

import torch
from torch import Tensor

from models.op import deform_cpu, deform_torchvision
from models.op.operator import operator
from utils.utils_error import UserError

LOG = logging.getLogger("spikevrt")

OVERRIDE = "SPIKEVRT_DEFORM"  # environment variable that names another backend than the device's default
BACKENDS = ("chunks", "triton", "torchvision")


@operator("deform_conv2d")
def deform_conv2d(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Deformable convolution with stride 1 and "same" padding; returned in float32 or wider.

    Coordinates and sums are always float32 or wider. Products of half-precision x use its dtype on CUDA, float32 on a
    CPU. The environment variable SPIKEVRT_DEFORM overrides the device's default backend.

    Args:
        x: (N, C, H, W); N may be 0.
        offset: (N, 2 * groups * taps, H, W) in pixels, (dy, dx) per (group, tap).
        mask: (N, groups * taps, H, W).
        weight: (C_out, C / n, k, k), k odd; taps = k * k. With n > 1, output i sees part i * n // C_out of x.
        bias: (C_out,).

    Returns:
        (N, C_out, H, W). Samples outside the image are zero.

    Raises:
        UserError: SPIKEVRT_DEFORM names an unknown backend, or one that cannot run here.
    """
    with torch.autocast(x.device.type, enabled=False):
        if not x.shape[0]:
            return _empty_output(x, weight)
        return _module(x, mask, weight).forward(x, offset, mask, weight, bias)


@operator("deform_conv2d_backward")
def _backward(
    grad: Tensor, x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    inputs = (x, offset, mask, weight, bias)
    with torch.autocast(x.device.type, enabled=False):
        if x.shape[0]:
            grads = _module(x, mask, weight).backward(grad, x, offset, mask, weight)
        else:
            grads = [torch.zeros_like(tensor) for tensor in inputs]
        return tuple(one.to(tensor.dtype) for one, tensor in zip(grads, inputs, strict=True))  # type: ignore[return-value]


def _empty_output(x: Tensor, weight: Tensor) -> Tensor:
    dtype = torch.promote_types(x.dtype, torch.float32)
    return x.new_empty((x.shape[0], weight.shape[0], *x.shape[2:]), dtype=dtype)


@torch.library.register_fake("spikevrt::deform_conv2d")
def _(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return _empty_output(x, weight)


@torch.library.register_fake("spikevrt::deform_conv2d_backward")
def _(grad: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor.new_empty(tensor.shape) for tensor in inputs)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
    return _backward(grad, *ctx.saved_tensors)


torch.library.register_autograd("spikevrt::deform_conv2d", _gradients, setup_context=_save)


def _module(x: Tensor, mask: Tensor, weight: Tensor) -> Any:
    """The backend for these arguments: a module with `forward` and `backward`."""
    name = os.environ.get(OVERRIDE) or own_backend(x.device)
    _check_and_log(name, x.device)
    if name == "chunks":
        return deform_cpu
    if name == "triton":
        from models.op import deform_triton  # triton is imported only where it runs

        if deform_triton.supports(x, mask, weight):
            return deform_triton
    return deform_torchvision


def own_backend(device: torch.device) -> str:
    """Name of the default backend of a device."""
    if device.type == "cpu":
        return "chunks"
    return "torchvision" if why_no_triton(device) else "triton"


@functools.cache
def why_no_triton(device: torch.device) -> str:
    """Why a device cannot run the Triton kernels; "" if it can."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if device.type == "cpu":
        return "" if os.environ.get("TRITON_INTERPRET") == "1" else "on a CPU triton needs TRITON_INTERPRET=1"
    if torch.version.cuda is None or torch.cuda.get_device_capability(device) < (8, 0):
        return "the kernels need an NVIDIA GPU of compute capability 8.0 or higher"
    return ""


@functools.cache
def _check_and_log(name: str, device: torch.device) -> None:
    """Check the chosen backend and log it, once per device."""
    if name not in BACKENDS:
        raise UserError(f"{OVERRIDE} is {name!r}; expected one of {', '.join(BACKENDS)}; correct or unset it")
    reason = why_no_triton(device)
    if name == "triton" and reason:
        raise UserError(f"{OVERRIDE} is 'triton' for {device}, but {reason}; unset it or choose another backend")
    note = f" ({reason})" if device.type == "cuda" and name == "torchvision" and reason else ""
    LOG.info("deformable alignment: %s on %s%s", name, device, note)
