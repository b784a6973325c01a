"""Scene sets: equal bytes however they are made, nothing held out is trained on, exact motion, mistakes in one line."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from golden_files import digests

from data.dataset_video_train_rgbspike import VideoTrainDatasetRGBSpike
from data.layout import instant_dir, known_clips, subframe_dir
from data.prepare.photo_scene import PhotoScene
from data.prepare.recordings import Source
from data.prepare.scene_sources import find_pictures
from data.prepare.scene_video import CUT, draw_part, draw_windows
from options.schema import DatasetOpt
from scripts.data_preparation import make_scene_dataset as scenes
from utils.utils_cli import ALL, Shard
from utils.utils_error import UserError
from utils.utils_image import read_rgb, write_rgb

SIZE = 16, 32
RECIPE = scenes.Recipe(clips=5, test_clips=2, height=16, width=32, instants=2, holdout=0.5)
NO_VIDEOS = {"train": [], "test": []}


def rng(seed=0):
    return np.random.default_rng(seed)


def picture(seed, size=(48, 80)):
    coarse = rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(8):
        write_rgb(folder / f"p{seed}.png", picture(seed))
    return folder


def made(out, photos, recipe=RECIPE, shard=ALL, videos=None):
    pictures = find_pictures([photos], [], recipe.holdout, recipe.least)
    scenes.make(out, recipe, scenes.Sources(pictures, videos or NO_VIDEOS), shard)
    return out


@pytest.fixture(scope="module")
def whole(tmp_path_factory, photos):
    return made(tmp_path_factory.mktemp("set") / "whole", photos)


def test_shards_at_the_same_time_make_the_same_set_as_one_run(whole, photos, tmp_path):
    made(tmp_path / "set", photos, shard=Shard(2, 3))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda index: made(tmp_path / "set", photos, shard=Shard(index, 3)), (0, 1)))
    assert digests(tmp_path / "set") == digests(whole)


def test_an_interrupted_run_goes_on_to_the_same_set(whole, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(scenes, "BATCH", 2)
    calls = []

    def stop_at_the_third(job, recipe):
        calls.append(job.clip)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return frames_of(job, recipe)

    frames_of = scenes.frames_of
    with monkeypatch.context() as patch:
        patch.setattr(scenes, "frames_of", stop_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            made(tmp_path / "set", photos)
    finished = set(known_clips(tmp_path / "set"))
    assert len(finished) == 2
    monkeypatch.setattr(scenes, "frames_of", lambda job, recipe: calls.append(job.clip) or frames_of(job, recipe))
    calls.clear()
    assert digests(made(tmp_path / "set", photos)) == digests(whole)
    assert not finished & set(calls), "finished clips are made again"


def test_names_of_pictures_change_no_clip(whole, photos, tmp_path):
    other = tmp_path / "renamed"
    other.mkdir()
    for index, path in enumerate(sorted(photos.iterdir(), reverse=True)):
        (other / f"{index}.png").write_bytes(path.read_bytes())
    found, expected = digests(made(tmp_path / "set", other)), digests(whole)
    record = f"meta_info/{scenes.RECORD}"
    assert found.pop(record) != expected.pop(record)
    assert found == expected


def test_splits_share_no_picture(whole):
    record = json.loads((whole / "meta_info" / scenes.RECORD).read_text())
    split_of = {one["name"]: one["split"] for one in record["pictures"]}
    assert set(split_of.values()) == {"train", "test"}
    for clip, names in record["clips"].items():
        assert {split_of[name] for name in names} == {known_clips(whole)[clip]}


def test_look_alikes_of_held_out_pictures_are_not_trained_on(photos, tmp_path):
    brighter = np.clip(cv2.resize(picture(3), (100, 60)).astype(int) + 20, 0, 255).astype(np.uint8)
    write_rgb(tmp_path / "again.png", brighter)
    found = find_pictures([photos], [tmp_path], 0, SIZE)
    assert [one.name.split("/")[1] for one in found if one.split == "test"] == ["again.png"]
    assert "p3.png" not in {one.path.name for one in found}
    assert len(found) == 8


def test_small_pictures_are_left_out(photos, tmp_path, heard):
    write_rgb(tmp_path / "icon.png", picture(20, (9, 12)))
    found = find_pictures([photos, tmp_path], [], 0, SIZE)
    assert "icon.png" not in {one.path.name for one in found}
    assert "left out: 1 of 9 pictures, smaller than 11x22 pixels" in heard.text


def test_a_set_opens_for_training_with_light_and_instants(whole):
    roots = {
        "dataroot_gt": "train_GT",
        "dataroot_lq": "train_GT_blurred",
        "dataroot_spike": "GOPRO_Large_spike_seq/train",
    }
    given = {key: str(whole / name) for key, name in roots.items()} | {
        "dataset_type": "VideoRecurrentTrainDatasetRGBSpike",
        "dataroot_subframes": str(subframe_dir(whole, "train")),
        "dataroot_instants": str(instant_dir(whole, "train")),
        "spike": {"representation": "moment", "edge": "mirror"},
        "augment": {"theta": [0.7, 5], "shift": [0, 2], "time_shift": [0, 4], "instant": 1.0},
        "num_frame": 1,
        "gt_size": 16,
    }
    data = VideoTrainDatasetRGBSpike(DatasetOpt.model_validate(given))
    sample = data.sample(0, rng())
    assert sample["lq"].shape == (1, 3, 16, 16)
    assert sample["spike"].shape[2:] == (8, 8)
    assert data.instants, "there are other instants to draw"


def test_stored_light_is_that_of_the_spikes(whole):
    for light in (np.load(path) for path in sorted(subframe_dir(whole, "train").rglob("*.npy"))[:2]):
        assert light.dtype == np.uint8
        assert light.shape[1:] == (8, 16)
        assert np.abs(np.diff(light.astype(int), axis=0)).max() < 128, "steps do not follow each other"


def test_scenes_move_and_depend_on_the_step_alone():
    scene = PhotoScene(picture(0), [picture(1), picture(2)], SIZE, rng(5))
    first = scene.render(0)
    far = scene.render(60)
    assert np.abs(far.astype(int) - first).mean() > 1
    np.testing.assert_array_equal(scene.render(0), first)


def test_still_clips_are_training_clips_that_move_less(whole, photos, tmp_path):
    still = made(tmp_path / "set", photos, replace(RECIPE, still_share=1.0))

    def blur(root, clip):
        frames = [
            read_rgb(next((root / f"{clip.split('_')[1]}_GT{kind}" / clip).glob("*.png"))) for kind in ("", "_blurred")
        ]
        return float(np.abs(np.subtract(*frames, dtype=float)).mean())

    train = [f"scene_train_{index:05d}" for index in range(RECIPE.clips)]
    assert np.mean([blur(still, clip) for clip in train]) < 0.5 * np.mean([blur(whole, clip) for clip in train])
    same = {name: digest for name, digest in digests(whole).items() if name.startswith("test_")}
    assert same.items() <= digests(still).items()


def video(frames, path=Path("v.mp4")):
    names = [str(index) for index in range(len(frames))]
    return Source(path, "v", names, lambda name: frames[int(name)], frames[0].shape[:2], 25.0)


def video_file(path, frames=40, content=b"v"):
    path.write_bytes(content)
    base = picture(9, (24, 90))
    return video([np.ascontiguousarray(base[:20, at : at + 40]) for at in range(frames)], path)


def test_parts_of_videos_have_no_cut():
    shots = [np.full((20, 40, 3), level, np.uint8) for level in (10, 10 + 3 * int(CUT))]
    source = video([shots[index // 30] for index in range(60)])
    windows = draw_windows(33, 2.0, 2, 2, rng())
    for seed in range(20):
        part = draw_part(source, 2, windows, SIZE, rng(seed))
        last = part.first + 2 * windows.blur_frames
        assert last < 30 or part.first >= 30


@pytest.mark.parametrize("exposure", range(scenes.EXPOSURES[0], scenes.EXPOSURES[1] + 1, 2))
def test_windows_of_videos_are_about_as_long_as_drawn(exposure):
    timing = draw_windows(exposure, 2.0, 2, 4, rng(exposure)).timing()
    assert abs(timing.exposure[1] - exposure) <= 4


VIDEOS = replace(RECIPE, clips=1, test_clips=1, video_share=1.0)


def test_clips_of_videos_are_made_and_go_on_with_the_same_bytes_alone(tmp_path, photos):
    def videos(content):
        return {"train": [video_file(tmp_path / "v.mp4", content=content)], "test": []}

    root = made(tmp_path / "set", photos, VIDEOS, videos=videos(b"v"))
    path = root / "meta_info" / scenes.RECORD
    record = json.loads(path.read_text())
    assert record["clips"]["scene_train_00000"] == ["v.mp4"]
    assert len(list((root / "train_subframes/scene_train_00000").iterdir())) == VIDEOS.frames
    with pytest.raises(UserError, match="begun with other videos"):
        made(root, photos, VIDEOS, videos=videos(b"w"))
    del record["video_sha256"]  # as written by earlier versions
    path.write_text(json.dumps(record))
    made(root, photos, VIDEOS, videos=videos(b"w"))


def test_a_video_to_hold_out_is_not_trained_on_under_any_name(tmp_path, photos):
    train, test = video_file(tmp_path / "v.mp4"), video_file(tmp_path / "w.mp4")
    for other in (train, test):
        with pytest.raises(UserError, match=rf"--test-videos: .*{other.path.name} has the same bytes as .*v.mp4"):
            made(tmp_path / "set", photos, VIDEOS, videos={"train": [train], "test": [other]})
    assert not (tmp_path / "set").exists()


def test_videos_too_short_for_a_clip_are_named_before_anything_is_made(tmp_path, photos):
    short = video_file(tmp_path / "short.mp4", frames=18)
    with pytest.raises(UserError, match=r"short.mp4: 18 frames, expected 19 or more for clips of --frames 2"):
        made(tmp_path / "set", photos, VIDEOS, videos={"train": [], "test": [short]})
    assert not (tmp_path / "set").exists()
    windows = [draw_windows(exposure, 2.0, 2, 2, rng(seed)) for exposure in range(33, 98, 2) for seed in range(9)]
    assert max(2 * one.blur_frames + 1 for one in windows) == 19


def refused(call, *arguments, **named):
    with pytest.raises(UserError) as caught:
        call(*arguments, **named)
    return str(caught.value)


def test_another_recipe_does_not_go_on(whole, photos):
    assert "begun with other seed" in refused(made, whole, photos, replace(RECIPE, seed=1))


def test_mistakes_are_told_in_one_line(photos, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no such folder" in refused(find_pictures, [tmp_path / "none"], [], 0, SIZE)
    assert "has no pictures" in refused(find_pictures, [tmp_path / "empty"], [], 0, SIZE)
    lacking = refused(made, tmp_path / "set", photos, replace(RECIPE, holdout=0))
    assert "test: no pictures or videos for 2 clips" in lacking
    assert "give --test-photos or --test-videos, or raise --holdout" in lacking
    assert "multiples of 16 pixels" in refused(scenes.Recipe, height=20)
    assert "--holdout: 1" in refused(scenes.Recipe, holdout=1.0)
    for changes in ({"theta": np.inf}, {"theta": np.nan}, {"theta": 34.0}):
        assert "expected 1 to 33 steps, the shortest exposure" in refused(scenes.Recipe, **changes)
    assert "--instants: -1, expected 0 or more" in refused(scenes.Recipe, instants=-1)


@pytest.mark.parametrize(
    ("words", "expected"), [(["--photos", "p", "--shard", "2/2"], "is not a shard"), ([], "--photos: none")]
)
def test_wrong_words_are_told_in_one_line(run_program, words, expected):
    code, _, error = run_program("scripts/data_preparation/make_scene_dataset.py", "--out", "o", *words)
    assert code == 2
    assert expected in error
    assert len(error.strip().splitlines()) == 1
