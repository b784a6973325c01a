"""SpyNet at a quarter of the frame size: a sixteenth of the cost, for small machines."""

import torch.nn.functional as F
from torch import Tensor

from models.flow.spynet import SpyNet, resize_flow


class SpyNetQuarter(SpyNet):
    """Same parameters and outputs as SpyNet; the flow is estimated at 1/4 scale and enlarged."""

    def forward(self, ref: Tensor, supp: Tensor) -> list[Tensor]:
        height, width = ref.shape[-2:]
        small = (max(height // 4, 1), max(width // 4, 1))
        flow = super().forward(F.adaptive_avg_pool2d(ref, small), F.adaptive_avg_pool2d(supp, small))[0]
        return [resize_flow(flow, height >> i, width >> i) for i in range(4)]
