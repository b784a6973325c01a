"""Random arguments of a deformable convolution, and its gradients."""

import torch


def arguments(n, groups, per_group, outputs, height, width, spread, dtype=torch.float64, conv_groups=1):
    generator = torch.Generator().manual_seed(n * height * width + groups)
    channels = groups * per_group
    x = torch.randn(n, channels, height, width, generator=generator, dtype=dtype)
    offset = spread * torch.randn(n, 18 * groups, height, width, generator=generator, dtype=dtype)
    mask = torch.rand(n, 9 * groups, height, width, generator=generator, dtype=dtype)
    weight = torch.randn(outputs, channels // conv_groups, 3, 3, generator=generator, dtype=dtype)
    return [x, offset, mask, weight, torch.randn(outputs, generator=generator, dtype=dtype)]


def gradients(form, args):
    """Output and gradients of the sum of its squares."""
    args = [tensor.detach().requires_grad_() for tensor in args]
    out = form(*args)
    return [out.detach(), *torch.autograd.grad(out.square().sum(), args)]
