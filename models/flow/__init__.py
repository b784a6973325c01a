"""Optical flow operators, by `netG.optical_flow`."""

from models.flow.spynet import SpyNet
from models.flow.spynet_quarter import SpyNetQuarter

FLOWS: dict[str, type[SpyNet]] = {"spynet": SpyNet, "spynet_quarter": SpyNetQuarter}
