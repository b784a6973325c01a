"""The scripts that make data sets, and the layout that they write: tiny sets, read back from disk."""

import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from golden_files import digests

from data import layout
from data.prepare.lmdb_writer import create_lmdbs
from data.spike.manifest import ClipTiming, Manifest
from data.spike.representations import tfp
from utils.processes import folder_lock
from utils.processes.folder_lock import acquire
from utils.spike_loader import num_steps, read_spikes
from utils.utils_error import UserError
from utils.utils_image import read_rgb

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "data_preparation"))
import make_demo_dataset as demo  # noqa: E402

TINY = demo.Recipe(height=32, width=48, frames=2, train_clips=2, test_clips=1)
TIMING = ClipTiming(steps=8, exposure=(0, 7), sharp_step=3)


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


def test_a_damaged_meta_info_is_named_before_clips_are_added(tmp_path):
    path = layout.meta_info_path(tmp_path, "train")
    path.parent.mkdir()
    path.write_text("a 3 (8,16,3) 000000\na 2 (8,16\n")
    with pytest.raises(UserError, match="meta_info_train.txt line 2: 'a 2 .8,16' is not"):
        layout.DatasetWriter(tmp_path, tiny_manifest()).add_clip("train", "b", tiny_frames(1), TIMING)
    assert not (tmp_path / "train_GT").exists()


def test_one_set_has_one_camera_and_unique_names(tmp_path):
    with layout.DatasetWriter(tmp_path, tiny_manifest()) as writer:
        writer.add_clip("train", "a", tiny_frames(1), TIMING)
        writer.finish()
    with pytest.raises(UserError, match="theta is 2.0, the new clips have 4.0"):
        layout.DatasetWriter(tmp_path, tiny_manifest(theta=4.0))
    with layout.DatasetWriter(tmp_path, tiny_manifest()) as writer:
        with pytest.raises(UserError, match="clip a already exists"):
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


def test_databases_beside_the_demo_set_do_not_make_it_anew(tmp_path):
    root = tmp_path / "demo"
    demo.make_demo_dataset(root, TINY)
    create_lmdbs(root, ["train", "test"], workers=1)
    assert demo.why_make(root, TINY, force=False) == ""
    assert demo.why_make(root, TINY, force=True) == "--force"


def test_demo_set_is_deterministic_and_made_once(demo_set, tmp_path, heard):
    before = digests(demo_set)
    assert not demo.make_demo_dataset(demo_set, TINY)
    assert "up to date" in heard.text
    assert demo.make_demo_dataset(tmp_path / "again", TINY)
    assert digests(tmp_path / "again") == before
    (tmp_path / "again" / "train_GT" / "demo_train_00" / "000000.png").unlink()
    assert demo.make_demo_dataset(tmp_path / "again", TINY)
    assert "files are missing" in heard.text
    (tmp_path / "again" / demo.STAMP).unlink()
    assert demo.why_make(tmp_path / "again", TINY, force=False) == "it is incomplete: no stamp"
    assert digests(demo_set) == before


@pytest.mark.parametrize("name", ["thesis.txt", "train_GT/my_clip"])
def test_demo_set_never_deletes_foreign_files(tmp_path, name):
    (tmp_path / name).mkdir(parents=True)
    with pytest.raises(UserError, match=Path(name).name):
        demo.make_demo_dataset(tmp_path, TINY, force=True)


# ---- several writers


def add(writer: layout.DatasetWriter, split: layout.Split, clip: str, count: int = 2) -> None:
    writer.add_clip(split, clip, tiny_frames(count), TIMING)


def assert_whole(root: Path, clips: dict[str, str], count: int = 2) -> None:
    assert layout.known_clips(root) == clips
    assert Manifest.load(root / layout.SPIKES).clips.keys() == clips.keys()
    for clip, split in clips.items():
        for folder in layout.clip_dirs(root, split, clip):
            assert sum(path.is_file() for path in folder.rglob("*")) == count


def test_both_splits_side_by_side_lose_nothing(tmp_path):
    with layout.DatasetWriter(tmp_path, tiny_manifest()) as one:
        add(one, "train", "a")
        with layout.DatasetWriter(tmp_path, tiny_manifest()) as two:
            add(two, "test", "b")
            add(one, "train", "c")
            one.finish()
            two.finish()
    assert_whole(tmp_path, {"a": "train", "b": "test", "c": "train"})
    assert {path.name for path in tmp_path.iterdir()} <= layout.TOP_LEVEL - {layout.STAGING}


def write_clip(root: Path, clip: str) -> None:
    with layout.DatasetWriter(root, tiny_manifest()) as writer:
        add(writer, "train", clip)
        writer.finish()


def test_many_processes_lose_nothing(tmp_path):
    fork = multiprocessing.get_context("fork")
    clips = [f"clip{number}" for number in range(8)]
    started = [fork.Process(target=write_clip, args=(tmp_path, clip)) for clip in clips]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0] * len(clips)
    assert_whole(tmp_path, dict.fromkeys(clips, "train"))


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_clip_that_another_call_makes_is_refused_before_any_work(tmp_path, split):
    with layout.DatasetWriter(tmp_path, tiny_manifest()) as one:
        one.claim("train", ["a"])
        two = layout.DatasetWriter(tmp_path, tiny_manifest())
        owner = rf"clip a is in use by process {os.getpid()} on .* since .*; wait"
        with two, pytest.raises(UserError, match=owner):
            two.claim(split, ["b", "a"])
        add(one, "train", "a")
        one.finish()
    assert_whole(tmp_path, {"a": "train"})


def test_what_a_killed_writer_staged_goes_and_what_a_living_one_staged_stays(tmp_path):
    def die() -> None:
        writer = layout.DatasetWriter(tmp_path, tiny_manifest())
        add(writer, "train", "a")
        os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=die)
    process.start()
    process.join()
    staging = tmp_path / layout.STAGING
    assert sorted(path.name for path in staging.glob("[!.]*")) == ["a"]
    with (
        layout.DatasetWriter(tmp_path, tiny_manifest()) as living,
        layout.DatasetWriter(tmp_path, tiny_manifest()) as other,
    ):
        add(living, "train", "b")
        add(other, "train", "c")
        assert sorted(path.name for path in staging.glob("[!.]*")) == ["b", "c"]
        add(other, "train", "a", count=1)
        living.finish()
        other.finish()
    assert len(list((tmp_path / "train_GT" / "a").iterdir())) == 1


def test_a_writer_on_another_machine_is_not_waited_for(tmp_path, monkeypatch):
    """Looking for its sign of life takes seconds for every clip that it has staged."""

    def sleep(seconds: float) -> None:
        raise AssertionError("waited")

    with (
        layout.DatasetWriter(tmp_path, tiny_manifest()) as other,
        layout.DatasetWriter(tmp_path, tiny_manifest()) as here,
    ):
        add(other, "train", "a")
        lock = tmp_path / layout.STAGING / ".clip a.lock"
        lock.write_text(json.dumps(json.loads(lock.read_text()) | {"machine": "0" * 8, "host": "node7"}))
        monkeypatch.setattr(folder_lock.time, "sleep", sleep)
        add(here, "train", "b")
        here.finish()
        assert (tmp_path / layout.STAGING / "a").is_dir()
        other.finish()
    assert_whole(tmp_path, {"a": "train", "b": "train"})


def test_staged_files_are_counted_before_they_are_moved(tmp_path):
    with layout.DatasetWriter(tmp_path, tiny_manifest()) as writer:
        add(writer, "train", "a")
        add(writer, "train", "b")
        next((tmp_path / layout.STAGING / "b").rglob("000001.dat")).unlink()
        with pytest.raises(RuntimeError, match="spike: 1 files, 2 were written: .*the set is unchanged"):
            writer.finish()
    assert list(tmp_path.iterdir()) == []


def test_settings_that_came_between_are_no_half_set(tmp_path):
    with (
        layout.DatasetWriter(tmp_path, tiny_manifest()) as one,
        layout.DatasetWriter(tmp_path, tiny_manifest(theta=4.0)) as two,
    ):
        add(one, "train", "a")
        add(two, "train", "b")
        one.finish()
        with pytest.raises(UserError, match="theta is 2.0, the new clips have 4.0"):
            two.finish()
    assert_whole(tmp_path, {"a": "train"})


def test_a_demo_set_that_another_call_makes_is_refused(tmp_path, demo_set):
    in_use = pytest.raises(UserError, match=rf"demo is in use by process {os.getpid()} ")
    with acquire(tmp_path / ".demo.lock", "it", "wait"), in_use:
        demo.make_demo_dataset(tmp_path / "demo", TINY)
    assert [path.name for path in tmp_path.iterdir()] == []
    with acquire(demo_set.with_name(f".{demo_set.name}.lock"), "it", "wait"):
        assert not demo.make_demo_dataset(demo_set, TINY)
