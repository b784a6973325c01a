"""One of VRT's seven stages: reshape, mutual and self attention, parallel alignment."""

import torch
from einops.layers.torch import Rearrange
from torch import Tensor, nn

from models.vrt.alignment import AlignArgs, FlowGuidedDeformConv, align_pairs
from models.vrt.blocks import GEGLU, BlockArgs, TMSAGroup
from models.vrt.linear import Linear
from models.vrt.window import Triple

Flows = tuple[Tensor, Tensor]


def reshape_layer(kind: str, dim_in: int, dim: int) -> nn.Sequential:
    """First layer of a stage, on (B, D, H, W, C): "none", "down" (folds 2x2 pixels) or "up" (unfolds them)."""
    if kind == "none":
        return nn.Sequential(nn.Identity(), nn.LayerNorm(dim))
    if kind == "down":
        fold = Rearrange("b d (h neih) (w neiw) c -> b d h w (neiw neih c)", neih=2, neiw=2)
        return nn.Sequential(fold, nn.LayerNorm(4 * dim_in), Linear(4 * dim_in, dim))
    unfold = Rearrange("b d h w (neiw neih c) -> b d (h neih) (w neiw) c", neih=2, neiw=2)
    return nn.Sequential(unfold, nn.LayerNorm(dim_in // 4), Linear(dim_in // 4, dim))


class Stage(nn.Module):
    """Attention between pairs of frames, attention over all frames, and alignment at one scale.

    Of its blocks, one per rate in `drop_paths`, the first `mutual_blocks` have mutual attention, in windows of
    (2, Wh, Ww). `dim_in` are the channels of the previous stage; without `align`, neighbours are not aligned.
    """

    def __init__(
        self,
        kind: str,
        dim_in: int,
        args: BlockArgs,
        window: Triple,
        drop_paths: list[float],
        mutual_blocks: int,
        align: AlignArgs | None,
    ) -> None:
        super().__init__()
        self.reshape = reshape_layer(kind, dim_in, args.dim)
        self.residual_group1 = TMSAGroup(args, (2, *window[1:]), True, drop_paths[:mutual_blocks])
        self.linear1 = Linear(args.dim, args.dim)
        # As in the published network, the second group reads its rates from the start of the list again.
        self.residual_group2 = TMSAGroup(args, window, False, drop_paths[: len(drop_paths) - mutual_blocks])
        self.linear2 = Linear(args.dim, args.dim)
        if align is not None:
            self.pa_deform = FlowGuidedDeformConv(args.dim, align)
            self.pa_fuse = GEGLU(3 * args.dim, 3 * args.dim, args.dim)

    def forward(self, x: Tensor, flows: Flows | None) -> Tensor:
        """(B, D, H, W, C) of the previous stage -> (B, D, h, w, dim).

        `flows` are the backward and forward flows of this scale, see `align_pairs`; None: no alignment.
        """
        x = self.reshape(x)
        x = self.linear1(self.residual_group1(x)) + x
        x = self.linear2(self.residual_group2(x)) + x
        if flows is None:
            return x
        following, previous = align_pairs(self.pa_deform, x.permute(0, 1, 4, 2, 3), *flows)
        return self.pa_fuse(torch.cat((x, following.permute(0, 1, 3, 4, 2), previous.permute(0, 1, 3, 4, 2)), dim=4))
