"""From a stream and frames with their times to a data set: which steps go where, and what is refused."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from spike_scenes import pack, textured
from tiny_network import TINY, overrides

import main_test_vrt
from data import layout
from data.check import check_dataset
from data.dataset_video_test import VideoTestDataset
from data.prepare.recordings import folder_source
from data.select_dataset import define_Dataset
from data.spike.manifest import Manifest
from data.spike.simulator import integrate_and_fire
from models.select_network import define_G
from options.schema import DatasetOpt, NetOpt
from utils import utils_checkpoint
from utils.spike_loader import read_spikes, write_spikes
from utils.utils_error import UserError
from utils.utils_image import read_rgb, write_rgb

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "data_preparation"))
import prepare_recording  # noqa: E402

H, W, RATIO, CLOCK = 32, 40, 2, 20000
FIRST, PERIOD, EXPOSURE, FRAMES = 30, 90, 60, 4
TOTAL = FIRST + FRAMES * PERIOD
TIMES = [(FIRST + at * PERIOD, FIRST + at * PERIOD + EXPOSURE) for at in range(FRAMES)]


@pytest.fixture(scope="module")
def spikes():
    """(T, H, W): a texture that moves to the left, at threshold 2."""
    wide = textured(H, W + TOTAL // 60 + 1)
    light = np.stack([wide[:, step // 60 : step // 60 + W] for step in range(TOTAL)])
    return integrate_and_fire(light.astype(np.float32), 2.0, np.random.default_rng(0))[0]


@pytest.fixture(scope="module")
def recording(tmp_path_factory, spikes):
    """A folder with walk.dat, frames/ made of its own spikes, and their times in steps and in seconds."""
    root = tmp_path_factory.mktemp("recording")
    pack(spikes).tofile(root / "walk.dat")
    for at, (first, last) in enumerate(TIMES):
        gray = np.clip(spikes[first:last].mean(axis=0) * 2, 0, 1).repeat(RATIO, 0).repeat(RATIO, 1)
        write_rgb(root / "frames" / f"shot_{at + 1}.png", np.rint(255 * gray).astype(np.uint8)[..., None].repeat(3, 2))
    (root / "steps.txt").write_text("".join(f"{first} {last}\n" for first, last in TIMES))
    rows = (f"shot_{at + 1}.png,{first / CLOCK},{last / CLOCK}\n" for at, (first, last) in enumerate(TIMES))
    (root / "seconds.csv").write_text("frame,start,end\n" + "".join(rows))
    return root


def run(out, recording, *words, spikes="walk.dat", frames="frames"):
    given = ["--spikes", recording / spikes, "--frames", recording / frames, "--out", out, "--clock-hz", CLOCK]
    given += [] if "--spike_h" in words else ["--spike_h", H, "--spike_w", W]
    prepare_recording.prepare(prepare_recording.make_parser().parse_args([*map(str, given), *map(str, words)]))
    return out


def pieces(root, clip="walk", split="test"):
    """The clip's spikes as written, and its timing."""
    manifest = Manifest.read(root / layout.SPIKES / "manifest.json")
    files = sorted((layout.spike_dir(root, split) / clip / "spike").iterdir())
    return [read_spikes(file, manifest.spike_h, manifest.spike_w) for file in files], manifest.timing(clip)


def digest(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


# ---- what is written


@pytest.fixture(scope="module")
def made(recording, tmp_path_factory):
    return run(tmp_path_factory.mktemp("set") / "out", recording, "--times", recording / "seconds.csv")


def test_each_exposure_is_the_streams_steps(made, spikes):
    cut, timing = pieces(made)
    assert len(cut) == FRAMES
    for piece, (first, last) in zip(cut, TIMES, strict=True):
        np.testing.assert_array_equal(piece[slice(*timing.exposure)], spikes[first:last])
    assert timing.sharp_step == timing.exposure[0] + round((EXPOSURE - 1) / 2)


def test_pieces_of_a_tiling_stream_join_without_gaps(made, spikes):
    cut, timing = pieces(made)
    assert Manifest.load(layout.spike_dir(made, "test")).continuous
    begin = FIRST - timing.exposure[0]
    joined = np.concatenate(cut)
    np.testing.assert_array_equal(joined, spikes[begin : begin + len(joined)])


def test_the_manifest_says_what_the_bits_and_frames_say(made):
    manifest = Manifest.load(layout.spike_dir(made, "test"))
    assert manifest.rate_at_white == pytest.approx(0.5, abs=0.01)
    assert (manifest.transfer, manifest.noise, manifest.clock_hz) == ("srgb", "sensor", CLOCK)
    assert (manifest.rgb_h, manifest.rgb_w) == (RATIO * H, RATIO * W)


def test_frames_stay_and_their_names_are_recorded(made, recording):
    written = read_rgb(layout.lq_dir(made, "test") / "walk" / "000002.png")
    np.testing.assert_array_equal(written, read_rgb(recording / "frames" / "shot_3.png"))
    table = (layout.spike_dir(made, "test") / "walk" / prepare_recording.TIMES).read_text().splitlines()
    assert table[3] == f"000002,shot_3,{TIMES[2][0]},{TIMES[2][1]}"
    assert read_rgb(layout.spike_dir(made, "test") / "walk" / prepare_recording.PREVIEW).shape[1] > 4 * W


def test_the_last_line_is_the_command_to_type_next(recording, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run(Path("out"), recording, "--times", recording / "seconds.csv")
    *before, last = capsys.readouterr().out.splitlines()
    assert last == layout.how_to_restore(Path("out"), has_sharp=False)
    assert "out/GOPRO_Large_spike_seq/manifest.json: written" in before, "the alignment comes first"


WAYS = {
    "steps": ["--times", "{r}/steps.txt", "--time-unit", "steps"],
    "regular, in steps": ["--fps", CLOCK / PERIOD, "--exposure", EXPOSURE, "--start", FIRST, "--time-unit", "steps"],
    "regular, in ms": ["--fps", CLOCK / PERIOD, "--exposure", 3, "--start", 1.5, "--time-unit", "ms"],
    "json": ["--times", "{r}/by_name.json", "--time-unit", "us"],
    "middles": ["--times", "{r}/middles.txt", "--time-unit", "steps", "--exposure", EXPOSURE, "--timestamp", "middle"],
    "another zero": ["--times", "{r}/late.txt", "--time-unit", "steps", "--stream-start", 1000],
}


@pytest.fixture(scope="module")
def timed(recording):
    per_us = 1e6 / CLOCK
    named = {f"shot_{at + 1}": [first * per_us, last * per_us] for at, (first, last) in enumerate(TIMES)}
    (recording / "by_name.json").write_text(json.dumps(named))
    (recording / "middles.txt").write_text("".join(f"{(first + last) / 2}\n" for first, last in TIMES))
    (recording / "late.txt").write_text("".join(f"{first + 1000},{last + 1000}\n" for first, last in TIMES))
    return recording


@pytest.mark.parametrize("way", WAYS)
def test_all_ways_to_give_times_agree(made, timed, tmp_path, way):
    words = [str(word).format(r=timed) for word in WAYS[way]]
    assert digest(run(tmp_path / "out", timed, *words)) == digest(made)


def test_pieces_apart_have_the_margins(recording, spikes, tmp_path):
    words = ("--times", recording / "seconds.csv", "--margin", 10)
    cut, timing = pieces(run(tmp_path / "out", recording, *words))
    assert (timing.steps, timing.exposure) == (EXPOSURE + 20, (10, EXPOSURE + 10))
    for piece, (first, last) in zip(cut, TIMES, strict=True):
        np.testing.assert_array_equal(piece, spikes[first - 10 : last + 10])


@pytest.mark.parametrize("suffix", [".npz", ".npy", "_big.dat", "_upright.dat", "_mirrored.dat"])
def test_any_file_of_the_same_spikes_makes_the_same_set(made, recording, spikes, tmp_path, suffix):
    file = tmp_path / f"walk{suffix}"
    if suffix == ".npz":
        np.savez_compressed(file, spk=spikes)
    elif suffix == ".npy":
        np.save(file, spikes)
    else:
        seen = spikes[:, :, ::-1] if "mirrored" in suffix else spikes
        pack(seen, flipud="upright" not in suffix, bit_order="big" if "big" in suffix else "little").tofile(file)
    words = ("--times", recording / "seconds.csv", "--clip", "walk")
    assert digest(run(tmp_path / "out", recording, *words, spikes=file)) == digest(made)


def test_one_file_per_frame_is_cut_alike(recording, spikes, tmp_path):
    for at, (first, last) in enumerate(TIMES):
        folder = tmp_path / "walk"
        folder.mkdir(exist_ok=True)
        pack(spikes[first - 20 : last + 10]).tofile(folder / f"shot_{at + 1}.dat")
    words = ("--exposure", EXPOSURE, "--start", 20, "--time-unit", "steps", "--margin", 10)
    cut, timing = pieces(run(tmp_path / "out", recording, *words, spikes=tmp_path / "walk"))
    assert (timing.steps, timing.exposure) == (EXPOSURE + 20, (10, EXPOSURE + 10))
    for piece, (first, last) in zip(cut, TIMES, strict=True):
        np.testing.assert_array_equal(piece, spikes[first - 10 : last + 10])


def test_a_folder_with_one_stream_is_that_stream(made, recording, spikes, tmp_path):
    write_spikes(tmp_path / "walk" / "all.dat", spikes)
    words = WAYS["regular, in ms"]
    assert digest(run(tmp_path / "out", recording, *words, spikes=tmp_path / "walk")) == digest(made)


def test_one_file_per_frame_has_no_rate_and_no_single_stream(recording, spikes, tmp_path):
    for at, (first, last) in enumerate(TIMES):
        write_spikes(tmp_path / "walk" / f"shot_{at + 1}.dat", spikes[first:last])
    words = ("--exposure", EXPOSURE, "--time-unit", "steps")
    for option, message in (
        ("--fps=222", "--fps: .* one file per frame"),
        ("--continuous", "--continuous: .* one file per"),
    ):
        with pytest.raises(UserError, match=message):
            run(tmp_path / "out", recording, *words, option, spikes=tmp_path / "walk")


def test_options_that_an_array_does_not_have_are_refused(recording, spikes, tmp_path):
    np.save(tmp_path / "walk.npy", spikes)
    words = ("--times", recording / "seconds.csv", "--bit_order", "big")
    with pytest.raises(UserError, match="walk.npy: is npy, .* expected no --bit_order big"):
        run(tmp_path / "out", recording, *words, spikes=tmp_path / "walk.npy")


def test_a_set_that_cannot_be_written_is_one_line(recording):
    with pytest.raises(UserError, match="walk.dat/set: Not a directory; choose a folder that can be written"):
        run(recording / "walk.dat" / "set", recording, "--times", recording / "seconds.csv")


def test_sharp_frames_of_another_number_are_refused_or_said(recording, tmp_path, caplog):
    every = [f"shot_{at + 1}" for at in range(FRAMES)]
    picture = read_rgb(recording / "frames" / "shot_1.png")
    for name in [*every, "shot_5"]:
        write_rgb(tmp_path / "sharp" / f"{name}.png", picture)
    source = folder_source(recording / "frames")
    prepare_recording._sharp(tmp_path / "sharp", source, every)
    assert "has 5 frames, --frames" in caplog.text
    video = replace(source, path=recording / "walk.dat")  # a file, as a video is
    with pytest.raises(
        UserError, match="has 5 frames, --frames .*walk.dat 4, expected one sharp frame per blurred one"
    ):
        prepare_recording._sharp(tmp_path / "sharp", video, every)


def test_cropped_spikes_crop_the_frames_alike(recording, spikes, tmp_path):
    words = ("--times", recording / "seconds.csv", "--spike-crop", 4, 8, 16, 24)
    root = run(tmp_path / "out", recording, *words)
    cut, timing = pieces(root)
    np.testing.assert_array_equal(cut[1][slice(*timing.exposure)], spikes[slice(*TIMES[1]), 4:20, 8:32])
    whole = read_rgb(recording / "frames" / "shot_2.png")
    written = read_rgb(layout.lq_dir(root, "test") / "walk" / "000001.png")
    np.testing.assert_array_equal(written, whole[8:40, 16:64])


def test_the_only_clip_of_a_set_is_made_again_with_another_camera(recording, tmp_path):
    words = ("--times", recording / "steps.txt", "--time-unit", "steps")
    run(tmp_path / "out", recording, *words, "--rate-at-white", 0.9, "--transfer", "linear", "--margin", 3)
    root = run(tmp_path / "out", recording, *words)
    assert digest(root) == digest(run(tmp_path / "new", recording, *words))
    run(root, recording, *words, "--clip", "other")
    with pytest.raises(UserError, match="rate_at_white is .*, the new clips have 0.9"):
        run(root, recording, *words, "--rate-at-white", 0.9)


def test_a_range_of_the_frames_keeps_their_own_times(recording, spikes, tmp_path):
    root = run(tmp_path / "out", recording, "--times", recording / "seconds.csv", "--range", "1:3")
    cut, timing = pieces(root)
    assert len(cut) == 2
    for piece, (first, last) in zip(cut, TIMES[1:3], strict=True):
        np.testing.assert_array_equal(piece[slice(*timing.exposure)], spikes[first:last])


def test_frames_that_are_stretched_are_said_to_be(recording, tmp_path, caplog):
    words = ("--times", recording / "seconds.csv", "--crop", 0, 0, 64, 60, "--resize", 2, "--flipud", "--no-fliplr")
    run(tmp_path / "out", recording, *words)
    assert "--resize 2 stretches the frames by 33 %" in caplog.text


# ---- what reads it


def options(root, split, **changes):
    kind = "Train" if split == "train" else "Test"
    folders = {"dataroot_lq": layout.lq_dir(root, split), "dataroot_spike": layout.spike_dir(root, split)}
    if split == "train":
        folders["dataroot_gt"] = layout.gt_dir(root, split)
    given = {name: str(folder) for name, folder in folders.items()}
    spike = {"representation": "moment", "planes": 5}
    base = {"dataset_type": f"VideoRecurrent{kind}DatasetRGBSpike", "spike": spike, "num_frame": 2, "gt_size": 16}
    return DatasetOpt.model_validate({**base, **given, **changes})


def test_a_set_without_sharp_frames_is_tested(made):
    opt = options(made, "test")
    assert check_dataset(opt) == []
    clip = VideoTestDataset(opt)[0]
    assert (clip.has_gt, clip.has_spike, len(clip.frames)) == (False, True, FRAMES)
    assert clip.spike(0, FRAMES).shape == (FRAMES, 7, H, W)


def test_a_set_with_sharp_frames_is_trained_on(recording, tmp_path):
    words = ("--times", recording / "seconds.csv", "--sharp", recording / "frames", "--split", "train")
    root = run(tmp_path / "out", recording, *words)
    opt = options(root, "train", meta_info_file=str(layout.meta_info_path(root, "train")))
    assert check_dataset(opt) == []
    sample = define_Dataset(opt).sample(0, np.random.default_rng(0))
    assert sample["lq"].shape[-2:] == (16, 16)
    assert sample["spike"].shape[-2:] == (16 // RATIO, 16 // RATIO)


def test_a_second_clip_takes_over_what_the_set_knows(recording, tmp_path):
    words = ("--times", recording / "seconds.csv", "--rate-at-white", 0.4, "--transfer", "linear", "--margin", 10)
    root = run(tmp_path / "out", recording, *words)
    run(root, recording, "--times", recording / "seconds.csv", "--margin", 20, "--clip", "again")
    manifest = Manifest.load(layout.spike_dir(root, "test"))
    assert manifest.clips.keys() == {"walk", "again"}
    assert (manifest.rate_at_white, manifest.transfer, manifest.continuous) == (0.4, "linear", False)


def test_the_test_program_restores_a_set_without_sharp_frames(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = define_G(NetOpt(in_chans=4, **TINY))
    utils_checkpoint.write_file(net.state_dict(), tmp_path / "w.pth")
    words = ["--task", "006_SVRT_videodeblurring_GoPro_rgbspike", "--weights", "w.pth", "--tile", "2", "32", "40"]
    words += ["--tile_overlap", "0", "0", "0", "--folder_lq", str(layout.lq_dir(made, "test"))]
    words += ["--folder_spike", str(layout.spike_dir(made, "test")), "--set", *overrides(TINY)]
    main_test_vrt.main(main_test_vrt.read_job(main_test_vrt.parse_args(words)))
    assert len(list((tmp_path / "results").glob("*/walk/*.png"))) == FRAMES


# ---- fast sensors


def test_a_thousand_steps_an_exposure_are_read(tmp_path):
    steps, first = 1000, 60
    light = np.broadcast_to(textured(H, W).astype(np.float32) / 2, (steps + 2 * first, H, W))
    spikes, _ = integrate_and_fire(light, 2.0, np.random.default_rng(0))
    np.save(tmp_path / "fast.npy", spikes)
    gray = np.rint(255 * light[0]).astype(np.uint8)[..., None].repeat(3, 2)
    write_rgb(tmp_path / "frames" / "1.png", gray)
    words = ("--exposure", steps, "--fps", 10, "--start", first, "--time-unit", "steps")
    root = run(tmp_path / "out", tmp_path, *words, spikes="fast.npy")
    clip = VideoTestDataset(options(root, "test", spike={"representation": "moment"}))[0]
    middle = clip.spike(0, 1)[0, 20].numpy()  # the mean of 13 steps
    assert np.abs(middle - light[0]).mean() < 0.1
    assert np.abs(clip.spike(0, 1)[0, -2:].sum(0).numpy() - light[0]).mean() < 0.01


# ---- refusals: one line that names what is wrong

BAD_TIMES = {
    "a frame without a time": (
        "bad.csv",
        "frame,start,end\nshot_1,30,90\nshot_2,120,180\nshot_4,300,360\n",
        "no time for frame shot_3",
    ),
    "too few rows": ("bad.txt", "30 90\n120 180\n", "2 times for 4 frames; frame shot_3 is the first without a time"),
    "not ascending": ("bad.txt", "30 90\n210 270\n120 180\n300 360\n", "frame shot_3: its exposure starts at step 120"),
    "beyond the stream": (
        "bad.txt",
        "30 90\n120 180\n210 270\n353 413\n",
        "frame shot_4: .* ends 23 steps after its stream of 390",
    ),
    "before the stream": (
        "bad.txt",
        "-30 30\n120 180\n210 270\n300 360\n",
        "frame shot_1: .* begins 30 steps before its stream",
    ),
    "unequal exposures": (
        "bad.txt",
        "30 90\n120 180\n210 285\n300 360\n",
        "frame shot_3: its exposure has 75.0 steps, most frames' has 60.0",
    ),
    "no exposure": ("bad.txt", "30\n120\n210\n300\n", "frame shot_1 has one time, .* --exposure"),
    "an end before its start": ("bad.txt", "90 30\n120 180\n210 270\n300 360\n", "exposure 90 to 30"),
    "no number": ("bad.txt", "30 90\n120 x\n210 270\n300 360\n", "frame shot_2 has the time 'x'"),
    "no times": ("bad.csv", "\n", "bad.csv: is empty"),
    "two rows for a frame": ("bad.csv", "frame,start\nshot_1,1\nshot_1,2\n", "has two rows for shot_1"),
    "broken json": ("bad.json", "[[30, 90]", "bad.json: is not valid JSON"),
    "much too short": ("bad.txt", ".1 .2\n.3 .4\n.5 .6\n.7 .8\n", "0.1 steps, expected 1 or more; check --time-unit"),
}


@pytest.mark.parametrize("case", BAD_TIMES)
def test_bad_times_are_one_line(recording, tmp_path, case):
    name, text, message = BAD_TIMES[case]
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        run(tmp_path / "out", recording, "--times", tmp_path / name, "--time-unit", "steps")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


BAD_CALLS = {
    "no times": ((), "--exposure: not given, nor --times"),
    "no rate": (("--exposure", 0.003), "--fps: not given, nor --times"),
    "training without sharp frames": (("--split", "train"), "needs sharp frames"),
    "an empty range": (("--range", "9:"), "leaves none of the 4 frames"),
    "a part outside": (("--crop", 0, 0, 100, 10), "--crop: 100x10 pixels .* leave the 64x80"),
    "no whole ratio": (("--crop", 0, 0, 60, 80), "ratios, 1.875 and 2, .* --resize 1 .* such as --crop 0 2 60 75"),
    "no whole bytes": (("--spike-crop", 0, 0, 31, 39), "--spike-crop 3 0 24 39"),
    "two sources of times": (("--fps", 30), "--fps: 30 is given beside --times"),
    "an endless exposure": (
        ("--exposure", 1e308, "--fps", 30),
        "frame shot_1: its exposure, steps 0 to inf, is not finite",
    ),
    "two exposures": (("--exposure", 0.003), "frame shot_1 has its own exposure, --exposure another"),
    "a name with blanks": (("--clip", "a b"), "--clip 'a b': expected letters"),
    "a moment without times": (
        ("--fps", 222, "--exposure", 0.003, "--timestamp", "end"),
        "--timestamp end: .* --times",
    ),
    "exposures of many frames": (("--fps", 8000, "--exposure", 0.003), "exposures of 60 steps start every 2.5 steps"),
    "no sharp folder": (("--sharp", "/nowhere"), "no such folder"),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls_are_one_line(recording, tmp_path, case):
    words, message = BAD_CALLS[case]
    timed = case in (
        "no times",
        "no rate",
        "an endless exposure",
        "a moment without times",
        "exposures of many frames",
    )
    with pytest.raises(UserError, match=message) as raised:
        run(tmp_path / "out", recording, *(() if timed else ("--times", recording / "seconds.csv")), *words)
    assert "\n" not in str(raised.value)


def test_frames_that_miss_numbers_have_no_regular_times(recording, tmp_path):
    for name in ("shot_1.png", "shot_2.png", "shot_4.png"):
        write_rgb(tmp_path / "frames" / name, read_rgb(recording / "frames" / name))
    with pytest.raises(UserError, match="missing between shot_2 and shot_4"):
        run(tmp_path / "out", recording, "--fps", 222, "--exposure", 0.003, frames=tmp_path / "frames")


def test_a_dark_exposure_is_named(recording, spikes, tmp_path):
    dark = spikes.copy()
    dark[slice(*TIMES[2])] = 0
    pack(dark).tofile(tmp_path / "walk.dat")
    with pytest.raises(UserError, match="frame shot_3: no pixel fires in its exposure, steps 210 to 269"):
        run(tmp_path / "out", recording, "--times", recording / "seconds.csv", spikes=tmp_path / "walk.dat")
    assert not (tmp_path / "out" / "test_GT_blurred").exists()


def test_a_flip_in_doubt_is_refused_and_a_given_one_taken(recording, tmp_path):
    for at in range(FRAMES):
        write_rgb(tmp_path / "frames" / f"{at}.png", np.full((64, 80, 3), 100 + at, np.uint8))
    words = ("--times", recording / "steps.txt", "--time-unit", "steps")
    with pytest.raises(UserError, match="do not show which way up the spikes are .* add --flipud or --no-flipud"):
        run(tmp_path / "out", recording, *words, frames=tmp_path / "frames")
    run(tmp_path / "out", recording, *words, "--flipud", frames=tmp_path / "frames")


def test_a_given_flip_that_the_frames_contradict_is_kept_and_said(recording, tmp_path, caplog):
    run(tmp_path / "out", recording, "--times", recording / "seconds.csv", "--no-flipud", "--no-fliplr")
    assert "--no-flipud was given, but the spikes fit the frames only without it" in caplog.text
    assert "--no-fliplr" not in caplog.text


def test_a_clock_that_nobody_knows_is_asked_for(recording, tmp_path):
    words = ("--spikes", recording / "walk.dat", "--frames", recording / "frames", "--out", tmp_path / "out")
    words += ("--times", recording / "seconds.csv", "--spike_h", H, "--spike_w", W)
    args = prepare_recording.make_parser().parse_args(list(map(str, words)))
    with pytest.raises(UserError, match="--clock-hz: not given, and files of format dat do not state it"):
        prepare_recording.prepare(args)


def test_a_doubt_of_the_doctor_is_refused(recording, spikes, tmp_path):
    flat = np.random.default_rng(0).integers(0, 2, spikes.shape, dtype=np.uint8)
    pack(flat).tofile(tmp_path / "walk.dat")
    words = ("--times", recording / "seconds.csv")
    with pytest.raises(UserError, match="the bits do not show their order, .* add --bit_order little"):
        run(tmp_path / "out", recording, *words, spikes=tmp_path / "walk.dat")
    with pytest.raises(UserError, match="highest first|lowest first"):
        run(tmp_path / "out", recording, *words, "--bit_order", "big")
    pack(spikes).tofile(tmp_path / "walk.dat")
    with open(tmp_path / "walk.dat", "ab") as file:
        file.write(b"more")
    with pytest.raises(UserError, match=r"walk.dat: .*truncated|4 bytes"):
        run(tmp_path / "out", recording, *words, spikes=tmp_path / "walk.dat")
