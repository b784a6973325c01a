"""The integrate-and-fire sensor and its transfer curves."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.spike import simulator
from data.spike.simulator import integrate_and_fire
from utils.utils_colour import linear_to_srgb, srgb_to_linear, to_gray


def per_pixel_loop(light, theta, limit, charge):
    """The rule of the sensor, pixel by pixel, in the number type of the arguments: light [t][y][x], charge [y][x]."""
    spikes = np.zeros((len(light), len(charge), len(charge[0])), np.uint8)
    for y, row in enumerate(charge):
        for x, first in enumerate(row):
            held = min(first, limit)
            for t, plane in enumerate(light):
                held = held + plane[y][x]
                if held >= theta:
                    spikes[t, y, x] = 1
                    held = min(held - theta, limit)
    return spikes


def constant(values, steps):
    return np.broadcast_to(np.array(values, np.float32)[None, None], (steps, 1, len(values)))


@pytest.mark.parametrize("theta", [0.5, 1.0, 2.0, 5.0])
def test_rate_law(theta):
    light = [0, 0.003, 0.05, 0.1, 0.37, 0.5, 0.8, 1]
    spikes, _ = integrate_and_fire(constant(light, 200_000), theta, np.random.default_rng(0))
    assert spikes.dtype == np.uint8
    assert spikes.max() == 1
    np.testing.assert_allclose(spikes.mean(axis=0)[0], np.minimum(np.array(light) / theta, 1), atol=1e-9, rtol=0.01)


@settings(derandomize=True, max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.3, 0.7, 1.0, 2.0, 3.3]), st.integers(1, 7), st.integers(1, 40))
def test_every_spike_is_that_of_a_loop_over_pixels(seed, theta, side, block):
    rng = np.random.default_rng(seed)
    light = rng.random((12, side, 5), np.float32)
    light[rng.random(light.shape) < 0.2] = rng.choice(
        np.float32([0, 0.25, 0.5, 1])
    )  # charge hits the threshold exactly
    start = (rng.random((side, 5), np.float32) * np.float32(theta)).round(2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulator, "BLOCK", block)
        spikes, _ = integrate_and_fire(light, theta, charge=start)
    limit = np.nextafter(np.float32(theta), np.float32(0))
    np.testing.assert_array_equal(spikes, per_pixel_loop(light, np.float32(theta), limit, start))


def test_soft_reset_conserves_charge_exactly():
    rng = np.random.default_rng(1)
    light = (rng.integers(0, 257, (300, 5, 7)) / 256).astype(np.float32)  # sums are exact in float32
    start = (rng.integers(0, 512, (5, 7)) / 256).astype(np.float32)
    spikes, left = integrate_and_fire(light, 2.0, charge=start)
    np.testing.assert_array_equal(start + light.sum(axis=0), 2 * spikes.sum(axis=0, dtype=np.float32) + left)
    assert left.min() >= 0
    assert left.max() < 2


@settings(derandomize=True, max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=4))
def test_a_stream_in_pieces_is_the_same_stream(cuts):
    light = np.random.default_rng(2).random((30, 4, 4), np.float32)
    rng = np.random.default_rng(3)
    whole, left = integrate_and_fire(light, 1.3, np.random.default_rng(3))
    parts, charge = [], None
    for piece in np.split(light, sorted(cuts)):
        before = None if charge is None else charge.copy()
        spikes, after = integrate_and_fire(piece, 1.3, rng, charge)
        assert before is None or np.array_equal(charge, before)
        parts, charge = [*parts, spikes], after
    assert np.array_equal(whole, np.concatenate(parts))
    assert np.array_equal(left, charge)


def test_memory_order_of_the_charge_does_not_matter():
    light = np.random.default_rng(4).random((9, 3, 5), np.float32)
    start = np.random.default_rng(5).random((3, 5), np.float32)
    for order in ("C", "F"):
        spikes, left = integrate_and_fire(light, 1.0, charge=np.array(start, order=order))
        np.testing.assert_allclose(start + light.sum(axis=0), spikes.sum(axis=0) + left, atol=1e-5)


def test_seed_decides():
    light = constant([0.3] * 64, 20)
    same = [integrate_and_fire(light, 2.0, np.random.default_rng(seed))[0] for seed in (4, 4, 5)]
    assert np.array_equal(same[0], same[1])
    assert not np.array_equal(same[0], same[2])


def test_first_charge_is_uniform_so_pixels_are_out_of_phase():
    spikes, _ = integrate_and_fire(constant([0.25] * 4000, 8), 2.0, np.random.default_rng(6))
    np.testing.assert_allclose(spikes.mean(axis=(1, 2)), 1 / 8, atol=0.025)


def test_saturated_pixel_stops_with_the_light():
    light = np.concatenate([constant([1.0], 50), constant([0.0], 5)])
    spikes, left = integrate_and_fire(light, 0.4, np.random.default_rng(7))
    assert spikes[:50].min() == 1
    assert spikes[50:].max() == 0
    assert left.max() < 0.4


def test_a_pixel_at_threshold_fires_at_once():
    spikes, left = integrate_and_fire(constant([0.5], 3), 1.0, charge=np.full((1, 1), 0.5, np.float32))
    assert spikes.ravel().tolist() == [1, 0, 1]
    assert left == 0


@pytest.mark.parametrize(
    ("shape", "theta", "kwargs", "words"),
    [
        ((4, 2, 2), 0.0, {"charge": np.zeros((2, 2), np.float32)}, "theta=0"),
        ((2, 2), 1.0, {"charge": np.zeros((2, 2), np.float32)}, r"intensity \(T, H, W\)"),
        ((4, 2, 2), 1.0, {"charge": np.zeros((2, 3), np.float32)}, "does not fit"),
        ((4, 2, 2), 1.0, {}, "rng or charge"),
    ],
)
def test_misuse_is_an_error(shape, theta, kwargs, words):
    with pytest.raises(ValueError, match=words):
        integrate_and_fire(np.zeros(shape, np.float32), theta, **kwargs)


def test_gray_is_that_of_opencv():
    rgb = np.random.default_rng(8).random((5, 6, 3), np.float32)
    gray = to_gray(rgb)
    assert gray.dtype == np.float32
    np.testing.assert_allclose(gray, cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), atol=1e-6)
    assert to_gray(np.stack([rgb, rgb])).shape == (2, 5, 6)


def test_transfer_curves():
    srgb = np.linspace(0, 1, 1001, dtype=np.float32)
    linear = srgb_to_linear(srgb)
    assert linear.dtype == np.float32
    assert (linear[0], linear[-1]) == (0, 1)
    assert np.diff(linear).min() > 0
    np.testing.assert_allclose(linear_to_srgb(linear), srgb, atol=1e-6)
    np.testing.assert_allclose(srgb_to_linear(np.array([0.04, 0.5])), [0.04 / 12.92, 0.21404114], rtol=1e-6)
