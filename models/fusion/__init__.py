"""Ways to bring RGB and spikes together, by the name that the option `netG.fusion` gives."""

from models.fusion.base import Fusion
from models.fusion.concat import Concat
from models.fusion.difference import Difference

FUSIONS: dict[str, type[Fusion]] = {"concat": Concat, "difference": Difference}
