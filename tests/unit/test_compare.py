import json
import math

import numpy as np
import pytest
from html_page import Page

from scripts import compare
from utils import utils_eval, utils_image
from utils.report import metric_files, run_comparison
from utils.utils_error import UserError

A = {"a": [30.0, 31.0, 32.0], "b": [25.0, 27.0], "c": [40.0]}
GAINS = {"a": [1.0, 2.0, 3.0], "b": [0.0, 1.0], "c": [-1.0]}
B = {clip: [value + gain for value, gain in zip(values, GAINS[clip], strict=True)] for clip, values in A.items()}


def write(folder, clips, metric="psnr", **more):
    rows = [
        {"clip": clip, "frame": f"{index:06d}", metric: value, "ssim": 0.5}
        for clip, values in clips.items()
        for index, value in enumerate(values)
    ]
    metric_files.write_metrics({**utils_eval.summarize(rows), **more}, folder)
    return folder


@pytest.fixture
def runs(tmp_path):
    return write(tmp_path / "one", A), write(tmp_path / "two", B)


def run(capsys, *words):
    """Exit code, stdout and stderr of the script."""
    code = 0
    try:
        compare.main([str(word) for word in words])
    except SystemExit as end:
        code = end.code
    return code, *capsys.readouterr()


def summary_of(a, b, metric="psnr", common=False):
    read = [run_comparison.read_run(folder, metric) for folder in (a, b)]
    pairs = run_comparison.paired(*read, common)
    return pairs, run_comparison.summarize(pairs, metric)


def test_differences_are_those_of_clip_means(runs):
    pairs, summary = summary_of(*runs)
    assert [pair.means for pair in pairs] == [(31, 33, 2), (26, 26.5, 0.5), (40, 39, -1)]
    content = [json.loads((folder / "metrics.json").read_text()) for folder in runs]
    assert (summary.a, summary.b) == pytest.approx([one["mean"]["psnr"] for one in content])
    assert summary.gain == pytest.approx(0.5)
    assert (summary.clips, summary.frames, summary.left_out) == (3, 6, 0)
    assert (summary.better_clips, summary.better_frames) == (2, 4)


def test_interval_is_students_of_the_clips(runs):
    _, summary = summary_of(*runs)
    # Differences 2, 0.5, -1: their deviation is 1.5, and Student's t of 2 degrees of freedom 4.302653 at 97.5%.
    reach = 4.302653 * 1.5 / math.sqrt(3)
    assert summary.student == pytest.approx((0.5 - reach, 0.5 + reach), rel=1e-6)


def test_bootstrap_knows_both_spreads_and_repeats_itself():
    random = np.random.default_rng(3)
    between, within, count = 0.5, 2.0, 8
    clips = [random.normal(random.normal(0, between), within, count) for _ in range(60)]
    low, high = run_comparison.bootstrap_interval(clips)
    means = np.array([clip.mean() for clip in clips])
    deviation = math.sqrt((means.var() + np.mean([clip.var() for clip in clips]) / count) / 60)
    assert (high - low) / 2 == pytest.approx(1.96 * deviation, rel=0.03)
    assert low < means.mean() < high
    assert run_comparison.bootstrap_interval(clips) == (low, high)


def test_bootstrap_in_parts_is_the_same(monkeypatch):
    clips = [np.arange(7.0), np.arange(3.0) - 1]
    whole = run_comparison.bootstrap_interval(clips)
    monkeypatch.setattr(run_comparison, "AT_ONCE", 50)
    assert run_comparison.bootstrap_interval(clips) == pytest.approx(whole, abs=0.1)


def test_a_run_does_not_differ_from_itself(runs, capsys):
    _, summary = summary_of(runs[0], runs[0])
    assert (summary.gain, summary.student, summary.bootstrap) == (0, (0, 0), (0, 0))
    code, out, _ = run(capsys, runs[0], runs[0])
    assert code == 0
    assert "no difference is shown" in out


def test_one_clip_has_no_interval_and_it_says_why(tmp_path, capsys):
    folders = write(tmp_path / "one", {"a": A["a"]}), write(tmp_path / "two", {"a": B["a"]})
    _, summary = summary_of(*folders)
    assert (summary.gain, summary.student, summary.bootstrap) == (2, None, None)
    code, out, _ = run(capsys, *folders)
    assert code == 0
    assert "no interval: with one clip" in out


def test_table_and_page_are_written(runs, capsys):
    code, out, _ = run(capsys, *runs)
    lines = [line.split() for line in out.splitlines()]
    assert code == 0
    assert ["a", "31.00", "33.00", "+2.000"] in lines
    assert ["mean", "32.33", "32.83", "+0.500"] in lines
    assert "3 clips" in out
    assert f"page: {runs[1] / 'compare.html'}" in out
    page = Page((runs[1] / "compare.html").read_text())
    assert page.rows[1:] == [
        ["a", "3", "31.00", "33.00", "+2.000"],
        ["b", "2", "26.00", "26.50", "+0.500"],
        ["c", "1", "40.00", "39.00", "-1.000"],
        ["mean", "6", "32.33", "32.83", "+0.500"],
    ]
    assert page.tags.count("svg") == 3
    assert page.tags.count("img") == 0
    page.assert_alone()


def test_page_goes_where_it_is_wanted(runs, tmp_path, capsys):
    assert run(capsys, *runs, "--out", tmp_path / "new" / "x.html")[0] == 0
    assert (tmp_path / "new" / "x.html").is_file()
    assert not (runs[1] / "compare.html").exists()
    code, _, err = run(capsys, *runs, "--out", tmp_path)
    assert code == 2
    assert "--out" in err


def test_lower_may_be_better(tmp_path):
    folders = write(tmp_path / "one", A, "tof"), write(tmp_path / "two", B, "tof")
    _, summary = summary_of(*folders, "tof")
    assert (summary.better_clips, summary.better_frames) == (1, 1)
    assert [compare.tone(gain, "tof") for gain in (-1, 0, 1, math.nan)] == ["good", "", "bad", ""]
    assert [compare.tone(gain, "lq_psnr") for gain in (-1, 0.0001, 1)] == ["bad", "", "good"]


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(
    ("other", "named", "counts"),
    [
        ({"a": B["a"], "b": B["b"]}, "clip c", "3 and 2 clips"),
        ({**B, "a": B["a"][:2]}, "clip a frame 000002", "6 and 5 frames"),
    ],
)
def test_other_frames_are_refused_unless_common_ones_are_asked_for(tmp_path, capsys, other, named, counts, swapped):
    one, two = write(tmp_path / "one", A), write(tmp_path / "two", other)
    folders = (two, one) if swapped else (one, two)
    code, out, err = run(capsys, *folders)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"{two} lacks {named}" in err
    assert counts in err
    assert f"--common compares the {sum(map(len, other.values()))} frames of {len(other)} clips" in err
    code, out, _ = run(capsys, *folders, "--common")
    assert code == 0
    assert f"{sum(map(len, other.values()))} frames" in out


def test_common_compares_what_both_have(tmp_path):
    one, two = write(tmp_path / "one", A), write(tmp_path / "two", {"b": [26.0, 28.0, 99.0], "d": [1.0]})
    pairs, summary = summary_of(one, two, common=True)
    assert [(pair.clip, pair.frames) for pair in pairs] == [("b", ("000000", "000001"))]
    assert summary.gain == 1


def test_nothing_in_common_is_refused_even_so(tmp_path):
    folders = write(tmp_path / "one", {"a": [1.0]}), write(tmp_path / "two", {"b": [1.0]})
    with pytest.raises(UserError, match="no frame is in both"):
        summary_of(*folders, common=True)


def test_other_protocols_are_refused(runs, capsys):
    write(runs[1], B, protocol="border 4")
    code, _, err = run(capsys, *runs, "--common")
    assert code == 2
    assert "border 4" in err
    assert "border 0" in err


def test_infinite_frames_are_left_out_and_counted(tmp_path, capsys):
    a = {"a": [30.0, math.inf, 32.0], "b": [25.0, 27.0], "c": [math.inf]}
    b = {"a": [31.0, 50.0, 34.0], "b": [math.inf, 28.0], "c": [math.inf]}
    folders = write(tmp_path / "one", a), write(tmp_path / "two", b)
    pairs, summary = summary_of(*folders)
    assert [pair.means[:2] for pair in pairs] == [(31, 32.5), (27, 28), (math.inf, math.inf)]
    assert (summary.gain, summary.clips, summary.frames, summary.left_out) == (1.25, 2, 3, 3)
    code, out, _ = run(capsys, *folders)
    assert code == 0
    assert "left out: 3 frames, infinite psnr" in out
    assert ["c", "∞", "∞", "-"] in [line.split() for line in out.splitlines()]


def test_a_frame_without_a_sharp_one_is_not_an_equal_one(tmp_path):
    rows = [
        {"clip": "a", "frame": "0", "psnr": 30.0},
        {"clip": "a", "frame": "1"},
        {"clip": "a", "frame": "2", "psnr": math.inf},
    ]
    metric_files.write_metrics(utils_eval.summarize([rows[0], rows[1]]), tmp_path / "one")
    metric_files.write_metrics(utils_eval.summarize([rows[0], rows[2]]), tmp_path / "two")
    assert run_comparison.read_run(tmp_path / "one", "psnr").clips == {"a": {"0": 30.0}}
    assert run_comparison.read_run(tmp_path / "two", "psnr").clips == {"a": {"0": 30.0, "2": math.inf}}


def test_names_are_escaped(tmp_path, capsys):
    folders = write(tmp_path / "one", {"<b>x": [1.0]}), write(tmp_path / "two", {"<b>x": [2.0]})
    assert run(capsys, *folders)[0] == 0
    page = Page((folders[1] / "compare.html").read_text())
    assert page.rows[1][0] == "<b>x"
    assert "<b>x" not in (folders[1] / "compare.html").read_text()


def pictures(folder, clips, seed, size=(120, 130)):
    random = np.random.default_rng(seed)
    for clip, values in clips.items():
        for index in range(len(values)):
            utils_image.write_rgb(
                folder / clip / f"{index:06d}.png", random.integers(0, 256, (*size, 3), dtype=np.uint8)
            )


def test_frames_that_gain_and_lose_most_are_shown(runs, tmp_path, capsys):
    for seed, folder in enumerate(runs):
        pictures(folder, A, seed)
    pictures(tmp_path / "gt", A, 5)
    test = {"dataroot_gt": str(tmp_path / "gt"), "filename_ext": "png", "filename_tmpl": "06d"}
    options = {"datasets": {"test": {**test, "io_backend": {"type": "disk"}}}}
    (runs[1] / "options.json").write_text(json.dumps(options))
    pairs, _ = summary_of(*runs)
    gained, lost = compare.extremes(pairs, runs, "psnr")
    assert [(one["clip"], one["frame"]) for one in gained] == [("a", "000002"), ("a", "000001"), ("b", "000001")]
    assert [(one["clip"], one["frame"]) for one in lost] == [("c", "000000")]
    assert [label.split(",")[0] for label in gained[0]["images"]] == ["A  32.00 dB", "B  35.00 dB", "|A - B|", "sharp"]
    assert gained[0]["images"].keys() == gained[0]["crops"].keys()
    (tmp_path / "gt" / "a" / "000002.png").unlink()
    assert len(compare.extremes(pairs, runs, "psnr")[0][0]["images"]) == 3, "without its sharp frame"
    (runs[0] / "a" / "000002.png").unlink()
    assert compare.extremes(pairs, runs, "psnr")[0][0]["frame"] == "000001", "the next one that both have"
    assert run(capsys, *runs)[0] == 0
    page = Page((runs[1] / "compare.html").read_text())
    assert page.tags.count("img") == (3 + 1) * (4 * 2 + 2), "pictures and parts, and two in the slider"
    page.assert_alone()


def test_a_damaged_picture_takes_one_line(runs, capsys):
    for seed, folder in enumerate(runs):
        pictures(folder, A, seed, (20 + seed, 30))
    code, _, err = run(capsys, *runs)
    assert (code, err.count("\n")) == (2, 1)
    assert "clip a frame 000002: has 20x30 and 21x30 pixels" in err
    (runs[1] / "a" / "000002.png").write_bytes(b"x")
    code, _, err = run(capsys, *runs)
    assert (code, err.count("\n")) == (2, 1)
    assert str(runs[1] / "a" / "000002.png") in err
    assert not (runs[1] / "compare.html").exists()


def test_lower_is_better_in_the_pictures_as_well(tmp_path):
    folders = write(tmp_path / "one", A, "tof"), write(tmp_path / "two", B, "tof")
    for seed, folder in enumerate(folders):
        pictures(folder, A, seed)
    gained, lost = compare.extremes(summary_of(*folders, "tof")[0], folders, "tof")
    assert ([one["clip"] for one in gained], [one["frame"] for one in lost][0]) == (["c"], "000002")


def test_difference_has_a_scale_that_suits_it():
    a = np.full((4, 4, 3), 100, np.uint8)
    b = a.copy()
    b[0, 0] += 3
    [(label, shown)] = compare._difference(a, b).items()
    assert label == "|A - B|, 0 to 4 of 255"
    assert shown[0, 0].sum() > 300
    assert shown[1:].max() < 10


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "metrics.json").unlink(), "metrics.json: cannot be read"),
        (lambda folder: (folder / "metrics.csv").unlink(), "metrics.csv: cannot be read"),
        (lambda folder: (folder / "metrics.json").write_text("{"), "metrics.json: is not JSON"),
        (lambda folder: (folder / "metrics.json").write_text("[]"), "metrics.json: has no text"),
        (lambda folder: (folder / "metrics.csv").write_text("x,y\n1,2\n"), "metrics.csv: has no columns"),
        (lambda folder: (folder / "metrics.csv").write_text("clip,frame\na,0\n"), "has no psnr; there were no sharp"),
        (lambda folder: (folder / "metrics.csv").write_text("clip,frame,ssim\na,0,1\n"), "has no psnr; it has ssim"),
        (lambda folder: (folder / "metrics.csv").write_text("clip,frame,psnr\na,0,x\n"), "line 2: psnr is 'x'"),
        (
            lambda folder: (folder / "metrics.csv").write_text("clip,frame,psnr\na,0\n"),
            "line 2: has a different",
        ),
        (lambda folder: (folder / "metrics.csv").write_text("clip,frame,psnr\na,0,1\na,0,2\n"), "line 3: clip a frame"),
        (lambda folder: (folder / "metrics.csv").write_bytes(b"\xff"), "not UTF-8 text"),
    ],
)
def test_a_damaged_run_takes_one_line(runs, capsys, damage, words):
    damage(runs[0])
    code, out, err = run(capsys, *runs)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err
    assert str(runs[0]) in err


def test_what_is_no_run_takes_one_line(runs, tmp_path, capsys):
    code, _, err = run(capsys, runs[0], tmp_path / "none")
    assert (code, err.count("\n")) == (2, 1)
    assert "is not a folder" in err
    assert run(capsys, runs[0])[0] == 2
