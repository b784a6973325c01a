"""Runs of main_test_vrt.py in processes of their own: any number of them, killed and gone on with."""

import json
import math
import signal

import pytest
import torch
from tiny_network import TRAINED
from tiny_set import make_set
from training_run import PATIENCE, ROOT, Training, finish, wait_until

from models.select_network import define_G
from options.schema import NetOpt
from utils.processes.identity import this_process
from utils.utils_checkpoint import write_file

pytestmark = pytest.mark.slow
PROGRAM = ROOT / "main_test_vrt.py"
NETWORK = TRAINED | {"drop_path_rate": 0.0}
VAL = {"num_frame_testing": 3, "num_frame_overlapping": 1, "size_patch_testing": 32, "size_patch_overlapping": 8}
FRAMES = 9


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A test set of one long clip and one short one, and weights with which every part of the network matters."""
    folder = tmp_path_factory.mktemp("run")
    data = make_set(folder / "set", clips=("long", "next"), frames=FRAMES)
    for kind in ("gt/next", "lq/next", "spikes/train/next/spike"):
        for path in sorted((data / kind).iterdir())[2:]:
            path.unlink()
    run = Training(folder, data, netG=NETWORK, val=VAL | {"metrics": ["psnr", "ssim", "tof"]})
    net = define_G(NetOpt(**NETWORK))
    torch.manual_seed(0)
    for parameter in net.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.5 / math.sqrt(parameter[0].numel()))
    write_file(net.state_dict(), run.models / "best_G.pth")
    return run


def results(run, name):
    """metrics.json and all frames of a run."""
    folder = run.folder / "results" / name
    frames = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("*/*.png"))}
    return json.loads((folder / "metrics.json").read_text()), frames


@pytest.fixture(scope="module")
def alone(run):
    run.run("val.task_name=one", program=PROGRAM)
    return results(run, "one")


def test_three_processes_restore_the_same_bits_as_one(run, alone):
    processes = run.start_as_a_platform_does(3, "val.task_name=many", program=PROGRAM)
    printed = [finish(process) for process in processes]
    assert "in each of 3 processes" in printed[0]
    metrics, frames = results(run, "many")
    assert metrics == alone[0]
    assert frames == alone[1]
    assert len(frames) == FRAMES + 2


def test_a_killed_run_is_gone_on_with(run, alone, tmp_path):
    # A network that takes its time, so that the kill comes in the middle.
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import sys, time\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "import main_test_vrt\nfrom models.model_vrt import ModelVRT\nfrom utils import utils_cli\n"
        "plain = ModelVRT.restore\n"
        "ModelVRT.restore = lambda self, x: (time.sleep(0.3), plain(self, x))[1]\n"
        "args = main_test_vrt.parse_args()\n"
        "with utils_cli.program(args.debug):\n    main_test_vrt.main(main_test_vrt.read_job(args))\n"
    )
    folder = run.folder / "results" / "killed"
    process = run.start("val.task_name=killed", program=slow)
    wait_until(lambda: len(list(folder.glob("long/[!.]*.png"))) > 4, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    dead = f"{process.pid}-1-{this_process().machine}"
    (folder / f"long/.000009.{dead}.tmp.png").write_bytes(b"half")  # as if the kill came while a frame was written
    there = {path.name: path.stat().st_mtime_ns for path in folder.glob("long/[!.]*.png")}
    assert 4 < len(there) < FRAMES
    process = run.start("val.task_name=killed", program=PROGRAM, flags=["--resume"])
    printed = finish(process)
    assert f"resuming: {len(there)} of {FRAMES + 2} frames exist" in printed
    assert results(run, "killed") == alone
    assert {name: (folder / "long" / name).stat().st_mtime_ns for name in there} == there, "none is written again"

    process = run.start("val.task_name=killed", "val.num_frame_testing=4", program=PROGRAM, flags=["--resume"])
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert "tile.frames: 3 -> 4" in err
    assert results(run, "killed") == alone, "a refusal changes nothing"
