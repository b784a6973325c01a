"""LMDB folders: what lies in them, that they read as the folders they are made of, that they are whole or absent."""

import logging
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_set import FIRST, SPIKE_SIZE, STEPS, make_set, options, rng

from data import lmdb_store
from data.clip_index import existing_folder, find_clips, scan_clips
from data.frame_store import FrameStore
from data.layout import SPIKES, SPLITS
from data.lmdb_store import Entry, LmdbStore, is_lmdb, lmdb_path, record_path
from data.loader import train_batches
from data.prepare import lmdb_writer
from data.prepare.lmdb_sources import DatFiles, PngFiles, encode_png
from data.select_dataset import define_Dataset
from options.schema import DatasetOpt
from scripts.data_preparation import create_lmdb
from utils.processes.folder_lock import acquire
from utils.utils_error import UserError
from utils.utils_image import read_rgb, write_rgb
from utils.utils_rgbspike import tensors_of

CPU = torch.device("cpu")
FRAMES = [f"{FIRST + index:06d}" for index in range(5)]


def add_lmdbs(root: Path, compression: int = 0) -> Path:
    """LMDB folders beside the folders of a tiny set."""
    sources = [PngFiles(root / kind, compression) for kind in ("lq", "gt")] + [
        DatFiles(root / "spikes/train", SPIKE_SIZE)
    ]
    lmdb_writer.write_lmdbs([(source, lmdb_path(source.root)) for source in sources], workers=2)
    return root


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A tiny set as folders and as LMDB folders; stays as it is."""
    return add_lmdbs(make_set(tmp_path_factory.mktemp("both")))


@pytest.fixture
def own(tmp_path, both):
    return shutil.copytree(both, tmp_path / "own")


def lmdb_options(root, kind="Train", *, spikes=True, spikes_too=True, **changes):
    roots = {"dataroot_lq": str(root / "lq.lmdb"), "dataroot_gt": str(root / "gt.lmdb")}
    if spikes and spikes_too:
        roots["dataroot_spike"] = str(root / "spikes/train.lmdb")
    return options(root, kind, spikes, io_backend={"type": "lmdb"}, **roots, **changes)


def keys_of(folder: Path) -> dict[str, bytes]:
    with lmdb.open(str(folder), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return {key.decode(): value for key, value in transaction.cursor()}


def plain_lmdb(folder: Path, values: dict[str, bytes], lines: list[str]) -> Path:
    """An LMDB as other programs make it."""
    with lmdb.open(str(folder), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for key, value in values.items():
            transaction.put(key.encode(), value)
    (folder / "meta_info.txt").write_text("\n".join(lines) + "\n")
    return folder


# What lies in an LMDB


@pytest.mark.parametrize("compression", [0, 1])
def test_frames_lie_there_as_kair_knows_them(tmp_path, compression):
    root = add_lmdbs(make_set(tmp_path, frames=2), compression)
    folder = root / "gt.lmdb"
    assert {path.name for path in folder.iterdir()} == {"data.mdb", "lock.mdb", "meta_info.txt"}
    names = [f"clip_{clip}/{frame}" for clip in "ab" for frame in FRAMES[:2]]
    lines = [f"{name}.png (32,48,3) {compression}" for name in names]
    assert (folder / "meta_info.txt").read_text().splitlines() == lines
    values = keys_of(folder)
    assert sorted(values) == names
    for name, value in values.items():
        assert value.startswith(b"\x89PNG")
        image = cv2.imdecode(np.frombuffer(value, np.uint8), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(image[..., ::-1], read_rgb(root / "gt" / f"{name}.png"))


def test_spikes_lie_there_as_they_are(both):
    folder = both / "spikes/train.lmdb"
    values = keys_of(folder)
    assert values == {
        f"{path.parts[-3]}/{path.stem}": path.read_bytes() for path in (both / "spikes/train").rglob("*.dat")
    }
    assert (folder / "meta_info.txt").read_text().startswith(f"clip_a/{FRAMES[0]}.dat ({STEPS},16,24) 0\n")


def test_level_0_is_stored_without_compression_and_filters():
    noise, gray = rng().integers(256, size=(40, 30, 3)).astype(np.uint8), np.full((40, 30, 3), 7, np.uint8)
    sizes = {encode_png(image, 0).size for image in (noise, gray)}
    assert len(sizes) == 1
    assert sizes.pop() >= 40 * (30 * 3 + 1)
    if hasattr(cv2, "IMWRITE_PNG_FILTER"):  # each row as it is, after a zero that says so
        row = gray[0].tobytes()
        assert row + b"\0" + row in encode_png(gray, 0).tobytes()


def test_an_lmdb_made_by_others_is_read(tmp_path):
    images = {
        f"{clip:03d}/{frame:08d}": rng(frame).integers(256, size=(8, 6, 3)) for clip in (0, 1) for frame in range(3)
    }
    values = {
        key: cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes() for key, image in images.items()
    }
    lines = [f"{key}.png (8,6,3) 1" for key in values]
    random.Random(0).shuffle(lines)
    root = plain_lmdb(tmp_path / "REDS.lmdb", values, lines)
    names = tuple(f"{frame:08d}" for frame in range(3))
    assert list(scan_clips(root, "png").items()) == [("000", names), ("001", names)]
    assert LmdbStore(root).entry("001", names[2]) == Entry(f"{names[2]}.png", (8, 6, 3), 1)
    store = FrameStore(root, "png", backend="lmdb")
    assert store.size("001", names[0]) == (8, 6)
    cut = store.read_many("001", names[::-1], (8, 6), slice(2, 5), slice(1, 6))
    wanted = [images[f"001/{name}"][2:5, 1:6, ::-1] for name in names[::-1]]
    assert np.array_equal(cut, wanted)


# Reading it


@pytest.mark.parametrize("spikes_too", [True, False])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_samples_are_those_of_the_folders(both, num_workers, spikes_too):
    pairs = zip(
        *(
            train_batches(
                define_Dataset(opt), seed=1, start_step=0, total_steps=6, batch_size=2, num_workers=num_workers
            )
            for opt in (options(both), lmdb_options(both, spikes_too=spikes_too))
        ),
        strict=True,
    )
    keys = []
    for disk, stored in pairs:
        assert disk.keys() == stored.keys() == {"lq", "gt", "spike", "key"}
        assert disk["key"] == stored["key"]
        assert all(torch.equal(disk[name], stored[name]) for name in ("lq", "gt", "spike"))
        keys += disk["key"]
    assert len(keys) == 12


def test_test_clips_are_those_of_the_folders(both):
    for disk, stored in zip(
        define_Dataset(options(both, "Test")), define_Dataset(lmdb_options(both, "Test")), strict=True
    ):
        assert (disk.name, disk.frames, disk.size) == (stored.name, stored.frames, stored.size)
        for one, other in zip(*(tensors_of(clip.network_input(0, 5), CPU) for clip in (disk, stored)), strict=True):
            assert torch.equal(one, other)
        assert np.array_equal(disk.gt(1, 3), stored.gt(1, 3))
        assert np.array_equal(disk.references(2)["sdm_"], stored.references(2)["sdm_"])


def test_meta_info_file_and_cache_work_with_an_lmdb(both, tmp_path):
    meta = tmp_path / "meta.txt"
    meta.write_text("clip_b 3 (32,48,3) 000048\n")
    dataset = define_Dataset(lmdb_options(both, meta_info_file=str(meta), cache_data=True))
    assert dataset.clips == {"clip_b": ("000048", "000049", "000050")}
    assert torch.equal(dataset.sample(0, rng())["lq"], dataset.sample(0, rng())["lq"])
    meta.write_text("clip_b 5 (32,48,3) 000048\n")
    with pytest.raises(UserError, match="clip clip_b frame 000052: missing in .*lq.lmdb key clip_b"):
        define_Dataset(lmdb_options(both, meta_info_file=str(meta)))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_store_is_read_in_other_processes(both, method):
    store = LmdbStore(both / "gt.lmdb")
    keys = [(clip, frame) for clip, frames in store.clips().items() for frame in frames]
    here = [store.get(*key) for key in keys]  # opened here before the others start
    with multiprocessing.get_context(method).Pool(2) as pool:
        there = pool.starmap(store.get, keys, chunksize=1)
    assert all(map(np.array_equal, here, there))
    assert all(np.array_equal(store.get(*key), value) for key, value in zip(keys, here, strict=True))


def test_a_forked_process_does_not_use_its_parents_environment(both):
    store = LmdbStore(both / "gt.lmdb")
    store.get("clip_a", FRAMES[0])
    data = (both / "gt.lmdb/data.mdb").stat()
    with multiprocessing.get_context("fork").Pool(1) as pool:
        pid = pool.apply(pid_of_environment, (store, (data.st_dev, data.st_ino)))
        assert pid == pool.apply(os.getpid)
    assert pid_of_environment(store, (data.st_dev, data.st_ino)) == os.getpid() != pid


def pid_of_environment(store: LmdbStore, place: tuple[int, int]) -> int:
    store.get("clip_a", FRAMES[0])
    return lmdb_store._OPEN[place][0]


def test_bytes_are_read_only_and_stay_valid(both, own):
    store = LmdbStore(own / "spikes/train.lmdb")
    packed = store.get("clip_a", FRAMES[0])
    assert (packed.dtype, packed.ndim, packed.flags.writeable) == (np.uint8, 1, False)
    del store
    shutil.rmtree(own)
    assert packed.tobytes() == (both / f"spikes/train/clip_a/spike/{FRAMES[0]}.dat").read_bytes()


def test_two_stores_of_one_folder_share_it(both, tmp_path):
    (tmp_path / "link.lmdb").symlink_to(both / "gt.lmdb")
    stores = [
        LmdbStore(both / "gt.lmdb"),
        LmdbStore(tmp_path / "link.lmdb"),
        pickle.loads(pickle.dumps(LmdbStore(both / "gt.lmdb"))),  # noqa: S301
    ]
    assert len({store.get("clip_b", FRAMES[0]).tobytes() for store in stores}) == 1


def test_an_lmdb_that_was_replaced_is_opened_again(own):
    store = LmdbStore(own / "gt.lmdb")
    before = store.get("clip_a", FRAMES[0])
    write_rgb(own / f"gt/clip_a/{FRAMES[0]}.png", np.zeros((32, 48, 3), np.uint8))
    lmdb_writer.write_lmdbs([(PngFiles(own / "gt", 0), own / "gt.lmdb")], force=True)
    assert not FrameStore(own / "gt.lmdb", "png", backend="lmdb").read("clip_a", FRAMES[0]).any()
    assert not np.array_equal(before, store.get("clip_a", FRAMES[0]))


def test_folder_and_backend_must_agree(both, tmp_path):
    for folder, message in {
        "gt": r'io_backend.type: is "lmdb", but .*gt is a folder of images .* use .*gt\.lmdb',
        "spikes": "create .*spikes.lmdb with --generate-lmdb",
    }.items():
        with pytest.raises(UserError, match=message):
            FrameStore(both / folder, "png", backend="lmdb")
    with pytest.raises(UserError, match='io_backend.type: is "disk", but .*gt.lmdb is an LMDB; set it to "lmdb"'):
        FrameStore(both / "gt.lmdb", "png")
    with pytest.raises(UserError, match="dataroot_gt: .*x.lmdb is not a folder; .*--generate-lmdb"):
        existing_folder(tmp_path / "x.lmdb", "dataroot_gt")


def test_clips_that_do_not_pair_up_are_named(own):
    shutil.rmtree(own / "gt.lmdb")
    shutil.rmtree(own / "gt/clip_b")
    lmdb_writer.write_lmdbs([(PngFiles(own / "gt", 0), own / "gt.lmdb")])
    with pytest.raises(UserError, match="clip clip_b: .*gt.lmdb has no such clip"):
        define_Dataset(lmdb_options(own))
    opt = lmdb_options(own)
    swapped = opt.model_copy(update={"dataroot_lq": opt.dataroot_gt, "dataroot_gt": opt.dataroot_lq})
    with pytest.raises(UserError, match="clip clip_b: .*lq.lmdb key clip_b has frames, but dataroot_lq has no"):
        define_Dataset(swapped)


# Damage


def cut(path: Path, share: float = 0.5) -> None:
    os.truncate(path, int(path.stat().st_size * share))


DAMAGES = {
    r"gt.lmdb/data.mdb: is truncated, \d+ of \d+ bytes": lambda root: cut(root / "data.mdb"),
    "is not a readable LMDB": lambda root: (root / "data.mdb").write_bytes(b"x" * 9000),
    "data.mdb: cannot be read": lambda root: (root / "data.mdb").unlink(),
    "meta_info.txt: cannot be read": lambda root: (root / "meta_info.txt").unlink(),
    "meta_info.txt: is empty": lambda root: (root / "meta_info.txt").write_text(""),
    "meta_info.txt line 11: 'clip_a' is not": lambda root: (root / "meta_info.txt").open("a").write("clip_a"),
    "line 11: 'clip_c/1.png .* is a second line": lambda root: (
        (root / "meta_info.txt").open("a").write("clip_c/1.png (1,1,3) 0\n" * 2)
    ),
    "data.mdb: holds 10 keys, its meta_info.txt names 11": lambda root: (
        (root / "meta_info.txt").open("a").write("clip_c/1.png (1,1,3) 0\n")
    ),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_damaged_lmdb_is_refused_in_one_line(own, message):
    DAMAGES[message](own / "gt.lmdb")
    with pytest.raises(UserError, match=message.replace("line 11: 'clip_c", "line 12: 'clip_c")) as caught:
        LmdbStore(own / "gt.lmdb")
    assert "\n" not in str(caught.value)


def test_an_empty_data_file_is_refused(own):
    cut(own / "gt.lmdb/data.mdb", 0)
    with pytest.raises(UserError, match="data.mdb: is not a readable LMDB"):
        LmdbStore(own / "gt.lmdb")


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("folder", ["lq.lmdb", "spikes/train.lmdb"])
@pytest.mark.parametrize("damage", [cut, Path.unlink])
def test_damage_in_the_middle_of_an_epoch_names_clip_and_frame(own, num_workers, folder, damage):
    dataset = define_Dataset(lmdb_options(own))
    damage(own / folder / "data.mdb")
    batches = train_batches(dataset, seed=0, start_step=0, total_steps=5, batch_size=2, num_workers=num_workers)
    with pytest.raises(UserError, match=r"^clip clip_\w frame 0000\d\d: .*data.mdb: (is truncated|cannot be read)"):
        list(batches)


def test_a_missing_key_and_a_broken_image_name_clip_and_frame(tmp_path):
    good = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes()
    values = {"a/1": good, "a/2": good[:-20], "a/3": b"", "a/9": good}
    root = plain_lmdb(tmp_path / "x.lmdb", values, [f"a/{frame}.png (4,4,3) 1" for frame in "1234"])
    store = FrameStore(root, "png", backend="lmdb")
    assert store.read("a", "1").shape == (4, 4, 3)
    for frame in "23":
        with pytest.raises(UserError, match=f"clip a frame {frame}: .*x.lmdb has no valid image at a/{frame}"):
            store.read("a", frame)
    with pytest.raises(UserError, match="clip a frame 4: .*x.lmdb/data.mdb has no key a/4"):
        store.read("a", "4")
    with pytest.raises(UserError, match="clip a frame 5: .*x.lmdb/meta_info.txt has no line for a/5"):
        store.size("a", "5")


# Writing it


PAGE = os.sysconf("SC_PAGE_SIZE")


@settings(max_examples=10, deadline=None, derandomize=True)
@given(lengths=st.lists(st.integers(1, 60_000), min_size=1, max_size=40))
@example([PAGE - 16] * 200)
@example([PAGE] * 200)  # with LMDB's own 16 bytes two pages each
@example([9 * PAGE] * 50)
@example([1] * 300)
def test_the_size_is_known_beforehand(tmp_path_factory, lengths):
    folder = tmp_path_factory.mktemp("size")
    capacity = lmdb_writer.capacity(lengths)
    with lmdb.open(str(folder), map_size=capacity, sync=False) as environment:
        for start in range(0, len(lengths), 16):
            part = {b"%06d" % (start + i): np.zeros(n, np.uint8) for i, n in enumerate(lengths[start : start + 16])}
            lmdb_writer.put(environment, part)
        assert environment.info()["map_size"] == capacity
    used = (folder / "data.mdb").stat().st_size
    small = sum(length < PAGE / 2 for length in lengths)  # these share a page
    assert used <= capacity <= used + (small + len(lengths) // 10 + 64) * PAGE
    shutil.rmtree(folder)


def test_an_estimate_that_is_short_does_not_matter(own, monkeypatch):
    wanted = keys_of(own / "gt.lmdb")
    monkeypatch.setattr(lmdb_writer, "capacity", lambda lengths: 1 << 14)
    lmdb_writer.write_lmdbs([(PngFiles(own / "gt", 0), own / "gt.lmdb")], force=True)
    assert keys_of(own / "gt.lmdb") == wanted


def test_few_values_are_in_memory_at_a_time(own, monkeypatch):
    sizes = []
    put = lmdb_writer.put
    monkeypatch.setattr(
        lmdb_writer, "put", lambda environment, values: sizes.append(len(values)) or put(environment, values)
    )
    lmdb_writer.write_lmdbs([(PngFiles(own / "gt", 0), own / "gt.lmdb")], force=True, workers=1)
    assert sizes == [2] * 5


def test_a_disk_that_does_not_give_back_what_was_written_is_a_failure(own, monkeypatch):
    def put_spoiled(environment, values, put=lmdb_writer.put):
        put(environment, {key: data[::-1].copy() if b"49" in key else data for key, data in values.items()})

    monkeypatch.setattr(lmdb_writer, "put", put_spoiled)
    for kind, files in {
        "gt": PngFiles(own / "gt", 0),
        "spikes/train": DatFiles(own / "spikes/train", SPIKE_SIZE),
    }.items():
        shutil.rmtree(own / f"{kind}.lmdb")
        with pytest.raises(RuntimeError, match="clip_a/000049 is not what was written"):
            lmdb_writer.write_lmdbs([(files, own / f"{kind}.lmdb")])
        assert not list(own.rglob(f"{Path(kind).name}.lmdb*"))


def as_data_set(root: Path, source: Path) -> Path:
    """The layout that create_lmdbs expects, both splits alike."""
    for split in SPLITS:
        shutil.copytree(source / "gt", root / f"{split}_GT")
        shutil.copytree(source / "lq", root / f"{split}_GT_blurred")
        shutil.copytree(source / "spikes/train", root / SPIKES / split)
    shutil.copy(source / "spikes/manifest.json", root / SPIKES)
    return root


@pytest.fixture
def data_set(tmp_path, shared_set):
    return as_data_set(tmp_path / "set", shared_set)


def stamps(root: Path) -> dict[str, int]:
    return {str(path.relative_to(root)): path.stat().st_ino for path in sorted(root.rglob("*.lmdb"))}


def test_all_folders_of_a_set_get_an_lmdb_which_then_stays(data_set, caplog):
    caplog.set_level(logging.INFO, logger="spikevrt")
    lmdb_writer.create_lmdbs(data_set, SPLITS)
    written = stamps(data_set)
    assert list(written) == [
        *(f"{SPIKES}/{split}.lmdb" for split in ("test", "train")),
        *(f"{split}_{kind}.lmdb" for split in ("test", "train") for kind in ("GT", "GT_blurred")),
    ]
    assert "MB to write" in caplog.text
    for name in written:
        store = LmdbStore(data_set / name)
        assert [len(frames) for frames in store.clips().values()] == [5, 5]
    caplog.clear()
    lmdb_writer.create_lmdbs(data_set, SPLITS, compression=1)
    assert caplog.text.count("up to date, 10 keys of PNG level 0") == 6
    assert stamps(data_set) == written
    lmdb_writer.create_lmdbs(data_set, ["train"], force=True)
    assert {name for name, inode in stamps(data_set).items() if inode != written[name]} == {
        name for name in written if "train" in name
    }
    assert not list(data_set.rglob("*.partial")) + list(data_set.rglob("*.old"))


CHANGES = {
    "has 4 frames of clip clip_b, which are not the 5": lambda root: None,
    r"clip_a/000047 is \(32, 48, 3\), but \(8, 8, 3\) in": lambda root: write_rgb(
        root / "train_GT/clip_a/000047.png", np.zeros((8, 8, 3), np.uint8)
    ),
    "clip_a/000047 differs in content": lambda root: write_rgb(
        root / "train_GT/clip_a/000047.png", np.zeros((32, 48, 3), np.uint8)
    ),
    r"clip_b/000047 is \(24, 16, 24\), but \(12, 16, 24\) in": lambda root: cut(
        root / SPIKES / "train/clip_b/spike/000047.dat"
    ),
}


@pytest.mark.parametrize("message", CHANGES)
def test_an_lmdb_that_differs_from_its_folder_is_named_and_force_replaces_it(data_set, message):
    late = data_set / "train_GT/clip_b/000051.png"
    if message.startswith("has 4"):
        late.rename(data_set / "late.png")
    lmdb_writer.create_lmdbs(data_set, ["train"])
    if message.startswith("has 4"):
        (data_set / "late.png").rename(late)
    CHANGES[message](data_set)
    before = stamps(data_set)
    with pytest.raises(UserError, match=message + ".*--force"):
        lmdb_writer.create_lmdbs(data_set, ["train"])
    assert stamps(data_set) == before
    lmdb_writer.create_lmdbs(data_set, ["train"], force=True)
    lmdb_writer.create_lmdbs(data_set, ["train"])


@pytest.mark.parametrize(
    "record", [None, Path.unlink, lambda path: path.write_text("{"), lambda path: path.write_text("[]")]
)
@pytest.mark.parametrize("kind", ["train_GT/clip_b/000050.png", f"{SPIKES}/train/clip_b/spike/000050.dat"])
def test_any_changed_frame_is_noticed_also_where_nothing_was_recorded(data_set, kind, record):
    lmdb_writer.create_lmdbs(data_set, ["train"])
    if record is not None:
        for path in data_set.rglob(".*.sources.json"):
            record(path)
        lmdb_writer.create_lmdbs(data_set, ["train"])
    path = data_set / kind
    before = path.stat()
    if path.suffix == ".png":
        write_rgb(path, 255 - read_rgb(path))
    else:
        path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as an archive restores it
    with pytest.raises(UserError, match="clip_b/000050 differs in content from .*; --force writes it again"):
        lmdb_writer.create_lmdbs(data_set, ["train"])


def test_only_files_that_may_have_changed_are_read(data_set, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="spikevrt")
    lmdb_writer.create_lmdbs(data_set, ["train"])
    (data_set / "train_GT/clip_b/000050.png").touch()
    read = []
    value = PngFiles.value
    monkeypatch.setattr(PngFiles, "value", lambda self, *key: (read.append(key), value(self, *key))[1])
    lmdb_writer.create_lmdbs(data_set, ["train"])
    assert read == [("clip_b", "000050")]
    assert "comparing the 1 of 10 files that may have changed" in caplog.text


OLD = {
    "changed": lambda root: os.utime(root / "train_GT/clip_b/000050.png"),
    "removed": lambda root: (root / "train_GT/clip_b/000050.png").unlink(),
    "added": lambda root: shutil.copytree(root / "train_GT/clip_b", root / "train_GT/clip_c"),
    "spikes": lambda root: cut(root / SPIKES / "train/clip_b/spike/000050.dat"),
}


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("change", OLD)
def test_an_lmdb_older_than_its_folder_is_said_when_it_is_opened(data_set, heard, change, recorded):
    roots = {"gt": "train_GT", "lq": "train_GT_blurred", "spike": f"{SPIKES}/train"}
    given = {f"dataroot_{key}": str(lmdb_path(data_set / name)) for key, name in roots.items()}
    opt = DatasetOpt.model_validate(
        {"dataset_type": "VideoRecurrentTestDatasetRGBSpike", "io_backend": {"type": "lmdb"}, **given}
    )
    lmdb_writer.create_lmdbs(data_set, ["train"])
    for path in data_set.rglob(".*.sources.json"):
        path.unlink() if not recorded else None
    (data_set / SPIKES / "train/clip_b/spike/preview.png").touch()
    heard.clear()
    define_Dataset(opt)
    assert "older than" not in heard.text
    OLD[change](data_set)
    define_Dataset(opt)
    (line,) = [line for line in heard.messages if "older than" in line]
    name = f"{SPIKES}/train" if change == "spikes" else "train_GT"
    assert line.startswith(f"{data_set}/{name}.lmdb: is older than {data_set}/{name}: ")
    assert f"create_lmdb.py --dataset-root {data_set} --splits train --force" in line
    heard.clear()
    shutil.rmtree(data_set / name)
    define_Dataset(opt)
    assert "older than" not in heard.text


def test_hidden_folders_beside_clips_are_no_clips(data_set):
    for folder in ("train_GT", "GOPRO_Large_spike_seq/train"):
        for name in (".ipynb_checkpoints", "@eaDir"):
            (data_set / folder / name).mkdir()
    lmdb_writer.create_lmdbs(data_set, ["train"])
    assert list(LmdbStore(data_set / "GOPRO_Large_spike_seq/train.lmdb").clips()) == ["clip_a", "clip_b"]


def test_a_record_of_another_lmdb_does_not_count(data_set):
    lmdb_writer.create_lmdbs(data_set, ["train"])
    target = data_set / "train_GT.lmdb"
    record = record_path(target).read_text()
    path = data_set / "train_GT/clip_b/000050.png"
    image = read_rgb(path)
    write_rgb(path, 255 - image)
    lmdb_writer.create_lmdbs(data_set, ["train"], force=True)
    changed = record_path(target).read_text()
    write_rgb(path, image)
    lmdb_writer.create_lmdbs(data_set, ["train"], force=True)
    record_path(target).write_text(changed)
    write_rgb(path, 255 - image)
    with pytest.raises(UserError, match="differs in content"):
        lmdb_writer.create_lmdbs(data_set, ["train"])
    assert record != changed


def test_an_lmdb_that_another_call_writes_is_refused(data_set):
    target = data_set / "train_GT.lmdb"
    with acquire(data_set / ".train_GT.lmdb.lock", "it", "wait"):
        with pytest.raises(UserError, match=rf"{target} is in use by process {os.getpid()} on .* since .*; wait"):
            lmdb_writer.create_lmdbs(data_set, ["train"])
        lmdb_writer.create_lmdbs(data_set, ["test"])
    lmdb_writer.create_lmdbs(data_set, ["train"])
    with acquire(data_set / ".train_GT.lmdb.lock", "it", "wait"):
        lmdb_writer.create_lmdbs(data_set, ["train"])  # nothing is to be done
        with pytest.raises(UserError, match="in use"):
            lmdb_writer.create_lmdbs(data_set, ["train"], force=True)


@pytest.mark.parametrize("clip", ["../evil", "/evil", "a/../../evil", "a//b"])
def test_clip_names_cannot_leave_their_folder(tmp_path, clip):
    folder = plain_lmdb(tmp_path / "gt.lmdb", {f"{clip}/0": b"x"}, [f"{clip}/0.png (4,4,3) 0"])
    with pytest.raises(UserError, match=r"meta_info.txt line 1: the name '.*' could lead out of its folder"):
        LmdbStore(folder)
    meta = tmp_path / "meta.txt"
    meta.write_text(f"ok/0001 2 (4,4,3) 0\n{clip} 2 (4,4,3) 0\n")
    with pytest.raises(UserError, match=r"meta.txt line 2: the name '.*' could lead out of its folder"):
        find_clips(tmp_path, None, str(meta), "06d")
    meta.write_text("00001/0001 2 (4,4,3) 0\n")
    assert find_clips(tmp_path, None, str(meta), "d") == {"00001/0001": ("0", "1")}


def test_a_folder_that_is_no_lmdb_is_not_touched(data_set):
    (data_set / "train_GT.lmdb").mkdir()
    (data_set / "train_GT.lmdb/mine.txt").touch()
    with pytest.raises(UserError, match="train_GT.lmdb: is not an LMDB .* move it away"):
        lmdb_writer.create_lmdbs(data_set, ["train"], force=True)
    assert (data_set / "train_GT.lmdb/mine.txt").exists()


def test_a_disk_that_is_too_small_is_said_before_anything_is_written(data_set, monkeypatch):
    usage = shutil._ntuple_diskusage(10**9, 10**9, 500_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"0\.5 MB are free on its disk, 0\.\d MB needed"):
        lmdb_writer.create_lmdbs(data_set, SPLITS)
    assert stamps(data_set) == {}


def test_what_is_missing_or_damaged_is_named_and_leaves_nothing(data_set):
    cut(data_set / "train_GT/clip_b/000050.png")
    with pytest.raises(UserError, match="clip clip_b frame 000050: .*train_GT/clip_b/000050.png"):
        lmdb_writer.create_lmdbs(data_set, ["train"])
    assert not list(data_set.rglob("*.lmdb*"))
    cut(data_set / SPIKES / "test/clip_a/spike/000049.dat", 0.99)
    with pytest.raises(UserError, match="000049.dat: .* is not a multiple"):
        lmdb_writer.create_lmdbs(data_set, ["test"])
    (data_set / SPIKES / "manifest.json").unlink()
    with pytest.raises(UserError, match=f"{SPIKES}: has neither manifest.json nor config.yaml"):
        lmdb_writer.create_lmdbs(data_set, ["test"])
    shutil.rmtree(data_set / "test_GT_blurred")
    with pytest.raises(UserError, match="--dataset-root: .*test_GT_blurred is not a folder"):
        lmdb_writer.create_lmdbs(data_set, ["test"])


def test_a_set_without_spikes_gets_the_frames_alone(data_set):
    shutil.rmtree(data_set / SPIKES)
    lmdb_writer.create_lmdbs(data_set, ["train"])
    assert list(stamps(data_set)) == ["train_GT.lmdb", "train_GT_blurred.lmdb"]


# Killed


def die(*args: object, **options: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("point", ["put", "check_values", "write_text", "sync_folder"])
@pytest.mark.parametrize("force", [False, True])
def test_a_run_killed_at_any_point_leaves_nothing_that_looks_whole(own, monkeypatch, point, force):
    target, old = own / "gt.lmdb", keys_of(own / "gt.lmdb")
    if not force:
        shutil.rmtree(target)
    job = [(PngFiles(own / "gt", 1), target)]
    with monkeypatch.context() as patch:
        patch.setattr(lmdb_writer, point, die)
        process = multiprocessing.get_context("fork").Process(
            target=lmdb_writer.write_lmdbs, args=(job,), kwargs={"force": force}
        )
        process.start()
        process.join()
    assert process.exitcode == -signal.SIGKILL
    assert target.with_name("gt.lmdb.partial").exists()
    if force:
        assert keys_of(target) == old
    else:
        assert not target.exists()
    lmdb_writer.write_lmdbs(job, force=force)
    assert LmdbStore(target).entry("clip_a", FRAMES[0]).compression == 1
    assert not list(own.glob("gt.lmdb.*"))


def test_the_script_killed_in_the_middle_and_run_again(tmp_path, data_set, run_program):
    noise = tmp_path / "noise.png"
    write_rgb(noise, rng().integers(256, size=(512, 512, 3)).astype(np.uint8))
    for number in range(100):
        os.link(noise, data_set / f"train_GT/clip_a/1{number:05d}.png")
    command = [create_lmdb.__file__, "--dataset_root", str(data_set), "--splits", "train"]
    output = subprocess.DEVNULL
    process = subprocess.Popen([sys.executable, *command], stdout=output, stderr=output)
    partial = data_set / "train_GT.lmdb.partial"
    while not partial.exists() and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert [path for path in data_set.rglob("*.lmdb") if is_lmdb(path)] == []
    code, _, err = run_program(*command)
    assert code == 0, err
    assert LmdbStore(data_set / "train_GT.lmdb").clips() == scan_clips(data_set / "train_GT", "png")
    assert len(stamps(data_set)) == 3
    assert not partial.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["nowhere"], "--dataset-root: nowhere is not a folder"), ([".", "--compression=10"], "--compression")],
)
def test_the_script_ends_with_one_line_and_2(monkeypatch, capsys, arguments, words):
    monkeypatch.setattr(sys, "argv", ["create_lmdb.py", "--dataset-root", *arguments])
    with pytest.raises(SystemExit) as caught:
        create_lmdb.main()
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert words in error
    assert error.count("\n") == 1
