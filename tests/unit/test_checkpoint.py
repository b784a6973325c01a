"""Files of weights: whole or absent, never damaged or dangerous, and nothing is loaded that does not fit."""

import hashlib
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from utils import utils_checkpoint
from utils.utils_error import UserError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.register_buffer("relative_position_index", torch.zeros(2), persistent=False)

    def forward(self, x):
        return self.layer(x.movedim(2, -1)).movedim(-1, 2)


def test_a_save_that_dies_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "x.pth"
    utils_checkpoint.write_file({"a": torch.ones(1)}, path)

    def die(_content, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", die)
    with pytest.raises(KeyboardInterrupt):
        utils_checkpoint.write_file({"a": torch.zeros(1)}, path)
    assert utils_checkpoint.read_state_dict(path)["a"] == 1
    assert [one.name for one in tmp_path.iterdir()] == ["x.pth"]


@pytest.mark.parametrize("container", ["params", "params_ema", None])
def test_weights_load_from_any_container_and_buffers_are_ignored(tmp_path, container):
    weights = {**Net().state_dict(), "relative_position_index": torch.ones(5)}
    path = tmp_path / "weights.pth"
    utils_checkpoint.write_file({container: weights} if container else weights, path)
    net = Net()
    report = utils_checkpoint.load_weights(net, path)
    assert report.loaded == 2
    assert torch.equal(net.layer.weight, weights["layer.weight"])


def test_of_weights_and_their_average_in_one_file_it_is_said_which_are_taken(tmp_path, heard):
    path, weights, average = tmp_path / "both.pth", Net().state_dict(), Net().state_dict()
    utils_checkpoint.write_file({"params_ema": average, "params": weights}, path)
    assert torch.equal(utils_checkpoint.read_state_dict(path)["layer.weight"], weights["layer.weight"])
    assert [f"{path} has params and params_ema: params is taken" in line.message for line in heard.records] == [True]
    utils_checkpoint.write_file({"params_ema": average}, path)
    utils_checkpoint.read_state_dict(path)
    assert len(heard.records) == 1


def test_safetensors_load_too(tmp_path):
    weights = Net().state_dict()
    save_file(weights, tmp_path / "weights.safetensors")
    net = Net()
    utils_checkpoint.load_weights(net, tmp_path / "weights.safetensors")
    assert torch.equal(net.layer.bias, weights["layer.bias"])


def test_weights_without_anything_in_common_are_refused_even_if_not_strict():
    with pytest.raises(UserError, match="nothing in common"):
        utils_checkpoint.load_weights(Net(), {"other.weight": torch.zeros(3)}, strict=False)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "netG."])
def test_a_prefix_of_all_names_is_left_out_and_said(prefix):
    weights = {f"{prefix}{key}": value for key, value in Net().state_dict().items()}
    net = Net()
    report = utils_checkpoint.load_weights(net, weights | {"n_averaged": torch.tensor(3)})
    assert torch.equal(net.layer.weight, weights[f"{prefix}layer.weight"])
    assert (report.loaded, report.prefix, report.unexpected) == (2, prefix, [])
    assert repr(prefix) in str(report)


def test_a_prefix_of_some_names_is_part_of_them():
    weights = {"layer.weight": torch.zeros(3, 3), "module.layer.bias": torch.zeros(3)}
    with pytest.raises(UserError, match=r"1 unexpected \(module\.layer\.bias\)"):
        utils_checkpoint.load_weights(Net(), weights)
    with pytest.raises(UserError, match=r"1 unexpected \(module\.other\.bias\)"):
        utils_checkpoint.load_weights(Net(), {"module.other.bias": torch.zeros(3)})


def test_what_does_not_fit_is_grouped_by_kind():
    weights = {"layer.weight": torch.zeros(2, 2), "other": torch.zeros(1)}
    with pytest.raises(UserError) as error:
        utils_checkpoint.load_weights(Net(), weights)
    message = str(error.value)
    assert "1 missing (layer.bias)" in message
    assert "1 unexpected (other)" in message
    assert "layer.weight: (2, 2) -> (3, 3)" in message
    net = Net()
    before = net.layer.weight.detach().clone()
    weights["layer.bias"] = torch.full((3,), 7.0)
    report = utils_checkpoint.load_weights(net, weights, strict=False)
    assert report.loaded == 1
    assert net.layer.bias[0] == 7
    assert torch.equal(net.layer.weight, before)


class Code:
    def __reduce__(self):
        return (Path.touch, (Path("was-run"),))


def test_a_checkpoint_that_needs_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"layer.weight": Code()}, "evil.pth", pickle_module=pickle)
    with pytest.raises(UserError, match=r"evil\.pth: refused"):
        utils_checkpoint.load_weights(Net(), "evil.pth")
    assert not Path("was-run").exists()


@pytest.mark.parametrize("reason", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_half_way_says_why(tmp_path, monkeypatch, reason):
    write, room = utils_checkpoint._HashingWriter.write, [2000]

    def limited(tally, data):
        room[0] -= len(data)
        tally.file = tally.file if room[0] > 0 else Broken(reason)
        return write(tally, data)

    monkeypatch.setattr(utils_checkpoint._HashingWriter, "write", limited)
    with pytest.raises(type(reason)) as error:
        utils_checkpoint.write_file({"a": torch.ones(2000)}, tmp_path / "x.pth")
    assert error.value is reason
    assert list(tmp_path.iterdir()) == []


class Broken:
    def __init__(self, reason):
        self.reason = reason

    def write(self, _data):
        raise self.reason


def test_size_and_hash_are_those_of_the_file(tmp_path):
    path = tmp_path / "x.pth"
    written = utils_checkpoint.write_file(Net().state_dict(), path)
    assert written == {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    utils_checkpoint.read_state_dict(path, written["sha256"])
    with pytest.raises(UserError, match="SHA-256"):
        utils_checkpoint.read_state_dict(path, "0" * 64)


def test_a_flipped_bit_in_a_weight_is_noticed_without_a_hash(tmp_path):
    path = tmp_path / "x.pth"
    utils_checkpoint.write_file({"layer.weight": torch.full((64,), 0.5)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.full((64,), 0.5).numpy().tobytes()) + 3] ^= 64
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.pth: cannot be read.*checksum"):
        utils_checkpoint.read_state_dict(path)
