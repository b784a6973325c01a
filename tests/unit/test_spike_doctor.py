"""The doctor finds what is wrong with a spike file, and nothing that is not."""

import itertools
import shutil

import numpy as np
import pytest
from spike_scenes import GOPRO, REDS, UHSR, fire, pack, real_file, scene, textured
from tiny_set import make_set

from data.spike.doctor.declared import Declared, Given, declared_for
from data.spike.doctor.examine import examine
from data.spike.doctor.health import defective_pixels, health
from data.spike.doctor.inspection import inspect_file, report_text
from data.spike.doctor.orientation import paired_picture
from data.spike.doctor.survey import survey
from data.spike.manifest import Manifest
from utils.spike_loader import write_spikes
from utils.utils_error import UserError
from utils.utils_image import write_rgb

TRUE = {GOPRO: (360, 640), REDS: (250, 400), UHSR: (248, 248), "synthetic": (48, 64)}
DECLARED_WRONG = {
    GOPRO: [(180, 320), (720, 1280), (640, 360), (250, 400)],
    REDS: [(400, 250), (125, 800), (1000, 100), (1500, 400), (360, 640)],
    UHSR: [(124, 496), (496, 248), (62, 992), (250, 250)],
    "synthetic": [(24, 128), (96, 64), (64, 48), (48, 60)],
}
WAYS = list(itertools.product(("little", "big"), (True, False)))
PICTURE = {GOPRO: "spkgopro_000226_sharp.png", REDS: "reds_200_part1_gt.png"}


def stream_of(name):
    """Upright spikes of a file, fewer than it has, and the picture that shows the same, if any."""
    if name == "synthetic":
        picture = textured(48, 64)
        return fire(picture, 60, np.random.default_rng(0)), np.uint8(np.clip(picture, 0, 1) * 255)
    if name == UHSR:
        return np.load(real_file(UHSR))["spk"][:120, 1:249, 1:249], None
    h, w = TRUE[name]
    packed = np.fromfile(real_file(name), np.uint8).reshape(-1, h * w // 8)
    middle = len(packed) // 2
    bits = np.unpackbits(packed[middle - 20 : middle + 20], axis=1, bitorder="little")
    return bits.reshape(-1, h, w)[:, ::-1], real_file(PICTURE[name])


@pytest.fixture(scope="module", params=list(TRUE))
def case(request, tmp_path_factory):
    """A name, its folder, and the four ways to store its stream; the picture lies elsewhere."""
    spikes, picture = stream_of(request.param)
    folder = tmp_path_factory.mktemp("streams")
    for order, flipud in WAYS:
        write_spikes(folder / f"{order}_{flipud}.dat", spikes, flipud=flipud, bit_order=order)
    if isinstance(picture, np.ndarray):
        write_rgb(folder / "elsewhere" / "picture.png", np.repeat(picture[:, :, None], 3, axis=2))
        picture = folder / "elsewhere" / "picture.png"
    return request.param, folder, picture


def expected(order, flipud, *, sees):
    """The beginnings of what must be said against a file that is taken for an ordinary one."""
    wrong = ["bits are stored highest first: bit_order big"] if order == "big" else []
    return wrong + (["rows are stored upright: flipud false"] if sees and not flipud else [])


def assert_wrong(report, beginnings):
    assert len(report.wrong) == len(beginnings), report.wrong
    for line, beginning in zip(report.wrong, beginnings, strict=True):
        assert line.startswith(beginning)


def test_order_and_flip_are_found_with_a_picture_and_never_guessed_without(case):
    name, folder, picture = case
    for order, flipud in WAYS if name == "synthetic" else (WAYS[0], WAYS[-1]):
        path = folder / f"{order}_{flipud}.dat"
        blind = inspect_file(path)
        assert_wrong(blind, expected(order, flipud, sees=False))
        assert (blind.size, blind.bit_order) == (TRUE[name], order)
        assert any("uncertain without a paired picture" in note for note in blind.notes)
        tilt = blind.evidence["brighter_up"] * (1 if flipud else -1)
        assert tilt > 0 or (tilt == 0 and name == REDS)
        if picture is None:
            continue
        seeing = inspect_file(path, picture=picture)
        assert_wrong(seeing, expected(order, flipud, sees=True))
        assert (seeing.size, seeing.bit_order, seeing.flipud) == (TRUE[name], order, flipud)
        truth = inspect_file(path, Given(TRUE[name], order, flipud), picture=picture)
        assert truth.wrong == []
        assert report_text(truth).endswith("nothing wrong found")


def test_wrong_sizes_are_found_in_either_order(case):
    name, folder, _ = case
    for order, size in zip(itertools.cycle(("little", "big")), DECLARED_WRONG[name], strict=False):
        packed = np.fromfile(folder / f"{order}_True.dat", np.uint8)
        report = examine(packed, "x.dat", Declared({"the command line": size}, {"the command line": order}, {}))
        h, w = TRUE[name]
        steps = packed.size * 8 // (h * w)
        line = f"{size[0]}x{size[1]} (the command line) is wrong: these are {steps} steps of {h}x{w}"
        assert report.wrong == [line]


def test_the_files_as_they_are_have_nothing_wrong():
    for name in (GOPRO, REDS, UHSR):
        report = inspect_file(real_file(name))
        assert report.wrong == [], name
        assert report.evidence["health"]["pixels"]["dead"] == 0
    assert any("fixed-pattern noise" in note for note in report.notes)
    video = real_file("bikes.mp4")
    with pytest.raises(UserError, match="MP4 video.*simulate_spike_dataset"):
        inspect_file(video)


def test_a_truncated_file_and_one_too_short_for_anything(tmp_path):
    packed = pack(stream_of("synthetic")[0])
    (tmp_path / "a.dat").write_bytes(packed[:-100].tobytes())
    for given in (Given(), Given((48, 64))):
        report = inspect_file(tmp_path / "a.dat", given)
        assert (report.size, report.steps) == ((48, 64), 59)
        assert_wrong(report, ["truncated: 59 whole steps of 48x64 and 284 bytes more"])
    (tmp_path / "b.dat").write_bytes(bytes(range(200, 255)))
    with pytest.raises(UserError, match="give --spike_h and --spike_w"):
        inspect_file(tmp_path / "b.dat")
    with pytest.raises(UserError, match="remainder"):
        inspect_file(tmp_path / "b.dat", Given((48, 64)))


def test_ten_thousand_random_files_raise_a_user_error_or_fit():
    rng = np.random.default_rng(6)
    fitted = 0
    for _ in range(10_000):
        packed = rng.integers(0, 256, rng.integers(1, 60), np.uint8)
        h, w = rng.integers(0, 12, 2).tolist()
        declared = Declared({"the command line": (h, w)} if h else {}, {}, {})
        try:
            report = examine(packed, "x.dat", declared)
        except UserError as error:
            assert "x.dat" in str(error)  # noqa: PT017
        else:
            fitted += 1
            assert report.steps * h * w == packed.size * 8
    assert fitted > 300


def test_random_files_that_fit_go_through_the_whole_examination(tmp_path):
    rng = np.random.default_rng(7)
    for h, w in itertools.product((1, 2, 3, 8, 17, 40), (8, 16, 24)):
        path = tmp_path / f"{h}_{w}.dat"
        path.write_bytes(rng.bytes(h * w // 8 * int(rng.integers(1, 40))))
        report = inspect_file(path, Given((h, w)))
        assert report.wrong == []
        assert report_text(report)


def test_the_manifest_and_the_configuration_are_checked(tmp_path):
    spikes = stream_of("synthetic")[0]
    path = tmp_path / "GOPRO_Large_spike_seq/train/clip/spike/000000.dat"
    write_spikes(path, spikes)
    (tmp_path / "GOPRO_Large_spike_seq/config.yaml").write_text("spike_h: 24\nspike_w: 128\n")
    assert_wrong(inspect_file(path), [f"24x128 ({tmp_path}/GOPRO_Large_spike_seq/config.yaml) is wrong"])
    facts = {"rgb_h": 96, "rgb_w": 128, "clock_hz": 20000.0, "transfer": "srgb", "noise": "none", "clips": {}}
    manifest = Manifest(spike_h=48, spike_w=64, flipud=True, bit_order="big", rate_at_white=0.2, **facts)
    manifest.save(tmp_path / "GOPRO_Large_spike_seq")
    report = inspect_file(path)
    assert len(report.wrong) == 3
    assert "24x128" in report.wrong[0]
    assert "bit_order little, not as" in report.wrong[1]
    assert "rate_at_white 0.2 (the manifest) is wrong" in report.wrong[2]


def test_the_number_of_steps_is_checked(tmp_path):
    clip = tmp_path / "GOPR0384_11_00" / "spike"
    rng = np.random.default_rng(8)
    for frame, steps in enumerate((88, 88, 80, 81)):
        write_spikes(clip / f"{frame:06d}.dat", fire(scene(48, 64), steps, rng))
    assert inspect_file(clip / "000000.dat").wrong == []
    assert_wrong(inspect_file(clip / "000002.dat"), ["80 steps, but the clip's name implies 88"])
    (row,) = survey(tmp_path)
    assert row["shapes"] == {"88x48x64": 2, "80x48x64": 1, "81x48x64": 1}
    assert row["wrong"] == [
        "000002.dat: 80 steps, but the clip's name implies 88; correct it or prepare the file again"
    ]
    assert "000003.dat: 81 steps instead of 88: the last file of a GoPro clip is short" in row["notes"]


def test_a_survey_names_every_defect_of_a_folder(tmp_path):
    root = make_set(tmp_path / "set")
    assert [row["wrong"] for row in survey(root)] == [[], []]
    clip = root / "spikes/train/clip_a/spike"
    first, second, third, *_ = sorted(clip.iterdir())
    first.write_bytes(first.read_bytes()[:-5])
    second.write_bytes(second.read_bytes()[:-48])
    third.write_bytes(b"")
    spoilt, sound = survey(root)
    assert sound["wrong"] == []
    assert all(path.name in line for line, path in zip(spoilt["wrong"], (first, second, third), strict=True))
    assert "remainder" in spoilt["wrong"][0] or "truncated" in spoilt["wrong"][0]
    assert "23 steps, but the manifest implies 24" in spoilt["wrong"][1]
    assert "empty" in spoilt["wrong"][2]
    with pytest.raises(UserError, match="no spike files"):
        survey(tmp_path / "set" / "gt")


def test_dead_is_not_dark_and_hot_is_not_bright():
    rng = np.random.default_rng(9)
    light = np.full((64, 96), 0.8, np.float32)
    light[:, 60:] = 0  # black
    light[10:14, 10:14] = 0  # a black thing, too large for a defect
    light[40:, :20] = 0.05
    spikes = fire(light, 200, rng)
    spikes[:, 30, 30] = 0
    spikes[:, 5, 58] = 0
    spikes[:, 20:22, 40] = 0
    spikes[:, 50, :60] = spikes[:, 50, :60]
    spikes[:, 50, 10] = 1
    spikes[:, 33, 80] = 1
    dead, hot = defective_pixels(spikes.sum(axis=0, dtype=np.int32))
    assert dead.tolist() == [[5, 58], [20, 40], [21, 40], [30, 30]]
    assert hot.tolist() == [[33, 80], [50, 10]]


def test_a_dead_column_is_found_whole():
    spikes = fire(np.full((64, 96), 0.8, np.float32), 100, np.random.default_rng(10))
    spikes[:, :, 33] = 0
    dead, hot = defective_pixels(spikes.sum(axis=0, dtype=np.int32))
    assert dead.tolist() == [[row, 33] for row in range(64)]
    assert hot.size == 0


def test_empty_steps_and_rates_are_measured():
    spikes = fire(np.full((48, 64), 0.8, np.float32), 100, np.random.default_rng(11))
    spikes[[7, 50]] = 0
    spikes[60] = 1
    found = health(spikes)
    assert found["time"]["empty_steps"] == [7, 50]
    assert found["time"]["full_steps"] == [60]
    assert found["rate"]["brightest"] == pytest.approx(0.4, abs=0.03)
    assert found["noise"]["between_pixels"] < 0.04


def test_pictures_are_found_where_the_layouts_have_them(tmp_path, shared_set):
    dat = tmp_path / "GOPRO_Large_spike_seq/test/clip/spike/000003.dat"
    assert paired_picture(dat) is None
    picture = tmp_path / "test_GT/clip/000003.png"
    write_rgb(picture, np.zeros((4, 4, 3), np.uint8))
    assert paired_picture(dat) == picture
    dat.parent.mkdir(parents=True)
    shutil.copy(picture, dat.with_name("000003_gt.png"))
    assert paired_picture(dat) == dat.with_name("000003_gt.png")
    assert declared_for(next(shared_set.rglob("*.dat"))).manifest is not None


def test_a_picture_of_something_else_decides_nothing(tmp_path):
    write_spikes(tmp_path / "a.dat", stream_of("synthetic")[0], flipud=False)
    noise = np.random.default_rng(12).integers(0, 256, (96, 128, 3), np.uint8)
    write_rgb(tmp_path / "a_gt.png", noise)
    report = inspect_file(tmp_path / "a.dat")
    assert report.wrong == []
    assert any("does not show which way is up" in note for note in report.notes)
