"""Number formats: what bf16 and fp16 may change, what stays float32, the loss scale, TF32."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from lively import RESIDUAL, enliven
from skimage import data as photographs
from test_training_parts import TinyNet, batch
from tiny_network import tiny
from torch import nn

from models import precision
from models.loss import LOSSES
from models.model_vrt import ModelVRT
from models.network_vrt import VRT
from options.schema import AmpOpt, TrainOpt
from utils.checkpoint import run_checkpoints
from utils.utils_dist import Dist

FP16 = TrainOpt(amp=AmpOpt(enable=True, dtype="fp16"), total_iter=10, E_decay=0.5, G_optimizer_lr=1e-2)
BF16 = TrainOpt(amp=AmpOpt(enable=True), total_iter=10)
GEOMETRY = tiny(depth=2, width=16, window_size=[6, 4, 4], mlp_ratio=2.0, deformable_groups=4)


@pytest.fixture(scope="module")
def frames():
    """(1, 4, 3, 48, 48): a window that travels over a photograph, three pixels a frame."""
    image = np.float32(photographs.astronaut()) / 255
    clip = np.stack([image[60 + 2 * t : 108 + 2 * t, 200 + 3 * t : 248 + 3 * t] for t in range(4)])
    return torch.from_numpy(clip).permute(0, 3, 1, 2)[None]


@pytest.fixture(scope="module")
def net(frames):
    """Every part works, flows are of several pixels, and the residual is as large as that of blurred frames."""
    net = VRT(**GEOMETRY).eval()
    enliven(net, frames)
    assert net.flows(frames)[0][0].abs().max() > 2
    return net


@pytest.fixture(scope="module")
def exact(net, frames):
    with torch.no_grad():
        return net(frames)


@pytest.mark.parametrize(("dtype", "bound"), [(None, math.inf), ("bf16", 50.0), ("fp16", 65.0)])
def test_restored_frames_are_those_of_float32_within_a_bound(net, frames, exact, dtype, bound):
    amp = AmpOpt(enable=dtype is not None, dtype=dtype or "bf16")
    out = ModelVRT(net, TrainOpt(amp=amp), Dist()).restore(frames)
    assert (exact - frames).square().mean().sqrt() == pytest.approx(RESIDUAL, rel=0.01)
    assert out.dtype == torch.float32
    error = (out - exact).square().mean().item()
    assert error == 0 if bound == math.inf else 0 < error < 10 ** (-bound / 10)


def test_flow_coordinates_and_norms_stay_float32_under_autocast(net, frames, monkeypatch):
    seen = {"flow": set(), "grid": set(), "offset": set(), "norm": set()}
    monkeypatch.setattr(nn.functional, "grid_sample", recorder(nn.functional.grid_sample, seen["grid"], 1))
    monkeypatch.setattr("models.vrt.alignment.deform_conv2d", recorder(deform_conv2d(), seen["offset"], 1))

    def flow(_module, args):
        seen["flow"] |= {tensor.dtype for tensor in args}
        assert not torch.is_autocast_enabled("cpu")

    def norm(module, args, out):
        exact = nn.functional.layer_norm(args[0].double(), module.normalized_shape, *double(module))
        seen["norm"].add((out - exact).abs().max().item() / exact.abs().max().item())

    handles = [net.spynet.register_forward_pre_hook(flow)]
    handles += [part.register_forward_hook(norm) for part in net.modules() if isinstance(part, nn.LayerNorm)]
    with torch.no_grad(), precision.autocast(torch.device("cpu"), torch.bfloat16):
        net(frames)
    for handle in handles:
        handle.remove()
    assert seen["flow"] == seen["grid"] == seen["offset"] == {torch.float32}
    # One rounding of the result to bf16; statistics in bf16 would be several times further off.
    assert len(seen["norm"]) > 20
    assert max(seen["norm"]) < 2**-8


def recorder(function, kinds, index):
    def call(*args, **kwargs):
        kinds.add(args[index].dtype)
        return function(*args, **kwargs)

    return call


def deform_conv2d():
    from models.op import deform_conv2d as function

    return function


def double(module):
    return module.weight.double(), module.bias.double(), module.eps


@pytest.mark.parametrize("name", LOSSES)
def test_loss_is_computed_in_float32_under_autocast(name):
    out, gt = torch.rand(2, 4096, dtype=torch.bfloat16).unbind()
    with precision.autocast(torch.device("cpu"), torch.bfloat16):
        loss = LOSSES[name](out, gt, 1e-9)
    assert loss.dtype == torch.float32
    assert loss == LOSSES[name](out.float(), gt.float(), 1e-9)


# The loss scale of fp16


def with_scale(scale, opt=FP16):
    model = ModelVRT(TinyNet(), opt, Dist())
    model.scaler.load_state_dict({**model.scaler.state_dict(), "scale": scale})
    return model


def weights_of(*nets):
    return [parameter.detach().clone() for net in nets for parameter in net.parameters()]


def test_a_step_whose_gradients_overflow_is_left_out_and_the_scale_halved():
    model = with_scale(2.0**40)
    before = weights_of(model.netG, model.netE)
    values = model.train_step([batch()], 0)
    assert math.isfinite(values["G_loss"])
    assert all(map(torch.equal, weights_of(model.netG, model.netE), before))
    assert not model.optimizer.state
    assert model.scaler.get_scale() == 2.0**39


def test_a_lower_scale_lets_training_go_on():
    model = with_scale(2.0**24)
    before = weights_of(model.netG)
    for step in range(10):
        model.train_step([batch()], step)
    assert 1 <= model.scaler.get_scale() < 2.0**24
    assert not any(map(torch.equal, weights_of(model.netG), before))


def test_an_overflow_that_no_scale_cures_ends_the_run():
    model = with_scale(4.0)
    before = weights_of(model.netG)
    bad = {**batch(float("nan")), "key": ["clip_a/000001"]}
    for step in (0, 1):
        model.train_step([bad], step)
    assert model.guard.total == 0  # the scale's fault, so far
    for step in range(2, 2 + model.opt.nonfinite_limit):
        model.train_step([bad], step)
    assert model.guard.exhausted
    assert all(map(torch.equal, weights_of(model.netG), before))


def test_scaled_gradients_are_those_of_float32():
    exact, scaled = ModelVRT(TinyNet(), TrainOpt(total_iter=10), Dist()), with_scale(2.0**10)
    norms = [model.train_step([batch()], 0)["grad_norm"] for model in (exact, scaled)]
    assert norms[1] == pytest.approx(norms[0], rel=0.01)


def test_resumed_fp16_run_equals_the_uninterrupted_one(tmp_path):
    straight = with_scale(2.0**22)  # overflows several times on the way
    for step in range(4):
        straight.train_step([batch(step + 1.0)], step)
    run_checkpoints.save(tmp_path, 4, straight, {})
    resumed = ModelVRT(TinyNet(), FP16, Dist())
    assert run_checkpoints.resume(tmp_path, resumed, {}).step == 4
    for model in (straight, resumed):
        model.values = [model.train_step([batch(step + 1.0)], step) for step in range(4, 8)]
    assert straight.values == resumed.values
    assert straight.scaler.state_dict() == resumed.scaler.state_dict()
    assert all(map(torch.equal, weights_of(straight.netG, straight.netE), weights_of(resumed.netG, resumed.netE)))


@pytest.mark.parametrize(("before", "after"), [(FP16, BF16), (BF16, FP16)])
def test_precision_may_change_between_checkpoint_and_resumption(tmp_path: Path, before, after):
    first = ModelVRT(TinyNet(), before, Dist())
    first.train_step([batch()], 0)
    run_checkpoints.save(tmp_path, 1, first, {})
    second = ModelVRT(TinyNet(), after, Dist())
    run_checkpoints.resume(tmp_path, second, {})
    assert math.isfinite(second.train_step([batch()], 1)["grad_norm"])


# TF32


@pytest.fixture
def flags():
    yield
    precision.set_tf32(False)


@pytest.mark.usefixtures("flags")
@pytest.mark.parametrize("enabled", [True, False])
def test_tf32_follows_the_option_for_products_and_convolutions(enabled):
    ModelVRT(TinyNet(), TrainOpt(tf32=enabled), Dist())
    assert torch.backends.cuda.matmul.allow_tf32 is enabled
    assert torch.backends.cudnn.allow_tf32 is enabled
    assert (torch.get_float32_matmul_precision() == "high") is enabled
