"""Draw the figures of docs/ that are drawn, not measured: the sensor, one exposure, one sample's way, the network."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from data.spike.manifest import gopro_timing
from data.spike.simulator import integrate_and_fire
from utils import utils_cli
from utils.utils_file import whole_file

DOCS = Path(__file__).resolve().parents[1] / "docs"
INK, GRAY, PALE = "#22303c", "#8795a1", "#e8ecf0"
FRAME, SPIKE, LIGHT = "#c8553d", "#2c6fbb", "#e09f1f"
OPTIONS, DATA, MODELS, UTILS = "#f3e3bf", "#cfe3f7", "#f6d3ca", "#d6ead3"
LOOK: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    "axes.edgecolor": GRAY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "spikevrt",  # the same names of clips and paths in every file
}
ARROW = {"arrowstyle": "-|>", "color": INK, "shrinkA": 1, "shrinkB": 1}
THETA = 2.0  # threshold in white pixels x steps


def sensor() -> Figure:
    """One pixel over 48 steps: its light, its charge, its bits; and planes of bits of a moving disc."""
    figure = Figure((9, 4.2), layout="constrained")
    grid = figure.add_gridspec(3, 4, height_ratios=(1, 1.4, 0.5))
    light = np.interp(np.arange(48), [0, 12, 20, 34, 40, 48], [0.15, 0.15, 0.9, 0.9, 0.35, 0.35]).astype(np.float32)
    spikes, _ = integrate_and_fire(light[:, None, None], THETA, charge=np.full((1, 1), 0.6, np.float32))
    bits = spikes[:, 0, 0].astype(int)
    above, charge, bit = [figure.add_subplot(grid[row, :3]) for row in range(3)]
    above.stairs(light, np.arange(49), fill=True, color=LIGHT, alpha=0.75)
    above.set(ylim=(0, 1.05), yticks=(0, 1), ylabel="light\n(white: 1)", title="One pixel")
    before = 0.6 + np.cumsum(light) - THETA * (np.cumsum(bits) - bits)
    after = before - THETA * bits
    times = np.repeat(np.arange(49), 2)[1:]
    charge.plot(times, np.concatenate([[0.6], np.stack([before, after], 1).ravel()]), color=INK, lw=1.3)
    charge.axhline(THETA, color=FRAME, ls="--", lw=1)
    charge.text(0.3, THETA + 0.12, "threshold θ = 2", color=FRAME)
    charge.text(4.4, 0.75, "integrate")
    fired = np.flatnonzero(bits) + 1
    charge.plot(fired, before[bits == 1], "o", color=SPIKE, ms=4)
    charge.text(10.6, 2.4, "fire, then subtract θ:\nthe rest is kept")
    charge.set(ylim=(0, 3), yticks=(0, 1, 2), ylabel="charge")
    bit.stairs(bits, np.arange(49), fill=True, color=SPIKE, alpha=0.25)
    for step, value in enumerate(bits):
        bit.text(step + 0.5, 0.5, str(value), ha="center", va="center", fontsize=7.5, color=SPIKE if value else GRAY)
    bit.set(yticks=(), ylabel="bits", xlabel="spike step")
    for axes in (above, charge, bit):
        axes.set_xlim(0, 48)
        axes.tick_params(labelbottom=axes is bit)
    _planes_of_bits(figure.add_subplot(grid[:, 3]))
    return figure


def _planes_of_bits(axes: Axes) -> None:
    """A disc that moves to the right, as three planes of bits."""
    rows, columns = np.mgrid[:24, :24]
    steps = np.arange(60)[:, None, None]
    scene = np.where((rows - 12) ** 2 + (columns - 4 - steps * 0.25) ** 2 < 30, 0.95, 0.12).astype(np.float32)
    spikes, _ = integrate_and_fire(scene, THETA, np.random.default_rng(0))
    for place, step in enumerate((8, 30, 52)):
        x, y = 5 * place, 28 * place
        axes.imshow(spikes[step], cmap="gray", extent=(x, x + 24, y, y + 24), interpolation="nearest")
        axes.add_patch(Rectangle((x, y), 24, 24, fill=False, ec=GRAY))
        axes.text(x + 25, y + 11, f"k = {step}", va="center")
    axes.set(xlim=(-1, 46), ylim=(-12, 86), title="All pixels")
    axes.text(0, -2, "one plane of bits per step:\n(T, H, W), 0 or 1", va="top")
    axes.set_axis_off()


def exposure() -> Figure:
    """One frame's exposure on the time axis, for GoPro + Spike and for a fast camera."""
    figure = Figure((9, 5.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=(1.55, 1))
    timing = gopro_timing("GOPR0384_07_00")
    first, last, sharp, steps = *timing.exposure, timing.sharp_step, timing.steps
    for at in range(first, last, 8):
        upper.plot(at + 0.5, 5, "s", ms=8, color=FRAME if at == sharp else "white", mec=FRAME)
    _bar(upper, 4, (first, last), FRAME, f"exposure [{first}, {last}): its mean is the blurred frame")
    upper.vlines(np.arange(steps) + 0.5, 2.75, 3.25, color=SPIKE, lw=1)
    _bar(upper, 2, (sharp - 10, sharp + 11), SPIKE, "21 steps")
    _bar(upper, 1, (sharp - 20, sharp + 21), SPIKE, "41 planes of 1 step", planes=41)
    upper.axvline(sharp + 0.5, color=FRAME, ls="--", lw=1, zorder=0)
    upper.text(sharp + 1, 5.45, f"sharp frame: step {sharp}", color=FRAME)
    upper.plot([steps / 2 + 0.5] * 2, [0, 3.5], color=GRAY, ls=":", lw=1, zorder=0)
    upper.text(steps / 2 + 1, 0.12, "middle of the file: 4 steps late", color=GRAY)
    labels = ["moment:\nK planes around it", "tfp, sdm:\na window", f"spike steps: {steps}", "", "sharp frames: 7"]
    _rows(upper, labels, (-0.5, 57), "GoPro + Spike, a clip that averages 7 frames", (0, 6))
    _bar(lower, 3, (0, 400), FRAME, "exposure: 20 ms, 400 steps")
    _bar(lower, 2, (97, 302), SPIKE, "K b = 205: at least half of the exposure", planes=41)
    _bar(lower, 1, (217, 422), SPIKE, "", planes=41)
    for y, instant in ((2, 199.5), (1, 319.5)):
        lower.plot(instant, y + 0.42, "v", color=FRAME, ms=6)
    lower.text(436, 1, "beyond the end:\nnext file, or mirrored", va="center", fontsize=8)
    lower.text(436, 2, "K = 41 planes\nof b = 5 steps", va="center", fontsize=8)
    _rows(lower, ["instant 0.8", "instant 0.5", ""], (-5, 540), "A camera of 20,000 steps per second", (0.4, 3.6))
    lower.set_xlabel("spike step")
    return figure


def _bar(axes: Axes, y: float, span: tuple[float, float], colour: str, text: str, planes: int = 0) -> None:
    """A span of steps in row y, cut into planes if there are some."""
    axes.add_patch(Rectangle((span[0], y - 0.25), span[1] - span[0], 0.5, fc=colour, alpha=0.22, ec="none"))
    axes.add_patch(Rectangle((span[0], y - 0.25), span[1] - span[0], 0.5, fill=False, ec=colour))
    if planes:
        axes.vlines(np.linspace(*span, planes + 1)[1:-1], y - 0.25, y + 0.25, color=colour, lw=0.5)
    box = {"fc": "white", "ec": "none", "pad": 1.2, "alpha": 0.85}
    if text:
        axes.text(sum(span) / 2, y, text, ha="center", va="center", bbox=box, fontsize=8.5)


def _rows(axes: Axes, labels: Sequence[str], xlim: tuple[float, float], title: str, ylim: tuple[float, float]) -> None:
    axes.set(xlim=xlim, ylim=ylim, yticks=range(1, len(labels) + 1), yticklabels=labels)
    axes.set_title(title, loc="left", fontsize=10)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def sample() -> Figure:
    """One training sample's way through the layers, and a test clip's after it."""
    figure, axes = _canvas((10, 5.6), (100, 56))
    bands = ((47, "options/", OPTIONS), (25, "data/", DATA), (13, "models/", MODELS), (1, "utils/", UTILS))
    for y, name, colour in bands:
        height = 20 if name == "data/" else 9
        axes.add_patch(Rectangle((0, y - 1), 100, height + 1.5, fc=colour, alpha=0.28, ec="none"))
        axes.text(0.8, y + height - 0.6, name, va="top", color=GRAY, fontsize=10, style="italic")
    opt = _box(axes, (36, 47), (22, 5.5), "option file\nJSON, _base_, --set", OPTIONS)
    checked = _box(axes, (5, 47), (22, 5.5), "Opt\nchecked, frozen, saved whole", OPTIONS)
    index = _box(axes, (9, 31.5), (14, 7), "clip_index\nclip, first frame", DATA)
    rgb = _box(axes, (28, 37.5), (22, 6), "frame_store\n(T, 720, 1280, 3) uint8", DATA)
    dat = _box(axes, (28, 26), (22, 7.5), "spike/source, reader\nthe rows, columns, steps\nthat the crop needs", DATA)
    crop = _box(axes, (55, 37.5), (18, 6), "augment\none crop, same flips", DATA)
    planes = _box(axes, (55, 26), (18, 7.5), "planes\n(T, S, h, w)\non the sensor's grid", DATA)
    done = _box(axes, (78, 30), (20, 10), "sample\nlq, gt (T, 3, 192, 192)\nspike (T, S, 96, 96)", DATA)
    loss = _box(axes, (55, 14), (18, 6), "loss in float32\nstep, average", MODELS)
    net = _box(axes, (78, 13.5), (20, 7), "network\nguide or VRT", MODELS)
    restore = _box(axes, (28, 14), (22, 6), "ModelVRT.restore", MODELS)
    save = _box(axes, (55, 2), (18, 6), "checkpoint\nwhole or not at all", UTILS)
    test = _box(axes, (28, 2), (22, 6), "evaluate\ntiles, metrics", UTILS)
    page = _box(axes, (6, 2), (17, 6), "results/<task>\nreport.html", UTILS)
    for a, b in ((index, rgb), (index, dat), (rgb, crop), (dat, planes), (crop, done), (planes, done)):
        _arrow(axes, a, b, "right")
    for a, b in ((opt, checked), (net, loss), (loss, restore), (save, test), (test, page)):
        _arrow(axes, a, b, "left")
    for a, b in ((checked, index), (done, net), (loss, save), (crop, planes), (restore, test)):
        _arrow(axes, a, b, "down")
    return figure


Box = tuple[float, float, float, float]


def _canvas(inches: tuple[float, float], size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(inches)
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    axes.set(xlim=(0, size[0]), ylim=(0, size[1]))
    axes.set_axis_off()
    return figure, axes


def _box(axes: Axes, at: tuple[float, float], size: tuple[float, float], text: str, colour: str) -> Box:
    """A box with centred text; its left, bottom, width and height."""
    axes.add_patch(FancyBboxPatch(at, *size, boxstyle="round,pad=0,rounding_size=0.8", fc=colour, ec=GRAY))
    axes.text(at[0] + size[0] / 2, at[1] + size[1] / 2, text, ha="center", va="center", fontsize=8.5, linespacing=1.25)
    return (*at, *size)


def _arrow(axes: Axes, a: Box, b: Box, way: str, text: str = "") -> None:
    """An arrow from box a to box b, out of a's side `way`."""
    start, end = _side(a, way), _side(b, {"right": "left", "left": "right", "down": "up", "up": "down"}[way])
    axes.annotate("", end, start, arrowprops=ARROW)
    if text:
        axes.text((start[0] + end[0]) / 2 + 0.6, (start[1] + end[1]) / 2, text, va="center", fontsize=8)


def _side(box: Box, side: str) -> tuple[float, float]:
    x, y, width, height = box
    across = {"left": 0.0, "right": 1.0}.get(side, 0.5)
    along = {"down": 0.0, "up": 1.0}.get(side, 0.5)
    return x + across * width, y + along * height


def network() -> Figure:
    """The guide, and VRT behind it."""
    figure, axes = _canvas((10, 5.4), (100, 54))
    axes.add_patch(Rectangle((0, 21), 100, 33, fc=DATA, alpha=0.28, ec="none"))
    axes.add_patch(Rectangle((0, 0), 100, 18, fc=MODELS, alpha=0.28, ec="none"))
    axes.text(1, 52.6, "the guide: frame by frame, on the sensor's grid", va="top", color=GRAY, style="italic")
    axes.text(1, 16.6, "VRT behind it, if netG.fusion is guide", va="top", color=GRAY, style="italic")
    frame = _box(axes, (1.5, 40.5), (17, 7.5), "blurred frame\n(3, H, W)", MODELS)
    spikes = _box(axes, (1.5, 24), (17, 9), "K planes around\nthe instant, and the\nexposure's mean rate", DATA)
    fold = _box(axes, (23.5, 40.5), (13, 7.5), "pixel-unshuffle\nby r: 3 r² planes", PALE)
    rates = _box(axes, (23.5, 24), (13, 9), "planes and mean\nrates of windows,\nminus gray", PALE)
    first = _box(axes, (41, 32), (9, 9), "3×3\nconv", PALE)
    levels = [((53, 39), "h × w"), ((58, 31.5), "h/2 × w/2"), ((63, 24), "h/4 × w/4")]
    tops = [_box(axes, at, (9, 5.5), text, OPTIONS) for at, text in levels[:2]]
    bottom = _box(axes, levels[2][0], (11, 5.5), levels[2][1], OPTIONS)
    backs = [_box(axes, (75, 39), (9, 5.5), "h × w", OPTIONS), _box(axes, (70, 31.5), (9, 5.5), "h/2 × w/2", OPTIONS)]
    axes.text(68.5, 46.2, "a U of gated blocks, no pooling", ha="center", fontsize=8.5)
    last = _box(axes, (87, 38), (11.5, 7.5), "3×3 conv, zero\nat the start;\npixel-shuffle", PALE)
    estimate = _box(axes, (87, 22.5), (11.5, 7.5), "estimate\n(3, H, W)", UTILS)
    for a, b in ((frame, fold), (spikes, rates), (fold, first), (rates, first), (first, tops[0]), (backs[0], last)):
        _arrow(axes, a, b, "right")
    for a, b in ((tops[0], backs[0]), (tops[1], backs[1])):
        axes.annotate("", _side(b, "left"), _side(a, "right"), arrowprops=ARROW | {"color": GRAY, "ls": ":"})
    for a, b in ((tops[0], tops[1]), (tops[1], bottom)):
        _arrow(axes, a, b, "down")
    for a, b in ((bottom, backs[1]), (backs[1], backs[0])):
        _arrow(axes, a, b, "up")
    _arrow(axes, last, estimate, "down", "+ blurred")
    flow = _box(axes, (66, 9), (15, 5.5), "optical flow\nbetween estimates", PALE)
    body = _box(axes, (45, 2), (17, 9), "7 stages: attention\nin windows, alignment\nby flow", OPTIONS)
    groups = _box(axes, (26, 3.5), (14, 6), "reconstruction", OPTIONS)
    out = _box(axes, (2, 3.5), (15, 6), "restored frames\n(T, 3, H, W)", UTILS)
    seen = _box(axes, (86.2, 3.5), (13.1, 6), "T estimates,\nmean rate", PALE)
    _arrow(axes, estimate, seen, "down")
    _arrow(axes, groups, out, "left")
    axes.text(21.5, 7.4, "+ estimate", ha="center", fontsize=8)
    for a, b in ((body, groups), (flow, body), (seen, flow)):
        _arrow(axes, a, b, "left")
    axes.annotate("", (62, 4.5), (86.2, 4.5), arrowprops=ARROW)
    return figure


def main() -> None:
    """Read the command line and draw."""
    parser = utils_cli.Parser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DOCS, help="folder to write to (default: docs)")
    parser.add_argument("--format", choices=("svg", "png"), default="svg", help="format of the figures")
    parser.add_common()
    args = parser.parse_args()
    with utils_cli.program(args.debug, args.quiet), rc_context(LOOK):
        for draw in (sensor, exposure, sample, network):
            path = args.out / f"figure_{draw.__name__}.{args.format}"
            metadata = {"Date": None} if args.format == "svg" else None
            with whole_file(path) as file:
                draw().savefig(file, dpi=110, facecolor="white", metadata=metadata)
            print(path)


if __name__ == "__main__":
    main()
