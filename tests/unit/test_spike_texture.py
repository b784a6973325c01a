"""What a stream says about its own step length, width and bit order."""

import numpy as np
import pytest
import skimage.data
from spike_scenes import GOPRO, REDS, UHSR, fire, pack, real_file, scene

from data.spike.simulator import integrate_and_fire
from data.spike.texture import (
    PERIODIC_MIN,
    bit_order,
    find_geometry,
    likelier_geometry,
    likelier_size,
    mean_plane,
    periodicity,
    row_difference,
    search_geometry,
    suits_better,
)
from utils.spike_loader import SIZES_IN_USE, write_spikes
from utils.utils_error import UserError


def divisions(pixels, true, most, smallest=24):
    """Other heights and widths that divide a stream of `pixels` bits evenly into two steps or more; about `most`."""
    found = []
    for width in range(smallest, 1500):
        for height in (true[0] // 2, true[0], true[0] * 2, true[1], true[0] * true[1] // width):
            step = height * width
            good = height >= smallest and step % 8 == 0 and pixels % step == 0 and pixels > step
            if good and (height, width) != true:
                found.append((height, width))
    found = sorted(set(found))
    return found[:: max(1, len(found) // most)]


def photograph(name, h, w, steps, noise):
    """A photograph before an ideal sensor, with fixed-pattern noise."""
    picture = getattr(skimage.data, name)()
    picture = picture if picture.ndim == 2 else picture.mean(axis=2)
    rows, columns = (np.arange(n) * size // n for n, size in zip((h, w), picture.shape, strict=True))
    rng = np.random.default_rng(3)
    light = picture[np.ix_(rows, columns)].astype(np.float32) / 255
    light = np.clip(light * (1 + noise * rng.standard_normal((h, w))), 0, 1).astype(np.float32)
    return pack(integrate_and_fire(np.broadcast_to(light, (steps, h, w)), 2.0, rng)[0])


def uhsr():
    """The real capture as a .dat can hold it: 248x248, since 250x250 is no whole number of bytes."""
    return pack(np.load(real_file(UHSR))["spk"][:, 1:249, 1:249])


def real_streams():
    gopro, reds = np.fromfile(real_file(GOPRO), np.uint8), np.fromfile(real_file(REDS), np.uint8)
    return {
        "gopro": (gopro, (360, 640)),
        "gopro second half": (gopro[44 * 28_800 :], (360, 640)),
        "reds": (reds, (250, 400)),
        "reds first half": (reds[: 150 * 12_500], (250, 400)),
        "uhsr": (uhsr(), (248, 248)),
    }


PHOTOGRAPHS = [
    ("astronaut", 360, 640, 16, 0.0),
    ("chelsea", 180, 320, 48, 0.0),
    ("camera", 384, 384, 40, 0.1),
    ("coffee", 500, 800, 16, 0.1),
    ("brick", 250, 400, 40, 0.0),
]


@pytest.mark.parametrize(
    ("true", "steps", "declared"),
    [
        ((360, 640), 24, (180, 320)),
        ((360, 640), 24, (720, 1280)),
        ((250, 400), 40, (500, 800)),
        ((250, 400), 40, (400, 250)),
        ((180, 320), 96, (360, 640)),
        ((384, 384), 24, (96, 128)),
        ((384, 384), 50, (360, 640)),
    ],
)
def test_geometry_check_finds_the_right_size(tmp_path, true, steps, declared):
    path = tmp_path / "a.dat"
    write_spikes(path, fire(scene(*true), steps, np.random.default_rng(1)))
    assert likelier_geometry(path, *declared) == true
    assert likelier_geometry(path, *true) is None


@pytest.mark.parametrize("case", PHOTOGRAPHS, ids=lambda case: case[0])
def test_photographs_are_never_doubted_and_always_found(case):
    name, h, w, steps, noise = case
    packed = photograph(name, h, w, steps, noise)
    assert likelier_size(packed, h, w) is None
    assert find_geometry(packed) == (h, w)
    for declared in divisions(packed.size * 8, (h, w), most=1):
        assert likelier_size(packed, *declared) == (h, w), declared


@pytest.mark.parametrize(("true", "multiple"), [((72, 128), 16), ((48, 80), 15), ((64, 96), 24), ((90, 160), 4)])
def test_several_steps_of_a_small_sensor_are_not_one_of_a_sensor_in_use(true, multiple):
    steps = multiple * (1 + 3000 // (multiple * true[0]))
    streams = [pack(fire(scene(*true), steps, np.random.default_rng(1))), photograph("coffee", *true, steps, 0.05)]
    for packed in streams:
        assert any(size[0] * size[1] == multiple * true[0] * true[1] for size in SIZES_IN_USE), "not a hard case"
        assert find_geometry(packed) == true


def test_real_streams_are_never_doubted_and_always_found():
    for name, (packed, true) in real_streams().items():
        assert likelier_size(packed, *true) is None, name
        assert find_geometry(packed) == true, name
        assert bit_order(mean_plane(packed, true[0] * true[1] // 8)) == "little", name
        wrong = [size for size in SIZES_IN_USE if size != true and packed.size * 8 % (size[0] * size[1]) == 0]
        wrong += divisions(packed.size * 8, true, most=1)
        for declared in wrong:
            assert suits_better(packed, true, declared), (name, declared)
            if true in SIZES_IN_USE:
                assert likelier_size(packed, *declared) == true, (name, declared)


def flicker(rng, steps, h, w):
    """A flat, noisy scene under light that goes on and off."""
    return (rng.random((steps, h, w)) < np.where(np.arange(steps) % 4 < 2, 0.9, 0.1)[:, None, None]).astype(np.uint8)


def streaks(rng, steps, h, w):
    """Columns that differ, as those of a defective sensor: every part of a step resembles the others."""
    columns = rng.random(w, np.float32) * np.ones((h, 1), np.float32)
    return fire(columns, steps, rng)


def blinds(rng, steps, h, w):
    """The same picture four times, one above the other: a quarter of the step repeats as well."""
    return fire(np.tile(scene(h // 4, w), (4, 1)), steps, rng)


@pytest.mark.parametrize(("h", "w", "steps"), [(96, 128, 240), (180, 320, 32), (360, 640, 12), (256, 256, 36)])
@pytest.mark.parametrize(
    "kind", ["empty", "full", "random", "flat", "smooth", "ramp", "flicker", "blinking", "streaks", "blinds"]
)
def test_geometry_check_raises_no_false_alarm(kind, h, w, steps):
    rng = np.random.default_rng(2)
    blank = np.zeros((steps, h, w), np.uint8)
    ramp = np.broadcast_to(np.linspace(0, 1, h, dtype=np.float32)[:, None], (h, w))
    spikes = {
        "empty": lambda: blank,
        "full": lambda: blank + 1,
        "random": lambda: rng.integers(0, 2, blank.shape, np.uint8),
        "flat": lambda: fire(np.full((h, w), 0.6, np.float32), steps, rng),
        "smooth": lambda: fire(scene(h, w), steps, rng),
        "ramp": lambda: fire(ramp, steps, rng),
        "flicker": lambda: flicker(rng, steps, h, w),
        "blinking": lambda: blank + (np.arange(steps, dtype=np.uint8) % 2)[:, None, None],
        "streaks": lambda: streaks(rng, steps, h, w),
        "blinds": lambda: blinds(rng, steps, h, w),
    }[kind]()
    assert likelier_size(pack(spikes), h, w) is None


def test_streaks_do_not_pass_for_shorter_steps():
    packed = pack(streaks(np.random.default_rng(8), 60, 96, 128))
    assert periodicity(packed, 48 * 128 // 8) > PERIODIC_MIN
    assert not suits_better(packed, (48, 128), (96, 128))


def test_geometry_check_refuses_a_remainder(tmp_path):
    (tmp_path / "a.dat").write_bytes(bytes(97))
    with pytest.raises(UserError, match="remainder 1 bytes"):
        likelier_geometry(tmp_path / "a.dat", 8, 8)


def test_geometry_check_reads_a_bounded_part(tmp_path, monkeypatch):
    sizes, unpackbits = [], np.unpackbits

    def spy(packed, **kwargs):
        sizes.append(packed.size)
        return unpackbits(packed, **kwargs)

    monkeypatch.setattr(np, "unpackbits", spy)
    path = tmp_path / "a.dat"
    with path.open("wb") as file:
        file.write(fire_file := pack(fire(scene(360, 640), 40, np.random.default_rng(0))).tobytes())
        file.truncate(28_800 * 5000)  # sparse, 144 MB
    assert len(fire_file) > 1 << 20
    assert likelier_geometry(path, 180, 320) == (360, 640)
    assert sizes
    assert max(sizes) <= 1 << 20


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("size", [(40, 60), (48, 64), (50, 36)])
def test_unknown_sizes_are_found_in_either_order(size, order):
    packed = pack(fire(scene(*size), 80, np.random.default_rng(4)), bit_order=order)
    assert search_geometry(packed) == size
    assert search_geometry(packed[: packed.size - 101]) == size  # truncated
    assert bit_order(mean_plane(packed, size[0] * size[1] // 8)) == order


def test_noise_and_blank_streams_have_no_geometry_and_no_order():
    rng = np.random.default_rng(5)
    for packed in (np.zeros(40_000, np.uint8), np.full(40_000, 255, np.uint8), rng.integers(0, 256, 40_000, np.uint8)):
        assert find_geometry(packed) is None
        assert bit_order(mean_plane(packed, 400)) is None
        assert periodicity(packed, 400) < PERIODIC_MIN


def test_only_the_step_and_its_multiples_are_periodic():
    packed = pack(fire(scene(96, 128), 60, np.random.default_rng(6)))
    step = 96 * 128 // 8
    others = max(periodicity(packed, other) for other in (step - 1, step + 1, step // 2, step * 3 // 2))
    assert others < PERIODIC_MIN < periodicity(packed, step)
    assert periodicity(packed, 2 * step) > 1.5 * others


def test_rows_one_width_apart_are_alike():
    plane = mean_plane(pack(fire(scene(96, 128), 60, np.random.default_rng(7))), 96 * 128 // 8)
    right = row_difference(plane, 128)
    assert all(row_difference(plane, width).exceeds(right) > 5 for width in (64, 96, 127, 192, 256))
