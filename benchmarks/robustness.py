"""What other sensors do to trained guides: thresholds, fixed patterns, missing and misaligned spikes, other instants.

python benchmarks/robustness.py --opt options/vrt/demo.json --run experiments/demo experiments/demo_robust [--frames 4]

The held-out clips of the options are fired anew from their stored light, whole frames at a time; PSNR in dB, mean over
frames. One row per condition, one column per run.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data.dataset_video_train_rgbspike import VideoTrainDatasetRGBSpike
from data.geometry import Box
from data.instants import at_instant
from data.spike.refire import Draw, Refired
from data.spike.subframes import SubFrames
from models.model_vrt import ModelVRT
from models.select_model import define_restorer
from options.schema import DatasetOpt, Opt
from utils import utils_dist, utils_option, utils_run_folder
from utils.utils_cli import Parser, positive, program
from utils.utils_error import UserError
from utils.utils_image import to_float, to_uint8
from utils.utils_metric import psnr
from utils.utils_rgbspike import RGBSpike

CONDITIONS: dict[str, tuple[Draw, float | None]] = {
    "as recorded": (Draw(), None),
    "threshold 1": (Draw(theta=1), None),
    "threshold 4": (Draw(theta=4), None),
    "pattern 8 %": (Draw(pattern=0.08), None),
    "pattern 16 %": (Draw(pattern=0.16), None),
    "jitter 4 %, dark 0.01": (Draw(jitter=0.04, dark=0.01), None),
    "no spikes": (Draw(is_dropped=True), None),
    "half a pixel off": (Draw(shift=(0.35, 0.35)), None),
    "2 steps late": (Draw(steps_late=2), None),
    "instant 0.19": (Draw(), 0.19),
    "instant 0.81": (Draw(), 0.81),
}


@dataclass(frozen=True)
class HeldOut:
    """Clips with stored light: the training data set's reader on the test folders."""

    data: VideoTrainDatasetRGBSpike
    refired: Refired
    frames: int

    def samples(self, draw: Draw, time: float | None) -> Iterator[tuple[RGBSpike, np.ndarray, np.ndarray]]:
        """Yield the network's input, the blurred and the sharp frame of a few frames per clip, (H, W, 3) uint8."""
        data = self.data
        assert data.spikes is not None
        for clip, names in data.clips.items():
            size = data.sizes[clip]
            whole = Box(0, 0, *data.spikes.reader.sensor_of(clip).size)
            for name in names[1 : -1 : max((len(names) - 2) // self.frames, 1)][: self.frames]:
                blurred = data.lq.read_many(clip, (name,), size, slice(None), slice(None))
                store, targets = (data.gt, (name,)) if time is None else (data.instant_frames, at_instant([name], time))
                sharp = store.read_many(clip, targets, size, slice(None), slice(None))[0]
                center = None if time is None else data.spikes.reader.step_at(clip, time)
                made = self.refired.planes(clip, name, whole, draw, center=center)
                assert made.scale is not None
                spikes = torch.from_numpy(made.planes)[None, None], torch.from_numpy(made.scale)[None, None]
                yield RGBSpike(to_float(blurred)[None], *spikes), blurred[0], sharp


def held_out(opt: Opt, frames: int) -> HeldOut:
    """Open the test clips of the options with their stored light."""
    test, train = opt.datasets.test, opt.datasets.train
    if test is None or train is None or test.dataroot_instants is None:
        raise UserError(f"{opt.task}: expected a test set with dataroot_instants and stored light, as demo.json has")
    light = Path(test.dataroot_instants).with_name("test_subframes")
    changes = {
        "dataset_type": train.dataset_type,
        "num_frame": 1,
        "gt_size": train.gt_size,
        "augment": {"instant": 1.0},
    }
    data = VideoTrainDatasetRGBSpike(DatasetOpt.model_validate(test.model_dump() | changes))
    assert data.spikes is not None
    return HeldOut(data, Refired(data.spikes, SubFrames(light, data.spikes.reader.shape), data.lq.mean_gray), frames)


def measure(clips: HeldOut, models: dict[str, ModelVRT]) -> dict[str, dict[str, float]]:
    """PSNR by condition and run, and of the blurred frame."""
    found: dict[str, dict[str, float]] = {}
    for condition, (draw, time) in CONDITIONS.items():
        rows: dict[str, list[float]] = {"blurred": [], **{name: [] for name in models}}
        for window, blurred, sharp in clips.samples(draw, time):
            rows["blurred"].append(psnr(blurred, sharp))
            for name, model in models.items():
                rows[name].append(psnr(to_uint8(model.restore(window)[0, 0]), sharp))
        found[condition] = {name: float(np.mean(values)) for name, values in rows.items()}
        print(f"{condition:<24}" + "".join(f"{value:>14.2f}" for value in found[condition].values()), flush=True)
    return found


def run(args: argparse.Namespace) -> None:
    """Load the runs, measure, print."""
    opt = utils_option.load(args.opt, Opt, args.set)
    clips, models = held_out(opt, args.frames), {}
    for folder in args.run:
        own = utils_option.load(utils_run_folder.RunFolder(folder).options, Opt)
        weights, reason = utils_run_folder.find_weights(folder, None, None)
        models[folder.name] = define_restorer(own, weights, reason, utils_dist.init())
    print(f"{'dB':<24}{'blurred':>14}" + "".join(f"{name:>14}" for name in models))
    print(json.dumps({"benchmark": "robustness", "psnr": measure(clips, models)}))


def main() -> None:
    """Read the command line and measure."""
    parser = Parser(description=__doc__)
    parser.add_argument("--run", type=Path, nargs="+", required=True, help="folders of runs, experiments/<task>")
    parser.add_argument("--frames", type=positive, default=4, help="frames per clip")
    parser.add_common(opt="option file whose test clips are used")
    args = parser.parse_args()
    with program(args.debug):
        run(args)


if __name__ == "__main__":
    main()
