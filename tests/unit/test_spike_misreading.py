"""No file, size or truncation passes for something it is not: refused, or read bit for bit."""

import itertools

import numpy as np
import pytest
from tiny_set import SPIKE_SIZE, make_set, options

from data.dataset_video_test import VideoTestDataset
from data.spike.manifest import ClipTiming
from utils.spike_loader import num_steps, read_spikes
from utils.utils_error import UserError

CLIP = "GOPR0001_03_00"
TIMING = ClipTiming(steps=24, exposure=(0, 17), sharp_step=8)


@pytest.fixture(scope="module")
def gopro(tmp_path_factory):
    """One frame by the rules of the GoPro set: N = 3, 24 steps, 17 of them where it is a clip's last."""
    return make_set(tmp_path_factory.mktemp("gopro"), clips=(CLIP,), frames=1, manifest=False, timing=TIMING)


def opened(root, size):
    return VideoTestDataset(options(root, "Test", spike_h=size[0], spike_w=size[1]))


def test_truncations_are_refused(gopro):
    path = next(gopro.rglob("*.dat"))
    whole = path.read_bytes()
    step = len(whole) // 24
    sizes = sorted({*range(2 * step), *(at * step + more for at in range(1, 25) for more in (-1, 0, 1))})[:-1]
    passed = []
    try:
        for size in sizes:
            path.write_bytes(whole[:size])
            try:
                opened(gopro, SPIKE_SIZE)
            except UserError as error:
                assert CLIP in str(error)  # noqa: PT017
            else:
                passed.append(size)
    finally:
        path.write_bytes(whole)
    assert passed == [17 * step, 24 * step]  # a clip's last file is short by right


def test_every_wrong_geometry_is_refused(gopro):
    passed = []
    bits = 24 * SPIKE_SIZE[0] * SPIKE_SIZE[1]
    for height, width in itertools.product(range(1, 65), repeat=2):
        if bits % (height * width) and max(height, width) > 16:
            continue  # no whole number of steps: as at the smaller sizes
        try:
            opened(gopro, (height, width))
        except UserError:
            continue
        passed.append((height, width))
    assert passed == [SPIKE_SIZE]


def test_two_thousand_random_files_are_read_bit_for_bit_or_refused(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "random.dat"
    read = refused = 0
    for _ in range(2_000):
        content = rng.bytes(int(rng.integers(0, 200)))
        height, width = (int(side) for side in rng.integers(0, 12, 2))
        path.write_bytes(content)
        fits = height * width > 0 and height * width % 8 == 0 and len(content) > 0
        if fits and len(content) * 8 % (height * width) == 0:
            spikes = read_spikes(path, height, width)
            assert spikes.shape == (num_steps(path, height, width), height, width)
            assert np.packbits(spikes[:, ::-1].reshape(-1), bitorder="little").tobytes() == content
            read += 1
        else:
            with pytest.raises(UserError):
                read_spikes(path, height, width)
            refused += 1
    assert read > 20
    assert refused > 1000
