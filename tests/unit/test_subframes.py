"""Stored light: how it is read and checked, from files and LMDB, and who writes it."""

import shutil

import numpy as np
import pytest
from light_set import CLIPS, FRAMES, PLANES, add_instants, add_light, moments
from tiny_set import SPIKE_SIZE, STEPS, make_set, rng

from data.dataset_video_train_rgbspike import VideoTrainDatasetRGBSpike
from data.frame_store import FrameStore
from data.layout import DatasetWriter, Frame, described_clips, instant_dir, spike_dir, subframe_dir
from data.lmdb_store import LmdbStore
from data.prepare import lmdb_writer, video_light
from data.prepare.lmdb_sources import NpyFiles, PngFiles
from data.spike.manifest import ClipTiming, Manifest
from data.spike.subframes import SubFrames
from options.schema import DatasetOpt
from scripts import runtime_config
from scripts.data_preparation import simulate_spike_dataset as simulation
from utils.utils_colour import linear_to_srgb
from utils.utils_error import UserError
from utils.utils_image import read_rgb, write_rgb

SHAPE = (STEPS, *SPIKE_SIZE)
AUGMENT = {"theta": [1, 4], "shift": [0, 0.5]}


def shape_of(clip, frame):
    return SHAPE


@pytest.fixture(scope="module")
def light_root(tmp_path_factory):
    root = add_instants(add_light(make_set(tmp_path_factory.mktemp("light"))))
    sources = [NpyFiles(root / "light"), PngFiles(root / "instants", 0, in_time=False)]
    lmdb_writer.write_lmdbs([(each, each.root.with_suffix(".lmdb")) for each in sources], workers=2)
    return root


@pytest.fixture
def own_root(tmp_path, light_root):
    return shutil.copytree(light_root, tmp_path / "own")


def opened(root, **changes):
    given = {"dataroot_subframes": str(root / "light"), "augment": AUGMENT}
    return VideoTrainDatasetRGBSpike(moments(root, **given | changes))


def error_of(call, *arguments, **named):
    with pytest.raises((UserError, ValueError)) as caught:
        call(*arguments, **named)
    return str(caught.value)


def test_lmdb_and_files_are_the_same(light_root):
    files, store = (SubFrames(light_root / name, shape_of) for name in ("light", "light.lmdb"))
    for clip in CLIPS:
        for frame in FRAMES:
            np.testing.assert_array_equal(files.read(clip, frame), store.read(clip, frame))
    assert files.problems(dict.fromkeys(CLIPS, tuple(FRAMES))) == []
    assert store.problems(dict.fromkeys(CLIPS, tuple(FRAMES))) == []
    assert LmdbStore(light_root / "light.lmdb").entry("clip_a", FRAMES[0]).size == SHAPE
    spike = {"representation": "moment", "planes": PLANES, "edge": "mirror"}
    first, second = (
        opened(
            light_root, dataroot_subframes=str(light_root / f"light{end}"), augment=AUGMENT | {"instant": 0.7},
            dataroot_instants=str(light_root / f"instants{end}"), spike=spike,
        ) for end in ("", ".lmdb")
    )  # fmt: skip
    for seed in range(4):
        samples = first.sample(2, rng(seed)), second.sample(2, rng(seed))
        assert all(np.array_equal(samples[0][name], samples[1][name]) for name in ("gt", "spike", "spike_scale"))


def test_an_lmdb_of_light_is_kept_until_the_files_change(own_root):
    again = [(NpyFiles(own_root / "light"), own_root / "light.lmdb")]
    lmdb_writer.write_lmdbs(again)
    np.save(own_root / "light/clip_a" / f"{FRAMES[0]}.npy", np.zeros(SHAPE, np.uint8))
    with pytest.raises(UserError, match=f"clip_a/{FRAMES[0]} differs in content"):
        lmdb_writer.write_lmdbs(again)


def save(root, array, frame=FRAMES[0]):
    np.save(root / "light/clip_b" / f"{frame}.npy", array)


def write(root, data):
    (root / "light/clip_b" / f"{FRAMES[0]}.npy").write_bytes(data)


def cut(root):
    path = root / "light/clip_b" / f"{FRAMES[0]}.npy"
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: shutil.rmtree(root / "light"), "dataroot_subframes"),
        (lambda root: shutil.rmtree(root / "light/clip_b"), "clip clip_b frame 000047: .*no sub-frames of 5 of .* 5"),
        (
            lambda root: (root / "light/clip_b" / f"{FRAMES[3]}.npy").unlink(),
            "clip_b frame 000050: .*sub-frames of 1 of",
        ),
        (lambda root: save(root, np.zeros((STEPS - 1, *SPIKE_SIZE), np.uint8)), r"uint8 of \(23, 16, 24\), expected"),
        (lambda root: save(root, np.zeros(SHAPE, np.float32)), "float32 of"),
        (lambda root: save(root, np.array([{}])), "clip_b frame 000047: .*not a readable .npy"),
        (lambda root: write(root, b""), "not a readable .npy"),
        (lambda root: write(root, b"\x93NUMPY\x01\x00\x09\x00{'descr':"), "not a readable .npy"),
        (lambda root: write(root, b"PK\x03\x04"), "not a readable .npy"),
        (cut, "not a readable .npy"),
    ],
)
def test_bad_light_is_named_in_a_line(own_root, spoil, message):
    spoil(own_root)
    with pytest.raises(UserError, match=message) as caught:
        opened(own_root)
    assert "\n" not in str(caught.value)


def test_bad_light_of_a_later_frame_is_named_when_it_is_read(own_root):
    dataset = opened(own_root)
    save(own_root, np.zeros((3, 4, 5), np.uint8), FRAMES[2])
    with pytest.raises(UserError, match=rf"{FRAMES[2]}.npy: uint8 of \(3, 4, 5\), expected uint8 of \(24, 16, 24"):
        list(map(dataset.sample, range(len(dataset)), [rng()] * len(dataset)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"dataroot_subframes": "some.lmdb"},
            "clip clip_b frame 000047: .*some.lmdb key clip_b/000047: no sub-frames of 5",
        ),
        ({"dataroot_subframes": "gt.lmdb"}, "gt.lmdb key clip_a/000047: not a readable .npy"),
        ({"dataroot_instants": "light.lmdb"}, "light.lmdb has no instant of all 5 frames"),
    ],
)
def test_an_lmdb_of_something_else_is_named(own_root, changes, message):
    shutil.copytree(own_root / "light/clip_a", own_root / "some/clip_a")
    others = [NpyFiles(own_root / "some"), PngFiles(own_root / "gt", 0)]
    lmdb_writer.write_lmdbs([(each, each.root.with_suffix(".lmdb")) for each in others], workers=2)
    roots = {key: str(own_root / name) for key, name in changes.items()}
    with pytest.raises(UserError, match=message):
        opened(
            own_root, augment=AUGMENT | {"instant": 0.5}, **{"dataroot_instants": str(own_root / "instants")} | roots
        )


def test_column_order_is_read_too(own_root):
    light = rng().integers(256, size=SHAPE).astype(np.uint8)
    save(own_root, np.asfortranarray(light))
    lmdb_writer.write_lmdbs([(NpyFiles(own_root / "light"), own_root / "light.lmdb")], force=True)
    for name in ("light", "light.lmdb"):
        np.testing.assert_array_equal(SubFrames(own_root / name, shape_of).read("clip_b", FRAMES[0]), light)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augment": {"shift": 0.2}, "dataroot_subframes": None}, "augment.shift .* needs dataroot_subframes"),
        ({"augment": {"aligned": 0.2}, "dataroot_subframes": None}, "augment.aligned .* needs dataroot_subframes"),
        ({"augment": {"shift": [0, 4.5]}}, "at most 4 spike pixels, found 4.5"),
        ({"augment": {"theta": [0, 2]}}, "low end must be above 0"),
        ({"augment": {"theta": -1}}, "greater than or equal to 0"),
        ({"augment": {"pattern": [0.2, 0.1]}}, r"must be \[low, high\]"),
        ({"augment": {"pattern": 1.5}}, "less than or equal to 1"),
        ({"augment": {"drop_spikes": 2}}, "less than or equal to 1"),
        ({"augment": {"instant": 0.5}}, "needs dataroot_instants"),
        (
            {"augment": {"dark": 0.1}, "dataset_type": "VideoRecurrentTrainDataset", "spike_channels": 0},
            "has no spikes",
        ),
        ({"augment": {"theta": 2}, "spike": {"representation": "sdm"}, "spike_channels": 1}, "'sdm'; choose another"),
    ],
)
def test_options_that_make_no_sense_are_named(tmp_path, changes, message):
    given = {"dataroot_subframes": "light"} | changes
    with pytest.raises(ValueError, match=message):
        DatasetOpt.model_validate(moments(tmp_path).model_dump() | given)


# Written by the simulator


def make_video(folder, count, size=(16, 24)):
    frames = rng(3).integers(0, 256, (count, *size, 3), dtype=np.uint8)
    for index, frame in enumerate(frames):
        write_rgb(folder / f"{index:04d}.png", frame)
    return frames


@pytest.mark.parametrize("transfer", ["srgb", "linear"])
def test_the_simulator_stores_light_and_instants(tmp_path, transfer):
    frames = make_video(tmp_path / "walk", 10)
    settings = simulation.Settings(
        blur_frames=5, steps_per_frame=4, transfer=transfer, interpolation="blend", subframes=True, instants=3
    )
    root = tmp_path / "out"
    simulation.simulate([tmp_path / "walk"], root, "train", settings, video=False)
    names = {"_t0.00": 0, "_t0.75": 3, "_t1.00": 4}
    found = {path.name for path in (instant_dir(root, "train") / "walk").iterdir()}
    assert found == {f"{frame:06d}{name}.png" for frame in (0, 1) for name in names}
    for name, source in names.items():
        sharp = read_rgb(instant_dir(root, "train") / "walk" / f"000001{name}.png")
        np.testing.assert_array_equal(sharp, frames[5 + source])
    stored = np.load(subframe_dir(root, "train") / "walk/000001.npy")
    assert stored.shape == (17, 8, 12)
    light = video_light.window_light(list(frames[5:]), settings, end=True)
    encoded = linear_to_srgb(light) if transfer == "linear" else light
    np.testing.assert_allclose(stored, encoded * 255, atol=0.51)
    lmdb_writer.create_lmdbs(root, ["train"], workers=2)
    opt = {
        "dataset_type": "VideoRecurrentTrainDatasetRGBSpike", "num_frame": 1, "gt_size": 16, "interval_list": [1],
        "dataroot_gt": str(root / "train_GT"), "dataroot_lq": str(root / "train_GT_blurred"),
        "dataroot_spike": str(spike_dir(root, "train")), "spike": {"representation": "moment", "planes": 5},
        "augment": AUGMENT | {"instant": 1.0}, "dataroot_subframes": str(subframe_dir(root, "train")),
        "dataroot_instants": str(instant_dir(root, "train")),
    }  # fmt: skip
    opt["spike"]["edge"] = "mirror"
    samples = VideoTrainDatasetRGBSpike(DatasetOpt.model_validate(opt)).sample(1, rng(1))
    moved = runtime_config.changed_options(DatasetOpt.model_validate(opt), "train", root, None, lmdb=True)
    assert {key for key in moved if key.startswith("dataroot")} == {key for key in opt if key.startswith("dataroot")}
    assert all(value.endswith(".lmdb") for key, value in moved.items() if key.startswith("dataroot"))
    again = VideoTrainDatasetRGBSpike(DatasetOpt.model_validate(opt | moved)).sample(1, rng(1))
    assert all(np.array_equal(samples[name], again[name]) for name in ("lq", "gt", "spike"))


def test_a_clip_made_anew_without_light_loses_the_old(tmp_path):
    make_video(tmp_path / "walk", 3)
    for more in (True, False):
        settings = simulation.Settings(blur_frames=3, subframes=more, instants=2 * more)
        simulation.simulate([tmp_path / "walk"], tmp_path / "out", "train", settings, video=False)
        folders = subframe_dir(tmp_path / "out", "train"), instant_dir(tmp_path / "out", "train")
        assert [folder.exists() for folder in folders] == [more, more]
    assert described_clips(tmp_path / "out", "train").keys() == {"walk"}
    lmdb_writer.create_lmdbs(tmp_path / "out", ["train"], workers=1)


def test_only_instants_that_name_their_step_are_stored(tmp_path, capsys):
    settings = simulation.Settings(blur_frames=13, steps_per_frame=8, instants=12)
    named, left = video_light.instants_of_window(settings)
    first, last = settings.timing().exposure
    assert left == []
    for time, frame in named.items():
        assert first + round(time * (last - 1 - first)) == 8 * frame
    coarse = simulation.Settings(blur_frames=13, steps_per_frame=40, instants=12)
    named, left = video_light.instants_of_window(coarse)
    assert sorted([*named.values(), *left]) == [k for k in range(13) if k != 6]
    assert all(round(time * 480) == 40 * frame for time, frame in named.items())
    assert left
    make_video(tmp_path / "walk", 13)
    simulation.simulate([tmp_path / "walk"], tmp_path / "out", "train", coarse, video=False)
    assert f"left out source frames {left}" in capsys.readouterr().out
    for bad in (-1, 7):
        with pytest.raises(UserError, match=f"--instants: {bad}, expected 0 to N-1"):
            simulation.Settings(blur_frames=7, instants=bad)


def test_light_of_another_shape_is_not_written(tmp_path):
    manifest = Manifest(
        spike_h=8, spike_w=8, rgb_h=8, rgb_w=8, flipud=True, clock_hz=1.0, rate_at_white=0.5, transfer="srgb",
        noise="none", clips={},
    )  # fmt: skip
    picture, spikes = np.zeros((8, 8, 3), np.uint8), np.zeros((5, 8, 8), np.uint8)
    frame = Frame(picture, picture, spikes, np.zeros((4, 8, 8), np.uint8))
    with DatasetWriter(tmp_path, manifest) as writer, pytest.raises(ValueError, match="light of"):
        writer.add_clip("train", "a", [frame], ClipTiming(steps=5, exposure=(0, 5), sharp_step=2))


def test_instants_of_an_lmdb_are_those_of_the_folder(light_root):
    folder, store = FrameStore(light_root / "instants"), FrameStore(light_root / "instants.lmdb", backend="lmdb")
    assert folder.names("clip_a") == store.names("clip_a")
