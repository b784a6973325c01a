"""Names and shapes of all parameters of a VRT by the published patterns, from its options alone."""

import math

SPYNET = (8, 32, 64, 32, 16, 2)
FUSED = 64


def published_shapes(o):
    """Name -> shape for the `netG` options of a network without spikes."""
    dim, last = o.embed_dims[0], o.embed_dims[-1]
    shapes = layer("norm", last) | layer("conv_after_body", dim, last) | layer("stage8.0.1", dim)
    shapes |= layer("stage8.0.2", last, dim)
    for i in range(1, 8):
        shapes |= stage(f"stage{i}", i, o)
    for i in range(7, len(o.depths)):
        window = (1, *o.window_size[1:]) if i in o.indep_reconsts else o.window_size
        for j in range(o.depths[i]):
            shapes |= block(f"stage8.{i - 6}.residual_group.blocks.{j}", last, window, o)
        shapes |= layer(f"stage8.{i - 6}.linear", last, last)
    return shapes | (ends(o, dim) if o.pa_frames else ends_of_interpolation(o, dim))


def layer(name, *shape):
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def mlp(name, dim_in, hidden, dim_out):
    first = layer(f"{name}.fc11", hidden, dim_in) | layer(f"{name}.fc12", hidden, dim_in)
    return first | layer(f"{name}.fc2", dim_out, hidden)


def convs(name, channels, *kernel):
    """Convolutions with an activation after each, at every second place."""
    pairs = enumerate(zip(channels, channels[1:], strict=False))
    return {key: value for j, (a, b) in pairs for key, value in layer(f"{name}.{2 * j}", b, a, *kernel).items()}


def block(name, dim, window, o, mutual=False):
    shapes = {f"{name}.attn.relative_position_bias_table": (math.prod(2 * k - 1 for k in window), o.num_heads[0])}
    shapes |= layer(f"{name}.attn.qkv_self", 3 * dim, dim) | layer(f"{name}.attn.proj", dim, (1 + mutual) * dim)
    if mutual:
        shapes |= layer(f"{name}.attn.qkv_mut", 3 * dim, dim)
    shapes |= layer(f"{name}.norm1", dim) | layer(f"{name}.norm2", dim)
    return shapes | mlp(f"{name}.mlp", dim, int(dim * o.mlp_ratio), dim)


def stage(name, number, o):
    dim, half, depth = o.embed_dims[0], o.pa_frames // 2, o.depths[number - 1]
    folded = {1: dim, 2: 4 * dim, 3: 4 * dim, 4: 4 * dim}.get(number, dim // 4)
    shapes = layer(f"{name}.reshape.1", folded)
    if number > 1:
        shapes |= layer(f"{name}.reshape.2", dim, folded)
    mutual = int(depth * o.mul_attn_ratio)
    for j in range(mutual):
        shapes |= block(f"{name}.residual_group1.blocks.{j}", dim, (2, *o.window_size[1:]), o, mutual=True)
    for j in range(depth - mutual):
        shapes |= block(f"{name}.residual_group2.blocks.{j}", dim, o.window_size, o)
    shapes |= layer(f"{name}.linear1", dim, dim) | layer(f"{name}.linear2", dim, dim)
    if not half:
        return shapes
    channels = ((1 + half) * dim + o.pa_frames, dim, dim, dim, 27 * o.deformable_groups)
    shapes |= layer(f"{name}.pa_deform", dim, dim, 3, 3) | convs(f"{name}.pa_deform.conv_offset", channels, 3, 3)
    return shapes | mlp(f"{name}.pa_fuse", 3 * dim, 3 * dim, dim)


def ends(o, dim):
    """First and last layers, and the optical flow."""
    shapes = layer("conv_first", dim, 27 + o.nonblind_denoising, 1, 3, 3)
    for level in range(6):
        shapes |= convs(f"spynet.basic_module.{level}.basic_module", SPYNET, 7, 7)
    shapes |= layer("conv_last", 3, FUSED if o.upscale > 1 else dim, 1, 3, 3)
    if o.upscale == 1:
        return shapes
    steps = {2: [2], 3: [3], 4: [2, 2]}[o.upscale]
    for i, step in enumerate([*steps, 1]):
        shapes |= layer(f"upsample.{5 * i}", FUSED * step * step, FUSED, 1, 3, 3)
    return shapes | layer("conv_before_upsample.0", FUSED, dim, 1, 3, 3)


def ends_of_interpolation(o, dim):
    """First and last layers where frames are made of several."""
    first = layer("conv_first", dim, 3, 1, 3, 3) | layer("linear_fuse", FUSED, dim * o.img_size[0], 1, 1)
    return first | layer("conv_last", 3, FUSED, 7, 7)
