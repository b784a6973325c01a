"""VRT for deblurring, written down as plainly as the paper and the published weights allow: slow, large, obvious.

Attention holds its logits, shifted windows have dense float masks, every pair of frames is aligned by itself with
torchvision's operator. Tests compare `models.network_vrt.VRT` with it, benchmarks measure what the project gains.
"""

import math

import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.utils.checkpoint import checkpoint

LEVELS = (0, 1, 2, 3, 2, 1, 0)


def channel_last(layer, x):
    """Apply a layer that works on the last axis to the channels of (B, C, D, H, W)."""
    return layer(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)


def sample(x, px, py, mode="bilinear", padding="zeros"):
    """Sample (N, C, H, W) at pixel positions (N, H, W)."""
    h, w = x.shape[-2:]
    grid = torch.stack((2 * px / max(w - 1, 1) - 1, 2 * py / max(h - 1, 1) - 1), dim=-1)
    return F.grid_sample(x, grid, mode=mode, padding_mode=padding, align_corners=True)


def points(flow):
    """Where the flow (N, 2, H, W) points."""
    h, w = flow.shape[-2:]
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    return flow[:, 0] + x.to(flow), flow[:, 1] + y.to(flow)


def nearest4(x, flow):
    px, py = points(flow)
    corners = [(px.floor(), py.floor()), (px.floor(), py.ceil()), (px.ceil(), py.floor()), (px.ceil(), py.ceil())]
    return torch.cat([sample(x, a, b, mode="nearest") for a, b in corners], dim=1)


class SpyLevel(nn.Module):
    def __init__(self):
        super().__init__()
        layers = []
        for c_in, c_out in ((8, 32), (32, 64), (64, 32), (32, 16), (16, 2)):
            layers += [nn.Conv2d(c_in, c_out, 7, padding=3), nn.ReLU()]
        self.basic_module = nn.Sequential(*layers[:-1])


class SpyNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.basic_module = nn.ModuleList([SpyLevel() for _ in range(6)])

    def forward(self, ref, supp):
        """Flows from `ref` to `supp` at 1/1, 1/2, 1/4 and 1/8 of the size."""
        h, w = ref.shape[-2:]
        big_h, big_w = math.ceil(h / 32) * 32, math.ceil(w / 32) * 32
        mean, std = (torch.tensor(v).view(1, 3, 1, 1).to(ref) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        pyramid = [
            tuple(F.interpolate((x - mean) / std, (big_h, big_w), mode="bilinear", align_corners=False) for x in pair)
            for pair in [(ref, supp)]
        ]
        for _ in range(5):
            pyramid.insert(0, tuple(F.avg_pool2d(x, 2, 2, count_include_pad=False) for x in pyramid[0]))
        coarse = pyramid[0][0]
        flow = coarse.new_zeros(coarse.shape[0], 2, coarse.shape[2] // 2, coarse.shape[3] // 2)
        levels = []
        for (one, two), net in zip(pyramid, self.basic_module, strict=True):
            up = 2 * F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True)
            up = F.pad(up, (0, one.shape[3] - up.shape[3], 0, one.shape[2] - up.shape[2]), mode="replicate")
            warped = sample(two, *points(up), padding="border")
            flow = net.basic_module(torch.cat((one, warped, up), dim=1)) + up
            levels.insert(0, flow)
        out = []
        for flow, s in zip(levels[:4], (1, 2, 4, 8), strict=True):
            resized = F.interpolate(flow, (h // s, w // s), mode="bilinear", align_corners=False)
            scale = torch.tensor([(w // s) / (big_w // s), (h // s) / (big_h // s)]).to(flow)
            out.append(resized * scale.view(1, 2, 1, 1))
        return out


class GEGLU(nn.Module):
    def __init__(self, c_in, hidden, c_out):
        super().__init__()
        self.fc11, self.fc12 = nn.Linear(c_in, hidden), nn.Linear(c_in, hidden)
        self.fc2 = nn.Linear(hidden, c_out)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc11(x)) * self.fc12(x))


def fit(size, window, shift):
    """An axis that is not longer than its window is one window without shift."""
    pairs = [(n, 0) if n <= k else (k, s) for n, k, s in zip(size, window, shift, strict=True)]
    return tuple(k for k, _ in pairs), tuple(s for _, s in pairs)


def cut(x, window):
    """(B, D, H, W, C) -> (windows, tokens, C)."""
    b, d, h, w, c = x.shape
    kd, kh, kw = window
    x = x.view(b, d // kd, kd, h // kh, kh, w // kw, kw, c)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, kd * kh * kw, c)


def glue(x, window, shape):
    b, d, h, w, c = shape
    kd, kh, kw = window
    x = x.view(b, d // kd, h // kh, w // kw, kd, kh, kw, c)
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(shape)


def dense_mask(size, window, shift):
    """(windows, tokens, tokens) float: 0 between tokens of one region, -100 between others."""
    label = torch.zeros(1, *size, 1)
    count = 0
    regions = [(slice(0, -k), slice(-k, -s), slice(-s, None)) for k, s in zip(window, shift, strict=True)]
    for d in regions[0]:
        for h in regions[1]:
            for w in regions[2]:
                label[:, d, h, w] = count
                count += 1
    label = cut(label, window).squeeze(2)
    return torch.where(label[:, :, None] == label[:, None, :], 0.0, -100.0)


class Attention(nn.Module):
    def __init__(self, dim, window, heads, mutual):
        super().__init__()
        self.dim, self.window, self.heads, self.mutual = dim, window, heads, mutual
        rows = math.prod(2 * k - 1 for k in window)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(rows, heads))
        self.qkv_self = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(2 * dim if mutual else dim, dim)
        if mutual:
            self.qkv_mut = nn.Linear(dim, 3 * dim)

    def bias(self, tokens):
        d, h, w = (a.flatten() for a in torch.meshgrid(*(torch.arange(k) for k in self.window), indexing="ij"))
        kd, kh, kw = self.window
        index = (d[:, None] - d + kd - 1) * (2 * kh - 1) * (2 * kw - 1)
        index = index + (h[:, None] - h + kh - 1) * (2 * kw - 1) + (w[:, None] - w + kw - 1)
        return self.relative_position_bias_table[index[:tokens, :tokens]].permute(2, 0, 1)

    def sine_code(self):
        _, h, w = self.window
        half = self.dim // 2
        i = torch.arange(half)
        period = 10000 ** (2 * (i // 2) / half)
        y = torch.arange(1, h + 1) / (h + 1e-6) * 2 * math.pi
        x = torch.arange(1, w + 1) / (w + 1e-6) * 2 * math.pi
        y, x = y[:, None] / period, x[:, None] / period
        y, x = (torch.where(i % 2 == 0, p.sin(), p.cos()) for p in (y, x))
        return torch.cat((y[:, None].expand(h, w, half), x[None].expand(h, w, half)), dim=2).reshape(1, h * w, -1)

    def split(self, qkv):
        n, tokens, _ = qkv.shape
        return qkv.view(n, tokens, 3, self.heads, self.dim // self.heads).permute(2, 0, 3, 1, 4)

    def attend(self, q, k, v, bias, mask):
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)
        if bias is not None:
            logits = logits + bias
        if mask is not None:
            n = mask.shape[0]
            logits = (logits.view(-1, n, *logits.shape[1:]) + mask[None, :, None]).view(logits.shape)
        return (logits.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)

    def forward(self, x, mask):
        out = self.attend(*self.split(self.qkv_self(x)), self.bias(x.shape[1]), mask)
        if self.mutual:
            half = x.shape[1] // 2
            q, k, v = self.split(self.qkv_mut(x + self.sine_code().repeat(1, 2, 1).to(x)))
            (q1, q2), (k1, k2), (v1, v2) = (t.split(half, dim=2) for t in (q, k, v))
            corner = None if mask is None else mask[:, :half, :half]
            frames = (self.attend(q2, k1, v1, None, corner), self.attend(q1, k2, v2, None, corner))
            out = torch.cat((torch.cat(frames, dim=1), out), dim=2)
        return self.proj(out)


class Block(nn.Module):
    def __init__(self, dim, window, shift, heads, mutual):
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = Attention(dim, window, heads, mutual)
        self.mlp = GEGLU(dim, 2 * dim, dim)

    def attention(self, x, mask):
        _, d, h, w, _ = x.shape
        window, shift = fit((d, h, w), self.window, self.shift)
        x = self.norm1(x)
        pad = [(-n) % k for n, k in zip((d, h, w), window, strict=True)]
        x = F.pad(x, (0, 0, 0, pad[2], 0, pad[1], 0, pad[0]))
        shape = x.shape
        x = torch.roll(x, [-s for s in shift], (1, 2, 3))
        x = glue(self.attn(cut(x, window), mask if any(shift) else None), window, shape)
        x = torch.roll(x, shift, (1, 2, 3))
        return x[:, :d, :h, :w]

    def ffn(self, x):
        return self.mlp(self.norm2(x))

    def forward(self, x, mask, saving):
        if saving and self.training:
            x = x + checkpoint(self.attention, x, mask, use_reentrant=False)
            return x + checkpoint(self.ffn, x, use_reentrant=False)
        x = x + self.attention(x, mask)
        return x + self.ffn(x)


class Group(nn.Module):
    def __init__(self, dim, window, heads, mutual, depth):
        super().__init__()
        self.window, self.half = window, tuple(k // 2 for k in window)
        self.saving = False
        shifts = [self.half if i % 2 else (0, 0, 0) for i in range(depth)]
        self.blocks = nn.ModuleList([Block(dim, window, shift, heads, mutual) for shift in shifts])

    def forward(self, x):
        """(B, C, D, H, W) -> the same shape."""
        x = x.permute(0, 2, 3, 4, 1)
        window, shift = fit(x.shape[1:4], self.window, self.half)
        size = [math.ceil(n / k) * k for n, k in zip(x.shape[1:4], window, strict=True)]
        mask = dense_mask(size, window, shift).to(x)
        for block in self.blocks:
            x = block(x, mask, self.saving)
        return x.permute(0, 4, 1, 2, 3)


class Alignment(nn.Module):
    def __init__(self, dim, groups, reach):
        super().__init__()
        self.reach = reach
        self.weight = nn.Parameter(torch.zeros(dim, dim, 3, 3))
        self.bias = nn.Parameter(torch.zeros(dim))
        layers = []
        for c_in in (2 * dim + 2, dim, dim):
            layers += [nn.Conv2d(c_in, dim, 3, padding=1), nn.LeakyReLU(0.1)]
        self.conv_offset = nn.Sequential(*layers, nn.Conv2d(dim, 27 * groups, 3, padding=1))

    def forward(self, neighbour, current, flow):
        warped = sample(neighbour, *points(flow))
        o1, o2, mask = self.conv_offset(torch.cat((warped, current, flow), dim=1)).chunk(3, dim=1)
        offset = self.reach * torch.tanh(torch.cat((o1, o2), dim=1))
        offset = offset + flow.flip(1).repeat(1, offset.shape[1] // 2, 1, 1)
        return torchvision.ops.deform_conv2d(
            neighbour, offset, self.weight, self.bias, padding=1, mask=torch.sigmoid(mask)
        )


class Fold(nn.Module):
    def forward(self, x):
        """(B, D, H, W, C) -> (B, D, H/2, W/2, 4C); channels run (w, h, c)."""
        b, d, h, w, c = x.shape
        x = x.view(b, d, h // 2, 2, w // 2, 2, c)
        return x.permute(0, 1, 2, 4, 5, 3, 6).reshape(b, d, h // 2, w // 2, 4 * c)


class Unfold(nn.Module):
    def forward(self, x):
        """The inverse of `Fold`."""
        b, d, h, w, c = x.shape
        x = x.view(b, d, h, w, 2, 2, c // 4)
        return x.permute(0, 1, 2, 5, 3, 4, 6).reshape(b, d, 2 * h, 2 * w, c // 4)


class Stage(nn.Module):
    def __init__(self, kind, dim, heads, window, depths, groups, reach):
        super().__init__()
        entrances = {
            "none": [nn.Identity(), nn.LayerNorm(dim)],
            "down": [Fold(), nn.LayerNorm(4 * dim), nn.Linear(4 * dim, dim)],
            "up": [Unfold(), nn.LayerNorm(dim // 4), nn.Linear(dim // 4, dim)],
        }
        self.reshape = nn.Sequential(*entrances[kind])
        self.residual_group1 = Group(dim, (2, *window[1:]), heads, True, depths[0])
        self.linear1 = nn.Linear(dim, dim)
        self.residual_group2 = Group(dim, tuple(window), heads, False, depths[1])
        self.linear2 = nn.Linear(dim, dim)
        self.pa_deform = Alignment(dim, groups, reach)
        self.pa_fuse = GEGLU(3 * dim, 3 * dim, dim)

    def forward(self, x, backward, forward):
        x = channel_last(self.reshape, x)
        x = channel_last(self.linear1, self.residual_group1(x)) + x
        x = channel_last(self.linear2, self.residual_group2(x)) + x
        frames = x.unbind(2)
        nothing = torch.zeros_like(frames[0])
        later = range(len(frames) - 1)
        following = [self.pa_deform(frames[t + 1], frames[t], backward[:, t]) for t in later] + [nothing]
        previous = [nothing] + [self.pa_deform(frames[t], frames[t + 1], forward[:, t]) for t in later]
        x = torch.cat((x, torch.stack(following, dim=2), torch.stack(previous, dim=2)), dim=1)
        return channel_last(self.pa_fuse, x)


class Reconstruction(nn.Module):
    def __init__(self, dim, window, heads, depth):
        super().__init__()
        self.residual_group = Group(dim, tuple(window), heads, False, depth)
        self.linear = nn.Linear(dim, dim)

    def forward(self, x):
        return x + channel_last(self.linear, self.residual_group(x))


class PlainVRT(nn.Module):
    """The deblurring network; arguments as `models.network_vrt.VRT`'s, `saving` recomputes blocks in the backward."""

    def __init__(
        self, window_size, depths, indep_reconsts, embed_dims, num_heads, deformable_groups, in_chans=3, saving=False
    ):
        super().__init__()
        dim, last = embed_dims[0], embed_dims[-1]
        self.spynet = SpyNet()
        self.conv_first = nn.Conv3d(9 * in_chans, dim, (1, 3, 3), padding=(0, 1, 1))
        kinds = ("none", "down", "down", "down", "up", "up", "up")
        for i, (kind, level) in enumerate(zip(kinds, LEVELS, strict=True)):
            mutual = int(depths[i] * 0.75)
            pair = (mutual, depths[i] - mutual)
            stage = Stage(kind, dim, num_heads[i], window_size, pair, deformable_groups, 10 / 2**level)
            setattr(self, f"stage{i + 1}", stage)
        self.stage8 = nn.ModuleList([nn.Sequential(nn.Identity(), nn.LayerNorm(dim), nn.Linear(dim, last))])
        for i in range(7, len(depths)):
            window = (1, *window_size[1:]) if i in indep_reconsts else window_size
            self.stage8.append(Reconstruction(last, window, num_heads[i], depths[i]))
        self.norm = nn.LayerNorm(last)
        self.conv_after_body = nn.Linear(last, dim)
        self.conv_last = nn.Conv3d(dim, 3, (1, 3, 3), padding=(0, 1, 1))
        for module in self.modules():
            if isinstance(module, Group):
                module.saving = saving

    def flows(self, x):
        b, d, _, h, w = x.shape
        this, following = x[:, :-1].reshape(-1, 3, h, w), x[:, 1:].reshape(-1, 3, h, w)
        backward = [f.view(b, d - 1, *f.shape[1:]) for f in self.spynet(this, following)]
        forward = [f.view(b, d - 1, *f.shape[1:]) for f in self.spynet(following, this)]
        return backward, forward

    def features(self, x, backward, forward):
        def stage(number, x):
            level = LEVELS[number - 1]
            return getattr(self, f"stage{number}")(x, backward[level], forward[level])

        x1 = stage(1, x)
        x2 = stage(2, x1)
        x3 = stage(3, x2)
        x = stage(5, stage(4, x3))
        x = stage(6, x + x3)
        x = stage(7, x + x2) + x1
        x = channel_last(self.stage8[0], x)
        for layer in self.stage8[1:]:
            x = layer(x)
        return channel_last(self.norm, x)

    def forward(self, rgb):
        """(B, D, 3, H, W) -> the same shape; H and W multiples of 8, at least 8 windows' sides."""
        backward, forward = self.flows(rgb)
        frames = rgb.unbind(1)
        nothing = torch.zeros_like(torch.cat([frames[0]] * 4, dim=1))
        later = range(len(frames) - 1)
        following = [nearest4(frames[t + 1], backward[0][:, t]) for t in later] + [nothing]
        previous = [nothing] + [nearest4(frames[t], forward[0][:, t]) for t in later]
        x = torch.cat((rgb, torch.stack(following, dim=1), torch.stack(previous, dim=1)), dim=2).transpose(1, 2)
        f0 = self.conv_first(x)
        f = f0 + channel_last(self.conv_after_body, self.features(f0, backward, forward))
        return self.conv_last(f).transpose(1, 2) + rgb
