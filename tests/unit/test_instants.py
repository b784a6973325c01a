"""Other instants than the sharp one: their names, what a test makes of them, and what is refused."""

import base64
import json
import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from html_page import Page
from light_set import CLIPS, FRAMES, TIMES, add_instants, moments
from tiny_network import TINY
from tiny_set import make_set, options, rng

import main_test_vrt
from data.dataset_video_test import VideoTestDataset
from data.dataset_video_train_rgbspike import VideoTrainDatasetRGBSpike
from data.instants import instant_name, instants_of, slow_motion
from models.select_network import define_G
from options.schema import NetOpt
from options.schema_data import SpikeOpt
from options.schema_train import ValOpt
from restorer import Restorer
from utils import utils_checkpoint, utils_eval, utils_image
from utils.report import comparison_video, instants_picture, test_page
from utils.utils_dist import Dist
from utils.utils_error import UserError
from utils.utils_run_folder import ResultsFolder
from utils.utils_video import Playback

TFP = {"spike": {"representation": "tfp", "window": 3}, "spike_channels": 1}
SHOWN = (0.0, 0.47, 1.0)  # steps 2, 10 (the sharp one) and 19


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A set with instants of all but the last frame of clip_b."""
    root = add_instants(make_set(tmp_path_factory.mktemp("instants")), times=(*TIMES, 1.0))
    for path in (root / "instants/clip_b").glob(f"{FRAMES[-1]}*"):
        path.unlink()
    return root


def test_names_hold_the_fraction():
    assert instant_name("000012", 0.1) == "000012_t0.10"
    assert slow_motion(4) == (0.12, 0.38, 0.62, 0.88)
    names = {"a_t0.25", "b_t0.25", "a_t0.50", "a_t1.00", "b_t1.00", "a_t1.50", "b_t1.50", "a", "b_t0.5", "_t0.25"}
    assert instants_of(names, ("a", "b")) == [0.25, 1.0]


def shown(root, times=SHOWN, **changes):
    made = VideoTestDataset(options(root, "Test", **TFP | {"dataroot_instants": str(root / "instants")} | changes))
    made.show_instants(times)
    return made


def test_a_test_shows_instants_in_time_order(root):
    clip = shown(root).clips[1]
    assert clip.frames[:4] == [f"{FRAMES[0]}_t0.00", FRAMES[0], f"{FRAMES[0]}_t1.00", f"{FRAMES[1]}_t0.00"]
    reader = clip._spikes.reader
    for index, step in enumerate((2, 10, 19)):
        bits = reader.read("clip_b", FRAMES[0], (step - 1, step + 2)).mean(axis=0) * 2
        np.testing.assert_allclose(clip.spike(index, index + 1)[0, 0], bits, rtol=1e-6)
    sharp = [root / "instants/clip_b" / f"{FRAMES[0]}_t0.00.png", root / "gt/clip_b" / f"{FRAMES[0]}.png"]
    for index, path in enumerate(sharp):
        np.testing.assert_array_equal(clip.gt(index, index + 1)[0], utils_image.read_rgb(path))
    assert [len(clip.gt(index, index + 1)) for index in range(12, 15)] == [0, 1, 0], "no instants of the last frame"
    assert torch.equal(clip.lq(0, 1), clip.lq(2, 3))
    assert clip.network_input(0, 15).shape[0] == 15


def test_without_sharp_frames_nothing_is_measured(root):
    clip = shown(root, dataroot_gt=None).clips[0]
    assert not clip.has_gt
    bare = shown(root, dataroot_instants=None).clips[0]
    assert [len(bare.gt(index, index + 1)) for index in range(3)] == [0, 1, 0]


@pytest.mark.parametrize(
    ("times", "changes", "message"),
    [
        ((0.46, 0.47), {}, "val.times: 0.46 and 0.47 are both step 10 of clip clip_a, whose exposure is steps 2 to 19"),
        ((0.5,), {"spikes": False, "spike": {}, "spike_channels": 0}, "clip clip_a has no spikes that show other"),
        ((0.5,), {"spike": {"representation": "bins"}, "spike_channels": 4}, "spike.representation: 'bins' shows the"),
        ((0.5,), {"spike": {"representation": "isi", "window": 3}, "spike_channels": 4}, "'isi' shows the exposure"),
        ((0.0,), {"spike": {"representation": "tfp", "window": 9}}, r"steps -2\.\.14 are needed"),
        ((0.5,), {"dataroot_instants": "/nowhere"}, "dataroot_instants"),
    ],
)
def test_instants_that_cannot_be_shown_are_refused(root, times, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        shown(root, times, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["tfp", "tfi", "raw_window", "sdm", "moment"])
def test_every_representation_of_a_moment_shows_it(root, name):
    spike = {"representation": name, "window": 3, "planes": 3, "edge": "mirror"}
    channels = {"tfp": 1, "tfi": 1, "sdm": 1, "raw_window": 3, "moment": 5}[name]
    clip = shown(root, spike=spike, spike_channels=channels).clips[0]
    planes = clip.spike(0, 3)
    assert torch.isfinite(planes).all()
    assert not torch.equal(planes[0], planes[1])


def test_the_training_free_estimate_is_left_out_where_steps_are_missing(root):
    for center, found in ((3, {"lq_", "sdm_"}), (0, {"lq_"})):
        spike = {"representation": "moment", "planes": 1, "steps_per_plane": 1, "center": center}
        clip = VideoTestDataset(moments(root, "Test", spike=spike, spike_channels=3)).clips[0]
        assert clip.spike(0, 1).shape == (1, 3, 16, 24)
        assert clip.references(0).keys() == found


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: shutil.rmtree(root), "dataroot_instants"),
        (lambda root: shutil.rmtree(root / "clip_b"), "clip clip_b: .* has no instant of all 5 frames, expected"),
        (lambda root: [path.unlink() for path in root.glob("clip_a/000049_*")], "clip clip_a: .* has no instant"),
    ],
)
def test_a_training_set_without_the_instants_is_refused(tmp_path, spoil, message):
    root = add_instants(make_set(tmp_path))
    spoil(root / "instants")
    opt = moments(root, augment={"instant": 0.5}, dataroot_instants=str(root / "instants"))
    with pytest.raises(UserError, match=message) as caught:
        VideoTrainDatasetRGBSpike(opt)
    assert "\n" not in str(caught.value)


def test_a_training_set_needs_planes_of_an_instant_within_the_stream(root):
    given = {"augment": {"instant": 0.5}, "dataroot_instants": str(root / "instants")}
    add_instants(root, frames=FRAMES[-1:], clips=("clip_b",))
    with pytest.raises(UserError, match="'bins' shows the exposure"):
        VideoTrainDatasetRGBSpike(moments(root, **given, spike={"representation": "bins"}, spike_channels=4))
    with pytest.raises(UserError, match="steps -2.* are needed"):
        VideoTrainDatasetRGBSpike(moments(root, **given))
    for path in (root / "instants/clip_b").glob(f"{FRAMES[-1]}*"):
        path.unlink()


# Arrays


def restorer_of(**changes):
    opt = SimpleNamespace(netG=SimpleNamespace(in_chans=4, nonblind_denoising=False, extra_frames=0, img_size=(6,)))
    made = Restorer(None, SimpleNamespace(netG=opt.netG, datasets=SimpleNamespace(with_spikes=None)), None)
    given = {"representation": "tfp", "window": 3, "rate_at_white": 0.5, "center": 5} | changes
    made._dataset = SimpleNamespace(spike=SpikeOpt.model_validate(given), spike_channels=1)
    return made


FRAMES_IN, SPIKES_IN = np.zeros((2, 16, 24, 3), np.uint8), np.zeros((2, 12, 8, 12), np.uint8)


@pytest.mark.parametrize(
    ("times", "given", "message"),
    [
        ((0.5,), {}, "times: found, but other instants need spikes= and exposure="),
        ((0.5, 0.2), {"exposure": (1, 11)}, "expected ascending fractions"),
        ((0.5, 1.2), {"exposure": (1, 11)}, "from 0 to 1"),
        ((float("nan"),), {"exposure": (1, 11)}, "from 0 to 1"),
    ],
)
def test_times_of_arrays_are_checked(times, given, message):
    with pytest.raises(UserError, match=message):
        restorer_of().restore(FRAMES_IN, SPIKES_IN, times=times, **given)
    with pytest.raises(UserError, match="'bins' shows"):
        restorer_of(representation="bins").restore(FRAMES_IN, SPIKES_IN, times=[0.5], exposure=(1, 11))


def test_arrays_are_restored_at_times_given_as_an_array(monkeypatch):
    made, seen = restorer_of(), []
    spikes = rng().integers(0, 2, SPIKES_IN.shape).astype(np.uint8)
    frames = rng().integers(0, 256, FRAMES_IN.shape).astype(np.uint8)
    monkeypatch.setattr(made, "_tiled", lambda x: seen.append(x) or iter(x.rgb))
    out = made.restore(frames, spikes, times=np.array([0.0, 0.5, 1.0]), exposure=(1, 10))
    np.testing.assert_array_equal(out, np.broadcast_to(frames[:, None], out.shape))
    planes = seen[0].spike[:, 0].reshape(2, 3, 8, 12)
    for index, step in enumerate((1, 5, 9)):
        np.testing.assert_allclose(planes[:, index], 2 * spikes[:, step - 1 : step + 2].mean(axis=1), rtol=1e-6)


# The whole test


@pytest.fixture(scope="module")
def job(root, tmp_path_factory):
    place = tmp_path_factory.mktemp("job")
    test = options(root, "Test", **TFP | {"dataroot_instants": str(root / "instants")}).model_dump(mode="json")
    opt = {"task": "tiny", "datasets": {"test": test}, "netG": {"in_chans": 4, **TINY}}
    opt["val"] = {"num_frame_testing": 8, "num_frame_overlapping": 2}
    (place / "tiny.json").write_text(json.dumps(opt))
    path = place / "experiments/tiny/models/best_G.pth"
    utils_checkpoint.write_file(define_G(NetOpt(in_chans=4, **TINY)).state_dict(), path)
    return place


def run(*words):
    main_test_vrt.main(main_test_vrt.read_job(main_test_vrt.parse_args(["--opt", "tiny.json", *map(str, words)])))


def test_a_test_of_instants_writes_measures_and_resumes(root, job, monkeypatch, capsys):
    monkeypatch.chdir(job)
    run("--times", *SHOWN)
    folder = job / "results/tiny"
    names = [name for frame in FRAMES for name in (f"{frame}_t0.00.png", f"{frame}.png", f"{frame}_t1.00.png")]
    for clip in CLIPS:
        assert sorted(path.name for path in (folder / clip).iterdir()) == sorted(names)
    rows = (folder / "metrics.csv").read_text().splitlines()
    measured = [row for row in rows[1:] if any(row.split(",")[2:])]
    assert (len(rows) - 1, len(measured)) == (30, 28), "all but two instants of one frame have a sharp one"
    files = ResultsFolder(folder)
    assert files.instants.is_file()
    assert files.comparison_video.is_file()
    assert files.comparison_picture.is_file()

    before = {path: path.read_bytes() for path in folder.rglob("*.png")}
    lost = folder / "clip_b" / f"{FRAMES[1]}_t1.00.png"
    lost.unlink()
    kept = folder / "clip_a" / f"{FRAMES[1]}_t0.00.png"
    stamp = kept.stat().st_mtime_ns
    run("--times", *SHOWN, "--resume")
    assert {path: path.read_bytes() for path in folder.rglob("*.png")} == before
    assert kept.stat().st_mtime_ns == stamp
    with pytest.raises(UserError, match="restored differently"):
        run("--times", 0.5, "--resume")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--times", -0.1), "greater than or equal to 0"),
        (("--times", 0.5, 1.1), "less than or equal to 1"),
        (("--times", 0.5, 0.2), "must ascend by a hundredth or more"),
        (("--times", 0.5, 0.501), "must ascend by a hundredth or more"),
        (("--slowmo", 300), "must ascend by a hundredth or more"),
        (("--times", "nan"), "times"),
        (("--times", 0.5, "--set", "val.center_frame_only=true"), "times cannot be used with center_frame_only"),
    ],
)
def test_bad_times_are_refused_in_a_line(job, monkeypatch, words, message):
    monkeypatch.chdir(job)
    with pytest.raises(UserError, match=message) as caught:
        main_test_vrt.read_options(main_test_vrt.parse_args(["--opt", "tiny.json", *map(str, words)]))
    assert "\n" not in str(caught.value)


# Pictures


def pretend(name, size, count, frames=1, sharp=True):
    """A clip of noise, the worst for PNG, with `count` instants per frame."""
    names = [f"{frame:06d}_t{(k + 0.5) / count:.2f}" for frame in range(frames) for k in range(count)]
    noise = rng().integers(0, 256, (*size, 3)).astype(np.uint8)
    has = (lambda index: sharp) if isinstance(sharp, bool) else sharp
    return SimpleNamespace(
        name=name, frames=names, size=size, has_gt=bool(sharp), has_spike=False, playback=Playback(), picture=noise,
        lq=lambda start, stop: utils_image.to_float(noise[None]),
        gt=lambda start, stop: np.stack([noise] * int(has(start))) if has(start) else np.zeros((0, *noise.shape), "u1"),
    )  # fmt: skip


def instants_file(folder, clips, count):
    for clip in clips:
        for name in clip.frames:
            utils_image.write_rgb(ResultsFolder(folder).frame(clip.name, name), clip.picture)
    instants_picture.write_instants(folder, clips, count)
    path = ResultsFolder(folder).instants
    return path.stat().st_size, utils_image.read_rgb(path).shape


@pytest.mark.parametrize(
    ("clips", "count", "size", "sharp"),
    [
        (3, 8, (360, 640), True),
        (1, 1, (720, 1280), True),
        (2, 12, (640, 360), True),
        (1, 8, (720, 1280), True),
        (1, 8, (250, 400), False),
        (1, 8, (272, 640), False),
        (1, 5, (120, 960), True),
    ],
)
def test_the_picture_of_instants_stays_small_and_is_no_strip(tmp_path, clips, count, size, sharp):
    made = [pretend(f"clip{index}", size, count, sharp=sharp) for index in range(clips)]
    size, shape = instants_file(tmp_path, made, count)
    assert size < 5e6
    assert 300 < shape[1] < 2200
    assert 1 < shape[1] / shape[0] < 3


@pytest.mark.parametrize("size", [(48, 64), (30, 128)])
def test_the_picture_of_instants_shows_all_of_them_in_rows_of_one_length(tmp_path, monkeypatch, size):
    rows, paint = [], instants_picture.side_by_side

    def seen(title, pictures, *layout):
        rows.append((title.partition(":")[0], list(pictures)))
        return paint(title, pictures, *layout)

    monkeypatch.setattr(instants_picture, "side_by_side", seen)
    for sharp in (True, False, lambda index: index == 2):
        clips = [pretend("a", size, 8, sharp=sharp)]
        instants_file(tmp_path, clips, 8)
        assert {labels[0] for _, labels in rows} == {"blurred"}
        restored, below = ([labels for title, labels in rows if (title == "a") == is_a] for is_a in (True, False))
        assert [name for labels in restored for name in labels[1:]] == clips[0].frames
        assert len({len(labels) for labels in restored[:-1]} | {len(restored[0])}) == 1
        known = restored if sharp is True else [labels for labels in restored if sharp and clips[0].frames[2] in labels]
        assert below == known, "no row of sharp instants where none is known"
        assert sharp or len(restored) == 1, "without sharp instants the blurred frame is shown once"
        rows.clear()
    clips = [pretend("a", (48, 64), 4), pretend("b", (32, 96), 4)]
    instants_file(tmp_path, clips, 4)
    assert [name for name, _ in rows if name in "ab"] == sorted(name for name, _ in rows if name in "ab")


def test_the_page_has_a_slider_over_the_instants_of_a_frame(tmp_path):
    times = [(k + 0.5) / 20 for k in range(20)]
    clips = [pretend(f"clip{index}", (270, 480), 20) for index in range(4)]
    few = [pretend("few", (48, 64), 2, sharp=lambda index: index == 0)]
    instants_file(tmp_path, clips, 20)
    instants_file(tmp_path, few, 2)
    found = instants_picture.moments(tmp_path, clips, times)
    assert [moment.clip for moment in found] == ["clip0", "clip1", "clip2"]
    assert found[0].frame == "000000_t0.03 to 000000_t0.97"
    assert [len(track) for track in found[0].tracks.values()] == [1, 16, 16]
    pixels = sum(np.prod(picture_of(uri).shape[:2]) for one in found for track in one.tracks.values() for uri in track)
    assert pixels < 6.2e6
    (moment,) = instants_picture.moments(tmp_path, few, (0.25, 0.75))
    assert list(moment.tracks) == ["blurred", "restored"], "one of the sharp instants is unknown"
    facts = {"title": "a", "options": {}, "environment": {}}
    page = test_page.report_page(utils_eval.summarize([]), {}, facts, [moment])
    assert 'min="0" max="1" value="0" data-texts="0.25 0.75"' in page
    assert page.count('src="data:') == 3, "the sliders repeat none"
    Page(page).assert_alone()


def picture_of(uri):
    """The picture of a data URI."""
    encoded = np.frombuffer(base64.b64decode(uri.split(",")[1]), np.uint8)
    return cv2.imdecode(encoded, cv2.IMREAD_COLOR)


def test_a_comparison_of_some_sharp_frames_keeps_its_width(tmp_path):
    clip = pretend("a", (32, 48), 4, sharp=lambda index: index % 2 == 0)
    clip.planes_in_time, clip.spike = slice(0, 0), None
    clip.network_input, clip.references = clip.lq, lambda index: {"lq_": clip.picture}
    restored = dict.fromkeys(range(4), clip.picture)
    with comparison_video.comparison(tmp_path, Dist()) as watcher:
        utils_eval.evaluate(
            lambda window: window, [clip], ValOpt(metrics=["psnr"]), watchers=[watcher],
            restored=lambda clip, index: restored[index],
        )  # fmt: skip
    video = cv2.VideoCapture(str(ResultsFolder(tmp_path).comparison_video))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == 4
    picture = utils_image.read_rgb(ResultsFolder(tmp_path).comparison_picture)
    assert picture.shape[1] == 3 * (336 + 6) + 6
