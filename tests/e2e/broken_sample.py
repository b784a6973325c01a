"""main_train_vrt.py on data of which the samples at the global positions in $BROKEN hold a NaN."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import main_train_vrt
from data.loader import StepBatches
from utils import utils_cli

BROKEN = [int(position) for position in os.environ["BROKEN"].split(",")]
whole = StepBatches._sample


def broken(self, position):
    """The sample with a NaN in its first pixel, where the position asks for it."""
    sample = whole(self, position)
    if position in BROKEN:
        sample["lq"][0, 0, 0, 0] = float("nan")
    return sample


if __name__ == "__main__":
    StepBatches._sample = broken
    arguments = main_train_vrt.parse_args()
    with utils_cli.program(arguments.debug):
        main_train_vrt.main(main_train_vrt.read_options(arguments))
