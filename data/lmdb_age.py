"""Is an LMDB older than the folder that it was made of? A look at names, sizes and times, once, when it is opened."""

from itertools import chain
from pathlib import Path

from data.image_folders import is_hidden
from data.layout import SPLITS, gt_dir, instant_dir, lq_dir, spike_dir, subframe_dir
from data.lmdb_store import DATA, LmdbStore, is_lmdb, read_stamps, stamp_of
from options.schema import DatasetOpt
from utils.utils_error import counted, say_once

DIRS = (gt_dir, lq_dir, spike_dir, subframe_dir, instant_dir)


def warn_of_old_lmdbs(opt: DatasetOpt) -> None:
    """Warn, in one line, if LMDBs of a data set are older than the folders beside them; absent folders do not count."""
    given = (opt.dataroot_lq, opt.dataroot_gt, opt.dataroot_spike, opt.dataroot_subframes, opt.dataroot_instants)
    roots = [Path(root).expanduser() for root in given if root is not None]
    lines = [line for root in roots if is_lmdb(root) and (line := _how_old(root))]
    if lines:
        say_once(lines[0] + f" (and {counted(len(lines) - 1, 'more LMDB')})" * (len(lines) > 1))


def _how_old(root: Path) -> str:
    """Say what changed in an LMDB's folder since it was written, and how to renew it; empty if nothing did."""
    folder = root.with_suffix("")
    if root.suffix != ".lmdb" or not folder.is_dir():
        return ""
    keys = {f"{clip}/{frame}" for clip, frames in LmdbStore(root).clips().items() for frame in frames}
    there, others = dict[str, Path](), list[Path]()
    for path in chain(folder.glob("*/*"), folder.glob("*/*/*")):
        clip = path.relative_to(folder).parent
        key = next((key for key in (f"{clip}/{path.stem}", f"{clip.parent}/{path.stem}") if key in keys), "")
        if any(map(is_hidden, (*clip.parts, path.name))) or not path.is_file():
            continue
        if key:
            there[key] = path
        else:
            others.append(path)
    if not there:
        return ""
    known, written = read_stamps(root.resolve()), stamp_of(root / DATA)[1]

    def is_changed(key: str) -> bool:
        size, changed, _ = stamp_of(there[key])
        return known[key][:2] != [size, changed] if key in known else changed > written

    suffixes = {path.suffix for path in there.values()}
    new = [str(path.relative_to(folder)) for path in others if path.suffix in suffixes]
    found = sorted([*filter(is_changed, there), *(keys - there.keys()), *new])
    if not found:
        return ""
    places = [(one, split) for one in folder.parents for split in SPLITS if folder in [at(one, split) for at in DIRS]]
    how = " --dataset-root {} --splits {}".format(*places[0]) if places else ""
    return (
        f"{root}: is older than {folder}: {counted(len(found), 'file')} changed, new or gone, such as {found[0]}; "
        f"renew it: python scripts/data_preparation/create_lmdb.py{how} --force"
    )
