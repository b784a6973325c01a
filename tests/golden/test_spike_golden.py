"""A drawn stream and real spike files: every bit, and the playback picture against the sharp frame."""

import json
import zlib

import cv2
import numpy as np
import pytest
from golden_files import GOLDEN, SHARED, needs_shared

from data.spike.manifest import gopro_timing
from data.spike.representations import bins, isi, tfi, tfp
from data.spike.texture import likelier_geometry
from utils.spike_loader import num_steps, read_spikes, write_spikes
from utils.utils_colour import to_gray
from utils.utils_error import UserError

SHARP = {
    "drifting": GOLDEN / "drifting_sharp.png",
    "spkgopro_000226": SHARED / "data" / "spkgopro_000226_sharp.png",
    "reds_200_part1": SHARED / "data" / "reds_200_part1_gt.png",
}
DRAWN = "drifting"
NEEDS_GOPRO = needs_shared("data/spkgopro_000226.dat")
GOPRO = pytest.param("spkgopro_000226", marks=NEEDS_GOPRO)
NAMES = [DRAWN, GOPRO, pytest.param("reds_200_part1", marks=needs_shared("data/reds_200_part1.dat"))]


def file_of(name):
    return SHARP[name].with_name(f"{name}.dat")


def golden(name):
    path = GOLDEN / "spikes.json" if name == DRAWN else SHARED / "golden" / "spike.json"
    return json.loads(path.read_text(encoding="utf-8"))[name]


def sharp_gray(name, size):
    """(H, W) float32 in [0, 1]: gray first, then area-averaged to the spike size, as for the golden file."""
    rgb = cv2.cvtColor(cv2.imread(str(SHARP[name])), cv2.COLOR_BGR2RGB)
    gray = to_gray(rgb.astype(np.float32) / 255)
    return cv2.resize(gray, size[::-1], interpolation=cv2.INTER_AREA)


def all_spikes(name):
    return read_spikes(file_of(name), *golden(name)["shape"][1:])


def psnr_vs_gray(name, rate):
    error = np.clip(rate / golden(name)["rate"], 0, 1).astype(np.float64) - sharp_gray(name, rate.shape)
    return -10 * np.log10(np.mean(error**2))


def tfp_psnr(name, center):
    return psnr_vs_gray(name, tfp(all_spikes(name), center, golden(name)["window"]))


@pytest.mark.parametrize("name", NAMES)
def test_every_bit(name):
    numbers = golden(name)
    steps, h, w = numbers["shape"]
    assert num_steps(file_of(name), h, w) == steps
    spikes = read_spikes(file_of(name), h, w)
    assert zlib.crc32(spikes) == numbers["crc32_of_uint8_array"]
    assert spikes.mean() == pytest.approx(numbers["mean"])
    assert spikes[:5].sum(axis=(1, 2)).tolist() == numbers["ones_per_step_first5"]
    assert int(spikes[:, 0].sum()) == numbers["row0_ones"]
    assert int(spikes[:, -1].sum()) == numbers["rowlast_ones"]


@pytest.mark.parametrize("name", NAMES)
def test_windows_and_writing(name, tmp_path):
    steps, h, w = golden(name)["shape"]
    spikes = read_spikes(file_of(name), h, w)
    part = read_spikes(file_of(name), h, w, steps=(30, 51), rows=(7, 43), cols=(21, 63))
    assert np.array_equal(part, spikes[30:51, 7:43, 21:63])
    write_spikes(tmp_path / "copy.dat", spikes)
    assert (tmp_path / "copy.dat").read_bytes() == file_of(name).read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_playback_against_the_sharp_frame(name):
    numbers = golden(name)
    rate = tfp(all_spikes(name), numbers["center"], numbers["window"])
    assert rate.mean() == pytest.approx(numbers["tfp_mean"], abs=1e-6)
    assert tfp_psnr(name, numbers["center"]) == pytest.approx(numbers["tfp_psnr_vs_gray"], abs=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_intervals_against_the_sharp_frame(name):
    numbers = golden(name)
    rate, undefined = tfi(all_spikes(name), numbers["center"])
    assert undefined.mean() == numbers["tfi_undefined_fraction"]
    assert rate[~undefined].mean(dtype=np.float64) == pytest.approx(numbers["tfi_mean_defined"], abs=1e-7)
    black = np.where(undefined, 0, rate)  # the golden score calls undefined pixels black
    assert psnr_vs_gray(name, black) == pytest.approx(numbers["tfi_psnr_vs_gray"], abs=1e-5)
    assert psnr_vs_gray(name, rate) >= psnr_vs_gray(name, black)  # their mean rate is nearer to the picture


@NEEDS_GOPRO
def test_intervals_show_the_sharp_step_not_the_middle_of_the_file():
    spikes = all_spikes("spkgopro_000226")
    steps = range(36, 45)
    by_tfi = [psnr_vs_gray("spkgopro_000226", tfi(spikes, step)[0]) for step in steps]
    by_isi = [psnr_vs_gray("spkgopro_000226", rate) for rate in isi(spikes, steps)[0]]
    assert steps[int(np.argmax(by_tfi))] == 40
    assert steps[int(np.argmax(by_isi))] in (40, 41)
    for scores in (by_tfi, by_isi):
        assert scores[steps.index(40)] > scores[-1] + 0.5


@pytest.mark.parametrize("name", [DRAWN, GOPRO])
def test_the_middle_bin_of_the_exposure_is_the_sharpest(name):
    timing = gopro_timing("GOPR0384_11_00")
    scores = [psnr_vs_gray(name, plane) for plane in bins(all_spikes(name)[slice(*timing.exposure)], 5)]
    assert int(np.argmax(scores)) == 2
    assert scores[2] > max(scores[0], scores[-1]) + 3


@NEEDS_GOPRO
def test_gopro_sharp_frame_stands_at_4n_minus_4_not_in_the_middle():
    at_40, at_44 = tfp_psnr("spkgopro_000226", 40), tfp_psnr("spkgopro_000226", 44)
    assert gopro_timing("GOPR0384_11_00").sharp_step == 40
    assert at_40 == pytest.approx(27.51, abs=0.05)
    assert at_44 == pytest.approx(golden("spkgopro_000226")["tfp_psnr_at_center_44"], abs=1e-3)
    assert at_40 > at_44 + 0.9


@pytest.mark.parametrize("name", NAMES)
def test_geometry_check_trusts_the_right_size(name):
    _, h, w = golden(name)["shape"]
    assert likelier_geometry(file_of(name), h, w) is None


@NEEDS_GOPRO
@pytest.mark.parametrize("declared", [(180, 320), (720, 1280)])
def test_geometry_check_unmasks_sizes_that_divide_the_file(declared):
    num_steps(file_of("spkgopro_000226"), *declared)
    assert likelier_geometry(file_of("spkgopro_000226"), *declared) == (360, 640)


@NEEDS_GOPRO
def test_gopro_file_is_not_250x400():
    with pytest.raises(UserError, match=r"remainder 9400.*360x640"):
        num_steps(file_of("spkgopro_000226"), 250, 400)


@needs_shared("data/real_capture_uhsr.npz")
def test_geometry_check_trusts_a_real_sensor(tmp_path):
    spikes = np.load(SHARED / "data" / "real_capture_uhsr.npz")["spk"][:, :248, :248]
    write_spikes(tmp_path / "real.dat", spikes)
    assert likelier_geometry(tmp_path / "real.dat", 248, 248) is None
