"""Options for fine-tuning with low-rank adaptation."""

from typing import Annotated

from pydantic import Field

from options.schema_base import Block, Count, Names, Positive

SomeNames = Annotated[Names, Field(min_length=1)]


class LoraOpt(Block):
    """Low-rank adaptation (LoRA): each layer in `targets` trains only a product of two thin matrices."""

    rank: Count = 16
    """Width of the thin matrices. Larger values adapt more and cost more memory."""
    alpha: Positive | None = None
    """The product is scaled by alpha / rank. null: not scaled."""
    targets: SomeNames = ("qkv_self", "qkv_mut", "proj")
    """Adapted layers: whole trailing parts of their names; * matches any text. Examples: "mlp.fc2", "stage8.*"."""
    also: Names = ("conv_first", "conv_last")
    """Layers or parameters that are trained in full, named like targets. All others keep their loaded values."""
