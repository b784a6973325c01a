"""Make the demo data set: sharp, blurred and spike frames of moving photographs that scikit-image ships.

Nothing is downloaded. Training and test clips share no photographs. Every step is rendered, so motion between steps is
real, not interpolated.

python scripts/data_preparation/make_demo_dataset.py [--out datasets/demo] [--seed S] [--force]
"""

import json
import logging
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from data.instants import slow_motion
from data.layout import TOP_LEVEL, DatasetWriter, Split
from data.prepare.demo_scene import Scene
from data.prepare.rendered import rendered_frames
from data.spike.manifest import ClipTiming, Manifest, simulated_manifest
from utils.processes import folder_lock
from utils.processes.folder_lock import acquire
from utils.utils_cli import Parser, program, whole
from utils.utils_error import UserError
from utils.utils_file import read_text, write_text
from utils.utils_progress import progress

LOG = logging.getLogger("spikevrt")
# Photographs of background and cut-outs, one line per clip.
CLIPS: dict[Split, list[tuple[str, list[str]]]] = {
    "train": [
        ("coffee.png", ["coins.png", "chelsea.png"]),
        ("chelsea.png", ["coffee.png", "ihc.png"]),
        ("ihc.png", ["brick.png", "chelsea.png"]),
        ("page.png", ["ihc.png", "coffee.png"]),
        ("brick.png", ["chelsea.png", "retina.jpg"]),
        ("coins.png", ["retina.jpg", "chelsea.png"]),
        ("rocket.jpg", ["ihc.png", "coins.png"]),
        ("gravel.png", ["chelsea.png", "page.png"]),
        ("text.png", ["coffee.png", "rocket.jpg"]),
        ("retina.jpg", ["page.png", "ihc.png"]),
    ],
    "test": [
        ("motorcycle_left.png", ["astronaut.png", "camera.png"]),
        ("astronaut.png", ["camera.png", "motorcycle_left.png"]),
        ("camera.png", ["motorcycle_left.png", "astronaut.png"]),
    ],
}
STAMP = "demo_set.json"
# Increased whenever the output changes: sets of another recipe are made anew.
RECIPE = 3
INSTANTS = slow_motion(8)


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the set's bytes, in pixels and spike steps; GoPro's timing with N = 7."""

    seed: int = 2
    height: int = 192
    width: int = 256
    spike_scale: int = 2
    frames: int = 12
    train_clips: int = 10
    test_clips: int = 3
    steps: int = 56
    exposure: int = 49
    sharp_step: int = 24
    theta: float = 2.0
    version: int = RECIPE

    def manifest(self) -> Manifest:
        """Return the manifest without clips: 8 steps for each of GoPro's 240 frames per second."""
        return simulated_manifest((self.height, self.width), self.spike_scale, self.theta, clock_hz=8 * 240.0)

    def timing(self) -> ClipTiming:
        """Return the timing of all clips."""
        return ClipTiming(steps=self.steps, exposure=(0, self.exposure), sharp_step=self.sharp_step)


def build(root: Path, recipe: Recipe) -> None:
    """Render all clips into `root`, one thread per clip."""
    jobs: list[tuple[Split, int]] = [("train", index) for index in range(recipe.train_clips)]
    jobs += [("test", index) for index in range(recipe.test_clips)]

    def make(writer: DatasetWriter, job: tuple[Split, int]) -> None:
        split, index = job
        rng = np.random.default_rng([recipe.seed, split == "test", index])
        background, cutouts = CLIPS[split][index]
        scene = Scene(background, cutouts, (recipe.height, recipe.width), rng)
        clip = f"demo_{split}_{index:02d}"
        timing, scale = recipe.timing(), recipe.spike_scale
        frames = rendered_frames(scene.render, timing, recipe.frames, INSTANTS, scale, recipe.theta, rng)
        writer.add_clip(split, clip, frames, timing)

    with DatasetWriter(root, recipe.manifest()) as writer, ThreadPoolExecutor(os.cpu_count()) as pool:
        made = pool.map(partial(make, writer), jobs)
        list(progress(made, total=len(jobs), unit="clip", what="demo set"))
        writer.finish()


def stamp(root: Path, recipe: Recipe) -> dict[str, object]:
    """Return the stamp of a complete set: its recipe and number of files."""
    own = (path for path in root.rglob("[!.]*") if path.name != STAMP and path.parent.suffix != ".lmdb")
    files = sum(path.is_file() for path in own)
    return {"recipe": asdict(recipe), "files": files}


def why_make(root: Path, recipe: Recipe, force: bool) -> str:
    """Return why the set must be made; empty if it is complete and up to date.

    Raises:
        UserError: `root` holds other files, which would be lost.
    """
    if not root.exists() or not any(root.iterdir()):
        return "it does not exist"
    foreign = sorted({path.name for path in root.iterdir()} - TOP_LEVEL - {STAMP})
    clips = (path for path in root.glob("*_GT*/*") if path.parent.suffix != ".lmdb")
    foreign += [path.name for path in clips if not path.name.startswith("demo_")]
    if foreign:
        raise UserError(f"{root}: holds {foreign[0]}, not part of a demo set; set --out to a new or empty folder")
    if force:
        return "--force"
    if not (root / STAMP).is_file():
        return "it is incomplete: no stamp"
    try:
        found = json.loads(read_text(root / STAMP))
    except ValueError:
        return "its stamp is unreadable"
    expected = stamp(root, recipe)
    if found.get("recipe") != expected["recipe"]:
        return "it was made with other settings"
    return "" if found == expected else f"files are missing: {expected['files']} of {found.get('files')}"


def make_demo_dataset(out: Path, recipe: Recipe, force: bool = False) -> bool:
    """Make the demo set unless it is complete and up to date.

    Args:
        out: folder of the set; built in a temporary folder beside it, then renamed.
        recipe: sizes, times and seed.
        force: always make it anew.

    Returns:
        Whether it was made.
    """
    reason = why_make(out, recipe, force)
    if not reason:
        LOG.info("%s is up to date", out)
        return False
    LOG.info("making %s: %s", out, reason)
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = out.with_name(f".{out.name}{folder_lock.NAME}")
    with acquire(lock, str(out), "wait until it ends, or give another --out"):
        unfinished = out.with_name(f"{out.name}.partial")
        shutil.rmtree(unfinished, ignore_errors=True)
        build(unfinished, recipe)
        write_text(unfinished / STAMP, json.dumps(stamp(unfinished, recipe), indent=1))
        if out.exists():
            shutil.rmtree(out)
        unfinished.replace(out)
    LOG.info("%s: %d train and %d test clips of %d frames", out, recipe.train_clips, recipe.test_clips, recipe.frames)
    return True


def main() -> None:
    """Read the command line and make the set."""
    parser = Parser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("datasets/demo"), help="folder of the set")
    parser.add_argument("--seed", type=whole, default=Recipe.seed, help="the same seed gives the same bytes")
    parser.add_argument("--force", action="store_true", help="make it anew even if it is up to date")
    parser.add_common()
    args = parser.parse_args()
    with program(args.debug, args.quiet):
        make_demo_dataset(args.out, Recipe(seed=args.seed), args.force)


if __name__ == "__main__":
    main()
