"""Operators that fuse RGB and spikes, by `netG.fusion`."""

from models.fusion.base import Fusion
from models.fusion.concat import Concat
from models.fusion.difference import Difference
from models.fusion.guide import GuideFusion

FUSIONS: dict[str, type[Fusion]] = {"concat": Concat, "difference": Difference, "guide": GuideFusion}
