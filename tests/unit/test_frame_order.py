"""Frames, spikes and keys run in the order of their numbers, wherever they are read; what has no order is refused."""

import re
import shutil

import cv2
import lmdb
import numpy as np
import pytest
from tiny_set import make_set, options, rng

from data.check import check_dataset
from data.clip_index import scan_clips
from data.dataset_video_test import VideoTestDataset
from data.dataset_video_train_rgbspike import VideoTrainDatasetRGBSpike
from data.frame_order import follows, frame_name, gaps, in_time, number_format
from data.lmdb_store import LmdbStore
from data.prepare.lmdb_sources import DatFiles, PngFiles
from data.prepare.lmdb_writer import write_lmdbs
from data.prepare.recordings import folder_source
from data.spike.manifest import gopro_timing
from data.spike.reader import SpikeReader
from data.spike.stream import Timeline
from utils.spike_loader import write_spikes
from utils.utils_error import UserError
from utils.utils_image import write_rgb


@pytest.mark.parametrize(
    "ordered",
    [
        ("1", "2", "10", "11", "12"),
        ("9998", "9999", "10000"),
        ("000009", "000010"),
        ("im1", "im2", "im10"),
        ("shot_9_left", "shot_10_left"),
        ("c2_0001", "c2_0002"),
        ("1_40", "2_80", "10_400"),  # a number and its time
        ("1712345678.900", "1712345678.950", "1712345679.100"),
        ("1712345678_900", "1712345679_100"),
        ("1712345678_998", "1712345678_999", "1712345679_000"),
        ("1712345678_250", "1712345678_750", "1712345699_123", "1712345699_623"),
        ("12-00-59-040", "12-01-00-000"),
        ("2024-01-31_7", "2024-02-01_3"),
        ("20240101_120059_9", "20240101_120100_1"),
        ("v1.9", "v1.10", "v1.11"),
        ("v1.8", "v1.10", "v1.12"),
        ("1.5", "2.25", "3.125"),
        ("000003_to_000004", "000004_to_000005"),
        ("picture",),
    ],
)
def test_numbers_tell_the_order(ordered):
    for seed in range(4):
        assert in_time(rng(seed).permutation(ordered).tolist(), "clip a") == ordered


@pytest.mark.parametrize(
    ("names", "two"),
    [
        (("a1", "b2"), "a1 and b2 differ in more than a number"),
        (("left", "right"), "left and right differ"),
        (("000001", "000002", "mask"), "000001 and mask differ"),
        (("2", "01", "1"), "01 and 1 have the same number"),
        (("cam1_0001", "cam1_0002", "cam2_0001"), "cam1_0002 and cam2_0001 differ in several numbers"),
        (("1_1", "1_2", "2_1"), "1_2 and 2_1 differ in several numbers"),
        (("1.9", "1.10", "2.1"), "1.10 and 2.1 differ in several numbers"),
        (("0.1", "0.15", "0.2"), "0.2 comes before 0.15 as integers after the dot, but after it as decimals"),
        (("-1", "-2", "-3"), "-1 and -2 may be negative numbers"),
        (("31-01-2024", "01-02-2024"), "01-02-2024 and 31-01-2024 differ in several numbers"),
        (("1234567890_0001", "1234567890_0002", "1234567899_0001"), "1234567890_0002 and 1234567899_0001 differ in"),
        (("1.25", "1.5"), "1.5 comes before 1.25 as integers"),
        (("1712345678.12345", "1712345678.1234567", "1712345678.2"), "1712345678.2 comes before 1712345678.12345 as"),
    ],
)
def test_names_without_an_order_are_refused(names, two):
    with pytest.raises(UserError, match=f"^clip a: {re.escape(two)}"):
        in_time(names, "clip a")


def test_neighbours_and_gaps():
    assert follows("9", "10")
    assert follows("s1_0009", "s1_0010")
    assert not follows("9", "11")
    assert not follows("a9", "b10")
    assert gaps(["1", "2", "3", "9", "10"]) == [("3", "9")]
    assert gaps(["0", "2", "4", "6", "12"]) == [("6", "12")]  # every second frame is a clip, too
    assert gaps([str(number) for number in range(8, 12)]) == []
    assert gaps(["0000ms", "0033ms", "0067ms", "0100ms", "0133ms"]) == []  # 30 frames a second
    stamps = [str(1403636579763555584 + 50_000_000 * at + 997 * at * at % 70_001) for at in (0, 1, 2, 3, 5, 6)]
    assert gaps(stamps) == [(stamps[3], stamps[4])]


def test_templates_name_frames():
    assert [frame_name(7, template) for template in ("06d", "d", "im{}", "f_{:04d}")] == [
        "000007",
        "7",
        "im7",
        "f_0007",
    ]
    assert [number_format(template) for template in ("06d", "d", "im{}", "f_{:04d}")] == ["06d", "d", "d", "04d"]


# A data set whose frames have no leading zeros: frame n is a picture of brightness n

COUNT, FIRST = 12, 1


def renamed(root, name_of=str):
    """A tiny set with other names; its pictures show their number."""
    make_set(root, frames=COUNT, clips=("clip_a",))
    for path in [*root.rglob("*.png"), *root.rglob("*.dat")]:
        number = int(path.stem) - 47 + FIRST
        if path.suffix == ".png":
            write_rgb(path, np.full((32, 48, 3), number, np.uint8))
        path.rename(path.with_stem(name_of(number)))
    return root


def in_lmdbs(root):
    sources = [PngFiles(root / kind, 0) for kind in ("lq", "gt")] + [DatFiles(root / "spikes/train", (16, 24))]
    write_lmdbs([(source, source.root.with_name(f"{source.root.name}.lmdb")) for source in sources], workers=1)
    roots = {
        "dataroot_lq": root / "lq.lmdb",
        "dataroot_gt": root / "gt.lmdb",
        "dataroot_spike": root / "spikes/train.lmdb",
    }
    return {"io_backend": {"type": "lmdb"}} | {key: str(value) for key, value in roots.items()}


@pytest.mark.parametrize("backend", ["disk", "lmdb"])
@pytest.mark.parametrize("name_of", [str, lambda n: str(n + 9990), lambda n: f"f{n:02d}x"])
def test_a_data_set_is_read_in_time(tmp_path, backend, name_of):
    root = renamed(tmp_path, name_of)
    changes = in_lmdbs(root) if backend == "lmdb" else {}
    clip = VideoTestDataset(options(root, "Test", **changes))[0]
    numbers = list(range(FIRST, FIRST + COUNT))
    assert clip.frames == [name_of(number) for number in numbers]
    assert np.round(clip.lq(0, COUNT)[:, 0, 0, 0].numpy() * 255).tolist() == numbers
    assert clip.gt(0, COUNT)[:, 0, 0, 0].tolist() == numbers
    train = VideoTrainDatasetRGBSpike(options(root, random_reverse=False, **changes))
    for at in range(COUNT - 2):
        shown = np.round(train.sample(at, rng())["lq"][:, 0, 0, 0].numpy() * 255)
        assert np.diff(shown).tolist() == [1, 1]


def test_keys_of_an_older_lmdb_are_read_in_time(tmp_path):
    image = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes()
    keys = sorted(f"c/{number}" for number in range(1, 13))  # as text, as older versions wrote them
    with lmdb.open(str(tmp_path / "x.lmdb")) as environment, environment.begin(write=True) as transaction:
        for key in keys:
            transaction.put(key.encode(), image)
    (tmp_path / "x.lmdb/meta_info.txt").write_text("".join(f"{key}.png (4,4,3) 1\n" for key in keys))
    wanted = tuple(str(number) for number in range(1, 13))
    assert LmdbStore(tmp_path / "x.lmdb").clips() == {"c": wanted} == scan_clips(tmp_path / "x.lmdb", "png")


def test_the_short_last_file_of_a_gopro_clip_is_the_one_of_the_highest_number(tmp_path):
    clip, steps = "GOPR0372_07_00", gopro_timing("GOPR0372_07_00").steps
    folder = tmp_path / clip / "spike"
    folder.mkdir(parents=True)
    for number in range(1, 13):
        count = steps - 7 * (number == 12)
        write_spikes(folder / f"{number}.dat", np.zeros((count, 8, 8), np.uint8))
    opt = options(tmp_path, dataroot_spike=str(tmp_path), spike_h=8, spike_w=8, spike={"window": 5})
    clips = {clip: tuple(str(number) for number in range(1, 13))}
    reader = SpikeReader(opt, clips)
    assert reader.problems(clips) == []
    assert reader.num_steps(clip, "12") == steps - 7
    assert reader.read(clip, "9", (0, steps + 3)).shape[0] == steps + 3  # goes on in 10.dat


def test_files_of_a_stream_join_by_number():
    cut = Timeline(dict.fromkeys(["a10", "a9", "a11"], 4), continuous=True).cut("a9", 0, 10)
    assert [piece.frame for piece in cut.pieces] == ["a9", "a10", "a11"]


@pytest.mark.parametrize("kind", ["Train", "Test"])
@pytest.mark.parametrize(
    ("folder", "name"), [("lq", "extra.png"), ("lq", "0047.png"), ("spikes/train", "spike/000047x.dat")]
)
def test_a_clip_without_an_order_is_named_at_construction(own_set, kind, folder, name):
    path = own_set / folder / "clip_b" / name
    shutil.copy(next(path.parent.glob(f"*{path.suffix}")), path)
    with pytest.raises(UserError, match="clip clip_b: .*(differ|same number)") as caught:
        (VideoTrainDatasetRGBSpike if kind == "Train" else VideoTestDataset)(options(own_set, kind))
    assert "\n" not in str(caught.value)
    assert any("clip_b" in line for line in check_dataset(options(own_set, kind), full=False))


def test_hidden_files_beside_spikes_are_none(own_set):
    (own_set / "spikes/train/clip_a/spike/._000047.dat").write_bytes(b"mac")
    assert len(VideoTestDataset(options(own_set, "Test"))[0].frames) == 5


def test_a_gap_between_frames_is_said_once_a_clip(own_set, heard):
    for path in [*own_set.rglob("clip_b/**/000049.png"), *own_set.rglob("clip_b/**/000049.dat")]:
        path.unlink()
    VideoTestDataset(options(own_set, "Test"))
    said = [record.message for record in heard.records if "gap" in record.message]
    assert len(said) == 1
    assert "clip clip_b: in " in said[0]
    assert "frame 000050 comes after 000048" in said[0]


def test_the_simulator_takes_frames_in_time(tmp_path):
    for number in range(1, 13):
        write_rgb(tmp_path / f"{number}.png", np.full((8, 8, 3), number, np.uint8))
    assert [int(frame[0, 0, 0]) for frame in folder_source(tmp_path).frames()] == list(range(1, 13))
    write_rgb(tmp_path / "cover.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UserError, match="1 and cover differ"):
        list(folder_source(tmp_path).frames())
