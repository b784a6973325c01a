"""Pixel losses, by the name that the option `train.G_lossfn_type` gives; always in float32."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor


def charbonnier(out: Tensor, gt: Tensor, eps: float) -> Tensor:
    """mean(sqrt(d^2 + eps)); eps is not squared. In half precision 1e-9 would be zero, and the gradient infinite."""
    return ((out.float() - gt.float()).square() + eps).sqrt().mean()


def l1(out: Tensor, gt: Tensor, _eps: float) -> Tensor:
    """Mean absolute difference."""
    return F.l1_loss(out.float(), gt.float())


def l2(out: Tensor, gt: Tensor, _eps: float) -> Tensor:
    """Mean squared difference."""
    return F.mse_loss(out.float(), gt.float())


LOSSES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "charbonnier": charbonnier,
    "l1": l1,
    "l2": l2,
}
