"""The doctor of one spike file: what it is, whether what is said about it is true, and how its sensor does."""

from pathlib import Path
from typing import Any

import numpy as np

from data.spike.doctor.declared import Declared, Given, declared_for
from data.spike.doctor.examine import DEFAULT_FLIPUD, Report, by, examine
from data.spike.doctor.health import health
from data.spike.doctor.orientation import brighter_up, match, paired_picture
from data.spike.formats import Format, format_of, is_raw1024, open_spikes, read_bits
from data.spike.manifest import GOPRO_SHORT_BY
from utils.spike_loader import packed_bytes
from utils.utils_image import read_rgb

_SPIKES_READ = 1 << 25  # pixels x steps that pixels and noise are judged by
_PICTURE_STEPS = 41
_FASTER_THAN_WHITE = 1.2  # times rate_at_white
_UNEVEN = 0.05  # relative spread of a still sensor's mean rate from step to step
_FIXED_PATTERN = 0.05  # relative spread of neighbours; noiseless simulations stay below 0.02 ...
_FEW_STEPS = 3.0  # ... and below this over the number of steps, whole as intervals are


def inspect_file(
    path: Path, given: Given | None = None, *, picture: Path | None = None, format: Format | None = None
) -> Report:
    """Examine one file completely.

    Args:
        path: a spike file of any format.
        given: what the user believes.
        picture: a paired RGB picture; None looks for one where the layouts have it.
        format: None tells it from the content.

    Raises:
        UserError: the file is missing, no spike file, or nothing tells its size.
    """
    declared = declared_for(path, given or Given())
    kind = format or format_of(path)
    if kind == "dat" and format is None and not declared.sizes and is_raw1024(packed_bytes(path)):
        kind = "raw1024"
    if kind in ("dat", "raw416"):
        report = examine(packed_bytes(path), str(path), declared, header=kind == "raw416")
    else:
        report = _examine_array(path, kind, declared)
    spikes = _middle(path, report)
    spikes = _check_orientation(report, spikes, declared, picture or paired_picture(path))
    check_timing(report, path, declared)
    report.evidence["health"] = found = health(spikes)
    _judge(report, found, declared)
    return report


def _examine_array(path: Path, kind: Format, declared: Declared) -> Report:
    """A report on a file that knows its own size and is upright."""
    _, found = open_spikes(path, format=kind, steps=(0, 1))
    size = found.height, found.width
    report = Report(str(path), path.stat().st_size, kind, size, found.steps, found.bit_order, False)
    for who, said in declared.sizes.items():
        if said != size:
            report.wrong.append(f"{by(said)} ({who}) is wrong: the file holds {found.steps} steps of {by(size)}")
    if any(found.skipped):
        report.notes.append("left out: {} bytes before the first frame, {} after the last".format(*found.skipped))
    return report


def _middle(path: Path, report: Report) -> np.ndarray:
    """The middle steps of a file, (t, H, W), read with what was found; all of them where they are few."""
    most = max(1, _SPIKES_READ // (report.size[0] * report.size[1]))
    first = max(0, (report.steps - most) // 2)
    window = first, min(report.steps, first + most)
    if window != (0, report.steps):
        report.notes.append(f"pixels and noise are judged by steps {window[0]} to {window[1] - 1}")
    if report.format in ("dat", "raw416"):
        header = report.format == "raw416"
        whole = packed_bytes(path)[: report.steps * report.size[0] * report.size[1] // 8]
        order = report.bit_order or "little"
        return read_bits(whole, report.size, header=header, steps=window, flipud=report.flipud, bit_order=order)
    return open_spikes(path, format=report.format, steps=window)[0]


def _check_orientation(report: Report, spikes: np.ndarray, declared: Declared, picture: Path | None) -> np.ndarray:
    """Compare with the picture, or guess; returns the spikes upright as far as known."""
    stored_bits = report.format in ("dat", "raw416")
    middle = len(spikes) // 2
    around = spikes[max(0, middle - _PICTURE_STEPS // 2) : middle + _PICTURE_STEPS // 2 + 1]
    plane = around.mean(axis=0, dtype=np.float32)
    if picture is None:
        _guess(report, plane, stored_bits)
        return spikes
    found = match(plane, read_rgb(picture))
    report.evidence["picture"] = {"file": str(picture), **found._asdict()}
    if found.best is None:
        report.notes.append(f"{picture} shows another scene, or one without contrast: it decides nothing")
    elif found.best == "upside_down":
        report.flipud = not report.flipud
        spikes = spikes[:, ::-1]
    elif found.best != "as_is":
        how = "left and right swapped" if found.best == "mirrored" else "turned by 180 degrees"
        report.wrong.append(f"against {picture} the spikes are {how}; turn the spikes or the pictures")
    if found.best in ("as_is", "upside_down"):
        _check_flip(report, declared, stored_bits)
    return spikes


def _check_flip(report: Report, declared: Declared, stored_bits: bool) -> None:
    """Compare the flip that a picture has decided with what is said."""
    if not stored_bits:
        if report.flipud:
            report.wrong.append("the array is upside down: row 0 must be at the top; turn it and save it again")
        return
    said = declared.flips or {"the default": DEFAULT_FLIPUD}
    mistaken = ", ".join(whose for whose, believed in said.items() if believed != report.flipud)
    if mistaken:
        stored = "bottom-up: flipud true" if report.flipud else "upright: flipud false"
        report.wrong.append(f"rows are stored {stored}, not as {mistaken} says")


def _guess(report: Report, plane: np.ndarray, stored_bits: bool) -> None:
    """Without a picture only a note: scenes are more often brighter at the top."""
    tilt = brighter_up(plane)
    report.evidence["brighter_up"] = tilt
    how = f"flipud {str(report.flipud).lower()}" if stored_bits else "upright"
    if tilt > 0:
        hint = f"{how} shows the brighter side up (about 3 of 4 scenes are so)"
    elif tilt < 0:
        hint = f"{how} shows the brighter side down, which about 1 scene of 4 has: perhaps it is upside down"
    else:
        hint = "brightness gives no hint"
    report.notes.append(f"which way up is not certain without a paired picture (--image): {hint}")


def check_timing(report: Report, path: Path, declared: Declared, *, may_be_short: bool = True) -> None:
    """Compare the number of steps with what the manifest or a GoPro clip's name promises.

    Args:
        report: whose notes and mistakes are added to.
        path: of the file.
        declared: what is said about it.
        may_be_short: the file may be the last one of its clip.
    """
    if declared.timing is None or report.wrong:
        return
    promised = declared.timing.num_steps(path.stem)
    if report.steps == promised:
        return
    if may_be_short and declared.manifest is None and report.steps == promised - GOPRO_SHORT_BY:
        report.notes.append(f"{report.steps} steps instead of {promised}: the last file of a GoPro clip is short")
        return
    who = "the manifest" if declared.manifest else "the clip's name"
    report.wrong.append(f"{report.steps} steps, {who} promises {promised}; correct it or prepare the file again")


def _judge(report: Report, found: dict[str, Any], declared: Declared) -> None:
    """Turn measurements into notes, and into mistakes where the manifest says otherwise."""
    time, pixels, noise, rate = found["time"], found["pixels"], found["noise"], found["rate"]
    for what in ("dead", "hot"):
        if pixels[what]:
            where = ", ".join(f"({row}, {column})" for row, column in pixels[f"{what}_at"][:4])
            report.notes.append(f"{pixels[what]} {what} pixels, at (row, column) {where}, ...")
    for what in ("empty", "full"):
        if time[what]:
            steps = ", ".join(map(str, time[f"{what}_steps"][:8]))
            report.notes.append(
                f"{time[what]} {what} steps: {steps}, ... (missing readouts, or light going on and off)"
            )
    if time["spread"] > _UNEVEN:
        report.notes.append(
            f"the mean rate varies by {time['spread']:.0%} from step to step: flicker or a change of light"
        )
    pattern = noise["between_pixels"] or 0.0
    if pattern > max(_FIXED_PATTERN, _FEW_STEPS / report.steps):
        report.notes.append(f"fixed-pattern noise: neighbouring pixels differ by {pattern:.0%}, as in a real sensor")
    white = declared.manifest.rate_at_white if declared.manifest else None
    if white and rate["brightest"] > _FASTER_THAN_WHITE * white:
        report.wrong.append(
            f"rate_at_white {white:g} (the manifest) is wrong: the brightest pixels fire {rate['brightest']:.2f} a step"
        )


def text(report: Report) -> str:
    """Write a report for people, the verdict last."""
    evidence, rows = report.evidence, []
    how = f"bit_order {report.bit_order}, flipud {str(report.flipud).lower()}" if report.bit_order else "unpacked"
    rows.append(f"{report.file}: {report.bytes} bytes, {report.format}")
    rows.append(f"  {report.steps} steps of {by(report.size)}, {how}")
    if "candidates" in evidence:
        rows.append("  sizes; echo: repeats after one step (from 8 on), rows: 0 smooth, 1 torn, seam: + little, - big")
    for line in evidence.get("candidates", []):
        rows.append(
            "  {:>11}  {:9.2f} steps   echo {:6.1f}   rows {:.3f}   seam {:+.1f}".format(
                by(line["size"]), line["steps"], line["echo"], line["rows"], line["seam"]
            )
        )
    if "picture" in evidence:
        shown = evidence["picture"]
        rows.append(
            f"  picture {shown['file']}: correlation {shown['as_is']:.3f}, upside down {shown['upside_down']:.3f}"
        )
    rows += _health_lines(evidence["health"])
    rows += [f"  note: {note}" for note in report.notes]
    rows += [f"WRONG: {line}" for line in report.wrong] or ["nothing wrong found"]
    return "\n".join(rows)


def _health_lines(found: dict[str, Any]) -> list[str]:
    rate, time, pixels, noise = found["rate"], found["time"], found["pixels"], found["noise"]

    def percent(value: float | None) -> str:
        return "unknown" if value is None else f"{value:.1%}"

    return [
        f"  rate: mean {rate['mean']:.3f} spikes a step; brightest pixels {rate['brightest']:.3f}, "
        "which is rate_at_white if they are white",
        f"  over time: mean rate varies by {time['spread']:.1%}; {time['empty']} empty and {time['full']} full steps",
        f"  pixels: {pixels['dead']} dead, {pixels['hot']} hot; noise: neighbours differ by "
        f"{percent(noise['between_pixels'])} (fixed pattern), a pixel's intervals by {percent(noise['within_pixel'])} "
        "(motion included)",
        f"  no interval around the middle step (TFI undefined): {found['tfi_undefined']:.1%} of the pixels",
    ]
