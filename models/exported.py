"""Exports the network as one graph of PyTorch operators, for programs without this project."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import GraphModule

from models.op import deform_torchvision
from models.vrt import alignment
from utils.utils_error import UserError

AXES = 5  # B, D, C, H, W


def export_network(net: nn.Module, shape: Sequence[int], *, portable: bool = True) -> ExportedProgram:
    """Trace the network for inference in float32, on its own device.

    Everything that depends on sizes and device is fixed here: windows, mirrored borders, the attention kernel. The
    weights are copied; the network is not changed.

    Args:
        net: a `VRT`.
        shape: (B, D, C, H, W), the only input shape the program accepts.
        portable: align with torchvision's operator, so that the program needs only torch and torchvision. Otherwise it
            contains this project's operator, which chooses its backend at run time and needs `import models.op`.

    Returns:
        A program with the input and output of `net.forward`; its parameters need no gradients. With the same kernels
        its output equals the network's bit for bit; another alignment backend rounds differently.

    Raises:
        UserError: the shape is invalid, or its channels are not those of the network's input.
    """
    if len(shape) != AXES or min(shape) < 1:
        raise UserError(f"shape of the exported network: found {tuple(shape)}, expected B, D, C, H, W, each 1 or more")
    net = copy.deepcopy(net).eval().requires_grad_(False)
    example = torch.zeros(*shape, device=next(net.parameters()).device)
    with torchvisions_alignment() if portable else nullcontext():
        traced = torch.export.export(net, (example,), strict=False)
    return _anonymous(traced)


@contextmanager
def torchvisions_alignment() -> Iterator[None]:
    """Use torchvision's operator directly for the alignment, in all networks."""
    own, alignment.deform_conv2d = alignment.deform_conv2d, deform_torchvision.forward
    try:
        yield
    finally:
        alignment.deform_conv2d = own


def _anonymous(traced: ExportedProgram) -> ExportedProgram:
    """Drop what the file would reveal about this machine: source lines with their paths, and the example."""
    for graph in traced.graph_module.modules():
        for node in graph.graph.nodes if isinstance(graph, GraphModule) else ():
            node.meta.pop("stack_trace", None)
    traced.example_inputs = None
    return traced
