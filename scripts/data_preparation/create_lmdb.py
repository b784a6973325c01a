"""Write an LMDB beside each folder of frames and spikes of a prepared data set, for io_backend.type "lmdb".

ROOT/{train,test}_GT.lmdb                        sharp frames
ROOT/{train,test}_GT_blurred.lmdb                blurred frames
ROOT/GOPRO_Large_spike_seq/{train,test}.lmdb     spikes, as in the .dat files
ROOT/{train,test}_subframes.lmdb                 stored light, as in the .npy files, if there is any
ROOT/{train,test}_GT_instants.lmdb               sharp frames at other instants, if there are any

Each holds data.mdb, lock.mdb and meta_info.txt in the layout of KAIR and BasicSR: key `<clip>/<frame>`, value a PNG
file. The default PNG level 0 takes twice the disk space of the source and is decoded ten times faster. An existing LMDB
that matches its folder is kept: files of the recorded size and times count as unchanged, all others are compared. An
interrupted run leaves no incomplete LMDB. Only one process at a time can write an LMDB, so there are no shards; the two
splits may be written at the same time.

python scripts/data_preparation/create_lmdb.py --dataset-root P [--splits train test] [--compression 0..9] [--force]
    [--workers N]
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from data.layout import SPLITS
from data.prepare.lmdb_writer import create_lmdbs
from utils.utils_cli import Parser, positive, program


def main() -> None:
    """Read the command line and write the LMDB folders."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--dataset-root", "--dataset_root", type=Path, required=True, metavar="P", help="folder of the data set"
    )
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=list(SPLITS), help="splits to write")
    parser.add_argument("--compression", type=int, choices=range(10), default=0, help="PNG level of the frames, 0 to 9")
    parser.add_argument("--force", action="store_true", help="rewrite existing LMDBs")
    parser.add_argument("--workers", type=positive, default=os.cpu_count() or 1, help="threads that encode frames")
    parser.add_common()
    args = parser.parse_args()
    with program(args.debug, args.quiet):
        splits = [split for split in SPLITS if split in args.splits]
        create_lmdbs(
            args.dataset_root, splits, force=args.force, workers=args.workers, compression=args.compression
        )  # fmt: skip
        print(f"{args.dataset_root}: LMDB folders of {' and '.join(splits)} are ready")


if __name__ == "__main__":
    main()
