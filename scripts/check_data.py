"""Check the data sets of an option file and list every defect with its clip and frame.

python scripts/check_data.py --opt CONFIG.json [--set KEY=VALUE ...] [--fast]

Every frame and `.dat` file is decoded and checked; --fast compares only names, counts and file sizes, as training does
when it starts. Exit code 0: no defects; 2: defects, listed on stdout.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from options.schema import Opt
from utils import utils_cli, utils_option
from utils.utils_error import UserError


def check(opt: Opt, full: bool) -> int:
    """Check an option file's data sets, print the defects and return their number; `full`: decode all files."""
    blocks = opt.datasets.sets
    if not blocks:
        raise UserError("datasets: has neither train nor test, expected a data set to check; give another option file")
    from data.check import check_dataset  # imports torch

    count = 0
    for name, block in blocks.items():
        defects = check_dataset(block, opt.netG.upscale, full=full)
        for defect in defects:
            print(defect)
        count += len(defects)
        print(f"datasets.{name} ({block.dataroot_lq}): {len(defects) or 'no'} defect{'s' * (len(defects) != 1)}")
    return count


def main() -> None:
    """Read the command line and check."""
    parser = utils_cli.Parser(description=__doc__)
    parser.add_argument("--fast", action="store_true", help="compare only names, counts and file sizes")
    parser.add_common(opt="option file, JSON with comments")
    args = parser.parse_args()
    with utils_cli.program(args.debug, args.quiet):
        if check(utils_option.load(args.opt, Opt, args.set), full=not args.fast):
            raise SystemExit(utils_cli.EXIT_USER)


if __name__ == "__main__":
    main()
