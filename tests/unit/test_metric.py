from pathlib import Path

import numpy as np
import pytest

from utils import utils_metric
from utils.utils_error import UserError

GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "golden" / "metrics_bikes.npz"


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (24, 33, 3), dtype=np.uint8)
    noise = rng.integers(-20, 21, a.shape)
    return a, np.clip(a + noise, 0, 255).astype(np.uint8)


@pytest.mark.skipif(not GOLDEN.is_file(), reason="no golden data beside the project")
@pytest.mark.parametrize("border", [0, 4])
@pytest.mark.parametrize("name", ["psnr", "ssim", "psnr_y", "ssim_y"])
def test_agrees_with_kairs_numbers(name, border):
    with np.load(GOLDEN) as golden:
        value = utils_metric.METRICS[name](golden["restored"], golden["gt"], border)
        assert value == pytest.approx(float(golden[f"{name}_b{border}"]), abs=1e-3)


def test_ssim_agrees_with_scikit_image(pair):
    from skimage.metrics import structural_similarity

    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    expected = structural_similarity(*pair, channel_axis=2, **options)
    assert utils_metric.ssim(*pair) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", utils_metric.METRICS)
def test_equal_images_are_perfect_and_order_does_not_matter(name, pair):
    metric = utils_metric.METRICS[name]
    assert metric(pair[0], pair[0], 0) == (np.inf if "psnr" in name else pytest.approx(1))
    assert metric(*pair, 2) == pytest.approx(metric(*pair[::-1], 2))


def test_psnr_of_a_known_error():
    a = np.full((12, 12, 3), 100, dtype=np.uint8)
    assert utils_metric.psnr(a, a + 5) == pytest.approx(20 * np.log10(255 / 5))


def test_border_is_left_out(pair):
    a, b = pair[0], pair[0].copy()
    b[:2] = 0
    assert utils_metric.psnr(a, b) < 30
    assert utils_metric.psnr(a, b, border=2) == np.inf


def test_ssim_matlab_of_a_gray_image_is_two_dimensional_inside(pair):
    # Equal channels: the Gaussian over channels changes nothing, so only the edges differ.
    gray = [np.repeat(image[:, :, :1], 3, axis=2) for image in pair]
    tiled = [np.tile(image, (8, 8, 1)) for image in gray]
    assert utils_metric.ssim_matlab_rgb(*tiled) == pytest.approx(utils_metric.ssim(*tiled), abs=5e-3)


def test_wrong_input_is_refused(pair):
    with pytest.raises(ValueError, match="uint8"):
        utils_metric.psnr(pair[0].astype(float), pair[1])
    with pytest.raises(ValueError, match="expected two"):
        utils_metric.psnr(pair[0], pair[1][:-1])
    with pytest.raises(UserError, match="11x11"):
        utils_metric.ssim(pair[0][:8], pair[1][:8])
