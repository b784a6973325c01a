"""The guide: sharp frames from blurred ones and the spikes around their moment, frame by frame, at the sensor's grid.

It is a fusion operator of VRT and a network of its own. What it sees and why: docs/guide.md.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.fusion.concat import Concat
from options.schema_data import EXPOSURE_PLANES
from utils.utils_checkpoint import load_weights
from utils.utils_colour import BT601
from utils.utils_error import UserError

WINDOWS = (1, 5, 11, 21, 41)  # lengths in planes of the mean rates; those above K are left out
RATE_WINDOW = 11  # planes whose mean VRT sees beside the estimate
RGB = 3
SCALE = 0.3  # of a block's residual at the start: blocks begin close to the identity
PIXELS_AT_ONCE = 2**19  # features' pixels per call in testing, to bound memory


class Guide(nn.Module):
    """A U of gated blocks without pooling over the frame: a tile's inside equals the whole frame's.

    Args:
        planes: K, mean rates of a few steps each around the target step, odd; 0: RGB only.
        width: channels at the finest level; they double from level to level.
        blocks: gated blocks per level, finest first; all but the coarsest are passed on the way down and up.
        ratio: RGB pixels per pixel of the grid that the spikes are brought to.
        stride: pixels of that grid per pixel of the finest level.
    """

    def __init__(
        self, planes: int = 41, width: int = 32, blocks: Sequence[int] = (1, 2, 4), ratio: int = 2, stride: int = 1
    ) -> None:
        super().__init__()
        self.planes, self.blocks, self.ratio, self.stride = planes, tuple(blocks), ratio, stride
        self.windows = [length for length in WINDOWS if length <= planes]
        seen = RGB * ratio**2 + (planes + 2 * len(self.windows) + 1 if planes else 0)
        widths = [width * 2**level for level in range(len(blocks))]
        self.register_buffer("gray", torch.tensor(BT601).view(RGB, 1, 1), persistent=False)
        self.conv_first = nn.Conv2d(seen * stride**2, width, 3, padding=1)
        self.encoders = nn.ModuleList(_blocks(*level) for level in zip(widths, blocks, strict=True))
        self.downs = nn.ModuleList(nn.Conv2d(c, 2 * c, 2, stride=2) for c in widths[:-1])
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * c, 4 * c, 1, bias=False), nn.PixelShuffle(2)) for c in widths[:-1]
        )
        self.decoders = nn.ModuleList(_blocks(*level) for level in zip(widths[:-1], blocks[:-1], strict=True))
        self.conv_last = nn.Conv2d(width, RGB * (ratio * stride) ** 2, 3, padding=1)
        nn.init.zeros_(self.conv_last.weight)  # training starts from the blurred frame
        nn.init.zeros_(self.conv_last.bias)  # type: ignore[arg-type]
        # Channels last in memory: the norms and pointwise convolutions then read pixels one after the other.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    gray: Tensor

    @property
    def grid(self) -> int:
        """RGB pixels per pixel of the coarsest level: a tile that begins at a multiple of it equals the frame."""
        return self.ratio * self.stride * 2 ** (len(self.blocks) - 1)

    @property
    def reach(self) -> int:
        """RGB pixels to each side that an output pixel may depend on."""
        cells = 2  # first and last convolution
        for level, count in enumerate(self.blocks):
            is_last = level == len(self.blocks) - 1
            cells += 2**level * (count if is_last else 2 * count + 2)  # going down and up reaches one cell each
        return self.ratio * self.stride * (cells + 1)

    def forward(self, rgb: Tensor, spike: Tensor | None = None) -> Tensor:
        """Estimate sharp frames.

        Args:
            rgb: (B, D, 3, H, W) in [0, 1], any H, W.
            spike: (B, D, K + 2, h, w) in units of intensity, H = r h and W = r w with any integer r: K mean rates
                around the target step, then two planes that add up to the mean rate of the exposure.

        Returns:
            (B, D, 3, H, W), not clamped.

        Raises:
            UserError: the number of planes is not K + 2, or the sizes give no whole ratio.
        """
        frames, planes = rgb.flatten(0, 1), None if spike is None else spike.flatten(0, 1)
        _check(frames, planes, self.planes)
        height, width = frames.shape[2:]
        ratio = 1 if planes is None else height // planes.shape[2]
        frames = _padded(frames, math.lcm(self.grid, ratio))
        if planes is not None:
            planes = _padded(planes, math.lcm(self.grid, ratio) // ratio)
            planes = _resampled(planes, frames.shape[2] // self.ratio, frames.shape[3] // self.ratio)
        cells = frames.shape[2] * frames.shape[3] // (self.ratio * self.stride) ** 2
        share = len(frames) if torch.is_grad_enabled() else max(PIXELS_AT_ONCE // cells, 1)
        parts = [
            self.on_grid(frames[at : at + share], None if planes is None else planes[at : at + share])
            for at in range(0, len(frames), share)
        ]
        out = parts[0] if len(parts) == 1 else torch.cat(parts)
        return out[:, :, :height, :width].unflatten(0, rgb.shape[:2])

    def on_grid(self, frames: Tensor, planes: Tensor | None) -> Tensor:
        """Estimate frames, (N, 3, H, W), whose sides are multiples of `grid`; the result is not clamped.

        `planes` are (N, K + 2, H / ratio, W / ratio) in units of intensity; None with K = 0.
        """
        seen = F.pixel_unshuffle(frames, self.ratio)
        if planes is not None:
            gray = F.avg_pool2d((frames * self.gray).sum(1, keepdim=True), self.ratio)
            seen = torch.cat((seen, *self._rates(planes, gray)), dim=1)
        x = self.conv_first(F.pixel_unshuffle(seen, self.stride))
        kept = []
        for encode, down in zip(self.encoders, self.downs, strict=False):
            x = encode(x)
            kept.append(x)
            x = down(x)
        x = self.encoders[-1](x)
        for up, decode, skip in zip(reversed(self.ups), reversed(self.decoders), reversed(kept), strict=True):
            x = decode(up(x) + skip)
        return frames + F.pixel_shuffle(self.conv_last(x), self.ratio * self.stride)

    def _rates(self, planes: Tensor, gray: Tensor) -> list[Tensor]:
        """The planes, mean rates in windows and over the exposure, each compared with gray; all (N, .., h, w)."""
        around, exposure = planes[:, : self.planes], planes[:, self.planes :].sum(1, keepdim=True)
        means = torch.cat([middle_mean(around, length) for length in self.windows], dim=1)
        return [around - gray, means - gray, means - exposure, exposure - gray]


class GuideFusion(Concat):
    """VRT behind a guide: flow, alignment and body see the guide's estimate and one plane of mean rate, or none.

    `weights` is the file of a trained guide; without one, VRT starts from the blurred frames.
    """

    own_grid = True

    def __init__(self, spike_channels: int, weights: str | None = None, **guide: int | Sequence[int]) -> None:
        super().__init__(spike_channels)
        self.guide = Guide(**guide)  # type: ignore[arg-type]
        if weights is not None:
            load_weights(self.guide, weights)

    def estimate(self, rgb: Tensor, spike: Tensor | None) -> Tensor:
        return self.guide(rgb, spike)

    def select(self, spike: Tensor) -> Tensor:
        """Mean rate of the planes around the target step, (B, D, 1, h, w)."""
        around = spike[:, :, : self.guide.planes]
        return middle_mean(around.flatten(0, 1), min(RATE_WINDOW, self.guide.planes)).unflatten(0, spike.shape[:2])


def guide_of(net: nn.Module) -> Guide | None:
    """The guide that a network is or has."""
    fusion = getattr(net, "fusion", None)
    return net if isinstance(net, Guide) else fusion.guide if isinstance(fusion, GuideFusion) else None


class GatedBlock(nn.Module):
    """Two residual halves: a depthwise 3x3 convolution between pointwise ones, then pointwise ones alone.

    One half of the channels multiplies the other: the only nonlinearity. A pixel depends on its 3x3 neighbours.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(width), ChannelNorm(width)
        self.spread = nn.Conv2d(width, 2 * width, 1)
        self.depthwise = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
        self.join = nn.Conv2d(width, width, 1)
        self.expand = nn.Conv2d(width, 2 * width, 1)
        self.reduce = nn.Conv2d(width, width, 1)
        self.scale1 = nn.Parameter(torch.full((width, 1, 1), SCALE))
        self.scale2 = nn.Parameter(torch.full((width, 1, 1), SCALE))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.scale1 * self.join(_gate(self.depthwise(self.spread(self.norm1(x)))))
        return x + self.scale2 * self.reduce(_gate(self.expand(self.norm2(x))))


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def middle_mean(planes: Tensor, length: int) -> Tensor:
    """Mean of the middle `length` of K planes, both odd: (N, K, h, w) -> (N, 1, h, w)."""
    first = (planes.shape[1] - length) // 2
    return planes[:, first : first + length].mean(1, keepdim=True)


def _blocks(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(GatedBlock(width) for _ in range(count)))


def _gate(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=1)
    return first * second


def _check(frames: Tensor, spikes: Tensor | None, planes: int) -> None:
    if (spikes is None) != (planes == 0):
        found, wanted = "no spikes" if spikes is None else "spikes", f"planes for {planes} around each moment"
        raise UserError(f"the guide got {found}, expected {wanted if planes else 'RGB only (guide.planes is 0)'}")
    if spikes is None:
        return
    if spikes.shape[1] != planes + EXPOSURE_PLANES:
        raise UserError(
            f"the guide got {spikes.shape[1]} spike planes, expected {planes} of the moment and {EXPOSURE_PLANES} of "
            'the exposure; use spike.representation "moment" with spike.planes as in netG.guide.planes'
        )
    (height, width), (rows, columns) = frames.shape[2:], spikes.shape[2:]
    ratio = height // rows
    if not ratio or (rows * ratio, columns * ratio) != (height, width):
        raise UserError(
            f"the guide got frames of {height}x{width} and spikes of {rows}x{columns}, expected one whole ratio"
        )


def _padded(x: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column of (N, C, H, W) until both are multiples."""
    height, width = x.shape[2:]
    return F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate") if x.numel() else x


def _resampled(planes: Tensor, height: int, width: int) -> Tensor:
    """Bring planes (N, C, h, w) to (height, width): averaged down, or enlarged bilinearly."""
    if planes.shape[2:] == (height, width):
        return planes
    mode = "area" if height < planes.shape[2] else "bilinear"
    return F.interpolate(planes, size=(height, width), mode=mode)
