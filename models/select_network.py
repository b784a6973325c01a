"""From the `netG` block of the options to a network."""

from collections.abc import Callable

import torch
from torch import nn

from models.lora import add_lora
from models.network_vrt import VRT
from options.schema_network import NetOpt


def define_G(opt: NetOpt, seed: int = 0) -> VRT:
    """Build VRT with weights drawn from `seed`, optical flow from its file where `spynet_path` names one.

    With `opt.lora`, all but the low-rank changes and what `lora.also` names is frozen.
    """
    torch.manual_seed(seed)
    net = VRT(**opt.network_kwargs())
    INITS[opt.init_type](net)
    if opt.lora is not None:
        add_lora(net, **opt.lora.model_dump())
    return net


def init_default(net: VRT) -> None:
    """As each layer has it."""


@torch.no_grad()
def init_identity(net: VRT) -> None:
    """Start from the input itself: conv_first passes the frame's own planes on, the body is silent at first.

    The last convolution then reads clean planes from the first step on, where random mixtures of nine groups of them
    take hundreds of steps to sort out: for short trainings from scratch.
    """
    planes = net.fusion.out_chans
    net.conv_first.weight *= 0.1
    for plane in range(min(planes, net.conv_first.out_channels)):
        net.conv_first.weight[plane, plane, 0, 1, 1] += 1.0
    nn.init.zeros_(net.conv_after_body.weight)
    nn.init.zeros_(net.conv_after_body.bias)


INITS: dict[str, Callable[[VRT], None]] = {"default": init_default, "identity": init_identity}
