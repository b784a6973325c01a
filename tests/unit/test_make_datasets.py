"""The scripts that make data sets, and the layout that they write: tiny sets, read back from disk."""

import hashlib
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from data import layout
from data.spike.manifest import ClipTiming, Manifest
from data.spike.representations import tfp
from utils.spike_loader import num_steps, read_spikes, write_spikes
from utils.utils_error import UserError
from utils.utils_image import read_rgb, write_rgb

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "data_preparation"))
import make_demo_dataset as demo  # noqa: E402
import prepare_gopro_spike_dataset as gopro  # noqa: E402
import simulate_spike_dataset as simulation  # noqa: E402

BIKES = ROOT.parent / "shared" / "data" / "bikes.mp4"
TINY = demo.Recipe(height=32, width=48, frames=2, train_clips=2, test_clips=1)
TIMING = ClipTiming(steps=8, exposure=(0, 7), sharp_step=3)


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def tiny_manifest(**changes: object) -> Manifest:
    sizes = {"spike_h": 4, "spike_w": 8, "rgb_h": 8, "rgb_w": 16}
    physics = {"flipud": True, "clock_hz": 1920.0, "rate_at_white": 0.5, "theta": 2.0, "transfer": "srgb"}
    return Manifest(**{**sizes, **physics, "noise": "none", "clips": {}, **changes})


def tiny_frames(count: int, seed: int = 0, steps: int = 8) -> list[layout.Frame]:
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 256, (count, 2, 8, 16, 3), dtype=np.uint8)
    spikes = rng.integers(0, 2, (count, steps, 4, 8), dtype=np.uint8)
    return [layout.Frame(*pair, stream) for pair, stream in zip(pictures, spikes, strict=True)]


# ---- layout


def test_written_set_reads_back(tmp_path):
    frames = tiny_frames(3)
    frames[2] = frames[2]._replace(spikes=frames[2].spikes[:7])
    with layout.DatasetWriter(tmp_path, tiny_manifest()) as writer:
        writer.add_clip("train", "a", frames, TIMING)
        writer.add_clip("test", "b", frames[:1], TIMING)
        assert not (tmp_path / "train_GT").exists()  # nothing is part of the set before finish
        writer.finish()
    for index, frame in enumerate(frames):
        name = f"{index:06d}"
        np.testing.assert_array_equal(read_rgb(tmp_path / "train_GT" / "a" / f"{name}.png"), frame.sharp)
        lq = tmp_path / "train_GT_blurred" / "a" / f"{name}.png"
        np.testing.assert_array_equal(read_rgb(lq), frame.blurred)
        dat = tmp_path / "GOPRO_Large_spike_seq" / "train" / "a" / "spike" / f"{name}.dat"
        np.testing.assert_array_equal(read_spikes(dat, 4, 8), frame.spikes)
    assert (tmp_path / "meta_info" / "meta_info_train.txt").read_text() == "a 3 (8,16,3) 000000\n"
    manifest = Manifest.load(layout.spike_dir(tmp_path, "train"))
    assert manifest.timing("a").steps_of == {"000002": 7}
    assert manifest.timing("b").num_steps("000000") == 8
    config = yaml.safe_load((tmp_path / "GOPRO_Large_spike_seq" / "config.yaml").read_text())
    assert (config["spike_h"], config["spike_w"]) == (4, 8)
    assert {path.name for path in tmp_path.iterdir()} <= layout.TOP_LEVEL


def test_second_call_merges_and_replaces(tmp_path):
    for clips in ({"a": 3, "b": 2}, {"a": 1, "c": 2}):
        with layout.DatasetWriter(tmp_path, tiny_manifest()) as writer:
            for clip, count in clips.items():
                writer.add_clip("train", clip, tiny_frames(count), TIMING)
            writer.finish()
    lines = (tmp_path / "meta_info" / "meta_info_train.txt").read_text().splitlines()
    assert [line.split()[:2] for line in lines] == [["a", "1"], ["b", "2"], ["c", "2"]]
    assert [path.name for path in (tmp_path / "train_GT" / "a").iterdir()] == ["000000.png"]
    assert set(Manifest.load(layout.spike_dir(tmp_path, "train")).clips) == {"a", "b", "c"}


def test_one_set_has_one_camera_and_unique_names(tmp_path):
    with layout.DatasetWriter(tmp_path, tiny_manifest()) as writer:
        writer.add_clip("train", "a", tiny_frames(1), TIMING)
        writer.finish()
    with pytest.raises(UserError, match="theta is 2.0, the new clips have 4.0"):
        layout.DatasetWriter(tmp_path, tiny_manifest(theta=4.0))
    with layout.DatasetWriter(tmp_path, tiny_manifest()) as writer:
        with pytest.raises(UserError, match="clip a is there already"):
            writer.add_clip("test", "a", tiny_frames(1), TIMING)
        with pytest.raises(UserError, match="0 frames"):
            writer.add_clip("test", "b", [], TIMING)


def test_interrupted_writer_leaves_the_set_as_it_was(tmp_path):
    with layout.DatasetWriter(tmp_path, tiny_manifest()) as writer:
        writer.add_clip("train", "a", tiny_frames(2), TIMING)
        writer.finish()
    before = digests(tmp_path)

    def broken():
        yield from tiny_frames(1, seed=1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), layout.DatasetWriter(tmp_path, tiny_manifest()) as writer:
        writer.add_clip("train", "a", broken(), TIMING)
    assert digests(tmp_path) == before


# ---- demo set


@pytest.fixture(scope="module")
def demo_set(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "set"
    assert demo.make_demo_dataset(out, TINY)
    return out


def test_demo_set_is_whole_and_consistent(demo_set):
    manifest = Manifest.load(layout.spike_dir(demo_set, "test"))
    assert set(manifest.clips) == {"demo_train_00", "demo_train_01", "demo_test_00"}
    timing = manifest.timing("demo_test_00")
    assert (timing.steps, timing.exposure, timing.sharp_step) == (56, (0, 49), 24)
    dat = layout.dat_path(demo_set, "test", "demo_test_00", "000001")
    assert num_steps(dat, 16, 24) == 56
    # The firing rate over the exposure is half the blurred frame's luma: timing, flip and gain fit together.
    blurred = read_rgb(layout.lq_dir(demo_set, "test") / "demo_test_00" / "000001.png")
    luma = cv2.resize(cv2.cvtColor(blurred, cv2.COLOR_RGB2GRAY), (24, 16), interpolation=cv2.INTER_AREA)
    rate = tfp(read_spikes(dat, 16, 24), 24, 49)
    assert np.abs(rate / manifest.rate_at_white - luma / 255).mean() < 0.02


def test_demo_charge_is_carried_from_frame_to_frame(demo_set):
    # Over all steps the number of spikes differs from the light by less than one spike plus the first charge.
    streams = [read_spikes(layout.dat_path(demo_set, "test", "demo_test_00", f"{i:06d}"), 16, 24) for i in range(2)]
    recipe = TINY
    rng = np.random.default_rng([recipe.seed, True, 0])
    scene = demo.Scene(*demo.CLIPS["test"][0], (recipe.height, recipe.width), rng)
    light = np.zeros((16, 24), np.float64)
    for step in range(2 * recipe.steps):
        small = cv2.resize(scene.render(step).astype(np.float32), (24, 16), interpolation=cv2.INTER_AREA)
        light += small @ np.array([0.299, 0.587, 0.114]) / 255
    count = np.concatenate(streams).sum(axis=0)
    difference = count * recipe.theta - light
    assert (np.abs(difference) < recipe.theta + 1e-3).all()


def test_demo_test_photographs_are_held_out():
    used = {
        split: {background for background, _ in clips} | {name for _, names in clips for name in names}
        for split, clips in demo.CLIPS.items()
    }
    assert not used["train"] & used["test"]


def test_demo_set_is_deterministic_and_made_once(demo_set, tmp_path, capsys):
    before = digests(demo_set)
    assert not demo.make_demo_dataset(demo_set, TINY)
    assert "up to date" in capsys.readouterr().out
    assert demo.make_demo_dataset(tmp_path / "again", TINY)
    assert digests(tmp_path / "again") == before
    (tmp_path / "again" / "train_GT" / "demo_train_00" / "000000.png").unlink()
    assert demo.make_demo_dataset(tmp_path / "again", TINY)
    assert "files are missing" in capsys.readouterr().out
    (tmp_path / "again" / demo.STAMP).unlink()
    assert demo.why_make(tmp_path / "again", TINY, force=False) == "it is half made: no stamp"
    assert digests(demo_set) == before


@pytest.mark.parametrize("name", ["thesis.txt", "train_GT/my_clip"])
def test_demo_set_never_deletes_foreign_files(tmp_path, name):
    (tmp_path / name).mkdir(parents=True)
    with pytest.raises(UserError, match=Path(name).name):
        demo.make_demo_dataset(tmp_path, TINY, force=True)


# ---- any video


def make_folder(folder: Path, count: int, size: tuple[int, int] = (16, 24)) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    frames = [cv2.blur(rng.integers(0, 256, (*size, 3), dtype=np.uint8), (5, 5)) for _ in range(count)]
    for index, frame in enumerate(frames):
        write_rgb(folder / f"{index:04d}.png", frame)
    return frames


@pytest.mark.parametrize("transfer", ["srgb", "linear"])
@pytest.mark.parametrize(("count", "last_steps"), [(6, 17), (7, 24)])
def test_simulated_clip_follows_its_source(tmp_path, transfer, count, last_steps):
    frames = make_folder(tmp_path / "walk", count)
    settings = simulation.Settings(blur_frames=3, theta=1.0, transfer=transfer)
    simulation.simulate([tmp_path / "walk"], tmp_path / "out", "train", settings, video=False)
    manifest = Manifest.load(layout.spike_dir(tmp_path / "out", "train"))
    timing = manifest.timing("walk")
    assert (timing.steps, timing.exposure, timing.sharp_step) == (24, (0, 17), 8)
    assert timing.steps_of == ({} if last_steps == 24 else {"000001": 17})
    assert (manifest.clock_hz, manifest.transfer) == (1920.0, transfer)
    gt, lq, _ = layout.clip_dirs(tmp_path / "out", "train", "walk")
    np.testing.assert_array_equal(read_rgb(gt / "000001.png"), frames[4])
    light = [simulation.to_light(frame, transfer) for frame in frames[3:6]]
    mean = simulation.to_rgb(np.mean(light, axis=0), transfer)
    np.testing.assert_array_equal(read_rgb(lq / "000001.png"), mean)
    spikes = read_spikes(layout.dat_path(tmp_path / "out", "train", "walk", "000001"), 8, 12)
    assert len(spikes) == last_steps
    gray = cv2.resize(np.mean(light, axis=0) @ [0.299, 0.587, 0.114], (12, 8), interpolation=cv2.INTER_AREA)
    assert np.abs(spikes[:17].mean(axis=0) - gray).mean() < 0.06


def test_blend_passes_through_the_source_frames():
    planes = np.random.default_rng(0).random((3, 2, 4), dtype=np.float32)
    steps = simulation.blend(planes, 4)
    assert steps.shape == (8, 2, 4)
    np.testing.assert_array_equal(steps[::4], planes[:2])
    np.testing.assert_allclose(steps[2], (planes[0] + planes[1]) / 2, atol=1e-6)


def test_light_round_trip():
    values = np.arange(256, dtype=np.uint8)[:, None, None].repeat(3, axis=2)
    for transfer in ("srgb", "linear"):
        np.testing.assert_array_equal(simulation.to_rgb(simulation.to_light(values, transfer), transfer), values)


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
    assert layout.read_meta_info(tmp_path / "out", "train").keys() == {"walk_000000_000006"}
    assert layout.read_meta_info(tmp_path / "out", "test").keys() == {"walk_000006"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blur_frames": 6}, "--blur-frames: 6"),
        ({"theta": 0.5}, "--theta: 0.5"),
        ({"noise": "sensor"}, "--noise: sensor"),
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
    with pytest.raises(UserError, match=r"text.mp4: cannot be decoded"):
        simulation.simulate([tmp_path / "text.mp4"], tmp_path / "out", "train", settings)
    make_folder(tmp_path / "short", 3)
    with pytest.raises(UserError, match="clip short: 0 frames"):
        simulation.simulate([tmp_path / "short"], tmp_path / "out", "train", settings, video=False)
    assert not layout.gt_dir(tmp_path / "out", "train").exists()


@pytest.mark.skipif(not BIKES.is_file(), reason="../shared/data/bikes.mp4 is not there")
def test_real_video(tmp_path):
    settings = simulation.Settings(span=(0, 14), spike_scale=4)
    simulation.simulate([BIKES], tmp_path, "test", settings)
    assert layout.read_meta_info(tmp_path, "test") == {
        "bikes_000000_000014": "bikes_000000_000014 2 (272,640,3) 000000"
    }
    assert num_steps(layout.dat_path(tmp_path, "test", "bikes_000000_000014", "000001"), 68, 160) == 49


# ---- GoPro


CLIP = "GOPR0001_03_00"


@pytest.fixture
def gopro_roots(tmp_path):
    roots = tmp_path / "gopro", tmp_path / "spikes", tmp_path / "out"
    rng = np.random.default_rng(0)
    for index in range(5, 8):
        for kind in ("sharp", "blur"):
            picture = rng.integers(0, 256, (8, 16, 3), dtype=np.uint8)
            write_rgb(roots[0] / "train" / CLIP / kind / f"{index:06d}.png", picture)
        folder = roots[1] / "train" / CLIP / "spike"
        folder.mkdir(parents=True, exist_ok=True)
        steps = 24 if index < 7 else 17
        write_spikes(folder / f"{index:06d}.dat", rng.integers(0, 2, (steps, 4, 8), dtype=np.uint8))
    return roots


@pytest.mark.parametrize("again", [False, True])
def test_gopro_is_linked_and_described(gopro_roots, again):
    for _ in range(1 + again):
        assert gopro.prepare(*gopro_roots, ["train"]) == 3
    out = gopro_roots[2]
    assert layout.read_meta_info(out, "train") == {CLIP: f"{CLIP} 3 (8,16,3) 000005"}
    timing = Manifest.load(layout.spike_dir(out, "train")).timing(CLIP)
    assert (timing.steps, timing.exposure, timing.sharp_step) == (24, (0, 17), 8)
    assert timing.steps_of == {"000007": 17}
    assert num_steps(layout.dat_path(out, "train", CLIP, "000007"), 4, 8) == 17
    assert (layout.lq_dir(out, "train") / CLIP).resolve() == (gopro_roots[0] / "train" / CLIP / "blur").resolve()


def test_gopro_problems_are_all_listed(gopro_roots, capsys):
    source, spikes, out = gopro_roots
    (spikes / "train" / CLIP / "spike" / "000006.dat").unlink()
    (source / "train" / "GOPR0002_03_00" / "sharp").mkdir(parents=True)
    with pytest.raises(UserError, match="problems"):
        gopro.prepare(source, spikes, out, ["train"])
    listed = capsys.readouterr().err
    assert "2 of 3 frames, the first missing one is 000006" in listed
    assert "GOPR0002_03_00" in listed
    assert not out.exists()


@pytest.mark.parametrize(("steps", "frame"), [(17, "000005"), (16, "000007")])
def test_gopro_wrong_number_of_steps(gopro_roots, steps, frame):
    dat = gopro_roots[1] / "train" / CLIP / "spike" / f"{frame}.dat"
    write_spikes(dat, np.zeros((steps, 4, 8), np.uint8))
    with pytest.raises(UserError, match=f"{frame}.dat: {steps} steps, expected 24"):
        gopro.prepare(*gopro_roots, ["train"])


def test_gopro_never_replaces_what_is_there(gopro_roots):
    place = layout.gt_dir(gopro_roots[2], "train") / CLIP
    place.mkdir(parents=True)
    with pytest.raises(UserError, match="is no link"):
        gopro.prepare(*gopro_roots, ["train"], force=True)
    place.rmdir()
    place.symlink_to(gopro_roots[1])
    with pytest.raises(UserError, match="--force replaces it"):
        gopro.prepare(*gopro_roots, ["train"])
    gopro.prepare(*gopro_roots, ["train"], force=True)
    assert place.resolve() == (gopro_roots[0] / "train" / CLIP / "sharp").resolve()


def test_gopro_missing_roots_end_with_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["prepare", "--gopro_root", str(tmp_path / "a"), "--spike_root", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        gopro.main()
    assert end.value.code == 2
    assert "--gopro_root" in capsys.readouterr().err
