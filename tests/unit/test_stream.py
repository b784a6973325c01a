"""Consecutive .dat files as one stream: windows that reach into the neighbours, and the stream's ends."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_set import FIRST, RATE, SHARP, SPIKE_SIZE, STEPS, make_set, options

from data.dataset_video_test import VideoTestDataset
from data.dataset_video_train_rgbspike import VideoTrainDatasetRGBSpike
from data.geometry import Box
from data.spike.manifest import Manifest
from data.spike.stream import Timeline, mirrored
from utils.spike_loader import read_spikes
from utils.utils_error import UserError

WHOLE = Box(0, 0, *SPIKE_SIZE)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    gap=st.integers(0, 6),
    frame=st.integers(0, 5),
    first=st.integers(-30, 30),
    count=st.integers(1, 40),
    continuous=st.booleans(),
)
def test_a_cut_is_the_cut_of_the_files_laid_end_to_end(lengths, gap, frame, first, count, continuous):
    numbers = [index + (index >= gap) for index in range(len(lengths))]  # one number is left out
    frame = min(frame, len(lengths) - 1)
    steps = [[(number, step) for step in range(length)] for number, length in zip(numbers, lengths, strict=True)]
    if continuous:
        same = [index for index in range(len(lengths)) if (numbers[index] >= gap) == (numbers[frame] >= gap)]
    else:
        same = [frame]
    axis = [step for index in same for step in steps[index]]
    origin = sum(lengths[index] for index in same if index < frame)
    wanted = range(origin + first, origin + first + count)
    expected = [axis[index] for index in wanted if 0 <= index < len(axis)]

    timeline = Timeline({f"{n:06d}": length for n, length in zip(numbers, lengths, strict=True)}, continuous)
    cut = timeline.cut(f"{numbers[frame]:06d}", first, first + count)
    assert [(int(p.frame), step) for p in cut.pieces for step in range(p.first, p.last)] == expected
    assert cut.before == sum(index < 0 for index in wanted)
    assert cut.after == sum(index >= len(axis) for index in wanted)
    assert cut.is_whole == (len(expected) == count)


def test_a_mirrored_end_repeats_the_last_step_first():
    spikes = np.arange(5, dtype=np.uint8).reshape(5, 1, 1)
    assert mirrored(spikes, 2, 3).ravel().tolist() == [1, 0, 0, 1, 2, 3, 4, 4, 3, 2]


def continuous_set(root, **changes):
    make_set(root)
    manifest = Manifest.load(root / "spikes/train").model_copy(update={"continuous": True} | changes)
    manifest.save(root / "spikes")
    return root


def stream(root, clip="clip_a"):
    files = sorted((root / "spikes/train" / clip / "spike").glob("*.dat"))
    return np.concatenate([read_spikes(path, *SPIKE_SIZE) for path in files])


def test_a_window_reaches_into_both_neighbours(tmp_path):
    root = continuous_set(tmp_path)
    spike = {"window": 2 * STEPS + 1, "edge": "mirror"}
    source = VideoTrainDatasetRGBSpike(options(root, spike=spike)).spikes
    planes = source.planes("clip_a", f"{FIRST + 2:06d}", WHOLE, 1)
    center = 2 * STEPS + SHARP
    wanted = stream(root)[center - STEPS : center + STEPS + 1].mean(axis=0) / RATE
    assert np.allclose(planes[0], wanted, atol=1e-6)


def test_where_the_stream_ends_it_is_refused_or_mirrored(tmp_path):
    root = continuous_set(tmp_path)
    spike = {"window": 2 * STEPS + 1}
    with pytest.raises(UserError, match=r"clip_a frame 000047: steps -14..34 are needed, the stream has 0..34;"):
        VideoTrainDatasetRGBSpike(options(root, spike=spike))
    source = VideoTrainDatasetRGBSpike(options(root, spike=spike | {"edge": "mirror"})).spikes
    planes = source.planes("clip_a", f"{FIRST:06d}", WHOLE, 1)
    beyond = STEPS - SHARP
    real = stream(root)[: SHARP + STEPS + 1]
    wanted = np.concatenate([real[:beyond][::-1], real]).mean(axis=0) / RATE
    assert np.allclose(planes[0], wanted, atol=1e-6)


def test_a_stream_is_not_mirrored_beyond_its_own_length(tmp_path):
    root = make_set(tmp_path)  # not continuous
    with pytest.raises(UserError, match=r"steps -40..60 are needed, the stream has 0..23 \(manifest"):
        VideoTrainDatasetRGBSpike(options(root, spike={"window": 101, "edge": "mirror"}))


def test_files_that_are_no_one_stream_do_not_lend_each_other_steps(tmp_path):
    root = make_set(tmp_path)
    with pytest.raises(UserError, match=r"000047: steps -2..22 are needed, the stream has 0..22 \(manifest"):
        VideoTestDataset(options(root, "Test", spike={"window": 25})).clips[0].spike(1, 2)
