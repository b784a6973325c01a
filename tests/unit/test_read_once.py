"""A test reads what was recorded once: each blurred frame, each sharp frame and each `.dat` for each frame restored."""

import json
from collections import Counter
from types import SimpleNamespace

import pytest
from test_eval import FakeClip, Val, restore
from test_main_test import run
from test_tasks import MIDDLE_TASK, NOISE_TASK, numbered, run_task, write_clip
from tiny_network import TINY
from tiny_set import STEPS, make_set, options

import main_test_vrt
from data import frame_sources
from data.dataset_video_test import VideoTestDataset
from data.spike import store
from data.spike.source import SpikeSource
from models.model_vrt import ModelVRT
from models.select_network import define_G
from options.schema import NetOpt
from utils import spike_loader, utils_checkpoint, utils_dist, utils_eval, utils_image
from utils.evaluation.work_split import Share
from utils.report import metric_files, page_template

FRAMES = 9
TILES = {"num_frame_testing": 4, "num_frame_overlapping": 2, "size_patch_testing": 20, "size_patch_overlapping": 4}


@pytest.fixture
def reads(monkeypatch):
    """How often each file was decoded, by its place below the data's root: its last three names."""
    counts = Counter()

    def count(function):
        def counted(path):
            counts["/".join(path.parts[-3:])] += 1
            return function(path)

        return counted

    read_rgb, packed_bytes = count(utils_image.read_rgb), count(spike_loader.packed_bytes)
    for module in (frame_sources, utils_image):
        monkeypatch.setattr(module, "read_rgb", read_rgb)
    monkeypatch.setattr(store, "packed_bytes", packed_bytes)
    return counts


def counts_of(reads, folder):
    """How often the files below one folder were read, file by file."""
    return [count for path, count in sorted(reads.items()) if path.startswith(f"{folder}/")]


def write_run(place, root, **changes):
    """An option file of a tiny network for a data set, with its weights."""
    test = options(root, "Test").model_dump(include={"dataset_type", "dataroot_gt", "dataroot_lq", "dataroot_spike"})
    test["spike"] = {"representation": "tfp", "window": 9}
    opt = {"task": "tiny", "datasets": {"test": test}, "netG": {"in_chans": 4, **TINY}, "val": TILES | changes}
    (place / "tiny.json").write_text(json.dumps(opt))
    weights = define_G(NetOpt(in_chans=4, **TINY)).state_dict()
    utils_checkpoint.write_file(weights, place / "experiments" / "tiny" / "models" / "best_G.pth")


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ModelVRT, "restore", lambda self, x: restore(x))  # the network is not what is tested
    monkeypatch.setattr(page_template, "curve_svg", lambda *_: "")  # reads nothing, and takes half of the time
    # Comparing the cameras reads three frames of one or two clips, whatever the size of the set.
    monkeypatch.setattr(main_test_vrt, "warn_at_start", lambda block: None)
    # Looking for spikes that show nothing opens each file, but reads no more than the first step that shows something.
    monkeypatch.setattr(SpikeSource, "check_firing", lambda self: None)
    return tmp_path


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("set"), frames=FRAMES)


@pytest.mark.parametrize("changes", [{}, {"pad_seq": True, "metrics": ["psnr", "tof"]}])
def test_a_test_with_pictures_reads_everything_once(place, root, reads, changes):
    write_run(place, root, **changes)
    run("--opt", "tiny.json")
    once = [1] * 2 * FRAMES
    assert counts_of(reads, "lq") == once
    assert counts_of(reads, "gt") == once
    assert [count for path, count in reads.items() if path.endswith(".dat")] == once
    assert counts_of(reads, "tiny") == [], "restored frames are in memory when they are shown"
    folder = place / "results/tiny"
    assert len(list(folder.glob("comparison.*"))) == 2

    frames = sorted(folder.glob("clip_a/*.png"))
    for path in frames[2:4] + frames[7:]:
        path.unlink()
    whole = {name: (folder / name).read_bytes() for name in ("metrics.json", "metrics.csv", "comparison.png")}
    reads.clear()
    run("--opt", "tiny.json", "--resume")
    assert counts_of(reads, "tiny") == [1] * (2 * FRAMES - 4), "restored frames that were there"
    assert counts_of(reads, "gt") == once
    assert sum(counts_of(reads, "lq")) <= len(once) + 2, "measured, then wanted for the first gap's piece as well"
    assert {name: (folder / name).read_bytes() for name in whole} == whole


@pytest.mark.parametrize(
    ("spike", "channels"),
    [
        ({"representation": "tfp", "window": STEPS + 7}, 1),
        ({"representation": "moment", "planes": 5, "steps_per_plane": 7}, 7),
    ],
)
def test_spikes_that_are_one_stream_are_read_once(tmp_path, reads, spike, channels):
    """The steps around each frame lie in three files; the gain of a moment asks for the frame and its exposure too."""
    root = make_set(tmp_path, clips=["a"], frames=FRAMES)
    manifest = root / "spikes/manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"continuous": True}))
    clips = VideoTestDataset(options(root, "Test", spike=spike | {"edge": "mirror"}, spike_channels=channels))
    val, seen = Val(num_frame_testing=4), []
    utils_eval.evaluate(restore, clips, val, watchers=[lambda frame: seen.append(metric_files.panels(frame))])
    assert len(seen) == FRAMES
    assert [count for path, count in reads.items() if path.endswith(".dat")] == [1] * FRAMES
    assert counts_of(reads, "lq") == [1] * FRAMES


def test_noise_and_frames_in_between_need_each_frame_once(place, reads, monkeypatch):
    write_clip(place / "lq", "a", numbered(*range(0, 14, 2)))
    write_clip(place / "all", "a", numbered(*range(14)))
    tile = ("--tile", 5, 16, 16, "--tile_overlap", 2, 4, 4, "--save_result")
    run_task(place, NOISE_TASK, "--folder_gt", place / "lq", "--sigma", 20, *tile, nonblind_denoising=True)
    assert counts_of(reads, "lq") == [2] * 7, "once as the input and once as the sharp frame"
    reads.clear()
    monkeypatch.setattr(ModelVRT, "restore", lambda self, x: x[:, 1:, :3])
    run_task(place, MIDDLE_TASK, "--folder_lq", place / "lq", "--folder_gt", place / "all", *tile, pa_frames=0)
    assert counts_of(reads, "lq") == [1] * 7
    assert counts_of(reads, "all") == [1] * 6


def test_pictures_of_a_validation_read_nothing(root, reads):
    clips = VideoTestDataset(options(root, "Test"))
    shown = []
    board = SimpleNamespace(image=lambda step, name, image: shown.append(name))
    for step in range(2):
        pictures = metric_files.BoardImages(clips)
        utils_eval.evaluate(restore, clips, Val(num_frame_testing=4, frames_shared=2), watchers=[pictures])
        pictures.show(board, step, utils_dist.Dist())
    assert len(shown) == 4
    assert set(reads.values()) == {2}, "once in each validation"


class Index(int):
    """A number that knows how often numbers were compared."""

    compared = 0
    __hash__ = int.__hash__

    def __eq__(self, other):
        Index.compared += 1
        return int(self) == other


def test_an_evaluation_does_no_work_that_grows_with_clips_times_frames(monkeypatch):
    count, looks = 600, []
    clips = [FakeClip(f"c{index}", 1, has_gt=False, size=(2, 2)) for index in range(count)]
    test_set = type(
        "Set", (), {"__len__": lambda _: count, "__getitem__": lambda _, at: looks.append(at) or clips[at]}
    )()
    mine, other = ([Share(Index(at), 0, 1) for at in part] for part in (range(count // 2), range(count // 2, count)))
    rows = {(share.clip, 0): {"clip": clips[share.clip].name, "frame": "0", "psnr": 30.0} for share in other}
    theirs = SimpleNamespace(rows=rows, logged=set(), stopped=False)
    monkeypatch.setattr(utils_eval, "shares", lambda *_: [mine, other])
    monkeypatch.setattr(utils_dist, "gather_objects", lambda dist, value: [value, theirs])
    result = utils_eval.evaluate(restore, test_set, Val(), utils_dist.Dist(0, 2))
    assert len(result["frames"]) == count
    assert len(looks) <= 4 * count
    assert Index.compared < 40 * count
