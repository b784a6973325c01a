"""Optical flow operators, by the name that the option `netG.optical_flow` gives."""

from models.flow.spynet import SpyNet
from models.flow.spynet_quarter import SpyNetQuarter

FLOWS: dict[str, type[SpyNet]] = {"spynet": SpyNet, "spynet_quarter": SpyNetQuarter}
