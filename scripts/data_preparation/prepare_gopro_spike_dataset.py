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
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, NamedTuple

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from data.layout import (
    SPIKES,
    SPLITS,
    Split,
    clip_dirs,
    described_clips,
    known_clips,
    lq_dir,
    merged_manifest,
    write_description,
)
from data.lmdb_store import is_lmdb, lmdb_path, record_path
from data.meta_info import MetaLine
from data.prepare.gopro_check import (
    SHARP,
    SPIKE,
    SPIKE_SCALE,
    Problem,
    Scan,
    Size,
    check,
    common_size,
    counted,
    in_threads,
    report_problems,
    short_steps,
)
from data.spike.manifest import FILE_NAME, GOPRO_RATE_AT_WHITE, Manifest, gopro_timing
from utils.processes import folder_lock
from utils.processes.folder_lock import Lock, acquire
from utils.utils_cli import Parser, positive, program
from utils.utils_error import UserError
from utils.utils_file import sweep, temporary_path, whole_file

CLOCK_HZ = 8 * 240.0
OFFICIAL: dict[Split, tuple[int, int]] = {"train": (22, 2103), "test": (11, 1111)}  # clips, frames
Blur = Literal["blur", "blur_gamma"]


class Place(NamedTuple):
    """A clip's folder in the set: `target` becomes a link to `source`, or gets copies of its `files`."""

    split: Split
    clip: str
    source: Path
    target: Path
    files: list[str]  # relative to both

    def has(self, name: str) -> bool:
        """Return whether the target has the file in the source's size."""
        path = self.target / name
        return path.is_file() and path.stat().st_size == (self.source / name).stat().st_size

    def is_source(self) -> bool:
        """Return whether the target already leads to the source."""
        return self.target.exists() and self.target.samefile(self.source)


def places_of(scan: Scan, dataset_root: Path, blur: Blur) -> list[Place]:
    """Return the places of a checked clip: sharp, blurred, spikes."""
    images = [f"{frame}.png" for frame in scan.frames]
    sources = (scan.source / SHARP, scan.source / blur, scan.spikes)
    files = (images, images, [f"{SPIKE}/{frame}.dat" for frame in scan.frames])
    targets = clip_dirs(dataset_root, scan.split, scan.name)
    return [Place(scan.split, scan.name, *parts) for parts in zip(sources, targets, files, strict=True)]


def foreign_file(place: Place) -> str:
    """Return a frame in the target that the source lacks; empty if there is none."""
    suffix = Path(place.files[0]).suffix
    found = {str(path.relative_to(place.target)) for path in place.target.rglob(f"[!.]*{suffix}")}
    return min(found - set(place.files), default="")


def place_problem(place: Place, copy: bool, force: bool, outdated: bool) -> str:
    """Return why a place cannot be filled; empty if it can be or already is.

    Args:
        place: place of a checked clip.
        copy: fill it with copies, else with a link.
        force: replace existing links and files, except folders with files that the source lacks.
        outdated: an existing folder holds copies of other frames.
    """
    target = place.target
    if target.is_symlink():
        if force or (place.is_source() and not copy):
            return ""
        if place.is_source():
            return f"{target} is a link, expected copies; --force replaces it by copies"
        return f"{target} is a link to {target.readlink()}, expected {place.source}; --force replaces it"
    if not target.exists() or place.is_source():
        return ""
    if not target.is_dir():
        return f"{target} is a file, expected a folder or nothing; move it away"
    if foreign := foreign_file(place):
        return f"{target} holds {foreign}, which {place.source} does not; move it away"
    missing = [name for name in place.files if not (target / name).is_file()]
    if not copy and (missing or outdated):
        found = (
            "copies of other frames" if outdated else f"{len(place.files) - len(missing)} of {len(place.files)} files"
        )
        return f"{target} is a folder with {found}, expected a link; add --copy to fill it or move it away"
    other = [name for name in place.files if name not in missing and not place.has(name)]
    if other and not (copy and force):
        return f"{target}/{other[0]} differs in size from the source; --copy --force replaces it"
    return ""


def make_link(place: Place) -> None:
    """Make the target a link to the source, atomically replacing a link that leads elsewhere."""
    if place.is_source() or (place.target.is_dir() and not place.target.is_symlink()):
        return
    place.target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(place.target)
    try:
        temporary.symlink_to(place.source.resolve(), target_is_directory=True)
        temporary.replace(place.target)
    except OSError as error:
        raise UserError(f"{place.target}: cannot be made a link ({error.strerror}); give --copy") from None
    finally:
        temporary.unlink(missing_ok=True)


def is_filled(place: Place, copy: bool) -> bool:
    """Return whether nothing is left to do for a place without problems."""
    if place.target.is_symlink():
        return place.is_source() and not copy
    return place.is_source() or all(place.has(name) for name in place.files)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file atomically."""
    with whole_file(target) as temporary:
        shutil.copyfile(source, temporary)


def copy_places(places: Sequence[Place], workers: int) -> None:
    """Fill the targets with copies, one place after the other, skipping files that already have the source's size."""
    places = [place for place in places if place.target.is_symlink() or not place.is_source()]
    total = sum(len(place.files) for place in places)
    with ThreadPoolExecutor(workers) as pool, tqdm(total=total, unit="file", desc="copying", disable=None) as bar:
        try:
            for place in places:
                if place.target.is_symlink():
                    place.target.unlink()
                for folder in {(place.target / name).parent for name in place.files}:
                    sweep(folder)
                missing = [name for name in place.files if not place.has(name)]
                bar.update(len(place.files) - len(missing))
                sources, targets = ([folder / name for name in missing] for folder in (place.source, place.target))
                for _ in pool.map(copy_file, sources, targets):
                    bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


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
                f"{root}: clip {left[0]} and {len(left) - 1} more were prepared with other settings and are not "
                "in this run; prepare all of them together or use another --dataset-root"
            ) from None
        return True
    return False


def is_described(root: Path, manifest: Manifest, lines: dict[Split, list[MetaLine]]) -> bool:
    """Return whether manifest, config.yaml and meta_info of the set are up to date."""
    known = {split: described_clips(root, split) for split in lines}
    listed = all(known[split].get(line.clip) == line for split in lines for line in lines[split])
    described = (root / SPIKES / FILE_NAME).is_file() and (root / SPIKES / "config.yaml").is_file()
    return listed and described and Manifest.read(root / SPIKES / FILE_NAME) == merged_manifest(root, manifest)


def check_places(root: Path, places: Sequence[Place], problem_of: Callable[[Place], str], workers: int) -> None:
    """Report all problems that prevent making the set in `root`."""
    known = known_clips(root)
    found = in_threads(problem_of, places, workers, "looking")
    problems = [
        Problem(place.split, place.clip, "", "", "", what) for place, what in zip(places, found, strict=True) if what
    ]
    problems += [
        Problem(place.split, place.clip, "", "", "", f"{root} has it in {known[place.clip]} already; rename one")
        for place in places
        if known.get(place.clip, place.split) != place.split
    ]
    report_problems(sorted(set(problems), key=lambda problem: (SPLITS.index(problem.split), *problem[1:])))


def claim_split(root: Path, split: Split) -> Lock:
    """Reserve a split of a set for this process until the lock is released.

    The lock file is beside the set, so that the set itself stays untouched; inside the set if its parent is read-only.

    Raises:
        UserError: another process is preparing the split.
    """
    beside = root.resolve()
    beside.parent.mkdir(parents=True, exist_ok=True)
    path = beside.with_name(f".{beside.name}.{split}{folder_lock.NAME}")
    if not os.access(beside.parent, os.W_OK):
        path = beside / f".{split}{folder_lock.NAME}"
    return acquire(path, f"{root}: split {split}", "wait until it ends, or use another --dataset-root")


def prepare(
    gopro_root: Path,
    spike_root: Path,
    dataset_root: Path,
    splits: Sequence[Split],
    *,
    blur: Blur = "blur",
    copy: bool = False,
    force: bool = False,
    workers: int = 8,
) -> dict[Split, list[MetaLine]]:
    """Check the two sets and combine them.

    Args:
        gopro_root: GOPRO_Large.
        spike_root: GOPRO_Large_spike_seq; may already be inside `dataset_root`.
        dataset_root: folder for links or copies and descriptions.
        splits: train, test or both.
        blur: folder of the blurred frames.
        copy: copy the files, else link the folders.
        force: replace links that lead elsewhere, copies of other sizes, and a description of other settings.
        workers: threads that check or copy.

    Returns:
        The clips of each split.

    Raises:
        UserError: there are problems with the sets or the target; all of them are printed to stderr.
    """
    scans = check(gopro_root, spike_root, splits, blur, workers)
    size = common_size(scans) or (0, 0)
    manifest = gopro_manifest(scans, size, blur)
    replace = must_replace(dataset_root, manifest, force)
    places = [place for scan in scans for place in places_of(scan, dataset_root, blur)]
    blurred = [place for place in places if place.source.name == blur] if replace else []

    def problem_of(place: Place) -> str:
        return place_problem(place, copy, force, outdated=place in blurred)

    check_places(dataset_root, places, problem_of, workers)
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
            claims.enter_context(claim_split(dataset_root, split))
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


def print_totals(lines: dict[Split, list[MetaLine]]) -> None:
    """Print the numbers of clips and frames, and a note if the official set's differ."""
    totals = {split: (len(clips), sum(line.frames for line in clips)) for split, clips in lines.items()}
    for split, (clips, frames) in totals.items():
        print(f"{split}: {counted(clips, 'clip')}, {counted(frames, 'frame')}")
    if any(totals[split] != OFFICIAL[split] for split in totals):
        official = " and ".join(f"{OFFICIAL[s][0]} {s} clips with {OFFICIAL[s][1]:,} frames" for s in totals)
        print(f"note: the official set has {official}; results on other clips are not comparable to published ones")


def make_parser() -> Parser:
    """Return the command line's parser."""
    parser = Parser(description=__doc__)

    def folder(name: str, default: str, text: str) -> None:
        help_text = f"{text} (default: {default})"
        other = f"--{name[2:].replace('-', '_')}"
        parser.add_argument(name, other, type=Path, default=Path(default), metavar="P", help=help_text)

    folder("--gopro-root", "datasets/GOPRO_Large", "folder of the frames, with train/ and test/")
    folder("--spike-root", f"datasets/{SPIKES}", "folder of the spikes, with train/ and test/")
    folder("--dataset-root", "datasets/gopro_spike", "folder of the new set")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=list(SPLITS), help="default: both")
    text = "averaged as stored (default: blur), or in linear light; changing a prepared set needs --force"
    parser.add_argument("--blur", choices=["blur", "blur_gamma"], default="blur", help=f"blurred frames: {text}")
    parser.add_argument("--copy", action="store_true", help="copy the files; default: link the folders")
    parser.add_argument("--generate-lmdb", "--generate_lmdb", action="store_true", help="also write LMDBs of the set")
    parser.add_argument(
        "--force", action="store_true", help="replace what was prepared from other files or with other settings"
    )
    parser.add_argument("--workers", type=positive, default=8, metavar="N", help="threads (default: 8)")
    parser.add_common()
    return parser


def main() -> None:
    """Read the command line and prepare the set."""
    args = make_parser().parse_args()
    with program(debug=args.debug):
        splits = [split for split in SPLITS if split in args.splits]
        changes = {"blur": args.blur, "copy": args.copy, "force": args.force, "workers": args.workers}
        lines = prepare(args.gopro_root, args.spike_root, args.dataset_root, splits, **changes)
        print_totals(lines)
        if args.generate_lmdb:
            from data.prepare.lmdb_writer import create_lmdbs

            create_lmdbs(args.dataset_root, splits, force=args.force, workers=args.workers)
        print(f"{args.dataset_root}: {' and '.join(splits)} are ready, blurred frames from {args.blur}")


if __name__ == "__main__":
    main()
