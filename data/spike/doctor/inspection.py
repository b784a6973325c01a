"""Inspect one spike file: what it is, whether its declarations are true, and the state of its sensor."""

from pathlib import Path
from typing import Any

import numpy as np

from data.geometry import size_text
from data.spike.doctor.declared import Declared, Given, declared_for, refuse_unused
from data.spike.doctor.examine import DEFAULT_FLIPUD, Report, examine
from data.spike.doctor.health import health
from data.spike.doctor.orientation import brighter_up, match, paired_picture
from data.spike.formats import BARE, Format, format_of, is_raw1024, open_spikes, read_bits
from data.spike.manifest import GOPRO_SHORT_BY
from utils.spike_loader import packed_bytes
from utils.utils_error import counted
from utils.utils_image import read_rgb

_SPIKES_READ = 1 << 25  # pixels x steps used to measure pixels and noise
_PICTURE_STEPS = 41
_FASTER_THAN_WHITE = 1.2  # times rate_at_white
_UNEVEN = 0.05  # relative spread of the mean rate from step to step
_FIXED_PATTERN = 0.05  # relative spread of neighbours; noiseless simulations stay below 0.02 ...
_FEW_STEPS = 3.0  # ... and below this divided by the number of steps, because intervals are whole steps


def inspect_file(
    path: Path,
    given: Given | None = None,
    *,
    picture: Path | None = None,
    format: Format | None = None,
    find_up: bool = True,
) -> Report:
    """Examine one file completely.

    Args:
        path: a spike file of any format.
        given: the user's declarations.
        picture: a paired RGB picture; None searches the usual layouts for one.
        format: None detects it from the content.
        find_up: determine which way is up, or guess it.

    Raises:
        UserError: the file is missing, not a spike file, or its size is unknown.
    """
    given = given or Given()
    declared = declared_for(path, given)
    kind = format or format_of(path)
    if kind == "dat" and format is None and not declared.sizes and is_raw1024(packed_bytes(path)):
        kind = "raw1024"
    refuse_unused(path, kind, given if find_up else given._replace(flipud=None))
    if kind in BARE:
        report = examine(packed_bytes(path), str(path), declared, header=kind == "raw416")
    else:
        report = _examine_array(path, kind, declared)
    spikes = _middle(path, report)
    if find_up:
        spikes = _check_orientation(report, spikes, declared, picture or paired_picture(path))
    check_timing(report, path, declared)
    report.evidence["health"] = found = health(spikes)
    _judge(report, found, declared)
    return report


def _examine_array(path: Path, kind: Format, declared: Declared) -> Report:
    """Report on a file of a format that records its own size and is upright."""
    _, found = open_spikes(path, format=kind, steps=(0, 1))
    size = found.height, found.width
    report = Report(str(path), path.stat().st_size, kind, size, found.steps, found.bit_order, False)
    for source, other in declared.sizes.items():
        if other != size:
            steps = f"{found.steps} steps of {size_text(size)}"
            report.wrong.append(f"{size_text(other)} ({source}) is wrong: the file holds {steps}")
    if any(found.skipped):
        report.notes.append("skipped {} bytes before the first frame and {} after the last".format(*found.skipped))
    return report


def _middle(path: Path, report: Report) -> np.ndarray:
    """Read the middle steps of a file, (t, H, W), as the report describes it; all steps if they are few."""
    most = max(1, _SPIKES_READ // (report.size[0] * report.size[1]))
    first = max(0, (report.steps - most) // 2)
    window = first, min(report.steps, first + most)
    if window != (0, report.steps):
        report.notes.append(f"pixels and noise are measured in steps {window[0]} to {window[1] - 1}")
    if report.format in BARE:
        header = report.format == "raw416"
        whole = packed_bytes(path)[: report.steps * report.size[0] * report.size[1] // 8]
        order = report.bit_order or "little"
        return read_bits(whole, report.size, header=header, steps=window, flipud=report.flipud, bit_order=order)
    return open_spikes(path, format=report.format, steps=window)[0]


def _check_orientation(report: Report, spikes: np.ndarray, declared: Declared, picture: Path | None) -> np.ndarray:
    """Check the orientation against the picture, or guess it; return the spikes upright as far as known."""
    stored_bits = report.format in BARE
    middle = len(spikes) // 2
    around = spikes[max(0, middle - _PICTURE_STEPS // 2) : middle + _PICTURE_STEPS // 2 + 1]
    plane = around.mean(axis=0, dtype=np.float32)
    if picture is None:
        _guess(report, plane, stored_bits)
        return spikes
    found = match(plane, read_rgb(picture))
    report.evidence["picture"] = {"file": str(picture), **found._asdict()}
    if found.best is None:
        report.notes.append(f"{picture} shows another scene or has no contrast: it does not show which way is up")
    elif found.best == "upside_down":
        report.flipud = not report.flipud
        spikes = spikes[:, ::-1]
    elif found.best != "as_is":
        how = "mirrored left to right" if found.best == "mirrored" else "rotated by 180 degrees"
        report.wrong.append(f"the spikes are {how} relative to {picture}; turn the spikes or the pictures")
    if found.best in ("as_is", "upside_down"):
        _check_flip(report, declared, stored_bits)
    return spikes


def _check_flip(report: Report, declared: Declared, stored_bits: bool) -> None:
    """Compare the flip found by the picture with the declared one."""
    if not stored_bits:
        if report.flipud:
            report.wrong.append("the array is upside down: row 0 must be at the top; flip it and save it again")
        return
    flips = declared.flips or {"the default": DEFAULT_FLIPUD}
    contradicted = ", ".join(source for source, flip in flips.items() if flip != report.flipud)
    if contradicted:
        stored = "bottom-up: flipud true" if report.flipud else "upright: flipud false"
        report.wrong.append(f"rows are stored {stored}, not as {contradicted} says")


def _guess(report: Report, plane: np.ndarray, stored_bits: bool) -> None:
    """Note which way up is likelier without a picture: most scenes are brighter at the top."""
    tilt = brighter_up(plane)
    report.evidence["brighter_up"] = tilt
    how = f"flipud {str(report.flipud).lower()}" if stored_bits else "upright"
    if tilt > 0:
        hint = f"{how} shows the brighter side up, as in about 3 of 4 scenes"
    elif tilt < 0:
        hint = f"{how} shows the brighter side down, as in about 1 of 4 scenes: it may be upside down"
    else:
        hint = "brightness gives no hint"
    report.notes.append(f"which way is up is uncertain without a paired picture (--image): {hint}")


def check_timing(report: Report, path: Path, declared: Declared, *, may_be_short: bool = True) -> None:
    """Compare the number of steps with the manifest or a GoPro clip's name.

    Args:
        report: extended with the findings.
        path: path of the file.
        declared: what is declared about it.
        may_be_short: the file may be the last one of its clip.
    """
    if declared.timing is None or report.wrong:
        return
    expected = declared.timing.num_steps(path.stem)
    if report.steps == expected:
        return
    if may_be_short and declared.manifest is None and report.steps == expected - GOPRO_SHORT_BY:
        report.notes.append(f"{report.steps} steps instead of {expected}: the last file of a GoPro clip is short")
        return
    source = "the manifest" if declared.manifest else "the clip's name"
    report.wrong.append(f"{report.steps} steps, but {source} implies {expected}; correct it or prepare the file again")


def _judge(report: Report, found: dict[str, Any], declared: Declared) -> None:
    """Turn measurements into notes, or into errors where the manifest contradicts them."""
    time, pixels, noise, rate = found["time"], found["pixels"], found["noise"], found["rate"]
    for what in ("dead", "hot"):
        if pixels[what]:
            where = ", ".join(f"({row}, {column})" for row, column in pixels[f"{what}_at"][:4])
            report.notes.append(f"{counted(pixels[what], f'{what} pixel')}, at (row, column) {where}, ...")
    for what in ("empty", "full"):
        if time[what]:
            steps = ", ".join(map(str, time[f"{what}_steps"][:8]))
            report.notes.append(
                f"{counted(time[what], f'{what} step')}: {steps}, ... (missing readouts, or a light switching on and "
                "off)"
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
            f"rate_at_white {white:g} (the manifest) is wrong: bright pixels fire {rate['brightest']:.2f} per step"
        )


def report_text(report: Report) -> str:
    """Format a report as text, the verdict last."""
    evidence, rows = report.evidence, []
    how = f"bit_order {report.bit_order}, flipud {str(report.flipud).lower()}" if report.bit_order else "unpacked"
    rows.append(f"{report.file}: {report.bytes} bytes, {report.format}")
    rows.append(f"  {report.steps} steps of {size_text(report.size)}, {how}")
    if "candidates" in evidence:
        rows.append("  sizes; period: repeats per step (min 8), rows: 0 smooth, 1 unrelated, seam: + little, - big")
    for line in evidence.get("candidates", []):
        rows.append(
            "  {:>11}  {:9.2f} steps   period {:6.1f}   rows {:.3f}   seam {:+.1f}".format(
                size_text(line["size"]), line["steps"], line["periodicity"], line["rows"], line["seam"]
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
        f"  rate: mean {rate['mean']:.3f} spikes per step; brightest pixels {rate['brightest']:.3f}, "
        "which is rate_at_white if they are white",
        f"  over time: mean rate varies by {time['spread']:.1%}; {time['empty']} empty and {time['full']} full steps",
        f"  pixels: {pixels['dead']} dead, {pixels['hot']} hot; noise: neighbours differ by "
        f"{percent(noise['between_pixels'])} (fixed pattern), a pixel's intervals by {percent(noise['within_pixel'])} "
        "(motion included)",
        f"  no interval around the middle step (TFI undefined): {found['tfi_undefined']:.1%} of the pixels",
    ]
