"""Manifest and timing of spike data sets."""

import json

import numpy as np
import pytest
from pydantic import ValidationError

from data.spike.doctor.declared import declared_for
from data.spike.manifest import ClipTiming, Manifest, gopro_timing
from utils.spike_loader import write_spikes
from utils.utils_error import UserError

TIMING = {"steps": 88, "exposure": [0, 81], "sharp_step": 40, "steps_of": {"000100": 81}}
CONTENT = {
    "version": 1, "spike_h": 360, "spike_w": 640, "rgb_h": 720, "rgb_w": 1280, "flipud": True,
    "bit_order": "little", "clock_hz": 1920, "rate_at_white": 0.5, "theta": 2.0, "transfer": "srgb",
    "noise": "none", "clips": {"GOPR0384_11_00": TIMING, "GOPR0384_11_01": TIMING},
}  # fmt: skip


def write(folder, content):
    (folder / "manifest.json").write_text(content if isinstance(content, str) else json.dumps(content))


def changed(key, value):
    """CONTENT with one value changed; the key may be a dotted path. None of the original is touched."""
    content = json.loads(json.dumps(CONTENT))
    *parents, last = key.split(".")
    place = content
    for parent in parents:
        place = place[parent]
    place[last] = value
    return content


def test_save_and_load_from_the_folder_and_from_its_parent(tmp_path):
    manifest = Manifest(**{**CONTENT, "clips": {"a": ClipTiming(steps=88, exposure=(0, 81), sharp_step=40)}})
    (tmp_path / "train").mkdir()
    manifest.save(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == ["manifest.json"]
    assert Manifest.load(tmp_path) == manifest
    assert Manifest.load(str(tmp_path / "train")) == manifest
    manifest.model_copy(update={"theta": 3.0}).save(tmp_path / "train")
    assert Manifest.load(tmp_path / "train").theta == 3


def test_it_is_found_from_the_folders_of_files_clip_and_clips_and_through_links(tmp_path):
    Manifest(**CONTENT).save(tmp_path / "set")
    spikes = tmp_path / "set/train/clip/spike"
    spikes.mkdir(parents=True)
    (spikes / "000000.dat").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "set/train")
    for place in (spikes, spikes.parent, spikes.parents[1], tmp_path / "set", tmp_path / "link"):
        assert Manifest.load(place) == Manifest(**CONTENT), place
    Manifest(**CONTENT | {"theta": 3.0}).save(tmp_path)
    (tmp_path / "set/manifest.json").unlink()
    assert Manifest.load(tmp_path / "set").theta == 3
    assert [Manifest.load(place) for place in (spikes, spikes.parent, spikes.parents[1])] == [None] * 3


def test_clips_that_are_links_take_the_manifest_beside_the_links(tmp_path):
    elsewhere = tmp_path / "elsewhere/train/clip"
    write_spikes(elsewhere / "spike/000000.dat", np.zeros((2, 8, 8), np.uint8))
    Manifest(**CONTENT).save(tmp_path / "set")
    (tmp_path / "set/train").mkdir()
    (tmp_path / "set/train/clip").symlink_to(elsewhere)
    assert declared_for(tmp_path / "set/train/clip/spike/000000.dat").manifest == Manifest(**CONTENT)


def test_no_manifest_is_none(tmp_path):
    assert Manifest.load(tmp_path / "a" / "train") is None


def test_timing_by_clip_and_frame(tmp_path):
    write(tmp_path, CONTENT)
    timing = Manifest.load(tmp_path).timing("GOPR0384_11_00")
    assert (timing.exposure, timing.sharp_step) == ((0, 81), 40)
    assert (timing.num_steps("000000"), timing.num_steps("000100")) == (88, 81)


def test_unknown_clip_names_the_nearest(tmp_path):
    write(tmp_path, CONTENT)
    with pytest.raises(UserError, match="'GOPR0384_11_02'.*nearest: .*GOPR0384_11_0[01]"):
        Manifest.load(tmp_path).timing("GOPR0384_11_02")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "Invalid JSON"),
        ("", "Invalid JSON"),
        ("[]", "should be an object, found"),
        (changed("version", 2), "version"),
        (changed("spike_h", 0), "spike_h.*greater than 0, found 0"),
        (changed("spike_h", "360"), "spike_h.*valid integer, found '360'"),
        (changed("bit_order", "middle"), "bit_order.*found 'middle'"),
        (changed("rate_at_white", 1.5), "rate_at_white"),
        (changed("transfer", "gamma"), "transfer"),
        (changed("clock_hz", float("nan")), "clock_hz"),
        (changed("clock_hz", float("inf")), "clock_hz"),
        (changed("thetta", 1), "thetta"),
        ({k: v for k, v in CONTENT.items() if k != "noise"}, "noise: Field required"),
        (changed("clips.GOPR0384_11_00.exposure", [0, 89]), r"GOPR0384_11_00: exposure \[0, 89\).*\[0, 81\)"),
        (changed("clips.GOPR0384_11_00.exposure", [-1, 80]), r"exposure \[-1, 80\)"),
        (changed("clips.GOPR0384_11_00.exposure", [40, 40]), r"exposure \[40, 40\) must"),
        (changed("clips.GOPR0384_11_00.sharp_step", 81), r"sharp_step 81 .*\[0, 81\)"),
        (changed("clips.GOPR0384_11_00.sharp_step", -1), "sharp_step -1"),
        (changed("clips.GOPR0384_11_00.steps_of", {"000100": 80}), r"exposure \[0, 81\).*\[0, 80\)"),
        (changed("clips.GOPR0384_11_00.steps_of", {"000100": 0}), "steps_of.000100"),
    ],
)
def test_bad_manifest_is_one_line_naming_file_and_key(tmp_path, content, words):
    write(tmp_path, content)
    with pytest.raises(UserError, match=words) as caught:
        Manifest.load(tmp_path)
    assert str(tmp_path / "manifest.json") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


def test_several_problems_are_counted(tmp_path):
    write(tmp_path, changed("spike_h", -1) | {"spike_w": -1, "rgb_h": "x"})
    with pytest.raises(UserError, match=r"spike_h.*and 2 more"):
        Manifest.load(tmp_path)


def test_frozen():
    timing = gopro_timing("GOPR0372_07_00")
    with pytest.raises(ValidationError):
        timing.steps = 3


@pytest.mark.parametrize(
    ("clip", "steps", "last", "sharp"),
    [("GOPR0372_07_00", 56, 49, 24), ("GOPR0384_11_05", 88, 81, 40), ("GOPR0868_13_01", 104, 97, 48)],
)
def test_gopro_timing(clip, steps, last, sharp):
    timing = gopro_timing(clip)
    assert (timing.steps, timing.exposure, timing.sharp_step) == (steps, (0, last), sharp)
    assert last == steps - 7  # the short last .dat of a clip still holds the exposure


@pytest.mark.parametrize("clip", ["clip_a", "GOPR0372_00_00", "GOPR0372", "xGOPR0372_07_00", "GOPR0372_07_00_copy", ""])
def test_other_names_have_no_gopro_timing(clip):
    with pytest.raises(UserError, match="manifest.json"):
        gopro_timing(clip)
