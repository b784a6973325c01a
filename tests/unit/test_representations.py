"""Planes made of spikes."""

import numpy as np
import pytest

from data.spike.representations import sdm, tfp, upsample
from utils.utils_error import UserError


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
def test_tfp_window_outside_or_even_is_an_error(center, window):
    with pytest.raises(UserError) as caught:
        tfp(np.ones((9, 2, 2), np.uint8), center, window)
    for part in (f"center={center}", f"window={window}", "T=9"):
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
