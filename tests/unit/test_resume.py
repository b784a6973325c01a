"""Checkpoint sets: whole or not used, exact on resume, never lost to a save that fails, options compared."""

import errno
import json
import os
import pickle
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn
from trainee import OPTIONS, RECORD, Net, Trainee, changed, damage_truncate, same_moments, same_weights

from models.model_vrt import ModelVRT
from options.schema import TrainOpt
from utils import utils_checkpoint, utils_file, utils_run_folder
from utils.checkpoint import option_changes, run_checkpoints
from utils.checkpoint.run_checkpoints import resume, save
from utils.processes import identity
from utils.utils_dist import Dist
from utils.utils_error import UserError
from utils.utils_file import DiskError
from utils.utils_run_folder import RunFolder


def names_in(tmp_path):
    return sorted(path.name for path in (tmp_path / "models").iterdir())


@pytest.fixture
def two_sets(tmp_path):
    """A run with the sets of steps 1 and 2; models by step."""
    model = Trainee()
    kept = {}
    for step in (1, 2):
        model.train()
        save(tmp_path, step, model, RECORD)
        kept[step] = {name: value.clone() for name, value in model.netG.state_dict().items()}
    return kept


# Exactness


def vrt_like(**options):
    class PerFrame(Net):
        def forward(self, x):
            return super().forward(x.movedim(2, -1)).movedim(-1, 2)

    torch.manual_seed(0)
    return ModelVRT(PerFrame(), TrainOpt(total_iter=100, **options), Dist())


def test_a_saved_run_goes_on_exactly(tmp_path):
    batch = {"lq": torch.rand(1, 1, 3, 2, 2), "gt": torch.rand(1, 1, 3, 2, 2)}
    first = vrt_like(E_decay=0.9)
    first.train_step([batch], 0)
    save(tmp_path, 1, first, RECORD)
    second = vrt_like(E_decay=0.9)
    assert resume(tmp_path, second, OPTIONS).step == 1
    for one in (first, second):
        one.train_step([batch], 1)
    assert same_weights(first.netG, second.netG)
    assert same_weights(first.netE, second.netE)


def test_an_option_of_the_optimizer_that_changed_takes_effect(tmp_path):
    batch = {"lq": torch.rand(1, 1, 3, 2, 2), "gt": torch.rand(1, 1, 3, 2, 2)}
    first = vrt_like(G_optimizer_wd=0.1)
    first.train_step([batch], 0)
    save(tmp_path, 1, first, RECORD)
    second = vrt_like(G_optimizer_wd=0.2, G_optimizer_betas=(0.8, 0.9), G_optimizer_lr=1e-5)
    resume(tmp_path, second, OPTIONS)
    group = second.optimizer.param_groups[0]
    assert (group["weight_decay"], tuple(group["betas"])) == (0.2, (0.8, 0.9))
    assert second.train_step([batch], 1)["lr"] < 1.1e-5


def test_what_was_recorded_comes_back(tmp_path, two_sets):
    found = resume(tmp_path, Trainee(seed=1), OPTIONS)
    assert (found.step, found.record, found.changes) == (2, RECORD, ())


def test_a_record_that_would_need_code_to_load_is_not_written(tmp_path):
    with pytest.raises(TypeError):
        save(tmp_path, 1, Trainee(), {"folder": tmp_path})
    assert not (tmp_path / "models").exists()


def test_nothing_saved_means_a_start(tmp_path):
    assert resume(tmp_path, Trainee(), OPTIONS) == run_checkpoints.Resumed()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "latest_G.pth").write_bytes(b"")
    assert resume(tmp_path, Trainee(), OPTIONS).step == 0


def test_files_are_plain_state_dicts_with_known_names(tmp_path, two_sets):
    assert names_in(tmp_path) == [f"{step}_{kind}.pth" for step in (1, 2) for kind in ("E", "G", "state")]
    weights = torch.load(tmp_path / "models" / "2_G.pth", weights_only=True)
    assert all(map(torch.equal, weights.values(), two_sets[2].values()))
    state = torch.load(tmp_path / "models" / "2_state.pth", weights_only=True)
    assert state["options_hash"] == option_changes.options_hash(OPTIONS)
    for kind in "GE":
        assert state["files"][kind]["bytes"] == (tmp_path / "models" / f"2_{kind}.pth").stat().st_size
    assert state["extra"] == {"row": 3}


def test_moments_follow_their_parameters_into_other_groups(tmp_path):
    first = Trainee(fixed=("deform",)).train(3)
    save(tmp_path, 3, first, {})
    second = Trainee(seed=1, fixed=("layer",))
    resume(tmp_path, second, {})
    assert same_moments(first.moments(), second.moments())


def test_a_parameter_that_is_new_to_the_optimizer_starts_without_moments(tmp_path):
    first = Trainee()
    first.optimizer = torch.optim.Adam(first.netG.deform.parameters())
    save(tmp_path, 1, first.train(), {})
    second = Trainee(seed=1)
    resume(tmp_path, second, {})
    moments = second.moments()
    assert moments["layer.weight"] is moments["layer.bias"] is None
    assert torch.equal(moments["deform.bias"]["exp_avg"], first.moments()["deform.bias"]["exp_avg"])
    second.train()


def test_sets_without_hashes_and_names_still_load(tmp_path):
    first = Trainee().train(2)
    states, folder = first.state_dicts(), tmp_path / "models"
    for kind in "GE":
        utils_checkpoint.write_file(states[kind], folder / f"2_{kind}.pth")
    del states["state"]["optimizer"]["names"]
    utils_checkpoint.write_file({"step": 2, "kinds": sorted(states), **states["state"]}, folder / "2_state.pth")
    second = Trainee(seed=1)
    assert resume(tmp_path, second, OPTIONS).step == 2
    assert same_weights(first.netG, second.netG)
    assert same_moments(first.moments(), second.moments())
    with pytest.raises(UserError, match=r"groups have \[4\] parameters, expected \[2, 2\]"):
        resume(tmp_path, Trainee(fixed=("deform",)), OPTIONS)


# Damage


def damage_empty(path):
    path.write_bytes(b"")


def damage_remove(path):
    path.unlink()


class Code:
    def __reduce__(self):
        return (Path.touch, (Path("was-run"),))


def damage_with_code(path):
    torch.save({"files": {}, "layer.weight": Code()}, path, pickle_module=pickle)


def damage_with_foreign_content(path):
    torch.save({"other": torch.zeros(2)}, path)


@pytest.mark.parametrize("kind", ["G", "E", "state"])
@pytest.mark.parametrize(
    "damage", [damage_truncate, damage_empty, damage_remove, damage_with_code, damage_with_foreign_content]
)
def test_the_set_before_a_damaged_one_is_used(tmp_path, two_sets, heard, monkeypatch, damage, kind):
    monkeypatch.chdir(tmp_path)
    damage(tmp_path / "models" / f"2_{kind}.pth")
    model = Trainee(seed=1)
    assert resume(tmp_path, model, OPTIONS).step == 1
    assert all(map(torch.equal, model.netG.state_dict().values(), two_sets[1].values()))
    if (damage, kind) != (damage_remove, "state"):  # without its state a set is none
        assert f"2_{kind}.pth" in heard.text
    assert not Path("was-run").exists()


def test_code_is_refused_even_if_the_state_vouches_for_it(tmp_path, two_sets, heard, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "models"
    damage_with_code(folder / "2_G.pth")
    content = (folder / "2_G.pth").read_bytes()
    state = torch.load(folder / "2_state.pth", weights_only=True)
    del state["sha256"]
    state["files"]["G"] = {"bytes": len(content), "sha256": utils_checkpoint.hashlib.sha256(content).hexdigest()}
    torch.save(state, folder / "2_state.pth")
    assert resume(tmp_path, Trainee(), OPTIONS).step == 1
    assert "refused" in heard.text
    assert not Path("was-run").exists()


@pytest.mark.parametrize("kind", ["G", "E", "state"])
def test_no_flipped_bit_gets_into_a_run(tmp_path, two_sets, kind):
    path = tmp_path / "models" / f"2_{kind}.pth"
    whole = path.read_bytes()
    exact = Trainee(seed=1)
    resume(tmp_path, exact, OPTIONS)
    for place in (*range(7, len(whole), len(whole) // 40), len(whole) - 20):
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        path.write_bytes(content)
        model = Trainee(seed=1)
        step = resume(tmp_path, model, OPTIONS).step
        assert step == 1 or (kind == "state" and step == 2)  # bytes between the parts of a state file mean nothing
        if step == 2:
            assert same_weights(model.netG, exact.netG)
            assert same_moments(model.moments(), exact.moments())


def test_a_changed_number_of_the_state_is_noticed_where_the_format_does_not(tmp_path, two_sets, heard):
    path = tmp_path / "models" / "2_state.pth"
    state = torch.load(path, weights_only=True)
    state["optimizer"]["state"][0]["exp_avg"][0] += 1
    torch.save(state, path)
    assert resume(tmp_path, Trainee(), OPTIONS).step == 1
    assert "2_state.pth is damaged" in heard.text


def test_a_run_whose_sets_are_all_damaged_does_not_start_anew(tmp_path, two_sets):
    for step in (1, 2):
        damage_truncate(tmp_path / "models" / f"{step}_G.pth")
    with pytest.raises(UserError, match=r"2: .*2_G\.pth has .*; 1: .*; put whole files.* move 2_\*\.pth, 1_\*\.pth"):
        resume(tmp_path, Trainee(), OPTIONS)


# Saves that fail


@contextmanager
def file_limit(size):
    """Files of this process cannot grow beyond `size` bytes: the system's own refusal."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("size", [0, 1000, 4000])  # nothing, a part of G, G and E but not the state
def test_a_full_disk_leaves_every_set_as_it_was(tmp_path, two_sets, size):
    before = contents(tmp_path / "models")
    with file_limit(size), pytest.raises(DiskError) as error:
        save(tmp_path, 3, Trainee(), RECORD, keep=1)
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'models'}: the checkpoint of step 3 could not be written: File too large")
    assert "step 2 is unchanged" in message
    assert contents(tmp_path / "models") == before
    assert resume(tmp_path, Trainee(), OPTIONS).step == 2


@pytest.mark.parametrize("call", range(6))  # every fsync of a set's files and of their folder
def test_a_disk_that_is_full_at_the_last_moment_does_no_harm(tmp_path, two_sets, monkeypatch, call):
    before, fsync, calls = contents(tmp_path / "models"), os.fsync, []

    def failing(descriptor):
        calls.append(descriptor)
        if len(calls) == call + 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(utils_file.os, "fsync", failing)
    with pytest.raises(DiskError, match="No space left on device, [0-9]+ MiB free"):
        save(tmp_path, 3, Trainee(), RECORD)
    assert contents(tmp_path / "models") == before


def test_a_failed_first_save_leaves_nothing_that_passes_for_a_checkpoint(tmp_path, monkeypatch):
    def failing(_descriptor):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(utils_file, "sync_folder", failing)
    with pytest.raises(DiskError, match="quota.*no earlier checkpoint"):
        save(tmp_path, 3, Trainee(), RECORD)
    assert names_in(tmp_path) == []
    assert resume(tmp_path, Trainee(), OPTIONS).step == 0


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "models").write_text("a file")
    with pytest.raises(DiskError, match=f"{tmp_path / 'models'}: .* could not be written: File exists"):
        save(tmp_path, 1, Trainee(), RECORD)


def test_a_save_killed_at_any_moment_leaves_the_last_whole_set(tmp_path, monkeypatch):
    # What kill -9 leaves: the files as they are after each system call that changes the folder.
    class KilledError(BaseException):
        pass

    def die(*_args, **_kwargs):
        raise KilledError

    for first in (True, False):
        for moment in range(3):
            run = tmp_path / f"{first}{moment}"
            if not first:
                save(run, 1, Trainee(), RECORD)
            replace, renamed = os.replace, []

            def stop_at(source, target, moment=moment, replace=replace, renamed=renamed):
                if len(renamed) == moment:
                    monkeypatch.setattr(Path, "unlink", die)
                    raise KilledError
                renamed.append(target)
                replace(source, target)

            monkeypatch.setattr(utils_file.os, "replace", stop_at)
            with pytest.raises(KilledError):
                save(run, 2, Trainee(), RECORD)
            monkeypatch.undo()
            assert resume(run, Trainee(), OPTIONS).step == (0 if first else 1)
            save(run, 3, Trainee(), RECORD)
            assert {path.name[:2] for path in (run / "models").iterdir()} == ({"3_"} if first else {"1_", "3_"})
            assert resume(run, Trainee(), OPTIONS).step == 3


def test_what_a_living_process_writes_is_not_swept(tmp_path):
    folder = tmp_path / "models"
    save(tmp_path, 1, Trainee(), RECORD)
    boot = identity.this_process().machine
    parent = f"{os.getppid()}-{identity._started(os.getppid()):x}-{boot}"
    living = [folder / f".7_state.{parent}.tmp.pth", folder / "7_G.pth"]
    dead = [folder / f".8_state.{2**22 + 1}-1-{boot}.tmp.pth", folder / "8_G.pth"]
    for path in living + dead:
        path.write_bytes(b"half")
    save(tmp_path, 2, Trainee(), RECORD)
    assert [path.exists() for path in living + dead] == [True, True, False, False]


# Retention and the best


def test_only_the_newest_sets_are_kept(tmp_path):
    for step in (1, 2, 10, 30):
        save(tmp_path, step, Trainee(), RECORD, keep=2)
    run_checkpoints.save_best(tmp_path, Trainee(), 1, "psnr", 20.0)
    save(tmp_path, 31, Trainee(), RECORD, keep=2)
    assert RunFolder(tmp_path).steps() == [30, 31]
    kept = [f"{step}_{kind}.pth" for step in (30, 31) for kind in ("E", "G", "state")]
    assert names_in(tmp_path) == [*kept, "best.json", "best_G.pth"]


def test_later_sets_stay_when_a_run_goes_on_before_them(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step, Trainee(), RECORD)
    damage_truncate(tmp_path / "models" / "3_G.pth")
    save(tmp_path, 2, Trainee(), RECORD, keep=1)
    assert RunFolder(tmp_path).steps() == [2, 3]
    assert resume(tmp_path, Trainee(), OPTIONS).step == 2


def test_old_sets_are_removed_only_after_the_new_one_is_whole(tmp_path, monkeypatch):
    save(tmp_path, 1, Trainee(), RECORD, keep=1)
    unlink, seen = Path.unlink, []

    def watched(path, missing_ok=False):
        if path.name.startswith("1_"):
            seen.append(resume(tmp_path, Trainee(), OPTIONS).step)
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", watched)
    save(tmp_path, 2, Trainee(), RECORD, keep=1)
    assert seen == [2, 2, 2]


def test_an_old_set_that_cannot_be_removed_does_not_stop_the_run(tmp_path, monkeypatch, heard):
    save(tmp_path, 1, Trainee(), RECORD)
    unlink = Path.unlink

    def refusing(path, missing_ok=False):
        if path.name == "1_G.pth":
            raise PermissionError(errno.EACCES, "Permission denied")
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refusing)
    save(tmp_path, 2, Trainee(), RECORD, keep=1)
    assert "1_G.pth cannot be removed: Permission denied" in heard.text


def test_a_damaged_note_of_the_best_does_not_stop_the_run(tmp_path):
    run_checkpoints.save_best(tmp_path, Trainee(), 5, "psnr", 31.5)
    assert run_checkpoints.best(tmp_path) == {"step": 5, "psnr": 31.5}
    for text in ("{", "[]", '{"step": 3}', '{"step": 3, "psnr": null}', '{"step": 3, "psnr": 1.0, "ssim": 0.5}'):
        (tmp_path / "models" / "best.json").write_text(text)
        assert run_checkpoints.best(tmp_path) is None
        assert run_checkpoints.is_best(tmp_path, "psnr", 1.0)


@pytest.mark.parametrize(("metric", "worse", "better"), [("psnr", 30.0, 32.0), ("ssim", 0.8, 0.9), ("lpips", 0.3, 0.1)])
def test_the_best_is_chosen_by_the_metric_at_hand(tmp_path, metric, worse, better):
    assert not run_checkpoints.is_best(tmp_path, metric, float("nan"))
    assert run_checkpoints.is_best(tmp_path, metric, worse)
    run_checkpoints.save_best(tmp_path, Trainee(), 5, metric, (worse + better) / 2)
    assert run_checkpoints.best(tmp_path) == {"step": 5, metric: (worse + better) / 2}
    assert run_checkpoints.is_best(tmp_path, metric, better)
    assert not run_checkpoints.is_best(tmp_path, metric, worse)
    assert not run_checkpoints.is_best(tmp_path, metric, (worse + better) / 2)
    assert not run_checkpoints.is_best(tmp_path, metric, float("nan"))


def test_with_another_metric_the_best_is_chosen_anew_and_that_is_said(tmp_path, heard):
    run_checkpoints.save_best(tmp_path, Trainee(), 5, "psnr", 31.5)
    assert run_checkpoints.is_best(tmp_path, "ssim", 0.1)
    assert "by ssim the new ones are best" in heard.text


MEASURED = {"frames": 3, "val": {"flip_seq": False}}


@pytest.mark.parametrize("now", [{"frames": 9, "val": {"flip_seq": False}}, {"frames": 3, "val": {"flip_seq": True}}])
def test_scores_of_another_measurement_do_not_hold_back_new_weights(tmp_path, heard, now):
    run_checkpoints.save_best(tmp_path, Trainee(), 5, "psnr", 31.5, MEASURED)
    assert run_checkpoints.best(tmp_path) == {"step": 5, "psnr": 31.5}
    assert not run_checkpoints.is_best(tmp_path, "psnr", 31.0, MEASURED)
    assert not run_checkpoints.is_best(tmp_path, "psnr", 31.0, {**MEASURED, "of a later version": 1})
    assert not run_checkpoints.is_best(tmp_path, "psnr", float("nan"), now)
    assert heard.text == ""
    assert run_checkpoints.is_best(tmp_path, "psnr", 20.0, now)
    assert len(heard.records) == 1
    assert "31.5}, were measured otherwise (" in heard.text
    run_checkpoints.save_best(tmp_path, Trainee(), 6, "psnr", 20.0, now)
    assert not run_checkpoints.is_best(tmp_path, "psnr", 19.0, now)


def test_a_best_of_which_nobody_noted_what_was_measured_is_compared_by_its_score(tmp_path):
    run_checkpoints.save_best(tmp_path, Trainee(), 5, "psnr", 31.5)
    (tmp_path / "models" / "best.json").write_text('{"step": 5, "psnr": 31.5}\n')
    assert not run_checkpoints.is_best(tmp_path, "psnr", 31.0, MEASURED)
    assert run_checkpoints.is_best(tmp_path, "psnr", 32.0, MEASURED)


def test_where_there_are_no_weights_runs_that_have_some_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"to a file$"):
        utils_run_folder.find_weights(tmp_path / "mine", None, None)
    save(tmp_path / "other", 5, Trainee(), RECORD)
    with pytest.raises(UserError, match=r"or test another run: --set task=other$"):
        utils_run_folder.find_weights(tmp_path / "mine", None, None)


def test_weights_for_testing_are_best_then_last(tmp_path):
    with pytest.raises(UserError, match="no weights"):
        utils_run_folder.find_weights(tmp_path, None, None)
    save(tmp_path, 5, Trainee(average=False), RECORD)
    path, why = utils_run_folder.find_weights(tmp_path, None, None)
    assert path.name == "5_G.pth"
    assert "step 5" in why
    assert run_checkpoints.best(tmp_path) is None
    run_checkpoints.save_best(tmp_path, Trainee(), 5, "psnr", 31.5)
    assert utils_run_folder.find_weights(tmp_path, None, None)[0].name == "best_G.pth"
    assert utils_run_folder.find_weights(tmp_path, "x_E.pth", None)[0].name == "x_E.pth"


def test_weights_that_a_run_began_with_are_not_those_to_test(tmp_path):
    (tmp_path / "options.json").write_text(json.dumps({"path": {"pretrained_netG": "start.pth"}}))
    assert utils_run_folder.find_weights(tmp_path, None, "start.pth")[0].name == "start.pth"  # nothing else is there
    utils_checkpoint.write_file({"a": torch.ones(1)}, tmp_path / "models" / "best_G.pth")
    path, why = utils_run_folder.find_weights(tmp_path, None, "start.pth")
    assert (path.name, why) == ("best_G.pth", "the run's best; it started from start.pth")
    assert utils_run_folder.find_weights(tmp_path, None, "other.pth")[0].name == "other.pth"


# Options


def test_changed_options_are_listed_one_a_line(tmp_path, two_sets, heard):
    options = changed(train={"G_optimizer_lr": 0.0002, "fix_keys": ["deform"]}, netG={"use_checkpoint_attn": True})
    found = resume(tmp_path, Trainee(), options | {"task": "u"})
    expected = (
        'task: "t" -> "u"',
        "netG.use_checkpoint_attn: false -> true",
        "train.G_optimizer_lr: 0.0004 -> 0.0002",
        'train.fix_keys: [] -> ["deform"]',
    )
    assert found.changes == expected
    assert set(expected) <= {record.getMessage() for record in heard.records}


def test_an_option_that_can_no_longer_count_says_so(tmp_path, two_sets):
    found = resume(tmp_path, Trainee(), changed(netG={"spynet_path": "x.pth"}))
    assert found.changes == ('netG.spynet_path: null -> "x.pth" (no effect: the weights come from the checkpoint)',)


def test_all_refused_changes_are_named_at_once(tmp_path, two_sets):
    options = changed(netG={"upscale": 4, "mlp_ratio": 4.0, "drop_path_rate": 0.0}, train={"G_optimizer_lr": 1.0})
    model = Trainee(seed=1)
    before = [value.clone() for value in model.netG.state_dict().values()]
    with pytest.raises(UserError, match=r"netG\.upscale: 1 -> 4; netG\.mlp_ratio: 2\.0 -> 4\.0; undo") as error:
        resume(tmp_path, model, options)
    assert "drop_path_rate" not in str(error.value)
    assert "G_optimizer_lr" not in str(error.value)
    assert all(map(torch.equal, model.netG.state_dict().values(), before))


def test_every_option_of_the_network_is_refused_or_known_to_be_free():
    net = {**OPTIONS["netG"], **{f"guide.{name}": value for name, value in OPTIONS["netG"]["guide"].items()}}
    refused = {
        name
        for name in net
        if option_changes.Change(f"netG.{name}", 1, 2).is_refused
        and name not in option_changes.NET_KEYS_THAT_KEEP_WEIGHTS
    }
    assert set(net) == refused | set(option_changes.NET_KEYS_THAT_KEEP_WEIGHTS)
    assert {"depths", "in_chans", "fusion", "upscale", "lora"} <= refused


def test_options_of_another_version_of_the_program_do_not_stop_a_run():
    found = list(option_changes.changes({"netG": {"gone": 1}}, {"netG": {"depths": [8]}}))
    assert [str(change) for change in found] == ["netG.gone: 1 -> null", "netG.depths: null -> [8]"]
    assert not any(change.is_refused for change in found)


@pytest.mark.parametrize("averages", [(True, False), (False, True)])
def test_the_moving_average_may_come_and_go(tmp_path, averages):
    save(tmp_path, 1, Trainee(average=averages[0]).train(), RECORD)
    model = Trainee(seed=1, average=averages[1])
    assert resume(tmp_path, model, changed(train={"E_decay": 0.5})).changes == ("train.E_decay: 0.0 -> 0.5",)
    if averages[1]:
        assert same_weights(model.netE, model.netG)


def test_a_network_of_other_shapes_is_refused(tmp_path, two_sets):
    model = Trainee()
    model.netG.layer = nn.Linear(3, 4)
    with pytest.raises(UserError, match=r"2_\*\.pth cannot be resumed with these options.*another task name"):
        resume(tmp_path, model, OPTIONS)
