"""report.html and the parts of pages: what they show, how large they get, and that they stand alone."""

import math
import re
import weakref

import numpy as np
import pytest
from html_page import Page
from test_eval import FakeClip, Val, restore

from utils import utils_dist, utils_eval
from utils.evaluation.clip import Frame
from utils.report import page_template, test_page

ALONE = utils_dist.Dist(0, 1)
FACTS = {"title": "a test", "options": {"task": "demo"}, "environment": {"python": "3"}}
WORST, BEST, PLAIN = "Worst frames", "Best frames", "Restored frames"


def page_of(result, pictures=None):
    return test_page.report_page(result, pictures or {}, FACTS)


def result_of(clips):
    """The result of clip -> PSNR of its frames, with an input 2 dB below."""
    return utils_eval.summarize(
        [
            {"clip": clip, "frame": f"{index:06d}", "psnr": value, "ssim": 0.5, "lq_psnr": value - 2}
            for clip, values in clips.items()
            for index, value in enumerate(values)
        ]
    )


def frames_of(clips):
    """A restored frame for each PSNR of clip -> PSNRs; None: there is no sharp one."""
    for name, values in clips.items():
        clip = FakeClip(name, len(values))
        clip.has_gt = values[0] is not None
        for index, value in enumerate(values):
            metrics = {} if value is None else {"psnr": value, "lq_psnr": 20.0}
            yield Frame(clip, index, clip._lq[index], metrics)


def kept(frames, dist=ALONE, count=3):
    images = test_page.ReportImages(count)
    for frame in frames:
        images(frame)
    return images.gathered(dist)


def places(pictures):
    return [(picture.clip, picture.index) for picture in pictures]


@pytest.fixture
def clips():
    return [FakeClip("a", 5), FakeClip("bb", 3), FakeClip("ccc", 4)]


def test_page_of_an_evaluation(clips):
    images = test_page.ReportImages()
    result = utils_eval.evaluate(restore, clips, Val(), watchers=[images])
    page = Page(page_of(result, images.gathered(ALONE)))
    page.assert_alone()
    assert page.tags.count("svg") == len(clips)
    assert page.tags.count("img") == 6 * (5 * 2 + 2), (
        "3 worst, 3 best: five pictures and their parts, and two in the slider"
    )
    assert {"spikes", "sharp"} < set(page.labels)


def test_every_picture_has_a_slider_that_repeats_no_byte(clips):
    images = test_page.ReportImages()
    result = utils_eval.evaluate(restore, clips, Val(), watchers=[images])
    text = page_of(result, images.gathered(ALONE))
    viewers = re.findall(r'<div class="viewer" role="group" aria-label="(.*?)" hidden>(.*?)</section>', text, re.DOTALL)
    assert len(viewers) == 6
    for name, viewer in viewers:
        assert name.split()[0] in ("a", "bb", "ccc")
        assert re.search(r'<input type="range" min="0" max="100" value="50" aria-label="[^"]+">', viewer)
        assert re.findall(r'aria-label="picture on the (\w+)"', viewer) == ["left", "right"]
        assert [label.split()[0] for label in re.findall(r"selected>(.*?)</option>", viewer)] == ["blurred", "restored"]
    sources = re.findall(r'src="(data:[^"]*)"', text)
    assert len(sources) == 6 * 5 * 2, "the sliders take the pictures of the rows below them"
    assert 'type="range"' not in page_of(result)


def test_table_has_a_row_a_clip_with_the_numbers_of_the_result(clips):
    result = utils_eval.evaluate(restore, clips, Val())
    rows = Page(page_of(result)).rows[1:]
    assert [row[:2] for row in rows] == [["a", "5"], ["bb", "3"], ["ccc", "4"], ["mean", "12"]]
    names = ["psnr", "ssim", "psnr_y", "ssim_y", "lq_psnr", "lq_ssim", "sdm_psnr", "sdm_ssim"]
    for row, metrics in zip(rows, [*result["clips"].values(), result["mean"]], strict=True):
        expected = [f"{metrics[name]:.{2 if 'psnr' in name else 4}f}" for name in names]
        assert row[2:] == [f"{metrics['psnr'] - metrics['lq_psnr']:+.2f}", *expected], (
            "the gain is seen on a narrow page"
        )


def test_protocols_stand_there_with_their_numbers(clips):
    result = utils_eval.evaluate(restore, clips, Val(metrics=("psnr", "ssim", "psnr_y", "ssim_y", "ssim_matlab_rgb")))
    text = page_of(result)
    for name, protocol in result["protocols"].items():
        assert name in text
        assert f"{protocol['metrics']['psnr']:.2f}" in text
        assert f"{protocol['metrics']['ssim']:.4f}" in text


def test_without_sharp_frames_there_are_pictures_only(clips):
    for clip in clips:
        clip.has_gt = False
    images = test_page.ReportImages()
    result = utils_eval.evaluate(restore, clips, Val(), watchers=[images])
    pictures = images.gathered(ALONE)
    text = page_of(result, pictures)
    page = Page(text)
    assert places(pictures[PLAIN]) == [("a", 0), ("a", 2), ("a", 4), *[("bb", at) for at in range(3)]] + [
        ("ccc", at) for at in (0, 2, 3)
    ]
    assert (page.rows, page.tags.count("svg"), page.tags.count("img")) == ([], 0, 9 * (3 * 2 + 2))
    assert "no sharp frames to compare with" in text
    page.assert_alone()


def test_other_metrics_than_psnr_make_a_page(clips):
    result = utils_eval.evaluate(restore, clips, Val(metrics=("ssim",)))
    page = Page(page_of(result))
    assert page.rows[-1] == ["mean", "12", *(f"{result['mean'][name]:.4f}" for name in ("ssim", "lq_ssim", "sdm_ssim"))]
    assert page.tags.count("svg") == 0


def test_worst_and_best_are_right_and_not_the_same():
    pictures = kept(frames_of({"a": [30.0, 20.0, 25.0, 40.0], "b": [10.0, math.inf, 35.0]}))
    assert places(pictures[WORST]) == [("b", 0), ("a", 1), ("a", 2)]
    assert places(pictures[BEST]) == [("b", 1), ("a", 3), ("b", 2)]
    assert pictures[BEST][0].psnr == math.inf
    assert "∞ dB" in page_of(result_of({"a": [1.0]}), pictures)


@pytest.mark.parametrize("count", range(1, 8))
def test_no_frame_is_shown_twice(count):
    pictures = kept(frames_of({"a": [float(at) for at in range(count)]}))
    shown = places([*pictures[WORST], *pictures[BEST][::-1]])
    assert shown == sorted(set(shown))
    assert len(shown) == min(count, 6)
    assert places(pictures[WORST]) == [("a", at) for at in range(min(count, 3))]


def test_ties_are_broken_the_same_way_in_any_order():
    frames = list(frames_of({"b": [30.0] * 5, "a": [30.0] * 4}))
    forwards, backwards = kept(frames), kept(frames[::-1])
    assert places(forwards[WORST]) == places(backwards[WORST]) == [("a", 0), ("a", 1), ("a", 2)]
    assert places(forwards[BEST]) == places(backwards[BEST]) == [("b", 4), ("b", 3), ("b", 2)]


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_any_number_of_processes_shows_the_same(world_size, monkeypatch):
    random = np.random.default_rng(world_size)
    clips = {name: [float(value) for value in random.integers(20, 26, 6)] for name in "dbac"}
    clips |= {name: [None] * length for name, length in (("z", 4), ("x", 1), ("y", 7), ("w", 3))}
    frames = list(frames_of(clips))
    alone = kept(frames)
    parts, owners = [], random.integers(world_size, size=len(frames))
    shares = [
        [frame for frame, owner in zip(frames, owners, strict=True) if owner == rank] for rank in range(world_size)
    ]
    monkeypatch.setattr(utils_dist, "gather_objects", lambda dist, value: parts.append(value) or [value])
    for rank, share in enumerate(shares):
        kept(share, utils_dist.Dist(rank, world_size))
    monkeypatch.setattr(utils_dist, "gather_objects", lambda dist, value: parts)
    for rank, share in enumerate(shares):
        assert kept(share, utils_dist.Dist(rank, world_size)) == alone
    assert [len(group) for group in alone.values()] == [3, 3, 9]


def test_what_is_kept_does_not_grow_with_the_frames():
    long, short = FakeClip("a", 1000, size=(8, 8)), [FakeClip(f"b{index}", 1) for index in range(200)]
    images, made = test_page.ReportImages(), []
    for clip in (long, *short):
        for index in range(len(clip.frames)):
            metrics = {"psnr": float(index * 919 % 1000)} if clip is long else {}
            frame = Frame(clip, index, clip._lq[index], metrics)
            made.append(weakref.ref(frame))
            images(frame)
    del frame
    assert sum(reference() is not None for reference in made) <= 3 + 3 + 9
    assert [picture.psnr for picture in images.gathered(ALONE)[WORST]] == [0, 1, 2]


def test_names_are_escaped():
    name = "<b>&x\"'"
    clips = {name: [30.0, 20.0]}
    facts = {**FACTS, "title": "<i>t", "options": {"task": "</pre><script>"}}
    text = test_page.report_page(result_of(clips), kept(frames_of(clips)), facts)
    page = Page(text)
    assert page.rows[1][0] == name
    assert "i" not in page.tags
    assert page.tags.count("script") == 1
    assert "<b>&x" not in text


def test_infinite_and_missing_numbers_are_signs():
    text = page_of(result_of({"a": [math.inf, math.inf], "b": [30.0, 32.0]}))
    rows = Page(text).rows
    assert rows[1] == ["a", "2", "-", "∞", "0.5000", "∞"]
    assert rows[2] == ["b", "2", "+2.00", "31.00", "0.5000", "29.00"]
    assert "psnr is infinite for 2 frames" in text
    assert [page_template.number(value, "psnr") for value in (None, math.nan, math.inf, 1)] == ["-", "-", "∞", "1.00"]


def test_a_long_clip_makes_a_small_page():
    random = np.random.default_rng(0)
    text = page_of(result_of({"a": list(random.normal(30, 3, 10_000))}))
    assert len(text.encode()) < 300_000


def test_many_clips_are_in_the_table_and_some_are_drawn(monkeypatch):
    monkeypatch.setattr(test_page, "CURVES", 2)
    text = page_of(result_of({f"c{index}": [30.0 - index] for index in range(5)}))
    page = Page(text)
    assert len(page.rows) == 1 + 5 + 1
    assert page.tags.count("svg") == 2
    assert re.findall(r"<h3>(.*?)</h3>", text) == ["c3", "c4"], "those with the lowest PSNR"
    assert "3 more are not shown" in text


@pytest.mark.parametrize("count", [1, 50, 51, 52, 99, 1000, 12_345])
def test_decimated_curves_keep_their_extremes(count):
    values = list(np.random.default_rng(count).normal(size=count))
    index, shown = page_template.decimate(values, 50)
    assert len(index) <= 50
    assert index == sorted(set(index))
    assert shown == [values[at] for at in index]
    assert (min(shown), max(shown)) == (min(values), max(values))
    assert count > 50 or index == list(range(count))


def test_decimated_curves_have_no_point_where_there_is_no_value():
    assert page_template.decimate([math.nan, 1.0, math.inf, 2.0, -math.inf]) == ([1, 3], [1.0, 2.0])
    assert page_template.decimate([math.nan] * 5) == ([], [])


@pytest.mark.parametrize("values", [[], [math.nan] * 3, [math.inf] * 3, [1.0, math.inf, math.nan, 2.0], [5.0]])
def test_curves_are_drawn_of_any_values(values):
    svg = page_template.curve_svg({"one": values, "two": [1.0, 2.0]}, "dB")
    assert svg.startswith("<svg ")
    assert not [path for path in re.findall(r' (?:d|x|y)="([^"]*)"', svg) if "inf" in path or "nan" in path]
    assert svg == page_template.curve_svg({"one": values, "two": [1.0, 2.0]}, "dB"), "the same page every time"
    assert "#000000" not in svg, "text takes the colour of the page"


def test_infinite_values_are_ticks_of_a_bounded_number():
    def uses(values):
        return page_template.curve_svg({"one": values}, "dB").count("<use ")

    plain = uses([1.0] * 100)
    assert uses([1.0] * 99 + [math.inf]) == plain + 1
    assert uses([1.0, *[math.inf] * 5000]) < plain + 1000


def test_largest_box_is_where_the_error_is():
    error = np.zeros((50, 70))
    error[30:34, 60:64] = 1
    top, left, height, width = page_template.largest_box(error, 10)
    assert (height, width) == (10, 10)
    assert error[top : top + height, left : left + width].sum() == error.sum()
    assert page_template.largest_box(error, 60)[2:] == (50, 60)
    assert page_template.largest_box(error[:5, :6]) == (0, 0, 5, 6)
