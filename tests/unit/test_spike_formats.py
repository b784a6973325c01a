"""Spike files of every format open as the same (T, H, W) array; all else is refused in one line."""

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spike_scenes import UHSR, fire, pack, real_file, scene

from data.spike.formats import RAW416, frame_start1024, is_raw416, open_spikes, step_reader
from utils.spike_loader import write_spikes
from utils.utils_error import UserError

HALF_ROWS = 2000  # of a frame of 1000x1024


@pytest.fixture(scope="module")
def spikes():
    return fire(scene(48, 64), 60, np.random.default_rng(0))


@pytest.mark.parametrize("flipud", [True, False])
@pytest.mark.parametrize("order", ["little", "big"])
def test_a_dat_tells_its_size_and_order_itself(tmp_path, spikes, flipud, order):
    path = tmp_path / "a.dat"
    write_spikes(path, spikes, flipud=flipud, bit_order=order)
    got, found = open_spikes(path, flipud=flipud)
    assert np.array_equal(got, spikes)
    assert found == ("dat", 48, 64, 60, flipud, order, (0, 0))
    window, found = open_spikes(path, size=(48, 64), flipud=flipud, bit_order=order, steps=(3, 7))
    assert np.array_equal(window, spikes[3:7])
    assert found.steps == 60


@pytest.mark.parametrize("kind", [np.uint8, np.bool_])
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_arrays_open_as_they_are(tmp_path, spikes, suffix, kind):
    path = tmp_path / f"a.{suffix}"
    if suffix == "npy":
        np.save(path, spikes.astype(kind))
    else:
        np.savez_compressed(path, spk=spikes.astype(kind), label=np.int64(3), label_name="cat")
    got, found = open_spikes(path, steps=(1, 5))
    assert np.array_equal(got, spikes[1:5])
    assert got.dtype == np.uint8
    assert found == (suffix, 48, 64, 60, False, None, (0, 0))
    with pytest.raises(UserError, match="48x64"):
        open_spikes(path, size=(24, 128))
    with pytest.raises(UserError, match=r"\[0, 60\)"):
        open_spikes(path, steps=(3, 61))


def test_the_real_capture_opens():
    got, found = open_spikes(real_file(UHSR))
    assert got.shape == (200, 250, 250)
    assert got.mean() == pytest.approx(0.0314, abs=5e-5)
    assert found.bit_order is None


def raw416(steps, rng):
    """Pixels and the file of a 250x400 camera: 16 header columns that count lines."""
    spikes = fire(scene(250, 400), steps, rng)
    header = np.unpackbits(np.arange(250, dtype="<u2").view(np.uint8), bitorder="little").reshape(250, 16)
    rows = np.concatenate([spikes, np.broadcast_to(header[::-1], (steps, 250, 16))], axis=2)
    return spikes, pack(rows)


def test_raw416_is_told_from_its_header(tmp_path):
    spikes, packed = raw416(12, np.random.default_rng(1))
    path = tmp_path / "a.dat"
    packed.tofile(path)
    for arguments in ({}, {"format": "raw416"}, {"size": (250, 400), "format": "raw416"}, {"size": RAW416}):
        got, found = open_spikes(path, **arguments)
        assert np.array_equal(got, spikes)
        assert found[:4] == ("raw416", 250, 400, 12)
        assert np.array_equal(step_reader(path, found)(2, 5), spikes[2:5])
    with pytest.raises(UserError, match="remainder"):
        open_spikes(path, size=(250, 400))


def test_a_picture_of_416_columns_has_no_header():
    assert not is_raw416(pack(fire(scene(250, 416), 12, np.random.default_rng(2))), RAW416)


def raw1024(frames, rng):
    """Pixels and the file of a 1000x1000 camera; line 500 comes first."""
    spikes = (rng.random((frames, 1000, 1000)) < 0.3).astype(np.uint8)
    line = (500 + np.arange(1000)) % 1000
    rows = np.zeros((frames, 1000, 2, 512), np.uint8)
    rows[..., :500] = spikes.reshape(frames, 1000, 2, 500)
    header = line[:, None] | np.arange(2)[None] << 10  # 10 bits of line, then 2 bits of channel
    rows[..., 502:] = 0
    rows[..., 500:] = header[..., None] >> np.arange(12) & 1
    return spikes, np.packbits(rows.reshape(-1), bitorder="little")


@pytest.mark.parametrize(("before", "after"), [(0, 0), (48, 7), (64_000, 64_000)])
def test_raw1024_finds_its_frames_and_reports_the_rest(tmp_path, before, after):
    spikes, packed = raw1024(3, np.random.default_rng(3))
    path = tmp_path / "a.dat"
    tail = packed[128_000 - before : 128_000] if before else packed[:0]
    np.concatenate([tail, packed, packed[:after]]).tofile(path)
    got, found = open_spikes(path, format="raw1024", steps=(1, 3))
    assert np.array_equal(got, spikes[1:])
    assert found == ("raw1024", 1000, 1000, 3, False, "little", (before, after))
    assert np.array_equal(step_reader(path, found)(1, 3), got)
    with pytest.raises(UserError, match="--spike_h 250 --spike_w 400, but the file has 1000x1000"):
        open_spikes(path, size=(250, 400), format="raw1024")


def test_raw1024_needs_every_frame_to_start_alike():
    _, packed = raw1024(2, np.random.default_rng(4))
    assert frame_start1024(packed) == 0
    packed[128_000 + 62 : 128_000 + 64] = 0
    assert frame_start1024(packed) != 0
    assert frame_start1024(np.zeros(300_000, np.uint8)) is None


def bad_files(folder):
    rng = np.random.default_rng(5)
    pickled = folder / "pickled.npy"
    np.save(pickled, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(folder / "flat.npy", np.zeros((4, 8), np.uint8))
    np.save(folder / "gray.npy", rng.integers(0, 256, (2, 8, 8), np.uint8))
    np.save(folder / "float.npy", np.zeros((2, 8, 8)))
    np.save(folder / "none.npy", np.zeros((0, 8, 8), np.uint8))
    np.savez(folder / "key.npz", spikes=np.zeros((2, 8, 8), np.uint8))
    np.savez(folder / "object.npz", spk=np.array([None]))
    (folder / "cut.npy").write_bytes((folder / "flat.npy").read_bytes()[:-3])
    (folder / "cut.npz").write_bytes((folder / "key.npz").read_bytes()[:40])
    (folder / "other.npz").write_bytes(rng.bytes(100))
    with zipfile.ZipFile(folder / "spk.npz", "w") as archive:
        archive.writestr("spk.npy", b"no array")
    (folder / "empty.dat").touch()
    (folder / "notes.dat").write_text("three lines\nof text\nabout spikes\n")
    (folder / "picture.dat").write_bytes(b"\x89PNG\r\n\x1a\n" + rng.bytes(50))
    (folder / "video.dat").write_bytes(b"\0\0\0\x20ftypisom" + rng.bytes(50))
    (folder / "noise.dat").write_bytes(rng.bytes(5001))
    return {
        "pickled.npy": "a numeric array",
        "flat.npy": r"\(T, H, W\)",
        "gray.npy": "values up to",
        "float.npy": "float64",
        "none.npy": r"\(0, 8, 8\)",
        "key.npz": "holds spikes, expected the array spk",
        "object.npz": "a numeric array",
        "cut.npy": "cannot be read",
        "cut.npz": "cannot be read",
        "other.npz": "not a NumPy file",
        "spk.npz": r"cannot be read|\(T, H, W\)",
        "empty.dat": "empty",
        "notes.dat": "text file",
        "picture.dat": "PNG image.*--frames",
        "video.dat": "MP4 video.*--video",
        "noise.dat": "--spike_h and --spike_w",
        "gone.dat": "no such",
        ".": "no such",
    }


def test_everything_else_is_refused_in_one_line(tmp_path):
    for name, words in bad_files(tmp_path).items():
        with pytest.raises(UserError, match=words) as caught:
            open_spikes(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["npy", "npz", "dat"]), st.booleans())
def test_damaged_arrays_never_crash(tmp_path_factory, junk, suffix, keep_head):
    path = tmp_path_factory.getbasetemp() / f"junk.{suffix}"
    memory = io.BytesIO()
    np.save(memory, np.zeros((2, 4, 8), np.uint8))
    path.write_bytes((memory.getvalue()[: len(junk)] if keep_head else b"") + junk)
    try:
        got, _ = open_spikes(path)
    except UserError as error:
        assert path.name in str(error)  # noqa: PT017
    else:
        assert got.ndim == 3
        assert got.max() <= 1
