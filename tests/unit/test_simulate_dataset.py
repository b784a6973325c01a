"""Data sets simulated from any video: what lies on disk, the light between source frames, and the command line."""

import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from golden_files import SHARED, digests, needs_shared
from video_files import FILES, INTERLACED, make_video, packets

from data import layout
from data.prepare import video_light
from data.spike.interpolate import FLOW_MIN_SIDE, estimate_motion, in_between
from data.spike.manifest import Manifest
from data.video import frames as video_frames
from data.video.frames import VideoFrames
from utils.spike_loader import num_steps, read_spikes
from utils.utils_cli import ALL, Shard
from utils.utils_error import UserError
from utils.utils_image import read_rgb, write_rgb
from utils.utils_video import Playback

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "data_preparation"))
import simulate_spike_dataset as simulation  # noqa: E402

BIKES = SHARED / "data" / "bikes.mp4"
HAS_BIKES = needs_shared("data/bikes.mp4")


def make_folder(folder: Path, count: int, size: tuple[int, int] = (16, 24)) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    frames = [cv2.blur(rng.integers(0, 256, (*size, 3), dtype=np.uint8), (5, 5)) for _ in range(count)]
    for index, frame in enumerate(frames):
        write_rgb(folder / f"{index:04d}.png", frame)
    return frames


@pytest.mark.parametrize("transfer", ["srgb", "linear"])
@pytest.mark.parametrize(("count", "last_steps"), [(6, 17), (7, 24)])
@pytest.mark.parametrize("interpolation", ["flow", "blend"])
def test_simulated_clip_follows_its_source(tmp_path, transfer, count, last_steps, interpolation):
    frames = make_folder(tmp_path / "walk", count)
    settings = simulation.Settings(blur_frames=3, theta=1.0, transfer=transfer, interpolation=interpolation)
    simulation.simulate([tmp_path / "walk"], tmp_path / "out", "train", settings, video=False)
    manifest = Manifest.load(layout.spike_dir(tmp_path / "out", "train"))
    timing = manifest.timing("walk")
    assert (timing.steps, timing.exposure, timing.sharp_step) == (24, (0, 17), 8)
    assert timing.steps_of == ({} if last_steps == 24 else {"000001": 17})
    assert (manifest.clock_hz, manifest.transfer, manifest.noise) == (1920.0, transfer, "none")
    assert (manifest.theta, manifest.rate_at_white, manifest.continuous) == (1.0, 1.0, True)
    gt, lq, _ = layout.clip_dirs(tmp_path / "out", "train", "walk")
    np.testing.assert_array_equal(read_rgb(gt / "000001.png"), frames[4])
    light = [video_light.to_light(frame, transfer) for frame in frames[3:6]]
    mean = video_light.to_rgb(np.mean(light, axis=0), transfer)
    np.testing.assert_array_equal(read_rgb(lq / "000001.png"), mean)
    spikes = read_spikes(layout.dat_path(tmp_path / "out", "train", "walk", "000001"), 8, 12)
    assert len(spikes) == last_steps
    gray = cv2.resize(np.mean(light, axis=0) @ [0.299, 0.587, 0.114], (12, 8), interpolation=cv2.INTER_AREA)
    assert np.abs(spikes[:17].mean(axis=0) - gray).mean() < 0.06


def test_light_round_trip():
    values = np.arange(256, dtype=np.uint8)[:, None, None].repeat(3, axis=2)
    for transfer in ("srgb", "linear"):
        np.testing.assert_array_equal(video_light.to_rgb(video_light.to_light(values, transfer), transfer), values)


@pytest.mark.parametrize(
    ("frame", "scale", "expected"),
    [((272, 640), 2, (272, 640)), ((17, 25), 2, (16, 24)), ((19, 23), 1, (16, 23)), ((250, 400), 4, (248, 400))],
)
def test_crop_is_the_smallest_that_fits(frame, scale, expected):
    size = simulation.cropped_size(frame, scale)
    assert size == expected
    assert size[0] * size[1] // scale**2 % 8 == 0


def test_two_ranges_make_both_splits(tmp_path):
    make_folder(tmp_path / "walk", 10)
    for split, span in (("train", (0, 6)), ("test", (6, None))):
        settings = simulation.Settings(blur_frames=3, span=span)
        simulation.simulate([tmp_path / "walk"], tmp_path / "out", split, settings, video=False)
    assert layout.described_clips(tmp_path / "out", "train").keys() == {"walk_000000_000006"}
    assert layout.described_clips(tmp_path / "out", "test").keys() == {"walk_000006"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blur_frames": 6}, "--blur-frames: 6"),
        ({"theta": 0.5}, "--theta: 0.5"),
        ({"theta": 50.0}, "--theta: 50.0, expected 1 to 49 steps, an exposure"),
        ({"theta": 9.0, "blur_frames": 1}, "--theta: 9.0, expected 1 to 8 steps"),
        ({"theta": float("inf")}, "--theta: inf, expected 1 to 49 steps"),
        ({"span": (5, 5)}, "--range: 5:5"),
    ],
)
def test_bad_settings_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        simulation.Settings(**arguments)


def test_bad_recordings_are_named(tmp_path):
    settings = simulation.Settings()
    with pytest.raises(UserError, match=r"none.mp4: no such file"):
        simulation.simulate([tmp_path / "none.mp4"], tmp_path / "out", "train", settings)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(UserError, match=r"text.mp4 is not a readable video"):
        simulation.simulate([tmp_path / "text.mp4"], tmp_path / "out", "train", settings)
    make_folder(tmp_path / "short", 3)
    make_folder(tmp_path / "enough", 7)
    with pytest.raises(UserError, match="short: 3 frames, expected 7 or more, the --blur-frames"):
        simulation.simulate([tmp_path / "enough", tmp_path / "short"], tmp_path / "out", "train", settings, video=False)
    assert not layout.gt_dir(tmp_path / "out", "train").exists()


# ---- videos


def simulate_video(path: Path, out: Path, **changes: object) -> list[np.ndarray]:
    """Simulate a video of which every frame is a sharp one, and return these."""
    settings = {
        "blur_frames": 1,
        "steps_per_frame": 1,
        "spike_scale": 1,
        "interpolation": "blend",
        "theta": 1.0,
        **changes,
    }
    simulation.simulate([path], out, "train", simulation.Settings(**settings))
    return [read_rgb(file) for file in sorted(layout.gt_dir(out, "train").rglob("*.png"))]


TURNED = {"turned.mp4": {"turn": 90}} if hasattr(av.video.stream.VideoStream, "set_display_rotation") else {}


@pytest.mark.parametrize("file", FILES | TURNED)
def test_sharp_frames_are_those_that_testing_reads(tmp_path, file):
    path = make_video(tmp_path / file, frames=5, **(FILES | TURNED)[file])
    found = simulate_video(path, tmp_path / "out")
    video = VideoFrames(path)
    for number, image in enumerate(found):
        truth = video.read(path.stem, f"{number:06d}")
        np.testing.assert_array_equal(
            image, video_light.center_crop(truth, simulation.cropped_size(truth.shape[:2], 1))
        )
    assert number == 4


def test_a_range_is_decoded_once_and_few_frames_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(video_frames, "KEPT_FRAMES", 12)
    decoded, kept = [], []
    real = video_frames.Decoder._keep
    monkeypatch.setattr(
        video_frames.Decoder,
        "_keep",
        lambda decoder, number, frame: (
            decoded.append(number),
            real(decoder, number, frame),
            kept.append(len(decoder.kept)),
        ),
    )
    path = make_video(tmp_path / "v.mp4", frames=60)
    assert len(simulate_video(path, tmp_path / "out", span=(25, 55), blur_frames=3)) == 10
    assert decoded == sorted(set(decoded))
    assert set(range(25, 55)) <= set(decoded) <= set(range(10, 55))
    assert max(kept) <= 12


def test_damage_is_an_error_that_names_the_frame(tmp_path):
    path = make_video(tmp_path / "v.mp4")
    at, size = packets(path)[14]
    spoilt = bytearray(path.read_bytes())
    spoilt[at : at + size] = bytes(size)
    path.write_bytes(spoilt)
    with pytest.raises(UserError, match=r"clip v frame 00001\d: .*v.mp4 cannot be decoded there"):
        simulate_video(path, tmp_path / "out")
    assert not layout.gt_dir(tmp_path / "out", "train").exists()


@pytest.mark.parametrize("file", INTERLACED)
def test_interlaced_video_is_refused(tmp_path, file):
    path = make_video(tmp_path / file, frames=3, **INTERLACED[file])
    with pytest.raises(UserError, match=f"{file} is interlaced.*ffmpeg -i {file} -vf bwdif"):
        simulate_video(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("transfer", "kind"), [(16, "PQ"), (18, "HLG")])
def test_hdr_video_is_refused(tmp_path, transfer, kind):
    path = make_video(tmp_path / "v.mp4", frames=3, context={"color_trc": transfer, "color_primaries": 9})
    with pytest.raises(UserError, match=rf"v.mp4 is HDR \({kind}, BT.2020\)"):
        simulate_video(path, tmp_path / "out")


def test_unequal_times_are_said_with_the_place(tmp_path, heard):
    path = make_video(tmp_path / "v.mp4", frames=12, times=[*range(0, 28, 4), *range(32, 52, 4)])
    simulate_video(path, tmp_path / "out")
    assert "v.mp4: has a variable frame rate, 40 to 80 ms between frames (80 from 000006 to 000007)" in heard.text
    heard.clear()
    simulate_video(path, tmp_path / "before", span=(0, 7))
    assert "variable" not in heard.text


def test_pixels_that_are_not_square_are_said(tmp_path, heard):
    path = make_video(tmp_path / "v.mp4", frames=3, context={"sample_aspect_ratio": Fraction(64, 45)})
    simulate_video(path, tmp_path / "out")
    assert heard.text.count("v.mp4: its pixels are not square (64:45)") == 1


def test_a_rate_that_nobody_says_is_asked_for(tmp_path, monkeypatch):
    path = make_video(tmp_path / "v.mp4", frames=3)
    monkeypatch.setattr(VideoFrames, "playback", lambda *_: Playback())
    with pytest.raises(UserError, match="v.mp4: has no frame rate.*--fps"):
        simulate_video(path, tmp_path / "out")
    simulate_video(path, tmp_path / "out", fps=30.0)
    assert Manifest.load(layout.spike_dir(tmp_path / "out", "train")).clock_hz == 30


@HAS_BIKES
def test_real_video(tmp_path):
    settings = simulation.Settings(span=(0, 14), spike_scale=4)
    simulation.simulate([BIKES], tmp_path, "test", settings)
    (line,) = layout.described_clips(tmp_path, "test").values()
    assert str(line) == "bikes_000000_000014 2 (272,640,3) 000000"
    assert num_steps(layout.dat_path(tmp_path, "test", "bikes_000000_000014", "000001"), 68, 160) == 49


# ---- light between source frames


def textured(shape: tuple[int, int], shift: tuple[float, float] = (0, 0)) -> np.ndarray:
    """A smooth random texture, moved by (x, y) pixels: uint8."""
    rng = np.random.default_rng(0)
    wide = cv2.GaussianBlur(rng.random((shape[0] + 64, shape[1] + 64), np.float32), (0, 0), 2)
    wide = cv2.normalize(wide, None, 0, 255, cv2.NORM_MINMAX)
    x, y = np.meshgrid(np.arange(shape[1], dtype=np.float32), np.arange(shape[0], dtype=np.float32))
    moved = cv2.remap(wide, x + np.float32(32 - shift[0]), y + np.float32(32 - shift[1]), cv2.INTER_CUBIC)
    return np.clip(np.rint(moved), 0, 255).astype(np.uint8)


def test_a_fade_is_linear_in_time():
    first, second = np.random.default_rng(0).random((2, 3, 4), np.float32)
    steps = np.stack(list(in_between(first, second, 4, None)))
    np.testing.assert_array_equal(steps[0], first)
    for index, step in enumerate(steps):
        np.testing.assert_allclose(step, (4 - index) / 4 * first + index / 4 * second, atol=1e-6)


def test_what_moves_is_moved_to_each_instant():
    first, second = textured((96, 128)), textured((96, 128), (6, -3))
    motion = estimate_motion(first, second)
    inner = np.s_[16:-16, 16:-16]
    assert motion.trust[inner].mean() > 0.8
    steps = np.stack(list(in_between(np.float32(first), np.float32(second), 4, motion)))
    fades = np.stack(list(in_between(np.float32(first), np.float32(second), 4, None)))
    np.testing.assert_array_equal(steps[0], first)
    for index in (1, 2, 3):
        truth = textured((96, 128), (1.5 * index, -0.75 * index)).astype(np.float32)
        error, fade_error = (np.abs(made[index] - truth)[inner].mean() for made in (steps, fades))
        assert error < fade_error / 5


def test_pictures_without_a_common_motion_fade():
    first = textured((96, 128))
    second = np.random.default_rng(1).integers(0, 256, first.shape, dtype=np.uint8)  # a scene cut
    motion = estimate_motion(first, second)
    assert motion.trust.mean() < 0.65
    light = np.float32(first), np.float32(second)
    for step in in_between(*light, 4, motion):
        assert step.min() >= 0
        assert step.max() <= 255
    distrusted = motion._replace(trust=np.zeros_like(motion.trust))
    for step, fade in zip(in_between(*light, 4, distrusted), in_between(*light, 4, None), strict=True):
        np.testing.assert_array_equal(step, fade)


def test_still_pictures_stay_as_they_are():
    picture = textured((64, 64))
    for step in in_between(np.float32(picture), np.float32(picture), 4, estimate_motion(picture, picture)):
        np.testing.assert_allclose(step, picture, atol=1e-3)


def test_pictures_too_small_for_a_motion_have_none():
    small = textured((FLOW_MIN_SIDE - 1, 100))
    assert estimate_motion(small, small) is None
    enough = textured((FLOW_MIN_SIDE, FLOW_MIN_SIDE))
    assert estimate_motion(enough, enough) is not None


@HAS_BIKES
def test_flow_is_nearer_to_a_real_video_than_a_fade():
    frames = [VideoFrames(BIKES).read("bikes", f"{number:06d}") for number in (20, 21, 22)]
    errors = {}
    for kind in ("flow", "blend"):
        settings = simulation.Settings(steps_per_frame=2, interpolation=kind)
        made = video_light.window_light([frames[0], frames[2]], settings, end=False)
        truth = video_light.window_light(frames[1:2], settings, end=True)
        errors[kind] = np.square(made[1] - truth[0]).mean()
    assert errors["flow"] < errors["blend"] * 0.8


def test_the_stream_does_not_end_at_windows():
    frames = [np.dstack([textured((32, 32), (index, 0))] * 3) for index in range(7)]
    settings = simulation.Settings(blur_frames=3)
    whole = video_light.window_light(frames, settings, end=True)
    parts = [video_light.window_light(frames[at : at + 4], settings, end=at == 3) for at in (0, 3)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    assert whole.shape == (6 * 8 + 1, 16, 16)


# ---- sensor noise


def simulate_noisy(root: Path, folders: list[Path], **changes: object) -> Manifest:
    settings = simulation.Settings(**{"blur_frames": 3, "noise": "sensor", **changes})
    simulation.simulate(folders, root, "train", settings, video=False)
    return Manifest.load(layout.spike_dir(root, "train"))


def even_folder(folder: Path, value: int, count: int = 12) -> Path:
    for index in range(count):
        write_rgb(folder / f"{index:04d}.png", np.full((64, 64, 3), value, np.uint8))
    return folder


def rates(root: Path, clip: str) -> np.ndarray:
    files = sorted((layout.spike_dir(root, "train") / clip / "spike").glob("*.dat"))
    return np.concatenate([read_spikes(file, 32, 32) for file in files]).mean(axis=0)


def test_noise_is_one_camera_in_all_clips_and_calls(tmp_path):
    gray, white, late = (even_folder(tmp_path / name, value) for name, value in
                         (("gray", 128), ("white", 255), ("late", 255)))  # fmt: skip
    manifest = simulate_noisy(tmp_path / "out", [gray, white])
    assert manifest == simulate_noisy(tmp_path / "out", [late]).model_copy(update={"clips": manifest.clips})
    pictures = {clip: rates(tmp_path / "out", clip) for clip in ("gray", "white", "late")}
    assert (manifest.noise, manifest.theta) == ("sensor", 2.0)
    assert pictures["white"].mean() == pytest.approx(manifest.rate_at_white, rel=0.01)
    for clip in ("gray", "late"):
        assert np.corrcoef(pictures["white"].ravel(), pictures[clip].ravel())[0, 1] > 0.8
    streams = [read_spikes(layout.dat_path(tmp_path / "out", "train", clip, "000000"), 32, 32)
               for clip in ("white", "late")]  # fmt: skip
    assert not np.array_equal(*streams)  # the same camera and light, but not the same noise


def test_noisy_set_is_deterministic(tmp_path):
    make_folder(tmp_path / "walk", 7)
    for name in ("a", "b"):
        simulate_noisy(tmp_path / name, [tmp_path / "walk"])
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_another_camera_is_another_data_set(tmp_path):
    make_folder(tmp_path / "walk", 7)
    simulate_noisy(tmp_path / "out", [tmp_path / "walk"])
    for changes in ({"noise": "none"}, {"seed": 1}, {"theta": 3.0}):
        with pytest.raises(UserError, match="one data set has one camera"):
            simulate_noisy(tmp_path / "out", [tmp_path / "walk"], **changes)


# ---- shards

NAMES = ("a", "b", "c", "d", "e")


def simulate_shards(root: Path, folders: Path, *shards: Shard, names: Sequence[str] = NAMES) -> dict[str, str]:
    """Simulate shards of recordings at the same time; returns the files of the set."""
    settings = simulation.Settings(blur_frames=3, spike_scale=1, noise="sensor", subframes=True, instants=1)
    paths = [folders / name for name in names]

    def one(shard: Shard) -> None:
        simulation.simulate(paths, root, "train", settings, video=False, shard=shard)

    with ThreadPoolExecutor(len(shards)) as pool:
        list(pool.map(one, shards))
    return digests(root)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    root = tmp_path_factory.mktemp("recordings")
    for number, name in enumerate(NAMES):
        make_folder(root / name, 6 + number % 2, (8, 16))
    return root


def test_shards_at_the_same_time_make_the_same_set_as_one_run(tmp_path, recordings):
    whole = simulate_shards(tmp_path / "whole", recordings, ALL)
    assert {name.split("/")[0] for name in whole} > {"meta_info", "train_subframes", "train_GT_instants"}
    shards = [Shard(index, 6) for index in (4, 0, 5, 2, 1, 3)]  # the last one has nothing to do
    assert simulate_shards(tmp_path / "set", recordings, *shards) == whole


def test_a_shard_makes_its_own_clips_alone(tmp_path, recordings):
    simulate_shards(tmp_path / "set", recordings, Shard(1, 2))
    assert layout.known_clips(tmp_path / "set").keys() == {"b", "d"}
    assert simulate_shards(tmp_path / "empty", recordings, Shard(5, 6)) == {}


def test_a_mistake_in_any_recording_stops_every_shard(tmp_path, recordings):
    make_folder(tmp_path / "b", 6, (16, 16))
    make_folder(tmp_path / "again/a", 6, (8, 16))
    for number in (0, 1):
        with pytest.raises(UserError, match="one data set has one camera"):
            simulate_shards(tmp_path / "set", recordings, Shard(number, 2), names=["a", str(tmp_path / "b")])
        with pytest.raises(UserError, match="2 recordings give a clip a"):
            simulate_shards(tmp_path / "set", recordings, Shard(number, 2), names=["a", str(tmp_path / "again/a")])
    assert not (tmp_path / "set").exists()


# ---- command line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--noise", "much"], "--noise"),
        (["--interpolation", "magic"], "--interpolation"),
        (["--theta", "0.9"], "--theta: 0.9"),
        (["--theta", "inf"], "--theta: inf"),
        (["--fps", "inf"], "--fps: inf"),
        (["--range", "a:b"], "--range"),
        (["--shard", "4/4"], "'4/4' is not a shard I/N with I from 0 to N - 1, such as 0/4"),
        (["--shard", "0/0"], "is not a shard"),
        (["--shard", "-1/2"], "--shard"),
        (["--shard", "1"], "is not a shard"),
        (["--blur-frames", "4"], "--blur-frames: 4"),
    ],
)
def test_mistakes_take_one_line(tmp_path, monkeypatch, capsys, arguments, words):
    make_folder(tmp_path / "walk", 3)
    line = ["simulate", "--frames", str(tmp_path / "walk"), "--out", str(tmp_path / "out"), *arguments]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit) as end:
        simulation.main()
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "path", "words"),
    [
        ("--frames", ".", r"has no frames; give its subfolders, such as \S+walk"),
        ("--frames", "walk/0000.png", "is a file; give a folder of frames, or use --video for a video"),
        ("--video", "walk", "is a folder; give a video, or use --frames for a folder of frames"),
        ("--video", "v.mp4", "no such file"),
        ("--frames", "run", "no such folder"),
    ],
)
def test_what_is_no_recording_is_named_with_the_option_for_it(tmp_path, monkeypatch, capsys, option, path, words):
    make_folder(tmp_path / "walk", 3)
    monkeypatch.setattr(sys, "argv", ["simulate", option, str(tmp_path / path), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as end:
        simulation.main()
    assert end.value.code == 2
    assert re.search(words, capsys.readouterr().err)


def test_frames_of_mixed_sizes_are_named(tmp_path):
    make_folder(tmp_path / "walk", 7)
    write_rgb(tmp_path / "walk" / "0003.png", np.zeros((20, 24, 3), np.uint8))
    with pytest.raises(UserError, match="walk: 0003.png has 20x24 pixels, expected 16x24 like 0000.png"):
        simulation.simulate([tmp_path / "walk"], tmp_path / "out", "train", simulation.Settings(), video=False)


def test_odd_sizes_are_cut(tmp_path, capsys):
    make_folder(tmp_path / "walk", 7, (17, 25))
    simulation.simulate([tmp_path / "walk"], tmp_path / "out", "train", simulation.Settings(), video=False)
    assert "are cropped around their centre to 16x24" in capsys.readouterr().out
    assert num_steps(layout.dat_path(tmp_path / "out", "train", "walk", "000000"), 8, 12) == 49


def test_a_clip_that_another_call_simulates_is_refused_with_one_line(tmp_path, monkeypatch, capsys):
    make_folder(tmp_path / "walk", 7)
    line = ["simulate", "--frames", str(tmp_path / "walk"), "--out", str(tmp_path / "out"), "--split"]
    for split in layout.SPLITS:
        monkeypatch.setattr(sys, "argv", [*line, split])
        with layout.claim(tmp_path / "out", "walk"), pytest.raises(SystemExit) as end:
            simulation.main()
        assert end.value.code == 2
        message = capsys.readouterr().err
        assert re.fullmatch(r"error: .*out: clip walk is in use by process \d+ on .* since .*; wait .*\n", message)
    simulation.main()
    assert layout.known_clips(tmp_path / "out") == {"walk": "test"}


def test_a_test_set_ends_with_the_command_that_restores_it(tmp_path, capsys):
    make_folder(tmp_path / "walk", 7)
    out = tmp_path / "out"
    for split in layout.SPLITS:
        simulation.simulate([tmp_path / "walk"], out / split, split, simulation.Settings(), video=False)
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == layout.how_to_restore(out / "test", has_sharp=True)
    assert [line.partition(" ")[0] for line in printed] == ["walk:", "walk:", "restore"], "one line for the test set"


def test_help_names_the_defaults(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["simulate", "--help"])
    with pytest.raises(SystemExit):
        simulation.main()
    text = " ".join(capsys.readouterr().out.split())
    for known in ("per blurred frame, odd (default: 7)", "steps per source frame (default: 8)", "(default: train)"):
        assert known in text
    assert "None" not in text
    assert "(default: False)" not in text
