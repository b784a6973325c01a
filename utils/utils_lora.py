"""Low-rank changes of weights (LoRA, Hu et al., arXiv:2106.09685, section 4.1) as entries of a state_dict.

A changed weight W (out, in) has three entries beside it: lora_A (rank, in), lora_B (out, rank) and lora_scale, 0-d. The
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
    """(out, in), (rank, in), (out, rank) and a number -> the weight that counts, (out, in)."""
    return weight + scale * (b @ a)


def merge(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put low-rank changes into the weights that they change.

    Args:
        state: parameters by name, with low-rank changes or without.

    Returns:
        The parameters by their official names; those that do not change are the same tensors.

    Raises:
        UserError: a part of a change is not there, or it is one of another weight.
    """
    merged = {key: value for key, value in state.items() if not is_lora(key)}
    for layer in _layers(state):
        weight, a, b, scale = (_part(state, layer, part) for part in ("weight", A, B, SCALE))
        if weight.shape != (*b.shape[:1], *a.shape[1:]) or a.shape[:1] != b.shape[1:]:
            shapes = f"{layer}{B} {tuple(b.shape)} and {layer}{A} {tuple(a.shape)}"
            raise UserError(f"{shapes} are no change of a weight of {tuple(weight.shape)}; use the weights they are of")
        merged[f"{layer}weight"] = changed(weight, a, b, scale)
    return merged


def adapted_to(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a network takes of a state that may have low-rank changes where the network has none, or the reverse.

    Args:
        state: parameters by name.
        own: the network's state_dict.

    Returns:
        For a network without changes the merged weights. For one with changes the state; where that has none, with
        changes of no effect, and where its scale is another, with B such that the effect is the same.

    Raises:
        UserError: a part of a change is not there.
    """
    changes = {key: value for key, value in own.items() if is_lora(key)}
    if not changes:
        return merge(state)
    suiting = dict(state)
    if not _layers(state):
        silent = {key: torch.zeros_like(value) if key.endswith(B) else value for key, value in changes.items()}
        return suiting | silent if state.keys() & own.keys() else suiting
    for layer in _layers(state):
        given, wanted = _part(state, layer, SCALE).item(), changes.get(layer + SCALE)
        if wanted is not None and given != wanted.item():
            suiting[layer + B] = _part(state, layer, B) * (given / wanted.item())
    return suiting


def _layers(state: Mapping[str, Tensor]) -> list[str]:
    """Names of the changed layers, each with the dot at its end."""
    return sorted({key[: -len(key.rpartition(".")[2])] for key in state if is_lora(key)})


def _part(state: Mapping[str, Tensor], layer: str, part: str) -> Tensor:
    if layer + part not in state:
        raise UserError(f"the weights have a low-rank change of {layer[:-1]} but no {layer}{part}: they are not whole")
    return state[layer + part]
