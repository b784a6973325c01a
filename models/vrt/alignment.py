"""Parallel alignment: neighbouring frames brought onto each frame by flow-guided deformable convolution."""

import math

import torch
from torch import Tensor, nn

from models.op import deform_conv2d
from models.vrt.warp import flow_warp

TAPS = 9


class FlowGuidedDeformConv(nn.Module):
    """Deformable 3x3 convolution whose offsets are the flow plus a learned, bounded residue.

    Args:
        dim: channels in and out.
        groups: offset groups; divides dim.
        max_residue: bound of the learned part of an offset, in pixels.
    """

    def __init__(self, dim: int, groups: int, max_residue: float) -> None:
        super().__init__()
        self.max_residue = max_residue
        self.weight = nn.Parameter(torch.empty(dim, dim, 3, 3))
        self.bias = nn.Parameter(torch.zeros(dim))
        bound = 1 / math.sqrt(dim * TAPS)
        nn.init.uniform_(self.weight, -bound, bound)
        layers: list[nn.Module] = []
        for c_in in (2 * dim + 2, dim, dim):
            layers += [nn.Conv2d(c_in, dim, 3, padding=1), nn.LeakyReLU(0.1, inplace=True)]
        last = nn.Conv2d(dim, 3 * TAPS * groups, 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.conv_offset = nn.Sequential(*layers, last)

    def forward(self, neighbour: Tensor, warped: Tensor, current: Tensor, flow: Tensor) -> Tensor:
        """Align `neighbour` to `current`.

        Args:
            neighbour: (N, C, H, W).
            warped: the neighbour pulled along the flow, (N, C, H, W).
            current: (N, C, H, W).
            flow: (N, 2, H, W) in pixels, channel 0 = x.

        Returns:
            (N, C, H, W).
        """
        guide = self.conv_offset(torch.cat((warped, current, flow.to(current.dtype)), dim=1))
        residue, mask = guide.split((guide.shape[1] // 3 * 2, guide.shape[1] // 3), dim=1)
        offset = self.max_residue * torch.tanh(residue.float())
        offset = offset + flow.float().flip(1).repeat(1, offset.shape[1] // 2, 1, 1)
        return deform_conv2d(neighbour, offset, torch.sigmoid(mask.float()), self.weight, self.bias)


def align_pairs(pa_deform: FlowGuidedDeformConv, x: Tensor, backward: Tensor, forward: Tensor) -> tuple[Tensor, Tensor]:
    """Align the next and the previous frame to every frame, all pairs in one batch.

    Args:
        pa_deform: the alignment of this stage.
        x: (B, D, C, H, W).
        backward: flow that pulls frame t+1 onto t, (B, D-1, 2, H, W).
        forward: flow that pulls frame t onto t+1, the same shape.

    Returns:
        Aligned next frames (the last is zero) and aligned previous frames (the first is zero), each (B, D, C, H, W).
    """
    b, d = x.shape[:2]
    neighbour = torch.cat((x[:, 1:], x[:, :-1]), dim=1).flatten(0, 1)
    current = torch.cat((x[:, :-1], x[:, 1:]), dim=1).flatten(0, 1)
    flow = torch.cat((backward, forward), dim=1).flatten(0, 1)
    warped = flow_warp(neighbour.float(), flow.float()).to(x.dtype)
    aligned = pa_deform(neighbour, warped, current, flow).to(x.dtype).view(b, 2 * (d - 1), *x.shape[2:])
    nothing = torch.zeros_like(aligned[:, :1])
    return torch.cat((aligned[:, : d - 1], nothing), dim=1), torch.cat((nothing, aligned[:, d - 1 :]), dim=1)
