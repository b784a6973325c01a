"""Sets whose clips differ in size, and what is said of a `.dat` that does not fit."""

import json
import logging
import shutil

import numpy as np
import pytest
import tiny_set
from tiny_set import STEPS, make_set, options, rng

from data.check import check_dataset
from data.lmdb_store import lmdb_path
from data.prepare import lmdb_writer
from data.prepare.lmdb_sources import DatFiles
from data.select_dataset import define_Dataset
from data.spike.doctor.survey import survey
from data.spike.manifest import ClipTiming, Manifest
from utils.spike_loader import implied_sizes, write_spikes
from utils.utils_error import UserError

OTHER_SIZE = (24, 16)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A set of clip a, one of clip b in another size, and one of both; they stay as they are."""
    places = [tmp_path_factory.mktemp(name) for name in ("one", "other", "mixed")]
    one, other, mixed = places
    make_set(one, clips=("a",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_set, "SPIKE_SIZE", OTHER_SIZE)
        make_set(other, clips=("b",))
    for place in (one, other):
        shutil.copytree(place, mixed, dirs_exist_ok=True)
    content = json.loads((one / "spikes/manifest.json").read_text())
    added = json.loads((other / "spikes/manifest.json").read_text())
    sizes = {key: added[key] for key in ("spike_h", "spike_w", "rgb_h", "rgb_w")}
    content["clips"] |= {"b": added["clips"]["b"] | sizes}
    (mixed / "spikes/manifest.json").write_text(json.dumps(content))
    return places


def test_a_training_set_of_clips_of_several_sizes_gives_each_clips_own_samples(sets):
    one, other, mixed = (define_Dataset(options(place)) for place in sets)
    assert len(mixed) == len(one) + len(other)
    for index in range(len(mixed)):
        alone = one.sample(index, rng()) if index < len(one) else other.sample(index - len(one), rng())
        found = mixed.sample(index, rng())
        assert found["key"] == alone["key"]
        assert all((found[key] == alone[key]).all() for key in ("lq", "gt", "spike"))
    assert mixed.sample(0, rng())["spike"].shape == mixed.sample(len(one), rng())["spike"].shape


def test_a_test_set_has_planes_of_each_clips_size(sets):
    _, other, mixed = (define_Dataset(options(place, "Test")) for place in sets)
    assert [clip.spike(0, 1).shape[2:] for clip in mixed.clips] == [(16, 24), (24, 16)]
    assert (mixed.clips[1].spike(0, 2) == other.clips[0].spike(0, 2)).all()
    assert np.array_equal(mixed.clips[1].references(1)["sdm_"], other.clips[0].references(1)["sdm_"])


def test_nothing_is_wrong_with_such_a_set(sets, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("spikevrt"), "propagate", True)
    assert check_dataset(options(sets[2])) == []
    rows = survey(sets[2] / "spikes")
    assert [list(row["shapes"]) for row in rows] == [[f"{STEPS}x16x24"], [f"{STEPS}x24x16"]]
    assert not [line for row in rows for line in row["wrong"] if "24x16" in line or "16x24" in line]


def test_an_lmdb_of_spikes_keeps_each_clips_size(sets, tmp_path):
    spikes = shutil.copytree(sets[2] / "spikes", tmp_path / "spikes") / "train"
    manifest = Manifest.load(spikes)
    files = DatFiles(spikes, tiny_set.SPIKE_SIZE, {clip: manifest.spike_size(clip) for clip in manifest.clips})
    lmdb_writer.write_lmdbs([(files, lmdb_path(spikes))], workers=1)
    assert "b/000047.dat (24,24,16) 0" in (tmp_path / "spikes/train.lmdb/meta_info.txt").read_text()


def test_the_crop_must_suit_every_clip(sets):
    with pytest.raises(UserError, match="gt_size: 34 does not fit clip a, expected a multiple of 2 up to 32 pixels"):
        define_Dataset(options(sets[2], gt_size=34))
    with pytest.raises(UserError, match="gt_size: 99 does not fit clip a, expected up to 32 pixels"):
        define_Dataset(options(sets[2], gt_size=99, spikes=False))


def test_older_manifests_are_written_as_before():
    timing = ClipTiming(steps=8, exposure=(0, 8), sharp_step=4)
    assert json.loads(timing.model_dump_json()) == {"steps": 8, "exposure": [0, 8], "sharp_step": 4, "steps_of": {}}
    with pytest.raises(ValueError, match="spike_h is 5 and spike_w None; give both or neither"):
        ClipTiming(steps=8, exposure=(0, 8), sharp_step=4, spike_h=5)


# A .dat that does not fit


@pytest.mark.parametrize(
    ("size", "frame", "steps", "found"),
    [
        (154880, (176, 320), [88], [(88, 160)]),
        (154880, (176, 320), [87, 80], [(176, 320), (88, 160), (44, 80)]),
        (154881, (176, 320), [88], []),
        (88 * 3600, (480, 540), [88], [(160, 180)]),
        (2534400, (720, 1280), [88], [(360, 640)]),
        (800, (7, 9), [88], []),
    ],
)
def test_frames_imply_the_size_of_their_spikes(size, frame, steps, found):
    assert implied_sizes(size, frame, steps) == found


@pytest.mark.parametrize(("height", "width"), [(360, 640), (16, 12), (8, 12), (15, 24)])
@pytest.mark.parametrize("kind", ["Train", "Test"])
def test_a_wrong_size_names_the_one_that_the_frames_imply_once_a_clip(tmp_path, height, width, kind):
    root = make_set(tmp_path, frames=8)
    content = json.loads((root / "spikes/manifest.json").read_text())
    (root / "spikes/manifest.json").write_text(json.dumps(content | {"spike_h": height, "spike_w": width}))
    with pytest.raises(UserError) as caught:
        define_Dataset(options(root, kind))
    first, other = caught.value.problems
    assert f"the frames' 32x48 pixels imply 16x24 ({STEPS} steps)" in first
    assert "(and 7 more of its 8 frames: 000048, 000049, 000050, 000051, 000052, ...)" in first
    assert first.startswith("clip clip_a frame 000047: ")
    assert other.startswith("clip clip_b frame 000047: ")
    assert "cut off?" not in first


def test_one_stream_for_a_whole_clip_is_named(tmp_path):
    root = make_set(tmp_path)
    folder = root / "spikes/train/clip_a/spike"
    for path in folder.iterdir():
        path.unlink()
    write_spikes(folder / "stream.dat", np.zeros((5 * STEPS, *tiny_set.SPIKE_SIZE), np.uint8))
    with pytest.raises(UserError) as caught:
        define_Dataset(options(root))
    (problem,) = caught.value.problems
    for words in ("no such spike file", "1 .dat (stream.dat)", f"of {STEPS} steps", f"has {5 * STEPS} of 16x24"):
        assert words in problem
    assert [line for line in check_dataset(options(root), full=False) if "stream.dat" in line] == [problem]


def test_files_of_other_names_are_named(tmp_path):
    root = make_set(tmp_path)
    for path in (root / "spikes/train/clip_a/spike").iterdir():
        path.rename(path.with_name(f"s{path.name}"))
    with pytest.raises(UserError, match=r"holds 5 \.dat \(s000047\.dat, s000048\.dat, s000049\.dat, \.\.\.\)"):
        define_Dataset(options(root))
