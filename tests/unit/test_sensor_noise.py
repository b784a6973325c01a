"""The noisy sensor, beside a real capture; and the two statistics that describe a sensor's noise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spike_scenes import UHSR, real_file

from data.spike.doctor.statistics import between_pixel_spread, interval_rate, within_pixel_isi_cv
from data.spike.sensor_noise import Camera, SensorNoise
from data.spike.simulator import integrate_and_fire

RATES = [(0.055, 0.08), (0.032, 0.13), (0.017, 0.18)]  # spikes per step, relative spread in the real capture
NOISE = SensorNoise()


def flat_field(camera: Camera, rate: float, steps: int = 200) -> np.ndarray:
    """The camera's spikes under the even light that makes its mean pixel fire at a rate."""
    light = (rate - camera.dark.mean()) / camera.gain.mean()
    return camera.fire(np.full((steps, *camera.gain.shape), light, np.float32), np.random.default_rng(1))[0]


def plain(gain: float = 0.5, dark: float = 0.0, **changes: float) -> Camera:
    """16 x 16 pixels that are all alike."""
    noise = SensorNoise(**{"jitter_std": 0.0, "electrons": 1e12, **changes})
    return Camera(np.full((16, 16), gain, np.float32), np.full((16, 16), dark, np.float32), 1 / gain, noise)


# ---- statistics


def test_statistics_of_the_real_capture():
    spikes = np.load(real_file(UHSR))["spk"]
    assert 0.028 < within_pixel_isi_cv(spikes) < 0.062
    for rate, spread in RATES:
        assert between_pixel_spread(spikes, rate) == pytest.approx(spread, rel=0.15)


def test_intervals_of_known_streams():
    spikes = np.zeros((40, 2, 2), np.uint8)
    spikes[::4, 0, 0] = 1  # regular
    spikes[[0, 2, 8, 10, 16], 0, 1] = 1  # intervals 2 6 2 6: mean 4, deviation 2
    spikes[[3, 5, 30], 1, 0] = 1  # too few
    assert within_pixel_isi_cv(spikes) == pytest.approx((0 + 0.5) / 2)
    np.testing.assert_allclose(interval_rate(spikes), [[1 / 4, 1 / 4], [2 / 27, 0]])
    assert np.isnan(within_pixel_isi_cv(spikes[:, 1:]))


@pytest.mark.parametrize("spread", [0.05, 0.2])
def test_spread_is_that_of_the_pixels_and_not_of_the_shading(spread):
    rng = np.random.default_rng(0)
    ramp = np.linspace(0.1, 0.4, 64)[None, :] * np.linspace(0.7, 1, 64)[:, None]
    light = np.float32(ramp * rng.normal(1, spread, (64, 64)))
    spikes, _ = integrate_and_fire(np.broadcast_to(light, (400, 64, 64)), 1.0, rng)
    assert between_pixel_spread(spikes) == pytest.approx(spread, rel=0.1, abs=0.005)


def test_spread_wants_a_patch_of_that_rate():
    spikes = np.zeros((10, 32, 32), np.uint8)
    assert np.isnan(between_pixel_spread(spikes))
    spikes[::5] = 1
    assert between_pixel_spread(spikes) == pytest.approx(0, abs=1e-6)
    assert np.isnan(between_pixel_spread(spikes, 0.5))


# ---- one camera


@pytest.fixture(scope="module")
def camera():
    return NOISE.camera((96, 96), 2.0, seed=0)


@pytest.mark.parametrize(("rate", "spread"), RATES)
@pytest.mark.parametrize("theta", [1.0, 2.0])
def test_flat_fields_are_as_noisy_as_the_real_capture(rate, spread, theta):
    spikes = flat_field(NOISE.camera((96, 96), theta, seed=0), rate)
    assert spikes.mean() == pytest.approx(rate, rel=0.02)
    assert 0.03 <= within_pixel_isi_cv(spikes) <= 0.06
    assert between_pixel_spread(spikes, rate) == pytest.approx(spread, rel=0.2)


def test_seed_is_the_camera(camera):
    again, other = (NOISE.camera((96, 96), 2.0, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(again.gain, camera.gain)
    np.testing.assert_array_equal(again.dark, camera.dark)
    assert abs(np.corrcoef(other.gain.ravel(), camera.gain.ravel())[0, 1]) < 0.05


def test_pixels_follow_their_constants():
    few_faults = {"hot_fraction": 0.0, "dead_fraction": 0.0}
    camera = SensorNoise(**few_faults).camera((400, 400), 2.0, seed=3)
    spread = np.hypot(NOISE.gain_std, NOISE.offset_std / NOISE.swing)
    assert camera.gain.mean() * 2 == pytest.approx(1 - NOISE.offset_mean / NOISE.swing, rel=0.01)
    assert camera.gain.std() / camera.gain.mean() == pytest.approx(spread, rel=0.03)
    assert camera.dark.mean() == pytest.approx(NOISE.dark_mean * NOISE.dark_unit, rel=0.02)
    assert camera.dark.min() >= 0
    faulty = SensorNoise(hot_fraction=0.1, dead_fraction=0.05).camera((400, 400), 2.0, seed=3)
    assert (faulty.dark > 0.03).mean() == pytest.approx(0.095, rel=0.05)
    dead = faulty.gain == 0
    assert dead.mean() == pytest.approx(0.05, rel=0.05)
    assert faulty.dark[dead].max() == 0


@pytest.mark.parametrize("theta", [1.0, 2.0, 4.0])
def test_rate_at_white_is_the_mean_rate_of_white_pixels(theta):
    camera = NOISE.camera((48, 48), theta, seed=2)
    spikes, _ = camera.fire(np.ones((800, 48, 48), np.float32), np.random.default_rng(0))
    assert spikes.mean() == pytest.approx(camera.rate_at_white(), rel=0.002)
    assert camera.rate_at_white() != pytest.approx(1 / theta, rel=0.01)


# ---- its steps


def test_without_noise_it_is_the_ideal_sensor():
    light = np.random.default_rng(0).integers(0, 129, (100, 16, 16)).astype(np.float32) / 128
    start = np.random.default_rng(1).integers(0, 128, (16, 16)).astype(np.float32) / 128
    spikes, left = plain(electrons=np.inf).fire(light, np.random.default_rng(2), start)
    ideal, ideal_left = integrate_and_fire(light, 2.0, charge=start * 2)
    np.testing.assert_array_equal(spikes, ideal)
    np.testing.assert_array_equal(left * 2, ideal_left)


def test_dark_pixels_fire_by_themselves():
    spikes, _ = plain(dark=0.02).fire(np.zeros((2000, 16, 16), np.float32), np.random.default_rng(0))
    assert spikes.mean() == pytest.approx(0.02, rel=0.01)


def test_jitter_moves_spikes_but_not_the_rate():
    light = np.full((3000, 16, 16), 0.1, np.float32)
    still, moved = (plain(jitter_std=std).fire(light, np.random.default_rng(0))[0] for std in (0, 0.1))
    assert moved.mean() == pytest.approx(still.mean(), rel=2e-3)
    assert within_pixel_isi_cv(moved) > 0.05 > 0.01 > within_pixel_isi_cv(still)


def test_shot_noise_has_the_variance_of_counts():
    # Charge after n steps below the threshold: mean n I / theta, variance n I / (theta^2 electrons).
    light = np.full((10, 16, 16), 0.09, np.float32)
    camera = plain(electrons=1000.0)
    charges = [camera.fire(light, np.random.default_rng(seed), np.zeros((16, 16), np.float32))[1] for seed in range(20)]
    assert np.mean(charges) == pytest.approx(0.45, rel=0.002)
    assert np.var(charges) == pytest.approx(0.9 / (4 * 1000), rel=0.05)


@settings(derandomize=True, max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=3))
def test_a_noisy_stream_in_pieces_is_the_same_stream(cuts):
    camera = NOISE.camera((8, 8), 1.5, seed=5)
    light = np.random.default_rng(2).random((30, 8, 8), np.float32)
    whole, left = camera.fire(light, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    parts, charge = [], None
    for piece in np.split(light, sorted(cuts)):
        before = None if charge is None else charge.copy()
        spikes, after = camera.fire(piece, rng, charge)
        assert before is None or np.array_equal(charge, before)
        parts, charge = [*parts, spikes], after
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(charge, left)


def test_saturated_pixel_stops_with_the_light():
    light = np.concatenate([np.full((50, 16, 16), 3, np.float32), np.zeros((5, 16, 16), np.float32)])
    spikes, left = plain().fire(light, np.random.default_rng(7))
    assert spikes[5:50].min() == 1
    assert spikes[50:].max() == 0
    assert left.max() < 1


def test_light_must_fit_the_sensor(camera):
    with pytest.raises(ValueError, match="do not fit a sensor"):
        camera.fire(np.zeros((3, 4, 4), np.float32), np.random.default_rng(0))
