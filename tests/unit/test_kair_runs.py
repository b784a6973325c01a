"""Folders of KAIR's runs are gone on from: weights, average and the optimizer's moments of one and the same step."""

import pytest
import torch
from golden_files import official_entries
from trainee import OPTIONS, RECORD, Net, Trainee, changed, damage_truncate, same_moments, same_weights

from models.network_vrt import VRT
from utils import utils_checkpoint, utils_run_folder
from utils.checkpoint import kair_checkpoints
from utils.checkpoint.run_checkpoints import resume, save
from utils.utils_error import UserError

FIXED = changed(train={"fix_keys": ["deform"], "fix_lr_mul": 0.125})


class Published(Net):
    """The same parameters, registered in another order, with a constant among them."""

    def __init__(self):
        super().__init__()
        layer = self._modules.pop("layer")
        self._modules["layer"] = layer
        self.register_buffer("mean", torch.zeros(2))


def kair_run(folder, step, fixed=(), average=True):
    """What KAIR leaves after a step; returns the model it comes from."""
    model = Trainee(seed=step)
    model.netG = Published()
    parameters = list(model.netG.named_parameters())
    groups = [[], []]
    for name, parameter in parameters:
        groups[any(key in name for key in fixed)].append(parameter)
    model.optimizer = torch.optim.Adam([{"params": group} for group in groups if group])
    model.train(2)
    utils_checkpoint.write_file(model.netG.state_dict(), folder / f"{step}_G.pth")
    if average:
        utils_checkpoint.write_file({"params_ema": model.netE.state_dict()}, folder / f"{step}_E.pth")
    utils_checkpoint.write_file(model.optimizer.state_dict(), folder / f"{step}_optimizerG.pth")
    return model


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "models"
    place.mkdir()
    (place / "latest_G.pth").write_bytes(b"no number")
    (place / "latest_optimizerG.pth").write_bytes(b"")
    return place


@pytest.mark.parametrize(("fixed", "options"), [((), OPTIONS), (("deform",), FIXED)])
def test_a_run_goes_on_with_every_moment_at_its_parameter(tmp_path, folder, fixed, options):
    for step in (5, 10):
        theirs = kair_run(folder, step, fixed)
    ours = Trainee(seed=99, fixed=fixed)
    found = resume(tmp_path, ours, options)
    assert (found.step, found.record, found.changes) == (10, {}, ())
    weights = dict(theirs.netG.named_parameters())
    assert all(torch.equal(value, weights[name]) for name, value in ours.netG.named_parameters())
    assert same_weights(ours.netE, theirs.netE)
    assert same_moments(ours.moments(), theirs.moments())
    save(tmp_path, 11, ours.train(), RECORD)
    assert resume(tmp_path, Trainee(fixed=fixed), options).step == 11


def test_files_of_other_steps_are_named_and_not_used(tmp_path, folder, heard):
    kair_run(folder, 5)
    kair_run(folder, 10)
    for kind in ("E", "optimizerG"):
        (folder / f"10_{kind}.pth").unlink()
    kair_run(folder, 20)
    (folder / "20_G.pth").unlink()
    model = Trainee(seed=99)
    assert resume(tmp_path, model, OPTIONS).step == 10
    assert "has no 10_E.pth; that of step 20 is not used" in heard.text
    assert "has no 10_optimizerG.pth; that of step 20 is not used" in heard.text
    assert same_weights(model.netE, model.netG)
    assert all(moments is None for moments in model.moments().values())


def test_the_step_before_damaged_weights_is_used(tmp_path, folder, heard):
    kair_run(folder, 5)
    kair_run(folder, 10)
    damage_truncate(folder / "10_G.pth")
    assert resume(tmp_path, Trainee(), OPTIONS).step == 5
    assert "10_G.pth" in heard.text


def test_groups_that_are_not_the_options_are_refused(tmp_path, folder):
    kair_run(folder, 5, fixed=("deform",))
    with pytest.raises(UserError, match=r"5_optimizerG\.pth has groups of \[2, 2\] parameters, expected \[4\]"):
        resume(tmp_path, Trainee(), OPTIONS)


def test_moments_of_another_shape_are_refused(tmp_path, folder):
    kair_run(folder, 5)
    saved = torch.load(folder / "5_optimizerG.pth", weights_only=True)
    saved["state"][0]["exp_avg"] = torch.zeros(7)
    torch.save(saved, folder / "5_optimizerG.pth")
    with pytest.raises(UserError, match=r"exp_avg of deform\.weight has shape \(7,\), expected \(3, 3\)"):
        resume(tmp_path, Trainee(), OPTIONS)


def test_the_last_weights_of_a_kair_run_can_be_tested(tmp_path, folder):
    kair_run(folder, 5, average=False)
    assert utils_run_folder.find_weights(tmp_path, None, None)[0].name == "5_G.pth"


def test_what_a_killed_process_left_does_not_cost_weights_of_kair(tmp_path, folder):
    kair_run(folder, 5)
    (folder / ".5_state.123.tmp.pth").write_bytes(b"half")
    assert resume(tmp_path, Trainee(), OPTIONS).step == 5
    save(tmp_path, 6, Trainee(), RECORD, keep=1)
    assert (folder / "5_G.pth").is_file()


def test_the_official_file_names_every_parameter_once_and_in_its_order():
    keys = official_entries()
    with torch.device("meta"):
        net = VRT(in_chans=3)
    ours = {name: tuple(value.shape) for name, value in net.named_parameters()}
    assert list(ours)[:2] != list(keys)[:2]  # else the order of the network would do
    [names] = kair_checkpoints.parameter_groups(keys, ["spynet", "deform"], 1.0)
    assert {name: keys[name] for name in names} == ours
    first, second = kair_checkpoints.parameter_groups(keys, ["spynet", "deform"], 0.125)
    assert second == [name for name in names if "spynet" in name or "deform" in name]
    assert first == [name for name in names if name not in second]
