"""Optical flow operators, by the name that the option `netG.optical_flow` gives."""

from models.flow.base import Flow
from models.flow.spynet import SpyNet
from models.flow.spynet_quarter import SpyNetQuarter

FLOWS: dict[str, type[Flow]] = {"spynet": SpyNet, "spynet_quarter": SpyNetQuarter}
