"""Low-rank changes: nothing moves at the start, only what is meant to learns, and files mean the same everywhere."""

import copy
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from test_main_test import RGB_TASK, run
from test_network_tasks import clip_for, net_of
from tiny_network import TINY, overrides
from torch import nn

import models.vrt.geglu as geglu_module
from models import ema
from models.compiled import Compiled
from models.lora import LoraLinear, add_lora, parameter_counts
from models.memory.estimate import weight_bytes
from models.memory.fit import state_bytes
from models.model_vrt import ModelVRT
from models.select_network import define_G
from models.vrt import linear as linear_module
from models.vrt.blocks import GEGLU
from models.vrt.linear import Linear
from options.schema import NetOpt, Opt, TrainOpt
from options.schema_network import LoraOpt
from scripts import convert_checkpoint
from utils import utils_image, utils_option
from utils.utils_checkpoint import load_weights, read_state_dict, write_file
from utils.utils_dist import Dist
from utils.utils_error import UserError
from utils.utils_lora import is_lora, merge

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ("qkv_self", "qkv_mut", "proj", "mlp.*", "stage1.linear1", "stage8.*.linear")
ALSO = ("conv_first", "conv_last")


def lora_net(plain=None, alpha=3.0, lively=True, **changes):
    """The tiny restoration network with low-rank changes that, if `lively`, have an effect."""
    net = plain or net_of("restoration", **changes)
    torch.manual_seed(1)
    add_lora(net, 2, alpha, TARGETS, ALSO)
    if lively:
        for name, parameter in net.named_parameters():
            if name.endswith("lora_B"):
                nn.init.normal_(parameter, std=0.3)
    return net


def output(net, x):
    with torch.no_grad():
        return net(x)


PLAIN = net_of("restoration")
LORA = lora_net()
CLIP = clip_for(PLAIN, 2, 16, 16)
OUT = output(LORA, CLIP)


# The network


def test_a_network_starts_unchanged_under_the_official_names():
    net = lora_net(lively=False)
    assert torch.equal(output(net, CLIP), output(PLAIN, CLIP))
    names = {name: value.shape for name, value in net.named_parameters() if not is_lora(name)}
    assert names == {name: value.shape for name, value in PLAIN.named_parameters()}
    assert (OUT - output(PLAIN, CLIP)).abs().max() > 0.01, "the changes of the other tests must have an effect"


def test_what_is_meant_to_learn_gets_a_gradient_and_nothing_else():
    net = lora_net(in_chans=4).train()
    load_weights(net, PLAIN.state_dict())  # of 3 channels: those of the spikes are zero
    for name, parameter in net.named_parameters():
        if name.endswith("lora_B"):
            nn.init.normal_(parameter, std=0.3)
    net(clip_for(net, 2, 16, 16)).square().sum().backward()
    learning = {name for name, value in net.named_parameters() if value.grad is not None and value.grad.any()}
    wanted = {name for name in net.state_dict() if name.endswith(("lora_A", "lora_B"))}
    wanted |= {f"{layer}.{part}" for layer in ALSO for part in ("weight", "bias")}
    assert learning == wanted == {name for name, value in net.named_parameters() if value.requires_grad}
    assert {"stage1.residual_group2.blocks.0.mlp.fc2.lora_A", "stage8.1.linear.lora_B"} < wanted
    assert net.conv_first.weight.grad.unflatten(1, (9, 4))[:, :, 3].any(), "the spikes' channels learn from zero"


def test_the_rest_of_the_network_starts_from_the_same_seed():
    opt = {**TINY, "in_chans": 4}
    plain, net = define_G(NetOpt(**opt), 3), define_G(NetOpt(**opt, lora=LoraOpt(rank=2, targets=("proj",))), 3)
    assert all(torch.equal(value, net.get_parameter(name)) for name, value in plain.named_parameters())
    trained, total = parameter_counts(net)
    changes = sum(value.numel() for name, value in net.named_parameters() if is_lora(name))
    assert total == parameter_counts(plain)[1] + changes
    assert trained == changes + sum(p.numel() for part in (net.conv_first, net.conv_last) for p in part.parameters())
    assert parameter_counts(plain)[0] == parameter_counts(plain)[1]


@pytest.mark.parametrize("kernel", ["oneDNN", "PyTorch"])
def test_merged_weights_compute_the_same(kernel, monkeypatch):
    if kernel == "PyTorch":
        monkeypatch.setattr(linear_module, "ONEDNN", False)
    merged = net_of("restoration")
    load_weights(merged, merge(LORA.state_dict()))
    assert torch.allclose(output(merged, CLIP), output(LORA, CLIP), atol=1e-6)


def test_sixteen_bits_do_not_round_the_change_away():
    layer, x = LoraLinear(Linear(4, 4), 1, 1.0), torch.randn(3, 4)
    nn.init.ones_(layer.weight)
    nn.init.constant_(layer.lora_B, 1e-4)
    merged = Linear(4, 4)
    load_weights(merged, merge(layer.state_dict()))
    assert not torch.equal(merged.weight, layer.weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer.effective_weight(), merged.weight)
        assert torch.equal(layer(x), merged(x))


@pytest.mark.parametrize("kernel", ["oneDNN", "PyTorch"])
@pytest.mark.parametrize("targets", [("fc11", "fc12", "fc2"), ("fc12",)])
def test_gradients_of_feed_forward_parts_are_those_of_the_formula(kernel, targets, monkeypatch):
    if kernel == "PyTorch":
        monkeypatch.setattr(linear_module, "ONEDNN", False)
    torch.manual_seed(0)
    part, norm, x = GEGLU(6, 12, 6), nn.LayerNorm(6), torch.randn(5, 6)
    add_lora(part, 2, 4.0, targets)
    for name in targets:
        nn.init.normal_(part.get_submodule(name).lora_B)
    merged = GEGLU(6, 12, 6)
    load_weights(merged, part.state_dict())
    out = part(x.requires_grad_(), norm)
    out.square().sum().backward()
    x_grad, x.grad = x.grad, None
    merged(x, norm).square().sum().backward()
    assert torch.allclose(x_grad, x.grad, rtol=1e-4, atol=1e-4)
    for name in targets:
        layer, slope = part.get_submodule(name), merged.get_submodule(name).weight.grad
        assert torch.allclose(layer.lora_A.grad, 2.0 * layer.lora_B.T @ slope, rtol=1e-3, atol=1e-4)
        assert torch.allclose(layer.lora_B.grad, 2.0 * slope @ layer.lora_A.T, rtol=1e-3, atol=1e-4)
        assert layer.weight.grad is layer.bias.grad is None


def test_frozen_feed_forward_parts_spend_nothing_on_their_weights(monkeypatch):
    if not linear_module.ONEDNN:
        pytest.skip("this PyTorch hands out no oneDNN")
    part, norm, x = GEGLU(6, 12, 6), nn.LayerNorm(6), torch.randn(5, 6, requires_grad=True)
    part(x, norm).sum().backward()
    want, x.grad = x.grad, None
    part.requires_grad_(False)
    monkeypatch.setattr(geglu_module, "parameter_gradients", lambda *_: pytest.fail("computed for nothing"))
    part(x, norm).sum().backward()
    assert torch.equal(x.grad, want)


def test_checkpointing_gives_the_same_gradients(monkeypatch):
    monkeypatch.setattr(linear_module, "ONEDNN", False)  # which would leave the feed-forward parts alone
    nets = [lora_net(), lora_net(use_checkpoint_attn=True, use_checkpoint_ffn=True)]
    for net in nets:
        net.train()(CLIP).square().sum().backward()
    for (name, one), other in zip(nets[0].named_parameters(), nets[1].parameters(), strict=True):
        if one.requires_grad:
            assert torch.allclose(one.grad, other.grad, rtol=1e-4, atol=1e-5), name
        else:
            assert one.grad is other.grad is None


def test_a_compiled_layer_computes_and_learns_the_same():
    torch._dynamo.reset()
    part, x = GEGLU(6, 12, 6), torch.randn(5, 6)
    add_lora(part, 2, None, ("fc11", "fc2"))
    nn.init.normal_(part.fc11.lora_B)
    fast = Compiled(copy.deepcopy(part), backend="aot_eager")
    for each in (part, fast):
        each(x).square().sum().backward()
    assert fast._fast is not None, "compiling must not have been given up"
    assert torch.allclose(fast(x), part(x), atol=1e-5)
    assert torch.allclose(fast.net.fc11.lora_A.grad, part.fc11.lora_A.grad, atol=1e-4)


def test_a_copy_is_its_own_and_averages():
    net = lora_net()
    average = copy.deepcopy(net)
    assert torch.equal(output(average, CLIP), output(net, CLIP))
    layer, other = (each.stage8[1].linear for each in (net, average))
    before = other.lora_B.detach().clone()
    with torch.no_grad():
        layer.lora_B += 1
    assert torch.equal(other.lora_B, before)
    ema.update(average, net, 0.5)
    assert torch.allclose(other.lora_B, before + 0.5)
    assert torch.equal(other.weight, layer.weight)


def test_a_training_moves_nothing_that_is_frozen():
    opt = TrainOpt(total_iter=10, E_decay=0.5, G_optimizer_lr=1e-2, G_optimizer_type="adamw", G_optimizer_wd=0.1)
    opt = opt.model_copy(update={"fix_iter": 2, "fix_keys": ("conv_last",)})  # frozen must stay so when these thaw
    model = ModelVRT(lora_net(), opt, Dist())
    before = copy.deepcopy(model.netG.state_dict())
    for step in range(3):
        model.train_step([{"lq": CLIP, "gt": 1 - CLIP}], step)
    moved = {name for name, value in model.netG.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name, parameter in LORA.named_parameters() if parameter.requires_grad}
    of_optimizer = {id(p) for group in model.optimizer.param_groups for p in group["params"]}
    assert of_optimizer == {id(p) for p in model.netG.parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("rank", "targets", "also", "words"),
    [
        (0, ("proj",), (), "netG.lora.rank is 0, expected 1 to"),
        (13, ("proj",), (), "netG.lora.rank is 13, expected 1 to 12, the smaller side of stage"),
        (2, ("qkv",), (), "targets has 'qkv', which matches no linear layer; near: qkv"),
        (2, ("conv_first",), (), "targets has 'conv_first'"),
        (2, ("roj",), (), "near: proj"),
        (2, ("proj",), ("conv_frist",), "also has 'conv_frist', .*near: conv_first"),
    ],
)
def test_mistakes_are_named_and_change_nothing(rank, targets, also, words):
    net = net_of("restoration")
    with pytest.raises(UserError, match=words):
        add_lora(net, rank, None, targets, also)
    assert net.state_dict().keys() == PLAIN.state_dict().keys()
    assert all(parameter.requires_grad for parameter in net.parameters())


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"alpha": 0.0}, {"targets": []}])
def test_options_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValidationError):
        LoraOpt.model_validate(wrong)


# Files


def test_weights_without_changes_are_the_base_of_those_with(tmp_path):
    write_file({"params": PLAIN.state_dict()}, tmp_path / "official.pth")
    net = lora_net(net_of("restoration", in_chans=4))
    report = load_weights(net, tmp_path / "official.pth")
    assert report.widened
    wide = torch.cat((CLIP, torch.rand(1, 2, 1, 16, 16)), dim=2)
    assert torch.allclose(output(net, wide), output(PLAIN, CLIP), atol=1e-5)


@pytest.mark.parametrize("alpha", [3.0, 1.0, None])
def test_changes_load_into_a_network_of_another_alpha_with_the_same_effect(alpha):
    net = lora_net(alpha=alpha, lively=False)
    load_weights(net, LORA.state_dict())
    assert torch.allclose(output(net, CLIP), OUT, atol=1e-5)
    assert net.stage8[1].linear.lora_scale == (alpha or 2) / 2
    if alpha == 3.0:
        assert all(torch.equal(value, LORA.state_dict()[name]) for name, value in net.state_dict().items())


def test_a_network_without_changes_loads_them_merged(tmp_path):
    write_file(LORA.state_dict(), tmp_path / "best_G.pth")
    net = net_of("restoration")
    load_weights(net, tmp_path / "best_G.pth")
    assert torch.allclose(output(net, CLIP), OUT, atol=1e-6)
    assert not any(is_lora(name) for name in net.state_dict())


def test_states_that_do_not_fit_are_refused_by_name():
    whole = LORA.state_dict()
    layer = "stage8.1.linear"
    for part in ("weight", "lora_A", "lora_B", "lora_scale"):
        damaged = {key: value for key, value in whole.items() if key != f"{layer}.{part}"}
        with pytest.raises(UserError, match=f"change of {layer} but no {layer}.{part}"):
            load_weights(net_of("restoration"), damaged)
    with pytest.raises(UserError, match=f"{layer}.lora_B .12, 2. and .* do not fit a weight of .3, 3."):
        merge({**whole, f"{layer}.weight": torch.zeros(3, 3)})
    other = net_of("restoration")
    add_lora(other, 3, None, TARGETS, ALSO)
    with pytest.raises(UserError, match=r"lora_A: \(2, 12\) -> \(3, 12\)"):
        load_weights(other, whole)
    with pytest.raises(UserError, match="nothing in common"):
        load_weights(other, {"layer.weight": torch.zeros(1)}, strict=False)


def test_export_has_the_official_names_alone(tmp_path):
    write_file(LORA.state_dict(), tmp_path / "best_G.pth")
    write_file(PLAIN.state_dict(), tmp_path / "plain.pth")
    for name in ("best_G", "plain"):
        convert_checkpoint.main([str(tmp_path / f"{name}.pth"), "--out", str(tmp_path / f"{name}.safetensors")])
    merged, plain = (read_state_dict(tmp_path / f"{name}.safetensors") for name in ("best_G", "plain"))
    assert {k: v.shape for k, v in merged.items()} == {k: v.shape for k, v in plain.items()}
    net = net_of("restoration")
    load_weights(net, tmp_path / "best_G.safetensors")
    assert torch.allclose(output(net, CLIP), OUT, atol=1e-6)


def test_the_trained_part_alone_and_its_base_make_the_whole(tmp_path, capsys):
    trained = lora_net(net_of("restoration"))
    with torch.no_grad():
        trained.conv_first.weight += 0.01
    write_file(PLAIN.state_dict(), tmp_path / "base.pth")
    write_file(trained.state_dict(), tmp_path / "best_G.pth")
    names = {name: str(tmp_path / f"{name}.pth") for name in ("base", "best_G", "part", "whole")}
    convert_checkpoint.main([names["best_G"], "--out", names["part"], "--lora_only", names["base"]])
    part = read_state_dict(tmp_path / "part.pth")
    assert {name for name in part if not is_lora(name)} == {"conv_first.weight"}
    convert_checkpoint.main([names["base"], "--out", names["whole"], "--add", names["part"]])
    net = net_of("restoration")
    load_weights(net, tmp_path / "whole.pth")
    assert torch.allclose(output(net, CLIP), output(trained, CLIP), atol=1e-6)
    for option in ("--lora_only", "--add"):
        with pytest.raises(SystemExit):
            convert_checkpoint.main([names["base"], "--out", str(tmp_path / "x.pth"), option, names["base"]])
        error = capsys.readouterr().err
        assert f"{option} {names['base']}" in error
        assert "the weights have no low-rank changes" in error
    assert not (tmp_path / "x.pth").exists()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_part_is_added_to_its_own_base_alone(tmp_path, capsys, suffix):
    def convert(*words):
        convert_checkpoint.main([*map(str, words)])

    base, part, other = tmp_path / "base.pth", tmp_path / f"part.{suffix}", tmp_path / "other.pth"
    write_file(PLAIN.state_dict(), base)
    write_file(LORA.state_dict(), tmp_path / "best_G.pth")
    convert(tmp_path / "best_G.pth", "--out", part, "--lora_only", base)
    convert(base, "--out", tmp_path / "base.safetensors")  # other layout and format, the same weights
    convert(tmp_path / "base.safetensors", "--out", tmp_path / "whole.pth", "--add", part)
    write_file({key: value + 1 for key, value in PLAIN.state_dict().items()}, other)
    with pytest.raises(SystemExit):
        convert(other, "--out", tmp_path / "x.pth", "--add", part)
    error = capsys.readouterr().err
    assert f"--add {part}: was made from other weights than {other}" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "x.pth").exists()
    write_file(read_state_dict(part), tmp_path / "old.pth")  # as earlier versions wrote parts
    convert(other, "--out", tmp_path / "x.pth", "--add", tmp_path / "old.pth")


def test_testing_needs_no_word_about_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = define_G(NetOpt(in_chans=3, **TINY, lora=LoraOpt(rank=2, alpha=6.0, targets=("proj",))))
    frames = torch.rand(2, 16, 24, 3, generator=torch.manual_seed(0)).mul(255).byte().numpy()
    for i, frame in enumerate(frames):
        utils_image.write_rgb(tmp_path / "lq" / "clip" / f"{i}.png", frame)
    for parameter in net.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    write_file(net.state_dict(), tmp_path / "best_G.pth")
    convert_checkpoint.main(["best_G.pth", "--out", "merged.pth", "--layout", "plain"])
    load_weights(net, {name: value for name, value in net.state_dict().items() if not is_lora(name)})
    write_file(net.state_dict(), tmp_path / "base.pth")
    flags = overrides(TINY)
    shots = {}
    for name, more in (
        ("best_G", []),
        ("merged", []),
        ("best_G", ['netG.lora={"rank": 2, "targets": ["proj"]}']),
        ("base", []),
    ):
        run("--task", RGB_TASK, "--folder_lq", "lq", "--weights", f"{name}.pth", "--set", *flags, *more)
        shots[name, len(more)] = utils_image.read_rgb(tmp_path / "results" / RGB_TASK / "clip" / "1.png").astype(int)
    for other in (("merged", 0), ("best_G", 1)):
        assert abs(shots["best_G", 0] - shots[other]).max() <= 1
    assert abs(shots["best_G", 0] - shots["base", 0]).max() > 10


def test_the_recipe_starts_from_the_official_weights_and_trains_a_small_part():
    opt = utils_option.load(ROOT / "options/vrt/finetune_lora_gopro_rgbspike.json", Opt)
    assert opt.path.pretrained_netG.endswith("006_VRT_videodeblurring_GoPro.pth")
    with torch.device("meta"):
        net = define_G(opt.netG)
    trained, total = parameter_counts(net)
    assert trained < 0.1 * total
    assert weight_bytes(net, trained=True) == 4 * trained
    assert state_bytes(net, average=True) == 4 * (2 * total + 2 * trained), "moments of what is trained alone"
    assert {"conv_first.weight", "conv_last.weight"} < {n for n, p in net.named_parameters() if p.requires_grad}
