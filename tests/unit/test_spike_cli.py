"""scripts/spike.py as people type it: exit codes, what is printed, what is written."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from spike_scenes import fire, textured

from data.spike.formats import open_spikes
from utils.spike_loader import write_spikes
from utils.utils_image import read_rgb

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import spike as script  # noqa: E402

SIZE = ["--spike_h", "48", "--spike_w", "64"]


@pytest.fixture(scope="module")
def spikes():
    return fire(textured(48, 64), 60, np.random.default_rng(0))


@pytest.fixture
def dat(tmp_path, spikes):
    write_spikes(tmp_path / "x.dat", spikes)
    return tmp_path / "x.dat"


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the script here; returns exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["spike.py", *map(str, arguments)])
        try:
            code = script.main()
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_as_a_program(dat):
    command = [sys.executable, ROOT / "scripts/spike.py", "inspect", dat, "--spike_h", "24", "--spike_w", "128"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=dat.parent, check=False)
    assert done.returncode == 2
    assert "WRONG: 24x128 (the command line) is wrong: these are 60 steps of 48x64" in done.stdout
    assert done.stderr == ""


def test_inspect_says_what_is_wrong_and_exits_with_2(run, dat):
    code, out, _ = run("inspect", dat, *SIZE)
    assert (code, out.splitlines()[-1]) == (0, "nothing wrong found")
    code, out, _ = run("inspect", dat)
    assert code == 0
    assert "60 steps of 48x64, bit_order little, flipud true" in out
    code, out, _ = run("inspect", dat, *SIZE, "--bit_order", "big")
    assert code == 2
    assert out.splitlines()[-1] == "WRONG: bits are stored lowest first: bit_order little, not as the command line says"


def test_inspect_prints_one_json_object(run, dat):
    code, out, _ = run("inspect", dat, "--json", *SIZE, "--no-flipud")
    found = json.loads(out)
    assert code == 0
    assert (found["ok"], found["size"], found["steps"], found["flipud"]) == (True, [48, 64], 60, False)
    code, out, _ = run("inspect", dat.parent, "--json")
    assert code == 0
    assert json.loads(out)["folders"][0]["shapes"] == {"60x48x64": 1}


def test_a_folder_with_a_defect_exits_with_2(run, dat):
    dat.with_name("y.dat").write_bytes(dat.read_bytes()[:-3])
    code, out, _ = run("inspect", dat.parent, *SIZE)
    assert code == 2
    assert "y.dat: truncated: 59 whole steps of 48x64 and 381 bytes more" in out


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_decode_writes_what_was_stored_once(run, dat, spikes, suffix):
    out = dat.with_name(f"array.{suffix}")
    assert run("decode", dat, "--out", out, "--steps", "5:25")[0] == 0
    assert np.array_equal(open_spikes(out)[0], spikes[5:25])
    if suffix == "npz":
        with np.load(out) as archive:
            assert (int(archive["spike_h"]), int(archive["spike_w"]), archive["steps"].tolist()) == (48, 64, [5, 25])
    before = out.read_bytes()
    code, _, err = run("decode", dat, "--out", out)
    assert code == 2
    assert "--force" in err
    assert out.read_bytes() == before
    assert run("decode", dat, "--out", out, "--force", "--no-flipud")[0] == 0
    assert np.array_equal(open_spikes(out)[0], spikes[:, ::-1])
    assert sorted(path.name for path in dat.parent.iterdir()) == [out.name, "x.dat"]


def test_decode_warns_of_a_size_that_does_not_look_right(run, tmp_path):
    write_spikes(tmp_path / "a.dat", fire(textured(180, 320), 16, np.random.default_rng(1)))
    code, _, err = run("decode", tmp_path / "a.dat", "--spike_h", 360, "--spike_w", 640, "--out", "a.npy")
    assert code == 0
    assert "looks like 180x320, not like 360x640" in err


def test_preview_writes_a_picture_here_or_a_video(run, dat, tmp_path):
    code, out, _ = run("preview", dat)
    assert code == 0
    assert out == "x_preview.png: 60 steps of 48x64 (estimated from the bits), around step 30\n"
    assert read_rgb(tmp_path / "x_preview.png").std() > 10
    assert run("preview", dat)[0] == 2
    pytest.importorskip("av")
    assert run("preview", dat, "--out", "x.mp4")[0] == 0
    assert b"ftyp" in (tmp_path / "x.mp4").read_bytes()[:12]


def test_preview_of_very_short_streams(run, tmp_path, spikes):
    for steps in (1, 2, 3):
        write_spikes(tmp_path / "s.dat", spikes[:steps])
        for out in ("s.png", "s.mp4"):
            assert run("preview", tmp_path / "s.dat", *SIZE, "--out", out, "--force")[0] == 0


@pytest.mark.parametrize("options", [["--flipud"], ["--no-flipud"], ["--bit_order", "big"]])
@pytest.mark.parametrize("command", ["inspect", "decode", "preview"])
def test_options_that_arrays_do_not_have_are_refused(run, tmp_path, spikes, command, options):
    np.save(tmp_path / "x.npy", spikes)
    code, _, err = run(command, tmp_path / "x.npy", *options, *(["--out", "y.npy"] if command == "decode" else []))
    assert (code, err.count("\n")) == (2, 1)
    assert f"is npy, upright and of one bit order, expected no {' '.join(options)}" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["inspect", "gone.dat"], "no such file"),
        (["inspect", "x.dat", "--spike_h", "48"], "only one is given"),
        (["inspect", "x.dat", "--spike_h", "0", "--spike_w", "8"], "not an integer of 1 or more"),
        (["inspect", "x.dat", "--image", "gone.png"], "gone.png"),
        (["decode", "x.dat", "--out", "x.txt"], "not an array format"),
        (["decode", "x.dat"], "--out"),
        (["decode", "x.dat", "--out", "y.npy", "--steps", "7"], "not a range A:B"),
        (["decode", "x.dat", "--out", "y.npy", "--steps", "50:61"], r"steps \[50, 61\)"),
        (["decode", "x.dat", "--out", "y.npy", "--spike_h", "7", "--spike_w", "8"], "remainder"),
        (["preview", "x.dat", "--step", "60"], r"--step 60.*\[0, 60\)"),
        (["preview", "x.dat", "--out", "y.txt"], "images cannot be written as"),
        (["look", "x.dat"], "invalid choice"),
        ([], "required"),
    ],
)
def test_mistakes_take_one_line_and_exit_with_2(run, dat, arguments, words):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert re.search(words, err)
    assert [path.name for path in dat.parent.iterdir()] == ["x.dat"]
