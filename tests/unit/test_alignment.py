"""Planes of spikes that another camera took: aligned once, everywhere alike."""

import json

import numpy as np
import pytest
from light_set import PLANES, add_light
from tiny_set import FIRST, SHARP, SPIKE_SIZE, WINDOW, intensities, make_set, options, rng
from two_cameras import matrix_of

from data.dataset_video_test import VideoTestDataset
from data.dataset_video_train_rgbspike import VideoTrainDatasetRGBSpike
from data.geometry import Box
from data.spike.alignment import Alignment, Warp
from data.spike.arrays import Recording, planes_of
from data.spike.manifest import ClipTiming, Manifest
from data.spike.refire import Draw, Refired
from data.spike.source import SpikeSource
from data.spike.subframes import SubFrames
from utils.utils_colour import mean_gray
from utils.utils_error import UserError

WHOLE, PART = Box(0, 0, *SPIKE_SIZE), Box(3, 5, 9, 11)
FRAME = f"{FIRST + 1:06d}"
TURNED = matrix_of(right=1.3, down=-2.2, turn=4, scale=1.03, size=SPIKE_SIZE)
RIGHT_2_UP_1 = ((1, 0, 2), (0, 1, -1), (0, 0, 1))
REPRESENTATIONS = [
    ("tfp", 1), ("tfi", 1), ("bins", 3), ("isi", 2), ("raw_window", WINDOW), ("moment", PLANES + 2), ("sdm", 3),
]  # fmt: skip


@pytest.fixture
def root(tmp_path):
    return make_set(tmp_path)


def align(root, matrix=((1, 0, 0), (0, 1, 0), (0, 0, 1)), **more):
    """Write an alignment into the manifest of the set."""
    path = root / "spikes/manifest.json"
    content = json.loads(path.read_text())
    for clip in content["clips"].values():
        clip["alignment"] = {"matrix": np.asarray(matrix).tolist(), **more}
    path.write_text(json.dumps(content))
    return root


def source_of(root, name="tfp", channels=1, **spike):
    given = {"representation": name, "window": WINDOW, "planes": PLANES, **spike}
    opt = options(root, spike=given, spike_channels=channels)
    frames = {clip: tuple(f"{number:06d}" for number in range(FIRST, FIRST + 5)) for clip in ("clip_a", "clip_b")}
    return SpikeSource(opt, frames, lambda clip, frame: np.full((2, 2, 3), 102, np.uint8))


BLUR = np.random.default_rng(3).integers(256, size=(2 * SPIKE_SIZE[0], 2 * SPIKE_SIZE[1], 3)).astype(np.uint8)


def planes(source, box=WHOLE, **more):
    fine = box.scaled(2)
    return source.planes("clip_a", FRAME, box, 2, BLUR[fine.rows, fine.cols], **more)


@pytest.mark.parametrize(("name", "channels"), REPRESENTATIONS)
def test_an_alignment_that_moves_nothing_changes_no_bit(root, name, channels):
    before, whole = (
        planes(source_of(root, name, channels)),
        source_of(root, name, channels).whole_planes("clip_a", FRAME, BLUR),
    )
    align(root)
    after = source_of(root, name, channels)
    for old, new in ((before, planes(after)), (whole, after.whole_planes("clip_a", FRAME, BLUR))):
        assert old.planes.dtype == new.planes.dtype
        assert np.array_equal(old.planes, new.planes)
        assert old.scale is None or np.array_equal(old.scale, new.scale)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("name", "channels"), REPRESENTATIONS)
def test_planes_of_a_crop_are_that_crop_of_the_whole_frame(root, name, channels, reverse):
    source = source_of(align(root, TURNED, steps=1), name, channels)
    whole, part = planes(source, reverse=reverse), planes(source, PART, reverse=reverse)
    box = PART.scaled(2) if name == "sdm" else PART
    assert np.array_equal(part.planes, whole.planes[:, box.rows, box.cols])
    assert whole.scale is None or np.array_equal(part.scale, whole.scale)
    if not reverse:
        assert np.array_equal(whole.planes, source.whole_planes("clip_a", FRAME, BLUR).planes)


def joined(planes, name):
    """The planes, those of the exposure as one."""
    return planes if name != "moment" else np.concatenate((planes[:-2], planes[-2:].sum(axis=0, keepdims=True)))


@pytest.mark.parametrize(("name", "channels"), [each for each in REPRESENTATIONS if each[0] != "sdm"])
def test_whole_pixels_take_over_the_values_and_the_border_is_repeated(root, name, channels):
    before = joined(intensities(planes(source_of(root, name, channels))), name)
    source = source_of(align(root, RIGHT_2_UP_1), name, channels)
    whole = source.whole_planes("clip_a", FRAME, estimate=True)
    assert np.array_equal(whole.planes, planes(source).planes)
    after = joined(intensities(whole), name)
    moved = before[:, np.maximum(np.arange(SPIKE_SIZE[0]) - 1, 0)][:, :, np.minimum(np.arange(24) + 2, 23)]
    if name == "moment":  # the gain is that of what the frame shows
        moved *= after[-1].mean() / moved[-1].mean()
    np.testing.assert_allclose(after, moved, rtol=2e-3, atol=1e-3)


def test_counts_are_interpolated_finely(root):
    source = source_of(align(root, TURNED), "moment", PLANES + 2, steps_per_plane=1, gain="manifest")
    found = planes(source)
    raw = intensities(planes(source_of(align(root), "moment", PLANES + 2, steps_per_plane=1, gain="manifest")))
    assert found.planes.dtype == np.int8
    exact = Warp(TURNED, SPIKE_SIZE)(raw, WHOLE)
    got = intensities(found)
    assert np.abs(got[:-2] - exact[:-2]).max() <= 0.5 * found.scale[0] * 1.01
    np.testing.assert_allclose(got[-2:].sum(axis=0), exact[-2:].sum(axis=0).clip(0), atol=2e-4)


def test_only_the_region_of_the_sensor_is_read(root, monkeypatch):
    source = source_of(align(root, matrix_of(right=4, down=2, size=SPIKE_SIZE)))
    asked, read = [], source.reader.read
    monkeypatch.setattr(source.reader, "read", lambda *args, **spans: asked.append(spans) or read(*args, **spans))
    planes(source, PART)
    assert asked == [{"rows": (2, 16), "cols": (6, 24)}]


def test_steps_move_exposure_and_sharp_step_together(tmp_path):
    late = align(make_set(tmp_path / "a"), steps=3, longer=-2)
    timing = ClipTiming(steps=24, exposure=(5, 21), sharp_step=SHARP + 3)
    said = make_set(tmp_path / "b", timing=timing)
    for name, channels in REPRESENTATIONS:
        first, second = (planes(source_of(each, name, channels)) for each in (late, said))
        assert np.array_equal(first.planes, second.planes), name
        assert first.scale is None or np.array_equal(first.scale, second.scale)
    reader = source_of(late).reader
    assert reader.step_at("clip_a", 0) == 5
    assert reader.exposure_rate("clip_a", FRAME) == source_of(said).reader.exposure_rate("clip_a", FRAME)


def test_beyond_the_ends_of_a_stream_only_what_the_alignment_moves_is_mirrored(root):
    align(root, steps=-4)
    with_room = source_of(root, "bins", 3)  # the exposure begins at step -2
    assert np.isfinite(planes(with_room).planes).all()
    align(root, steps=-1)
    with pytest.raises(UserError, match="spike.edge"):
        source_of(root, "tfp", 1, window=21, center=5)


def test_the_estimate_without_training_is_aligned_too(root):
    source = source_of(root)
    before = source.estimate("clip_a", FRAME, np.full((32, 48, 3), 90, np.uint8)).astype(int)
    after = source_of(align(root, RIGHT_2_UP_1)).estimate("clip_a", FRAME, np.full((32, 48, 3), 90, np.uint8))
    assert np.abs(after[4:-4, 4:-8] - before[2:-6, 8:-4]).max() <= 1


@pytest.mark.parametrize("matrix", [TURNED, RIGHT_2_UP_1])
def test_training_testing_and_arrays_see_the_same_planes(root, matrix):
    align(root, matrix, steps=2)
    test = VideoTestDataset(options(root, "Test"))
    clip = test[0]
    shown = clip.spike(0, len(clip.frames))
    train = VideoTrainDatasetRGBSpike(options(root, gt_size=32, use_hflip=False, use_rot=False, random_reverse=False))
    sample = train.sample(0, rng())
    crops = np.lib.stride_tricks.sliding_window_view(shown[:, 0].numpy(), (16, 16), (1, 2))
    for plane in sample["spike"][:, 0].numpy():
        assert np.isclose(crops, plane, atol=1e-6).all(axis=(-1, -2)).any()

    reader = source_of(root).reader
    spikes = np.stack([reader.read("clip_a", frame, (0, 24)) for frame in clip.frames])
    frames = np.zeros((len(spikes), 32, 48, 3), np.uint8)
    recording = Recording(0.5, SHARP + 2, (4, 22), matrix=Alignment(matrix=np.array(matrix).tolist()).matrix)
    made = planes_of(frames, spikes, options(root).spike, 1, recording)
    np.testing.assert_allclose(made.planes, shown.numpy(), atol=1e-6)


def test_spikes_fired_anew_are_aligned_too(root):
    ramp = np.broadcast_to(np.linspace(40, 200, SPIKE_SIZE[1]).astype(np.uint8), (24, *SPIKE_SIZE))
    add_light(align(root, ((1, 0, 4), (0, 1, 0), (0, 0, 1))), ramp)
    source = source_of(root, "moment", PLANES + 2, gain="manifest")
    refired = Refired(source, SubFrames(root / "light", source.reader.shape))
    made = intensities(refired.planes("clip_a", FRAME, PART, Draw(theta=1.0)))
    wanted = ramp[0, 0][PART.left + 4 : PART.left + 4 + PART.width].astype(np.float32) / 255
    np.testing.assert_allclose(made[-2:].sum(axis=0).mean(axis=0), wanted, atol=0.03)
    picture = refired._picture("clip_a", FRAME)
    mean = float(picture.intensities @ picture.weights / picture.weights.sum())
    moved = ramp[0, 0][np.minimum(np.arange(24) + 4, 23)]
    assert mean == pytest.approx(moved.mean() / 255, abs=1e-3)


def test_the_gain_is_that_of_what_the_frame_shows(root):
    align(root, TURNED, steps=1)
    reader = source_of(root).reader
    assert reader.exposure_rate("clip_a", FRAME) == pytest.approx(reader.exposed("clip_a", FRAME).mean(), rel=1e-6)
    spikes = np.stack([reader.read("clip_a", f"{FIRST:06d}", (0, 24))])
    opt = options(root, spike={"representation": "moment", "planes": PLANES}, spike_channels=PLANES + 2).spike
    frames = np.full((1, 32, 48, 3), 100, np.uint8)
    made = planes_of(
        frames,
        spikes,
        opt,
        PLANES + 2,
        Recording(None, SHARP + 1, (3, 21), matrix=Alignment(matrix=TURNED.tolist()).matrix),
    )
    assert (made.planes[0, -2:] * made.scale[0, -2:, None, None]).sum(0).mean() == pytest.approx(
        mean_gray(frames[0]), rel=5e-3
    )


def test_the_manifest_keeps_an_alignment_and_refuses_an_impossible_one(root):
    align(root, TURNED, model="similarity", error=0.05, steps=-3, steps_error=0.2)
    manifest = Manifest.load(root / "spikes")
    manifest.save(root)
    assert Manifest.read(root / "manifest.json") == manifest
    timing = manifest.timing("clip_a")
    assert (timing.exposure, timing.in_spikes().exposure, timing.in_spikes().sharp_step) == ((2, 20), (-1, 17), 7)
    for matrix, reason in [
        (np.zeros((3, 3)), "inverted"),
        (np.diag([2.0, 1, 1]), "far from the identity"),
        ([[1, 0, 0], [0, 1, 0], [0.1, 0, 1]], "far from the identity"),
        ([[1, 0, None], [0, 1, 0], [0, 0, 1]], "number"),
    ]:
        align(root, matrix)
        with pytest.raises(UserError, match=reason):
            Manifest.load(root / "spikes")
    with pytest.raises(ValueError, match="no step"):
        ClipTiming(steps=24, exposure=(2, 20), sharp_step=9, alignment=Alignment(matrix=RIGHT_2_UP_1, longer=-18))


def test_planes_of_all_clips_have_one_type_where_only_some_are_moved(root):
    before = intensities(planes(source_of(root, "raw_window", WINDOW)))
    path = align(root, RIGHT_2_UP_1) / "spikes/manifest.json"
    content = json.loads(path.read_text())
    del content["clips"]["clip_a"]["alignment"]
    path.write_text(json.dumps(content))
    source = source_of(root, "raw_window", WINDOW)
    unmoved, moved = planes(source), source.planes("clip_b", FRAME, WHOLE, 2)
    assert unmoved.planes.dtype == moved.planes.dtype == np.int8
    np.testing.assert_allclose(intensities(unmoved), before, rtol=1e-6)
