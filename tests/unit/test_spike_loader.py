"""Spike files: bits, windows, sizes and writing."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from utils.spike_loader import (
    SIZES_IN_USE,
    SpikeStreamSimple,
    num_steps,
    read_spikes,
    write_spikes,
)
from utils.utils_error import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("spikes")


@st.composite
def streams(draw):
    """Random (T, H, W) spikes with H*W % 8 == 0, and whether the file is flipped."""
    factor = draw(st.sampled_from([1, 2, 4, 8]))
    h = factor * draw(st.integers(1, 6))
    w = 8 // factor * draw(st.integers(1, 9))
    if draw(st.booleans()):
        h, w = w, h
    steps = draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.integers(0, 2, (steps, h, w), np.uint8), draw(st.booleans())


@st.composite
def windows(draw, length):
    first = draw(st.integers(0, length - 1))
    return first, draw(st.integers(first + 1, length))


def test_bit_order_and_flip_by_hand(tmp_path):
    path = tmp_path / "a.dat"
    path.write_bytes(bytes([0b00000001, 0b10000000]))
    bottom = [1, 0, 0, 0, 0, 0, 0, 0]
    top = [0, 0, 0, 0, 0, 0, 0, 1]
    assert read_spikes(path, 2, 8).tolist() == [[top, bottom]]
    assert read_spikes(path, 2, 8, flipud=False).tolist() == [[bottom, top]]
    assert read_spikes(path, 1, 8)[:, 0].tolist() == [bottom, top]


@given(streams())
def test_round_trip(folder, case):
    spikes, flipud = case
    steps, h, w = spikes.shape
    path = folder / "round.dat"
    write_spikes(path, spikes, flipud=flipud)
    assert path.stat().st_size == spikes.size // 8
    assert num_steps(path, h, w) == steps
    back = read_spikes(path, h, w, flipud=flipud)
    assert back.dtype == np.uint8
    assert np.array_equal(back, spikes)
    stored = path.read_bytes()
    write_spikes(path, back.astype(bool), flipud=flipud)
    assert path.read_bytes() == stored


@given(streams(), st.data())
def test_any_window_is_a_slice_of_the_whole(folder, case, data):
    spikes, flipud = case
    steps, h, w = spikes.shape
    path = folder / "window.dat"
    write_spikes(path, spikes, flipud=flipud)
    t, r, c = (data.draw(st.none() | windows(length)) for length in (steps, h, w))
    got = read_spikes(path, h, w, steps=t, rows=r, cols=c, flipud=flipud)
    assert np.array_equal(got, spikes[tuple(slice(*(part or (None,))) for part in (t, r, c))])
    assert got.flags.c_contiguous
    assert got.flags.writeable
    assert got.flags.owndata or not isinstance(got.base, np.memmap)


@pytest.fixture
def unpacked(monkeypatch):
    """Bytes of each call of np.unpackbits."""
    sizes, unpackbits = [], np.unpackbits

    def spy(packed, **kwargs):
        sizes.append(packed.size)
        return unpackbits(packed, **kwargs)

    monkeypatch.setattr(np, "unpackbits", spy)
    return sizes


@pytest.mark.parametrize("w", [64, 12])
def test_window_unpacks_only_its_bytes(tmp_path, unpacked, w):
    path = tmp_path / "a.dat"
    write_spikes(path, np.zeros((50, 40, w), np.uint8))
    read_spikes(path, 40, w, steps=(10, 13), rows=(4, 9), cols=(5, 12))
    # 3 steps of 5 rows: 2 bytes each where rows are whole bytes, else 60 bits in at most 9 bytes a step
    assert sum(unpacked) <= (3 * 5 * 2 if w == 64 else 3 * 9)


@pytest.mark.parametrize("key", ["steps", "rows", "cols"])
@pytest.mark.parametrize("bad", [(-1, 2), (0, 9), (3, 3), (3, 2)])
def test_window_outside_is_an_error(tmp_path, key, bad):
    path = tmp_path / "a.dat"
    write_spikes(path, np.zeros((8, 8, 8), np.uint8))
    with pytest.raises(UserError, match=rf"a\.dat: {key} \[{bad[0]}, {bad[1]}\).*\[0, 8\)"):
        read_spikes(path, 8, 8, **{key: bad})


@given(size=st.integers(1, 4000), h=st.integers(1, 40), w=st.integers(1, 40))
def test_a_remainder_never_passes(folder, size, h, w):
    assume(h * w % 8 == 0)
    path = folder / "size.dat"
    path.write_bytes(bytes(size))
    if size * 8 % (h * w) == 0:
        assert num_steps(path, h, w) * h * w == size * 8
        return
    for call in (num_steps, read_spikes, SpikeStreamSimple):
        with pytest.raises(UserError, match=f"remainder {size % (h * w // 8)} bytes"):
            call(path, h, w)


def test_wrong_size_names_everything(tmp_path):
    path = tmp_path / "000226.dat"
    path.write_bytes(bytes(2_534_400))
    with pytest.raises(UserError) as caught:
        num_steps(path, 250, 400)
    message = str(caught.value)
    for part in (
        str(path),
        "2534400 bytes",
        "H=250",
        "W=400",
        "remainder 9400",
        "360x640 (88 steps)",
        "spike_h",
    ):
        assert part in message
    assert "500x800" not in message
    assert "\n" not in message


def test_a_size_that_fits_nothing_says_so(tmp_path):
    path = tmp_path / "a.dat"
    path.write_bytes(bytes(12_501))
    with pytest.raises(UserError, match="fit: none"):
        num_steps(path, 250, 400)


@pytest.mark.parametrize(("h", "w"), [(250, 250), (3, 3), (0, 8), (-8, -8), (8, 0)])
def test_impossible_sizes_are_errors(tmp_path, h, w):
    path = tmp_path / "a.dat"
    path.write_bytes(bytes(7200))
    with pytest.raises(UserError, match=f"spike_h={h}, spike_w={w}"):
        num_steps(path, h, w)


def test_missing_empty_and_folder_are_errors(tmp_path):
    (tmp_path / "empty.dat").touch()
    for name, words in (("gone.dat", "no such"), ("empty.dat", "empty"), (".", "no such")):
        with pytest.raises(UserError, match=words):
            num_steps(tmp_path / name, 8, 8)


def test_all_sizes_in_use_are_whole_bytes():
    assert all(h * w % 8 == 0 for h, w in SIZES_IN_USE)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((0, 8, 8), np.uint8),
        np.zeros((2, 3, 3), np.uint8),
        np.full((1, 8, 8), 2, np.uint8),
        np.zeros((1, 8, 8), np.float32),
    ],
)
def test_write_refuses_what_is_no_spike_stream(tmp_path, bad):
    with pytest.raises(ValueError, match="spikes must be"):
        write_spikes(tmp_path / "a.dat", bad)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.dat"
    write_spikes(path, np.ones((1, 8, 8), np.uint8))

    def full_disk(*_):
        raise OSError("no space")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_spikes(path, np.zeros((2, 8, 8), np.uint8))
    assert read_spikes(path, 8, 8).min() == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.dat"]


def test_spike_stream_simple(tmp_path):
    spikes = np.random.default_rng(0).integers(0, 2, (3, 8, 16), np.uint8)
    write_spikes(tmp_path / "x.dat", spikes)
    stream = SpikeStreamSimple(filepath=str(tmp_path / "x.dat"), spike_h=8, spike_w=16)
    assert np.array_equal(stream.get_spike_matrix(), spikes)
    assert np.array_equal(stream.get_spike_matrix(flipud=False), spikes[:, ::-1])
