"""Run with TRITON_INTERPRET=1: the Triton kernels beside torchvision's, one JSON line of their largest differences."""

import json
import os
import sys

import torch
from deform_cases import arguments, gradients

from models.op import deform_conv2d

# n, groups, channels of a group, outputs, height, width, spread of the offsets; then dtype and convolution groups.
# bfloat16 is missing: the interpreter's products take its bits for integers.
CASES = {
    "several pixel tiles": ((1, 1, 2, 3, 5, 15, 2.0), torch.float32, 1),
    "several samples": ((2, 2, 2, 3, 1, 3, 2.0), torch.float32, 1),
    "published groups": ((1, 16, 6, 96, 3, 4, 1.0), torch.float32, 1),
    "padded convolution groups": ((1, 6, 5, 4, 4, 5, 1.0), torch.float32, 2),
    "far outside": ((1, 2, 2, 3, 4, 5, 1e30), torch.float32, 1),
    "no samples": ((0, 2, 2, 3, 4, 5, 1.0), torch.float32, 1),
    "float16": ((1, 2, 6, 8, 5, 4, 1.0), torch.float16, 1),
}


def differences(shape, dtype, conv_groups):
    """Largest difference of output and gradients, each relative to its largest value."""
    x, *others = arguments(*shape, torch.float32, conv_groups=conv_groups)
    args, results = [x.to(dtype), *others], []
    for backend in ("torchvision", "triton"):
        os.environ["SPIKEVRT_DEFORM"] = backend
        results.append(gradients(deform_conv2d, args))
    return [
        float((one - other).float().abs().max() / one.float().abs().max().clamp(min=1e-6)) if one.numel() else 0.0
        for one, other in zip(*results, strict=True)
    ]


def nan_is_kept():
    """Whether a NaN in one offset reaches the output."""
    args = arguments(1, 1, 2, 3, 4, 5, 1.0, torch.float32)
    args[1][0, 0, 2, 2] = torch.nan
    os.environ["SPIKEVRT_DEFORM"] = "triton"
    return bool(deform_conv2d(*args)[0, :, 2, 2].isnan().all())


if __name__ == "__main__":
    report = {name: differences(*case) for name, case in CASES.items()}
    sys.stdout.write(json.dumps({**report, "NaN": nan_is_kept()}))
