"""Write a copy of an option file with other data folders, for the launch scripts, and print its path.

The copy is experiments/<task>/runtime_train.json or results/<task>/runtime_test.json. It inherits from the option file,
so it holds only the folders.

python scripts/runtime_config.py --mode train --opt CONFIG.json [--dataset-root P] [--spike-root P] [--lmdb]
                                 [--set KEY=VALUE ...] [--check]

With --check nothing is written or printed: only the options are checked, before there are data.
"""

import json
import logging
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data.layout import META_INFO, SPIKES, Split, gt_dir, instant_dir, lq_dir, meta_info_path, subframe_dir
from data.lmdb_store import is_lmdb, lmdb_path
from data.meta_info import read_meta_info
from data.spike.config_yaml import SpikeConfig
from data.spike.manifest import Manifest
from options.schema import DatasetOpt, Opt
from utils import utils_option
from utils.utils_cli import Parser, program
from utils.utils_error import UserError
from utils.utils_file import own_path, write_text

OPTIONAL = ("dataroot_spike", "dataroot_subframes", "dataroot_instants")  # are read from folders, too


def moved_roots(dataset: DatasetOpt, split: Split, root: Path | None, spike_root: Path | None) -> dict[str, Path]:
    """Return the moved folders and files of one data set, among those that it names.

    `root` holds <split>_GT, <split>_GT_blurred and GOPRO_Large_spike_seq/<split>; None: only spikes move. `spike_root`
    holds <split> with the spikes; None: those below `root`.
    """
    moved: dict[str, Path] = {}
    if root is not None:
        moved["dataroot_lq"] = lq_dir(root, split)
        if dataset.dataroot_gt is not None:
            moved["dataroot_gt"] = gt_dir(root, split)
        if dataset.dataroot_subframes is not None:
            moved["dataroot_subframes"] = subframe_dir(root, split)
        if dataset.dataroot_instants is not None:
            moved["dataroot_instants"] = instant_dir(root, split)
        meta_info = meta_info_path(root, split)
        if dataset.meta_info_file is not None and meta_info.is_file():
            moved["meta_info_file"] = meta_info
    if dataset.uses_spikes:
        spikes = spike_root if spike_root is not None or root is None else root / SPIKES
        if spikes is not None:
            moved["dataroot_spike"] = spikes / split
    return moved


def lmdb_roots(dataset: DatasetOpt, moved: dict[str, Path]) -> dict[str, Path]:
    """Return the LMDB of each folder of a data set, moved or not; those of OPTIONAL stay folders without an LMDB."""
    roots = {key: getattr(dataset, key) for key in ("dataroot_lq", "dataroot_gt", *OPTIONAL)} | moved
    roots = {key: lmdb_path(Path(path)) for key, path in roots.items() if path is not None and key != "meta_info_file"}
    return moved | {key: path for key, path in roots.items() if key not in OPTIONAL or is_lmdb(path)}


def changed_options(
    dataset: DatasetOpt, split: Split, root: Path | None, spike_root: Path | None, lmdb: bool
) -> dict[str, Any]:
    """Return the changed options of one data set; arguments as in `moved_roots` and `write_runtime_config`."""
    moved = moved_roots(dataset, split, root, spike_root)
    changes: dict[str, Any] = {}
    if lmdb:
        changes["io_backend"] = {"type": "lmdb"}
    if lmdb or dataset.io_backend.type == "lmdb":
        moved = lmdb_roots(dataset, moved)
    spikes = moved.get("dataroot_spike")
    if spikes and (Manifest.load(spikes) or SpikeConfig.load(spikes)):
        changes |= {"spike_h": None, "spike_w": None}  # these files have them
    if root is not None and dataset.meta_info_file is not None and "meta_info_file" not in moved:
        changes |= old_meta_info(Path(dataset.meta_info_file), lq_dir(root, split))
    return {key: str(path) for key, path in moved.items()} | changes


def old_meta_info(path: Path, clips: Path) -> dict[str, None]:
    """Return the change of meta_info_file for a moved folder of clips without its own; say which is used on stderr."""
    if not path.is_file():
        return {}  # an error when the data are read
    is_others = clips.is_dir() and not any(own_path(clips, clip).exists() for clip in read_meta_info(path))
    used = "names none of its clips, so all of them are used" if is_others else "is used"
    print(f"note: {clips.parent} has no {META_INFO} for {clips.name}; {path} {used}", file=sys.stderr)
    return {"meta_info_file": None} if is_others else {}


def checked_options(config: Path, mode: str, overrides: list[str], *, moves: bool) -> Opt:
    """Load the options of a run; `moves` tells that folders will be moved, the rest is as in `write_runtime_config`.

    Raises:
        UserError: the option file cannot be used, or folders of a list of training sets would move.
    """
    opt = utils_option.load(config, Opt, overrides=overrides)
    missing = opt.untrained if mode == "train" else opt.untested
    if missing:
        raise UserError(f"{config}: {missing}")
    if mode == "train" and moves and isinstance(opt.datasets.train, tuple):
        raise UserError(
            f"{config}: datasets.train is a list of {len(opt.datasets.train)}, but --dataset-root, --spike-root and "
            "--generate-lmdb are for one set; give the folders in the option file or by "
            "--set datasets.train.0.dataroot_lq=..."
        )
    return opt


def write_runtime_config(
    config: Path, mode: str, root: Path | None, spike_root: Path | None, overrides: list[str], *, lmdb: bool = False
) -> Path:
    """Write the copy atomically into the run or results folder that `config` describes; return its path.

    `mode` is "train" or "test", part of its name; `root` the folder of a whole data set, `spike_root` that of the
    spikes, or None; `overrides`, "KEY=VALUE" of the same run, may name another task; `lmdb`: read the LMDBs beside the
    folders. UserError: see `checked_options`.
    """
    opt = checked_options(config, mode, overrides, moves=True)
    train = None if isinstance(opt.datasets.train, tuple) else opt.datasets.train  # a test does not read a list
    blocks: dict[Split, DatasetOpt | None] = {"train": train, "test": opt.datasets.test}
    datasets = {
        split: changed_options(dataset, split, root, spike_root, lmdb)
        for split, dataset in blocks.items()
        if dataset is not None
    }
    folder = opt.run_dir if mode == "train" else opt.results_dir
    path = folder / f"runtime_{mode}.json"
    tree = {utils_option.BASE_KEY: str(config.resolve()), "datasets": datasets}
    write_text(path, json.dumps(tree, indent=2) + "\n")
    return path


def main() -> None:
    """Read the command line and write the copy."""
    parser = Parser(description=__doc__)
    parser.add_argument("--mode", choices=("train", "test"), required=True, help="the launcher that asks")
    parser.add_argument("--opt", type=Path, required=True, help="the option file")
    parser.add_argument("--dataset-root", type=Path, help="folder of a whole data set")
    parser.add_argument("--spike-root", type=Path, help="folder with train and test spikes")
    parser.add_argument("--lmdb", action="store_true", help="use the LMDBs beside the folders")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides for the same run")
    parser.add_argument("--check", action="store_true", help="only check the options")
    args = parser.parse_args()
    with program():
        logging.getLogger("spikevrt").setLevel(logging.WARNING)  # the caller reads the path from stdout
        if args.check:
            moves = bool(args.dataset_root or args.spike_root or args.lmdb)
            checked_options(args.opt, args.mode, args.set, moves=moves)
            return
        print(write_runtime_config(args.opt, args.mode, args.dataset_root, args.spike_root, args.set, lmdb=args.lmdb))


if __name__ == "__main__":
    main()
