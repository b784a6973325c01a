"""From the `netG` block of the options to a network."""

from typing import Any, Protocol

import torch

from models.network_vrt import VRT


class NetOptions(Protocol):
    """What is read of the `netG` block."""

    def network_kwargs(self) -> dict[str, Any]:
        """Keyword arguments of VRT."""


def define_G(opt: NetOptions, seed: int = 0) -> VRT:
    """Build VRT with weights drawn from `seed`, optical flow from its file where `spynet_path` names one."""
    torch.manual_seed(seed)
    return VRT(**opt.network_kwargs())
