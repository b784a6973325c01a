"""The estimated operations and memory of a network, and the choices made from them."""

import json
import logging
import math
import runpy
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_network import tiny
from torch.profiler import ProfilerActivity, profile

from models.memory import estimate, fit, machine
from models.memory.estimate import POLICIES, choose_checkpointing, flops_of, memory_of, set_checkpointing
from models.model_vrt import ModelVRT
from models.network_vrt import VRT
from models.select_network import define_G
from models.vrt import linear
from options.schema import Opt, TrainOpt
from utils import utils_option
from utils.utils_dist import Dist

ROOT = Path(__file__).resolve().parents[2]
PRESETS = ROOT / "options/vrt"
OFFICIAL = PRESETS / "006_train_vrt_videodeblurring_gopro_rgbspike.json"
TINY = tiny(
    depth=2,
    width=16,
    in_chans=4,
    window_size=[6, 4, 4],
    mlp_ratio=2.0,
    deformable_groups=4,
    drop_path_rate=0.0,
    optical_flow="spynet_quarter",
)
SHALLOW = TINY | {"depths": [2] + [1] * 7}
SHAPE = (1, 4, 4, 96, 96)  # large enough that scratch memory inside operators, which is not seen, matters little
MEMORY_TOLERANCE = 0.1
# Published of the deblurring network at 6x64x64, the alignment's own product not counted.
OFFICIAL_GFLOP = 540.3
OFFICIAL_SHARES = {"stage1": 0.247, "stage7": 0.247, "stage8": 0.294, "spynet": 0.048}


@pytest.fixture
def net():
    torch.manual_seed(0)
    return VRT(**TINY)


@pytest.fixture
def shallow():
    torch.manual_seed(0)
    return VRT(**SHALLOW)


@pytest.fixture(scope="module", autouse=True)
def large_pieces():
    """The CPU's kernels work on more at once: as much in the estimate and in the measurement, with fewer operators."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "CHUNK_ROWS", 8 * linear.CHUNK_ROWS)
        yield


@pytest.fixture(scope="module")
def estimates():
    """Memory of a pass of a shallow network: of testing, and of training by policy."""
    net = VRT(**SHALLOW)
    found = {"testing": memory_of(net, SHAPE, training=False, on_cpu=True)}
    for policy in ("none", "most", "all"):
        set_checkpointing(net, policy)
        found[policy] = memory_of(net, SHAPE, training=True, on_cpu=True)
    assert all(parameter.grad is None and parameter.isfinite().all() for parameter in net.parameters())
    return found


@pytest.fixture(scope="module")
def official():
    """The official GoPro network with spikes: its options, and its operations at 6x64x64."""
    opt = utils_option.load(OFFICIAL, Opt, ["netG.spynet_path=null"])
    return SimpleNamespace(opt=opt, flops=flops_of(define_G(opt.netG), (1, 6, 4, 64, 64)))


@pytest.fixture
def by_pixels(monkeypatch):
    """In place of estimates: 1000 bytes a pixel in testing, 10000 in training, less with checkpointing."""

    def memory(net, shape, training, dtype=None, on_cpu=False):
        weights = {"checkpoint_attn": 4000, "checkpoint_ffn": 2000, "keep_attended": -1000}
        saved = sum(weights[key] * on for key, on in checkpointing(net).items())
        return estimate.Memory(peak=math.prod(shape) // shape[2] * (10000 - saved if training else 1000))

    for module in (estimate, fit):
        monkeypatch.setattr(module, "memory_of", memory)


@pytest.fixture
def lines(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("spikevrt"), "propagate", True)
    with caplog.at_level(logging.INFO, "spikevrt"):
        yield lambda: [record.getMessage() for record in caplog.records if "checkpointing" in record.getMessage()]


def alignment_flops(frames, size, dim):
    """Of the seven deformable convolutions themselves: two neighbours for every frame but the ends."""
    pixels = sum((size >> level) ** 2 for level in (0, 1, 2, 3, 2, 1, 0))
    return 2 * 2 * (frames - 1) * pixels * 9 * dim**2


def measured_peak(call):
    """The most bytes alive during a call, by PyTorch's profiler."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        call()
    now = peak = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak


# Arithmetic


def test_operations_of_the_official_network_are_the_published_ones(official):
    total = official.flops.total() - alignment_flops(6, 64, 96)
    assert total / 1e9 == pytest.approx(OFFICIAL_GFLOP, rel=0.01)
    in_stage1 = 2 * 2 * 5 * 64**2 * 9 * 96**2
    for part, share in OFFICIAL_SHARES.items():
        own = official.flops[part] - in_stage1 * (part in ("stage1", "stage7"))
        assert own / total == pytest.approx(share, abs=0.003), part


def test_operations_of_a_layer_follow_the_formula(official):
    pixels = 6 * 64 * 64
    assert official.flops["conv_first"] == 2 * 96 * 36 * 9 * pixels
    assert official.flops["conv_after_body"] == 2 * 120 * 96 * pixels
    assert official.flops["conv_last"] == 2 * 96 * 3 * 9 * pixels


@pytest.mark.parametrize(("preset", "share"), [("svrt_small", 1 / 4), ("svrt_tiny", 1 / 16)])
def test_presets_cost_the_share_that_they_promise(official, preset, share):
    opt = utils_option.load(PRESETS / f"{preset}.json", Opt, ["netG.spynet_path=null"])
    flops = flops_of(define_G(opt.netG), (1, 6, 4, 64, 64))
    assert flops.total() / official.flops.total() == pytest.approx(share, rel=0.2)
    assert (opt.datasets, opt.val) == (official.opt.datasets, official.opt.val)
    assert opt.task != official.opt.task


# Memory


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["none", "most", "all"])
def test_memory_of_a_step_is_what_the_profiler_measures(shallow, estimates, policy):
    set_checkpointing(shallow, policy)
    x = torch.rand(SHAPE)
    shallow.train()
    measured = measured_peak(lambda: shallow(x).square().mean().backward())
    assert estimates[policy].peak == pytest.approx(measured, rel=MEMORY_TOLERANCE)


@pytest.mark.slow
def test_memory_of_testing_is_what_the_profiler_measures(shallow, estimates):
    x = torch.rand(SHAPE)
    shallow.eval()
    with torch.no_grad():
        measured = measured_peak(lambda: shallow(x))
    assert estimates["testing"].peak == pytest.approx(measured, rel=MEMORY_TOLERANCE)
    assert max(estimates["testing"].peaks.values()) == estimates["testing"].peak


def test_a_card_holds_the_feed_forward_parts_unless_they_are_recomputed(net):
    peaks = {}
    for policy in ("none", "ffn"):
        set_checkpointing(net, policy)
        peaks[policy] = memory_of(net, (1, 4, 4, 48, 48), training=True).peak
    assert peaks["ffn"] < 0.85 * peaks["none"]


@pytest.mark.slow
def test_recomputing_keeps_less_in_the_parts_with_blocks_only(estimates):
    kept = {policy: estimates[policy].kept for policy in ("none", "all")}
    assert kept["all"]["stage1"] < 0.7 * kept["none"]["stage1"]
    assert kept["all"]["stage8"] < 0.5 * kept["none"]["stage8"]
    assert kept["all"]["conv_first"] == kept["none"]["conv_first"] > 0


# Choices


@pytest.mark.usefixtures("by_pixels")
def test_the_quickest_policy_that_fits_is_taken(net):
    for budget, expected in (
        (10000, "none"),
        (9999, "ffn"),
        (7999, "attn"),
        (5999, "most"),
        (4999, "all"),
        (1, "all"),
    ):
        assert choose_checkpointing(net, (1, 1, 4, 1, 1), budget)[0] == expected
        assert checkpointing(net) == POLICIES[expected]


def step(net, memory):
    model = ModelVRT(net, TrainOpt(memory=memory, total_iter=3), Dist())
    torch.manual_seed(0)
    lq, gt, spike = torch.rand(1, 2, 3, 32, 32), torch.rand(1, 2, 3, 32, 32), torch.rand(1, 2, 1, 32, 32)
    return model.train_step([{"lq": lq, "gt": gt, "spike": spike}], 0)


def checkpointing(net):
    args = net.stage1.residual_group1.blocks[0].args
    return {key: getattr(args, key) for key in POLICIES["none"]}


@pytest.mark.usefixtures("by_pixels")
@pytest.mark.parametrize(("budget", "expected"), [(2**33, "none"), (1, "all")])
def test_auto_goes_by_the_free_memory_and_says_so_in_one_line(net, lines, monkeypatch, budget, expected):
    monkeypatch.setattr(estimate, "CPU_BUDGET", budget)
    values = step(net, "auto")
    assert checkpointing(net) == POLICIES[expected]
    (line,) = lines()
    assert f"checkpointing: {expected}" in line
    assert ("does not fit" in line) is (budget == 1)
    torch.manual_seed(0)
    assert values == step(VRT(**TINY), "none")


@pytest.mark.parametrize("policy", ["ffn", "attn", "most"])
def test_a_named_policy_is_taken_as_it_is(net, lines, policy):
    step(net, policy)
    assert checkpointing(net) == POLICIES[policy]
    assert lines() == [f"checkpointing: {policy} (train.memory)"]


def test_keys_of_the_network_win_over_train_memory(lines):
    net = VRT(**TINY, use_checkpoint_ffn=True)
    step(net, "all")
    assert checkpointing(net) == POLICIES["ffn"]
    (line,) = lines()
    assert "netG.use_checkpoint_attn" in line


@pytest.mark.usefixtures("by_pixels")
def test_a_larger_card_is_offered_less_recomputation_then_larger_batches(net):
    sample = 6 * 64 * 64 * 10000
    fixed = fit.state_bytes(net, True) + fit.CONTEXT
    cards = [(fixed + share * sample) / machine.CUDA_SHARE for share in (3.01, 1.01, 0.99, 0.41)]
    proposals = [fit.propose_training(net, (1, 6, 4, 64, 64), card, True, None) for card in cards]
    assert [(one.crop, one.policy, one.batch) for one in proposals] == [
        (64, "none", 3),
        (64, "none", 1),
        (64, "ffn", 1),
        (64, "all", 1),
    ]
    assert all(one.bytes <= card for one, card in zip(proposals, cards, strict=True))
    assert fit.propose_training(net, (1, 6, 4, 128, 128), cards[0], True, None).crop == 128
    assert fit.propose_training(net, (1, 6, 4, 256, 256), cards[2], True, None).crop == 96
    assert fit.propose_training(net, (1, 6, 4, 64, 64), fixed, True, None) is None


@pytest.mark.usefixtures("by_pixels")
def test_tiles_that_are_proposed_fit_and_repeat_less_on_a_larger_card(net):
    small, large = (fit.propose_tile(net, 4, total, (2, 20), None) for total in (1e9, 4e9))
    assert small.bytes <= 1e9 < large.bytes <= 4e9
    assert small.useful < large.useful < 1
    assert fit.propose_tile(net, 4, 0.5e9, (2, 20), None) is None


# The program


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["summary.py", *map(str, arguments)])
    runpy.run_path(str(ROOT / "scripts/summary.py"), run_name="__main__")


@pytest.mark.usefixtures("by_pixels")
def test_program_prints_one_json_object_with_ready_options(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(estimate, "flops_of", lambda _net, shape: Counter(stage1=7e9 * shape[1], rest=0))
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps({"task": "tiny", "netG": {**TINY, "in_chans": 3, "img_size": [2, 32, 32]}}))
    run(monkeypatch, "--opt", path, "--json", "--fit", "1.5GiB")
    summary = json.loads(capsys.readouterr().out)
    assert summary["training_input"] == [1, 2, 3, 32, 32]
    assert set(summary["training_bytes"]) == set(POLICIES)
    parameters = sum(parameter.numel() for parameter in VRT(**{**TINY, "in_chans": 3}).parameters())
    assert sum(summary["parameters"].values()) == parameters
    sets = [f"{key}={json.dumps(value)}" for key, value in summary["fit"]["set"].items()]
    assert utils_option.load(path, Opt, sets).train.memory == "none"
    run(monkeypatch, "--opt", path, "--size", 2, 32, 64)
    table = capsys.readouterr().out
    assert "1x2x3x32x64" in table
    assert "7.00" in table
    assert f"{parameters:,}" in table


def test_a_wrong_size_of_a_card_is_named(monkeypatch, capsys):
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, "--opt", PRESETS / "demo.json", "--fit", "12 apples")
    assert caught.value.code == 2
    assert "--fit is '12 apples'" in capsys.readouterr().err


def test_the_reach_of_a_guide_and_the_hours_of_a_training_are_printed(monkeypatch, capsys):
    small = ["netG.guide.width=4", "netG.guide.blocks=[1,1]"]
    run(monkeypatch, "--opt", PRESETS / "demo.json", "--size", "1", "16", "16", "--step", 1.8, "--set", *small)
    opt = utils_option.load(PRESETS / "demo.json", Opt, small)
    printed = capsys.readouterr().out
    assert f"depends on at most {define_G(opt.netG).reach} pixels to each side" in printed
    assert f"; {opt.train.total_iter * 1.8 / 3600:,.1f} hours at 1.8 s" in printed


def test_operations_of_a_guide_are_those_of_its_fusion():
    guide = {"width": 4, "blocks": (1, 1), "planes": 3}
    net = VRT(**tiny(in_chans=4), fusion="guide", guide=guide)
    found = estimate.flops_of(net, (1, 2, 4, 32, 32))
    alone = estimate.flops_of(net.fusion.guide, (1, 2, 4, 32, 32))
    assert found["fusion"] == alone.total() > 0
