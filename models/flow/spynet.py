"""SpyNet (Ranjan and Black, "Optical Flow Estimation using a Spatial Pyramid Network", CVPR 2017)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.flow.base import Flow
from models.vrt.warp import flow_warp

LEVELS = 6
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class BasicModule(nn.Module):
    """Five 7x7 convolutions: reference (3), warped neighbour (3), current flow (2) -> correction of the flow (2)."""

    def __init__(self) -> None:
        super().__init__()
        widths = (8, 32, 64, 32, 16, 2)
        layers: list[nn.Module] = []
        for c_in, c_out in zip(widths, widths[1:], strict=False):
            layers += [nn.Conv2d(c_in, c_out, 7, padding=3), nn.ReLU(inplace=True)]
        self.basic_module = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return self.basic_module(x)


class SpyNet(Flow):
    """Flow from a reference to a neighbouring frame, coarse to fine over six levels."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.basic_module = nn.ModuleList(BasicModule() for _ in range(LEVELS))
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, ref: Tensor, supp: Tensor) -> list[Tensor]:
        height, width = ref.shape[-2:]
        padded = (-(-height // 32) * 32, -(-width // 32) * 32)
        refs, supps = self._pyramid(ref, padded), self._pyramid(supp, padded)
        flow = ref.new_zeros(ref.shape[0], 2, refs[0].shape[-2] // 2, refs[0].shape[-1] // 2)
        flows: list[Tensor] = []
        for module, level_ref, level_supp in zip(self.basic_module, refs, supps, strict=True):
            up = _double(flow, level_ref.shape[-2], level_ref.shape[-1])
            warped = flow_warp(level_supp, up, padding="border")
            flow = module(torch.cat((level_ref, warped, up), dim=1)) + up
            flows.insert(0, flow)
        return [resize_flow(flow, max(height >> i, 1), max(width >> i, 1)) for i, flow in enumerate(flows[:4])]

    def _pyramid(self, image: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """The normalised image at six scales, coarsest first."""
        image = (image - self.mean) / self.std
        levels = [F.interpolate(image, size=size, mode="bilinear", align_corners=False)]
        for _ in range(LEVELS - 1):
            levels.insert(0, F.avg_pool2d(levels[0], 2, 2, count_include_pad=False))
        return levels


def _double(flow: Tensor, height: int, width: int) -> Tensor:
    """Upsample and scale the flow by 2; replicate the bottom and right edge if the level is one pixel larger."""
    size = (flow.shape[-2] * 2, flow.shape[-1] * 2)
    if 0 in size:
        return flow.new_zeros(flow.shape[0], 2, height, width)
    flow = 2.0 * F.interpolate(flow, size=size, mode="bilinear", align_corners=True)
    return F.pad(flow, (0, width - size[1], 0, height - size[0]), mode="replicate")


def resize_flow(flow: Tensor, height: int, width: int) -> Tensor:
    """Resize (N, 2, h, w) flow to (height, width) and scale its vectors to match."""
    scale = flow.new_tensor((width / flow.shape[-1], height / flow.shape[-2])).view(1, 2, 1, 1)
    return F.interpolate(flow, size=(height, width), mode="bilinear", align_corners=False) * scale
