"""Ways to bring RGB and spikes together, by the name that the option `netG.fusion` gives."""

from models.fusion.concat import Concat

FUSIONS = {"concat": Concat}
