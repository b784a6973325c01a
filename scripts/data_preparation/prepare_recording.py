"""Make a data set of a recording: the spikes of a spike camera, and the blurred frames of a camera beside it.

prepare_recording.py --spikes walk.dat --frames walk/ --times walk.csv --clock-hz 20000 --out datasets/mine
prepare_recording.py --spikes walk.dat --frames walk.mp4 --exposure 0.02 --clock-hz 20000 --out datasets/mine
prepare_recording.py --spikes walk/ --frames walk/ --exposure 400 --time-unit steps --clock-hz 20000 --out datasets/mine

Each call adds one clip; docs/my_camera.md goes through it. The frames are renamed 000000, 000001, ...; times.csv beside
the clip's spikes has their former names and the steps of their exposures.

Times. --times names a csv, txt or json file with one row per frame: `start end`, `frame start end`, or one time per
frame completed by --exposure; a header (frame, start, end, exposure) names columns, and units (start_ms). Without it
frames are regular: --fps (a video has its own), --exposure, --start. Times are in --time-unit, seconds unless said
otherwise, on one clock, on which --stream-start is the time of the stream's first step. In steps, an exposure is
[first, last).
With a folder of spike files, one per frame, times count from the start of each file.

The set is then aligned, as `scripts/spike.py align` does: geometry and time between the cameras go into its manifest.
Size, bit order and flip of the spikes are determined from the bits and the frames unless given; in doubt they are
refused. The RGB size must be a whole multiple of the spike size: --crop and --resize make it one.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from data.frame_order import in_time
from data.geometry import Box, size_text
from data.image_folders import image_files
from data.instants import step_of
from data.layout import SPLITS, DatasetWriter, clip_dirs, how_to_restore, other_clips
from data.prepare import cutting, exposures, pairing
from data.prepare.paired_recording import Recording, make_manifest, times_table
from data.prepare.recordings import WHOLE, Source, Span, clip_name, folder_source, parse_range, video_source
from data.spike.doctor.declared import Given
from data.spike.doctor.examine import Report
from data.spike.formats import FORMATS
from data.spike.manifest import ClipTiming, Manifest
from utils.utils_cli import Parser, above_zero, above_zero_up_to_one, number, positive, program, up_to_one, whole
from utils.utils_error import UserError, counted
from utils.utils_file import write_text
from utils.utils_image import write_rgb
from utils.utils_progress import progress

LOG = logging.getLogger("spikevrt")

_SAMPLES = 5  # frames compared with their spikes before the set is written
_SHOWN = 3  # frames in the preview
PREVIEW, TIMES = "preview.png", "times.csv"


def prepare(args: argparse.Namespace) -> None:
    """Add a clip to the set.

    Raises:
        UserError: frames, times and spikes do not fit together.
    """
    if args.split == "train" and args.sharp is None:
        raise UserError("--split train: training needs sharp frames, expected --sharp; add it, or use --split test")
    clip = args.clip or clip_name(args.spikes.resolve().stem, WHOLE)
    if clip != clip_name(clip, WHOLE):
        raise UserError(f"--clip {clip!r}: expected letters, digits, _ and - only; choose another name")
    if args.out.exists() and not args.out.is_dir():
        raise UserError(f"--out {args.out}: is a file, expected the folder of a data set; choose another name")
    manifest = other_clips(args.out, [clip])
    recording, report = read_recording(args, manifest)
    recording, light = compare(recording, args, manifest)
    timing = ClipTiming(
        steps=recording.cuts.steps,
        exposure=recording.cuts.exposure,
        sharp_step=step_of(*recording.cuts.exposure, args.sharp_at),
    )
    length = recording.cuts.exposure[1] - recording.cuts.exposure[0]
    streams = recording.streams
    order = f"bit_order {streams.found[0].bit_order}, " if streams.found[0].bit_order else ""
    flips = f"flipud {str(streams.flipud).lower()}" + ", mirrored left to right" * streams.fliplr
    print(f"spikes: {report.steps} steps of {size_text(streams.size)} ({report.format}), {order}{flips}")
    before, after = recording.cuts.margins
    margins = "without gaps" if recording.cuts.continuous else f"with {before} steps before and {after} after it"
    print(f"exposure: {length} steps; cut into pieces of {timing.steps} steps, {margins}")
    made = make_manifest(recording, light, _clock_hz(args, report, manifest))
    with DatasetWriter(args.out, made, replaced=[clip]) as writer:
        writer.claim(args.split, [clip])
        frames = progress(recording.frames(), total=len(recording.source.names), what=clip)
        count = writer.add_clip(args.split, clip, frames, timing)
        folder = clip_dirs(writer.staging(clip), args.split, clip)[2]
        write_text(folder / TIMES, times_table(recording), names=True)
        write_preview(folder / PREVIEW, recording, clip, timing, is_linear=light.transfer == "linear")
        writer.finish()
    if args.align:
        _align(args.out)
    _report_set(args, made, clip, count)


def read_recording(args: argparse.Namespace, manifest: Manifest | None) -> tuple[Recording, Report]:
    """Open frames and spikes, and determine which steps belong to which frame; return the doctor's report, too."""
    source, every = _frames(args.frames, args.range)
    names = source.names
    if not names:
        raise UserError(f"--range: leaves none of the {len(every)} frames of {args.frames}; correct it")
    sharp = None if args.sharp is None else _sharp(args.sharp, source, every)
    size = (args.spike_h, args.spike_w) if args.spike_h else None
    given = Given(size, args.bit_order, args.flipud)
    streams, report = pairing.open_streams(args.spikes, names, given, args.format)
    for note in report.notes:
        print(f"note: {note}")
    clock = exposures.Clock(_clock_hz(args, report, manifest), args.time_unit, args.stream_start)
    found = _exposures(args, source, every, clock, streams)[slice(*args.range)]
    if streams.is_one:
        exposures.check_order(names, found)
    length = exposures.common_length(names, found)
    if streams.is_one:
        exposures.check_overlap(names, found)
    elif args.continuous:
        raise UserError(
            f"--continuous: {args.spikes} has one file per frame, expected one stream; leave the option out"
        )
    totals = streams.totals(len(names))
    firsts = cutting.first_steps(names, found, length, totals)
    margin = cutting.default_margin(length) if args.margin is None else args.margin
    keep = manifest.continuous if manifest and args.continuous is None else args.continuous
    if streams.is_one:
        cuts = cutting.choose(firsts, length, totals[0], margin, keep)
    else:
        cuts = cutting.apart(firsts, length, totals, margin)
    crop, kept = (Box(*box) if box else None for box in (args.crop, args.spike_crop))
    fit = cutting.fit(source.frame_size, streams.size, crop=crop, resize=args.resize, spike_crop=kept)
    return Recording(source, sharp, streams, cuts, fit), report


def compare(
    recording: Recording, args: argparse.Namespace, manifest: Manifest | None
) -> tuple[Recording, pairing.Light]:
    """Turn the spikes upright and estimate how they count light, by some of the frames; what is known stays."""
    count = len(recording.source.names)
    chosen = np.unique(np.linspace(0, count - 1, _SAMPLES).round().astype(int)).tolist()
    given = Given(bit_order=args.bit_order, flipud=args.flipud)
    height, width = recording.streams.size
    complete = replace(recording, fit=replace(recording.fit, sensor=Box(0, 0, height, width)))
    reader = recording.streams.reader()
    samples = [complete.sample(reader, at) for at in chosen]
    streams, found = pairing.upright(recording.streams, samples, given, args.fliplr)
    recording = replace(recording, streams=streams)
    best = found.best or "as_is"
    first, last = recording.cuts.exposure
    fired = (last - first) * float(np.mean([sample.plane.mean() for sample in samples]))
    sizes = f"{size_text(recording.fit.size)} over {size_text(streams.size)}"
    print(
        f"frames and spikes: correlation {getattr(found, best):.3f}, {sizes}, {fired:.1f} spikes per pixel and exposure"
    )
    down, across = best in ("upside_down", "turned"), best in ("mirrored", "turned")
    for option, given_flip, differs in (
        ("--flipud", args.flipud, down),
        ("--fliplr", args.fliplr, across != streams.fliplr),
    ):
        if given_flip is not None and found.best is not None and differs:
            LOG.warning("%s was given, but the spikes fit the frames only without it; check the preview",
                        option if given_flip else option.replace("--", "--no-"))  # fmt: skip
    if found.best is None:
        LOG.warning(
            "the spikes do not look like the frames (correlation %.2f); check times and field of view", max(found)
        )
    reader = streams.reader()
    samples = [recording.sample(reader, at) for at in chosen]
    return recording, _light(samples, args, manifest)


def _light(samples: Sequence[pairing.Sample], args: argparse.Namespace, manifest: Manifest | None) -> pairing.Light:
    """Return how spikes count light: as given, as in the set, else as estimated."""
    known = manifest.transfer if manifest else None
    light = pairing.light(samples, args.transfer or known)
    fits = "fits better: correlation {srgb:.3f} with sRGB values, {linear:.3f} with linear light"
    how = "given" if args.transfer else "that of the set" if known else fits.format(**light.correlations)
    rate, source = light.rate_at_white, "mean rate / mean light of the frames"
    if args.rate_at_white or manifest:
        rate = args.rate_at_white or (manifest.rate_at_white if manifest else rate)
        source = "given" if args.rate_at_white else "that of the set"
    print(f"rate_at_white {rate:g} ({source}); transfer {light.transfer} ({how})")
    return light._replace(rate_at_white=rate)


def write_preview(path: Path, recording: Recording, clip: str, timing: ClipTiming, *, is_linear: bool) -> None:
    """Write the picture of some frames and their spikes."""
    from data.prepare.recording_preview import Shown, sheet  # imports torch

    count, reader = len(recording.source.names), recording.streams.reader()
    chosen = np.unique(np.linspace(0, count - 1, _SHOWN + 2).round().astype(int)[1:-1]).tolist()
    shown = [
        Shown(f"frame {at:06d}", recording.rgb(at), recording.spikes(reader, at), timing.exposure, timing.sharp_step)
        for at in chosen
    ]
    write_rgb(path, sheet(clip, shown, is_linear=is_linear))


def _frames(path: Path, span: Span) -> tuple[Source, Sequence[str]]:
    """Open the frames of a range; return the names of all frames, too."""
    if path.is_file():
        video = video_source(path)
        return replace(video, names=video.names[slice(*span)]), video.names
    source = folder_source(path, span)
    return source, in_time(image_files(path, None), f"--frames {path}")


def _sharp(path: Path, blurred: Source, every: Sequence[str]) -> Source:
    """Open the sharp frames of the blurred ones; `every` has the names of all blurred frames."""
    sharp = video_source(path) if path.is_file() else folder_source(path)
    if sharp.frame_size != blurred.frame_size:
        sizes = size_text(sharp.frame_size), size_text(blurred.frame_size)
        raise UserError(f"--sharp {path}: has frames of {sizes[0]}, the blurred ones have {sizes[1]}; resize them")
    counts = f"--sharp {path}: has {counted(len(sharp.names), 'frame')}, --frames {blurred.path} {len(every)}"
    differ = len(sharp.names) != len(every)
    if differ and (path.is_file() or blurred.path.is_file()):  # the names are only numbers
        raise UserError(f"{counts}, expected one sharp frame per blurred one; bring both to one frame rate and length")
    known = set(sharp.names)
    missing = [name for name in blurred.names if name not in known]
    if missing:
        raise UserError(f"--sharp {path}: has no frame {missing[0]}, expected the names of the blurred ones; add it")
    if differ:
        LOG.warning("%s; frames of one name are paired, so check that they show one moment", counts)
    return replace(sharp, names=blurred.names)


def _exposures(
    args: argparse.Namespace,
    source: Source,
    names: Sequence[str],
    clock: exposures.Clock,
    streams: pairing.Streams,
) -> list[exposures.Exposure]:
    """Return the exposures of all frames of the source."""
    if args.times:
        for option, value in (("--fps", args.fps), ("--start", args.start)):
            if value is not None:
                raise UserError(
                    f"{option}: {value:g} is given beside --times, which has the times; leave one of them out"
                )
        return exposures.from_file(args.times, names, clock, exposure=args.exposure, moment=args.timestamp)
    if args.timestamp != "start":
        raise UserError(
            f"--timestamp {args.timestamp}: is about the times of --times; add them, or give --start instead"
        )
    if args.fps and not streams.is_one:
        raise UserError(
            f"--fps: {args.spikes} has one file per frame, from whose start times count, so frames have no rate; leave "
            "the option out"
        )
    fps = args.fps or (source.fps if args.frames.is_file() else None)
    if args.exposure is None or (fps is None and streams.is_one and len(names) > 1):
        lacking = "--exposure" if args.exposure is None else "--fps"
        raise UserError(f"{lacking}: not given, nor --times; give the times of the frames, or their rate and exposure")
    rate = fps if streams.is_one else None
    return exposures.regular(names, clock, fps=rate, exposure=args.exposure, start=args.start)


def _clock_hz(args: argparse.Namespace, report: Report, manifest: Manifest | None) -> float:
    """Return the sensor's steps per second, as given, that of the set, or that of the format."""
    known = args.clock_hz or (manifest and manifest.clock_hz) or pairing.CLOCK_HZ.get(report.format)
    if known is None:
        raise UserError(
            f"--clock-hz: not given, and files of format {report.format} do not state it; give the sensor's steps per "
            "second, such as 20000"
        )
    return known


def _report_set(args: argparse.Namespace, made: Manifest, clip: str, count: int) -> None:
    own = clip_dirs(args.out, args.split, clip)[2]
    sizes = size_text((made.rgb_h, made.rgb_w)), size_text((made.spike_h, made.spike_w))
    print(f"{args.out}: clip {clip}, {counted(count, f'{args.split} frame')} of {sizes[0]} over spikes of {sizes[1]}")
    print(f"look at {own / PREVIEW}")
    if args.split == "train":
        print(f"train on it: ./launch_train.sh --dataset-root {args.out} options/vrt/guide_finetune.json")
        return
    print(how_to_restore(args.out, has_sharp=args.sharp is not None))


def _align(root: Path) -> None:
    """Measure how the two cameras see one scene; a set that does not show it stays as it is."""
    from data.spike.align import camera_pair, report  # imports torch

    try:
        print(report.text(camera_pair.align_set(camera_pair.blocks_in(root)), is_written=True))
    except UserError as error:
        LOG.warning("the cameras are not aligned: %s", error)


def make_parser() -> Parser:
    """Return the command line's parser."""
    parser = Parser(description=__doc__)
    parser.add_argument("--spikes", type=Path, required=True, metavar="FILE|DIR",
                        help="a stream (.dat, .npy, .npz, raw416, raw1024), or one file per frame")  # fmt: skip
    parser.add_argument("--frames", type=Path, required=True, metavar="DIR|VIDEO", help="the blurred frames")
    parser.add_argument(
        "--sharp", type=Path, metavar="DIR|VIDEO", help="sharp frames of the same names, if there are any"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="ROOT", help="folder of the data set")
    parser.add_argument("--split", choices=SPLITS, default="test", help="split that the clip belongs to")
    parser.add_argument("--clip", metavar="NAME", help="name of the clip (default: that of the spikes)")
    parser.add_argument("--range", type=parse_range, default=WHOLE, metavar="FIRST:LAST",
                        help="use only the frames FIRST .. LAST-1 (default: all)")  # fmt: skip
    add_times(parser.add_argument_group("times"))
    add_geometry(parser.add_argument_group("spikes and frames"))
    group = parser.add_argument_group("the set")
    group.add_argument("--margin", type=whole, metavar="N",
                       help="steps before and after each exposure (default: what the guide can use)")  # fmt: skip
    group.add_argument("--continuous", action=argparse.BooleanOptionalAction,
                       help="cut without gaps (default: if that takes less space than margins)")  # fmt: skip
    group.add_argument("--align", action=argparse.BooleanOptionalAction, default=True,
                       help="align the cameras")  # fmt: skip
    group.add_argument("--sharp-at", type=up_to_one, default=0.5, metavar="T",
                       help="the moment of the sharp frames, as a fraction of the exposure")  # fmt: skip
    group.add_argument("--rate-at-white", type=above_zero_up_to_one, metavar="R",
                       help="spikes per step of a white pixel (default: estimated; "
                       "spike.gain \"picture\" does not use it)")  # fmt: skip
    group.add_argument("--transfer", choices=["srgb", "linear"],
                       help="what the sensor integrates (default: what fits the frames better)")  # fmt: skip
    parser.add_common()
    return parser


def add_times(group: argparse._ArgumentGroup) -> None:
    """Add the options about times."""
    group.add_argument("--times", type=Path, metavar="FILE", help="csv, txt or json: when each frame was exposed")
    group.add_argument("--time-unit", choices=exposures.UNITS, default="s",
                       help="unit of --exposure, --start, --stream-start and of times without their own")  # fmt: skip
    group.add_argument("--exposure", type=above_zero, metavar="T", help="length of every exposure, in --time-unit")
    group.add_argument("--timestamp", choices=exposures.MOMENTS, default="start",
                       help="what a single time per frame marks: start, middle or end of its exposure")  # fmt: skip
    group.add_argument("--fps", type=above_zero, help="frames per second, without --times")
    group.add_argument("--start", type=number, metavar="T", help="when the first exposure starts, without --times "
                       "(default: with the stream)")  # fmt: skip
    group.add_argument("--stream-start", type=number, default=0.0, metavar="T", help="time of the stream's first step")
    group.add_argument("--clock-hz", type=above_zero, metavar="F",
                       help="spike steps per second (default: that of the set; for raw416 20000)")  # fmt: skip


def add_geometry(group: argparse._ArgumentGroup) -> None:
    """Add the options about pixels."""
    group.add_argument("--spike_h", type=positive, metavar="H", help="rows of the sensor (default: found in the bits)")
    group.add_argument("--spike_w", type=positive, metavar="W",
                       help="columns of the sensor (default: found in the bits)")  # fmt: skip
    group.add_argument("--bit_order", choices=["little", "big"],
                       help="which bit of a byte is its leftmost pixel (default: found in the bits)")  # fmt: skip
    group.add_argument("--flipud", action=argparse.BooleanOptionalAction,
                       help="rows are stored bottom-up (default: by the frames)")  # fmt: skip
    group.add_argument("--fliplr", action=argparse.BooleanOptionalAction,
                       help="spikes are mirrored, as behind a beam splitter (default: by the frames)")  # fmt: skip
    group.add_argument("--format", choices=FORMATS, help="format of the spikes (default: by their content)")
    names = ("TOP", "LEFT", "HEIGHT", "WIDTH")
    group.add_argument("--crop", type=whole, nargs=4, metavar=names, help="the part of the frames that the sensor sees")
    group.add_argument("--resize", type=positive, metavar="K", help="resize the frames to K times the spikes' size")
    group.add_argument("--spike-crop", type=whole, nargs=4, metavar=names,
                       help="the part of the sensor to keep; the frames lose the same")  # fmt: skip


def main() -> None:
    """Read the command line and prepare."""
    args = make_parser().parse_args()
    with program(args.debug, args.quiet):
        if (args.spike_h is None) != (args.spike_w is None):
            raise UserError("--spike_h and --spike_w: only one is given, expected both or none; add the other")
        prepare(args)


if __name__ == "__main__":
    main()
