import itertools
import multiprocessing
import os
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.codeccontext import VideoCodecContext
from golden_files import SHARED, needs_shared
from tiny_set import options
from video_files import (
    FILES,
    H264,
    INTERLACED,
    IRREGULAR,
    PAUSES,
    SIZE,
    coded,
    in_order,
    make_video,
    number_of,
    packets,
    write_planes,
)

from data.check import check_dataset
from data.clip_index import existing_folder, scan_clips
from data.dataset_video_test import VideoTestDataset
from data.frame_store import FrameStore
from data.video import frames as video_frames
from data.video.frames import VideoFrames
from data.video.index import index_of
from utils import utils_video
from utils.report import results_folder
from utils.utils_dist import Dist
from utils.utils_error import UserError
from utils.utils_image import write_rgb
from utils.utils_video import Playback, write_video

BIKES = SHARED / "data" / "bikes.mp4"


def name(number):
    return f"{number:06d}"


def fates(frames, truth, order):
    """What reading each frame gave: "." the right picture, "X" another one, "E" a UserError; and the first error."""
    found, errors = dict.fromkeys(order, "?"), []
    for number in order:
        try:
            found[number] = ".X"[not np.array_equal(frames.read("v", name(number)), truth[number])]
        except UserError as error:
            found[number] = "E"
            errors.append(str(error))
    return "".join(found[number] for number in sorted(found)), errors


@pytest.fixture
def small_ring(monkeypatch):
    monkeypatch.setattr(video_frames, "KEPT_FRAMES", 3)
    monkeypatch.setattr(video_frames, "KEPT_LEAST", 1)


# Reading


@pytest.mark.parametrize("file", FILES)
def test_any_order_gives_the_frames_of_the_usual_order(tmp_path, small_ring, file):
    path = make_video(tmp_path / file, **FILES[file])
    truth, frames = in_order(path), VideoFrames(path)
    assert [number_of(image) for image in truth] == list(range(30))
    assert frames.names("v") == {name(number) for number in range(30)}
    assert frames.size("v", "000000") == truth[0].shape[:2]
    mixed = np.random.default_rng(0).permutation(30).tolist()
    for order in (mixed, range(30), range(29, -1, -1), (29, 0, 28, 1)):
        assert set(fates(frames, truth, order)[0]) == {"."}


@needs_shared("data/bikes.mp4")
def test_a_recorded_video_is_read_alike_in_any_order(small_ring):
    truth, frames = in_order(BIKES), FrameStore(BIKES, "png")
    assert list(scan_clips(BIKES, "png").items()) == [("bikes", tuple(map(name, range(250))))]
    assert truth[0].shape == (272, 640, 3)
    for number in (249, 3, 120, 119, 118, 121, 0, 200, 17):
        assert np.array_equal(frames.read("bikes", name(number)), truth[number])


def test_windows_are_decoded_once_and_few_frames_are_kept(tmp_path, monkeypatch):
    decoded = []
    real = video_frames.Decoder._keep
    monkeypatch.setattr(video_frames, "KEPT_FRAMES", 12)
    monkeypatch.setattr(video_frames.Decoder, "_keep", lambda *a: (decoded.append(a[1]), real(*a)))
    frames = VideoFrames(make_video(tmp_path / "v.mp4", frames=100))
    for start in range(0, 96, 6):
        for number in (*range(start, min(start + 9, 100)), *range(start, start + 6)):
            frames.read("v", name(number))
            assert len(frames._decoder.kept) <= 12
    assert decoded == list(range(99))


def test_frames_that_a_file_says_not_to_show_do_not_count(tmp_path, small_ring):
    with av.open(str(tmp_path / "v.mp4"), "w") as container:
        stream = container.add_stream("libx264", 25, options=H264)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for number in range(30):
            frame = av.VideoFrame.from_ndarray(coded(number), "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number - 13, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frames = VideoFrames(tmp_path / "v.mp4")
    assert frames.names("v") == set(map(name, range(17)))
    for order in (range(17), range(16, -1, -1)):
        assert [number_of(frames.read("v", name(number))) for number in order] == [13 + number for number in order]


def test_large_frames_are_kept_by_their_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(video_frames, "KEPT_BYTES", 10 * 48 * 64 * 3)
    frames = VideoFrames(make_video(tmp_path / "v.mp4"))
    for number in range(30):
        frames.read("v", name(number))
    assert list(frames._decoder.kept) == list(range(20, 30))


def test_far_ahead_is_reached_by_a_jump(tmp_path, monkeypatch):
    frames = VideoFrames(make_video(tmp_path / "v.mp4", frames=100))
    frames.read("v", name(0))
    taken = []
    real = video_frames.Decoder._step
    monkeypatch.setattr(video_frames.Decoder, "_step", lambda *a: (taken.append(1), real(*a)))
    assert number_of(frames.read("v", name(95))) == 95
    assert len(taken) < 15


def matrix(image, kr, kb, full, bits):
    """Y, Cb, Cr of (H, W, 3) uint8, RGB, by the formulas of BT.601, BT.709 and BT.2020."""
    red, green, blue = (image[..., channel] / 255 for channel in range(3))
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    chroma = [(blue - luma) / 2 / (1 - kb), (red - luma) / 2 / (1 - kr)]
    top, step = 2**bits - 1, 2 ** (bits - 8)
    black, white, swing = (0, top, top) if full else (16 * step, 219 * step, 224 * step)
    planes = [black + white * luma, *(128 * step + swing * plane for plane in chroma)]
    return [np.clip(np.rint(plane), 0, top).astype(np.uint8 if bits == 8 else np.uint16) for plane in planes]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("colorspace", "kr", "kb"),
    [(6, 0.299, 0.114), (1, 0.2126, 0.0722), (9, 0.2627, 0.0593)],
    ids=["601", "709", "2020"],
)
@pytest.mark.parametrize(
    ("codec", "pix_fmt", "bits"),
    [("ffv1", "yuv420p", 8), ("libx264", "yuv420p", 8), ("ffv1", "yuv444p", 8), ("ffv1", "yuv420p10le", 10)],
)
def test_colours_are_those_that_matrix_and_range_say(tmp_path, codec, pix_fmt, bits, colorspace, kr, kb, full):
    patches = [(200, 30, 40), (20, 180, 60), (30, 40, 220), (128, 128, 128), (255, 255, 255), (0, 0, 0), (230, 220, 30)]
    image = np.repeat(np.repeat(np.array([patches], np.uint8), 32, 0), 16, 1)
    planes = matrix(image, kr, kb, full, bits)
    if "420" in pix_fmt:
        planes[1:] = [np.ascontiguousarray(plane[::2, ::2]) for plane in planes[1:]]
    path = write_planes(tmp_path / "v.mkv", planes, codec, pix_fmt, colorspace, 2 if full else 1)
    found = VideoFrames(path).read("v", "000001").astype(int)
    middles = [16 * patch + 8 for patch in range(len(patches))]
    assert np.abs(found - image)[8:-8, middles].max() <= 2
    assert abs((found - image)[8:-8, middles].mean()) < 0.5


def test_palettes_are_looked_up(tmp_path):
    rng = np.random.default_rng(0)
    palette, indices = rng.integers(256, size=(256, 4), dtype=np.uint8), rng.integers(256, size=SIZE, dtype=np.uint8)
    palette[:, 0] = 255  # alpha
    with av.open(str(tmp_path / "v.mov"), "w") as container:
        stream = container.add_stream("png", 25)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "pal8"
        container.mux(stream.encode(av.VideoFrame.from_ndarray((indices, palette), "pal8")))
        container.mux(stream.encode())
    assert np.array_equal(VideoFrames(tmp_path / "v.mov").read("v", "000000"), palette[indices][..., 1:])


@pytest.mark.skipif(
    not hasattr(av.video.stream.VideoStream, "set_display_rotation"), reason="this PyAV writes no display matrix"
)
@pytest.mark.parametrize("turn", [90, 180, -90])
def test_a_turned_phone_gives_upright_frames(tmp_path, turn):
    frames = VideoFrames(make_video(tmp_path / "v.mp4", frames=5, turn=turn))
    image = frames.read("v", "000003")
    assert image.shape[:2] == frames.size("v", "000003")
    assert np.abs(image.astype(int) - np.rot90(coded(3), turn // 90)).mean() < 4


def playback(path, frames=None):
    video = VideoFrames(path)
    return video.playback(path.stem, sorted(video.names(path.stem)) if frames is None else frames)


def test_rate_times_and_pixel_shape_are_the_files(tmp_path):
    steady = playback(make_video(tmp_path / "v.mp4", context={"sample_aspect_ratio": Fraction(64, 45)}))
    assert (steady.rate, steady.pixel_aspect) == (25, Fraction(64, 45))
    assert steady.times == tuple(Fraction(number, 25) for number in range(30))
    for file in ("irregular.mp4", "irregular.mkv", "pauses.avi"):
        path = make_video(tmp_path / file, **FILES[file])
        assert playback(path).times == tuple(Fraction(time, 100) for time in FILES[file]["times"])
        some = playback(path, ["000004", "000005", "000009"]).times
        assert some == tuple(
            Fraction(FILES[file]["times"][number] - FILES[file]["times"][4], 100) for number in (4, 5, 9)
        )
    assert playback(make_video(tmp_path / "no_times.avi")).times is None
    write_rgb(tmp_path / "i/000000.png", coded(0))
    assert FrameStore(tmp_path / "i", "png").playback("i", ["000000"]) == Playback()


def test_times_that_a_file_rounds_are_equal_steps(tmp_path):
    write_video(tmp_path / "v.mkv", [coded(number) for number in range(9)], Fraction(24000, 1001), "lossless")
    assert playback(tmp_path / "v.mkv").times == tuple(number * Fraction(1001, 24000) for number in range(9))


@pytest.mark.skipif(
    not hasattr(av.video.stream.VideoStream, "set_display_rotation"), reason="this PyAV writes no display matrix"
)
@pytest.mark.parametrize(("turn", "aspect"), [(90, Fraction(45, 64)), (180, Fraction(64, 45))])
def test_the_shape_of_pixels_turns_with_them(tmp_path, turn, aspect):
    context = {"sample_aspect_ratio": Fraction(64, 45)}
    assert playback(make_video(tmp_path / "v.mp4", frames=3, turn=turn, context=context)).pixel_aspect == aspect


# What is no plain picture of light

# Without B-frames: of two frames the encoder sometimes gave times that MP4 refuses.
HDR = {"codec": "libx265", "pix_fmt": "yuv420p10le", "options": {"x265-params": "log-level=none:bframes=0"}}
TOP_FIRST = r" \(top field first\)" if hasattr(VideoCodecContext, "field_order") else ""  # older PyAV knows no order
DOUBTFUL = {
    "pq.mp4": ({**HDR, "context": {"color_trc": 16, "color_primaries": 9, "colorspace": 9}}, r"is HDR \(PQ, BT.2020\)"),
    "hlg.mkv": ({"context": {"color_trc": 18, "color_primaries": 9}}, r"is HDR \(HLG, BT.2020\)"),
    "log.mp4": ({"context": {"color_trc": 9}}, r"has another tone curve \(logarithmic\)"),
    "p3.mp4": ({"context": {"color_trc": 13, "color_primaries": 12}}, "has colours of Display P3"),
    "tff.mp4": (INTERLACED["tff.mp4"], "is interlaced" + TOP_FIRST),
    "bff.mp4": (INTERLACED["bff.mp4"], "is interlaced" + TOP_FIRST.replace("top", "bottom")),
    "dvd.mkv": (INTERLACED["dvd.mkv"], "is interlaced" + TOP_FIRST),
}


@pytest.mark.parametrize("file", DOUBTFUL)
def test_what_is_no_plain_picture_is_said_once_with_a_way_out(tmp_path, heard, file):
    making, line = DOUBTFUL[file]
    path = make_video(tmp_path / file, frames=5, **making)
    for frames in (VideoFrames(path), VideoFrames(path)):
        for number in range(5):
            frames.read(path.stem, name(number))
    assert (
        len(re.findall(rf"{file} {line}.*; better (convert|deinterlace) it first: ffmpeg -i {file}", heard.text)) == 1
    )
    assert heard.text.count("WARNING") == 1


@pytest.mark.parametrize("file", [file for file in DOUBTFUL if file != "p3.mp4"])
def test_what_shows_no_light_is_refused_where_light_is_wanted(tmp_path, heard, file):
    making, line = DOUBTFUL[file]
    path = make_video(tmp_path / file, frames=2, **making)
    with pytest.raises(UserError, match=f"clip {path.stem}: .*{file} {line}.*; (convert|deinterlace) it first"):
        VideoFrames(path, as_light=True).names(path.stem)
    assert not heard.text


@pytest.mark.parametrize("matrix", [8, 10, 14])
def test_colours_that_cannot_be_converted_are_refused_before_work(tmp_path, matrix):
    path = make_video(tmp_path / "v.mkv", frames=2, context={"colorspace": matrix})
    with pytest.raises(
        UserError, match=r"clip v: .*v.mkv has colours in .* cannot convert to RGB; convert it first: ffmpeg"
    ):
        VideoFrames(path).size("v", name(0))


def test_progressive_frames_in_an_interlaced_stream_are_plain(tmp_path, heard):
    path = make_video(tmp_path / "v.mp4", frames=3, options={"x264-params": "fake-interlaced=1"})
    VideoFrames(path, as_light=True).read("v", name(2))
    assert not heard.text


def test_interlaced_frames_after_plain_ones_are_found_when_read(tmp_path, monkeypatch, heard):
    path = make_video(tmp_path / "v.mp4", frames=3, **INTERLACED["tff.mp4"])
    plain = replace(index_of("v", path), doubts=())  # what the index of such a file is: it looks at the first frame
    monkeypatch.setattr(video_frames, "index_of", lambda clip, path: plain)
    for number in range(3):
        VideoFrames(path).read("v", name(number))
    assert len(re.findall("is interlaced" + TOP_FIRST, heard.text)) == 1
    with pytest.raises(UserError, match="clip v: .*is interlaced"):
        VideoFrames(path, as_light=True).read("v", name(0))


def test_pickled_forked_and_shared_by_threads(tmp_path):
    path = make_video(tmp_path / "v.mp4")
    truth, frames = in_order(path), FrameStore(path, "png")
    frames.read("v", name(7))
    with multiprocessing.get_context("fork").Pool(2, _take, (frames,)) as pool:
        for number, image in zip(range(30), pool.map(_read, range(30)), strict=True):
            assert np.array_equal(image, truth[number])
    assert np.array_equal(frames.read("v", name(8)), truth[8])
    assert np.array_equal(pickle.loads(pickle.dumps(frames)).read("v", name(9)), truth[9])  # noqa: S301
    with ThreadPoolExecutor(4) as pool:
        read = pool.map(lambda number: frames.read("v", name(number)), range(30))
        assert all(np.array_equal(image, truth[number]) for number, image in enumerate(read))


def _take(frames):
    globals()["taken"] = frames


def _read(number):
    return globals()["taken"].read("v", name(number))


def test_a_changed_file_is_looked_at_anew(tmp_path):
    path = make_video(tmp_path / "v.mp4")
    assert len(VideoFrames(path).names("v")) == 30
    make_video(path, frames=12)
    assert len(VideoFrames(path).names("v")) == 12


# Damage


@pytest.mark.parametrize("between_frames", [False, True])
@pytest.mark.parametrize(
    "file", ["b_frames.mp4", "b_frames.mkv", "no_times.avi", "intra.avi", "odd.mkv", "hidden.webm"]
)
def test_a_file_that_ends_too_early_is_refused(tmp_path, file, between_frames):
    path = make_video(tmp_path / file, **FILES[file])
    at, size = packets(path)[20]
    path.write_bytes(path.read_bytes()[: at if between_frames else at + size // 2])
    with pytest.raises(UserError, match=rf"clip v frame 0000(1[6-9]|2\d): .*{file} is truncated"):
        VideoFrames(path).names("v")


@pytest.mark.parametrize("damage", ["zeros", "noise"])
@pytest.mark.parametrize("file", ["b_frames.mp4", "intra.avi", "no_times.avi", "open_gop.mp4"])
def test_damage_is_an_error_until_the_next_key_frame(tmp_path, small_ring, file, damage):
    path = make_video(tmp_path / file, **FILES[file])
    truth = in_order(path)
    at, size = packets(path)[14]
    spoilt = bytearray(path.read_bytes())
    if damage == "zeros":
        spoilt[at : at + size] = bytes(size)
    else:
        spoilt[at + size // 3 : at + size] = np.random.default_rng(0).bytes(size - size // 3)
    path.write_bytes(spoilt)
    found, errors = fates(VideoFrames(path), truth, range(30))
    first, last = found.index("E"), found.rindex("E")
    assert 10 <= first <= 14
    assert set(found[:first]) | set(found[last + 1 :]) <= {"."}
    assert set(found[first : last + 1]) == {"E"}
    assert last < 20 or file == "no_times.avi"
    assert errors[0].startswith(f"clip v frame {name(first)}: {path} cannot be decoded there (")
    mixed = np.random.default_rng(1).permutation(30).tolist()
    assert fates(VideoFrames(path), truth, mixed)[0] == found


def test_check_sums_of_lossless_videos_are_looked_at(tmp_path):
    path = tmp_path / "v.mkv"
    write_video(path, [coded(number) for number in range(10)], 25, "lossless")
    at, size = packets(path)[6]
    spoilt = bytearray(path.read_bytes())
    spoilt[at + size // 2] ^= 1
    path.write_bytes(spoilt)
    with pytest.raises(UserError, match=r"clip v frame 000006: .*v.mkv is truncated or damaged there"):
        VideoFrames(path).read("v", "000000")


def test_a_gap_is_spoken_of(tmp_path, heard):
    path = make_video(tmp_path / "v.mkv", times=[*range(0, 60, 4), *range(120, 180, 4)])
    assert len(VideoFrames(path).names("v")) == 30
    assert "0.64 s between frames 000014 and 000015, usually 0.04 s; are frames missing there?" in heard.text


@pytest.mark.parametrize("content", [b"", b"# frames of the clip\n" * 40])
def test_what_is_no_video_is_named(tmp_path, content):
    (tmp_path / "v.mp4").write_bytes(content)
    with pytest.raises(UserError, match=rf"clip v: .*v.mp4 is not a readable video .*; {len(content)} bytes\)"):
        scan_clips(tmp_path / "v.mp4", "png")


def test_sound_alone_is_no_clip(tmp_path):
    with av.open(str(tmp_path / "v.mp4"), "w") as container:
        stream = container.add_stream("aac", 48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        frame.sample_rate = 48000
        stream.layout = "mono"
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(UserError, match=r"clip v: .*v.mp4 has no pictures"):
        scan_clips(tmp_path / "v.mp4", "png")


@pytest.mark.parametrize("frame", ["000030", "x", "-1"])
def test_a_frame_that_is_not_there_is_named(tmp_path, frame):
    path = make_video(tmp_path / "v.mp4")
    with pytest.raises(UserError, match=f"clip v frame {frame}: .* expected 000000 to 000029"):
        VideoFrames(path).read("v", frame)


# Which clips


def test_videos_and_frames_at_one_place_are_an_error_that_names_both(tmp_path):
    make_video(tmp_path / "a.mp4", frames=3)
    write_rgb(tmp_path / "000000.png", coded(0))
    for look in (scan_clips, FrameStore):
        with pytest.raises(UserError, match=r"holds videos \(a.mp4\) and frames \(000000.png\)"):
            look(tmp_path, "png")


@pytest.mark.parametrize("clip", ["clip_b", "00001/0001"])
def test_a_video_beside_clip_folders_is_no_clip_and_is_named(tmp_path, heard, clip):
    make_video(tmp_path / "comparison.MP4", frames=3)
    write_rgb(tmp_path / clip / "000000.png", coded(0))
    assert scan_clips(tmp_path, "png") == {clip: ("000000",)}
    assert FrameStore(tmp_path, "png").has(clip, "000000")
    assert "left out: comparison.MP4 (a video beside clip folders)" in heard.text


def test_folders_of_other_images_beside_videos_are_named(tmp_path, heard):
    make_video(tmp_path / "a.mp4", frames=3)
    write_rgb(tmp_path / "clip_b/000000.jpg", coded(0))
    assert list(scan_clips(tmp_path, "png")) == ["a"]
    assert "its videos are the clips; left out: clip_b (not *.png)" in heard.text


def test_two_videos_of_one_name_are_an_error(tmp_path):
    for file in ("a.mp4", "a.mkv"):
        make_video(tmp_path / file, frames=3)
    with pytest.raises(UserError, match=r"a.mkv and a.mp4 would both be clip a"):
        scan_clips(tmp_path, "png")


def test_hidden_files_are_no_videos(tmp_path):
    (tmp_path / "._a.mp4").write_bytes(b"what a Mac leaves")
    with pytest.raises(UserError, match="no clip folders"):
        scan_clips(tmp_path, "png")
    write_rgb(tmp_path / "000000.png", coded(0))
    assert list(scan_clips(tmp_path, "png").values()) == [("000000",)]
    (tmp_path / "000000.png").unlink()
    make_video(tmp_path / "a.mp4", frames=3)
    assert list(scan_clips(tmp_path, "png")) == VideoFrames(tmp_path).clips() == ["a"]


@pytest.mark.parametrize("others", [["a.mp4"], []])
def test_a_link_that_leads_nowhere_is_named(tmp_path, others):
    for file in others:
        make_video(tmp_path / file, frames=3)
    (tmp_path / "b.mp4").symlink_to(tmp_path / "gone.mp4")
    for look in (scan_clips, FrameStore):
        with pytest.raises(UserError, match=r"b.mp4: is a broken link"):
            look(tmp_path, "png")


def test_a_video_is_a_root(tmp_path):
    path = make_video(tmp_path / "a.MP4", frames=3)
    assert existing_folder(path, "--folder_lq") == path
    assert scan_clips(path, "png", "03d") == {"a": ("000", "001", "002")}
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(
        UserError, match="--folder_lq: .*a.txt is not a folder or video; .* give the folder that holds it"
    ):
        existing_folder(tmp_path / "a.txt", "--folder_lq")


def test_folders_of_videos_are_a_test_set(tmp_path):
    for kind, clip in itertools.product(("lq", "gt"), ("one", "two")):
        (tmp_path / kind).mkdir(exist_ok=True)
        make_video(tmp_path / kind / f"{clip}.{'mp4' if kind == 'lq' else 'mkv'}", frames=12 if clip == "one" else 7)
    opt = options(tmp_path, kind="Test", spikes=False)
    clips = list(VideoTestDataset(opt))
    assert [(clip.name, len(clip.frames)) for clip in clips] == [("one", 12), ("two", 7)]
    assert clips[1].playback.rate == 25
    truth = in_order(tmp_path / "lq/one.mp4")
    lq, gt = clips[0].lq(3, 9), clips[0].gt(3, 9)
    assert np.array_equal(np.round(lq[4].numpy().transpose(1, 2, 0) * 255), truth[7])
    assert [number_of(image) for image in gt] == list(range(3, 9))
    assert check_dataset(opt) == []
    (tmp_path / "gt/two.mkv").unlink()
    with pytest.raises(UserError, match=r"clip two: .*gt has no video two"):
        VideoTestDataset(opt)


def test_frames_that_a_partner_lacks_are_named(tmp_path):
    for kind, frames in (("lq", 9), ("gt", 7)):
        make_video(tmp_path / f"{kind}.mp4", frames=frames)
    opt = options(tmp_path, kind="Test", spikes=False, dataroot_lq=str(tmp_path / "lq.mp4"))
    with pytest.raises(
        UserError, match=r"clip lq frame 000007: missing in .*gt.mp4 \(found 7 frames, .*, expected 9\)"
    ):
        VideoTestDataset(opt.model_copy(update={"dataroot_gt": str(tmp_path / "gt.mp4")}))


def test_a_video_pairs_with_sharp_images(tmp_path):
    (tmp_path / "lq").mkdir()
    make_video(tmp_path / "lq/one.mp4", frames=5)
    for number in range(5):
        write_rgb(tmp_path / f"gt/one/{name(number)}.png", coded(number))
    clip = VideoTestDataset(options(tmp_path, kind="Test", spikes=False))[0]
    difference = np.round(clip.lq(0, 5).numpy().transpose(0, 2, 3, 1) * 255) - clip.gt(0, 5)
    assert np.abs(difference).mean() < 4


# Writing


@pytest.mark.parametrize("size", [SIZE, (47, 63), (7, 9), (33, 130)])
def test_lossless_gives_back_every_byte(tmp_path, size):
    images = [np.random.default_rng(seed).integers(256, size=(*size, 3), dtype=np.uint8) for seed in range(4)]
    write_video(tmp_path / "v.mkv", iter(images), Fraction(24000, 1001), "lossless")
    frames = VideoFrames(tmp_path / "v.mkv")
    assert all(np.array_equal(frames.read("v", name(number)), image) for number, image in enumerate(images))
    assert playback(tmp_path / "v.mkv").rate == Fraction(24000, 1001)


def test_h264_shows_what_went_in_and_says_how(tmp_path, heard):
    images = [coded(number, (47, 63)) for number in range(12)]
    write_video(tmp_path / "v.mp4", iter(images), Fraction(30000, 1001))
    frames = VideoFrames(tmp_path / "v.mp4")
    assert frames.size("v", "000000") == (48, 64)
    assert playback(tmp_path / "v.mp4").rate == Fraction(30000, 1001)
    for number, image in enumerate(images):
        found = frames.read("v", name(number)).astype(int)
        assert np.abs(found[:47, :63] - image).mean() < 4
        assert np.abs(found[47] - found[46]).mean() < 12
    assert heard.text.count("its last row or column is repeated") == 1
    with av.open(str(tmp_path / "v.mp4")) as container:
        context = container.streams.video[0].codec_context
        tags = context.colorspace, context.color_primaries, context.color_trc, context.color_range
        assert (context.name, context.pix_fmt, *map(int, tags)) == ("h264", "yuv420p", 1, 1, 1, 1)
    content = (tmp_path / "v.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


RECORDED = {
    "irregular.mp4": FILES["irregular.mp4"],
    "irregular.mkv": FILES["irregular.mkv"],
    "pauses.avi": FILES["pauses.avi"],
    "late.mp4": {"times": [time + 50 for time in IRREGULAR]},
    "steady.mp4": {},
    "wide.mp4": {"context": {"sample_aspect_ratio": Fraction(64, 45)}, "times": PAUSES},
}


@pytest.mark.parametrize("file", RECORDED)
def test_a_restored_video_has_the_times_and_the_pixel_shape_of_its_source(tmp_path, heard, file):
    (tmp_path / "lq").mkdir()
    path = make_video(tmp_path / "lq" / file, frames=12, **RECORDED[file])
    clips = VideoTestDataset(options(tmp_path, kind="Test", spikes=False, dataroot_gt=None))
    for index in range(12):
        write_rgb(results_folder.frame_path(tmp_path / "out", clips[0], index), coded(index))
    results_folder.write_videos(tmp_path / "out", clips, ["h264", "lossless"], Dist())
    source = playback(path)
    for suffix, slack in ((".mp4", 0), (".mkv", Fraction(1, 2000))):
        shown = playback(tmp_path / "out" / f"{path.stem}{suffix}")
        assert max(abs(time - truth) for time, truth in zip(shown.times, source.times, strict=True)) <= slack
        assert shown.pixel_aspect == (source.pixel_aspect if suffix == ".mp4" else 1)
    said = ".mkv: PyAV cannot write its pixel shape 64:45" in heard.text
    assert said == ("--set display-width=91 --set display-height=48" in heard.text) == (source.pixel_aspect != 1)


@pytest.mark.parametrize("codec", ["h264", "lossless"])
def test_times_of_any_unit_are_written(tmp_path, codec):
    file = tmp_path / ("v.mp4" if codec == "h264" else "v.mkv")
    for times in ([0, Fraction(1, 7), Fraction(2, 3), Fraction(355, 113)], [Fraction(5, 2)]):
        write_video(file, [coded(number) for number in range(len(times))], 25, codec, times=times)
        found = playback(file).times
        assert max(abs(a - b) for a, b in zip(found, times, strict=True)) <= Fraction(1, 2000)


def test_frames_halfway_are_shown_halfway():
    recorded = Playback(Fraction(10), tuple(map(Fraction, (1, 2, 4, 5, 9))))
    assert recorded.between(1, 3).times == (1, Fraction(5, 2), 5)
    assert recorded.between(0, 4).times == (1, Fraction(5, 2), 4, Fraction(13, 2))
    assert Playback().between(0, 3) == Playback().part([2]) == Playback()


def test_h264_keeps_colours(tmp_path):
    patches = np.array([[(200, 30, 40), (20, 180, 60), (30, 40, 220), (255, 255, 255), (0, 0, 0)]], np.uint8)
    image = np.repeat(np.repeat(patches, 32, 0), 16, 1)
    write_video(tmp_path / "v.mp4", [image] * 3)
    found = VideoFrames(tmp_path / "v.mp4").read("v", "000001").astype(int)
    assert np.abs(found - image)[8:-8, 8::16].max() <= 2


@pytest.mark.parametrize(("file", "codec"), [("v.mp4", "h264"), ("v.mkv", "lossless")])
def test_what_fails_leaves_the_file_as_it_was(tmp_path, file, codec):
    def images():
        yield coded(0)
        raise KeyError("the next one")

    (tmp_path / file).write_bytes(b"before")
    with pytest.raises(KeyError, match="the next one"):
        write_video(tmp_path / file, images(), 25, codec)
    with pytest.raises(UserError, match="no images to write"):
        write_video(tmp_path / file, iter([]), 25, codec)
    assert os.listdir(tmp_path) == [file]
    assert (tmp_path / file).read_bytes() == b"before"


def test_images_are_taken_one_at_a_time(tmp_path):
    alive = []

    class Image(np.ndarray):
        def __del__(self):
            alive.remove(id(self))

    def images():
        for number in range(40):
            image = coded(number).view(Image)
            alive.append(id(image))
            yield image
            del image
            assert len(alive) < 6

    write_video(tmp_path / "v.mkv", images(), 25, "lossless")


def test_lossless_takes_one_size(tmp_path):
    with pytest.raises(UserError, match="has 5x64 pixels, expected 48x64"):
        write_video(tmp_path / "v.mkv", [coded(0), coded(1)[:5]], 25, "lossless")


def test_a_missing_encoder_is_named_with_a_way_out(tmp_path, monkeypatch):
    monkeypatch.setitem(utils_video.CODECS, "h264", utils_video.CODECS["h264"]._replace(encoder="libnowhere"))
    with pytest.raises(UserError, match=r"h264: this PyAV .* has no encoder libnowhere; .*or write lossless or png"):
        write_video(tmp_path / "v.mp4", [coded(0)])
    assert not os.listdir(tmp_path)


def test_an_index_tells_key_frames(tmp_path):
    index = index_of("v", make_video(tmp_path / "v.mp4", options=H264))
    assert index.places[0].number == 0
    assert index.place_before(9).number == 0
    assert index.place_before(15).number == index.next_key(5) == 10
    assert index.next_key(29) in (29, 30)
