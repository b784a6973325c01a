"""From the `netG` block of the options to a network."""

import logging
from typing import Any, Protocol

import torch

from models.network_vrt import VRT

LOG = logging.getLogger("spikevrt")


class NetOptions(Protocol):
    """What is read of the `netG` block."""

    @property
    def spynet_path(self) -> str | None:
        """File of pretrained SpyNet weights."""

    def network_kwargs(self) -> dict[str, Any]:
        """Keyword arguments of VRT."""


def define_G(opt: NetOptions, seed: int = 0) -> VRT:
    """Build VRT with weights drawn from `seed`; a missing SpyNet file is an error, none configured a warning."""
    if opt.spynet_path is None:
        LOG.warning(
            "netG.spynet_path is null: optical flow starts from random weights, so alignment has to be learned from "
            "nothing and restores less for the same training; the official spynet_sintel_final-3d2a1287.pth avoids that"
        )
    torch.manual_seed(seed)
    return VRT(**opt.network_kwargs())
