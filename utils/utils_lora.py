"""Low-rank changes of weights (LoRA, Hu et al., arXiv:2106.09685, section 4.1) as entries of a state_dict.

An adapted weight W (out, in) has three more entries: lora_A (rank, in), lora_B (out, rank) and lora_scale, 0-d. The
layer computes with W + lora_scale * B A.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from utils.utils_error import UserError

A, B, SCALE = "lora_A", "lora_B", "lora_scale"


def is_lora(key: str) -> bool:
    """Whether an entry belongs to a low-rank change."""
    return key.rpartition(".")[2] in (A, B, SCALE)


def changed(weight: Tensor, a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    """The effective weight, (out, in), of weight (out, in), a (rank, in), b (out, rank) and a 0-d scale."""
    return weight + scale * (b @ a)


def merge(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Merge low-rank changes into their weights; returns the parameters by their official names.

    Unchanged ones are the same tensors. Raises UserError if a part of a change is missing or does not fit its weight.
    """
    merged = {key: value for key, value in state.items() if not is_lora(key)}
    for layer in _layers(state):
        weight, a, b, scale = (_part(state, layer, part) for part in ("weight", A, B, SCALE))
        if weight.shape != (*b.shape[:1], *a.shape[1:]) or a.shape[:1] != b.shape[1:]:
            shapes = f"{layer}{B} {tuple(b.shape)} and {layer}{A} {tuple(a.shape)}"
            raise UserError(f"{shapes} do not fit a weight of {tuple(weight.shape)}; use the weights they belong to")
        merged[f"{layer}weight"] = changed(weight, a, b, scale)
    return merged


def adapted_to(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Adapt a state to a network, with state_dict `own`, when only one of them has low-rank changes, or their scales
    differ.

    For a network without changes: the merged weights. For one with changes: the state, with zero changes added if it
    has none, and with B rescaled to the same effect where the scales differ. UserError if a part of a change is
    missing.
    """
    changes = {key: value for key, value in own.items() if is_lora(key)}
    if not changes:
        return merge(state)
    adapted = dict(state)
    if not _layers(state):
        zero = {key: torch.zeros_like(value) if key.endswith(B) else value for key, value in changes.items()}
        return adapted | zero if state.keys() & own.keys() else adapted
    for layer in _layers(state):
        given, wanted = _part(state, layer, SCALE).item(), changes.get(layer + SCALE)
        if wanted is not None and given != wanted.item():
            adapted[layer + B] = _part(state, layer, B) * (given / wanted.item())
    return adapted


def _layers(state: Mapping[str, Tensor]) -> list[str]:
    """Names of the adapted layers, each with a trailing dot."""
    return sorted({key[: -len(key.rpartition(".")[2])] for key in state if is_lora(key)})


def _part(state: Mapping[str, Tensor], layer: str, part: str) -> Tensor:
    if layer + part not in state:
        raise UserError(f"the weights have a low-rank change of {layer[:-1]} but no {layer}{part}; use a complete file")
    return state[layer + part]
