"""Fine-tuning by low-rank changes of linear layers (LoRA, Hu et al., arXiv:2106.09685, section 4.1)."""

import difflib
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from models.vrt.linear import Linear
from utils.utils_error import UserError
from utils.utils_lora import changed


class LoraLinear(Linear):
    """A linear layer with the weight W + scale * B A, where W and the bias are those of `base`, by the same names."""

    lora_scale: Tensor

    def __init__(self, base: Linear, rank: int, scale: float) -> None:
        super().__init__(base.in_features, base.out_features, base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        like = base.weight.detach()
        self.lora_A = nn.Parameter(nn.init.normal_(like.new_empty(rank, self.in_features), std=self.in_features**-0.5))
        self.lora_B = nn.Parameter(like.new_zeros(self.out_features, rank))  # zero: the layer starts unchanged
        self.register_buffer("lora_scale", like.new_tensor(scale))  # stored in files, so that any program can merge

    def effective_weight(self) -> Tensor:
        """(C_out, C_in) in the precision of the parameters: 16 bits would round the change away."""
        with torch.autocast(self.weight.device.type, enabled=False):
            return changed(self.weight, self.lora_A, self.lora_B, self.lora_scale)


def add_lora(net: nn.Module, rank: int, alpha: float | None, targets: Sequence[str], also: Sequence[str] = ()) -> None:
    """Turn layers into `LoraLinear` and freeze everything else; the network's output stays the same.

    Arguments as in options.schema_network.LoraOpt.

    Raises:
        UserError: a name matches nothing, or the rank is too large for a layer.
    """
    layers = {name: layer for name, layer in net.named_modules() if isinstance(layer, Linear)}
    chosen = _chosen(layers, targets, "targets")
    parameters = dict(net.named_parameters())
    owners = {name.rpartition(".")[0] for name in parameters}
    full = _chosen(parameters.keys() | owners, also, "also")
    for name in chosen:
        most = min(layers[name].weight.shape)
        if not 1 <= rank <= most:
            raise UserError(f"netG.lora.rank is {rank}, expected 1 to {most}, the smaller side of {name}'s weight")
    for name, parameter in parameters.items():
        parameter.requires_grad_(bool(full & {name, name.rpartition(".")[0]}))
    for name in sorted(chosen):
        parent, _, own_name = name.rpartition(".")
        scale = 1.0 if alpha is None else alpha / rank
        setattr(net.get_submodule(parent), own_name, LoraLinear(layers[name], rank, scale))


def parameter_counts(net: nn.Module) -> tuple[int, int]:
    """Number of trained parameters, and of all parameters."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in net.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


def _chosen(names: Collection[str], patterns: Sequence[str], key: str) -> set[str]:
    """Names that a pattern matches, in full or from a dot on."""
    chosen = set()
    for pattern in patterns:
        fitting = {name for name in names if fnmatchcase(f".{name}", f"*.{pattern}")}
        if not fitting:
            kinds = {name.rpartition(".")[2] for name in names}
            near = difflib.get_close_matches(pattern, sorted(kinds), n=4, cutoff=0.0)
            kind = "linear layer" if key == "targets" else "layer or parameter"
            raise UserError(f"netG.lora.{key} has {pattern!r}, which matches no {kind}; near: {', '.join(near)}")
        chosen |= fitting
    return chosen
