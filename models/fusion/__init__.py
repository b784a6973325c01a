"""Operators that fuse RGB and spikes, by `netG.fusion`."""

from models.fusion.concat import Concat
from models.fusion.difference import Difference

FUSIONS: dict[str, type[Concat] | type[Difference]] = {"concat": Concat, "difference": Difference}
