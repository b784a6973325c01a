"""Converted weights: the official list of names, the same outputs, and nothing replaced unasked."""

from pathlib import Path

import pytest
import torch
from golden_files import official_entries
from safetensors.torch import load_file
from test_network_tasks import NETS, clip_for, net_of

from models.network_vrt import VRT
from models.official import official_buffers
from scripts import convert_checkpoint
from utils.utils_checkpoint import load_weights, read_state_dict, write_file


def convert(*words):
    convert_checkpoint.main([str(word) for word in words])


@pytest.fixture
def plain(tmp_path):
    path = tmp_path / "best_G.pth"
    write_file(NETS["restoration"].state_dict(), path)
    return path


def same(net, other, x):
    with torch.no_grad():
        return torch.allclose(net(x), other(x), atol=1e-6)


def test_the_official_layout_has_every_entry_of_the_official_file():
    with torch.device("meta"):
        state = dict(VRT(in_chans=3).named_parameters())
    whole = {**state, **official_buffers(state)}
    assert {key: tuple(value.shape) for key, value in whole.items()} == official_entries()
    index = whole["stage1.residual_group1.blocks.0.attn.relative_position_index"]
    assert index.dtype == torch.int64
    assert (index[0, 0], index.max()) == (337, 674)


def test_official_layout_lies_under_params_and_loads(plain, tmp_path, capsys):
    convert(plain, "--out", tmp_path / "o.pth", "--layout", "official")
    content = torch.load(tmp_path / "o.pth", weights_only=True)
    assert list(content) == ["params"]
    net = NETS["restoration"]
    assert len(content["params"]) > len(net.state_dict())
    assert torch.equal(content["params"]["spynet.mean"], net.spynet.mean)
    other = net_of("restoration")
    load_weights(other, tmp_path / "o.pth")
    assert same(net, other, clip_for(net, 2, 16, 16))
    assert "official layout, 27 input planes" in capsys.readouterr().out


def test_safetensors_both_ways_gives_the_same_tensors(plain, tmp_path):
    convert(plain, "--out", tmp_path / "x.safetensors", "--layout", "plain")
    convert(tmp_path / "x.safetensors", "--out", tmp_path / "y.pth", "--layout", "plain", "--format", "pth")
    before, after = read_state_dict(plain), read_state_dict(tmp_path / "y.pth")
    assert before.keys() == after.keys() == load_file(tmp_path / "x.safetensors").keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_official_safetensors_are_flat_and_load(plain, tmp_path):
    convert(plain, "--out", tmp_path / "x.safetensors")
    assert "stage1.residual_group1.blocks.0.attn.relative_position_index" in load_file(tmp_path / "x.safetensors")
    load_weights(net_of("restoration"), tmp_path / "x.safetensors")


@pytest.mark.parametrize("variant", ["restoration", "denoising", "interpolation"])
def test_widened_weights_give_the_output_of_those_without_spikes(variant, tmp_path):
    write_file({"params": NETS[variant].state_dict()}, tmp_path / "rgb.pth")
    convert(tmp_path / "rgb.pth", "--out", tmp_path / "wide.pth", "--spike_channels", 2)
    wide = net_of(variant, in_chans=5)
    report = load_weights(wide, tmp_path / "wide.pth")
    assert not report.widened, "the file itself is wide"
    x = clip_for(wide, 4, 16, 16)
    with torch.no_grad():
        rgb = torch.cat((x[:, :, :3], x[:, :, 5:]), dim=2)
        assert torch.allclose(wide(x), NETS[variant](rgb), atol=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out", "best_G.pth"), "--out best_G.pth exists"),
        (("--out", "x.bin"), "suffix is '.bin', expected .pth or .safetensors"),
        (("--out", "x.pth", "--format", "safetensors"), "suffix is '.pth', expected .safetensors"),
        (("--out", "x.pth", "--spike_channels", "-1"), "--spike_channels -1"),
    ],
)
def test_mistakes_take_one_line_and_write_nothing(words, message, plain, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = plain.read_bytes()
    with pytest.raises(SystemExit) as stop:
        convert("best_G.pth", *words)
    error = capsys.readouterr().err
    assert (stop.value.code, error.count("\n")) == (2, 1)
    assert message in error
    assert plain.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["best_G.pth"]


def test_force_replaces(plain, tmp_path):
    convert(plain, "--out", plain, "--force")
    assert "params" in torch.load(plain, weights_only=True)


def test_weights_that_have_spikes_already_are_not_widened_again(plain, tmp_path, capsys):
    convert(plain, "--out", tmp_path / "wide.pth", "--spike_channels", 1)
    with pytest.raises(SystemExit):
        convert(tmp_path / "wide.pth", "--out", tmp_path / "wider.pth", "--spike_channels", 1)
    assert "takes 4 channels per frame, expected 3" in capsys.readouterr().err


def test_files_that_are_no_weights_are_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "broken.safetensors").write_bytes(b"nonsense")
    torch.save({"run": Path.home}, tmp_path / "code.pth")
    write_file({"layer.weight": torch.ones(1)}, tmp_path / "other.pth")
    for name, message in (
        ("broken.safetensors", "cannot be read"),
        ("code.pth", "refused"),
        ("other.pth", "not those of a VRT"),
        ("absent.pth", "not found"),
    ):
        with pytest.raises(SystemExit):
            convert(tmp_path / name, "--out", tmp_path / "new.pth")
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "new.pth").exists()
