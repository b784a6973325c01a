"""Optical flow operators, by `netG.optical_flow`."""

from models.flow.base import Flow
from models.flow.spynet import SpyNet
from models.flow.spynet_quarter import SpyNetQuarter

FLOWS: dict[str, type[Flow]] = {"spynet": SpyNet, "spynet_quarter": SpyNetQuarter}
