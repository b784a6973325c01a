"""Parallel alignment: flow-guided deformable convolution aligns neighbouring frames to each frame."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.op import deform_conv2d
from models.vrt.warp import flow_warp

TAPS = 9


@dataclass(frozen=True)
class AlignArgs:
    """How a stage aligns."""

    groups: int  # offset groups, shared by all neighbours; a multiple of `reach`
    reach: int  # neighbours taken from each side, at distances 1 .. reach
    max_residue: float  # bound of the learned part of an offset, in pixels of the stage's scale


class FlowGuidedDeformConv(nn.Module):
    """Deformable 3x3 convolution whose offsets are the flow plus a learned, bounded residue.

    It is a grouped convolution over the neighbours: each yields dim / reach of the `dim` output channels of a frame.
    """

    def __init__(self, dim: int, args: AlignArgs) -> None:
        super().__init__()
        self.args = args
        self.weight = nn.Parameter(torch.empty(dim, dim, 3, 3))
        self.bias = nn.Parameter(torch.zeros(dim))
        bound = 1 / math.sqrt(dim * TAPS)
        nn.init.uniform_(self.weight, -bound, bound)
        layers: list[nn.Module] = []
        for c_in in ((1 + args.reach) * dim + 2 * args.reach, dim, dim):
            layers += [nn.Conv2d(c_in, dim, 3, padding=1), nn.LeakyReLU(0.1, inplace=True)]
        last = nn.Conv2d(dim, 3 * TAPS * args.groups, 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.conv_offset = nn.Sequential(*layers, last)

    def forward(self, neighbours: Tensor, warped: Tensor, current: Tensor, flow: Tensor) -> Tensor:
        """Align `neighbours` to `current`.

        Args:
            neighbours: (N, reach * C, H, W), the nearest first.
            warped: each pulled along its flow, the same shape.
            current: (N, C, H, W).
            flow: (N, 2 * reach, H, W) in pixels, for each neighbour x, then y.

        Returns:
            (N, C, H, W).
        """
        guide = self.conv_offset(torch.cat((warped, current, flow.to(current.dtype)), dim=1))
        residue, mask = guide.split((guide.shape[1] // 3 * 2, guide.shape[1] // 3), dim=1)
        reach = self.args.reach
        parts = zip(
            neighbours.chunk(reach, dim=1),
            (self.args.max_residue * torch.tanh(residue.float())).chunk(reach, dim=1),
            flow.float().chunk(reach, dim=1),
            torch.sigmoid(mask.float()).chunk(reach, dim=1),
            self.weight.chunk(reach),
            self.bias.chunk(reach),
            strict=True,
        )
        aligned = []
        for neighbour, offset, along, part_mask, weight, bias in parts:
            offset = offset + along.flip(1).repeat(1, offset.shape[1] // 2, 1, 1)
            aligned.append(deform_conv2d(neighbour, offset, part_mask, weight, bias))
        return aligned[0] if reach == 1 else torch.cat(aligned, dim=1)


def align_pairs(pa_deform: FlowGuidedDeformConv, x: Tensor, backward: Tensor, forward: Tensor) -> tuple[Tensor, Tensor]:
    """Align the next and the previous frames to every frame, in one batch.

    Args:
        pa_deform: the alignment of this stage.
        x: (B, D, C, H, W).
        backward: flows that pull the next frames t+1 .. t+reach onto t, (B, D-1, 2 * reach, H, W), see `far_flows`.
        forward: flows that pull the previous frames t .. t+1-reach onto t+1, the same shape.

    Returns:
        Aligned next frames (the last is zero) and aligned previous frames (the first is zero), each (B, D, C, H, W).
    """
    b, d, c, h, w = x.shape
    reach = pa_deform.args.reach
    neighbours = _neighbours(x, reach).flatten(0, 1)
    current = torch.cat((x[:, :-1], x[:, 1:]), dim=1).flatten(0, 1)
    flow = torch.cat((backward, forward), dim=1).flatten(0, 1).float()
    single = neighbours.float().view(-1, c, h, w), flow.view(-1, 2, h, w)
    warped = flow_warp(*single).to(x.dtype).view_as(neighbours)
    aligned = pa_deform(neighbours, warped, current, flow).to(x.dtype).view(b, 2 * (d - 1), c, h, w)
    nothing = torch.zeros_like(aligned[:, :1])
    return torch.cat((aligned[:, : d - 1], nothing), dim=1), torch.cat((nothing, aligned[:, d - 1 :]), dim=1)


def _neighbours(x: Tensor, reach: int) -> Tensor:
    """(B, D, C, H, W) -> (B, 2 * (D-1), reach * C, H, W): t+1 .. t+reach of each t, then t .. t+1-reach of each t+1."""
    if reach == 1:
        return torch.cat((x[:, 1:], x[:, :-1]), dim=1)
    count = x.shape[1] - 1
    nothing = x.new_zeros(x.shape[0], reach - 1, *x.shape[2:])
    padded_after, padded_before = torch.cat((x, nothing), dim=1), torch.cat((nothing, x), dim=1)
    following = [padded_after[:, k : k + count] for k in range(1, reach + 1)]
    previous = [padded_before[:, reach - k : reach - k + count] for k in range(1, reach + 1)]
    return torch.cat((torch.cat(following, dim=2), torch.cat(previous, dim=2)), dim=1)
