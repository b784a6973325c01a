"""Registers tensor functions as PyTorch operators, atomic for autograd, torch.compile and torch.export."""

from collections.abc import Callable
from typing import TypeVar

import torch

Function = TypeVar("Function", bound=Callable)


def operator(name: str) -> Callable[[Function], Function]:
    """Register a function that does not change its arguments as the operator torch.ops.spikevrt.<name>.

    Like torch.library.custom_op, without importing PyTorch's compiler on the first call, which takes two seconds. For
    fake tensors and gradients use torch.library.register_fake and register_autograd.
    """

    def register(function: Function) -> Function:
        place = f"spikevrt::{name}"
        schema = torch.library.infer_schema(function, mutates_args=())
        torch.library.define(place, schema, tags=torch.Tag.pt2_compliant_tag)
        torch.library.impl(place, "default", function)
        return getattr(torch.ops.spikevrt, name).default

    return register
