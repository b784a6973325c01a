"""Functions of tensors as operators of PyTorch: one piece for autograd, torch.compile and torch.export."""

from collections.abc import Callable
from typing import TypeVar

import torch

Function = TypeVar("Function", bound=Callable)


def operator(name: str) -> Callable[[Function], Function]:
    """Make a function that changes none of its arguments the operator torch.ops.spikevrt.<name>.

    As torch.library.custom_op, whose operators import PyTorch's compiler when they are first called: two seconds that
    only a run with train.compile needs. Fake tensors and gradients: torch.library.register_fake, register_autograd.

    Args:
        name: of the operator.
    """

    def register(function: Function) -> Function:
        place = f"spikevrt::{name}"
        schema = torch.library.infer_schema(function, mutates_args=())
        torch.library.define(place, schema, tags=torch.Tag.pt2_compliant_tag)
        torch.library.impl(place, "default", function)
        return getattr(torch.ops.spikevrt, name).default

    return register
