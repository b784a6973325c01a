"""Random weights under which every part of the network works."""

import math

import torch
from torch import Tensor, nn

from models.network_vrt import VRT

RESIDUAL = 0.05  # root mean square of what a deblurring network adds to a GoPro frame


@torch.no_grad()
def enliven(net: VRT, x: Tensor) -> None:
    """Draw all weights so that no part is silent, and scale the residual to RESIDUAL."""
    torch.manual_seed(0)
    for name, parameter in net.named_parameters():
        if name.endswith("relative_position_bias_table"):
            nn.init.normal_(parameter, std=0.2)
        elif parameter.dim() > 1:
            gain = 1.4 if name.startswith("spynet") else 0.05 if name.endswith("conv_offset.6.weight") else 0.5
            nn.init.normal_(parameter, std=gain / math.sqrt(parameter[0].numel()))
    scale = RESIDUAL / (net(x) - x).square().mean().sqrt()
    net.conv_last.weight *= scale
    net.conv_last.bias *= scale
