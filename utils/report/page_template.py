"""Self-contained HTML pages: templates with embedded pictures and curves."""

import base64
import functools
import io
import math
import re
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from utils import __version__
from utils.utils_error import counted

if TYPE_CHECKING:
    import jinja2

TEMPLATES = Path(__file__).resolve().parent / "pages"
LARGEST_WIDTH = 640  # of a picture, in pixels
QUALITY = 90  # of its JPEG
CROP = 96  # side of the part shown enlarged, in pixels
POINTS = 1200  # most points per curve
TICKS = 200  # most ticks per curve for infinite values
COLOURS = ("#2f7ed8", "#8a8f98", "#d98b2b", "#3a9a5b")


def render(template: str, **context: Any) -> str:
    """Render a template of utils/report/pages; text is escaped, except markupsafe.Markup."""
    return _environment().get_template(template).render(**context)


@functools.cache
def _environment() -> "jinja2.Environment":
    """The templates, each compiled once."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"number": number, "counted": counted}
    environment.globals["version"] = __version__
    return environment


def number(value: float | None, name: str = "") -> str:
    """Format a metric: two digits for decibels, four for others, "-" for none."""
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):
        return "∞"
    return f"{value:.2f}" if "psnr" in name else f"{value:.4f}"


def picture_uri(image: np.ndarray, largest: int = LARGEST_WIDTH) -> str:
    """Encode (H, W, 3) uint8, RGB, as a JPEG data URI, shrunk to a width of `largest` if it is wider."""
    if image.shape[1] > largest:
        size = largest, max(1, round(image.shape[0] * largest / image.shape[1]))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    full_colour = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return _uri(image, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, QUALITY, *full_colour])


def outline(box: tuple[int, int, int, int], shape: tuple[int, ...]) -> str:
    """CSS that outlines a part (top, left, height, width) of a picture of (H, W, ...); empty if it is all of it."""
    height, width = shape[:2]
    if box[2:] == (height, width):
        return ""
    sides = zip(("top", "left", "height", "width"), box, (height, width) * 2, strict=True)
    return "; ".join(f"{side}: {length / whole:.2%}" for side, length, whole in sides)


def crop_uri(image: np.ndarray, box: tuple[int, int, int, int]) -> str:
    """Encode a part of a picture (top, left, height, width) losslessly as a PNG data URI."""
    top, left, height, width = box
    return _uri(np.ascontiguousarray(image[top : top + height, left : left + width]), ".png", [])


def largest_box(error: np.ndarray, side: int = CROP) -> tuple[int, int, int, int]:
    """Find the square of at most `side` pixels with the largest sum of (H, W): top, left, height, width."""
    height, width = min(side, error.shape[0]), min(side, error.shape[1])
    total = cv2.integral(error.astype(np.float64))
    sums = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    top, left = np.unravel_index(int(sums.argmax()), sums.shape)
    return int(top), int(left), height, width


def decimate(values: Sequence[float], most: int = POINTS) -> tuple[list[int], list[float]]:
    """Reduce a curve to about `most` finite points, keeping its local extremes; returns indices and values."""
    given = [(index, value) for index, value in enumerate(values) if math.isfinite(value)]
    if len(given) > most:
        edges = np.linspace(0, len(given), most // 2 + 1).astype(int)
        parts = (given[first:last] for first, last in zip(edges, edges[1:], strict=False))
        ends = ((min(part, key=itemgetter(1)), max(part, key=itemgetter(1))) for part in parts if part)
        given = sorted({point for pair in ends for point in pair})
    return [index for index, _ in given], [value for _, value in given]


def curve_svg(
    curves: Mapping[str, Sequence[float]], unit: str, wide: float = 9.0, baseline: float | None = None
) -> str:
    """Plot curves over the frames of a clip, as an SVG whose text takes the page's colour.

    `curves`: label -> one value per frame; NaN: no value, infinite values become ticks at the top. `unit` names the
    axis, `baseline` is a value at which to draw a horizontal line.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "spikevrt", "font.size": 9, "font.family": "sans-serif"}):
        figure = Figure(figsize=(wide, 2.2), layout="constrained")
        axes = figure.add_subplot()
        for (label, values), colour in zip(curves.items(), COLOURS, strict=False):
            index, shown = decimate(values)
            axes.plot(index, shown, color=colour, label=label, linewidth=1.3, marker="." if len(index) < 60 else "")
            infinite = [at for at, value in enumerate(values) if math.isinf(value)]
            infinite = infinite[:: -(-len(infinite) // TICKS) or 1]
            if infinite:
                top = axes.get_xaxis_transform()
                axes.plot(infinite, [1] * len(infinite), "v", color=colour, transform=top, clip_on=False, markersize=4)
        if baseline is not None:
            axes.axhline(baseline, color=COLOURS[1], linewidth=0.8)
        axes.set_xlabel("frame")
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes.set_ylabel(unit)
        axes.margins(x=0.01)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(curves), frameon=False, borderaxespad=0)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace("#000000", "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return svg.replace("<svg ", '<svg role="img" style="color: inherit; fill: currentColor" ', 1)


def _uri(image: np.ndarray, suffix: str, settings: Sequence[int]) -> str:
    encoded = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), list(settings))[1]
    kind = "jpeg" if suffix == ".jpg" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode()}"
