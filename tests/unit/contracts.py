"""What every entry of each registry keeps to, one check a kind; tests of the registries and of docs/extending.md."""

from typing import get_args

import numpy as np
import pytest
import torch
from tiny_set import SHARP, STEPS, WINDOW, options
from torch import nn

from data.select_dataset import DATASETS, define_Dataset
from data.spike.arrays import Recording, planes_of
from data.spike.planes import REPRESENTATIONS
from models.flow import FLOWS
from models.fusion import FUSIONS
from models.loss import LOSSES
from options.schema import NetOpt, SpikeOpt, TrainOpt, ValOpt
from options.schema_data import DATASET_TYPES, EXPOSURE_PLANES, SPIKE_CHANNELS
from utils.evaluation.compared import Motion
from utils.utils_error import UserError
from utils.utils_metric import METRICS, TEMPORAL_METRICS, check_available, lower_is_better
from utils.utils_rgbspike import tensors_of

REGISTRIES = {
    "fusion": FUSIONS,
    "flow": FLOWS,
    "loss": LOSSES,
    "metric": METRICS | TEMPORAL_METRICS,
    "representation": REPRESENTATIONS,
    "data set": DATASETS,
}


def names_of(field):
    """The texts that an option may be."""
    return {name for part in get_args(field.annotation) for name in (get_args(part) or [part]) if name is not ...}


ALLOWED = {
    "fusion": names_of(NetOpt.model_fields["fusion"]),
    "flow": names_of(NetOpt.model_fields["optical_flow"]),
    "loss": names_of(TrainOpt.model_fields["G_lossfn_type"]),
    "metric": names_of(ValOpt.model_fields["metrics"]),
    "representation": names_of(SpikeOpt.model_fields["representation"]),
}


def check_gradients(module, loss):
    """Every parameter gets a finite gradient, and not one of zeros."""
    module.zero_grad()
    loss.backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def check_fusion(name):
    for planes, height, width in ((0, 8, 8), (1, 7, 9), (4, 1, 1), (3, 12, 5)):
        torch.manual_seed(0)
        fusion, recorded = small_fusion(name, planes)
        for parameter in fusion.parameters():
            if not parameter.any():  # starts without effect
                nn.init.normal_(parameter, std=0.1)
        rgb, spike = torch.rand(2, 3, 3, height, width), torch.rand(2, 3, recorded, height, width)
        out = fuse(fusion, rgb.requires_grad_(), spike.requires_grad_())
        assert out.shape == (2, 3, fusion.out_chans, height, width)
        if planes:
            check_gradients(fusion, out.square().sum())
            assert rgb.grad.any()
            assert spike.grad.any()
        assert torch.isfinite(fuse(fusion, rgb, torch.zeros_like(spike))).all()  # blank spikes


def small_fusion(name, planes):
    """A fusion, and the number of planes that it is given; one that reads the steps themselves has its own."""
    if not FUSIONS[name].own_grid:
        return FUSIONS[name](planes), planes
    around = 2 * planes + 1 if planes else 0
    return FUSIONS[name](min(planes, 1), planes=around, width=4, blocks=(1, 1)), around + EXPOSURE_PLANES * bool(planes)


def fuse(fusion, rgb, spike):
    """As the network does, with planes on the RGB grid."""
    if not spike.shape[2]:
        return fusion(fusion.estimate(rgb, None), spike)
    return fusion(fusion.estimate(rgb, spike), fusion.select(spike))


def check_flow(name):
    for height, width in ((8, 8), (9, 13), (40, 33)):
        torch.manual_seed(0)
        flow = FLOWS[name]()
        ref, supp = torch.rand(2, 2, 3, height, width).unbind()
        flows = flow(ref, supp)
        assert [tuple(one.shape) for one in flows] == [(2, 2, height // s, width // s) for s in (1, 2, 4, 8)]
        check_gradients(flow, sum(one.square().sum() for one in flows))
        black = torch.zeros_like(ref)
        assert all(torch.isfinite(one).all() for one in flow(black, black))


def check_loss(name):
    loss = LOSSES[name]
    for shape in ((1, 1, 3, 1, 1), (2, 2, 3, 5, 6)):
        torch.manual_seed(0)
        out, gt = torch.rand(2, *shape).unbind()
        assert loss(gt, gt, 1e-12).item() == pytest.approx(0, abs=2e-6)
        value = loss(out.requires_grad_(), gt, 1e-6)
        assert (value.shape, value.dtype) == ((), torch.float32)
        assert value > 0
        value.backward()
        assert out.grad.ne(0).all()
        same = gt.clone().requires_grad_()
        loss(same, gt, 1e-9).backward()
        assert torch.isfinite(same.grad).all()


def check_metric(name):
    try:
        check_available([name])
    except UserError as error:
        pytest.skip(str(error))
    rng = np.random.default_rng(0)
    for height, width in ((24, 33), (40, 24)) if name != "lpips" else ((64, 80),):
        sharp = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        near, far = (np.clip(sharp + rng.integers(-n, n + 1, sharp.shape), 0, 255).astype(np.uint8) for n in (20, 90))
        if name in METRICS:
            best, good, bad = (METRICS[name](image, sharp) for image in (sharp, near, far))
            assert METRICS[name](near, sharp, 2) == pytest.approx(METRICS[name](sharp, near, 2))
        else:
            shown = (Motion(sharp, image) for image in (near, sharp, far))
            wanted = Motion(sharp, near)
            best, good, bad = (TEMPORAL_METRICS[name].of_motion(motion, wanted) for motion in shown)
        assert all(isinstance(value, float) for value in (best, good, bad))
        assert best < min(good, bad) if lower_is_better(name) else best > max(good, bad)
        assert best in (0, np.inf) or best == pytest.approx(1)
        assert name in TEMPORAL_METRICS or (good < bad) == lower_is_better(name)


def check_representation(name):
    opt = SpikeOpt(window=WINDOW, planes=3).model_copy(update={"representation": name})
    represent = REPRESENTATIONS[name]
    rng = np.random.default_rng(0)
    for height, width in ((1, 1), (5, 8)):
        frames = rng.integers(0, 256, (2, 2 * height, 2 * width, 3), dtype=np.uint8)
        streams = [np.full((2, STEPS, height, width), value, np.uint8) for value in (0, 1)]
        for spikes in (*streams, rng.integers(0, 2, streams[0].shape, dtype=np.uint8)):
            known = Recording(
                rate_at_white=0.5,
                sharp_step=SHARP if represent.reads_window else None,  # what it does not read need not be known
                exposure=(2, 20) if represent.reads_exposure else None,
            )
            for channels in SPIKE_CHANNELS[name](opt.window, opt.planes) or (1, 3):
                check_planes(represent, (2, channels, height, width), planes_of(frames, spikes, opt, channels, known))


def check_planes(represent, shape, made):
    counted, grid = represent.gives in ("bits", "counts"), 2 if represent.gives == "ratio" else 1
    assert made.planes.shape == (*shape[:2], grid * shape[2], grid * shape[3])
    assert made.planes.dtype == (np.uint8 if counted else np.float32)
    assert np.isfinite(made.planes).all()
    if counted:
        assert (made.scale.shape, made.scale.dtype) == (shape[:2], np.float32)
        assert np.isfinite(made.scale).all()
        assert made.scale.min() >= 0
    else:
        assert made.scale is None


def check_dataset(name, root):
    kind = DATASET_TYPES[name]
    spikes = {"spike": {"representation": "bins"}, "spike_channels": 2} if kind.uses_spikes else {"spike_channels": 0}
    dataset = define_Dataset(options(root, dataset_type=name, **spikes))
    assert len(dataset) > 0
    check = check_train_set if kind.block == "train" else check_clips
    check(dataset, spikes["spike_channels"])


def check_train_set(dataset, planes):
    for index in (0, len(dataset) - 1):
        sample = dataset.sample(index, np.random.default_rng(index))
        shapes = {"lq": (3, 3, 16 // dataset.scale, 16 // dataset.scale), "gt": (3, 3, 16, 16)}
        shapes |= {"spike": (3, planes, *(side // 2 for side in shapes["lq"][2:]))} if planes else {}
        assert {key: tuple(value.shape) for key, value in sample.items() if key != "key"} == shapes
        assert all(sample[key].dtype == torch.float32 for key in shapes)
        assert all(0 <= sample[key].min() <= sample[key].max() <= 1 for key in ("lq", "gt"))
        assert isinstance(sample["key"], str)
        assert dataset.name(index, np.random.default_rng(index))
        assert isinstance(dataset.shuffle, bool)


def check_clips(dataset, planes):
    for clip in (dataset[index] for index in range(len(dataset))):
        assert clip.has_spike == bool(planes)
        assert clip.lq(1, 3).shape == (2, 3, *clip.size)
        rgb, *spike = tensors_of(clip.network_input(1, 3), torch.device("cpu"))
        assert (tuple(rgb.shape), rgb.dtype) == ((2, 3, *clip.size), torch.float32)
        own = tuple(side // 2 for side in clip.size)
        assert [(tuple(one.shape), one.dtype) for one in spike] == [((2, planes, *own), torch.float32)] * bool(planes)
        assert clip.has_gt == (dataset.scale is not None)
        if clip.has_gt:
            sharp = clip.gt(1, 3)
            assert (sharp.shape, sharp.dtype) == ((2, *(side * dataset.scale for side in clip.size), 3), np.uint8)
        if planes:
            assert clip.spike(0, 1).shape == (1, planes, *own)
        assert clip.planes_in_time == slice(0, planes)
        assert all(image.shape == (*clip.size, 3) for image in clip.references(0).values())
        assert len(clip.frames) >= 3
        assert isinstance(clip.name, str)
        assert clip.playback


CHECKS = {
    "fusion": check_fusion,
    "flow": check_flow,
    "loss": check_loss,
    "metric": check_metric,
    "representation": check_representation,
    "data set": check_dataset,
}


def check(kind, name, shared_set):
    """Hold one entry of a registry to the contract of its kind."""
    CHECKS[kind](name, *[shared_set] * (kind == "data set"))
