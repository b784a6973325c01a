import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.evaluation.ensemble import ENSEMBLES, WAYS, restore_both_ways
from utils.tiles.axes import axis, calls_for, kair_starts, mirror_index, starts
from utils.tiles.choice import ShrinkingTile
from utils.utils_error import UserError
from utils.utils_rgbspike import RGBSpike
from utils.utils_tile import is_out_of_memory, padded_as_kair, restore_padded, restore_tiled
from utils.utils_tile_opt import TileOpt


@st.composite
def lines(draw):
    size = draw(st.integers(0, 40))
    return draw(st.integers(1, 90)), size, draw(st.integers(0, max(size - 1, 0)))


def rgb(window):
    return window[:, :, :3].clone()


def run(restore, clip, tile, function=restore_tiled):
    """All frames of a clip (t, C, H, W), and the windows that were read."""
    read = []

    def reader(start, stop):
        read.append((start, stop))
        assert 0 <= start < stop <= len(clip)
        return clip[start:stop]

    frames = list(function(restore, reader, len(clip), tuple(clip.shape[-2:]), tile))
    assert [index for index, _ in frames] == list(range(len(clip)))
    return torch.stack([frame for _, frame in frames]), read


@settings(deadline=None)
@given(lines())
def test_starts_cover_the_line_with_the_fewest_tiles(line):
    length, size, overlap = line
    first = starts(length, size, overlap)
    tile = min(size or length, length)
    assert first[0] == 0
    assert first[-1] + tile == length
    assert all(1 <= b - a <= tile for a, b in zip(first, first[1:], strict=False))
    if tile == length:
        assert first == [0]
        return
    spared = 0.25 if 2 * overlap < tile else 0
    shared = [a + tile - b for a, b in zip(first, first[1:], strict=False)]
    assert sum(shared) / len(shared) >= (1 - spared) * overlap - 1e-9
    assert min(shared) >= min(overlap, 1), "an overlap never vanishes"
    fewer = len(first) - 2
    assert fewer == 0 or tile - (length - tile) / fewer < max((1 - spared) * overlap, min(overlap, 1)), "one too many"


def test_a_quarter_of_an_overlap_is_given_up_where_that_saves_a_tile():
    assert len(starts(720, 192, 20)) == 4 < len(kair_starts(720, 192, 20))
    assert len(starts(100, 18, 2)) == 6 < len(kair_starts(100, 18, 2))
    assert len(starts(24, 12, 6)) == 3, "from half a tile on an overlap is meant as an average over tiles"


def test_no_tile_nearly_repeats_another():
    steps = [b - a for a, b in zip(starts(720, 192, 20), starts(720, 192, 20)[1:], strict=False)]
    assert max(steps) - min(steps) <= 1


@settings(deadline=None)
@given(lines(), st.sampled_from(["smooth", "kair"]), st.sampled_from([1, 4]))
def test_weights_sum_to_one(line, blend, scale):
    length, size, overlap = line
    cut = axis(length, size, overlap, blend, overlap // 2)
    total = torch.zeros(length * scale)
    for index, weights in enumerate(cut.weights(scale)):
        assert (weights > 0).all() or blend == "kair"
        total[cut.place(index, scale)] += weights
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-6, rtol=0)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_identity_returns_the_input(data):
    length, height, width = (data.draw(st.integers(1, top)) for top in (9, 23, 23))
    sizes = [data.draw(st.integers(0, top)) for top in (6, 12, 12)]
    overlaps = [data.draw(st.integers(0, max(size - 1, 0))) for size in sizes]
    blend, batch = data.draw(st.sampled_from(["smooth", "kair"])), data.draw(st.integers(1, 5))
    tile = TileOpt(sizes[0], overlaps[0], (sizes[1], sizes[2]), (overlaps[1], overlaps[2]), blend, batch)
    clip = torch.rand(length, 4, height, width)
    for function in restore_tiled, restore_padded:
        out, _ = run(rgb, clip, tile, function)
        torch.testing.assert_close(out, clip[:, :3], atol=1e-6, rtol=0)


@settings(deadline=None)
@given(lines(), st.sampled_from([1, 2, 3, 8]), st.sampled_from(["smooth", "kair"]))
def test_tiles_begin_at_multiples_of_the_grid(line, grid, blend):
    length, size, overlap = line
    cut = axis(length, size, overlap, blend, overlap // 2, grid)
    assert all(start % grid == 0 for start in cut.starts)
    assert (cut.starts[0], cut.starts[-1] + cut.side) == (0, length)
    shared = [a + cut.side - b for a, b in zip(cut.starts, cut.starts[1:], strict=False)]
    least = min(overlap, 1) if size >= 2 * grid else 0
    assert all(least <= points < cut.side for points in shared)
    assert cut.side <= max(size or length, 2 * grid), "memory allows no larger tile"
    assert cut.side > min(size or length, length) - grid
    total = torch.zeros(length)
    for index, weights in enumerate(cut.weights()):
        total[cut.place(index)] += weights
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-6, rtol=0)


def test_no_tiling_is_one_call_on_the_whole_clip():
    shapes = []

    def restore(window):
        shapes.append(tuple(window.shape))
        return rgb(window)

    clip = torch.rand(5, 4, 9, 7)
    out, _ = run(restore, clip, TileOpt())
    assert shapes == [(1, 5, 4, 9, 7)]
    assert torch.equal(out, clip[:, :3])


@pytest.mark.parametrize(
    ("tile", "text"),
    [
        (TileOpt(1, 0), "1 frame, all rows, all columns"),
        (TileOpt(size=(128, 1), overlap=(0, 0)), "all frames, 128 rows, 1 column"),
    ],
)
def test_a_tile_is_named_in_words(tile, text):
    assert str(tile) == text


def test_a_constant_stays_a_constant():
    clip = torch.full((7, 3, 31, 45), 0.25)
    out, _ = run(rgb, clip, TileOpt(3, 1, (12, 16), (4, 7)))
    torch.testing.assert_close(out, clip, atol=1e-6, rtol=0)


@pytest.mark.parametrize("axis", ["time", "height", "width"])
def test_tiles_that_disagree_are_joined_by_a_ramp(axis):
    calls = iter(range(100))
    clip = (
        torch.zeros(32, 3, 1, 1) if axis == "time" else torch.zeros(1, 3, *((32, 1) if axis == "height" else (1, 32)))
    )
    tile = {
        "time": TileOpt(20, 8),
        "height": TileOpt(0, 0, (20, 0), (8, 8)),
        "width": TileOpt(0, 0, (0, 20), (8, 8)),
    }[axis]
    out, _ = run(lambda window: rgb(window) + float(next(calls)), clip, tile)
    line = out[:, 0].flatten()
    steps = line.diff()
    assert line[0] == 0
    assert line[-1] == 1
    assert (steps >= 0).all()
    assert steps.max() <= 1 / 8 + 1e-6, "a step would be seen as a seam"


def test_frames_are_yielded_as_soon_as_they_are_final():
    reads = []
    clip = torch.rand(40, 3, 4, 4)

    def read(start, stop):
        reads.append(stop)
        return clip[start:stop]

    for index, _ in restore_tiled(rgb, read, 40, (4, 4), TileOpt(8, 2)):
        assert reads[-1] - index <= 8, "frames must not be held back, nor read ahead"


def test_reversed_time_is_averaged():
    def restore(window):
        return rgb(window) + torch.arange(window.shape[1]).view(1, -1, 1, 1, 1)

    out, _ = run(restore_both_ways(restore), torch.zeros(4, 3, 2, 2), TileOpt())
    assert torch.equal(out, torch.full_like(out, 1.5))


def test_padded_clip_is_mirrored_about_its_end_frames():
    clip = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 3, 2, 2)
    seen = []

    def restore(window):
        seen.extend(window[0, :, 0, 0, 0].tolist())
        return rgb(window)

    run(restore, clip, TileOpt(), restore_padded)
    assert seen == [2, 1, 0, 1, 2, 3, 4, 3, 2]


@pytest.mark.parametrize("bad", [{"frames": 2, "frame_overlap": 2}, {"size": (16, 0)}, {"size": (-1, 8)}])
def test_impossible_tiles_are_a_users_mistake(bad):
    with pytest.raises(UserError, match="overlap"):
        TileOpt(**bad)


def test_an_axis_is_continued_by_mirroring_without_a_doubled_edge():
    assert mirror_index(-3, 7, 4) == [3, 2, 1, 0, 1, 2, 3, 2, 1, 0]
    assert mirror_index(0, 3, 1) == [0, 0, 0]
    assert mirror_index(0, 5, 2) == [0, 1, 0, 1, 0]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_frame_is_the_same_in_any_range(data):
    length = data.draw(st.integers(1, 12))
    size = data.draw(st.integers(0, 6))
    overlap = data.draw(st.integers(0, max(size - 1, 0)))
    first = data.draw(st.integers(0, length - 1))
    stop = data.draw(st.integers(first + 1, length))
    clip = torch.rand(length, 3, 6, 6)

    def restore(window):  # what a frame becomes depends on its window
        return rgb(window) + window.mean() * torch.arange(window.shape[1]).view(1, -1, 1, 1, 1)

    tile = TileOpt(size, overlap, (4, 0), (1, 0))
    for function in restore_tiled, restore_padded:
        whole, _ = run(restore, clip, tile, function)
        read = []

        def reader(start, end, read=read):
            read.append((start, end))
            return clip[start:end]

        part = dict(function(restore, reader, length, (6, 6), tile, (first, stop)))
        assert list(part) == list(range(first, stop))
        assert all(torch.equal(part[index], whole[index]) for index in part)
        if function is restore_tiled:
            assert all(start < stop and end > first for start, end in read), "only what is needed is read"


def kair_reference(restore, clip, n, ov, side, overlap, scale=1):
    """KAIR's rule as its description has it: sums and counts, outer half overlaps of tiles set to zero."""
    length, _, height, width = clip.shape

    def places(total, size, step):
        return [*range(0, total - size, step), max(0, total - size)]

    total, count = torch.zeros(length, 3, height * scale, width * scale), torch.zeros(length, 1, 1, 1)
    n, (h, w) = min(n, length), (min(side, height), min(side, width))
    for t in places(length, n, n - ov):
        e = torch.zeros(n, 3, height * scale, width * scale)
        mass = torch.zeros_like(e)
        for y in places(height, h, side - overlap):
            for x in places(width, w, side - overlap):
                out = restore(clip[None, t : t + n, :, y : y + h, x : x + w])[0].clone()
                mask = torch.ones_like(out)
                half = overlap // 2
                for edge, inner in (
                    (y > 0, (slice(0, half), slice(None))),
                    (y + h < height, (slice(out.shape[2] - half, None), slice(None))),
                    (x > 0, (slice(None), slice(0, half))),
                    (x + w < width, (slice(None), slice(out.shape[3] - half, None))),
                ):
                    if edge:
                        mask[(..., *inner)] = 0
                place = (..., slice(y * scale, (y + h) * scale), slice(x * scale, (x + w) * scale))
                e[place] += out * mask
                mass[place] += mask
        total[t : t + n] += e / mass
        count[t : t + n] += 1
    return total / count


@pytest.mark.parametrize("scale", [1, 4])
@pytest.mark.parametrize(
    ("n", "ov", "side", "overlap"), [(4, 2, 12, 5), (3, 0, 8, 0), (9, 2, 16, 20 - 8), (4, 1, 40, 6)]
)
def test_kairs_rule_to_the_last_digit(n, ov, side, overlap, scale):
    clip = torch.rand(7, 4, 21, 33)

    def restore(window):
        out = rgb(window).repeat_interleave(scale, -1).repeat_interleave(scale, -2)
        return out * (1 + window.mean()) + torch.linspace(0, 1, out.shape[-1])

    out, _ = run_scaled(restore, clip, TileOpt(n, ov, (side, side), (overlap, overlap), "kair"))
    expected = kair_reference(restore, clip, n, ov, side, overlap, scale)
    torch.testing.assert_close(out, expected, atol=2e-6, rtol=0)


def run_scaled(restore, clip, tile):
    frames = list(restore_tiled(restore, lambda a, b: clip[a:b], len(clip), tuple(clip.shape[-2:]), tile))
    return torch.stack([frame for _, frame in frames]), frames


def test_kairs_padding_flips_the_end_and_only_where_nothing_is_tiled():
    seen = []

    def restore(window):
        seen.append(window)
        return rgb(window)

    window = torch.arange(5.0).view(1, 5, 1, 1, 1) * 100 + torch.arange(7.0)
    window = window.expand(1, 5, 3, 6, 7)
    out = padded_as_kair(restore, TileOpt(0, window=(4, 3, 4)))(window)
    assert torch.equal(out, window)
    assert seen[0].shape == (1, 8, 3, 6, 8)
    assert (seen[0][0, :, 0, 0, 0] / 100).tolist() == [0, 1, 2, 3, 4, 4, 3, 2]
    assert seen[0][0, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 6]
    padded_as_kair(restore, TileOpt(5, 2, (6, 7), (0, 0), window=(4, 4, 4)))(window)
    assert seen[1].shape == window.shape


@pytest.mark.parametrize("read", range(5, 10))
def test_kairs_padding_of_frames_of_which_fewer_are_made(read):
    def between(window):  # of four frames the middle
        return rgb(window)[:, : window.shape[1] - 3]

    clip = torch.rand(read, 3, 4, 4)
    tile = TileOpt(blend="kair", window=(4, 4, 4))
    frames = restore_tiled(between, lambda start, stop: clip[start : stop + 3], read - 3, (4, 4), tile)
    assert torch.equal(torch.stack([frame for _, frame in frames]), clip[:-3])


@pytest.mark.parametrize("batch", [1, 2, 5, 100])
def test_tiles_go_to_the_network_in_batches(batch):
    shapes = []

    def restore(window):
        shapes.append(tuple(window.shape))
        return rgb(window)

    clip = torch.rand(2, 3, 20, 20)
    tile = TileOpt(0, 0, (8, 8), (2, 2), batch=batch)
    out, _ = run(restore, clip, tile)
    torch.testing.assert_close(out, clip, atol=1e-6, rtol=0)
    assert sum(shape[0] for shape in shapes) == 9
    assert len(shapes) == math.ceil(9 / batch) == calls_for(2, (20, 20), tile)
    assert {shape[1:] for shape in shapes} == {(2, 3, 8, 8)}


class Small:
    """A network that has room for `limit` numbers."""

    def __init__(self, limit):
        self.limit, self.done, self.failed = limit, [], 0

    def __call__(self, window):
        if window.numel() > self.limit:
            self.failed += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.done.append(tuple(window.shape))
        return rgb(window)


@pytest.mark.parametrize("limit", [3 * 6 * 96 * 96, 3 * 6 * 64 * 64, 3 * 2 * 64 * 64])
def test_out_of_memory_goes_on_with_smaller_tiles(limit, caplog):
    clip = torch.rand(9, 3, 100, 150)
    net = Small(limit)
    fitting = ShrinkingTile(TileOpt(6, 2, (0, 128), (20, 20), batch=4))
    out, _ = run(net, clip, fitting)
    torch.testing.assert_close(out, clip, atol=1e-6, rtol=0)
    assert net.failed
    assert max(math.prod(shape) for shape in net.done) <= limit
    failed = net.failed
    out, _ = run(net, clip, fitting)
    assert net.failed == failed, "the next clip begins with what has fitted"
    torch.testing.assert_close(out, clip, atol=1e-6, rtol=0)
    assert "out of memory with tiles of 6 frames, all rows, 128 columns, 4 at once; continuing with" in caplog.text


def test_sides_shrink_before_time_is_split_and_small_frames_stay_whole():
    small, large = ShrinkingTile(TileOpt()), ShrinkingTile(TileOpt(batch=2))
    small.shrink(12, (48, 48), splittable=True)
    assert (small.tile, small.frames) == (TileOpt(), 6), "a larger clip comes later"
    taken = []
    while not large.frames:
        large.shrink(100, (720, 1280), splittable=True)
        taken.append((large.tile.batch, *large.tile.size))
    assert taken[0] == (1, 0, 0)
    assert taken[1:] == sorted(taken[1:], reverse=True)
    assert taken[-1] == (1, 64, 64)
    with pytest.raises(UserError, match="even 12 frames of 48x48 pixels do not fit"):
        ShrinkingTile(TileOpt()).shrink(12, (48, 48), splittable=False)


def test_out_of_memory_that_nothing_helps_is_said():
    with pytest.raises(UserError, match="even 2 frames of 64x64 pixels do not fit"):
        run(Small(0), torch.rand(6, 3, 100, 100), TileOpt())


@pytest.mark.parametrize(
    "text", ["CUDA out of memory.", "CUBLAS_STATUS_ALLOC_FAILED when calling", "DefaultCPUAllocator: "]
)
def test_every_library_says_it_in_its_own_words(text):
    assert is_out_of_memory(RuntimeError(text))
    assert not is_out_of_memory(ValueError(text))


def test_other_failures_are_not_taken_for_a_lack_of_memory():
    def broken(window):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        run(broken, torch.rand(6, 3, 100, 100), TileOpt())


@pytest.mark.parametrize("kind", ENSEMBLES)
def test_self_ensemble_makes_any_network_blind_to_mirroring(kind):
    calls = []
    weight = torch.rand(3, 3, 3, 3)

    def restore(window):
        calls.append(window.shape)
        return torch.nn.functional.conv2d(window[0, :, :3], weight, padding=1)[None]

    ensemble = ENSEMBLES[kind](restore)
    window = torch.rand(1, 2, 3, 6, 9)
    out = ensemble(window)
    assert len(calls) == WAYS[kind]
    symmetric = {"none": [], "flips": [(-1,), (-2,)], "flips_transposed": [(-1,), (-2,)]}[kind]
    for dims in symmetric:
        torch.testing.assert_close(ensemble(window.flip(dims)).flip(dims), out)
    if kind == "flips_transposed":
        torch.testing.assert_close(ensemble(window.mT.contiguous()).mT, out)


def test_planes_in_time_play_backwards_too():
    seen = []

    def restore(window):
        scale = (window.scale - 100)[0].tolist()
        seen.append((window.rgb[0, :, 0, 0, 0].tolist(), window.spike[0, :, :, 0, 0].tolist(), scale))
        return window.rgb

    frames = torch.arange(2.0).view(1, 2, 1, 1, 1).expand(1, 2, 3, 2, 2)
    planes = torch.arange(10.0).view(1, 2, 5, 1, 1).expand(1, 2, 5, 1, 1)
    window = RGBSpike(frames, planes, 100 + torch.arange(10.0).view(1, 2, 5))
    restore_both_ways(restore, slice(1, 4))(window)
    order, backwards = [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]], [[5, 8, 7, 6, 9], [0, 3, 2, 1, 4]]
    assert seen == [([0, 1], order, order), ([1, 0], backwards, backwards)]
