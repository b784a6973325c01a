"""report.html in a browser: its table can be sorted, and its sliders obey keys, mouse and touch."""

import math
from types import SimpleNamespace

import browser
import numpy as np
import pytest
from test_html import FACTS, result_of

from utils.report import page_template, test_page
from utils.report.instants_picture import Moment

pytestmark = pytest.mark.skipif(browser.FOUND is None, reason=browser.REASON)
TIMES = ["0.10", "0.50", "0.90"]
CLIP = """getComputedStyle(document.querySelectorAll(".stage")[0].children[1]).clipPath"""


def uri(level):
    return page_template.picture_uri(np.full((90, 160, 3), level, np.uint8))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A browser with a report of one picture and the instants of one frame."""
    folder = tmp_path_factory.mktemp("page")
    images = {"blurred  20.00 dB": uri(10), "spikes": uri(20), "restored  30.00 dB": uri(30), "sharp": uri(40)}
    picture = SimpleNamespace(clip="a", frame="000001", psnr=30.0, box="", images=images, crops=images)
    moment = Moment("a", "000001", TIMES, {"blurred": [uri(10)], "restored": [uri(50 + k) for k in range(3)]})
    result = result_of({"a": [30.0], "b": [9.5], "c": [math.inf], "d": [20.0]})
    path = folder / "report.html"
    text = test_page.report_page(result, {"Worst frames": [picture]}, FACTS, [moment])
    path.write_text(text, encoding="utf-8")
    try:
        opened = browser.Browser(folder / "profile")
    except browser.EndedError:
        pytest.skip(f"{browser.FOUND} does not start")
    with opened:
        opened.open(f"{path.as_uri()}#sort=psnr")
        yield opened


def test_a_browser_sorts_the_table(page):
    assert page.value("[...document.querySelectorAll('tr')].map(row => row.cells[0].textContent).slice(1)") == [
        "b", "d", "a", "c", "mean",
    ]  # fmt: skip
    assert page.value("document.querySelector('th[aria-sort=ascending]').textContent") == "psnr"


def drag(page, x):
    """Two points of the first picture, in pixels of the window: at 50 % and at x % of its width."""
    page.value("document.querySelector('.stage').scrollIntoView()")
    left, top, width, height = page.value(
        "(({left, top, width, height}) => [left, top, width, height])"
        "(document.querySelector('.stage').getBoundingClientRect())"
    )
    return [(left + width * at / 100, top + height / 2) for at in (50, x)]


def test_arrow_keys_move_the_wipe_and_the_focus_is_visible(page):
    page.value("document.querySelector('.wipe select').focus()")
    page.press("Tab")
    assert page.value("document.activeElement.ariaLabel") == "share of the left picture"
    assert page.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    before = page.value("+document.activeElement.value")
    for _ in range(3):
        page.press("ArrowLeft")
    assert page.value("document.activeElement.value") == str(before - 3)
    assert page.value("document.querySelector('.viewer').style.getPropertyValue('--at')") == f"{before - 3}%"
    text = page.value("document.activeElement.getAttribute('aria-valuetext')")
    assert text == f"{before - 3} % blurred 20.00 dB, the rest restored 30.00 dB"
    page.press("Home")
    assert page.value(CLIP) == "inset(0px 100% 0px 0px)"


def test_touch_and_mouse_on_the_picture_move_the_wipe(page):
    page.touch(*drag(page, 20))
    assert page.value("document.querySelector('.wipe input').value") == "20"
    start, end = drag(page, 80)
    for kind, (x, y) in (("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)):
        page.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)
    assert page.value("document.querySelector('.wipe input').value") == "80"


def test_any_two_pictures_can_be_compared(page):
    shown = """[...document.querySelector(".stage").children].map(image => [image.alt, image.naturalWidth])"""
    assert page.value(shown) == [["restored  30.00 dB", 160], ["blurred  20.00 dB", 160]]
    choose = "(select => { select.value = %d; select.dispatchEvent(new Event('input', {bubbles: true})) })(%s)"
    page.value(choose % (3, "document.querySelectorAll('.wipe select')[0]"))
    assert page.value(shown)[1][0] == "sharp"


def test_arrow_keys_step_through_the_instants(page):
    page.value("document.querySelector('.instant input').focus()")
    page.press("Home")
    seen = []
    for _ in range(3):
        seen.append(page.value("document.querySelectorAll('.stage')[1].children[0].alt"))
        text = page.value("document.querySelector('.instant output').value")
        page.press("ArrowRight")
    assert seen == [f"restored, {time}" for time in TIMES]
    assert text == "0.90 of the exposure (3 of 3)"
    assert page.value("document.activeElement.getAttribute('aria-valuetext')") == "0.90 of the exposure"
    assert page.value("document.querySelectorAll('.stage')[1].children[1].alt") == "blurred", "there is only one"


def test_the_page_fits_a_narrow_screen(page):
    page.call("Emulation.setDeviceMetricsOverride", width=360, height=700, deviceScaleFactor=1, mobile=False)
    assert page.value("document.documentElement.scrollWidth") <= 360
    inside = "[...document.querySelectorAll('.viewer')].every(v => v.getBoundingClientRect().right <= 360)"
    assert page.value(inside)
    page.call("Emulation.clearDeviceMetricsOverride")
