"""Representations as the data sets give them: one time axis, units of intensity, the same on train and test sets."""

import numpy as np
import pytest
import torch
from tiny_set import RATE, SHARP, SPIKE_SIZE, STEPS, make_set, options

from data.dataset_video_test import VideoTestDataset
from data.dataset_video_train_rgbspike import VideoTrainDatasetRGBSpike
from data.geometry import Box
from data.spike.manifest import ClipTiming, Manifest
from data.spike.planes import REPRESENTATIONS, middles
from data.spike.representations import bins, isi, raw_window, sdm, tfi
from utils.spike_loader import read_spikes, write_spikes

EXPOSURE = (2, 20)  # tiny_set's
ASKED = {"tfp": 1, "tfi": 1, "bins": 3, "isi": 4, "raw_window": 9, "sdm": 3}
WHOLE = Box(0, 0, *SPIKE_SIZE)


def asked(name, **changes):
    spike = {"representation": name, "window": 9, "edge": "mirror"}
    return {"spike": spike | changes.pop("spike", {}), "spike_channels": ASKED[name]} | changes


def real(root, clip="clip_a", frame="000048"):
    return read_spikes(root / "spikes/train" / clip / "spike" / f"{frame}.dat", *SPIKE_SIZE)


def expected(name, spikes, blur):
    """(S, h, w) from the pure functions, on the whole file."""
    exposed = spikes[slice(*EXPOSURE)]
    around = spikes[SHARP - 4 : SHARP + 5]
    if name == "tfp":
        return around.mean(axis=0, dtype=np.float64)[None] / RATE
    if name == "tfi":
        return tfi(exposed, SHARP - EXPOSURE[0])[0][None] / RATE
    if name == "bins":
        return bins(exposed, 3) / RATE
    if name == "isi":
        return isi(exposed, [step - EXPOSURE[0] for step in middles(EXPOSURE, 4)])[0] / RATE
    if name == "raw_window":
        return raw_window(spikes, SHARP, 9) / RATE
    rates = [part.mean(axis=0, dtype=np.float32) for part in (around, exposed)]
    return sdm(blur / np.float32(255), *rates).transpose(2, 0, 1)


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_planes_are_what_the_pure_functions_make_of_the_file(shared_set, name):
    dataset = VideoTrainDatasetRGBSpike(options(shared_set, **asked(name)))
    blur = dataset.lq.read("clip_a", "000048")
    ratio = 2 if name == "sdm" else 1
    planes = dataset.spikes.planes("clip_a", "000048", WHOLE, ratio, blur)
    wanted = expected(name, real(shared_set), blur)
    assert planes.shape == (ASKED[name], *(side * ratio for side in SPIKE_SIZE))
    assert planes.dtype == np.float32
    assert np.allclose(planes, wanted, atol=1e-6)


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_planes_of_a_box_are_that_box_of_the_planes(shared_set, name):
    dataset = VideoTrainDatasetRGBSpike(options(shared_set, **asked(name)))
    blur = dataset.lq.read("clip_a", "000048")
    whole = dataset.spikes.planes("clip_a", "000048", WHOLE, 2, blur)
    for top, left in ((0, 0), (3, 5), (8, 16)):
        box = Box(top, left, 8, 8)
        inner = box.scaled(2)
        planes = dataset.spikes.planes("clip_a", "000048", box, 2, blur[inner.rows, inner.cols])
        assert np.allclose(planes, whole[:, inner.rows, inner.cols], atol=1e-6)


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_train_and_test_sets_give_the_same_planes(shared_set, name):
    still = {"use_hflip": False, "use_rot": False, "random_reverse": False, "num_frame": 1, "gt_size": 32}
    train = VideoTrainDatasetRGBSpike(options(shared_set, **asked(name), **still))
    test = VideoTestDataset(options(shared_set, "Test", **asked(name))).clips[0]
    whole = test.network_input(1, 2)
    assert whole.shape == (1, 3 + ASKED[name], 32, 48)
    sample = train.sample(1, np.random.default_rng(0))
    both = torch.cat([sample["lq"], sample["spike"]], dim=1)
    lefts = [left for left in range(0, 17, 2) if torch.equal(both[:, :3], whole[:, :3, :, left : left + 32])]
    assert len(lefts) == 1
    assert torch.allclose(both, whole[..., lefts[0] : lefts[0] + 32], atol=1e-6)


def test_raw_bits_stay_bits_on_the_rgb_grid(shared_set):
    source = VideoTrainDatasetRGBSpike(options(shared_set, **asked("raw_window"))).spikes
    planes = source.planes("clip_a", "000048", WHOLE, 2)
    assert set(np.unique(planes)) == {0, 1 / RATE}
    assert np.array_equal(planes[:, ::2, 1::2] * RATE, raw_window(real(shared_set), SHARP, 9))


def test_bins_of_a_reversed_sample_run_backwards(shared_set):
    source = VideoTrainDatasetRGBSpike(options(shared_set, **asked("bins"))).spikes
    forward, backward = (source.planes("clip_a", "000048", WHOLE, 1, reverse=reverse) for reverse in (False, True))
    assert np.allclose(backward, forward[::-1])


def test_gray_sdm_is_the_gray_of_rgb_sdm(shared_set):
    gray = VideoTestDataset(options(shared_set, "Test", **asked("sdm", spike_channels=1))).clips[0].spike(1, 2)
    rgb = VideoTestDataset(options(shared_set, "Test", **asked("sdm"))).clips[0].spike(1, 2)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    assert torch.allclose(gray[0, 0], (rgb[0] * weights).sum(0), atol=1e-5)


def test_sdm_undoes_a_gain_that_the_manifest_does_not_know(tmp_path):
    """Twice the rate everywhere: tfp doubles, sdm stays."""
    rng = np.random.default_rng(3)
    make_set(tmp_path, clips=("clip_a",), frames=1, timing=ClipTiming(steps=STEPS, exposure=(0, 24), sharp_step=10))
    path = next(tmp_path.rglob("*.dat"))
    half = (rng.random((12, *SPIKE_SIZE)) < 0.4).astype(np.uint8)
    seen = {}
    for gain, spikes in ((1, np.stack([half, 0 * half], 1)), (2, np.stack([half, half], 1))):
        write_spikes(path, spikes.reshape(STEPS, *SPIKE_SIZE))
        for name in ("tfp", "sdm"):
            spike = {"spike": {"window": 23, "center": 11}}
            clip = VideoTestDataset(options(tmp_path, "Test", **asked(name, **spike))).clips[0]
            seen[name, gain] = clip.spike(0, 1).numpy()
    assert seen["tfp", 2].mean() > 1.9 * seen["tfp", 1].mean()
    assert np.abs(seen["sdm", 2] - seen["sdm", 1]).mean() < 0.05 * seen["sdm", 1].mean()


def test_planes_of_linear_light_are_encoded_but_bits_are_not(tmp_path):
    make_set(tmp_path)
    manifest = Manifest.load(tmp_path / "spikes/train")
    manifest.model_copy(update={"transfer": "linear"}).save(tmp_path / "spikes")
    bits = VideoTrainDatasetRGBSpike(options(tmp_path, **asked("raw_window"))).spikes
    assert set(np.unique(bits.planes("clip_a", "000048", WHOLE, 1))) == {0, 1 / RATE}
    rates = VideoTrainDatasetRGBSpike(options(tmp_path, **asked("bins"))).spikes.planes("clip_a", "000048", WHOLE, 1)
    plain = bins(real(tmp_path)[slice(*EXPOSURE)], 3) / RATE
    assert (rates - plain)[(plain > 0.05) & (plain < 0.9)].min() > 0


def test_middles_are_the_middles_of_the_bins():
    assert middles((0, 81), 1) == [40]
    assert middles((0, 12), 4) == [1, 4, 7, 10]
    assert middles((5, 23), 3) == [7, 13, 19]


def test_a_pixel_without_an_interval_has_its_mean_rate(tmp_path):
    """Finite and in units of intensity on the RGB grid as well."""
    make_set(tmp_path, clips=("clip_a",), frames=1)
    spikes = np.zeros((STEPS, *SPIKE_SIZE), np.uint8)
    spikes[6] = 1  # nothing after the sharp step
    write_spikes(next(tmp_path.rglob("*.dat")), spikes)
    plane = VideoTestDataset(options(tmp_path, "Test", **asked("tfi"))).clips[0].spike(0, 1)
    assert np.allclose(plane, 1 / (EXPOSURE[1] - EXPOSURE[0]) / RATE)
