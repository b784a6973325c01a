import errno
import json
import os
from contextlib import nullcontext
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from utils import utils_image
from utils.evaluation.clip import Frame
from utils.report import results_folder
from utils.utils_dist import Dist
from utils.utils_error import UserError
from utils.utils_file import DiskError
from utils.utils_video import Playback

NAMES = {"a": ["0000", "0001", "0002", "0003"], "b": ["0000", "0001"]}
RECORD = {"weights": "abc", "tile": {"frames": 6, "size": [96, 96]}, "sigma": None, "clips": NAMES}


@pytest.fixture
def clips():
    rng = np.random.default_rng(0)
    made = []
    for name, count in (("a", 4), ("b", 2)):
        images = rng.integers(0, 256, (count, 17, 23, 3), dtype=np.uint8)
        made.append(
            SimpleNamespace(
                name=name,
                frames=[f"{index:04d}" for index in range(count)],
                playback=Playback(Fraction(30)),
                images=images,
            )
        )
    return made


def write_all(folder, clips):
    write = results_folder.frame_writer(folder)
    for clip in clips:
        for index, image in enumerate(clip.images):
            write(Frame(clip, index, image, {}))


def test_a_new_start_removes_what_an_earlier_one_left_and_nothing_else(tmp_path, clips):
    write_all(tmp_path, clips)
    (tmp_path / "metrics.json").write_text("{}")
    for mine in ("notes.txt", "a/mine.png", "other/0000.png"):
        (tmp_path / mine).parent.mkdir(exist_ok=True)
        (tmp_path / mine).write_text("mine")
    results_folder.begin(tmp_path, RECORD, clips)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["a/mine.png", "notes.txt", "other/0000.png", "run.json"]
    assert results_folder.count_existing(tmp_path, clips) == (0, 6)


def test_going_on_needs_the_same_of_everything(tmp_path, clips):
    assert not results_folder.check_same(tmp_path, RECORD)
    results_folder.begin(tmp_path, RECORD, clips)
    assert results_folder.check_same(tmp_path, {**RECORD, "tile": {"frames": 6, "size": (96, 96)}})
    with pytest.raises(
        UserError, match=r"--resume: .* restored differently: tile.frames: 6 -> 12; .*leave out --resume"
    ):
        results_folder.check_same(tmp_path, {**RECORD, "tile": {"frames": 12, "size": [96, 96]}})
    with pytest.raises(UserError, match='weights: "abc" -> "xyz"'):
        results_folder.check_same(tmp_path, {**RECORD, "weights": "xyz"})


def test_frames_of_which_nothing_is_known_are_neither_taken_nor_removed(tmp_path, clips):
    results_folder.begin(tmp_path, RECORD, clips)
    write_all(tmp_path, clips)
    for damage in ("{", None):
        (tmp_path / "run.json").write_text(damage) if damage else (tmp_path / "run.json").unlink()
        with pytest.raises(UserError, match=r"has frames but no run.json that says how"):
            results_folder.check_same(tmp_path, RECORD)
    assert results_folder.count_existing(tmp_path, clips) == (6, 6)


def test_frames_of_other_weights_do_not_survive_a_start_on_part_of_the_clips(tmp_path, clips):
    results_folder.begin(tmp_path, RECORD, clips)
    write_all(tmp_path, clips)
    (tmp_path / "b.mp4").write_text("a video of them")
    part = {**RECORD, "weights": "xyz", "clips": {"a": NAMES["a"]}}
    results_folder.begin(tmp_path, part, clips[:1])
    assert results_folder.count_existing(tmp_path, clips) == (0, 6)
    assert not (tmp_path / "b.mp4").exists()
    with pytest.raises(UserError, match="clips.b: null ->"):
        results_folder.check_same(tmp_path, {**part, "clips": NAMES})


def test_a_test_that_saves_no_frames_removes_what_the_earlier_one_recorded_alone(tmp_path, clips):
    results_folder.begin(tmp_path, {**RECORD, "clips": {"a": NAMES["a"]}}, clips[:1])
    write_all(tmp_path, clips)  # nothing tells where those of b come from
    for made in ("a.mp4", "comparison.png", "comparison.mp4", "metrics.json", "report.html", "notes.txt"):
        (tmp_path / made).write_text("of the earlier test, or mine")
    results_folder.begin(tmp_path, None, clips)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["b/0000.png", "b/0001.png", "notes.txt"]


def test_frames_to_go_on_from_are_not_deleted_by_a_test_that_saves_none(tmp_path, clips):
    results_folder.begin(tmp_path, RECORD, clips)
    results_folder.begin(tmp_path, None, clips)  # the earlier one stopped before its first frame
    results_folder.begin(tmp_path, RECORD, clips)
    write_all(tmp_path, clips[1:])
    with pytest.raises(UserError, match="has 2 of 6 frames of an interrupted test.*--resume.*--save_result.*task_name"):
        results_folder.begin(tmp_path, None, clips)
    assert results_folder.count_existing(tmp_path, clips) == (2, 6)
    (tmp_path / "report.html").write_text("all is done")
    results_folder.begin(tmp_path, None, clips)
    assert results_folder.count_existing(tmp_path, clips) == (0, 6)


@pytest.mark.parametrize(("before", "now", "same"), [("png", None, True), (None, "png", False), ("png", "jpg", False)])
def test_frames_of_any_suffix_are_those_of_the_one_before(tmp_path, before, now, same):
    """Earlier versions knew no "any" and recorded png; two files that would be one frame are refused."""
    results_folder.begin(tmp_path, {**RECORD, "data": {"filename_ext": before}}, [])
    with nullcontext() if same else pytest.raises(UserError, match="data.filename_ext"):
        assert results_folder.check_same(tmp_path, {**RECORD, "data": {"filename_ext": now}})


@pytest.mark.parametrize("clips", [{"../evil": []}, {"a": ["../../evil"]}, {"/evil": ["0"]}])
def test_a_record_from_elsewhere_removes_nothing_outside(tmp_path, clips):
    folder = tmp_path / "results" / "x"
    folder.mkdir(parents=True)
    for name in ("evil.mp4", "evil.png", "results/evil.mp4"):
        (tmp_path / name).write_text("mine")
    (folder / "run.json").write_text(json.dumps({"clips": clips}))
    for act in (results_folder.read_record, lambda folder: results_folder.begin(folder, RECORD, [])):
        with pytest.raises(UserError, match="run.json: the name '.*evil.*' could lead out of its folder"):
            act(folder)
    assert (tmp_path / "evil.png").exists()
    assert (tmp_path / "results/evil.mp4").exists()


def test_a_folder_of_results_belongs_to_one_test(tmp_path):
    with results_folder.own(tmp_path), pytest.raises(UserError, match=r"in use by process .*--set val.task_name=NAME"):
        results_folder.own(tmp_path)
    results_folder.own(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_results_never_go_where_the_input_lies(tmp_path):
    folder = tmp_path / "results" / "t"
    results_folder.check_apart(folder, {"datasets.test.dataroot_lq": str(tmp_path / "results"), "gt": None})
    for inside in (folder, folder / "one"):
        with pytest.raises(UserError, match=r"dataroot_lq: .* lies in .* where the results go"):
            results_folder.check_apart(folder, {"datasets.test.dataroot_lq": str(inside)})


def test_a_disk_that_is_full_names_the_frame_and_the_way_on(tmp_path, clips, monkeypatch):
    def full(path, image):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(utils_image, "write_rgb", full)
    with pytest.raises(DiskError, match=r"a/0000.png: No space left on device, .* MiB free; .* with --resume"):
        write_all(tmp_path, clips)


def test_results_that_cannot_go_anywhere_are_found_before_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/run: Not a directory; results go there"):
        results_folder.check_writable(tmp_path / "file" / "run")


def test_videos_are_made_of_the_frames(tmp_path, clips):
    import av

    write_all(tmp_path, clips)
    for rank in range(2):  # neither waits here: without a process group everybody is alone
        results_folder.write_videos(tmp_path, clips, ["png", "h264", "lossless"], SimpleNamespace(**PAIR[rank]))
    for clip in clips:
        with av.open(str(tmp_path / f"{clip.name}.mkv")) as container:
            decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert np.array_equal(decoded, clip.images), "without loss"
        with av.open(str(tmp_path / f"{clip.name}.mp4")) as container:
            assert container.streams.video[0].average_rate == 30
            assert len(list(container.decode(video=0))) == len(clip.images)
    results_folder.remove_frames(tmp_path, clips)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mkv", "a.mp4", "b.mkv", "b.mp4"]


PAIR = [{"rank": rank, "world_size": 2, "is_main": rank == 0} for rank in range(2)]


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.setattr("utils.utils_dist.gather_objects", lambda dist, value: [value])


def test_no_video_is_made_where_none_is_wanted(tmp_path, clips):
    write_all(tmp_path, clips)
    results_folder.write_videos(tmp_path, clips, ["png"], Dist())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
