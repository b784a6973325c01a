"""VRT (Liang et al., "VRT: A Video Restoration Transformer", arXiv:2201.12288) with spike channels beside RGB."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from models.flow import FLOWS
from models.fusion import FUSIONS
from models.vrt.alignment import AlignArgs
from models.vrt.blocks import RTMSA, BlockArgs
from models.vrt.linear import Linear
from models.vrt.reconstruct import FUSED, FrameConv, Upsample, enlarge, fuse_frames
from models.vrt.stage import Flows, Stage
from models.vrt.warp import far_flows, with_neighbours
from options.schema_network import variant_problems
from utils.tiles.axes import mirror_index
from utils.utils_checkpoint import load_weights
from utils.utils_error import UserError

KINDS = ("none", "down", "down", "down", "up", "up", "up")
LEVELS = (0, 1, 2, 3, 2, 1, 0)  # scale of each stage: 1 / 2**level
RGB = 3


class VRT(nn.Module):
    """Restores D frames at once: flow, fusion, seven stages of attention and alignment, reconstruction, residual.

    With `pa_frames` 0 it interpolates instead: one frame from several, without flow and alignment.

    The arguments are the options `netG`, which docs/options.md describes; `optical_flow` and `fusion` are names in
    models/flow and models/fusion, and `guide` are the arguments of GuideFusion (None: its defaults). `img_size` matters
    only with `pa_frames` 0, where its first number is that of the frames that one is made from: any size is restored.

    Raises:
        UserError: an argument is not supported; names it and its value.
    """

    def __init__(  # noqa: PLR0913 - the published signature, used by option files
        self,
        upscale: int = 1,
        in_chans: int = 3,
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
        guide: Mapping[str, Any] | None = None,
        spike_enlarge: str = "bilinear",
    ) -> None:
        super().__init__()
        sizes = img_size[0], embed_dims[0], deformable_groups
        problems = variant_problems(upscale, pa_frames, nonblind_denoising, *sizes, spynet_path)
        if in_chans < RGB or out_chans != RGB:
            problems.append(f"in_chans is {in_chans} and out_chans {out_chans}, must be 3 (RGB) or more, and 3")
        if problems:
            raise UserError("; ".join(f"netG.{problem}" for problem in problems))
        self.upscale, self.in_chans, self.reach = upscale, in_chans, pa_frames // 2
        self.frames, self.noise_chans = img_size[0], int(nonblind_denoising)
        self.window = (window_size[0], window_size[1], window_size[2])
        dim, dim_last = embed_dims[0], embed_dims[-1]
        args = []
        for i, (width, heads) in enumerate(zip(embed_dims, num_heads, strict=True)):
            attn = use_checkpoint_attn and i not in no_checkpoint_attn_blocks
            ffn = use_checkpoint_ffn and i not in no_checkpoint_ffn_blocks
            args.append(BlockArgs(width, heads, mlp_ratio, qkv_bias, attn, ffn))
        rates = iter(torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist())
        drop_paths = [list(islice(rates, depth)) for depth in depths]

        if self.reach:
            self.spynet = FLOWS[optical_flow]()
        self.fusion = FUSIONS[fusion](in_chans - RGB, **(guide or {} if fusion == "guide" else {}))
        self.spike_enlarge = spike_enlarge
        # Per channel: its own plane and four nearest pixels from each of the two warped neighbours, 1 + 2 * 4 planes.
        planes = 9 * self.fusion.out_chans + self.noise_chans if self.reach else self.fusion.out_chans
        self.conv_first = FrameConv(planes, dim)
        for i, (kind, level) in enumerate(zip(KINDS, LEVELS, strict=True)):
            mutual = int(depths[i] * mul_attn_ratio)
            align = AlignArgs(deformable_groups, self.reach, 10 / 2**level) if self.reach else None
            stage = Stage(kind, dim, args[i], self.window, drop_paths[i], mutual, align)
            self.add_module(f"stage{i + 1}", stage)
        self.stage8 = nn.ModuleList([nn.Sequential(nn.Identity(), nn.LayerNorm(dim), Linear(dim, dim_last))])
        for i in range(len(KINDS), len(depths)):
            window = (1, *self.window[1:]) if i in indep_reconsts else self.window
            self.stage8.append(RTMSA(args[i], window, drop_paths[i]))
        self.norm = nn.LayerNorm(dim_last)
        self.conv_after_body = Linear(dim_last, dim)
        self._add_output(dim, out_chans)
        if spynet_path is not None:
            load_weights(self.spynet, spynet_path)

    def _add_output(self, dim: int, out_chans: int) -> None:
        """The layers after the body, for interpolation, super-resolution or restoration."""
        if not self.reach:
            self.linear_fuse = nn.Conv2d(dim * self.frames, FUSED, 1)
            self.conv_last: nn.Module = nn.Conv2d(FUSED, out_chans, 7)
            return
        if self.upscale > 1:
            self.conv_before_upsample = nn.Sequential(FrameConv(dim, FUSED), nn.LeakyReLU(0.01, inplace=True))
            self.upsample = Upsample(self.upscale, FUSED)
        last = FrameConv(FUSED if self.upscale > 1 else dim, out_chans)
        # Training starts from the identity; loaded weights override this.
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.conv_last = last

    def forward(self, x: Tensor, spike: Tensor | None = None) -> Tensor:
        """Restore frames, or interpolate between them.

        Args:
            x: (B, D, 3, H, W), any D, H, W >= 1: RGB in [0, 1]; with `nonblind_denoising` followed by the noise map.
                Without `spike`: (B, D, in_chans, H, W), RGB, then spike planes, then the noise map.
            spike: (B, D, S, h, w), spike planes in units of intensity, H = r h and W = r w with an integer r.

        Returns:
            (B, D, 3, H * upscale, W * upscale), not clamped. With `pa_frames` 0 and T = img_size[0]: the middle frame
            of every T consecutive ones, (B, max(D - T, 0) + 1, 3, H, W).

        Raises:
            UserError: x has the wrong number of channels.
        """
        x = self._joined(x, spike)
        _, frames, channels, height, width = x.shape
        if channels != self.in_chans + self.noise_chans:
            noise = " plus a noise map" * self.noise_chans
            raise UserError(f"the network's input has {channels} channels, but netG.in_chans is {self.in_chans}{noise}")
        x = self._extend(x)
        rgb, spike, noise_map = x.split((RGB, self.in_chans - RGB, self.noise_chans), dim=2)
        if not self.reach:
            out = self._between(rgb, self.fusion(rgb, spike))
        else:
            backward, forward = self.flows(rgb)
            seen = with_neighbours(self.fusion(rgb, spike), noise_map, backward[0], forward[0])
            f = self._body(seen, self._far(backward, forward))
            f = self.upsample(self.conv_before_upsample(f)) if self.upscale > 1 else f
            out = self.conv_last(f) + enlarge(rgb, self.upscale)
        return out[:, :frames, :, : height * self.upscale, : width * self.upscale]

    def _joined(self, x: Tensor, spike: Tensor | None) -> Tensor:
        """RGB or the fusion's estimate, spike planes enlarged to its size, noise map: (B, D, C, H, W)."""
        if spike is None and not self.fusion.own_grid:
            return x
        rgb, noise_map = x.split((RGB, x.shape[2] - RGB), dim=2)
        estimate = self.fusion.estimate(rgb, spike)
        if spike is None:
            return torch.cat((estimate, noise_map), dim=2)
        planes = enlarge(self.fusion.select(spike), rgb.shape[-1] // spike.shape[-1], self.spike_enlarge)
        if planes.shape[-2:] != rgb.shape[-2:]:
            text = "frames of {}x{} over spikes of {}x{}, expected the same whole ratio along both axes"
            raise UserError(text.format(*rgb.shape[-2:], *spike.shape[-2:]))
        return torch.cat((estimate, planes, noise_map), dim=2)

    def flows(self, rgb: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Flows between neighbouring frames at four scales; both directions run in one batch.

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

    def features(self, x: Tensor, flows: Sequence[Flows] | None) -> Tensor:
        """Seven stages in a U shape, then the reconstruction: (B, D, H, W, dim) -> (B, D, H, W, dim_last)."""

        def stage(number: int, x: Tensor) -> Tensor:
            return self.get_submodule(f"stage{number}")(x, None if flows is None else flows[LEVELS[number - 1]])

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

    def _body(self, x: Tensor, flows: Sequence[Flows] | None) -> Tensor:
        """First convolution and residual body: (B, D, planes, H, W) -> (B, D, dim, H, W)."""
        f0 = self.conv_first(x).permute(0, 1, 3, 4, 2)
        return (f0 + self.conv_after_body(self.features(f0, flows))).permute(0, 1, 4, 2, 3)

    def _far(self, backward: list[Tensor], forward: list[Tensor]) -> list[Flows]:
        """Per scale, the backward and forward flows to all aligned frames, see `far_flows`."""
        return [
            (far_flows(one, self.reach), far_flows(other.flip(1), self.reach).flip(1) if self.reach > 1 else other)
            for one, other in zip(backward, forward, strict=True)
        ]

    def _between(self, rgb: Tensor, fused: Tensor) -> Tensor:
        """The middle frame of each window of frames; one window at a time, to save memory."""
        out = []
        for start in range(rgb.shape[1] - self.frames + 1):
            frames, planes = rgb[:, start : start + self.frames], fused[:, start : start + self.frames]
            f = self._body(planes - planes.mean(dim=(1, 3, 4), keepdim=True), None)
            one = fuse_frames(f, self.linear_fuse, self.conv_last)
            out.append(one + frames.mean(dim=(1, 3, 4), keepdim=True))
        return torch.cat(out, dim=1)

    def _extend(self, x: Tensor) -> Tensor:
        """Mirror-pad (B, D, C, H, W) at its ends until H and W halve three times and still hold a window."""
        _, d, _, h, w = x.shape
        height, width = (max(-(-n // 8) * 8, 8 * k) for n, k in zip((h, w), self.window[1:], strict=True))
        least = 2 if self.reach else self.frames
        for axis, length, target in ((1, d, max(d, least)), (3, h, height), (4, w, width)):
            if length != target:
                x = x.index_select(axis, torch.tensor(mirror_index(0, target, length), device=x.device))
        return x
