"""Representations as the data sets give them: one time axis, units of intensity, the same on train and test sets."""

import numpy as np
import pytest
import tiny_set
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_set import RATE, SHARP, SPIKE_SIZE, STEPS, intensities, make_set, options, sdm

from data.dataset_video_test import VideoTestDataset
from data.dataset_video_train_rgbspike import VideoTrainDatasetRGBSpike
from data.geometry import Box
from data.lmdb_store import lmdb_path
from data.loader import train_batches
from data.prepare import lmdb_writer
from data.prepare.lmdb_sources import DatFiles
from data.spike.manifest import ClipTiming, Manifest
from data.spike.planes import REPRESENTATIONS, StepWindow, middles, moment_counts, steps_per_plane
from data.spike.representations import bins, isi, raw_window, tfi
from utils.spike_loader import read_spikes, write_spikes
from utils.utils_rgbspike import RGBSpike

EXPOSURE = (2, 20)  # tiny_set's
ASKED = {"tfp": 1, "tfi": 1, "bins": 3, "isi": 4, "raw_window": 9, "moment": 7, "sdm": 3}
COUNTS = ("raw_window", "moment")  # uint8, with a scale
WHOLE = Box(0, 0, *SPIKE_SIZE)
CPU = torch.device("cpu")


def asked(name, **changes):
    spike = {"representation": name, "window": 9, "planes": 5, "edge": "mirror"}
    return {"spike": spike | changes.pop("spike", {}), "spike_channels": ASKED[name]} | changes


def real(root, clip="clip_a", frame="000048"):
    return read_spikes(root / "spikes/train" / clip / "spike" / f"{frame}.dat", *SPIKE_SIZE)


def expected(name, spikes, blur):
    """(S, h, w) in intensity, from the pure functions, on the whole file."""
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
    if name == "moment":
        around = spikes[SHARP - 7 : SHARP + 8]  # 5 planes of 3 steps cover half of the exposure's 18, those of 1 do not
        gain = np.dot(blur.mean(axis=(0, 1)), (0.299, 0.587, 0.114)) / 255 / exposed.mean()
        count = exposed.sum(axis=0)
        return gain * np.stack([*bins(around, 5), (count % 256) / 18, (count - count % 256) / 18])
    rates = [part.mean(axis=0, dtype=np.float32) for part in (around, exposed)]
    return sdm(blur / np.float32(255), *rates).transpose(2, 0, 1)


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_planes_are_what_the_pure_functions_make_of_the_file(shared_set, name):
    dataset = VideoTrainDatasetRGBSpike(options(shared_set, **asked(name)))
    blur = dataset.lq.read("clip_a", "000048")
    ratio = 2 if name == "sdm" else 1
    made = dataset.spikes.planes("clip_a", "000048", WHOLE, ratio, blur)
    wanted = expected(name, real(shared_set), blur)
    assert made.planes.shape == (ASKED[name], *(side * ratio for side in SPIKE_SIZE))
    assert made.planes.dtype == (np.uint8 if name in COUNTS else np.float32)
    assert (made.scale is not None) == (name in COUNTS)
    assert np.allclose(intensities(made), wanted, atol=1e-6)


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_planes_of_a_box_are_that_box_of_the_planes(shared_set, name):
    dataset = VideoTrainDatasetRGBSpike(options(shared_set, **asked(name)))
    blur = dataset.lq.read("clip_a", "000048")
    whole = intensities(dataset.spikes.planes("clip_a", "000048", WHOLE, 2, blur))
    for top, left in ((0, 0), (3, 5), (8, 16)):
        box = Box(top, left, 8, 8)
        inner = box.scaled(2)
        planes = intensities(dataset.spikes.planes("clip_a", "000048", box, 2, blur[inner.rows, inner.cols]))
        own = inner if name == "sdm" else box
        assert np.allclose(planes, whole[:, own.rows, own.cols], atol=1e-6)


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_train_and_test_sets_give_the_same_planes(shared_set, name):
    still = {"use_hflip": False, "use_rot": False, "random_reverse": False, "num_frame": 1, "gt_size": 32}
    train = VideoTrainDatasetRGBSpike(options(shared_set, **asked(name), **still))
    test = VideoTestDataset(options(shared_set, "Test", **asked(name))).clips[0]
    whole = test.network_input(1, 2)
    own = (32, 48) if name == "sdm" else SPIKE_SIZE
    assert (whole.shape, whole.spike.shape) == ((1, 3, 32, 48), (1, ASKED[name], *own))
    sample = train.sample(1, np.random.default_rng(0))
    assert sample["spike"].dtype == whole.spike.dtype
    lefts = [left for left in range(0, 17, 2) if torch.equal(sample["lq"], whole.rgb[..., left : left + 32])]
    assert len(lefts) == 1
    both = RGBSpike(sample["lq"], sample["spike"], sample.get("spike_scale"))
    part = whole[..., slice(0, 32), slice(lefts[0], lefts[0] + 32)]
    for one, other in zip(both.tensors(CPU), part.tensors(CPU), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_raw_bits_stay_bits(shared_set):
    source = VideoTrainDatasetRGBSpike(options(shared_set, **asked("raw_window"))).spikes
    made = source.planes("clip_a", "000048", WHOLE, 2)
    assert np.array_equal(made.planes, raw_window(real(shared_set), SHARP, 9))
    assert (made.scale == 1 / RATE).all()


@pytest.mark.parametrize(("name", "count"), [("bins", 3), ("moment", 5), ("raw_window", 9)])
def test_planes_of_a_reversed_sample_run_backwards(shared_set, name, count):
    source = VideoTrainDatasetRGBSpike(options(shared_set, **asked(name))).spikes
    forward, backward = (
        intensities(source.planes("clip_a", "000048", WHOLE, 1, reverse=reverse)) for reverse in (False, True)
    )
    assert np.allclose(backward[:count], forward[:count][::-1])
    assert np.array_equal(backward[count:], forward[count:])


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
    assert set(np.unique(intensities(bits.planes("clip_a", "000048", WHOLE, 1)))) == {0, 1 / RATE}
    made = VideoTrainDatasetRGBSpike(options(tmp_path, **asked("bins"))).spikes.planes("clip_a", "000048", WHOLE, 1)
    rates = intensities(made)
    plain = bins(real(tmp_path)[slice(*EXPOSURE)], 3) / RATE
    assert (rates - plain)[(plain > 0.05) & (plain < 0.9)].min() > 0


def test_middles_are_the_middles_of_the_bins():
    assert middles((0, 81), 1) == [40]
    assert middles((0, 12), 4) == [1, 4, 7, 10]
    assert middles((5, 23), 3) == [7, 13, 19]


def test_a_pixel_without_an_interval_has_its_mean_rate(tmp_path):
    make_set(tmp_path, clips=("clip_a",), frames=1)
    spikes = np.zeros((STEPS, *SPIKE_SIZE), np.uint8)
    spikes[6] = 1  # nothing after the sharp step
    write_spikes(next(tmp_path.rglob("*.dat")), spikes)
    plane = VideoTestDataset(options(tmp_path, "Test", **asked("tfi"))).clips[0].spike(0, 1)
    assert np.allclose(plane, 1 / (EXPOSURE[1] - EXPOSURE[0]) / RATE)


# Moments


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_moment_counts_the_spikes_of_its_parts_and_of_the_exposure(data):
    count, each = data.draw(st.sampled_from([1, 3, 5])), data.draw(st.sampled_from([1, 3, 5, 255]))
    before, after = data.draw(st.integers(0, 9)), data.draw(st.integers(0, 9))
    steps = before + count * each + after
    first = data.draw(st.integers(0, steps - 1))
    exposure = first, data.draw(st.integers(first + 1, steps))
    rate = data.draw(st.sampled_from([0.0, 0.3, 1.0]))
    spikes = (np.random.default_rng(steps).random((steps, 2, 3)) < rate).astype(np.uint8)
    moment = StepWindow(spikes, before + count * each // 2, exposure)
    planes = moment_counts(moment, count * each, count + 2)
    assert (planes.shape, planes.dtype) == ((count + 2, 2, 3), np.uint8)
    for k in range(count):
        part = spikes[before + k * each : before + (k + 1) * each]
        assert np.array_equal(planes[k], part.sum(axis=0))
    low, high = planes[count:].astype(int)
    assert np.array_equal(low + 256 * high, spikes[slice(*exposure)].sum(axis=0))
    mirrored = moment_counts(moment.reversed(), count * each, count + 2)
    assert np.array_equal(mirrored, np.concatenate((planes[:count][::-1], planes[count:])))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 20).map(lambda half: 2 * half + 1), st.integers(1, 3000))
def test_planes_of_a_moment_cover_half_of_the_exposure_and_hardly_more(planes, length):
    each = steps_per_plane(planes, (7, 7 + length))
    assert each % 2 == 1
    assert 2 * planes * each >= length
    assert each == 1 or 2 * planes * (each - 2) < length


def moments(root, **spike):
    opt = options(root, "Test", spike={"representation": "moment", "planes": 5} | spike, spike_channels=7)
    return VideoTestDataset(opt).clips[0]


def test_a_sensor_of_twice_the_threshold_gives_the_same_intensities(own_set):
    """It fires at every second spike of each pixel; the picture's gain knows nothing else of the sensor."""
    full, told = (moments(own_set, gain=gain).spike(0, 5) for gain in ("picture", "manifest"))
    for path in own_set.rglob("*.dat"):
        spikes = read_spikes(path, *SPIKE_SIZE)
        write_spikes(path, spikes * (np.cumsum(spikes, axis=0) % 2 == 0))
    half, misled = (moments(own_set, gain=gain).spike(0, 5) for gain in ("picture", "manifest"))
    for planes, steps in ((slice(5), 3), (slice(5, 7), EXPOSURE[1] - EXPOSURE[0])):
        one, other = (found[:, planes].sum(1) if steps > 3 else found[:, planes] for found in (full, half))
        spike = 2 * one.max() / steps  # at least what one count means after thinning
        assert (one - other).abs().max() <= 1.05 * spike
        assert other.mean().item() == pytest.approx(one.mean().item(), rel=0.02)
    assert misled[:, 5:].sum(1).mean().item() == pytest.approx(told[:, 5:].sum(1).mean().item() / 2, rel=0.1)


def test_the_mean_of_the_exposure_is_the_mean_gray_of_the_picture(shared_set):
    clip = moments(shared_set)
    for frame in range(5):
        gray = (clip.lq(frame, frame + 1)[0] * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0).mean()
        assert clip.spike(frame, frame + 1)[0, 5:].sum(0).mean().item() == pytest.approx(gray.item(), rel=1e-5)


def test_without_a_spike_a_moment_is_black(own_set):
    for path in own_set.rglob("*.dat"):
        write_spikes(path, np.zeros((STEPS, *SPIKE_SIZE), np.uint8))
    assert not moments(own_set).spike(0, 5).any()


@pytest.mark.parametrize("size", [(16, 24), (6, 20), (8, 1)])  # rows that are no whole bytes too
@pytest.mark.parametrize("exposure", [(2, 20), (9, 16), (0, 24)])
@pytest.mark.parametrize("stored", ["files", "lmdb"])
def test_the_rate_of_an_exposure_is_the_mean_of_its_steps(tmp_path, monkeypatch, size, exposure, stored):
    monkeypatch.setattr(tiny_set, "SPIKE_SIZE", size)
    make_set(tmp_path, clips=("clip_a",), frames=2, timing=ClipTiming(steps=STEPS, exposure=exposure, sharp_step=SHARP))
    folder = tmp_path / "spikes/train"
    if stored == "lmdb":
        lmdb_writer.write_lmdbs([(DatFiles(folder, size), lmdb_path(folder))], workers=1)
    root = folder if stored == "files" else lmdb_path(folder)
    reader = VideoTestDataset(options(tmp_path, "Test", dataroot_spike=str(root))).clips[0]._spikes.reader
    for frame in ("000047", "000048"):
        spikes = read_spikes(folder / "clip_a/spike" / f"{frame}.dat", *size)
        assert reader.exposure_rate("clip_a", frame) == pytest.approx(spikes[slice(*exposure)].mean(), rel=1e-12)


def test_a_batch_has_the_counts_of_its_samples_and_what_they_mean(shared_set):
    dataset = VideoTrainDatasetRGBSpike(options(shared_set, **asked("moment")))
    (batch,) = train_batches(dataset, seed=0, start_step=0, total_steps=1, batch_size=3, num_workers=0)
    assert (batch["lq"].shape, batch["spike"].shape) == ((3, 3, 3, 16, 16), (3, 3, 7, 8, 8))
    assert (batch["spike"].dtype, batch["spike_scale"].dtype) == (torch.uint8, torch.float32)
    assert batch["spike_scale"].shape == (3, 3, 7)
    torch.testing.assert_close(batch["spike_scale"][..., 6], 256 * batch["spike_scale"][..., 5])
    torch.testing.assert_close(batch["spike_scale"][..., 0] * 3, batch["spike_scale"][..., 5] * 18)
