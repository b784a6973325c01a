"""Find everything that is missing or damaged in a GoPro download and its spikes.

Nothing is decoded: only names, image headers, the ends of images and `.dat` sizes are checked.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

from data.frame_order import by_number
from data.geometry import size_text
from data.layout import SPLITS, Split
from data.prepare.gopro_scan import SPIKE, SPIKE_SCALE, Scan, Size, common_size, folder_names, scan_clip, step_bytes
from data.spike.manifest import GOPRO_SHORT_BY, gopro_timing
from utils.spike_loader import SIZES_IN_USE
from utils.utils_cli import ALL, Shard
from utils.utils_error import UserError, counted
from utils.utils_progress import progress

Job = TypeVar("Job")
Result = TypeVar("Result")


class Problem(NamedTuple):
    """One line of the report: a problem of a clip or a run of its frames.

    `first` and `last` are frame names, both empty for the whole clip; `kind` is the folder.
    """

    split: Split
    clip: str
    first: str
    last: str
    kind: str
    what: str

    def __str__(self) -> str:
        frames = f"/{self.first}" if self.first else ""
        more = f"..{self.last}" if self.last != self.first else ""
        return f"{self.split}/{self.clip}{frames}{more}{' ' if self.kind else ''}{self.kind}: {self.what}"


def in_threads(function: Callable[[Job], Result], jobs: Sequence[Job], workers: int, what: str) -> list[Result]:
    """Call a function on all jobs, with a progress bar; Ctrl-C stops after the running jobs."""
    with ThreadPoolExecutor(workers) as pool:
        return list(progress(pool.map(function, jobs), total=len(jobs), unit="clip", what=what))


def found_in(folder: Path) -> str:
    """Return which folders a folder holds, for a message."""
    names = folder_names(folder)
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{folder} holds {'the folders ' + ', '.join(names[:5]) + more if names else 'no folders'}"


def missing_folders(roots: Mapping[str, Path], splits: Sequence[Split]) -> list[str]:
    """Return one line per missing folder of a split, with the option that sets it.

    Args:
        roots: option -> folder that should hold the splits.
        splits: the wanted splits.
    """
    lines = []
    for option, root in roots.items():
        if not root.is_dir():
            lines.append(f"{option}: {root} is not a folder ({found_in(root.parent)}); correct {option}")
            continue
        lines += [
            f"{option}: {root} has no folder {split} ({found_in(root)}); set {option} to the folder that holds "
            f"{' and '.join(SPLITS)}, or --splits to those that you have"
            for split in splits
            if not (root / split).is_dir()
        ]
    return lines


def find_problems(scans: Sequence[Scan]) -> list[Problem]:
    """Find all problems of a set."""
    size = common_size(scans)
    names = Counter(scan.name for scan in scans)
    problems = [
        Problem(scan.split, scan.name, "", "", "", f"in {' and in '.join(SPLITS)}, expected in one of them; rename one")
        for scan in scans
        if names[scan.name] > 1
    ]
    for scan in scans:
        problems += _missing_parts(scan) or [*_stray_files(scan), *_as_runs(scan, _frame_faults(scan, size))]
    return problems


def report(lines: Sequence[object], summary: str) -> None:
    """Print all problems to stderr and raise one error; do nothing if there are none."""
    if lines:
        sys.stderr.writelines(f"{line}\n" for line in lines)
        raise UserError(f"{summary}, expected none; nothing was written")


def report_problems(problems: Collection[Problem]) -> None:
    """Report the problems of clips and frames, sorted by split, clip and frame."""
    clips = len({(problem.split, problem.clip) for problem in problems})
    ordered = sorted(problems, key=lambda problem: (SPLITS.index(problem.split), *problem[1:]))
    report(ordered, f"{counted(len(problems), 'problem')} in {counted(clips, 'clip')}")


def check(
    gopro_root: Path, spike_root: Path, splits: Sequence[Split], blur: str, workers: int, shard: Shard = ALL
) -> list[Scan]:
    """Check every file of the two sets, or of a shard of the clips' names.

    Returns:
        The clips, in order, without problems.

    Raises:
        UserError: there are problems; all of them are printed to stderr.
    """
    roots = {"--gopro-root": gopro_root, "--spike-root": spike_root}
    missing = missing_folders(roots, splits)
    report(missing, counted(len(missing), "missing folder"))
    jobs = [
        (gopro_root / split / name, spike_root / split / name, split, name, blur)
        for split in splits
        for name in sorted({*folder_names(gopro_root / split), *folder_names(spike_root / split)})
    ]
    found = {job[2] for job in jobs}
    empty = [f"--gopro-root: {gopro_root / split} has no clips" for split in splits if split not in found]
    report(empty, counted(len(empty), "empty split"))
    own = set(shard.of(sorted({job[3] for job in jobs})))
    jobs = [job for job in jobs if job[3] in own]
    scans = in_threads(lambda job: scan_clip(*job), jobs, workers, "checking")
    report_problems(find_problems(scans))
    return scans


def _missing_parts(scan: Scan) -> list[Problem]:
    """Find the missing folders of a clip, or its invalid name; if there are any, frames are not checked."""

    def problem(kind: str, what: str) -> Problem:
        return Problem(scan.split, scan.name, "", "", kind, what)

    try:
        gopro_timing(scan.name)
    except UserError:
        return [problem("", "not a GoPro clip name, expected one such as GOPR0372_07_00; move the folder away")]
    if not scan.source.is_dir():
        return [problem("", f"spikes without frames, {scan.source} is missing; add it or move the spikes away")]
    if not scan.spikes.is_dir():
        return [problem("", f"frames without spikes, {scan.spikes} is missing; add it or move the frames away")]
    problems = []
    for kind, frames in scan.present().items():
        parent = scan.spikes if kind == SPIKE else scan.source
        if not (parent / kind).is_dir():
            problems.append(problem(kind, f"no such folder ({found_in(parent)}); extract it again"))
        elif not frames and not scan.strays[kind]:
            suffix = "dat" if kind == SPIKE else "png"
            problems.append(problem(kind, f"no *.{suffix} files in {parent / kind}; extract it again"))
    return problems


def _stray_files(scan: Scan) -> Iterator[Problem]:
    """Find files that are not named like frames; one problem per folder."""
    for kind, names in scan.strays.items():
        if names:
            more = f" and {counted(len(names) - 1, 'more file')}" if len(names) > 1 else ""
            what = f"{names[0]}{more}, expected names of six digits such as 000047; rename or move away"
            yield Problem(scan.split, scan.name, "", "", kind, what)


def _frame_faults(scan: Scan, size: Size | None) -> Iterator[tuple[str, str, str]]:
    """Yield (frame, folder, problem); `size` is the expected image size."""
    yield from _pairing_faults(scan)
    for kind, facts in scan.images.items():
        for frame, fact in facts.items():
            if isinstance(fact, str):
                yield frame, kind, fact
            elif size and fact != size:
                found, wanted = size_text(fact), size_text(size)
                yield frame, kind, f"{found} pixels, expected {wanted} like most frames of the set; extract it again"
    yield from ((frame, SPIKE, fact) for frame, fact in scan.dats.items() if isinstance(fact, str))
    if size and scan.dats:
        yield from _dat_faults(scan, size)


def _pairing_faults(scan: Scan) -> Iterator[tuple[str, str, str]]:
    """Yield (frame, folder, problem) for every frame missing in a folder, and for every gap."""
    present, frames = scan.present(), scan.frames
    for frame in frames:
        having = [kind for kind in present if frame in present[kind]]
        lacking = [kind for kind in present if kind not in having]
        if len(lacking) == 1:
            yield frame, lacking[0], f"missing, {' and '.join(having)} have it; restore it"
        elif lacking:
            yield frame, having[0], f"unpaired, {' and '.join(lacking)} lack it; restore them or move it away"
    for before, after in zip(frames, frames[1:], strict=False):
        if int(after) != int(before) + 1:
            yield before, "", f"the next frame is {after}, expected {int(before) + 1:06d}; restore those between"


def _dat_faults(scan: Scan, size: Size) -> Iterator[tuple[str, str, str]]:
    """Yield (frame, folder, problem) for every `.dat` file of a wrong size for RGB frames of `size`."""
    timing, per_step = gopro_timing(scan.name), step_bytes(size)
    grid = size_text((size[0] // SPIKE_SCALE, size[1] // SPIKE_SCALE))
    if size[0] % SPIKE_SCALE or size[1] % SPIKE_SCALE or size[0] * size[1] % (8 * SPIKE_SCALE**2):
        what = f"frames are {size_text(size)}, expected twice the spikes' size, which is a multiple of 8 pixels"
        yield by_number(scan.dats)[0], SPIKE, what
        return
    # A clip that lacks a file may have several ends.
    ends = {by_number(frames)[-1] for frames in scan.present().values() if frames}
    for frame, count in scan.dats.items():
        short = timing.steps - GOPRO_SHORT_BY if frame in ends else timing.steps
        if isinstance(count, str) or count in (timing.steps * per_step, short * per_step):
            continue
        steps, rest = divmod(count, per_step)
        fitting = [(h, w) for h, w in SIZES_IN_USE if count and count % (h * w // 8) == 0]
        sizes = ", ".join(f"{size_text(fit)} ({count * 8 // (fit[0] * fit[1])} steps)" for fit in fitting)
        wanted = f"{timing.steps}" + f" or {short}" * (frame in ends)
        found = f"{count} bytes are {steps} steps of {grid}" + f" and {rest} bytes" * bool(rest)
        yield frame, SPIKE, f"{found}, expected {wanted}; sizes in use that fit: {sizes or 'none'}; copy it again"


def _as_runs(scan: Scan, faults: Iterable[tuple[str, str, str]]) -> Iterator[Problem]:
    """Merge the same fault in consecutive frames into one problem."""
    frames_of: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for frame, kind, what in faults:
        frames_of[kind, what].append(frame)
    place = {frame: index for index, frame in enumerate(scan.frames)}
    for (kind, what), frames in frames_of.items():
        frames.sort(key=place.__getitem__)
        starts = [i for i, frame in enumerate(frames) if i == 0 or place[frame] != place[frames[i - 1]] + 1]
        for start, end in zip(starts, [*starts[1:], len(frames)], strict=True):
            yield Problem(scan.split, scan.name, frames[start], frames[end - 1], kind, what)
