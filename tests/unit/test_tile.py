import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.utils_error import UserError
from utils.utils_tile import (
    TileOpt,
    mirror_index,
    restore_both_ways,
    restore_padded,
    restore_tiled,
    starts,
    tile_weights,
)


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
    assert all(1 <= b - a <= tile - overlap for a, b in zip(first, first[1:], strict=False))
    if tile < length:
        assert (len(first) - 1) * (tile - overlap) + tile < length + (tile - overlap), "one tile too many"


def test_no_tile_nearly_repeats_another():
    steps = [b - a for a, b in zip(starts(720, 192, 20), starts(720, 192, 20)[1:], strict=False)]
    assert max(steps) - min(steps) <= 1


@settings(deadline=None)
@given(lines())
def test_weights_sum_to_one(line):
    total = torch.zeros(line[0])
    for place, weights in tile_weights(*line):
        assert (weights > 0).all()
        total[place] += weights
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-6, rtol=0)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_identity_returns_the_input(data):
    length, height, width = (data.draw(st.integers(1, top)) for top in (9, 23, 23))
    sizes = [data.draw(st.integers(0, top)) for top in (6, 12, 12)]
    overlaps = [data.draw(st.integers(0, max(size - 1, 0))) for size in sizes]
    tile = TileOpt(sizes[0], overlaps[0], (sizes[1], sizes[2]), (overlaps[1], overlaps[2]))
    clip = torch.rand(length, 4, height, width)
    for function in restore_tiled, restore_padded:
        out, _ = run(rgb, clip, tile, function)
        torch.testing.assert_close(out, clip[:, :3], atol=1e-6, rtol=0)


def test_no_tiling_is_one_call_on_the_whole_clip():
    shapes = []

    def restore(window):
        shapes.append(tuple(window.shape))
        return rgb(window)

    clip = torch.rand(5, 4, 9, 7)
    out, _ = run(restore, clip, TileOpt())
    assert shapes == [(1, 5, 4, 9, 7)]
    assert torch.equal(out, clip[:, :3])


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
