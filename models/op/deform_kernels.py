"""The Triton kernels of the deformable convolution; models.op.deform_triton describes and launches them.

Shapes: image (N, H, W, G, C), offset (N, G, taps, 2, H, W), mask (N, G, taps, H, W), weight (conv groups, taps,
groups, C, OP), output (N, conv groups * OUT, H, W). Constants: G offset groups in total, OWN per convolution group, GB
of them at once; C padded channels per offset group; OUT outputs per convolution group, OP padded; P pixels at once.
"""

# Triton interprets annotations of kernel arguments as its own types, so ordinary arguments have none.
# mypy: allow-untyped-defs

import triton
import triton.language as tl

ALL = tl.constexpr(tl.PropagateNan.ALL)


@triton.jit
def place(offset_ptr, mask_ptr, n, pixel, g, here, tap, H, W, G: tl.constexpr, KERNEL: tl.constexpr):  # noqa: PLR0913
    """Rows and columns (P, GB) that one tap samples, and the mask there."""
    plane = g * KERNEL * KERNEL + tap
    first = n.to(tl.int64) * (G * KERNEL * KERNEL) * H * W
    at = plane[None, :] * (H * W) + pixel[:, None]
    modulation = tl.load(mask_ptr + first + at, here, other=0.0).to(tl.float32)
    at = plane[None, :] * (2 * H * W) + pixel[:, None]
    y = tl.load(offset_ptr + 2 * first + at, here, other=0.0).to(tl.float32)
    x = tl.load(offset_ptr + 2 * first + at + H * W, here, other=0.0).to(tl.float32)
    y += (pixel // W + tap // KERNEL - KERNEL // 2).to(tl.float32)[:, None]
    x += (pixel % W + tap % KERNEL - KERNEL // 2).to(tl.float32)[:, None]
    # Everything further out is zero as well, and huge numbers would overflow an integer. NaN stays.
    y = tl.maximum(tl.minimum(y, H + 1.0, propagate_nan=ALL), -2.0, propagate_nan=ALL)
    x = tl.maximum(tl.minimum(x, W + 1.0, propagate_nan=ALL), -2.0, propagate_nan=ALL)
    return y, x, modulation


@triton.jit
def corner(y, x, here, g, H, W, G: tl.constexpr, C: tl.constexpr):
    """Indices (P, GB, C) of whole pixels in an image, and whether they are inside."""
    inside = (y >= 0) & (y < H) & (x >= 0) & (x < W) & here
    at = ((y * W + x) * G + g[None, :]) * C
    return at[:, :, None] + tl.arange(0, C)[None, None, :], inside[:, :, None]


@triton.jit
def bilinear(image_ptr, y, x, here, g, H, W, G: tl.constexpr, C: tl.constexpr):  # noqa: PLR0913
    """The image, interpolated bilinearly: (P, GB, C)."""
    top, left = tl.floor(y), tl.floor(x)
    below, right = y - top, x - left
    top, left = top.to(tl.int32), left.to(tl.int32)
    at, inside = corner(top, left, here, g, H, W, G, C)
    sample = tl.load(image_ptr + at, inside, other=0.0).to(tl.float32) * ((1 - below) * (1 - right))[:, :, None]
    at, inside = corner(top, left + 1, here, g, H, W, G, C)
    sample += tl.load(image_ptr + at, inside, other=0.0).to(tl.float32) * ((1 - below) * right)[:, :, None]
    at, inside = corner(top + 1, left, here, g, H, W, G, C)
    sample += tl.load(image_ptr + at, inside, other=0.0).to(tl.float32) * (below * (1 - right))[:, :, None]
    at, inside = corner(top + 1, left + 1, here, g, H, W, G, C)
    sample += tl.load(image_ptr + at, inside, other=0.0).to(tl.float32) * (below * right)[:, :, None]
    return sample


@triton.jit
def exchange(image_ptr, grad_image_ptr, pulled, pushed, part, y, x, here, g, H, W, G: tl.constexpr):  # noqa: PLR0913
    """Add a corner's part (P, GB) of the sample's gradient (P, GB, C) to the image; returns sum(pulled * pixel)."""
    at, inside = corner(y, x, here, g, H, W, G, pulled.shape[2])
    tl.atomic_add(grad_image_ptr + at, pushed * part[:, :, None], inside, sem="relaxed")
    return tl.sum(pulled * tl.load(image_ptr + at, inside, other=0.0).to(tl.float32), 2)


@triton.jit
def forward_kernel(  # noqa: PLR0913
    image_ptr, offset_ptr, mask_ptr, weight_ptr, bias_ptr, out_ptr, TILES, H, W,
    KERNEL: tl.constexpr, G: tl.constexpr, OWN: tl.constexpr,
    C: tl.constexpr, OUT: tl.constexpr, OP: tl.constexpr, GB: tl.constexpr, P: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Program (pixel tile, convolution group): computes its outputs."""
    TAPS: tl.constexpr = KERNEL * KERNEL
    BLOCKS: tl.constexpr = (OWN + GB - 1) // GB
    n, conv_group = tl.program_id(0) // TILES, tl.program_id(1)
    pixel = tl.program_id(0) % TILES * P + tl.arange(0, P)
    output, row = tl.arange(0, OP), tl.arange(0, GB * C)
    image_ptr += n.to(tl.int64) * H * W * G * C
    acc = tl.zeros((P, OP), tl.float32)
    for step in range(TAPS * BLOCKS):
        tap, own = step // BLOCKS, step % BLOCKS * GB + tl.arange(0, GB)
        g = conv_group * OWN + own
        here = (pixel < H * W)[:, None] & (own < OWN)[None, :]
        y, x, modulation = place(offset_ptr, mask_ptr, n, pixel, g, here, tap, H, W, G, KERNEL)
        samples = bilinear(image_ptr, y, x, here, g, H, W, G, C) * modulation[:, :, None]
        first_row = (conv_group * TAPS * BLOCKS + step) * (GB * C)
        weight = tl.load(weight_ptr + (first_row + row)[:, None] * OP + output[None, :])
        acc = tl.dot(tl.reshape(samples, (P, GB * C)).to(weight.dtype), weight, acc, input_precision=PRECISION)
    output_here = output < OUT
    output += conv_group * OUT
    acc += tl.load(bias_ptr + output, output_here, other=0.0).to(tl.float32)[None, :]
    out_ptr += n.to(tl.int64) * tl.num_programs(1) * OUT * H * W
    at = output[None, :] * (H * W) + pixel[:, None]
    tl.store(out_ptr + at, acc, (pixel < H * W)[:, None] & output_here[None, :])


@triton.jit
def input_kernel(  # noqa: PLR0913
    image_ptr, offset_ptr, mask_ptr, weight_ptr, grad_ptr, grad_image_ptr, grad_offset_ptr, grad_mask_ptr,
    TILES, H, W, KERNEL: tl.constexpr, G: tl.constexpr, OWN: tl.constexpr,
    C: tl.constexpr, OUT: tl.constexpr, OP: tl.constexpr, GB: tl.constexpr, P: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Program (pixel tile, convolution group): gradients of its offsets and masks, and its share of the image's."""
    TAPS: tl.constexpr = KERNEL * KERNEL
    BLOCKS: tl.constexpr = (OWN + GB - 1) // GB
    n, conv_group = tl.program_id(0) // TILES, tl.program_id(1)
    pixel = tl.program_id(0) % TILES * P + tl.arange(0, P)
    output, row = tl.arange(0, OP), tl.arange(0, GB * C)
    image_ptr += n.to(tl.int64) * H * W * G * C
    grad_image_ptr += n.to(tl.int64) * H * W * G * C
    grad_ptr += (n.to(tl.int64) * tl.num_programs(1) + conv_group) * OUT * H * W
    at = output[None, :] * (H * W) + pixel[:, None]
    grad = tl.load(grad_ptr + at, (pixel < H * W)[:, None] & (output < OUT)[None, :], other=0.0)
    grad = grad.to(weight_ptr.dtype.element_ty)
    for step in range(TAPS * BLOCKS):
        tap, own = step // BLOCKS, step % BLOCKS * GB + tl.arange(0, GB)
        g = conv_group * OWN + own
        here = (pixel < H * W)[:, None] & (own < OWN)[None, :]
        first_row = (conv_group * TAPS * BLOCKS + step) * (GB * C)
        weight = tl.load(weight_ptr + (first_row + row)[:, None] * OP + output[None, :])
        pulled = tl.reshape(tl.dot(grad, tl.trans(weight), input_precision=PRECISION), (P, GB, C))
        y, x, modulation = place(offset_ptr, mask_ptr, n, pixel, g, here, tap, H, W, G, KERNEL)
        pushed = pulled * modulation[:, :, None]

        top, left = tl.floor(y), tl.floor(x)
        below, right = y - top, x - left
        top, left = top.to(tl.int32), left.to(tl.int32)
        part = (1 - below) * (1 - right)
        dot00 = exchange(image_ptr, grad_image_ptr, pulled, pushed, part, top, left, here, g, H, W, G)
        part = (1 - below) * right
        dot01 = exchange(image_ptr, grad_image_ptr, pulled, pushed, part, top, left + 1, here, g, H, W, G)
        part = below * (1 - right)
        dot10 = exchange(image_ptr, grad_image_ptr, pulled, pushed, part, top + 1, left, here, g, H, W, G)
        part = below * right
        dot11 = exchange(image_ptr, grad_image_ptr, pulled, pushed, part, top + 1, left + 1, here, g, H, W, G)

        upper, lower = dot00 + (dot01 - dot00) * right, dot10 + (dot11 - dot10) * right
        along_x = (dot01 - dot00) * (1 - below) + (dot11 - dot10) * below
        first, plane = n.to(tl.int64) * (G * TAPS) * H * W, g * TAPS + tap
        into_mask = grad_mask_ptr + first + plane[None, :] * (H * W) + pixel[:, None]
        tl.store(into_mask, upper + (lower - upper) * below, here)
        into_offset = grad_offset_ptr + 2 * first + plane[None, :] * (2 * H * W) + pixel[:, None]
        tl.store(into_offset, (lower - upper) * modulation, here)
        tl.store(into_offset + H * W, along_x * modulation, here)


@triton.jit
def weight_kernel(  # noqa: PLR0913
    image_ptr, offset_ptr, mask_ptr, grad_ptr, sums_ptr, N, SPLITS, TILES, H, W,
    KERNEL: tl.constexpr, G: tl.constexpr, OWN: tl.constexpr,
    C: tl.constexpr, OUT: tl.constexpr, OP: tl.constexpr, GB: tl.constexpr, P: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Program (rows of the weight, split): the sum over every SPLITS-th pixel tile."""
    TAPS: tl.constexpr = KERNEL * KERNEL
    BLOCKS: tl.constexpr = (OWN + GB - 1) // GB
    rows, split = tl.program_id(0), tl.program_id(1)
    conv_group, tap = rows // (TAPS * BLOCKS), rows // BLOCKS % TAPS
    own, output = rows % BLOCKS * GB + tl.arange(0, GB), tl.arange(0, OP)
    g = conv_group * OWN + own
    conv_groups = G // OWN
    acc = tl.zeros((GB * C, OP), tl.float32)
    tile = split
    while tile < N * TILES:  # older interpreters do not accept such a bound in a range
        n, pixel = tile // TILES, tile % TILES * P + tl.arange(0, P)
        here = (pixel < H * W)[:, None] & (own < OWN)[None, :]
        y, x, modulation = place(offset_ptr, mask_ptr, n, pixel, g, here, tap, H, W, G, KERNEL)
        image = image_ptr + n.to(tl.int64) * H * W * G * C
        samples = bilinear(image, y, x, here, g, H, W, G, C) * modulation[:, :, None]
        samples = tl.reshape(samples, (P, GB * C)).to(image_ptr.dtype.element_ty)
        at = (n.to(tl.int64) * conv_groups + conv_group) * OUT * H * W + output[None, :] * (H * W) + pixel[:, None]
        grad = tl.load(grad_ptr + at, (pixel < H * W)[:, None] & (output < OUT)[None, :], other=0.0)
        acc = tl.dot(tl.trans(samples), grad.to(samples.dtype), acc, input_precision=PRECISION)
        tile += SPLITS
    row = (split * tl.num_programs(0) + rows) * (GB * C) + tl.arange(0, GB * C)
    tl.store(sums_ptr + row[:, None] * OP + output[None, :], acc)
