"""What spikes add, and under which conditions: networks, other sensors and unaligned cameras, in one table.

python benchmarks/spikes_pay.py --out FOLDER [--data datasets/scenes] [--videos DIR ...] [--quick]

Networks without spikes, with one plane of mean rate and with the guide, which is trained for one sensor (clean) and for
many (robust), are trained anew for equal seconds, the main ones with three seeds. Beside them stand the blurred frame,
formulas without training (SDM, and TFP, which is gray and measured in gray) and the weights that ship. All are measured
on held-out clips, fired anew: other thresholds, which the methods are not told, fixed patterns, spikes that are shifted
or late, as they are and after `spike.py align`, no spikes at all, and other instants of the exposure. --videos adds
test sets of simulate_spike_dataset.py, on which no method is trained.

The set is one of make_scene_dataset.py; --quick takes the demo set, 30 seconds, one seed and few frames. Trainings last
180 seconds by default, so that all of it takes 3 hours on two cores. FOLDER keeps step times, weights, sets and
finished entries; the same command resumes. Ends with one JSON line.
"""

import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean, pstdev

import cv2
import numpy as np
import torch
from fired_sets import Condition, fire_set
from pay_pictures import draw_pictures, draw_plot, draw_worst
from timed_training import Kind, kept, set_roots, step_times
from torch import Tensor

from data.check import open_dataset
from data.frame_store import instants_store
from data.instants import instants_of, step_of
from data.layout import SPIKES, instant_dir, known_clips
from data.spike.manifest import FILE_NAME, Manifest
from data.spike.refire import Draw
from models.fusion.guide import RATE_WINDOW, middle_mean
from models.select_model import define_restorer
from options.schema import Opt
from options.schema_augment import AugmentOpt
from utils import utils_checkpoint, utils_dist, utils_error, utils_option
from utils.evaluation.clip import Frame
from utils.utils_cli import Parser, positive, program
from utils.utils_colour import to_gray
from utils.utils_eval import evaluate
from utils.utils_metric import psnr
from utils.utils_rgbspike import RGBSpike, Window

ROOT = Path(__file__).resolve().parents[1]
SIMULATE = ROOT / "scripts/data_preparation/simulate_spike_dataset.py"
OFF = (1.4, 1.4)  # spike pixels, 2 in length
CONDITIONS = {
    "threshold 2": Condition(),
    "threshold 1": Condition(Draw(theta=1)),
    "threshold 4": Condition(Draw(theta=4)),
    "pattern 8 %": Condition(Draw(pattern=0.08, jitter=0.04)),
    "pattern 16 %": Condition(Draw(pattern=0.16, jitter=0.04)),
    "no spikes": Condition(Draw(is_dropped=True)),
    "1 px off": Condition(Draw(shift=(0.7, 0.7))),
    "2 px off": Condition(Draw(shift=OFF)),
    "2 px off, aligned": Condition(Draw(shift=OFF), is_aligned=True),
    "4 steps late": Condition(Draw(steps_late=4)),
    "4 late, aligned": Condition(Draw(steps_late=4), is_aligned=True),
    "2 px, 4 late, aligned": Condition(Draw(shift=OFF, steps_late=4), is_aligned=True),
    "any instant": Condition(is_any_instant=True),
}

TRAIN_ONE_SENSOR = AugmentOpt(theta=(2, 2), instant=0.5)  # that of the test set, at any instant
NO_SPIKES = (
    "datasets.train.dataset_type=VideoRecurrentTrainDataset",
    "datasets.test.dataset_type=VideoRecurrentTestDataset",
    f"datasets.train.augment={AugmentOpt().model_dump_json()}",
    *(f"datasets.{block}.dataroot_{key}=null" for block in ("train", "test") for key in ("spike", "instants")),
    "datasets.train.dataroot_subframes=null",
)
KNOWN = "threshold 2"  # the sensor that is trained for, if one is
BLIND, ONE_PLANE, CLEAN, ROBUST = "guide without spikes", "vrt, one plane", "guide, clean", "guide, robust"
SHIPPED = {"guide, shipped": "guide", "guide_tiny, shipped": "guide_tiny"}
FORMULAS = "formulas"
ZOO = ROOT / "model_zoo/guide"
METHODS = (FORMULAS, *SHIPPED, BLIND, ONE_PLANE, CLEAN, ROBUST)
SEEDED = (ONE_PLANE, CLEAN, ROBUST)  # trained with every seed; others with the first
ONLY = {BLIND: (KNOWN,), ONE_PLANE: (KNOWN, "threshold 1", "threshold 4")}  # conditions; others: all
# Titles and decimals.
METRICS = {"psnr": ("PSNR, dB", 2), "ssim_matlab_rgb": ("SSIM", 4), "tof": ("warping error (tOF), pixels", 2)}


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    seconds: int
    seeds: tuple[int, ...]
    clips: int
    frames: int | None
    conditions: tuple[str, ...]


FULL = Extent(180, (0, 1, 2), 40, None, tuple(CONDITIONS))
QUICK = Extent(30, (0,), 3, 2, (KNOWN, "threshold 4", "pattern 16 %", "no spikes", "2 px off", "2 px off, aligned"))


def kinds(data: Path) -> dict[str, Kind]:
    """What is trained."""
    own = (*set_roots(data, "train"), *set_roots(data, "test"), "datasets.train.cache_data=true")
    clean = f"datasets.train.augment={TRAIN_ONE_SENSOR.model_dump_json()}"  # every key: --set merges objects
    vrt = tuple(one for one in own if "subframes" not in one and "instants" not in one)
    if not data.samefile(ROOT / "datasets/demo"):  # clips of two frames
        vrt = (*vrt, "datasets.train.num_frame=2", "datasets.train.dataloader_batch_size=3", "val.num_frame_testing=2")
    return {
        BLIND: Kind("options/vrt/guide_scenes.json", (*own, *NO_SPIKES)),
        ONE_PLANE: Kind("options/vrt/demo_vrt.json", vrt),
        CLEAN: Kind("options/vrt/guide_scenes.json", (*own, clean)),
        ROBUST: Kind("options/vrt/guide_scenes.json", own),
    }


def shipped(size: str) -> Kind:
    """Weights that ship."""
    return Kind("options/vrt/guide_scenes.json", (f"netG.guide.size={size}",))


class Bench:
    """Trains, fires and measures what the folder does not have yet.

    Args:
        out: folder of everything that is kept.
        data: a set with stored light and instants.
        extent: how much is measured.
        methods: of METHODS; None: all.
        videos: further test sets.
    """

    def __init__(
        self,
        out: Path,
        data: Path,
        extent: Extent,
        methods: Sequence[str] | None = None,
        videos: Sequence[Path] = (),
    ) -> None:
        self.out, self.data, self.extent, self.kinds = out, data, extent, kinds(data)
        self.methods, self.videos = methods or METHODS, {path.name: path for path in videos}
        found = sorted(clip for clip, split in known_clips(data).items() if split == "test")
        self.clips = found[: extent.clips]
        for name in ("entries", "weights", "sets"):
            (out / name).mkdir(parents=True, exist_ok=True)

    def weights(self, name: str, seed: int) -> Path:
        """Train a kind for its seconds, unless its weights are there."""
        path = self.out / "weights" / f"{_slug(name)}_{self.extent.seconds}_{seed}.pth"
        if not path.is_file():
            times = kept(self.out / "step_times.json", partial(step_times, self.kinds))
            model = self.kinds[name].trained(max(int(self.extent.seconds / times[name]), 1), seed)
            utils_checkpoint.write_weights((model.netE or model.netG).state_dict(), path)
        return path

    def test_set(self, name: str) -> Path:
        """Return a video's set, or fire and align that of a condition, unless it is there."""
        if name in self.videos:
            return self.videos[name]
        condition, path = CONDITIONS[name], self.out / "sets" / _slug(name)
        done = path / "whole"
        if not done.is_file():
            fire_set(self.data, path, condition.draw, self.clips, self.extent.frames)
            if condition.is_aligned:
                subprocess.run([sys.executable, str(ROOT / "scripts/spike.py"), "align", str(path)], check=True)
            done.touch()
        return path

    def scores(
        self,
        kind: Kind,
        weights: Path | None,
        root: Path,
        is_any_instant: bool = False,
        watchers: Sequence[Callable[[Frame], None]] = (),
    ) -> dict[str, float]:
        """Restore and measure a test set; means over frames. Without weights, the formulas alone are measured."""
        sets = [*kind.sets, *set_roots(root, "test"), f"val.metrics={json.dumps(list(METRICS))}"]
        if not instant_dir(root, "test").is_dir():
            sets.append("datasets.test.dataroot_instants=null")
        if kind is self.kinds[BLIND]:
            sets += NO_SPIKES
        opt = utils_option.load(Path(kind.file), Opt, sets)
        assert opt.datasets.test is not None
        clips = list(open_dataset(opt.datasets.test))
        if is_any_instant:
            store = instants_store(opt.datasets.test, instant_dir(root, "test"))
            manifest = Manifest.read(root / SPIKES / FILE_NAME)
            clips = [
                clip.at(_apart(instants_of(store.names(clip.name), clip.frames), manifest, clip.name), store)
                for clip in clips
            ]
        if weights is not None:
            model = define_restorer(opt, weights, "benchmark", utils_dist.init())
            return dict(evaluate(model.restore, clips, opt.val, watchers=watchers)["mean_over_frames"])
        gray: list[float] = []
        result = evaluate(blurred_of, clips, opt.val, watchers=[partial(playback, gray), *watchers])
        return {**result["mean_over_frames"], "tfp_psnr": fmean(gray)}

    def method(self, name: str, seed: int) -> tuple[Kind, Path | None]:
        """Return a method's options and weights."""
        if name == FORMULAS:
            return self.kinds[ROBUST], None
        if name in SHIPPED:
            return shipped(SHIPPED[name]), ZOO / f"{SHIPPED[name]}.safetensors"
        return self.kinds[name], self.weights(name, seed)

    def entry(self, name: str, seed: int, condition: str) -> dict[str, float]:
        """Return what one method does under one condition."""
        is_any_instant = condition in CONDITIONS and CONDITIONS[condition].is_any_instant

        def measured() -> dict[str, float]:
            return self.scores(*self.method(name, seed), self.test_set(condition), is_any_instant)

        return kept(
            self.out / "entries" / f"{_slug(name)}_{_slug(condition)}_{self.extent.seconds}_{seed}.json", measured
        )

    def rows(self) -> Iterator[tuple[str, int, str, dict[str, float]]]:
        """Measure everything: method, seed, condition, scores."""
        for seed in self.extent.seeds:
            for name in self.methods:
                if name not in SEEDED and seed != self.extent.seeds[0]:
                    continue
                for condition in (*self.extent.conditions, *self.videos):
                    if condition in ONLY.get(name, (condition,)) or condition in self.videos:
                        yield name, seed, condition, self.entry(name, seed, condition)


def blurred_of(window: Window) -> Tensor:
    """Return the blurred frames as they are."""
    assert isinstance(window, RGBSpike)
    return window.rgb


def playback(found: list[float], frame: Frame) -> None:
    """Measure playback (TFP), the mean rate of the planes in the middle, in gray; see evaluate's watchers."""
    clip = frame.clip
    assert frame.sharp is not None
    around = clip.spike(frame.index, frame.index + 1)[0][clip.planes_in_time]
    gray = middle_mean(around[None], RATE_WINDOW)[0, 0].clamp(0, 1).numpy()
    enlarged = cv2.resize(gray, frame.sharp.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    pictures = (np.rint(gray).astype(np.uint8) for gray in (enlarged * 255, to_gray(frame.sharp.astype(np.float32))))
    found.append(psnr(*(np.dstack([picture] * 3) for picture in pictures)))


def shown(bench: Bench, name: str) -> dict[str, dict[str, np.ndarray]]:
    """Return what a method makes of the first frame of each held-out clip; for the formulas blurred, SDM and sharp."""
    found: dict[str, dict[str, np.ndarray]] = {}

    def watch(frame: Frame) -> None:
        if frame.index:
            return
        assert frame.sharp is not None
        found[frame.clip.name] = (
            {name: frame.restored}
            if name != FORMULAS
            else {"blurred": frame.blurred, "SDM": frame.clip.references(0)["sdm_"], "sharp": frame.sharp}
        )

    bench.scores(*bench.method(name, bench.extent.seeds[0]), bench.test_set(KNOWN), watchers=[watch])
    return found


def _apart(times: Sequence[float], manifest: Manifest, clip: str) -> list[float]:
    """Return the instants of a clip that are steps of their own."""
    exposure = manifest.timing(clip).exposure
    return list({step_of(*exposure, time): time for time in times}.values())


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


Row = tuple[str, int, str, dict[str, float]]  # method, seed, condition, scores
SHOWN = {"blurred": "lq_", "SDM": "sdm_", "TFP, gray": "tfp_"}  # formulas: prefix of their metrics


def cells(rows: list[Row], key: str) -> dict[str, dict[str, list[float]]]:
    """Return one metric's values, one per seed, by condition and method."""
    found: dict[str, dict[str, list[float]]] = {}
    for name, _, condition, scores in rows:
        methods = SHOWN if name == FORMULAS else {name: ""}
        for label, prefix in methods.items():
            if prefix + key in scores:
                found.setdefault(condition, {}).setdefault(label, []).append(scores[prefix + key])
    return found


def print_table(found: dict[str, dict[str, list[float]]], title: str, decimals: int) -> None:
    """Print one metric: means of the seeds, and their standard deviation."""
    methods = list(dict.fromkeys(method for values in found.values() for method in values))
    print(f"\n{title:<28}" + "".join(f"{method:>22}" for method in methods))
    for condition, values in found.items():
        texts = []
        for seeds in (values.get(method, []) for method in methods):
            spread = f" ±{pstdev(seeds):.{decimals}f}" if len(seeds) > 1 else ""
            texts.append(f"{fmean(seeds):.{decimals}f}{spread}" if seeds else "")
        print(f"{condition:<28}" + "".join(f"{text:>22}" for text in texts), flush=True)


def command_line() -> Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="keeps what has been measured")
    parser.add_argument(
        "--data", type=Path, help="a set of make_scene_dataset.py (default: datasets/scenes; the demo set with --quick)"
    )
    parser.add_argument(
        "--seconds",
        type=positive,
        help=f"seconds of each training (default: {FULL.seconds}; {QUICK.seconds} with --quick)",
    )
    parser.add_argument("--seeds", type=int, nargs="+", help="seeds of the trainings (default: 0 1 2; 0 with --quick)")
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=METHODS,
        metavar="METHOD",
        help=f"methods to compare: {', '.join(METHODS)} (default: all)",
    )
    parser.add_argument(
        "--conditions",
        nargs="+",
        choices=list(CONDITIONS),
        metavar="CONDITION",
        help="conditions to measure (default: all)",
    )
    parser.add_argument("--videos", type=Path, nargs="+", default=[], metavar="DIR", help="further test sets")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw PSNR by condition")
    parser.add_argument("--pictures", type=Path, metavar="FILE", help="show three held-out clips: worst, middle, best")
    parser.add_argument("--worst", type=Path, metavar="FILE", help="show what the first network restores worst")
    parser.add_argument("--quick", action="store_true", help="the demo set, few conditions: 5 minutes")
    parser.add_common()
    return parser.parse_args()


def main() -> None:
    """Read the command line, measure, print."""
    args = command_line()
    with program(args.debug, args.quiet):
        extent = QUICK if args.quick else FULL
        extent = replace(
            extent,
            seconds=args.seconds or extent.seconds,
            seeds=tuple(args.seeds or extent.seeds),
            conditions=tuple(args.conditions or extent.conditions),
        )
        data = args.data or ROOT / ("datasets/demo" if args.quick else "datasets/scenes")
        if not data.is_dir():
            maker = "make_demo_dataset.py" if args.quick else "make_scene_dataset.py"
            raise utils_error.UserError(
                f"{utils_error.shown(data)}: no such data set; make it with scripts/data_preparation/{maker}, or give "
                "another with --data"
            )
        bench = Bench(args.out, data, extent, args.methods, args.videos)
        rows = list(bench.rows())
        tables = {key: cells(rows, key) for key in METRICS}
        for key, (title, decimals) in METRICS.items():
            print_table(tables[key], title, decimals)
        if args.plot:
            draw_plot(tables["psnr"], args.plot)
        if args.pictures or args.worst:
            pictures = {name: shown(bench, name) for name in bench.methods}
            if args.pictures:
                draw_pictures(pictures, args.pictures)
            if args.worst:
                draw_worst(pictures, args.worst)
        machine = {"torch": torch.__version__, "threads": torch.get_num_threads()}
        print(json.dumps({"benchmark": "spikes_pay", "seconds": extent.seconds, **machine, **tables}))


if __name__ == "__main__":
    main()
