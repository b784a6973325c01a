import hashlib
import importlib.util
import math

import cv2
import numpy as np
import pytest
from golden_files import SHARED, needs_shared

from utils import utils_metric
from utils.evaluation import compared, lpips_metric
from utils.evaluation.compared import Motion, Pair, View
from utils.utils_error import UserError
from utils.utils_metric import METRICS, TEMPORAL_METRICS

GOLDEN = SHARED / "golden" / "metrics_bikes.npz"
SHARP = SHARED / "data" / "spkgopro_000226_sharp.png"
SELF_CONTAINED = [name for name in METRICS if name != "lpips"]


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (24, 33, 3), dtype=np.uint8)
    noise = rng.integers(-20, 21, a.shape)
    return a, np.clip(a + noise, 0, 255).astype(np.uint8)


@needs_shared("golden/metrics_bikes.npz")
@pytest.mark.parametrize("border", [0, 4])
@pytest.mark.parametrize("name", ["psnr", "ssim", "psnr_y", "ssim_y"])
def test_agrees_with_kairs_numbers(name, border):
    with np.load(GOLDEN) as golden:
        value = METRICS[name](golden["restored"], golden["gt"], border)
        assert value == pytest.approx(float(golden[f"{name}_b{border}"]), abs=1e-3)


def test_ssim_agrees_with_scikit_image(pair):
    from skimage.metrics import structural_similarity

    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    expected = structural_similarity(*pair, channel_axis=2, **options)
    assert METRICS["ssim"](*pair) == pytest.approx(expected, abs=1e-6)


def test_psnr_of_a_known_error():
    a = np.full((12, 12, 3), 100, dtype=np.uint8)
    assert METRICS["psnr"](a, a + 5) == pytest.approx(20 * np.log10(255 / 5))


def test_border_is_left_out(pair):
    a, b = pair[0], pair[0].copy()
    b[:2] = 0
    assert METRICS["psnr"](a, b) < 30
    assert METRICS["psnr"](a, b, border=2) == np.inf


def window_by_window(a, b):
    """MATLAB's SSIM of an RGB array as its formula reads: an 11x11x11 Gaussian window around each value."""
    steps = np.arange(-5, 6)
    window = np.exp(-sum(axis**2 for axis in np.meshgrid(steps, steps, steps, indexing="ij")) / (2 * 1.5**2))
    window /= window.sum()
    a, b = (np.pad(image.astype(float), 5, mode="edge") for image in (a, b))
    values = []
    for at in np.ndindex(*(side - 10 for side in a.shape)):
        place = tuple(slice(start, start + 11) for start in at)
        x, y = a[place], b[place]
        mean_x, mean_y = (window * x).sum(), (window * y).sum()
        var_x, var_y = (window * x**2).sum() - mean_x**2, (window * y**2).sum() - mean_y**2
        covariance = (window * x * y).sum() - mean_x * mean_y
        luminance = (2 * mean_x * mean_y + 2.55**2) / (mean_x**2 + mean_y**2 + 2.55**2)
        values.append(luminance * (2 * covariance + 7.65**2) / (var_x + var_y + 7.65**2))
    return np.mean(values)


def test_ssim_matlab_is_that_of_windows_in_three_dimensions(pair):
    assert METRICS["ssim_matlab_rgb"](*pair) == pytest.approx(window_by_window(*pair), abs=1e-9)


@needs_shared("data/spkgopro_000226_sharp.png")
@pytest.mark.parametrize(("name", "recorded"), [("ssim", 0.9232), ("ssim_y", 0.9310)])
def test_gives_the_numbers_that_kair_and_spkdeblurnet_give_for_a_blurred_frame(name, recorded):
    sharp = View(cv2.imread(str(SHARP))[..., ::-1].copy(), 0)
    blurred = View(sharp.pixels, 0)
    blurred.rgb = cv2.GaussianBlur(sharp.rgb, (0, 0), 1.2)  # not rounded to uint8, as it was recorded
    assert METRICS[name].of_pair(Pair(blurred, sharp)) == pytest.approx(recorded, abs=5.1e-5)


@pytest.mark.parametrize("border", [0, 3])
def test_measuring_together_gives_what_each_metric_gives(border, pair):
    images = {"": pair[1], "lq_": 255 - pair[1]}
    found = utils_metric.measure(images, pair[0], SELF_CONTAINED, border)
    expected = {
        prefix + name: METRICS[name](image, pair[0], border)
        for prefix, image in images.items()
        for name in SELF_CONTAINED
    }
    assert list(found.items()) == list(expected.items())


def test_the_sharp_image_is_blurred_once_for_all_images(pair, monkeypatch):
    blur, calls = compared._blur, []
    monkeypatch.setattr(compared, "_blur", lambda plane: calls.append(plane.shape) or blur(plane))
    utils_metric.measure({"": pair[1], "lq_": pair[1], "sdm_": pair[0]}, pair[0], SELF_CONTAINED)
    assert len(calls) == 2 * (1 + 3 * 3)  # RGB and luma: the sharp mean, then mean, product and squares of each


def tof(before, after, *sharp):
    return TEMPORAL_METRICS["tof"].of_motion(Motion(before, after), Motion(*sharp))


def scene(shift, seed=0):
    """(96, 128, 3): a smooth texture, moved right by `shift` pixels."""
    texture = np.random.default_rng(seed).random((96, 160, 3)).astype(np.float32)
    texture = cv2.normalize(cv2.GaussianBlur(texture, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
    return texture[:, 16 - shift : 144 - shift].astype(np.uint8)


def test_tof_is_how_many_pixels_the_motion_is_wrong():
    sharp = scene(0), scene(3)
    assert tof(*sharp, *sharp) == 0
    assert tof(scene(0), scene(0), *sharp) == pytest.approx(3, rel=0.15)
    assert tof(scene(0), scene(2), *sharp) == pytest.approx(1, rel=0.15)


def test_tof_sees_flicker_that_psnr_does_not():
    sharp = scene(0), scene(1)
    noise = np.random.default_rng(1).integers(-25, 26, (2, *sharp[0].shape))
    steady, flickering = (
        [np.clip(s + n, 0, 255).astype(np.uint8) for s, n in zip(sharp, of, strict=True)]
        for of in ((noise[0], np.roll(noise[0], 1, axis=1)), noise)
    )
    assert METRICS["psnr"](steady[1], sharp[1]) == pytest.approx(METRICS["psnr"](flickering[1], sharp[1]), abs=0.1)
    assert tof(*steady, *sharp) < 0.6 * tof(*flickering, *sharp)


def test_measuring_motion_together_gives_what_each_metric_gives():
    sharp = scene(0), scene(1)
    images = {"": (scene(0), scene(2)), "lq_": (scene(1), scene(1))}
    found = utils_metric.measure_motion(images, sharp, ["tof"])
    assert found == {f"{prefix}tof": tof(*pair, *sharp) for prefix, pair in images.items()}
    assert utils_metric.measure_motion(images, sharp, []) == {}


def test_infinite_values_do_not_hide_the_others():
    assert utils_metric.mean_of([30.0, math.inf, 40.0]) == 35
    assert utils_metric.mean_of([math.inf, math.inf]) == math.inf
    assert math.isnan(utils_metric.mean_of([30.0, math.nan]))
    with pytest.raises(ValueError, match="no values"):
        utils_metric.mean_of([])
    rows = [{"clip": "a", "psnr": math.inf, "ssim": 1.0, "lq_psnr": 20.0}, {"clip": "a", "psnr": 30.0}]
    assert utils_metric.equal_frames(rows) == {"psnr": 1}


def test_protocols_name_metrics_that_exist_and_average_their_own_way():
    clips = {name: 1.0 + at for at, name in enumerate(SELF_CONTAINED)}
    frames = {name: value + 100 for name, value in clips.items()}
    found = utils_metric.by_protocol(clips, frames)
    assert set(found) == {"kair", "vrt_paper", "spkdeblur"}
    assert found["kair"]["metrics"] == {name: clips[name] for name in ("psnr", "ssim", "psnr_y", "ssim_y")}
    assert found["vrt_paper"]["metrics"] == {"psnr": frames["psnr"], "ssim": frames["ssim_matlab_rgb"]}
    assert found["spkdeblur"]["metrics"] == {"psnr": frames["psnr"], "ssim": frames["ssim_y"]}
    assert found["vrt_paper"]["mean_of_clips"] == {"psnr": clips["psnr"], "ssim": clips["ssim_matlab_rgb"]}
    assert found["kair"]["mean_over_frames"]["psnr_y"] == frames["psnr_y"]
    for name, protocol in utils_metric.PROTOCOLS.items():
        assert found[name]["averaging"] == protocol.averaging
        assert found[name]["description"] == protocol.description
        assert set(protocol.metrics.values()) <= set(METRICS)


def test_a_protocol_needs_all_its_metrics_and_takes_the_prefixes_that_have_them():
    mean = {"psnr": 30.0, "ssim_y": 0.9, "lq_psnr": 20.0, "lq_ssim_y": 0.7, "sdm_psnr": 25.0}
    found = utils_metric.by_protocol(mean, mean)
    assert set(found) == {"spkdeblur"}
    assert found["spkdeblur"]["metrics"] == {"psnr": 30.0, "ssim": 0.9, "lq_psnr": 20.0, "lq_ssim": 0.7}
    assert utils_metric.by_protocol({}, {}) == {}


def test_lpips_says_what_is_missing(tmp_path, monkeypatch):
    utils_metric.check_available(SELF_CONTAINED)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="lpips.*not installed.*pip install lpips"):
        utils_metric.check_available(["psnr", "lpips"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    weights = tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    with pytest.raises(UserError, match=rf"{weights} is missing.*download\.pytorch\.org"):
        utils_metric.check_available(["lpips"])
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"half a file")
    with pytest.raises(UserError, match=f"{weights} is damaged"):
        utils_metric.check_available(["lpips"])
    own = f"alexnet-owt-{hashlib.sha256(b'half a file').hexdigest()[:8]}.pth"
    monkeypatch.setattr(lpips_metric, "ALEXNET", own)
    weights.rename(weights.with_name(own))
    utils_metric.check_available(["lpips"])


def test_lpips_is_zero_for_equal_images_only(pair):
    try:
        utils_metric.check_available(["lpips"])
    except UserError as error:
        pytest.skip(str(error))
    large = [np.tile(image, (4, 4, 1)) for image in pair]
    assert METRICS["lpips"](large[0], large[0]) == 0
    assert METRICS["lpips"](*large) > 0


def test_wrong_input_is_refused(pair):
    with pytest.raises(ValueError, match="uint8"):
        METRICS["psnr"](pair[0].astype(float), pair[1])
    with pytest.raises(ValueError, match="expected two"):
        METRICS["psnr"](pair[0], pair[1][:-1])
    with pytest.raises(UserError, match="11x11"):
        METRICS["ssim"](pair[0][:8], pair[1][:8])
    with pytest.raises(UserError, match="border of 12 pixels"):
        METRICS["psnr"](*pair, 12)


@pytest.mark.parametrize("name", ["psnr", "ssim", "psnr_y", "ssim_y"])
def test_the_metrics_that_others_import_take_two_images_and_a_border(name):
    a, b = (np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8) for seed in (0, 1))
    assert getattr(utils_metric, name)(a, b, border=2) == METRICS[name](a[2:-2, 2:-2], b[2:-2, 2:-2])
