"""Frames and spikes on two grids stay in step, whatever is done to both."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.evaluation.ensemble import ENSEMBLES, restore_both_ways
from utils.utils_rgbspike import RGBSpike, grid_of, random_like, stacked, tensors_of
from utils.utils_tile import restore_padded, restore_tiled
from utils.utils_tile_opt import TileOpt

CPU = torch.device("cpu")
FRAMES, PLANES = 4, 3


def means(rgb, ratio):
    """(.., H, W) -> (.., H / ratio, W / ratio)."""
    return F.avg_pool2d(rgb.flatten(0, -4), ratio).unflatten(0, rgb.shape[:-3])


def made(ratio, rows=4, cols=5, *, scaled=True):
    """A batch of one window: the hundreds of a value name frame and plane, the rest is texture."""
    torch.manual_seed(ratio)
    names = 100.0 * torch.arange(1, FRAMES * PLANES + 1).view(1, FRAMES, PLANES)
    rgb = names[..., None, None] + 90 * torch.rand(1, FRAMES, PLANES, ratio * rows, ratio * cols)
    return RGBSpike(rgb, means(rgb, ratio), names if scaled else None)


def check(x, ratio, order=range(PLANES)):
    """A cell is the mean of its pixels, and a scale is that of its frame and plane."""
    assert x.ratio == ratio
    wanted = means(x.rgb[..., list(order), :, :], ratio)
    torch.testing.assert_close(x.spike, wanted)
    if x.scale is not None:
        assert torch.equal(x.scale[..., None, None].expand_as(wanted), 100 * (wanted / 100).floor())


def longer(x, axis, step):
    """Continued by mirroring that repeats the last frame or cell, as blend "kair" does."""
    index = torch.arange(x.shape[axis] + step) % (2 * x.shape[axis])
    return x.index_select(axis, torch.minimum(index, 2 * x.shape[axis] - 1 - index))


def inner(x, step):
    """Without the first row of cells and the last column, where there are more."""
    height, width = x.shape[-2:]
    return x[..., slice(step if height > step else 0, height), slice(0, max(width - step, step))]


CHANGES = {  # of a window, or of a tensor as large, in steps of one cell
    "cut": inner,
    "transpose": lambda x, _: x.mT.contiguous(),
    "rows": lambda x, _: x.flip(-2),
    "both axes": lambda x, _: x.flip((-2, -1)),
    "no axis": lambda x, _: x.flip(()),
    "time": lambda x, _: x.flip(1),
    "time and columns": lambda x, _: x.flip((1, -1)),
    "other frames": lambda x, _: x[0][[x.shape[1] - 1, 0, 0]][None],
    "part of the frames": lambda x, _: x[0][max(x.shape[1] - 2, 0) :][None],
    "one of two": lambda x, _: stacked([x[0].flip(-1), x[0]])[:1],
    "more frames": lambda x, _: longer(x, 1, 2),
    "more rows": lambda x, step: longer(x, 3, 2 * step),
    "more columns": lambda x, step: longer(x, 4, 3 * step),
}


@settings(max_examples=80, deadline=None)
@given(st.sampled_from([1, 2, 3]), st.booleans(), st.lists(st.sampled_from(sorted(CHANGES)), max_size=5))
def test_cells_show_their_pixels_after_any_changes(ratio, scaled, names):
    x = made(ratio, scaled=scaled)
    frames = x.rgb
    for name in names:
        x, frames = CHANGES[name](x, ratio), CHANGES[name](frames, ratio)
    check(x, ratio)
    assert torch.equal(x.rgb, frames), "a tensor of frames alone goes the same way"
    assert (x.shape, len(x)) == (frames.shape, 1)


@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_planes_change_order_with_their_scales(ratio):
    x, order = made(ratio), [2, 0, 1]
    for one in (x.with_planes(order), stacked([x[0].with_planes(order)] * 2)[1:]):
        check(one, ratio, order)
        assert torch.equal(one.rgb, x.rgb)


@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_counts_become_intensities_on_the_way_to_the_network(ratio):
    counts = torch.randint(0, 256, (1, FRAMES, PLANES, 4, 5), dtype=torch.uint8)
    x, scale = made(ratio), torch.rand(1, FRAMES, PLANES)
    rgb, spike = tensors_of(RGBSpike(x.rgb, counts, scale), CPU)
    assert torch.equal(rgb, x.rgb)
    assert spike.dtype == torch.float32
    assert all(
        torch.equal(spike[0, t, s], counts[0, t, s] * scale[0, t, s]) for t in range(FRAMES) for s in range(PLANES)
    )
    assert torch.equal(tensors_of(RGBSpike(x.rgb, x.spike), CPU)[1], x.spike)
    assert tensors_of(x.rgb, CPU) == (x.rgb,)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_tiles_are_cut_between_cells_and_joined_to_the_frames(data):
    ratio = data.draw(st.sampled_from([1, 2, 3]))
    clip = made(ratio, data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9)))[0]
    sizes = [data.draw(st.integers(0, top)) for top in (4, 14, 14)]
    overlaps = [data.draw(st.integers(0, max(size - 1, 0))) for size in sizes]
    blend, batch = data.draw(st.sampled_from(["smooth", "kair"])), data.draw(st.integers(1, 3))
    tile = TileOpt(sizes[0], overlaps[0], (sizes[1], sizes[2]), (overlaps[1], overlaps[2]), blend, batch, (2, 4, 4))
    both = restore_both_ways(ENSEMBLES[data.draw(st.sampled_from(sorted(ENSEMBLES)))](seeing(ratio)))
    for function in restore_tiled, restore_padded:
        frames = function(both, lambda start, stop: clip[start:stop], len(clip), clip.shape[-2:], tile)
        torch.testing.assert_close(torch.stack([frame for _, frame in frames]), clip.rgb, atol=1e-3, rtol=0)


def seeing(ratio):
    """The network that checks what it sees and returns the frames."""

    def restore(x):
        check(x, ratio)
        return x.rgb.clone()

    return restore


@pytest.mark.parametrize(("ratio", "grid", "wanted"), [(1, 1, 1), (2, 1, 2), (3, 8, 24), (2, 8, 8), (4, 2, 4)])
def test_tiles_begin_where_cells_and_the_networks_own_grid_do(ratio, grid, wanted):
    assert grid_of(made(ratio), grid) == wanted
    assert grid_of(made(ratio).rgb, grid) == grid


@pytest.mark.parametrize("ratio", [1, 2, 3])
@pytest.mark.parametrize("scaled", [True, False])
def test_a_random_window_is_of_the_same_kind(ratio, scaled):
    example = made(ratio, scaled=scaled)[0]
    like = random_like(example, (2, 3, 99, 7, 12))
    assert like.shape == (2, 3, PLANES, -(-7 // ratio) * ratio, 12)
    assert like.spike.shape == (2, 3, PLANES, -(-7 // ratio), 12 // ratio)
    assert like.ratio == ratio
    assert (like.scale is not None) == scaled
    assert all(torch.isfinite(part).all() for part in tensors_of(like, CPU))
    assert random_like(example.rgb, (2, 3, 99, 7, 12)).shape == (2, 3, PLANES, 7, 12)
