"""What a program imports before it can answer, and before it needs it. One process shows all of it, in stages."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from tiny_network import tiny
from tiny_set import make_set, options

ROOT = Path(__file__).resolve().parents[2]
# The first starts torch's own program, the others take no options.
NO_PARSER = {"torchrun.py", "check_requirements.py", "make_options_docs.py"}
SCRIPTS = [str(path) for path in sorted((ROOT / "scripts").rglob("*.py")) if path.name not in NO_PARSER]
NETWORK = tiny(drop_path_rate=0.1)
NEVER = ["tensorboard", "timm", "torch._dynamo", "torchvision", "wandb"]
# Runs each program as `python PROGRAM WORDS` does, and writes its exit code and what has been imported until then.
STAGES = """
import json, runpy, sys
calls, watched = json.loads(sys.argv[1])
for program, *words in calls:
    sys.argv, sys.path[0], code = [program, *words], program.rpartition("/")[0], 0
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        code = end.code or 0
    print("STAGE", json.dumps([code, [name for name in watched if name in sys.modules]]), flush=True)
"""


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """(exit code, modules) by program and words, of mistakes, then a training, then a test."""
    folder = tmp_path_factory.mktemp("start_up")
    data = make_set(folder / "data", clips=("clip_a",), frames=2)
    blocks = {kind.lower(): options(data, kind).model_dump(mode="json") for kind in ("Train", "Test")}
    blocks["train"] |= {"num_frame": 2, "gt_size": 16, "dataloader_num_workers": 0}
    right = {
        "task": "tiny",
        "datasets": blocks,
        "netG": NETWORK,
        "train": {"total_iter": 1, "checkpoint_print": 1},
        "val": {"metrics": ["psnr"]},
        "logging": {"use_tensorboard": False},
    }
    (folder / "right.json").write_text(json.dumps(right))
    (folder / "typo.json").write_text(json.dumps({"task": "t", "train": {"totl_iter": 1}}))
    train, test = str(ROOT / "main_train_vrt.py"), str(ROOT / "main_test_vrt.py")
    task = [test, "--task", "006_VRT_videodeblurring_GoPro", "--folder_lq"]
    calls = [
        *([program, "--help"] for program in (train, test, *SCRIPTS)),
        *([script, "--no_such_option"] for script in SCRIPTS),
        *([program, "--opt", "right.json", "--stes", "task=a"] for program in (train, test)),
        *([program, "--opt", "none.json"] for program in (train, test)),
        *([program, "--opt", "typo.json"] for program in (train, test)),
        *([program, "--opt", "right.json", "--set", "train.total_iter=x"] for program in (train, test)),
        [train, "--opt", "right.json", "--set", "datasets.train=null"],
        [test, "--opt", "right.json"],  # not trained yet
        [test, "--task", "006_VRT", "--folder_lq", "data/lq"],
        [train, "--opt", "right.json", "--set", "datasets.test.dataroot_gt=none"],
        [train, "--opt", "right.json", "--set", "netG.spynet_path=none.pth"],
        [*task, "none"],
        [*task, "data/lq", "--weights", "none.pth"],
        [*task, "data/lq", "--tile", "1", "9", "9"],
        [train, "--opt", "right.json"],
        [test, "--opt", "right.json"],
    ]
    own = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", STAGES, json.dumps([calls, ["torch", *NEVER]])],
        cwd=folder,
        env={key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE")} | own,
        capture_output=True,
        text=True,
        check=False,
    )
    found = [json.loads(line.split(maxsplit=1)[1]) for line in ended.stdout.splitlines() if line.startswith("STAGE")]
    assert len(found) == len(calls), ended.stderr
    return [(call, *stage) for call, stage in zip(calls, found, strict=True)]


def test_help_and_mistakes_are_answered_without_torch(stages):
    for call, code, modules in stages[:-2]:
        assert (code, modules) == (0 if "--help" in call else 2, []), call


@pytest.mark.skipif(metadata.version("torch").startswith("2.8."), reason="PyTorch 2.8 imports torch._dynamo by itself")
def test_a_right_start_imports_nothing_that_it_does_not_need(stages):
    for call, code, modules in stages[-2:]:
        assert (code, modules) == (0, ["torch"]), call


@pytest.mark.parametrize("module", ["pydantic", "torch"])
@pytest.mark.parametrize("program", ["main_train_vrt.py", "main_test_vrt.py"])
def test_ctrl_c_during_the_imports_takes_one_line(tmp_path, program, module):
    for folder in ("gt", "lq", "spikes/train"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / f"{module}.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    (tmp_path / "weights").write_text("")
    blocks = {kind.lower(): options(tmp_path, kind).model_dump(mode="json") for kind in ("Train", "Test")}
    right = {"task": "t", "datasets": blocks, "netG": NETWORK, "path": {"pretrained_netG": "weights"}}
    (tmp_path / "right.json").write_text(json.dumps(right))
    ended = subprocess.run(
        [sys.executable, str(ROOT / program), "--opt", "right.json"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (130, "interrupted\n")
