"""Make a training set of moving scenes from any pictures: photographs under camera paths, and parts of videos.

make_scene_dataset.py --photos DIR ... [--videos FILE ...] --out datasets/scenes [--clips 1000] [--test-clips 40]

Each clip shows one photograph under a camera that pans, shakes, turns, zooms and tilts, and up to four soft-edged
pieces of others that move in front of it. Every spike step is rendered, so motion is exact. Exposures last 33 to 97
steps, and speeds range over a decade; training clips of --still-share hardly move. Clips of videos (--video-share) are
interpolated by optical flow.
Stored with the usual frames and spikes: the light of every step, from which training fires spikes anew
(docs/augmentation.md), and sharp frames at other instants.

Training and test clips share no picture. All pictures of --test-photos and --test-videos are held out, and a share of
the others (--holdout). Only one of several similar pictures is used; a video in both lists is refused.
meta_info/scenes.json records pictures, videos, splits and clips.

The same pictures and options give the same bytes. The same command resumes an interrupted run. --shard 0/4 makes
every fourth clip; the shards of a set may run at the same time, on several machines too.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from data.clip_index import raise_first
from data.instants import step_of
from data.layout import DatasetWriter, Frame, Split, known_clips, meta_info_path
from data.prepare.photo_scene import MARGIN, MOST_LAYERS, SLOW, SPEEDS, PhotoScene
from data.prepare.recordings import Source, video_source
from data.prepare.rendered import rendered_frames
from data.prepare.scene_sources import Picture, find_pictures, read_picture, video_digests
from data.prepare.scene_video import draw_part, draw_windows, frames_needed, part_frames
from data.spike.manifest import ClipTiming, Manifest, simulated_manifest
from utils.utils_cli import Parser, Shard, positive, program
from utils.utils_error import UserError, counted
from utils.utils_file import read_text, write_text
from utils.utils_progress import progress

EXPOSURES = 33, 97  # steps, odd
MOST_GAP = 16  # steps from an exposure to the next
BATCH = 32  # clips that become part of the set together
RECORD, DIGESTS = "scenes.json", "video_sha256"  # the record, and its key for the digests of videos
VERSION = 1  # increased whenever the output changes


@dataclass(frozen=True)
class Recipe:
    """What determines the set's bytes, besides the pictures; lengths in pixels."""

    clips: int = 1000
    test_clips: int = 40
    frames: int = 2
    height: int = 192
    width: int = 256
    spike_scale: int = 2
    theta: float = 2.0
    instants: int = 4
    holdout: float = 0.1
    video_share: float = 0.25
    still_share: float = 0.0
    seed: int = 0
    version: int = VERSION

    def __post_init__(self) -> None:
        unit = 8 * self.spike_scale
        checks = [
            ("--size", f"{self.height}x{self.width}", not (self.height % unit or self.width % unit),
             f"multiples of {unit} pixels, 8 spike pixels"),
            ("--holdout", self.holdout, 0 <= self.holdout < 1, "0 to below 1"),
            ("--video-share", self.video_share, 0 <= self.video_share <= 1, "0 to 1"),
            ("--still-share", self.still_share, 0 <= self.still_share <= 1, "0 to 1"),
            ("--theta", self.theta, 1 <= self.theta <= EXPOSURES[0],
             f"1 to {EXPOSURES[0]} steps, the shortest exposure: white fires every theta"),
            ("--instants", self.instants, self.instants >= 0, "0 or more"),
            ("--seed", self.seed, self.seed >= 0, "0 or more"),
        ]  # fmt: skip
        for option, value, good, expected in checks:
            if not good:
                raise UserError(f"{option}: {value}, expected {expected}; change or leave out {option}")

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the frames."""
        return self.height, self.width

    @property
    def least(self) -> tuple[int, int]:
        """(H, W) that pictures should have."""
        return int(MARGIN * self.height), int(MARGIN * self.width)

    def manifest(self) -> Manifest:
        """Return the manifest without clips."""
        return simulated_manifest(self.size, self.spike_scale, self.theta, clock_hz=20000.0)


@dataclass(frozen=True)
class Sources:
    """Pictures and videos of both splits."""

    pictures: list[Picture]
    videos: dict[Split, list[Source]]

    def of(self, split: Split) -> list[Picture]:
        """Return the pictures of a split."""
        return [picture for picture in self.pictures if picture.split == split]


@dataclass(frozen=True)
class Job:
    """One clip: what it is made of, and the seed of everything else."""

    split: Split
    clip: str
    pictures: tuple[Picture, ...]
    video: Source | None
    key: tuple[int, int, int]
    is_still: bool = False


def plan(recipe: Recipe, sources: Sources) -> list[Job]:
    """Choose what each clip is made of.

    Raises:
        UserError: a split of which clips are wanted has neither pictures nor videos, or a video is too short.
    """
    needed, every = frames_needed(recipe.frames), [video for found in sources.videos.values() for video in found]
    raise_first(
        [
            f"{video.path}: {counted(len(video.names), 'frame')}, expected {needed} or more for clips of --frames "
            f"{recipe.frames}; give a longer video or fewer --frames"
            for video in every
            if len(video.names) < needed
        ]
    )
    jobs = []
    counts: list[tuple[Split, int]] = [("train", recipe.clips), ("test", recipe.test_clips)]
    for split, count in counts:
        pictures, videos = sources.of(split), sources.videos[split]
        if count and not pictures and not videos:
            of_split, change = ("--", "lower") if split == "train" else ("--test-", "raise")
            raise UserError(
                f"{split}: no pictures or videos for {counted(count, 'clip')} among {len(sources.pictures)} pictures; "
                f"give {of_split}photos or {of_split}videos, or {change} --holdout"
            )
        for index in range(count):
            key = recipe.seed, int(split == "test"), index
            rng = np.random.default_rng((*key, 0))
            is_video = bool(videos) and (not pictures or rng.random() < recipe.video_share)
            layers = int(rng.integers(MOST_LAYERS + 1))
            chosen = [] if is_video else [pictures[int(rng.integers(len(pictures)))] for _ in range(1 + layers)]
            weights = np.array([len(video.names) for video in videos], float)
            video = videos[int(rng.choice(len(videos), p=weights / weights.sum()))] if is_video else None
            is_still = split == "train" and rng.random() < recipe.still_share
            jobs.append(Job(split, f"scene_{split}_{index:05d}", tuple(chosen), video, key, is_still))
    return jobs


def frames_of(job: Job, recipe: Recipe) -> tuple[Iterator[Frame], ClipTiming]:
    """Return the frames of a clip, made one by one, and their timing."""
    rng = np.random.default_rng((*job.key, 1))
    exposure = int(rng.integers(EXPOSURES[0] // 2, EXPOSURES[1] // 2 + 1)) * 2 + 1
    if job.video is not None:
        windows = draw_windows(exposure, recipe.theta, recipe.spike_scale, recipe.instants, rng)
        part = draw_part(job.video, recipe.frames, windows, recipe.size, rng)
        return part_frames(part, recipe.frames, recipe.size, rng), windows.timing()
    background, *layers = (read_picture(picture.path, recipe.least) for picture in job.pictures)
    scene = PhotoScene(background, layers, recipe.size, rng, SLOW if job.is_still else SPEEDS)
    steps = exposure + int(rng.integers(MOST_GAP + 1))
    timing = ClipTiming(steps=steps, exposure=(0, exposure), sharp_step=exposure // 2)
    times = np.unique(np.round(rng.random(recipe.instants), 2))
    others = {float(time) for time in times if step_of(0, exposure, time) != timing.sharp_step}
    more = recipe.frames, sorted(others), recipe.spike_scale, recipe.theta, rng
    return rendered_frames(scene.render, timing, *more), timing


def record(recipe: Recipe, sources: Sources, jobs: list[Job]) -> dict[str, Any]:
    """Return what is written about a set: recipe, pictures and clips."""
    pictures = [{"name": one.name, "sha256": one.digest, "split": one.split} for one in sources.pictures]
    videos = {split: [video.path.name for video in found] for split, found in sources.videos.items()}
    clips = {job.clip: [job.video.path.name] if job.video else [one.name for one in job.pictures] for job in jobs}
    return {
        "recipe": asdict(recipe), "pictures": pictures, "videos": videos, "clips": clips,
        DIGESTS: video_digests(sources.videos),
    }  # fmt: skip


def start_or_go_on(out: Path, wanted: dict[str, Any]) -> set[str]:
    """Write the record of a new set; return the clips that an unfinished one has.

    Raises:
        UserError: the folder holds another set.
    """
    path = meta_info_path(out, "train").with_name(RECORD)
    known = set(known_clips(out))
    if not path.is_file():
        if known:
            raise UserError(f"{out}: holds clips that this program did not make; give a new folder to --out")
        write_text(path, json.dumps(wanted, indent=1) + "\n", names=True)
        return known
    found = json.loads(read_text(path, "surrogateescape"))
    wanted = {key: value for key, value in wanted.items() if key in found or key != DIGESTS}  # absent in older ones
    if found != json.loads(json.dumps(wanted)):
        other = "videos" if found["pictures"] == wanted["pictures"] else "pictures"
        key = next((key for key, value in wanted["recipe"].items() if found["recipe"].get(key) != value), other)
        raise UserError(f"{path}: the set was begun with other {key}; give the same command, or a new folder to --out")
    return known


def make(out: Path, recipe: Recipe, sources: Sources, shard: Shard) -> None:
    """Make the clips of a set that are missing, one thread per core."""
    jobs = plan(recipe, sources)
    known = start_or_go_on(out, record(recipe, sources, jobs))
    own = [job for job in shard.of(jobs) if job.clip not in known]
    cv2.setNumThreads(1)

    def add(writer: DatasetWriter, job: Job) -> None:
        frames, timing = frames_of(job, recipe)
        writer.add_clip(job.split, job.clip, frames, timing)

    with progress(total=len(own), unit="clip", what=str(out)) as bar:
        for some in (own[at : at + BATCH] for at in range(0, len(own), BATCH)):
            with DatasetWriter(out, recipe.manifest()) as writer, ThreadPoolExecutor(os.cpu_count()) as pool:
                splits: tuple[Split, ...] = ("train", "test")
                for split in splits:
                    writer.claim(split, [job.clip for job in some if job.split == split])
                for _ in pool.map(partial(add, writer), some):
                    bar.update()
                writer.finish()


def parse_size(text: str) -> tuple[int, int]:
    """Parse HxW."""
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"'{text}' is not a size HxW, such as 192x256")
    return int(match[1]), int(match[2])


def main() -> None:
    """Read the command line and make the set."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--photos", type=Path, nargs="+", default=[], metavar="DIR", help="folders of pictures, or files"
    )
    parser.add_argument("--videos", type=Path, nargs="+", default=[], metavar="FILE", help="videos for training clips")
    parser.add_argument("--test-photos", type=Path, nargs="+", default=[], metavar="DIR", help="pictures to hold out")
    parser.add_argument("--test-videos", type=Path, nargs="+", default=[], metavar="FILE", help="videos to hold out")
    parser.add_argument("--out", type=Path, required=True, metavar="ROOT", help="folder of the set")
    parser.add_argument("--clips", type=positive, default=Recipe.clips, help="training clips")
    parser.add_argument("--test-clips", type=positive, default=Recipe.test_clips, help="held-out clips")
    parser.add_argument("--frames", type=positive, default=Recipe.frames, help="frames per clip")
    parser.add_argument("--size", type=parse_size, default=(Recipe.height, Recipe.width), metavar="HxW",
                        help=f"frame size in pixels (default: {Recipe.height}x{Recipe.width})")  # fmt: skip
    parser.add_argument("--spike-scale", type=positive, default=Recipe.spike_scale, help="RGB pixels per spike pixel")
    parser.add_argument(
        "--theta", type=float, default=Recipe.theta, help="firing threshold: white fires every theta steps"
    )
    parser.add_argument("--instants", type=int, default=Recipe.instants, metavar="K", help="instants with sharp frames")
    parser.add_argument("--holdout", type=float, default=Recipe.holdout, help="share of --photos to hold out, 0 to 1")
    parser.add_argument(
        "--video-share", type=float, default=Recipe.video_share, help="share of clips from videos, 0 to 1"
    )
    parser.add_argument("--still-share", type=float, default=Recipe.still_share,
                        help="share of training clips of photographs that hardly move, 0 to 1")  # fmt: skip
    parser.add_argument("--seed", type=int, default=Recipe.seed, help="the same seed gives the same bytes")
    parser.add_shard("clips")
    parser.add_common()
    args = parser.parse_args()
    with program(args.debug, args.quiet):
        height, width = args.size
        recipe = Recipe(
            args.clips, args.test_clips, args.frames, height, width, args.spike_scale, args.theta, args.instants,
            args.holdout, args.video_share, args.still_share, args.seed,
        )  # fmt: skip
        if not (args.photos or args.videos):
            raise UserError("--photos: none, expected folders of pictures, or --videos; give some")
        pictures = find_pictures(args.photos, args.test_photos, recipe.holdout, recipe.least)
        videos: dict[Split, list[Source]] = {
            "train": [video_source(path) for path in args.videos],
            "test": [video_source(path) for path in args.test_videos],
        }
        make(args.out, recipe, Sources(pictures, videos), args.shard)


if __name__ == "__main__":
    main()
