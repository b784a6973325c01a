"""Checkpoints: whole or absent, exact on resume, and nothing is loaded that does not fit."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from models.model_vrt import ModelVRT
from options.schema import TrainOpt
from utils import utils_checkpoint
from utils.utils_dist import Dist
from utils.utils_error import UserError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.register_buffer("relative_position_index", torch.zeros(2), persistent=False)

    def forward(self, x):
        return self.layer(x.movedim(2, -1)).movedim(-1, 2)


def model(**options):
    return ModelVRT(Net(), TrainOpt(total_iter=100, **options), Dist())


def sample():
    return {"lq": torch.rand(1, 1, 3, 2, 2), "gt": torch.rand(1, 1, 3, 2, 2)}


def test_a_saved_run_goes_on_exactly(tmp_path):
    first, batch = model(E_decay=0.9), sample()
    first.train_step([batch], 0)
    utils_checkpoint.save(tmp_path, 1, first)
    second = model(E_decay=0.9)
    assert utils_checkpoint.resume(tmp_path, second) == 1
    for one in (first, second):
        one.train_step([batch], 1)
    for a, b in ((first.netG, second.netG), (first.netE, second.netE)):
        for key, value in a.state_dict().items():
            assert torch.equal(value, b.state_dict()[key]), key


def test_files_are_plain_state_dicts_with_known_names(tmp_path):
    utils_checkpoint.save(tmp_path, 20, model(E_decay=0.9))
    assert {path.name for path in (tmp_path / "models").iterdir()} == {"20_G.pth", "20_E.pth", "20_state.pth"}
    weights = torch.load(tmp_path / "models" / "20_G.pth", weights_only=True)
    assert set(weights) == {"layer.weight", "layer.bias"}


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path, caplog):
    saved = model()
    utils_checkpoint.save(tmp_path, 1, saved)
    utils_checkpoint.save(tmp_path, 2, saved)
    damaged = tmp_path / "models" / "2_G.pth"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with caplog.at_level("WARNING", "spikevrt"):
        utils_checkpoint.LOG.propagate = True
        assert utils_checkpoint.resume(tmp_path, model()) == 1
    assert "2_G.pth" in caplog.text


def test_a_save_that_dies_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "x.pth"
    utils_checkpoint.write_file({"a": torch.ones(1)}, path)

    def die(_content, file):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", die)
    with pytest.raises(KeyboardInterrupt):
        utils_checkpoint.write_file({"a": torch.zeros(1)}, path)
    assert utils_checkpoint.read_state_dict(path)["a"] == 1
    assert [one.name for one in tmp_path.iterdir()] == ["x.pth"]


def test_only_the_newest_sets_are_kept(tmp_path):
    for step in (1, 2, 10, 30):
        utils_checkpoint.save(tmp_path, step, model(), keep=2)
    assert utils_checkpoint.saved_steps(tmp_path) == [10, 30]
    assert not (tmp_path / "models" / "2_G.pth").exists()


@pytest.mark.parametrize("container", ["params", "params_ema", None])
def test_weights_load_from_any_container_and_buffers_are_ignored(tmp_path, container):
    weights = {**Net().state_dict(), "relative_position_index": torch.ones(5)}
    path = tmp_path / "weights.pth"
    utils_checkpoint.write_file({container: weights} if container else weights, path)
    net = Net()
    report = utils_checkpoint.load_weights(net, path)
    assert report.loaded == 2
    assert torch.equal(net.layer.weight, weights["layer.weight"])


def test_safetensors_load_too(tmp_path):
    weights = Net().state_dict()
    save_file(weights, tmp_path / "weights.safetensors")
    net = Net()
    utils_checkpoint.load_weights(net, tmp_path / "weights.safetensors")
    assert torch.equal(net.layer.bias, weights["layer.bias"])


def test_an_option_of_the_optimizer_that_changed_takes_effect_on_resume(tmp_path):
    first = model(G_optimizer_wd=0.1)
    first.train_step([sample()], 0)
    utils_checkpoint.save(tmp_path, 1, first)
    second = model(G_optimizer_wd=0.2, G_optimizer_betas=(0.8, 0.9))
    utils_checkpoint.resume(tmp_path, second)
    group = second.optimizer.param_groups[0]
    assert (group["weight_decay"], group["betas"]) == (0.2, (0.8, 0.9))


def test_a_foreign_state_file_is_passed_over(tmp_path):
    utils_checkpoint.save(tmp_path, 1, model())
    utils_checkpoint.write_file({"other": 1}, tmp_path / "models" / "2_state.pth")
    assert utils_checkpoint.resume(tmp_path, model()) == 1


def test_weights_without_anything_in_common_are_refused_even_if_not_strict():
    with pytest.raises(UserError, match="nothing in common"):
        utils_checkpoint.load_weights(Net(), {"other.weight": torch.zeros(3)}, strict=False)


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
    with pytest.raises(UserError, match=r"evil\.pth refused"):
        utils_checkpoint.load_weights(Net(), "evil.pth")
    assert not Path("was-run").exists()


def test_weights_for_testing_are_best_then_last(tmp_path):
    with pytest.raises(UserError, match="no weights"):
        utils_checkpoint.find_weights(tmp_path, None, None)
    trained = model()
    utils_checkpoint.save(tmp_path, 5, trained)
    path, why = utils_checkpoint.find_weights(tmp_path, None, None)
    assert path.name == "5_G.pth"
    assert "step 5" in why
    assert utils_checkpoint.best_score(tmp_path) == float("-inf")
    utils_checkpoint.save_best(tmp_path, trained, 5, 31.5)
    assert utils_checkpoint.best_score(tmp_path) == 31.5
    assert utils_checkpoint.find_weights(tmp_path, None, None)[0].name == "best_G.pth"
    assert utils_checkpoint.find_weights(tmp_path, "x_E.pth", None)[0].name == "x_E.pth"
