"""VRT (Liang et al., "VRT: A Video Restoration Transformer", arXiv:2201.12288) with spike channels beside RGB."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.flow import FLOWS
from models.fusion import FUSIONS
from models.vrt.blocks import RTMSA, BlockArgs
from models.vrt.stage import Stage
from models.vrt.warp import nearest4_warp
from utils.utils_checkpoint import load_weights
from utils.utils_error import UserError
from utils.utils_tile import mirror_index

KINDS = ("none", "down", "down", "down", "up", "up", "up")
LEVELS = (0, 1, 2, 3, 2, 1, 0)  # scale of each stage: 1 / 2**level
RGB = 3


class FrameConv(nn.Conv3d):
    """A 3x3 convolution of single frames that keeps the published parameter shape (C_out, C_in, 1, 3, 3)."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out, (1, 3, 3), padding=(0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, C_in, H, W) -> (B, D, C_out, H, W), as a 2-D convolution, which is quicker everywhere."""
        out = F.conv2d(x.flatten(0, 1), self.weight.squeeze(2), self.bias, padding=1)
        return out.view(*x.shape[:2], *out.shape[1:])


class VRT(nn.Module):
    """Restores D frames at once: flow, fusion, seven stages of attention and alignment, reconstruction, residual.

    Args:
        upscale: 1; restoration at the input's size.
        in_chans: 3 RGB channels plus the spike channels.
        out_chans: 3.
        img_size: (D, H, W) the network is trained on; kept for option files, any size may be restored.
        window_size: (Wd, Wh, Ww) of the attention windows.
        depths: blocks of the seven stages, then of each group of the reconstruction.
        indep_reconsts: indices into depths of groups that see one frame at a time.
        embed_dims: channels, one per entry of depths; one value for the first seven, one for the others.
        num_heads: attention heads, one per entry of depths.
        mul_attn_ratio: share of a stage's blocks that use mutual attention.
        mlp_ratio: hidden width of the feed-forward parts over their channels.
        qkv_bias: bias of the q, k, v projections.
        drop_path_rate: stochastic depth of the last block; earlier blocks have less, in proportion.
        spynet_path: file of pretrained SpyNet weights, or None for random ones.
        pa_frames: 2; frames used by the alignment.
        deformable_groups: offset groups of the alignment.
        nonblind_denoising: False.
        use_checkpoint_attn: recompute attention in the backward pass to save memory.
        use_checkpoint_ffn: the same for the feed-forward parts.
        no_checkpoint_attn_blocks: indices into depths that are kept in memory all the same.
        no_checkpoint_ffn_blocks: likewise for the feed-forward parts.
        optical_flow: name of the flow operator, see models/flow.
        fusion: name of the fusion operator, see models/fusion.

    Raises:
        UserError: an argument is not supported, with its name and value.
    """

    def __init__(  # noqa: PLR0913 - the published signature, which option files and users know
        self,
        upscale: int = 1,
        in_chans: int = 4,
        out_chans: int = 3,
        img_size: Sequence[int] = (6, 192, 192),
        window_size: Sequence[int] = (6, 8, 8),
        depths: Sequence[int] = (8,) * 7 + (4,) * 4,
        indep_reconsts: Sequence[int] = (9, 10),
        embed_dims: Sequence[int] = (96,) * 7 + (120,) * 4,
        num_heads: Sequence[int] = (6,) * 11,
        mul_attn_ratio: float = 0.75,
        mlp_ratio: float = 2.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.2,
        spynet_path: str | None = None,
        pa_frames: int = 2,
        deformable_groups: int = 16,
        nonblind_denoising: bool = False,
        use_checkpoint_attn: bool = False,
        use_checkpoint_ffn: bool = False,
        no_checkpoint_attn_blocks: Sequence[int] = (),
        no_checkpoint_ffn_blocks: Sequence[int] = (),
        optical_flow: str = "spynet",
        fusion: str = "concat",
    ) -> None:
        super().__init__()
        _check(upscale=(upscale, 1), out_chans=(out_chans, RGB), pa_frames=(pa_frames, 2))
        _check(nonblind_denoising=(nonblind_denoising, False))
        if in_chans < RGB:
            raise UserError(f"netG.in_chans is {in_chans}; at least 3, for RGB, are needed")
        self.window = (window_size[0], window_size[1], window_size[2])
        dim, dim_last = embed_dims[0], embed_dims[-1]
        args = [
            BlockArgs(
                width,
                heads,
                mlp_ratio,
                qkv_bias,
                use_checkpoint_attn and i not in no_checkpoint_attn_blocks,
                use_checkpoint_ffn and i not in no_checkpoint_ffn_blocks,
            )
            for i, (width, heads) in enumerate(zip(embed_dims, num_heads, strict=True))
        ]
        drop_paths = _split(torch.linspace(0, drop_path_rate, sum(depths)).tolist(), depths)

        self.spynet = FLOWS[optical_flow]()
        self.fusion = FUSIONS[fusion](in_chans - RGB)
        # Every channel enters with the four nearest pixels of both warped neighbours: 1 + 2 * 4 planes each.
        self.conv_first = FrameConv(9 * self.fusion.out_chans, dim)
        for i, (kind, level) in enumerate(zip(KINDS, LEVELS, strict=True)):
            mutual = int(depths[i] * mul_attn_ratio)
            stage = Stage(kind, dim, args[i], self.window, drop_paths[i], mutual, deformable_groups, 10 / 2**level)
            self.add_module(f"stage{i + 1}", stage)
        self.stage8 = nn.ModuleList([nn.Sequential(nn.Identity(), nn.LayerNorm(dim), nn.Linear(dim, dim_last))])
        for i in range(len(KINDS), len(depths)):
            window = (1, *self.window[1:]) if i in indep_reconsts else self.window
            self.stage8.append(RTMSA(args[i], window, drop_paths[i]))
        self.norm = nn.LayerNorm(dim_last)
        self.conv_after_body = nn.Linear(dim_last, dim)
        self.conv_last = FrameConv(dim, out_chans)
        # Training starts at the blurred input itself and can only gain; loaded weights override this.
        nn.init.zeros_(self.conv_last.weight)
        nn.init.zeros_(self.conv_last.bias)  # type: ignore[arg-type]
        if spynet_path is not None:
            load_weights(self.spynet, spynet_path)

    def forward(self, x: Tensor) -> Tensor:
        """Restore frames.

        Args:
            x: (B, D, in_chans, H, W): RGB in [0, 1], then spike planes in units of intensity; any D, H, W >= 1.

        Returns:
            (B, D, 3, H, W), not clamped.
        """
        size = (x.shape[1], *x.shape[3:])
        x = self._extend(x)
        rgb, spike = x[:, :, :RGB], x[:, :, RGB:]
        backward, forward = self.flows(rgb)
        fused = self.fusion(rgb, spike)
        f0 = self.conv_first(self._with_neighbours(fused, backward[0], forward[0])).permute(0, 1, 3, 4, 2)
        f = f0 + self.conv_after_body(self.features(f0, backward, forward))
        out = self.conv_last(f.permute(0, 1, 4, 2, 3)) + rgb
        return out[:, : size[0], :, : size[1], : size[2]]

    def flows(self, rgb: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Flows between neighbouring frames at four scales, both directions in one batch.

        Args:
            rgb: (B, D, 3, H, W), D >= 2.

        Returns:
            backward, forward: four tensors each, (B, D-1, 2, H/s, W/s) for s = 1, 2, 4, 8, in pixels of their scale;
            backward[t] pulls frame t+1 onto t, forward[t] pulls frame t onto t+1.
        """
        b, d = rgb.shape[:2]
        with torch.autocast(rgb.device.type, enabled=False):
            this, following = rgb[:, :-1].float().flatten(0, 1), rgb[:, 1:].float().flatten(0, 1)
            both = self.spynet(torch.cat((this, following)), torch.cat((following, this)))
        levels = [flow.view(2, b, d - 1, *flow.shape[1:]) for flow in both]
        return [level[0] for level in levels], [level[1] for level in levels]

    def features(self, x: Tensor, backward: list[Tensor], forward: list[Tensor]) -> Tensor:
        """The seven stages as a U, then the reconstruction: (B, D, H, W, dim) -> (B, D, H, W, dim_last)."""

        def stage(number: int, x: Tensor) -> Tensor:
            level = LEVELS[number - 1]
            return self.get_submodule(f"stage{number}")(x, backward[level], forward[level])

        x1 = stage(1, x)
        x2 = stage(2, x1)
        x3 = stage(3, x2)
        x4 = stage(4, x3)
        x = stage(5, x4)
        x = stage(6, x + x3)
        x = stage(7, x + x2) + x1
        for layer in self.stage8:
            x = layer(x)
        return self.norm(x)

    def _extend(self, x: Tensor) -> Tensor:
        """Mirror (B, D, C, H, W) at its ends to sizes that the stages can halve three times and still hold a window."""
        _, d, _, h, w = x.shape
        height, width = (max(-(-n // 8) * 8, 8 * k) for n, k in zip((h, w), self.window[1:], strict=True))
        for axis, length, target in ((1, d, max(d, 2)), (3, h, height), (4, w, width)):
            if length != target:
                x = x.index_select(axis, torch.tensor(mirror_index(0, target, length), device=x.device))
        return x

    @staticmethod
    def _with_neighbours(x: Tensor, backward: Tensor, forward: Tensor) -> Tensor:
        """(B, D, C, H, W) -> (B, D, 9 * C, H, W): the frame, the next one warped onto it, the previous one likewise."""
        b, d, c, h, w = x.shape
        neighbour = torch.cat((x[:, 1:], x[:, :-1]), dim=1).flatten(0, 1).float()
        flow = torch.cat((backward, forward), dim=1).flatten(0, 1)
        warped = nearest4_warp(neighbour, flow).to(x.dtype).view(b, 2 * (d - 1), 4 * c, h, w)
        nothing = x.new_zeros(b, 1, 4 * c, h, w)
        following = torch.cat((warped[:, : d - 1], nothing), dim=1)
        previous = torch.cat((nothing, warped[:, d - 1 :]), dim=1)
        return torch.cat((x, following, previous), dim=2)


def _split(values: list[float], lengths: Sequence[int]) -> list[list[float]]:
    """Cut a list into pieces of the given lengths."""
    pieces, start = [], 0
    for length in lengths:
        pieces.append(values[start : start + length])
        start += length
    return pieces


def _check(**pairs: tuple[object, object]) -> None:
    for name, (value, supported) in pairs.items():
        if value != supported:
            raise UserError(f"netG.{name} is {value}; this network supports {supported} only")
