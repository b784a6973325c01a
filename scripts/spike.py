"""The doctor for spike files: inspect them, decode them to arrays, make pictures and videos of them.

spike.py inspect x.dat                                  size, bit order, flip, rates, defects, and a verdict
spike.py inspect x.dat --spike_h 360 --spike_w 640      the same, and whether this size is right
spike.py inspect datasets/gopro_spike                   every spike file below a folder, one or more lines per folder
spike.py decode x.dat --out x.npz                       (T, H, W) uint8 as `spk`, with its geometry; or .npy
spike.py preview x.dat                                  x_preview.png: playback at several windows; or --out x.mp4
spike.py align datasets/my_set [--dry-run]              geometry and time between spikes and frames, into manifest.json

A manifest.json or config.yaml is used where training finds it (docs/spikes.md), and checked by `inspect`. Formats:
.dat, .npy, .npz with `spk`, and the raw files of 250x400 (raw416) and 1000x1000 (raw1024) cameras.
Exit codes: 0, 2 (a declaration about the file is wrong, or it is not a spike file), 1 (failure).
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data.geometry import size_text
from data.spike.doctor import survey
from data.spike.doctor.declared import Declared, Given, declared_for, refuse_unused
from data.spike.doctor.examine import DEFAULT_FLIPUD
from data.spike.doctor.inspection import inspect_file, report_text
from data.spike.formats import FORMATS, Found, format_of, open_spikes
from data.spike.texture import likelier_geometry
from options.schema import Opt
from utils import utils_option
from utils.utils_cli import EXIT_USER, Parser, positive, program
from utils.utils_error import UserError
from utils.utils_file import whole_file
from utils.utils_json import finite


def inspect(args: argparse.Namespace) -> int:
    """Print a report on a file or folder; return the exit code."""
    if not args.file.exists():
        raise UserError(f"{args.file}: no such file or folder; check the path")
    given = given_by(args)
    if args.file.is_dir():
        rows = survey.survey(args.file, given)
        print(json.dumps(finite({"folders": rows})) if args.json else survey.text(rows))
        return EXIT_USER if any(row["wrong"] for row in rows) else 0
    report = inspect_file(args.file, given, picture=args.image, format=args.format)
    print(json.dumps(finite(report.as_dict())) if args.json else report_text(report))
    return EXIT_USER if report.wrong else 0


def decode(args: argparse.Namespace) -> int:
    """Write the spikes of a file as an array; return the exit code."""
    out: Path = args.out
    if out.suffix not in (".npy", ".npz"):
        raise UserError(f"--out {out}: '{out.suffix}' is not an array format; use .npy or .npz")
    refuse_to_overwrite(out, args.force)
    spikes, found, declared = read(args, args.steps)
    first, last = args.steps or (0, found.steps)
    with whole_file(out) as temporary:
        if out.suffix == ".npy":
            np.save(temporary, spikes)
        else:
            steps = np.array([first, last])
            np.savez_compressed(temporary, spk=spikes, spike_h=found.height, spike_w=found.width, steps=steps)
    print(f"{out}: {len(spikes)} steps of {source_text(found, declared)}, row 0 at the top")
    return 0


def preview(args: argparse.Namespace) -> int:
    """Write a picture or video of the spikes of a file; return the exit code."""
    out: Path = args.out or Path(f"{args.file.stem}_preview.png")
    refuse_to_overwrite(out, args.force)
    from data.spike.doctor.preview import write_preview  # imports torch

    spikes, found, declared = read(args)
    default = declared.timing.in_spikes().sharp_step if declared.timing else found.steps // 2
    center = max(min(default, found.steps - 1), 0) if args.step is None else args.step
    if not 0 <= center < found.steps:
        raise UserError(f"--step {center}: must lie in [0, {found.steps}), the steps of {args.file}; correct it")
    write_preview(out, spikes, center, args.file.name)
    print(f"{out}: {found.steps} steps of {source_text(found, declared)}, around step {center}")
    return 0


def align(args: argparse.Namespace) -> int:
    """Align the cameras of a data set and write its manifest; return the exit code."""
    if (args.folder is None) == (args.opt is None):
        raise UserError("align: expected either the folder of a data set or --opt with an option file")
    from data.spike.align import camera_pair, report  # imports torch

    if args.folder is not None:
        blocks = camera_pair.blocks_in(args.folder)
    else:
        given = utils_option.load(args.opt, Opt, args.set).datasets
        blocks = [block for block in given.sets.values() if block.uses_spikes]
        if not blocks:
            raise UserError(f"{args.opt}: no data set with spikes, expected one to align; give another option file")
    settings = camera_pair.Settings(args.model, args.max_steps, args.per_clip, args.length)
    found = camera_pair.align_set(blocks, settings, write=not args.dry_run)
    if args.json:
        print(json.dumps(finite(report.values(found, is_written=not args.dry_run))))
    else:
        print(report.text(found, is_written=not args.dry_run))
    return 0


def read(args: argparse.Namespace, steps: tuple[int, int] | None = None) -> tuple[np.ndarray, Found, Declared]:
    """Read a file's spikes as declared or, without a declaration, as the bits imply."""
    given = given_by(args)
    refuse_unused(args.file, args.format or format_of(args.file), given)
    declared = declared_for(args.file, given)
    size = next(iter(declared.sizes.values()), None)
    order = next(iter(declared.orders.values()), None)
    flipud = next(iter(declared.flips.values()), DEFAULT_FLIPUD)
    spikes, found = open_spikes(args.file, size=size, flipud=flipud, bit_order=order, format=args.format, steps=steps)
    if found.format == "dat" and size is not None:
        likelier = likelier_geometry(args.file, *size)
        if likelier:
            looks = f"looks like {size_text(likelier)}, not like {size_text(size)}"
            print(f"warning: {args.file}: {looks}; see spike.py inspect", file=sys.stderr)
    return spikes, found, declared


def source_text(found: Found, declared: Declared) -> str:
    """Format the size of what was read, and whether it was estimated."""
    source = " (estimated from the bits)" if found.format == "dat" and not declared.sizes else ""
    return f"{found.height}x{found.width}{source}"


def given_by(args: argparse.Namespace) -> Given:
    """Return the command line's declarations about the file."""
    if (args.spike_h is None) != (args.spike_w is None):
        raise UserError("--spike_h and --spike_w: only one is given, expected both or none; add the other")
    return Given((args.spike_h, args.spike_w) if args.spike_h else None, args.bit_order, args.flipud)


def refuse_to_overwrite(path: Path, force: bool) -> None:
    """Raise UserError if the file exists and may not be replaced."""
    if path.exists() and not force:
        raise UserError(f"{path}: already exists; choose another --out or add --force")


def step_range(text: str) -> tuple[int, int]:
    """Parse A:B."""
    first, colon, last = text.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text} is not a range A:B of steps")
    return int(first), int(last)


def make_parser() -> Parser:
    """Return the command line's parser."""
    parser = Parser(description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="inspect|decode|preview|align", parser_class=Parser)
    common = Parser(add_help=False)
    common.add_argument("file", type=Path, metavar="FILE", help="a spike file (inspect: or a folder)")
    text = "rows (default: as declared, else estimated from the bits)"
    common.add_argument("--spike_h", type=positive, metavar="H", help=text)
    common.add_argument("--spike_w", type=positive, metavar="W", help="columns (default: likewise)")
    common.add_argument("--bit_order", choices=["little", "big"], help="which bit of a byte is its leftmost pixel")
    text = "whether rows are stored bottom-up (default: yes)"
    common.add_argument("--flipud", action=argparse.BooleanOptionalAction, help=text)
    common.add_argument("--format", choices=FORMATS, help="format of the file (default: by its content)")
    common.add_common()

    command = commands.add_parser("inspect", parents=[common], help="report what a file is, and what is wrong")
    text = "a paired picture (default: found in the usual layouts)"
    command.add_argument("--image", type=Path, metavar="F", help=text)
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=inspect)

    command = commands.add_parser("decode", parents=[common], help="write the spikes as an array")
    command.add_argument("--out", type=Path, metavar="F", required=True, help=".npy or .npz")
    command.add_argument("--steps", type=step_range, metavar="A:B", help="only the steps A..B-1 (default: all)")
    command.add_argument("--force", action="store_true", help="replace an existing file")
    command.set_defaults(run=decode)

    command = commands.add_parser("preview", parents=[common], help="write a picture or video of the spikes")
    text = "image or .mp4 (default: FILE's stem + _preview.png, here)"
    command.add_argument("--out", type=Path, metavar="F", help=text)
    command.add_argument("--step", type=int, metavar="N", help="the step to show (default: sharp step or middle)")
    command.add_argument("--force", action="store_true", help="replace an existing file")
    command.set_defaults(run=preview)
    command = commands.add_parser("align", help="measure geometry and time between spikes and frames of a data set")
    command.add_argument("folder", type=Path, nargs="?", metavar="DIR", help="a data set; its manifest.json is written")
    text = "how the cameras differ; auto: the simplest model that agrees as well as the others"
    command.add_argument("--model", choices=["auto", "shift", "similarity", "homography"], default="auto", help=text)
    text = "largest offset in time, in spike steps"
    command.add_argument("--max-steps", type=positive, default=24, metavar="N", help=text)
    text = "align each clip by itself (default: one for all that agree)"
    command.add_argument("--per-clip", action="store_true", help=text)
    command.add_argument("--length", action="store_true", help="measure the length of the exposure too")
    command.add_argument("--dry-run", action="store_true", help="write nothing")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.add_argument("--opt", type=Path, metavar="CONFIG", help="take the folders of an option file")
    command.add_set()
    command.add_common()
    command.set_defaults(run=align)
    return parser


def main() -> int:
    """Read the command line and run the command."""
    args = make_parser().parse_args()
    with program(args.debug, args.quiet):
        return args.run(args)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
