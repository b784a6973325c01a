"""The doctor for spike files: what is in them, arrays of them, pictures and videos of them.

spike.py inspect x.dat                                  size, bit order, flip, rates, defects, and a plain verdict
spike.py inspect x.dat --spike_h 360 --spike_w 640      the same, and whether this is true
spike.py inspect datasets/gopro_spike                   every spike file below a folder, a line or more for each folder
spike.py decode x.dat --out x.npz                       (T, H, W) uint8 as `spk`, with its geometry; or .npy
spike.py preview x.dat                                  x_preview.png: playback at several windows; or --out x.mp4

What a manifest.json or config.yaml in the file's folder or above says is used, and checked by `inspect`. Formats: .dat,
.npy, .npz with `spk`, and the raw files of 250x400 (raw416) and 1000x1000 (raw1024) cameras.
Exit codes: 0, 2 (what is said about the file is wrong, or the file is no spike file), 1 (failure).
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data.spike.doctor import survey
from data.spike.doctor.declared import Declared, Given, declared_for
from data.spike.doctor.examine import DEFAULT_FLIPUD, by
from data.spike.doctor.inspection import inspect_file, text
from data.spike.doctor.preview import write_preview
from data.spike.formats import FORMATS, Found, open_spikes
from data.spike.texture import likelier_geometry
from utils.utils_cli import EXIT_USER, Parser, positive, program
from utils.utils_error import UserError
from utils.utils_file import whole_file
from utils.utils_json import finite


def inspect(args: argparse.Namespace) -> int:
    """Print a report of a file or folder; returns the exit code."""
    if not args.file.exists():
        raise UserError(f"{args.file}: no such file or folder; check the path")
    given = given_by(args)
    if args.file.is_dir():
        rows = survey.survey(args.file, given)
        print(json.dumps(finite({"folders": rows})) if args.json else survey.text(rows))
        return EXIT_USER if any(row["wrong"] for row in rows) else 0
    report = inspect_file(args.file, given, picture=args.image, format=args.format)
    print(json.dumps(finite(report.as_dict())) if args.json else text(report))
    return EXIT_USER if report.wrong else 0


def decode(args: argparse.Namespace) -> int:
    """Write the spikes of a file as an array; returns the exit code."""
    out: Path = args.out
    if out.suffix not in (".npy", ".npz"):
        raise UserError(f"--out {out}: '{out.suffix}' is no array format; use .npy or .npz")
    refuse_to_overwrite(out, args.force)
    spikes, found, declared = read(args, args.steps)
    first, last = args.steps or (0, found.steps)
    with whole_file(out) as temporary:
        if out.suffix == ".npy":
            np.save(temporary, spikes)
        else:
            np.savez_compressed(
                temporary, spk=spikes, spike_h=found.height, spike_w=found.width, steps=np.array([first, last])
            )
    print(f"{out}: {len(spikes)} steps of {size_text(found, declared)}, row 0 at the top")
    return 0


def preview(args: argparse.Namespace) -> int:
    """Write a picture or video of the spikes of a file; returns the exit code."""
    out: Path = args.out or Path(f"{args.file.stem}_preview.png")
    refuse_to_overwrite(out, args.force)
    spikes, found, declared = read(args)
    default = declared.timing.sharp_step if declared.timing else found.steps // 2
    center = min(default, found.steps - 1) if args.step is None else args.step
    if not 0 <= center < found.steps:
        raise UserError(f"--step {center}: must lie in [0, {found.steps}), the steps of {args.file}; correct it")
    write_preview(out, spikes, center, args.file.name)
    print(f"{out}: {found.steps} steps of {size_text(found, declared)}, around step {center}")
    return 0


def read(args: argparse.Namespace, steps: tuple[int, int] | None = None) -> tuple[np.ndarray, Found, Declared]:
    """Read a file's spikes by what is said about it and, where nothing is, by what the stream itself tells."""
    declared = declared_for(args.file, given_by(args))
    size = next(iter(declared.sizes.values()), None)
    order = next(iter(declared.orders.values()), None)
    flipud = next(iter(declared.flips.values()), DEFAULT_FLIPUD)
    spikes, found = open_spikes(
        args.file, size=size, flipud=flipud, bit_order=order, format=args.format, steps=steps
    )  # fmt: skip
    if found.format == "dat" and size is not None:
        likelier = likelier_geometry(args.file, *size)
        if likelier:
            looks = f"looks like {by(likelier)}, not like {by(size)}"
            print(f"warning: {args.file}: {looks}; inspect says more", file=sys.stderr)
    return spikes, found, declared


def size_text(found: Found, declared: Declared) -> str:
    """Return the size of what was read, and where it comes from if nobody says it."""
    told = " (told from the bits)" if found.format == "dat" and not declared.sizes else ""
    return f"{found.height}x{found.width}{told}"


def given_by(args: argparse.Namespace) -> Given:
    """Return what the command line says about the file."""
    if (args.spike_h is None) != (args.spike_w is None):
        raise UserError("--spike_h and --spike_w: only one is given, expected both or none; add the other")
    return Given((args.spike_h, args.spike_w) if args.spike_h else None, args.bit_order, args.flipud)


def refuse_to_overwrite(path: Path, force: bool) -> None:
    """Stop where a file would be replaced that nobody said to replace."""
    if path.exists() and not force:
        raise UserError(f"{path}: is there already; choose another --out or add --force")


def step_range(text: str) -> tuple[int, int]:
    """Read A:B."""
    first, colon, last = text.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text} is no range A:B of steps")
    return int(first), int(last)


def make_parser() -> Parser:
    """Return the command line's parser."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="inspect|decode|preview", parser_class=Parser)
    common = Parser(add_help=False)
    common.add_argument("file", type=Path, metavar="FILE", help="a spike file (inspect: or a folder)")
    common.add_argument(
        "--spike_h", type=positive, metavar="H", help="rows; default: what is said, else told from the bits"
    )
    common.add_argument("--spike_w", type=positive, metavar="W", help="columns")
    common.add_argument("--bit_order", choices=["little", "big"], help="which bit of a byte is its leftmost pixel")
    text = "rows are stored bottom-up, or not (default: bottom-up)"
    common.add_argument("--flipud", action=argparse.BooleanOptionalAction, help=text)
    common.add_argument("--format", choices=FORMATS, help="default: told from the content")
    common.add_argument("--debug", action="store_true", help="print the traceback of an error")

    command = commands.add_parser("inspect", parents=[common], help="say what a file is, and what is wrong")
    command.add_argument(
        "--image", type=Path, metavar="F", help="a paired picture; default: found in the usual layouts"
    )
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=inspect)

    command = commands.add_parser("decode", parents=[common], help="write the spikes as an array")
    command.add_argument("--out", type=Path, metavar="F", required=True, help=".npy or .npz")
    command.add_argument("--steps", type=step_range, metavar="A:B", help="the steps A..B-1 only")
    command.add_argument("--force", action="store_true", help="replace an existing file")
    command.set_defaults(run=decode)

    command = commands.add_parser("preview", parents=[common], help="write a picture or video of the spikes")
    command.add_argument(
        "--out", type=Path, metavar="F", help="image or .mp4; default: FILE's stem + _preview.png, here"
    )
    command.add_argument("--step", type=int, metavar="N", help="the step that is shown (default: sharp step or middle)")
    command.add_argument("--force", action="store_true", help="replace an existing file")
    command.set_defaults(run=preview)
    return parser


def main() -> int:
    """Read the command line and do what it says."""
    args = make_parser().parse_args()
    with program(debug=args.debug):
        return args.run(args)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
