"""Weights that ship: found by name from any folder, whole or refused in one line, and told by their own file."""

import argparse
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from test_restorer import read_clip
from tiny_set import FIRST, SHARP
from torch import nn

import main_test_vrt
import main_train_vrt
from data.official_tasks import task_file
from models.select_network import define_G
from options.schema import Opt
from restorer import Restorer
from scripts import convert_checkpoint
from utils import utils_checkpoint, utils_option, utils_zoo
from utils.checkpoint.weight_notes import options_of_network
from utils.utils_error import UserError
from utils.utils_image import read_rgb
from utils.utils_run_folder import find_weights

ROOT = Path(__file__).resolve().parents[2]
GUIDE, TINY = utils_zoo.SHIPPED
MOST_BYTES = 3_000_000


def options(name):
    return utils_option.load(ROOT / "options/vrt" / name, Opt)


def task_options(name):
    return utils_option.load(task_file(utils_zoo.TASKS[name]), Opt)


def stand_in(opt):
    """Weights of the guide that do something."""
    net = define_G(opt.netG, seed=1)
    nn.init.normal_(net.conv_last.weight, std=0.01)
    return net.state_dict()


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """A project with weights."""
    project = tmp_path_factory.mktemp("project")
    for name, path in zip(utils_zoo.TASKS, utils_zoo.SHIPPED, strict=True):
        utils_checkpoint.write_weights(stand_in(task_options(name)), project / path)
    return project


@pytest.fixture
def zoo(shipped, tmp_path, monkeypatch):
    """A project with weights, and a working folder elsewhere."""
    monkeypatch.setattr(utils_zoo, "ROOT", shutil.copytree(shipped, tmp_path / "project"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "project"


def job_of(*words):
    return main_test_vrt.read_job(main_test_vrt.parse_args([str(word) for word in words]))


def folders(root):
    return ["--folder_lq", root / "lq", "--folder_spike", root / "spikes/train"]


# By name


@pytest.mark.parametrize("name", utils_zoo.TASKS)
def test_a_task_and_its_name_in_python_restore_alike_from_any_folder(name, zoo, shared_set, heard):
    task = utils_zoo.TASKS[name]
    main_test_vrt.main(job_of("--task", task, *folders(shared_set), "--times", 0.25, 0.75))
    assert f"{name}.safetensors (ships with the project): " in heard.text
    frames, spikes = read_clip(shared_set)
    restorer = Restorer.from_pretrained(name)
    instants = restorer.restore(frames, spikes, exposure=(2, 20), times=(0.25, 0.75))
    clip = Path("results") / task / "clip_a"
    for at, time in enumerate(("0.25", "0.75")):
        written = np.stack([read_rgb(clip / f"{FIRST + index:06d}_t{time}.png") for index in range(5)])
        assert np.array_equal(written, instants[:, at])
    assert not np.array_equal(instants[:, 0], instants[:, 1])
    assert not np.array_equal(restorer.restore(frames, spikes, exposure=(2, 20), sharp_step=SHARP), frames)


def test_whole_frames_are_the_tile_unless_another_is_asked_for(zoo, shared_set):
    words = ["--task", "spike_guide", *folders(shared_set)]
    assert (job_of(*words).tile.frames, job_of(*words).tile.size) == (1, (0, 0))
    assert job_of(*words, "--tile", 1, 32, 48).tile.size == (32, 48)
    assert job_of(*words).opt.results_dir == Path("results/spike_guide")


def test_a_task_with_spikes_asks_for_them(zoo, shared_set):
    with pytest.raises(
        UserError, match="--folder_spike is missing, expected the folder of the spike files for spike_guide"
    ):
        job_of("--task", "spike_guide", "--folder_lq", shared_set / "lq")


def test_the_tasks_are_the_guide_of_the_recipe():
    recipe, finetune = options("guide.json"), options("guide_finetune.json")
    for name, path in zip(utils_zoo.TASKS, utils_zoo.SHIPPED, strict=True):
        opt = task_options(name)
        assert opt.path.shipped_netG == str(path)
        assert opt.datasets.test.spike == recipe.datasets.test.spike
        assert opt.netG.guide.size == name
    assert task_options("guide").netG.network_kwargs() == recipe.netG.network_kwargs() == finetune.netG.network_kwargs()
    assert finetune.path.pretrained_netG == recipe.path.shipped_netG == str(GUIDE)
    assert finetune.train.G_optimizer_lr < recipe.train.G_optimizer_lr
    assert finetune.train.total_iter < recipe.train.total_iter


def test_an_option_file_is_tested_with_weights_of_its_own_network():
    files = (ROOT / "options/vrt").rglob("*.json")
    opts = [opt for opt in (utils_option.load(file, Opt) for file in files) if opt.path.shipped_netG is not None]
    assert len(opts) > 3
    for opt in opts:
        of_task = task_options(Path(opt.path.shipped_netG).stem)
        assert opt.netG.network_kwargs() == of_task.netG.network_kwargs(), opt.task


@pytest.mark.parametrize("name", ["guide", "options/vrt/guide.json", "tasks/spike_guide", "curriculum/stage1"])
def test_an_option_file_that_ships_is_found_by_its_name_from_any_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    shipped = ROOT / "options/vrt" / f"{name.removeprefix('options/vrt/').removesuffix('.json')}.json"
    (tmp_path / "guide").mkdir()  # results of mine
    assert utils_option.load(Path(name), Opt) == utils_option.load(shipped, Opt)
    own = tmp_path / name
    own.parent.mkdir(parents=True, exist_ok=True)
    if not own.is_dir():
        own.write_text('{"task": "mine"}')
        assert utils_option.load(Path(name), Opt).task == "mine"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("giude", "giude: no such file, nor an option file of options/vrt; did you mean guide?"),
        ("nothing-like-it", "nothing-like-it: no such file, nor an option file of options/vrt$"),
        ("guide.json", "guide.json: no such file; did you mean options/vrt/guide.json?"),  # none of the user's is here
        ("options/vrt/guide.jsn", "options/vrt/guide.jsn: no such file; did you mean options/vrt/guide.json?"),
        ("mien.json", "mien.json: no such file; did you mean mine.json?"),
        ("nothing-like-it.json", "nothing-like-it.json: cannot be read .No such file"),
        ("a_folder", "a_folder: cannot be read .Is a directory"),
    ],
)
def test_an_option_file_that_is_not_there_is_refused(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_folder").mkdir()
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(UserError, match=message):
        utils_option.load(Path(name), Opt)


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(UserError, match="name: found 'guide_large', expected 'guide' or 'guide_tiny'"):
        Restorer.from_pretrained("guide_large")


# By option file


def test_an_untrained_guide_is_tested_with_the_shipped_weights_and_trained_without(zoo):
    opt = options("guide.json")
    assert opt.path.pretrained_netG is None
    path = opt.path
    given = path.pretrained_netE, path.pretrained_netG, path.shipped_netG
    weights, reason = find_weights(opt.run_dir, *given)
    assert weights == zoo / GUIDE
    assert reason == "path.shipped_netG; experiments/guide/models has no weights yet"
    own = opt.run_dir / "models" / "best_G.pth"
    utils_checkpoint.write_file({}, own)
    assert find_weights(opt.run_dir, *given) == (own, "the run's best")


@pytest.mark.parametrize("name", ["demo.json", "demo_robust.json", "simulated_video.json", "guided_vrt_gopro.json"])
def test_other_recipes_are_never_tested_with_them(name):
    assert options(name).path.shipped_netG is None


def test_finetuning_starts_from_them(zoo):
    net, path = define_G(options("guide_finetune.json").netG), options("guide_finetune.json").path
    utils_checkpoint.load_weights(net, path.pretrained_netG)
    wanted = utils_checkpoint.read_state_dict(zoo / GUIDE)
    assert all(torch.equal(value, wanted[key]) for key, value in net.state_dict().items())
    assert find_weights(Path("experiments/guide_finetune"), None, path.pretrained_netG)[0] == zoo / GUIDE


def test_a_training_that_lacks_them_ends_at_once_unless_it_resumes(zoo, shared_set):
    data = {"gt": "gt", "lq": "lq", "spike": "spikes/train"}
    sets = [f"datasets.train.dataroot_{key}={shared_set / path}" for key, path in data.items()]
    sets += ["datasets.train.meta_info_file=null", "datasets.test=null"]
    call = argparse.Namespace(opt=ROOT / "options/vrt/guide_finetune.json", set=sets)
    opt = main_train_vrt.read_options(call)
    (zoo / GUIDE).unlink()
    with pytest.raises(UserError, match="it ships with the project"):
        main_train_vrt.read_options(call)
    utils_checkpoint.write_file({}, opt.run_dir / "models" / "10_G.pth")
    main_train_vrt.read_options(call)


def test_a_file_of_that_name_in_the_working_folder_comes_first(zoo):
    assert utils_zoo.located(GUIDE) == zoo / GUIDE
    GUIDE.parent.mkdir(parents=True)
    GUIDE.touch()
    assert utils_zoo.located(GUIDE) == GUIDE
    assert utils_zoo.located("model_zoo/guide/other.safetensors") == Path("model_zoo/guide/other.safetensors")


# Missing, damaged, foreign


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)


def empty(path):
    path.write_bytes(b"")


def other_network(path):
    path.write_bytes((path.parent / TINY.name).read_bytes())


def load(way, root):
    """Load the guide's weights as a program does, up to the network."""
    if way == "task":
        main_test_vrt.main(job_of("--task", "spike_guide", *folders(root)))
    elif way == "python":
        Restorer.from_pretrained()
    else:
        opt = options(f"{way}.json")
        weights, _ = find_weights(Path("experiments/x"), None, opt.path.pretrained_netG, opt.path.shipped_netG)
        utils_checkpoint.load_weights(define_G(opt.netG), weights)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (Path.unlink, "guide.safetensors not found: it ships .* `git checkout model_zoo/guide/guide.safetensors` in /"),
        (cut, "guide.safetensors: cannot be read, as it is damaged"),
        (empty, "guide.safetensors: cannot be read, as it is damaged"),
        (flip, "guide.safetensors: cannot be read, .*the checksum of its tensors is wrong"),
        (other_network, "guide.safetensors does not fit the network: .* check netG"),
    ],
)
@pytest.mark.parametrize("way", ["task", "python", "guide", "guide_finetune"])
def test_weights_that_are_not_whole_are_refused_in_one_line(spoil, message, way, zoo, shared_set):
    spoil(zoo / GUIDE)
    with pytest.raises(UserError, match=message) as error:
        load(way, shared_set)
    assert "\n" not in str(error.value)


def test_weights_that_are_mistyped_are_not_said_to_ship(zoo):
    with pytest.raises(UserError, match="model_zoo/guide/guid.safetensors not found: weights are never downloaded"):
        utils_checkpoint.read_state_dict(Path("model_zoo/guide/guid.safetensors"))


# What a file tells


@pytest.fixture
def run(zoo):
    """A run's folder with best and last weights, stopped once: steps of 2 s, then of 3 s."""
    small = {"width": 4, "blocks": (1, 1)}
    opt = options("guide.json")
    net = opt.netG.model_copy(update={"guide": opt.netG.guide.model_copy(update=small)})
    opt = opt.model_copy(update={"netG": net})
    folder = Path("experiments/guide")
    utils_option.save(opt, folder / "options.json")
    state = stand_in(opt)
    utils_checkpoint.write_file(state, folder / "models" / "best_G.pth")
    (folder / "models" / "best.json").write_text('{"step": 20, "psnr": 30.5, "measured": {"frames": 3}}\n')
    lines = [{"step": 10, "split": "train", "time": 2.0}, {"step": 20, "split": "train", "time": 3.0}]
    lines += [{"step": 20, "split": "test", "psnr": 30.5}, {"step": 30, "split": "train", "time": 3.0}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def convert(*words):
    convert_checkpoint.main([str(word) for word in words])


def test_a_file_made_from_a_run_tells_how_to_build_and_judge_it(run, capsys):
    convert(run, "--out", "mine.safetensors", "--note", "license=MIT", "data=photographs in motion")
    notes = utils_checkpoint.read_notes(Path("mine.safetensors"))
    told = {key: notes[key] for key in ("task", "step", "score", "seconds", "seed", "license", "data")}
    assert told == {
        "task": "guide", "step": 20, "score": {"psnr": 30.5}, "seconds": 50, "seed": 0,
        "license": "MIT", "data": "photographs in motion",
    }  # fmt: skip
    assert notes["augment"]["theta"] == [2, 8]
    assert notes["options"]["netG"]["guide"]["width"] == 4
    assert str(Path.cwd()) not in json.dumps(notes)
    assert "plain layout" in capsys.readouterr().out
    assert Path("mine.safetensors").stat().st_mode & 0o777 == 0o644, "others may read it"


def test_such_a_file_needs_no_option_file(run, shared_set):
    convert(run, "--out", "mine.safetensors")
    frames, spikes = read_clip(shared_set)
    told = {"sharp_step": SHARP, "exposure": (2, 20)}
    wanted = Restorer.from_checkpoint(run).restore(frames, spikes, **told)
    assert np.array_equal(Restorer.from_checkpoint("mine.safetensors").restore(frames, spikes, **told), wanted)
    assert not np.array_equal(wanted, frames)


def test_notes_stay_with_converted_weights_and_the_bytes_are_the_same(run):
    convert(run, "--out", "a.safetensors", "--note", "license=MIT")
    convert("a.safetensors", "--out", "b.safetensors", "--layout", "plain")
    assert Path("a.safetensors").read_bytes() == Path("b.safetensors").read_bytes()


def test_options_that_this_version_does_not_know_take_one_line(run):
    state = utils_checkpoint.read_state_dict(run / "models" / "best_G.pth")
    utils_checkpoint.write_weights(state, Path("new.safetensors"), notes={"options": {"task": "x", "netG": {"a": 1}}})
    with pytest.raises(UserError, match="the options noted in new.safetensors: netG.a: unknown option") as error:
        Restorer.from_checkpoint("new.safetensors")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out", "x.safetensors", "--note", "MIT"), "--note MIT: expected KEY=TEXT"),
        (("--out", "x.pth", "--note", "license=MIT"), "--out x.pth cannot have notes"),
    ],
)
def test_notes_that_cannot_be_written_are_refused(words, message, run, capsys):
    with pytest.raises(SystemExit) as stop:
        convert(run, *words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(Path().glob("x.*"))


def test_the_options_of_any_network_build_it_again(shared_set):
    for name in ("svrt_tiny.json", "finetune_lora_gopro_rgbspike.json", "guided_vrt_gopro.json", "demo_rgb.json"):
        opt = options(name)
        again = utils_option.load_tree(options_of_network(opt), name, Opt)
        assert again.netG == opt.netG.without_files().model_copy(update={"lora": None})
        assert (again.datasets.test is None) == (not opt.datasets.test.uses_spikes)


@pytest.mark.parametrize("name", utils_zoo.TASKS)
def test_the_shipped_file_is_what_its_task_and_card_say(name):
    path = ROOT / "model_zoo" / "guide" / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip(f"{path.relative_to(ROOT)} does not ship yet")
    assert path.stat().st_size <= MOST_BYTES
    notes, opt = utils_checkpoint.read_notes(path), task_options(name)
    told = utils_option.load_tree(notes["options"], str(path), Opt)
    assert told.netG.network_kwargs() == opt.netG.network_kwargs()
    assert told.datasets.test.spike == opt.datasets.test.spike
    assert {"license", "task", "seconds", "seed", "commit"} <= notes.keys()
    utils_checkpoint.load_weights(define_G(opt.netG), path)


def test_the_commit_is_that_of_the_project_and_not_of_a_repository_around_a_copy(tmp_path, monkeypatch):
    def git(words):
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a", *words.split()]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init -q")
    git("commit -q --allow-empty -m a")
    monkeypatch.setattr(utils_zoo, "ROOT", tmp_path)
    assert utils_zoo.commit() == git("rev-parse --short=12 HEAD")
    monkeypatch.setattr(utils_zoo, "ROOT", tmp_path / "site-packages")
    (tmp_path / "site-packages").mkdir()
    assert utils_zoo.commit() is None
