"""Options of fine-tuning by low-rank changes."""

from typing import Annotated

from pydantic import Field

from options.schema_base import Block, Count, Names, Positive

SomeNames = Annotated[Names, Field(min_length=1)]


class LoraOpt(Block):
    """Low-rank adaptation (LoRA): of the layers in `targets` only a product of two thin matrices is trained."""

    rank: Count = 16
    """Width of the thin matrices."""
    alpha: Positive | None = None
    """The product counts alpha / rank; null: as rank, the product as it is."""
    targets: SomeNames = ("qkv_self", "qkv_mut", "proj")
    """Layers that get such a product: ends of their names, parts whole, with * for any text: "mlp.fc2", "stage8.*"."""
    also: Names = ("conv_first", "conv_last")
    """Layers or parameters, named the same way, that are trained in full; everything else stays as it was loaded."""
