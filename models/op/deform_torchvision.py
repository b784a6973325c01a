"""torchvision's deformable convolution: the reference, and the fallback backend.

torchvision imports PyTorch's compiler, which takes a second; the functions therefore import it themselves.
"""

import torch
from torch import Tensor


def forward(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See models.op.deform_conv.deform_conv2d; computed in the dtype of x, at least float32."""
    import torchvision

    # Half-precision coordinates would be off by whole pixels, and the CPU kernel does not support bfloat16.
    kind = torch.promote_types(x.dtype, torch.float32)
    x, offset, mask, weight, bias = (tensor.to(kind) for tensor in (x, offset, mask, weight, bias))
    return torchvision.ops.deform_conv2d(x, offset, weight, bias, padding=weight.shape[-1] // 2, mask=mask)


def backward(grad: Tensor, x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """Gradients of x, offset, mask, weight and bias, at least float32, from that of the output, (N, C_out, H, W)."""
    import torchvision  # noqa: F401 - registers the operator below

    kind = torch.promote_types(x.dtype, torch.float32)
    args = [tensor.to(kind).contiguous() for tensor in (grad, x, weight, offset, mask)]
    kernel = weight.shape[-1]
    groups, conv_groups = mask.shape[1] // kernel**2, x.shape[1] // weight.shape[1]
    geometry = 1, 1, kernel // 2, kernel // 2, 1, 1  # stride, padding, dilation
    grad_x, grad_weight, grad_offset, grad_mask, grad_bias = torch.ops.torchvision._deform_conv2d_backward(
        *args, args[0].new_zeros(weight.shape[0]), *geometry, conv_groups, groups, True
    )
    return grad_x, grad_offset, grad_mask, grad_weight, grad_bias
