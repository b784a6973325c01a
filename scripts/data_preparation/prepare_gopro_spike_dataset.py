"""Bring GoPro and its spikes into the layout that training and testing read.

you have   GOPRO_Large/{train,test}/<clip>/{blur,blur_gamma,sharp}/000047.png    blurred and sharp frames
           GOPRO_Large_spike_seq/{train,test}/<clip>/spike/000047.dat            spikes, half the frames' size
you get    datasets/gopro_spike/{train,test}_{GT,GT_blurred}, GOPRO_Large_spike_seq, meta_info

Every file is checked first: pairs, numbering, sizes, ends. All problems are listed, and nothing is written until there
are none. Then each clip becomes three links (--copy: folders of copies), described by manifest, config.yaml and
meta_info. The program can be run again at any time: existing parts are kept, missing ones are added.

--force is needed to replace a link (by another link or, with --copy, by copies) and a copied file of another size;
copied files of the same size are kept. Complete folders of copies also serve without --copy and never become links
again: move them away first. --generate-lmdb also writes LMDBs beside the folders; --force rewrites them.
"""

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from data.clip_index import listed
from data.layout import SPIKES, SPLITS, Split, described_clips, known_clips, lq_dir, merged_manifest, write_description
from data.lmdb_store import is_lmdb, lmdb_path, record_path
from data.meta_info import MetaLine
from data.prepare.gopro_check import Problem, check, counted, in_threads, report_problems
from data.prepare.gopro_places import Blur, Place, copy_places, is_filled, make_link, place_problem, places_of
from data.prepare.gopro_scan import SPIKE_SCALE, Scan, Size, common_size, short_steps
from data.spike.manifest import FILE_NAME, GOPRO_RATE_AT_WHITE, Manifest, gopro_timing
from utils.processes import folder_lock
from utils.processes.folder_lock import Lock, acquire
from utils.utils_cli import ALL, Parser, Shard, positive, program
from utils.utils_error import UserError

CLOCK_HZ = 8 * 240.0
OFFICIAL: dict[Split, tuple[int, int]] = {"train": (22, 2103), "test": (11, 1111)}  # clips, frames


def remove_outdated(root: Path, places: Sequence[Place]) -> None:
    """Remove copies and LMDBs of other blurred frames and, last, the manifest that describes them."""
    for place in places:
        if not place.target.is_symlink() and not place.is_source():
            for name in place.files:
                (place.target / name).unlink(missing_ok=True)
    for lmdb in [lmdb_path(lq_dir(root, split)) for split in SPLITS]:
        if is_lmdb(lmdb):
            shutil.rmtree(lmdb.resolve())
            record_path(lmdb.resolve()).unlink(missing_ok=True)
            print(f"{lmdb}: removed, because it held other blurred frames; --generate-lmdb writes it anew")
    (root / SPIKES / FILE_NAME).unlink(missing_ok=True)


def gopro_manifest(scans: Sequence[Scan], size: Size, blur: Blur) -> Manifest:
    """Return geometry, physics and timing of GoPro+Spike; `size` is that of the RGB frames."""
    clips = {}
    for scan in scans:
        timing = gopro_timing(scan.name)
        clips[scan.name] = timing.model_copy(update={"steps_of": short_steps(scan, timing, size)})
    return Manifest(
        spike_h=size[0] // SPIKE_SCALE,
        spike_w=size[1] // SPIKE_SCALE,
        rgb_h=size[0],
        rgb_w=size[1],
        flipud=True,
        bit_order="little",
        clock_hz=CLOCK_HZ,
        rate_at_white=GOPRO_RATE_AT_WHITE,
        theta=1 / GOPRO_RATE_AT_WHITE,
        transfer="srgb",
        noise="none",
        continuous=True,
        blur=blur,
        clips=clips,
    )


def must_replace(root: Path, manifest: Manifest, force: bool) -> bool:
    """Return whether the set in `root` was prepared with other settings and has to be replaced.

    Raises:
        UserError: it was, and `force` is not given or it has clips that the new manifest lacks.
    """
    try:
        merged_manifest(root, manifest)
    except UserError as error:
        if not force:
            raise UserError(f"{error}, or replace it with --force") from None
        left = sorted(known_clips(root).keys() - manifest.clips.keys())
        if left:
            raise UserError(
                f"{root}: prepared with other settings and not in this run: {listed(left)}; prepare all clips together "
                "or use another --dataset-root"
            ) from None
        return True
    return False


def is_described(root: Path, manifest: Manifest, lines: dict[Split, list[MetaLine]]) -> bool:
    """Return whether manifest, config.yaml and meta_info of the set are up to date."""
    known = {split: described_clips(root, split) for split in lines}
    are_listed = all(known[split].get(line.clip) == line for split in lines for line in lines[split])
    described = (root / SPIKES / FILE_NAME).is_file() and (root / SPIKES / "config.yaml").is_file()
    return are_listed and described and Manifest.read(root / SPIKES / FILE_NAME) == merged_manifest(root, manifest)


def check_places(root: Path, places: Sequence[Place], problem_of: Callable[[Place], str], workers: int) -> None:
    """Report all problems that prevent making the set in `root`."""
    known = known_clips(root)
    found = in_threads(problem_of, places, workers, "looking")
    lines = [(place, what) for place, what in zip(places, found, strict=True) if what]
    lines += [
        (place, f"{root} has it in {known[place.clip]} already; rename one")
        for place in places
        if known.get(place.clip, place.split) != place.split
    ]
    report_problems({Problem(place.split, place.clip, "", "", "", what) for place, what in lines})


def claim_split(root: Path, split: Split, shard: Shard = ALL) -> Lock:
    """Reserve a split of a set, or a shard of it, for this process until the lock is released.

    The lock file is beside the set, so that the set itself stays untouched; inside the set if its parent is read-only.

    Raises:
        UserError: another process is preparing the split.
    """
    beside = root.resolve()
    beside.parent.mkdir(parents=True, exist_ok=True)
    part = split if shard == ALL else f"{split}.{shard.index}of{shard.count}"
    path = beside.with_name(f".{beside.name}.{part}{folder_lock.NAME}")
    if not os.access(beside.parent, os.W_OK):
        path = beside / f".{part}{folder_lock.NAME}"
    what = f"{root}: split {split}" + f", shard {shard}" * (shard != ALL)
    return acquire(path, what, "wait until it ends, or use another --dataset-root")


def prepare(
    scans: Sequence[Scan],
    dataset_root: Path,
    splits: Sequence[Split],
    *,
    blur: Blur = "blur",
    copy: bool = False,
    force: bool = False,
    workers: int = 8,
    shard: Shard = ALL,
) -> dict[Split, list[MetaLine]]:
    """Combine frames and spikes of checked clips.

    Args:
        scans: what `check` found; the spikes may already be inside `dataset_root`.
        dataset_root: folder for links or copies and descriptions.
        splits: train, test or both.
        blur: folder of the blurred frames, as in `check`.
        copy: copy the files, else link the folders.
        force: replace links that lead elsewhere, copies of other sizes, and a description of other settings.
        workers: threads that copy.
        shard: the share of the set that `scans` are.

    Returns:
        The clips of each split.

    Raises:
        UserError: there are problems with the target; all of them are printed to stderr.
    """
    if not scans:
        return {split: [] for split in splits}
    size = common_size(scans) or (0, 0)
    manifest = gopro_manifest(scans, size, blur)
    replace = must_replace(dataset_root, manifest, force)
    places = [place for scan in scans for place in places_of(scan, dataset_root, blur)]
    blurred = [place for place in places if place.source.name == blur] if replace else []
    check_places(dataset_root, places, lambda one: place_problem(one, copy, force, outdated=one in blurred), workers)
    lines: dict[Split, list[MetaLine]] = {
        split: [
            MetaLine(s.name, len(s.frames), f"{size[0]},{size[1]},3", s.frames[0]) for s in scans if s.split == split
        ]
        for split in splits
    }
    is_whole = not replace and all(is_filled(place, copy) for place in places)
    if is_whole and is_described(dataset_root, manifest, lines):
        return lines  # before any write, so a read-only set works, too
    with ExitStack() as claims:
        for split in splits:
            claims.enter_context(claim_split(dataset_root, split, shard))
        if replace:
            remove_outdated(dataset_root, blurred)
        if copy:
            copy_places(places, workers)
        else:
            for place in places:
                make_link(place)
        if not is_described(dataset_root, manifest, lines):
            write_description(dataset_root, manifest, lines)
    return lines


def print_totals(lines: dict[Split, list[MetaLine]], shard: Shard = ALL) -> None:
    """Print the numbers of clips and frames, and a note if those of a whole set are not the official ones."""
    totals = {split: (len(clips), sum(line.frames for line in clips)) for split, clips in lines.items()}
    for split, (clips, frames) in totals.items():
        print(f"{split}: {counted(clips, 'clip')}, {counted(frames, 'frame')}")
    if shard == ALL and any(totals[split] != OFFICIAL[split] for split in totals):
        official = " and ".join(f"{OFFICIAL[s][0]} {s} clips with {OFFICIAL[s][1]:,} frames" for s in totals)
        print(f"note: the official set has {official}; results on other clips are not comparable to published ones")


def make_parser() -> Parser:
    """Return the command line's parser."""
    parser = Parser(description=__doc__)

    def folder(name: str, default: str, text: str) -> None:
        other = f"--{name[2:].replace('-', '_')}"
        parser.add_argument(name, other, type=Path, default=Path(default), metavar="P", help=text)

    folder("--gopro-root", "datasets/GOPRO_Large", "folder of the frames, with train/ and test/")
    folder("--spike-root", f"datasets/{SPIKES}", "folder of the spikes, with train/ and test/")
    folder("--dataset-root", "datasets/gopro_spike", "folder of the new set")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=list(SPLITS), help="splits to prepare")
    text = "averaged as stored, or in linear light; changing a prepared set needs --force"
    parser.add_argument("--blur", choices=["blur", "blur_gamma"], default="blur", help=f"blurred frames: {text}")
    parser.add_argument("--copy", action="store_true", help="copy the files (default: link the folders)")
    parser.add_argument("--generate-lmdb", "--generate_lmdb", action="store_true", help="also write LMDBs of the set")
    parser.add_argument(
        "--force", action="store_true", help="replace what was prepared from other files or with other settings"
    )
    parser.add_argument("--workers", type=positive, default=8, metavar="N", help="threads that check and copy")
    parser.add_shard("clips")
    parser.add_common()
    return parser


def main() -> None:
    """Read the command line and prepare the set."""
    args = make_parser().parse_args()
    with program(args.debug, args.quiet):
        splits = [split for split in SPLITS if split in args.splits]
        if args.generate_lmdb and args.shard != ALL:
            raise UserError(
                f"--generate-lmdb: is given beside --shard {args.shard}, but an LMDB holds all clips; leave it out, "
                "and run create_lmdb.py when all shards are ready"
            )
        scans = check(args.gopro_root, args.spike_root, splits, args.blur, args.workers, args.shard)
        changes = {"blur": args.blur, "copy": args.copy, "force": args.force, "workers": args.workers}
        lines = prepare(scans, args.dataset_root, splits, shard=args.shard, **changes)
        print_totals(lines, args.shard)
        if args.generate_lmdb:
            from data.prepare.lmdb_writer import create_lmdbs

            create_lmdbs(args.dataset_root, splits, force=args.force, workers=args.workers)
        part = f"shard {args.shard} of " * (args.shard != ALL)
        print(f"{args.dataset_root}: {part}{' and '.join(splits)} are ready, blurred frames from {args.blur}")


if __name__ == "__main__":
    main()
