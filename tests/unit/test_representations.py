"""Planes made of spikes: each function beside its definition, pixel by pixel in plain loops."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from spike_scenes import GOPRO, real_file
from tiny_set import sdm

from data.spike.representations import bins, isi, raw_window, repeat, tfi, tfp, upsample
from utils.spike_loader import read_spikes
from utils.utils_error import UserError

SHAPES = hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=12)
# dense and mixed, sparse (long intervals and many pixels without a spike on one side), empty and full
DENSE = hnp.arrays(np.uint8, SHAPES, elements=st.integers(0, 1))
SPARSE = hnp.arrays(np.uint8, SHAPES, elements=st.just(1), fill=st.just(0))
EVEN = st.builds(np.full, SHAPES, st.integers(0, 1), dtype=st.just(np.uint8))
STREAMS = st.one_of(DENSE, SPARSE, EVEN)
slowly = settings(derandomize=True, max_examples=150, deadline=None)


def per_pixel(function, spikes, *args):
    """`function(times of the pixel's spikes, *args)` for every pixel, as float32."""
    _, height, width = spikes.shape
    plane = np.zeros((height, width), np.float32)
    for y in range(height):
        for x in range(width):
            plane[y, x] = function([t for t in range(len(spikes)) if spikes[t, y, x]], *args)
    return plane


def mean_rate(times, first, stop):
    return sum(first <= t < stop for t in times) / (stop - first)


def around_center(times, center):
    """Last spike <= center and first spike > center, None where there is none."""
    return max((t for t in times if t <= center), default=None), min((t for t in times if t > center), default=None)


def around_step(times, step):
    """Last spike < step and first spike >= step, None where there is none."""
    return max((t for t in times if t < step), default=None), min((t for t in times if t >= step), default=None)


def interval_rate(times, around, at, steps):
    before, after = around(times, at)
    return len(times) / steps if before is None or after is None else 1 / (after - before)


def is_undefined(times, around, at):
    return None in around(times, at)


def check_all_against_the_definition(spikes, center, half, count):
    """Each function once; tolerance 0: every value is one float32 division."""
    steps = len(spikes)
    rate = tfp(spikes, center, 2 * half + 1)
    assert np.array_equal(rate, per_pixel(mean_rate, spikes, center - half, center + half + 1))
    raw = raw_window(spikes, center, 2 * half + 1)
    assert (raw.shape[0], raw.dtype) == (2 * half + 1, np.uint8)
    for k, plane in enumerate(raw):
        assert np.array_equal(plane, spikes[center - half + k])
    parts = bins(spikes, count)
    assert parts.shape[0] == count
    for k, plane in enumerate(parts):
        assert np.array_equal(plane, per_pixel(mean_rate, spikes, k * steps // count, (k + 1) * steps // count))
    value, undefined = tfi(spikes, center)
    assert np.array_equal(undefined, per_pixel(is_undefined, spikes, around_center, center) > 0)
    assert np.array_equal(value, per_pixel(interval_rate, spikes, around_center, center, steps))
    chosen = [steps - 1, center, 0]
    values, masks = isi(spikes, chosen)
    for k, step in enumerate(chosen):
        assert np.array_equal(masks[k], per_pixel(is_undefined, spikes, around_step, step) > 0)
        assert np.array_equal(values[k], per_pixel(interval_rate, spikes, around_step, step, steps))
    for planes in (rate, parts, value, values):
        assert planes.dtype == np.float32
    assert undefined.dtype == masks.dtype == np.bool_


@slowly
@given(STREAMS, st.data())
def test_every_function_keeps_to_its_definition(spikes, data):
    center = data.draw(st.integers(0, len(spikes) - 1))
    half = data.draw(st.integers(0, min(center, len(spikes) - 1 - center)))
    check_all_against_the_definition(spikes, center, half, data.draw(st.integers(1, len(spikes))))


@pytest.mark.parametrize("steps", [255, 256, 300, 65536])  # just fit one byte, no longer, and no longer two
@pytest.mark.parametrize("chance", [0.01, 0.5, 1])
def test_long_streams_keep_to_the_definition(steps, chance):
    spikes = (np.random.default_rng(0).random((steps, 1, 2)) < chance).astype(np.uint8)
    check_all_against_the_definition(spikes, steps // 2, steps // 2 - 1, 7)


def test_real_spikes_keep_to_the_definition():
    spikes = read_spikes(real_file(GOPRO), 360, 640, rows=(176, 192), cols=(461, 485))
    assert 0.1 < tfi(spikes, 40)[1].mean() < 0.9  # dark and bright
    check_all_against_the_definition(spikes, 40, 10, 5)
    check_all_against_the_definition(spikes[::-1], 40, 10, 5)


@slowly
@given(STREAMS, st.data())
def test_time_is_symmetric(spikes, data):
    steps = len(spikes)
    backwards = spikes[::-1]
    center = data.draw(st.integers(0, steps - 1))
    window = 2 * data.draw(st.integers(0, min(center, steps - 1 - center))) + 1
    mirrored = steps - 1 - center
    assert np.array_equal(tfp(backwards, mirrored, window), tfp(spikes, center, window))
    assert np.array_equal(raw_window(backwards, mirrored, window), raw_window(spikes, center, window)[::-1])
    count = data.draw(st.sampled_from([n for n in range(1, steps + 1) if steps % n == 0]))
    assert np.array_equal(bins(backwards, count), bins(spikes, count)[::-1])
    if center < steps - 1:
        for forth, back in zip(tfi(spikes, center), tfi(backwards, steps - 2 - center), strict=True):
            assert np.array_equal(forth, back)


@slowly
@given(STREAMS)
def test_bins_leave_no_step_out(spikes):
    steps = len(spikes)
    for count in range(1, steps + 1):
        edges = [k * steps // count for k in range(count + 1)]
        assert edges[0] == 0
        assert edges[-1] == steps
        assert set(np.diff(edges)) <= {steps // count, -(-steps // count)}
        spikes_of = bins(spikes, count) * np.diff(edges)[:, None, None]
        np.testing.assert_allclose(spikes_of.sum(axis=0), spikes.sum(axis=0), rtol=1e-6)


@slowly
@given(STREAMS)
def test_isi_is_tfi_one_step_later(spikes):
    later = range(1, len(spikes))
    if not later:
        return
    rates, undefined = isi(spikes, later)
    for k, step in enumerate(later):
        rate, mask = tfi(spikes, step - 1)
        assert np.array_equal(rates[k], rate)
        assert np.array_equal(undefined[k], mask)


def test_steps_belong_to_the_spike_that_ends_their_interval():
    spikes = np.zeros((9, 1, 1), np.uint8)
    spikes[[0, 2, 7]] = 1
    rates, undefined = isi(spikes, range(9))
    third, half, fifth = (np.float32(x) for x in (1 / 3, 0.5, 0.2))  # 3 spikes in 9 steps where undefined
    assert rates.ravel().tolist() == [third, half, half, fifth, fifth, fifth, fifth, fifth, third]
    assert undefined.ravel().tolist() == [True] + [False] * 7 + [True]


def test_tfi_counts_a_spike_at_step_0_and_one_at_the_center():
    spikes = np.zeros((9, 1, 3), np.uint8)
    spikes[[0, 8], 0, 0] = 1
    spikes[[0, 4, 6], 0, 1] = 1
    rate, undefined = tfi(spikes, 4)
    assert rate[0, :2].tolist() == [1 / 8, 1 / 2]
    assert undefined.tolist() == [[False, False, True]]
    assert rate[0, 2] == 0


@pytest.mark.parametrize("fill", [0, 1])
def test_even_light_gives_the_same_rate_everywhere(fill):
    spikes = np.full((9, 2, 2), fill, np.uint8)
    for rate in (tfp(spikes, 4, 5), tfi(spikes, 4)[0], bins(spikes, 4), isi(spikes, [0, 4, 8])[0]):
        assert set(rate.ravel()) == {fill}
    assert tfi(spikes, 4)[1].all() == (fill == 0)


@pytest.mark.parametrize("at", [-1, 9, 99])
def test_a_step_outside_the_stream_is_an_error(at):
    spikes = np.ones((9, 2, 2), np.uint8)
    for call in (lambda: tfi(spikes, at), lambda: isi(spikes, [4, at])):
        with pytest.raises(UserError, match=rf"={at} must lie in \[0, T\), found T=9"):
            call()
    with pytest.raises(UserError, match="no steps given"):
        isi(spikes, [])


@pytest.mark.parametrize("count", [10, 0, -1])
def test_more_bins_than_steps_is_an_error(count):
    with pytest.raises(UserError, match=rf"count={count} .*T=9"):
        bins(np.ones((9, 2, 2), np.uint8), count)


@slowly
@given(hnp.arrays(np.uint8, SHAPES, elements=st.integers(0, 1)), st.integers(1, 4))
@example(np.array([[[0, 1]]], np.uint8), 2)
def test_repeat_makes_equal_blocks(bits, ratio):
    large = repeat(bits, ratio)
    assert large.dtype == bits.dtype
    assert np.array_equal(large, np.kron(bits, np.ones((1, ratio, ratio), np.uint8)))


def test_tfp_is_the_mean_of_its_window_and_nothing_else():
    spikes = np.zeros((9, 1, 2), np.uint8)
    spikes[2:7, 0, 0] = 1
    spikes[[1, 7], 0, 1] = 1  # just outside the window of 5 around 4
    rate = tfp(spikes, 4, 5)
    assert rate.dtype == np.float32
    assert rate.tolist() == [[1, 0]]
    assert tfp(spikes, 4, 7)[0, 1] == np.float32(2) / np.float32(7)


def test_tfp_counts_beyond_uint8():
    assert tfp(np.ones((301, 1, 1), np.uint8), 150, 301) == 1


@pytest.mark.parametrize(("center", "window"), [(0, 1), (8, 1), (2, 5), (6, 5), (4, 9)])
def test_tfp_windows_that_just_fit(center, window):
    assert tfp(np.ones((9, 2, 2), np.uint8), center, window).min() == 1


@pytest.mark.parametrize(("center", "window"), [(1, 5), (7, 5), (-1, 1), (9, 1), (4, 11), (4, 4), (4, 0), (4, -1)])
@pytest.mark.parametrize("function", [tfp, raw_window])
def test_window_outside_or_even_is_an_error(function, center, window):
    with pytest.raises(UserError) as caught:
        function(np.ones((9, 2, 2), np.uint8), center, window)
    for part in (function.__name__, f"center={center}", f"window={window}", "T=9"):
        assert part in str(caught.value)


def test_upsample_has_half_pixel_centres_and_repeated_borders():
    plane = upsample(np.array([[0, 1]], np.float32), (1, 4))
    assert plane.dtype == np.float32
    assert plane.tolist() == [[0, 0.25, 0.75, 1]]
    assert upsample(np.eye(3, dtype=np.float32), (6, 9)).shape == (6, 9)


def test_upsample_of_a_crop_with_halo_is_the_crop_of_the_upsampled():
    plane = np.random.default_rng(0).random((12, 14), np.float32)
    whole = upsample(plane, (24, 28))[8:16, 6:14]
    part = upsample(plane[3:9, 2:8], (12, 12))[2:10, 2:10]
    assert np.array_equal(whole, part)


def test_sdm_scales_the_blur_by_the_ratio():
    blur = np.full((4, 4, 3), [0.2, 0.4, 0.8], np.float64)
    short = np.full((2, 2), 0.25, np.float32)
    long = np.full((2, 2), 0.5, np.float32)
    sharp = sdm(blur, short, long)
    assert sharp.dtype == np.float32
    np.testing.assert_allclose(sharp, blur / 2, rtol=1e-6)
    np.testing.assert_array_equal(sdm(blur, short * 0.25, long * 0.25), sharp)  # the gain cancels


def test_sdm_is_clipped_and_zero_without_spikes():
    blur = np.full((2, 2, 3), 0.8, np.float32)
    short = np.array([[1, 0], [1, 0.5]], np.float32)
    long = np.array([[0.5, 0], [0, 0.5]], np.float32)
    with np.errstate(all="raise"):
        sharp = sdm(blur, short, long)
    np.testing.assert_allclose(sharp[..., 0], [[1, 0], [0, 0.8]], rtol=1e-6)


def test_sdm_is_zero_where_only_the_short_window_fired():
    # The short window may reach beyond the exposure: no spike in the exposure is 0 all the same.
    sharp = sdm(np.ones((2, 2, 3), np.float32), np.full((2, 2), 0.1, np.float32), np.zeros((2, 2), np.float32))
    assert not sharp.any()
