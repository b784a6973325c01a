"""The training loss: a pixel term, `train.G_lossfn_type`, and two optional terms for motion blur.

Everything is computed in float32, whatever the precision of the tensors.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from options.schema import TrainOpt


class PixelLoss(Protocol):
    """A distance of frames: least where they are equal, 0 there but for eps, with a finite gradient everywhere."""

    def __call__(self, out: Tensor, gt: Tensor, eps: float, /) -> Tensor:
        """Two tensors (..., H, W) of one shape, and `train.G_charbonnier_eps` -> (), float32."""
        ...


def charbonnier(out: Tensor, gt: Tensor, eps: float) -> Tensor:
    """mean(sqrt(d^2 + eps)); eps is not squared. In half precision 1e-9 would be zero, and the gradient infinite."""
    return ((out.float() - gt.float()).square() + eps).sqrt().mean()


def l1(out: Tensor, gt: Tensor, _eps: float) -> Tensor:
    """Mean absolute difference."""
    return F.l1_loss(out.float(), gt.float())


def l2(out: Tensor, gt: Tensor, _eps: float) -> Tensor:
    """Mean squared difference."""
    return F.mse_loss(out.float(), gt.float())


LOSSES: dict[str, PixelLoss] = {"charbonnier": charbonnier, "l1": l1, "l2": l2}


def frequency(out: Tensor, gt: Tensor) -> Tensor:
    """L1 distance in the frequency domain, after MIMO-UNet's (Cho et al., arXiv:2108.05054), at full size only.

    Mean absolute difference of the real and imaginary parts of the orthonormal 2-D spectra of frames (..., H, W), over
    the non-redundant half of each spectrum. Zero only if the frames are equal.
    """
    spectrum = torch.fft.rfft2(out.float() - gt.float(), norm="ortho")  # of the difference: the transform is linear
    return torch.view_as_real(spectrum).abs().mean()


def edge(out: Tensor, gt: Tensor, eps: float) -> Tensor:
    """Charbonnier distance of the frames' Laplacians, after MPRNet's edge loss (Zamir et al., arXiv:2102.02808).

    The Laplacian of (B, T, C, H, W) uses the four neighbours; border pixels are replicated outwards. `eps` is added
    under the root, not squared; sqrt(eps) is the smallest value.
    """
    d = F.pad((out.float() - gt.float()).flatten(0, 1), (1, 1, 1, 1), mode="replicate")
    across = d[..., 1:-1, :-2] + d[..., 1:-1, 2:]
    down = d[..., :-2, 1:-1] + d[..., 2:, 1:-1]
    return ((across + down - 4 * d[..., 1:-1, 1:-1]).square() + eps).sqrt().mean()


def total_loss(out: Tensor, gt: Tensor, opt: TrainOpt) -> tuple[Tensor, dict[str, Tensor]]:
    """What a training step minimises: terms of restored and sharp frames, (B, T, 3, H, W); none with weight 0.

    Returns:
        The sum of the weighted terms, and the terms by name, without gradient: G_pixel and, if weighted, G_fft and
        G_edge.
    """
    eps = opt.G_charbonnier_eps
    terms = {"G_pixel": opt.G_lossfn_weight * LOSSES[opt.G_lossfn_type](out, gt, eps)}
    if opt.G_fft_weight:
        terms["G_fft"] = opt.G_fft_weight * frequency(out, gt)
    if opt.G_edge_weight:
        terms["G_edge"] = opt.G_edge_weight * edge(out, gt, eps)
    total = torch.stack(list(terms.values())).sum()
    return total, {name: term.detach() for name, term in terms.items()}
