"""Exports the network as one graph of PyTorch or ONNX operators, for programs without this project."""

import copy
import importlib.util
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from models.fusion.guide import Guide, guide_of
from models.memory.estimate import input_shapes
from models.op import deform_torchvision
from models.vrt import alignment
from utils.utils_error import UserError

if TYPE_CHECKING:
    from onnx import ModelProto

AXES = 5  # B, D, C, H, W
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
ONNX_TORCH = "2.12"  # 2.8 and 2.9 trace no graph for any size; that of 2.10 restored something else


def export_network(net: nn.Module, shape: Sequence[int], *, portable: bool = True) -> ExportedProgram:
    """Trace the network for inference in float32, on its own device.

    Everything that depends on sizes and device is fixed here: windows, mirrored borders, the attention kernel. The
    weights are copied; the network, a `VRT` or `Guide`, is not changed. (B, D, C, H, W) is the only input shape the
    program accepts; with a guide it has two inputs, see `example_shapes`. A `portable` one aligns with torchvision's
    operator and needs only torch and torchvision. Others contain this project's operator, which chooses its backend at
    run time and needs `import models.op`.

    Returns:
        A program with the input and output of `net.forward`; its parameters need no gradients. With the same kernels
        its output equals the network's bit for bit; another alignment backend rounds differently.

    Raises:
        UserError: the shape is invalid, or its channels are not those of the network's input.
    """
    shapes = example_shapes(net, shape)
    net = copy.deepcopy(net).eval().requires_grad_(False)
    examples = tuple(torch.zeros(each, device=next(net.parameters()).device) for each in shapes)
    with torchvisions_alignment() if portable else nullcontext():
        traced = torch.export.export(net, examples, strict=False)
    return _anonymous(traced)


def example_shapes(net: nn.Module, shape: Sequence[int]) -> list[tuple[int, ...]]:
    """Shapes of a network's inputs: (B, D, C, H, W); with a guide, of frames and of spike planes on its grid.

    Raises:
        UserError: the shape is invalid, or its sides are no multiples of the guide's ratio.
    """
    if len(shape) != AXES or min(shape) < 1:
        raise UserError(f"shape of the exported network: found {tuple(shape)}, expected B, D, C, H, W, each 1 or more")
    guide = guide_of(net)
    if guide is None:
        return [tuple(shape)]
    height, width = shape[-2:]
    if guide.planes and (height % guide.ratio or width % guide.ratio):
        raise UserError(
            f"size of the exported network: found {height}x{width}, expected multiples of netG.guide.ratio "
            f"({guide.ratio}), so that spike pixels are whole"
        )
    return input_shapes(net, shape)


def export_onnx(
    guide: Guide, size: Sequence[int] | None = None, notes: Mapping[str, str] | None = None
) -> "ModelProto":
    """Write the guide as a graph of ONNX operators, for inference in float32.

    Its inputs are `rgb` (T, 3, H, W) in [0, 1] and, unless the guide sees RGB only, `spike` (T, K + 2, H / ratio,
    W / ratio) in units of intensity; its output is `sharp` (T, 3, H, W), not clamped. `size` (T, H, W) is the only one
    that the graph accepts; None: any T, and any H and W that are multiples of the ratio. `notes` are stored beside it.

    Raises:
        UserError: a library is not installed or too old, or the size is no multiple of the ratio.
    """
    check_onnx()
    import onnx

    cells = guide.grid // guide.ratio
    frames, rows, columns = 2, 3 * cells + 1, 4 * cells + 3  # of an example: any size that no rule of the graph meets
    shape = (1, frames, 3, rows * guide.ratio, columns * guide.ratio) if size is None else (1, size[0], 3, *size[1:])
    examples = tuple(torch.zeros(each[1:]) for each in example_shapes(guide, shape))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "# The axis name")  # both inputs have T
        program = torch.onnx.export(
            _Frames(copy.deepcopy(guide)).cpu().eval().requires_grad_(False),
            examples,
            input_names=["rgb", "spike"][: len(examples)],
            output_names=["sharp"],
            dynamic_shapes=_dynamic(guide) if size is None else None,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")  # source lines with the paths of this machine
        part.ClearField("doc_string")
    onnx.helper.set_model_props(model, dict(notes or {}))
    return model


def check_onnx() -> None:
    """Raise a UserError if ONNX files cannot be written and compared here: a library is missing, or PyTorch too old."""
    if torch.__version__ < ONNX_TORCH:
        raise UserError(
            f"ONNX: PyTorch {torch.__version__} found, expected {ONNX_TORCH} or newer; run `pip install -U torch`"
        )
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX: not installed: {', '.join(missing)}; run `pip install {' '.join(missing)}`")


class _Frames(nn.Module):
    """The guide for frames and planes of its own ratio, padded in a way that can be traced for any size."""

    def __init__(self, guide: Guide) -> None:
        super().__init__()
        self.guide = guide

    def forward(self, rgb: Tensor, spike: Tensor | None = None) -> Tensor:
        """(T, 3, H, W), (T, K + 2, h, w) -> (T, 3, H, W)."""
        coarse, multiple = (rgb, self.guide.grid) if spike is None else (spike, self.guide.grid // self.guide.ratio)
        # Sides become whole multiples in a form that the trace recognises. No quotient is negative: ONNX truncates.
        rows, columns = ((side + multiple - 1) // multiple * multiple - side for side in coarse.shape[2:])
        fine = 1 if spike is None else self.guide.ratio
        frames = F.pad(rgb, (0, columns * fine, 0, rows * fine), mode="replicate")
        planes = None if spike is None else F.pad(spike, (0, columns, 0, rows), mode="replicate")
        return self.guide.on_grid(frames, planes)[:, :, : rgb.shape[2], : rgb.shape[3]]


def _dynamic(guide: Guide) -> dict[str, Any]:
    """Axes of the inputs that may have any length."""
    frames, rows, columns = Dim("T"), Dim("h"), Dim("w")
    if not guide.planes:
        return {"rgb": {0: frames, 2: rows, 3: columns}}
    rgb = {0: frames, 2: guide.ratio * rows, 3: guide.ratio * columns}
    return {"rgb": rgb, "spike": {0: frames, 2: rows, 3: columns}}


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
