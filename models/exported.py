"""The network as one graph of PyTorch's own operators, for programs without this project."""

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
    """Trace the network for restoring, in float32, on the device that it lies on.

    What depends on sizes and device is decided here: windows, mirrored borders, the kernel of the attention. The
    weights are copied, the network stays as it is.

    Args:
        net: as `VRT`.
        shape: (B, D, C, H, W) of its input; the program takes no other.
        portable: align by torchvision's operator, so that torch and torchvision suffice to load and run the program.
            Else it holds this project's operator, whose backend is chosen when it runs, and what loads it needs
            `import models.op`.

    Returns:
        A program of what `net.forward` takes and returns; its parameters need no gradients. With the same kernels its
        output is that of the network, bit for bit; another backend of the alignment rounds otherwise.

    Raises:
        UserError: this is no shape, or it has another number of channels than the network's input.
    """
    if len(shape) != AXES or min(shape) < 1:
        raise UserError(f"shape of the exported network: found {tuple(shape)}, expected B, D, C, H, W, each 1 or more")
    net = copy.deepcopy(net).eval().requires_grad_(False)
    example = torch.zeros(*shape, device=next(net.parameters()).device)
    with torchvisions_alignment() if portable else nullcontext():
        traced = torch.export.export(net, (example,), strict=False)
    return _without_origin(traced)


@contextmanager
def torchvisions_alignment() -> Iterator[None]:
    """Align by torchvision's operator itself, not by the project's around it, in all networks."""
    own, alignment.deform_conv2d = alignment.deform_conv2d, deform_torchvision.forward
    try:
        yield
    finally:
        alignment.deform_conv2d = own


def _without_origin(traced: ExportedProgram) -> ExportedProgram:
    """Drop what a file would keep of this machine: source lines with their paths, and the example."""
    for graph in traced.graph_module.modules():
        for node in graph.graph.nodes if isinstance(graph, GraphModule) else ():
            node.meta.pop("stack_trace", None)
    traced.example_inputs = None
    return traced
