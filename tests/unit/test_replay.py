"""The batch that a run gave up on: kept whole, and the part that breaks is named."""

import json
import math

import pytest
import torch
from tiny_network import tiny
from torch import nn

from models.replay import examine, read_replay, write_replay
from models.select_network import define_G
from options.schema import Opt, TrainOpt
from scripts import replay
from utils import utils_checkpoint, utils_option
from utils.utils_error import UserError

CPU = torch.device("cpu")
TINY = tiny(in_chans=4, drop_path_rate=0.5, optical_flow="spynet_quarter")


class Chain(nn.Module):
    """(B, T, 3, h, w) -> the same, through three small modules."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.inner, self.last = nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3), nn.ReLU()), nn.Linear(3, 3)

    def forward(self, x):
        return self.last(self.inner(self.first(x.movedim(2, -1)))).movedim(-1, 2)


def pair(count=2):
    return torch.rand(2, count, 2, 3, 4, 4, generator=torch.Generator().manual_seed(1)).unbind()


def batch(key="clip_a/000003"):
    torch.manual_seed(2)
    shape = {"lq": 3, "spike": 1, "gt": 3}
    return {name: torch.rand(1, 2, count, 16, 16) for name, count in shape.items()} | {"key": [key]}


def test_a_sound_pass_finds_nothing_and_leaves_the_weights():
    net, (x, gt) = Chain(), pair()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = examine(net, [(x, gt), (x, gt)], TrainOpt(), CPU, None)
    assert (found.module, found.gradients) == (None, [])
    assert len(found.losses) == 4
    assert all(math.isfinite(loss) for loss in found.losses)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


def test_the_innermost_module_that_breaks_first_is_named():
    net, (x, gt) = Chain(), pair()
    with torch.no_grad():
        net.inner[0].weight[0, 0] = math.inf
    found = examine(net, [(x, gt)], TrainOpt(), CPU, None)
    assert found.module == "inner.0 (Linear)"
    assert "first.weight" in found.gradients


def test_the_sample_that_breaks_is_the_one_whose_loss_is_not_finite():
    net, (x, gt) = Chain(), pair(3)
    gt[1, 0, 0, 0, 0] = math.nan
    found = examine(net, [(x, gt)], TrainOpt(), CPU, None)
    assert [math.isfinite(loss) for loss in found.losses] == [True, False, True]
    assert found.module is None
    assert found.gradients == [name for name, _ in net.named_parameters()]


def test_what_overflows_in_fp16_alone_shows_there_alone():
    net, (x, gt) = Chain(), pair()
    with torch.no_grad():
        net.last.weight.fill_(6e4)
        net.inner[0].bias.fill_(10.0)
    assert examine(net, [(x, gt)], TrainOpt(), CPU, None).module is None
    assert examine(net, [(x, gt)], TrainOpt(), CPU, torch.float16).module == "last (Linear)"


def test_a_batch_that_cannot_be_written_does_not_hide_the_error_it_belongs_to(tmp_path):
    (tmp_path / "replay").write_text("a file where a folder should be")
    said = write_replay(tmp_path, 7, 0, [batch()], Chain())
    assert "could not be saved" in said
    assert str(tmp_path / "replay") in said


def test_another_file_is_refused(tmp_path):
    utils_checkpoint.write_file(Chain().state_dict(), tmp_path / "weights.pth")
    with pytest.raises(UserError, match="weights.pth holds no batch"):
        read_replay(tmp_path / "weights.pth")


@pytest.fixture
def run_dir(tmp_path):
    """A run's folder with its options, and the network of these."""
    tree = {"task": "tiny", "netG": TINY, "train": {"manual_seed": 3, "amp": {"enable": True}}}
    (tmp_path / "options.json").write_text(json.dumps(tree))
    opt = utils_option.load(tmp_path / "options.json", Opt)
    return tmp_path, define_G(opt.netG, 11)


def printed(said, capsys):
    """What the command prints that a run names when it gives up."""
    words = said.split("scripts/replay.py ")[1].split()
    replay.main(words)
    return capsys.readouterr().out


def test_the_command_that_the_run_names_shows_what_breaks(run_dir, capsys):
    folder, net = run_dir
    with torch.no_grad():
        net.conv_last.weight[0, 0] = math.inf
    broken = batch("clip_b/000021")
    broken["gt"][0, 0, 0, 0, 0] = math.nan
    out = printed(write_replay(folder, 7, 1, [batch(), broken], net), capsys)
    assert "step 7, process 1" in out
    assert "clip_a: 2 frames from 000003" in out
    assert "non-finite values in the data: 1: gt of clip_b/000021" in out
    for name in ("float32", "bf16"):
        assert f"{name}: first module with a non-finite output: conv_last (" in out
        assert f"{name}: parameters with a non-finite gradient: " in out
    assert ": none" not in out.partition("step 7")[2]


def test_the_same_file_gives_the_same_losses_and_the_step_decides_what_is_dropped(run_dir, capsys):
    folder, net = run_dir
    for name, parameter in net.named_parameters():
        if not name.startswith("spynet"):
            nn.init.normal_(parameter, std=0.3)  # what is dropped must count
    lines = []
    for step in (7, 7, 8):
        out = printed(write_replay(folder, step, 0, [batch()], net), capsys)
        lines.append(next(line for line in out.splitlines() if line.startswith("clip_a")))
    assert lines[0] == lines[1] != lines[2]
    assert "non-finite values in the data: none" in out
