"""Training in stages: options that fit together, and a script that runs them in order and tells how far it came."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from models.optim import learning_rate
from options.schema import Opt
from utils import utils_option

ROOT = Path(__file__).resolve().parents[2]
STAGES = ROOT / "options/vrt/curriculum"
LAUNCHER = """#!/usr/bin/env bash
# Stands in for training: writes a run's files, unless it is told to stop early, to fail or to wait for a signal.
stage="$(basename "$1" .json)" recipe="$(basename "$(dirname "$1")")"
shift
echo "$stage $*" >>"$CALLS"
if [[ "${FAIL_IN:-}" == "$stage" ]]; then exit 3; fi
run="$PLACE/experiments/${recipe}_$stage"
mkdir -p "$run/models"
printf '{"logging": {"profile_total_iter": 7}, "train": {"total_iter": 40}}' >"$run/options.json"
if [[ "${HANG_IN:-}" == "$stage" ]]; then
    trap 'echo "$stage saved" >>"$CALLS"; exit 0' TERM USR1
    echo "$stage ready" >>"$CALLS"
    while :; do sleep 0.05; done
fi
if [[ "${SHORT_IN:-}" == "$stage" ]]; then touch "$run/models/30_state.pth"; exit 0; fi
touch "$run/models/40_state.pth"
"""


@pytest.fixture
def place(tmp_path):
    """A checkout with the script and a launcher that only pretends."""
    (tmp_path / "scripts/recipes").mkdir(parents=True)
    for name in ("scripts/recipes/two_stages.sh", "scripts/shell_lib.sh"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "utils").symlink_to(ROOT / "utils")
    setup = tmp_path / "scripts/setup_env.sh"
    setup.write_text(f"#!/usr/bin/env bash\necho '{sys.executable}'\n")
    setup.chmod(0o755)
    launcher = tmp_path / "launch_train.sh"
    launcher.write_text(LAUNCHER)
    launcher.chmod(0o755)
    return tmp_path


def start(place, *words, **env):
    env = {"PATH": os.environ["PATH"], "CALLS": str(place / "calls"), "PLACE": str(place), **env}
    command = [str(place / "scripts/recipes/two_stages.sh"), *words]
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)


def run(place, *words, **env):
    """Exit code, what was said, and the calls so far."""
    process = start(place, *words, **env)
    said = process.communicate(timeout=60)[1]
    calls = place / "calls"
    return process.returncode, said, calls.read_text().splitlines() if calls.exists() else []


def test_the_stages_load_and_the_second_starts_where_the_first_ends():
    first, second = (utils_option.load(STAGES / f"stage{i}.json", Opt) for i in (1, 2))
    assert Path(second.path.pretrained_netG) == first.run_dir / "models/best_G.pth"
    assert first.datasets.train.gt_size < second.datasets.train.gt_size
    assert (first.train.G_fft_weight, second.train.G_fft_weight > 0) == (0.0, True)
    top = [max(learning_rate(update, stage.train) for update in range(1, 3000)) for stage in (first, second)]
    assert top[1] < top[0]
    weights = [stage.netG.model_dump(exclude={"spynet_path"}) for stage in (first, second)]
    assert weights[0] == weights[1]  # the same network
    sets = [stage.datasets.model_dump(exclude={"train": {"gt_size"}}) for stage in (first, second)]
    assert sets[0] == sets[1]
    assert second.netG.spynet_path is None


def test_both_stages_run_in_order_with_the_same_arguments(place):
    code, said, calls = run(place, "8", "--set", "train.tf32=true")
    assert (code, calls) == (0, ["stage1 8 --set train.tf32=true", "stage2 8 --set train.tf32=true"])
    assert "both stages are finished" in said
    assert "pretrained_netG=experiments/curriculum_stage2/models/best_G.pth" in said  # not stage 1's


def test_a_stage_that_stops_early_is_not_taken_for_finished(place):
    code, said, calls = run(place, SHORT_IN="stage1")
    assert (code, calls) == (1, ["stage1 "])
    assert "stage1 is not finished" in said
    assert "run the same command to resume" in said
    assert run(place)[0] == 0


def test_the_recipe_for_gopro_trains_its_own_stages(place):
    code, said, calls = run(place, "gopro", "8", "--set", "train.tf32=true")
    assert (code, calls) == (0, ["stage1 8 --set train.tf32=true", "stage2 8 --set train.tf32=true"])
    assert "options/vrt/gopro/stage2.json --set path.pretrained_netG=experiments/gopro_stage2/models/best_G" in said


def test_the_second_stage_for_gopro_is_behind_the_guide_of_the_first():
    first, second = (utils_option.load(STAGES.parent / f"gopro/stage{i}.json", Opt) for i in (1, 2))
    assert Path(second.netG.guide.weights) == first.run_dir / "models/best_G.pth"
    assert first.netG.guide.model_dump(exclude={"weights"}) == second.netG.guide.model_dump(exclude={"weights"})
    assert (first.netG.net_type, second.netG.net_type, second.netG.fusion) == ("guide", "vrt", "guide")
    spikes = [opt.datasets.train.model_dump(include={"spike", "dataroot_spike"}) for opt in (first, second)]
    assert spikes[0] == spikes[1]


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_a_failure_keeps_its_exit_code(place, stage):
    code, said, calls = run(place, FAIL_IN=stage)
    assert (code, calls[-1]) == (3, f"{stage} ")
    assert "finished" not in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_reaches_the_training_which_saves_and_nothing_follows(place, number):
    process = start(place, HANG_IN="stage1")
    calls, end = place / "calls", time.monotonic() + 60
    while not (calls.exists() and "ready" in calls.read_text()):
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert calls.read_text().splitlines() == ["stage1 ", "stage1 ready", "stage1 saved"]


@pytest.mark.parametrize("word", ["other.json", "--opt=other.json", "--demo", "task=mine", "path.root=elsewhere"])
def test_what_would_mix_the_stages_up_is_refused(place, word):
    code, said, calls = run(place, "--set", word) if "=" in word and "--" not in word else run(place, word)
    assert (code, calls) == (2, [])
    assert word in said
