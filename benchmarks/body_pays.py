"""Does VRT's body pay behind a good guide? From one trained guide, equal further seconds of each way to go on.

python benchmarks/body_pays.py --video FILE --out FOLDER [--seconds 300] [--rate 1e-3] [--kinds ...] [--seed 0]

Trains on real motion and the demo set together: clips simulated from the first 200 frames of a sharp video, beside
datasets/demo. 50 further frames and the demo's held-out clips are tested apart, PSNR in dB. The guide is trained
first, for the seconds too. As many steps are trained as fit into the seconds by the time of a step, which is measured
first, the kinds in turn. FOLDER keeps the set, the times and finished entries; the same command resumes. On a busy
machine, divide the times in step_times.json by how much slower it is. Ends with one JSON line.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import cv2
import numpy as np
import torch
from timed_training import Kind, kept, network_of, scores, set_roots, step_times
from torch import Tensor, nn

from data.layout import (
    SPIKES,
    SPLITS,
    Split,
    clip_dirs,
    described_clips,
    extra_dirs,
    known_clips,
    write_description,
)
from data.prepare.recordings import Span, clip_name
from data.spike.manifest import FILE_NAME, Manifest
from models.flow.base import Flow
from models.flow.spynet import resize_flow
from models.fusion.guide import GuideFusion
from models.network_vrt import VRT
from models.vrt.reconstruct import enlarge
from options.schema import Opt
from utils import utils_checkpoint
from utils.utils_cli import Parser, positive, program
from utils.utils_colour import to_gray

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "datasets/demo"
SIMULATE = ROOT / "scripts/data_preparation/simulate_spike_dataset.py"
CLIPS: list[tuple[Split, Span, list[str]]] = [
    *(("train", (first, 200), ["--subframes", "--instants", "6"]) for first in (0, 2, 4)),
    ("test", (200, 250), []),
]
ROUNDS, TIMED = 2, 4  # steps are slow here
FIRST, ALONE = "the guide before", "the guide trained on"
GEOMETRY = ("depths", "embed_dims", "num_heads", "indep_reconsts", "window_size", "deformable_groups")
HELD, TRAINED = ('train.freeze=["fusion.*"]',), ("train.freeze=[]",)


class TrainingFreeFlow(Flow):
    """DIS optical flow of the gray frames (Kroeger et al., ECCV 2016), without a gradient."""

    @torch.no_grad()
    def forward(self, ref: Tensor, supp: Tensor) -> list[Tensor]:
        """See Flow.forward."""
        estimate = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        pairs = zip(*(self._gray(frames) for frames in (ref, supp)), strict=True)
        found = np.stack([estimate.calc(first, second, None) for first, second in pairs])  # type: ignore[call-overload]
        flow, (height, width) = torch.from_numpy(found).permute(0, 3, 1, 2), ref.shape[2:]
        return [resize_flow(flow, height >> level, width >> level) for level in range(4)]

    @staticmethod
    def _gray(frames: Tensor) -> np.ndarray:
        return np.rint(to_gray(frames.clamp(0, 1).permute(0, 2, 3, 1).numpy()) * 255).astype(np.uint8)


class Keep(nn.Module):
    """Keeps the features that pass through it until they are taken."""

    def __init__(self) -> None:
        super().__init__()
        self.features: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> the same."""
        self.features.append(x)
        return x

    def take(self) -> Tensor:
        """Return the features of all frames since the last call, (N, C, h, w)."""
        features = torch.cat(self.features)
        self.features.clear()
        return features


class SeesFeatures(nn.Module):
    """VRT's first convolution, to which a layer that starts at zero adds the guide's last features.

    Args:
        net: VRT behind a guide.
    """

    def __init__(self, net: VRT) -> None:
        super().__init__()
        assert isinstance(net.fusion, GuideFusion)
        guide, self.conv, self.keep = net.fusion.guide, net.conv_first, Keep()
        guide.decoders[0].append(self.keep)  # type: ignore[operator]
        self.factor = guide.ratio * guide.stride
        self.added = nn.Conv2d(guide.conv_first.out_channels, self.conv.out_channels, 1)
        nn.init.zeros_(self.added.weight)
        nn.init.zeros_(self.added.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, planes, H, W) -> (B, D, dim, H, W); H and W are multiples of the guide's grid."""
        added = self.added(self.keep.take()).unflatten(0, x.shape[:2])
        return self.conv(x) + enlarge(added, self.factor)


def with_training_free_flow(opt: Opt) -> nn.Module:
    """VRT behind a guide, with flow that needs no training."""
    net = network_of(opt)
    net.spynet = TrainingFreeFlow()
    return net


def with_features(opt: Opt) -> nn.Module:
    """The same, and the body sees the guide's features too."""
    net = with_training_free_flow(opt)
    assert isinstance(net, VRT)
    net.conv_first = SeesFeatures(net)  # type: ignore[assignment]
    return net


def make_set(root: Path, video: Path) -> None:
    """Simulate the clips of the video that are missing, and add those of the demo as links."""
    for split, span, more in CLIPS:
        if clip_name(video.stem, span) not in known_clips(root):
            where = ["--video", str(video), "--out", str(root), "--split", split, "--range", "{}:{}".format(*span)]
            subprocess.run([sys.executable, str(SIMULATE), *where, *more], check=True)
    described = {split: list(described_clips(DEMO, split).values()) for split in SPLITS}
    demo, manifest = (Manifest.read(each / SPIKES / FILE_NAME) for each in (DEMO, root))
    sizes = {key: getattr(demo, key) for key in ("spike_h", "spike_w", "rgb_h", "rgb_w")}
    timings = {clip: timing.model_copy(update=sizes) for clip, timing in demo.clips.items()}
    for split, lines in described.items():
        for line in lines:
            source, target = (clip_dirs(at, split, line.clip) + extra_dirs(at, split, line.clip) for at in (DEMO, root))
            for there, link in zip(source, target, strict=True):
                if there.exists() and not link.exists():
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(there.resolve(), target_is_directory=True)
    write_description(root, manifest.model_copy(update={"clips": manifest.clips | timings}), described)


def kinds(root: Path, weights: Path | None, rate: float = 1e-3) -> dict[str, Kind]:
    """What is compared.

    Args:
        root: the data set.
        weights: the guide that all start from; None: a fresh one, as for timing.
        rate: learning rate after the first guide's training, which has its own.
    """
    sets = [*set_roots(root, "train"), *set_roots(root, "test"), "datasets.test.dataroot_instants=null"]
    sets.append('val.metrics=["psnr"]')
    guide = Kind("options/vrt/demo.json", tuple(sets))
    train = guide.load(1).datasets.train
    assert train is not None
    at_second = [f"train.G_optimizer_lr={rate}", f"netG.guide.weights={weights or 'null'}"]
    sets += [*at_second, f"datasets.train.augment={train.augment.model_dump_json()}", "datasets.train.cache_data=true"]
    sets += ["val.num_frame_overlapping=2"]
    body = Kind("options/vrt/demo_guided_vrt.json", tuple(sets))
    large = Kind("options/vrt/svrt_tiny.json").load(1).netG
    svrt = tuple(f"netG.{key}={json.dumps(getattr(large, key))}" for key in GEOMETRY)
    free = replace(body, network=with_training_free_flow)
    return {
        FIRST: guide,
        ALONE: replace(guide, sets=(*guide.sets, at_second[0]), network=partial(trained_on, weights=weights)),
        "body, random flow, guide held": more_sets(body, HELD),
        "body, random flow, guide trained": more_sets(body, TRAINED),
        "body, DIS flow, guide held": more_sets(free, HELD),
        "body, DIS flow, guide trained": more_sets(free, TRAINED),
        "body, DIS flow, features, guide held": replace(more_sets(body, HELD), network=with_features),
        "svrt_tiny, random flow, guide held": more_sets(body, (*HELD, *svrt)),
    }


def more_sets(kind: Kind, sets: tuple[str, ...]) -> Kind:
    """The same kind with more changes of the options."""
    return replace(kind, sets=(*kind.sets, *sets))


def trained_on(opt: Opt, weights: Path | None) -> nn.Module:
    """The guide with its weights."""
    net = network_of(opt)
    if weights is not None:
        utils_checkpoint.load_weights(net, weights)
    return net


def measured(kind: Kind, steps: int, seed: int, weights: Path | None = None) -> dict[str, Any]:
    """Train and score one entry by group of clips; also writes the weights, if a file is given."""
    model = kind.trained(steps, seed)
    if weights is not None:
        utils_checkpoint.write_weights((model.netE or model.netG).state_dict(), weights)
    groups: dict[str, list[dict[str, float]]] = {}
    for clip, found in scores(kind.load(steps, seed), model)["clips"].items():
        groups.setdefault(clip.split("_")[0], []).append(found)
    psnr = {name: {key: fmean(each[key] for each in found) for key in found[0]} for name, found in groups.items()}
    return {"steps": steps, "psnr": psnr}


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Measure all entries that the folder does not have yet; print them."""
    make_set(args.out / "set", args.video)
    times = kept(args.out / "step_times.json", lambda: step_times(kinds(args.out / "set", None), ROUNDS, TIMED))
    weights, rows = args.out / f"guide_{args.seconds}_{args.seed}.pth", {}
    chosen = [FIRST, *args.kinds] if args.kinds else list(times)
    for name in chosen:
        kind = kinds(args.out / "set", None if name == FIRST else weights, args.rate)[name]
        rate = "" if name == FIRST else f"_{args.rate:g}"
        path = args.out / f"{name.replace(', ', '-').replace(' ', '_')}_{args.seconds}{rate}_{args.seed}.json"
        steps = max(int(args.seconds / times[name]), 1)
        row = kept(path, partial(measured, kind, steps, args.seed, weights if name == FIRST else None))
        if name == FIRST:
            groups = sorted(row["psnr"])
            print(f"{'PSNR, dB':<40}{'s a step':>10}{'steps':>8}" + "".join(f"{group:>8}" for group in groups))
            for label, key in (("blurred", "lq_psnr"), ("SDM", "sdm_psnr")):
                print(f"{label:<58}" + "".join(f"{row['psnr'][group][key]:>8.2f}" for group in groups), flush=True)
        rows[name] = row
        found = "".join(f"{row['psnr'][group]['psnr']:>8.2f}" for group in groups)
        print(f"{name:<40}{times[name]:>10.3f}{row['steps']:>8}{found}", flush=True)
    return {"seconds": args.seconds, "rate": args.rate, "seed": args.seed, "per_step": times, "rows": rows}


def main() -> None:
    """Read the command line, measure, print."""
    parser = Parser(description=__doc__)
    parser.add_argument("--video", type=Path, required=True, help="a sharp video of 250 frames or more")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="keeps what has been measured")
    parser.add_argument("--seconds", type=positive, default=300, help="seconds of each training")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate after the first guide's training")
    parser.add_argument("--kinds", nargs="+", metavar="KIND", help="networks to train (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the trainings")
    parser.add_common()
    args = parser.parse_args()
    with program(args.debug, args.quiet):
        args.out.mkdir(parents=True, exist_ok=True)
        machine = {"torch": torch.__version__, "threads": torch.get_num_threads()}
        print(json.dumps({"benchmark": "body_pays", **machine, **compare(args)}))


if __name__ == "__main__":
    main()
