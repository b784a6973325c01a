"""Builds the network from the `netG` block of the options."""

from collections.abc import Callable

import torch
from torch import nn

from models.fusion.guide import Guide
from models.lora import add_lora
from models.network_vrt import VRT
from options.schema_network import NetOpt

NETWORKS: dict[str, Callable[..., nn.Module]] = {"vrt": VRT, "guide": Guide}


def define_G(opt: NetOpt, seed: int = 0) -> nn.Module:
    """Build the network of `net_type` with weights drawn from `seed`; VRT takes its flow from `spynet_path` if given.

    With `opt.lora`, everything but the low-rank changes and `lora.also` is frozen.
    """
    torch.manual_seed(seed)
    net = NETWORKS[opt.net_type](**opt.network_kwargs())
    if isinstance(net, VRT) and opt.init_type == "identity":
        init_identity(net)
    if opt.lora is not None:
        add_lora(net, **opt.lora.model_dump())
    return net


@torch.no_grad()
def init_identity(net: VRT) -> None:
    """Start from the identity: conv_first passes the frame's own planes through, and the body adds nothing.

    The last convolution then sees clean planes from the first step on. With random weights it sees mixtures of nine
    groups of planes, which take hundreds of steps to separate. Useful for short trainings from scratch.
    """
    planes = net.fusion.out_chans
    net.conv_first.weight *= 0.1
    for plane in range(min(planes, net.conv_first.out_channels)):
        net.conv_first.weight[plane, plane, 0, 1, 1] += 1.0
    nn.init.zeros_(net.conv_after_body.weight)
    nn.init.zeros_(net.conv_after_body.bias)
