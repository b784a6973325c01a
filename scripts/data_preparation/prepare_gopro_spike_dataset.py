"""Bring GoPro and its spikes into the layout that training and testing read: links, no copies.

GOPRO_Large/{train,test}/<clip>/{blur,sharp}/NNNNNN.png      blurred and sharp frames; `blur`, not `blur_gamma`
GOPRO_Large_spike_seq/{train,test}/<clip>/spike/NNNNNN.dat   spikes, half the frames' size along each axis

Every frame must have its spikes and every `.dat` its size; all problems are listed and nothing is linked until
there are none. Then manifest, config.yaml and meta_info are written. A second call checks again and changes
nothing.

python scripts/data_preparation/prepare_gopro_spike_dataset.py [--gopro_root P] [--spike_root P]
    [--dataset_root P] [--splits train test] [--force] [--workers N]
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from data.clip_index import frame_names
from data.layout import SPIKES, SPLITS, MetaLine, Split, clip_dirs, write_description
from data.spike.manifest import GOPRO_RATE_AT_WHITE, GOPRO_SHORT_BY, ClipTiming, Manifest, gopro_timing
from utils.spike_loader import num_steps
from utils.utils_cli import program
from utils.utils_error import UserError
from utils.utils_image import read_rgb

SPIKE_SCALE = 2  # RGB pixels a spike pixel
CLOCK_HZ = 8 * 240.0


@dataclass(frozen=True)
class Clip:
    """A checked clip: its source folders, frames and timing."""

    split: Split
    name: str
    sources: tuple[Path, Path, Path]  # sharp, blurred, spikes
    frames: list[str]
    size: tuple[int, int]
    timing: ClipTiming


def folder_names(folder: Path) -> set[str]:
    """Return the names of the folders inside a folder; none where it is missing."""
    return {path.name for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()


def frame_problems(folders: Mapping[Path, Sequence[str]]) -> list[str]:
    """Name what is wrong with the frames of a clip: missing ones, gaps in the numbering."""
    problems = [f"{folder}: no frames" for folder, names in folders.items() if not names]
    if problems:
        return problems
    every = sorted(set().union(*folders.values()))
    for folder, names in folders.items():
        missing = sorted(set(every) - set(names))
        if missing:
            problems.append(f"{folder}: {len(names)} of {len(every)} frames, the first missing one is {missing[0]}")
    numbers = [f"{int(every[0]) + index:06d}" for index in range(len(every))] if every[0].isdigit() else []
    if every != numbers:
        problems.append(f"{next(iter(folders))}: frames {every[0]} .. {every[-1]} are not numbered without a gap")
    return problems


def spike_steps(folder: Path, frames: list[str], size: tuple[int, int], timing: ClipTiming) -> dict[str, int]:
    """Check the size of every .dat of a clip.

    Returns:
        The last frame's number of steps where it is the short one.

    Raises:
        UserError: a file holds another number of steps.
    """
    short = {}
    for frame in frames:
        path = folder / f"{frame}.dat"
        steps = num_steps(path, size[0] // SPIKE_SCALE, size[1] // SPIKE_SCALE)
        if frame == frames[-1] and steps == timing.steps - GOPRO_SHORT_BY:
            short[frame] = steps
        elif steps != timing.steps:
            raise UserError(f"{path}: {steps} steps, expected {timing.steps} as the clip's name says; restore it")
    return short


def check_clip(gopro_root: Path, spike_root: Path, split: Split, name: str) -> Clip | list[str]:
    """Check one clip's folders, frames and spikes; return the clip or its problems."""
    source, spikes = gopro_root / split / name, spike_root / split / name
    sharp, blurred = source / "sharp", source / "blur"
    dats = spikes / "spike" if (spikes / "spike").is_dir() else spikes
    frames = list(frame_names(sharp, "png"))
    problems = frame_problems({sharp: frames, blurred: frame_names(blurred, "png"), dats: frame_names(dats, "dat")})
    if problems:
        return problems
    try:
        timing = gopro_timing(name)
        height, width, _ = read_rgb(sharp / f"{frames[0]}.png").shape
        short = spike_steps(dats, frames, (height, width), timing)
    except UserError as error:
        return [str(error)]
    timing = timing.model_copy(update={"steps_of": short})
    return Clip(split, name, (sharp, blurred, spikes), frames, (height, width), timing)


def link_problem(target: Path, link: Path, force: bool) -> str:
    """Return why `link` cannot point to `target`; nothing where it can or already does."""
    if link.exists() and link.samefile(target):
        return ""
    if link.is_symlink():
        return "" if force else f"{link}: points to {link.readlink()}, not to {target}; --force replaces it"
    return f"{link}: is there and is no link to {target}; move it away" if link.exists() else ""


def make_link(target: Path, link: Path) -> None:
    """Make `link` point to `target`, an existing folder; replaces a link that points elsewhere."""
    if link.exists() and link.samefile(target):
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(target.resolve(), target_is_directory=True)


def find_clips(gopro_root: Path, spike_root: Path, splits: list[Split]) -> tuple[list[tuple[Split, str]], list[str]]:
    """List the clips that frames or spikes exist for, and the missing folders."""
    roots = {"--gopro_root": gopro_root, "--spike_root": spike_root}
    missing = [
        f"{root / split}: no such folder, expected one folder a clip; give {option}"
        for option, root in roots.items()
        for split in splits
        if not (root / split).is_dir()
    ]
    if missing:
        return [], missing
    jobs = [
        (split, name)
        for split in splits
        for name in sorted(folder_names(gopro_root / split) | folder_names(spike_root / split))
    ]
    empty = [f"{gopro_root / split}: no clips" for split in splits if split not in {job[0] for job in jobs}]
    return jobs, empty


def report(problems: list[str]) -> None:
    """List all problems and end with the one error; does nothing where there are none."""
    if problems:
        for problem in problems:
            print(f"problem: {problem}", file=sys.stderr)
        raise UserError(f"{len(problems)} problems in the data set, expected none; the first: {problems[0]}")


def gopro_manifest(clips: list[Clip]) -> Manifest:
    """Return geometry, physics and timing of GoPro+Spike."""
    height, width = clips[0].size
    return Manifest(
        version=1,
        spike_h=height // SPIKE_SCALE,
        spike_w=width // SPIKE_SCALE,
        rgb_h=height,
        rgb_w=width,
        flipud=True,
        bit_order="little",
        clock_hz=CLOCK_HZ,
        rate_at_white=GOPRO_RATE_AT_WHITE,
        theta=1 / GOPRO_RATE_AT_WHITE,
        transfer="srgb",
        noise="none",
        clips={clip.name: clip.timing for clip in clips},
    )


def prepare(
    gopro_root: Path,
    spike_root: Path,
    dataset_root: Path,
    splits: list[Split],
    force: bool = False,
    workers: int = 8,
) -> int:
    """Check the two sets and link them into one.

    Args:
        gopro_root: GOPRO_Large.
        spike_root: GOPRO_Large_spike_seq; may lie inside `dataset_root` already.
        dataset_root: where the links and descriptions go.
        splits: which of train and test.
        force: replace links that point elsewhere.
        workers: threads that check clips at the same time.

    Returns:
        How many frames the linked clips have.

    Raises:
        UserError: something is missing, does not pair up or has a wrong size; all problems went to stderr.
    """
    jobs, missing = find_clips(gopro_root, spike_root, splits)
    report(missing)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        checked = pool.map(lambda job: check_clip(gopro_root, spike_root, *job), jobs)
        results = list(tqdm(checked, total=len(jobs), unit="clip", desc="checking"))
    clips = [result for result in results if isinstance(result, Clip)]
    problems = [problem for result in results if isinstance(result, list) for problem in result]
    problems += [
        f"{clip.sources[0]}: frames of {clip.size}, expected {clips[0].size} as {clips[0].name}"
        for clip in clips
        if clip.size != clips[0].size
    ]
    links = [
        (source, link)
        for clip in clips
        for source, link in zip(clip.sources, clip_dirs(dataset_root, clip.split, clip.name), strict=True)
    ]
    report(problems + [problem for pair in links if (problem := link_problem(*pair, force))])
    for source, link in links:
        make_link(source, link)
    lines: dict[Split, list[MetaLine]] = {
        split: [MetaLine(c.name, len(c.frames), c.size, c.frames[0]) for c in clips if c.split == split]
        for split in splits
    }
    write_description(dataset_root, gopro_manifest(clips), lines)
    return sum(len(clip.frames) for clip in clips)


def main() -> None:
    """Read the command line and prepare the set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gopro_root", type=Path, default=Path("datasets/GOPRO_Large"))
    parser.add_argument("--spike_root", type=Path, default=Path("datasets") / SPIKES)
    parser.add_argument("--dataset_root", type=Path, default=Path("datasets/gopro_spike"))
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=list(SPLITS))
    parser.add_argument("--generate_lmdb", action="store_true", help="not available yet")
    parser.add_argument("--force", action="store_true", help="replace links that point elsewhere")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="threads that check clips")
    parser.add_argument("--debug", action="store_true", help="print the traceback of an error")
    args = parser.parse_args()
    with program(debug=args.debug):
        if args.generate_lmdb:
            raise UserError("--generate_lmdb: not available yet, expected no such flag; leave it out and use disk")
        splits = [split for split in SPLITS if split in args.splits]
        count = prepare(args.gopro_root, args.spike_root, args.dataset_root, splits, args.force, args.workers)
        print(f"{args.dataset_root}: {count} frames of {' and '.join(splits)} are ready")


if __name__ == "__main__":
    main()
