"""scripts/evaluate.py: numbers for frames that some other program made."""

import argparse
import csv
import json
import pickle
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from scripts import evaluate
from utils import utils_metric
from utils.utils_image import read_rgb, write_rgb

COUNTS = {"one": 3, "two": 5}  # unequal, so that both ways of averaging differ
SIZE = (24, 32)


@pytest.fixture
def folders(tmp_path):
    """Sharp, restored and blurred clips."""
    rng = np.random.default_rng(0)
    for clip, count in COUNTS.items():
        for index in range(count):
            sharp = cv2.GaussianBlur(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8), (0, 0), 2)
            noisy = np.clip(sharp + rng.normal(0, 2 + index, sharp.shape), 0, 255).astype(np.uint8)
            for kind, image in (("gt", sharp), ("out", noisy), ("lq", cv2.blur(sharp, (5, 5)))):
                write_rgb(tmp_path / kind / clip / f"{index:06d}.png", image)
    return tmp_path


@pytest.fixture
def run(folders, capsys):
    """The script with --restored, --gt and other arguments: exit code, stdout (without the log's clock) and stderr."""

    def call(*args, restored="out", gt="gt"):
        code = 0
        try:
            evaluate.main(["--restored", str(folders / restored), "--gt", str(folders / gt), *map(str, args)])
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, re.sub(r"^[\d-]+ [\d:]+ : ", "", out, flags=re.MULTILINE), err

    return call


def renamed(folder, name_of):
    """Give the frames of a folder other names, by their index."""
    paths = sorted(folder.glob("*.png"))
    for index, path in enumerate(paths):
        path.rename(path.with_name(f"new {name_of(index)}.png"))
    for path in folder.glob("new *"):
        path.rename(path.with_name(path.name[4:]))


def psnrs(folders, restored="out"):
    return {
        clip: [
            utils_metric.METRICS["psnr"](
                *(read_rgb(folders / kind / clip / f"{at:06d}.png") for kind in (restored, "gt"))
            )
            for at in range(count)
        ]
        for clip, count in COUNTS.items()
    }


def test_writes_and_prints_what_the_metrics_give(folders, run):
    code, out, _ = run(
        "--lq", folders / "lq", "--out", folders / "scores", "--metrics", "psnr", "ssim_matlab_rgb", "tof"
    )
    assert code == 0
    result = json.loads((folders / "scores/metrics.json").read_text())
    expected = psnrs(folders)
    per_clip = {clip: np.mean(values) for clip, values in expected.items()}
    every = [value for values in expected.values() for value in values]
    assert {clip: values["psnr"] for clip, values in result["clips"].items()} == pytest.approx(per_clip)
    assert result["mean"]["psnr"] == pytest.approx(np.mean(list(per_clip.values())))
    assert result["protocols"]["vrt_paper"]["metrics"]["psnr"] == pytest.approx(np.mean(every))
    blurred = [value for values in psnrs(folders, "lq").values() for value in values]
    assert result["mean_over_frames"]["lq_psnr"] == pytest.approx(np.mean(blurred))
    rows = list(csv.DictReader((folders / "scores/metrics.csv").open()))
    assert [float(row["psnr"]) for row in rows] == pytest.approx(every)
    assert [row["clip"] for row in rows if not row["tof"]] == ["one", "two"]  # the first frame of each
    for shown in ("one", "two", f"{np.mean(every):.4f}", utils_metric.PROTOCOLS["vrt_paper"].description, "border 0"):
        assert shown in out


def test_pictures_beside_clip_folders_are_no_frames(folders, run):
    for name in ("comparison", "instants"):
        write_rgb(folders / f"out/{name}.png", np.zeros((8, 8, 3), np.uint8))
    assert run()[0] == 0


@pytest.mark.parametrize("root", ["out", "gt"])
def test_frames_with_an_older_test_in_a_folder_below_are_refused(folders, run, root):
    shutil.copytree(folders / root / "two", folders / root / "two" / "old")
    code, _, err = run(restored="out/two", gt="gt/two")
    assert code == 2
    assert re.fullmatch(f"error: .*/{root}/two: holds frames .000000.png. and clip folders .old.; move .*\n", err)


@pytest.mark.parametrize("single", ["neither", "gt", "out"])
def test_one_clip_each_of_other_names_is_no_pair(folders, run, single):
    shutil.rmtree(folders / "out/one")
    shutil.rmtree(folders / "gt/one")
    before = run("--metrics", "psnr")
    assert before[0] == 0
    (folders / "out/two").rename(folders / "out/three")
    places = {"gt": {"gt": "gt/two"}, "out": {"restored": "out/three"}}.get(single, {})
    code, _, err = run("--metrics", "psnr", **places)
    assert code == 2
    assert "--restored: of the clips it lacks two: 1 found, 1 in --gt" in err
    assert run("--metrics", "psnr", "--name-by-order", **places) == before


def test_a_single_folder_is_one_clip_whatever_its_name(folders, run):
    expected = np.mean(psnrs(folders)["two"])
    (folders / "out/two").rename(folders / "from_elsewhere")
    code, out, _ = run("--metrics", "psnr", restored="from_elsewhere", gt="gt/two")
    assert code == 0
    assert f"{expected:.4f}" in out


def test_frames_of_other_names_need_to_be_paired_by_order(folders, run):
    before = run("--metrics", "psnr", "--out", folders / "a")
    renamed(folders / "out/one", lambda index: f"out{index + 8}")  # out10 comes after out9, not before
    code, _, err = run("--metrics", "psnr")
    assert code == 2
    assert "clip one" in err
    assert "lacks 000000: 3 found, 3 in --gt" in err
    assert "--name-by-order" in err
    assert run("--metrics", "psnr", "--name-by-order", "--out", folders / "b") == before
    assert (folders / "a/metrics.csv").read_text() == (folders / "b/metrics.csv").read_text()


def test_clips_of_other_names_are_paired_by_order_too(folders, run):
    before = run("--metrics", "psnr")
    for clip in COUNTS:
        (folders / "out" / clip).rename(folders / "out" / f"my_{clip}")
    code, _, err = run("--metrics", "psnr")
    assert code == 2
    assert "lacks one: 2 found, 2 in --gt" in err
    assert run("--metrics", "psnr", "--name-by-order") == before


@pytest.mark.parametrize("flags", [(), ("--name-by-order",)])
def test_a_missing_or_surplus_frame_is_named_with_counts(folders, run, flags):
    frame = folders / "out/two/000003.png"
    write_rgb(frame.with_name("000007.png"), read_rgb(frame))
    code, _, err = run(*flags)
    assert code == 2
    assert "clip two: of the frames --restored has 000007, which --gt lacks: 6 found, 5 in --gt" in err
    frame.with_name("000007.png").unlink()
    frame.unlink()
    code, _, err = run(*flags)
    assert code == 2
    assert "lacks 000003: 4 found, 5 in --gt" in err
    assert "--name-by-order" not in err


def test_another_size_is_refused_with_clip_and_frame(folders, run):
    write_rgb(folders / "out/two/000002.png", np.zeros((24, 30, 3), np.uint8))
    code, _, err = run()
    assert code == 2
    assert "clip two frame 000002" in err
    assert "--gt 24x32" in err
    assert "--restored 24x30" in err


def test_input_of_half_the_size_is_enlarged_but_not_with_a_border(folders, run):
    for path in (folders / "lq").rglob("*.png"):
        write_rgb(path, read_rgb(path)[::2, ::2])
    assert run("--lq", folders / "lq")[0] == 0
    code, _, err = run("--lq", folders / "lq", "--border", 2)
    assert code == 2
    assert "--lq 12x16" in err


def test_the_border_is_left_out_and_said(folders, run):
    for path in (folders / "out").rglob("*.png"):
        image = read_rgb(path.parents[2] / "gt" / path.parent.name / path.name)
        image[:2] = 255 - image[:2]
        write_rgb(path, image)
    assert "is infinite for" not in run("--metrics", "psnr")[1]
    code, out, _ = run("--metrics", "psnr", "--border", 2)
    assert code == 0
    assert "psnr is infinite for 8 frames" in out
    assert "border 2" in out
    code, _, err = run("--border", 12)
    assert code == 2
    assert "--border is 12" in err


def test_processes_change_no_number(folders, run, monkeypatch):
    names = {"restored": folders / "out", "gt": folders / "gt", "lq": None}
    clips = evaluate.find(argparse.Namespace(**names, ext=None, border=0, name_by_order=False))
    assert [clip.frames for clip in pickle.loads(pickle.dumps(clips))] == [clip.frames for clip in clips]  # noqa: S301
    run("--out", folders / "a")
    monkeypatch.setattr(evaluate, "ProcessPoolExecutor", lambda workers, context: ThreadPoolExecutor(workers))
    monkeypatch.setattr(evaluate.cv2, "setNumThreads", lambda count: None)
    monkeypatch.setenv("TQDM_DISABLE", "")
    assert run("--workers", 2, "--out", folders / "b")[0] == 0
    for name in ("metrics.json", "metrics.csv"):
        assert (folders / "a" / name).read_text() == (folders / "b" / name).read_text()


def test_two_images_of_one_frame_ask_for_one_kind(folders, run):
    write_rgb(folders / "out/one/000000.jpg", np.zeros((*SIZE, 3), np.uint8))
    code, _, err = run()
    assert code == 2
    assert "000000.jpg and 000000.png would both be frame 000000" in err
    assert run("--ext", "png")[0] == 0


def test_images_of_any_kind_are_compared(folders, run):
    for number, suffix in enumerate((".bmp", ".PNG", ".tiff")):
        path = folders / f"gt/one/{number:06d}.png"
        write_rgb(path.with_suffix(suffix), read_rgb(path))
        if suffix.lower() != ".png":
            path.unlink()
    (folders / "gt/one/000001.png").unlink()
    assert run("--metrics", "psnr")[0] == 0


def test_frames_without_an_order_are_paired_by_name_but_not_measured_in_time(folders, run):
    for kind in ("gt", "out"):
        renamed(folders / kind / "one", lambda index: "abc"[index])
    assert run("--metrics", "psnr")[0] == 0
    code, _, err = run("--metrics", "tof")
    assert code == 2
    assert "clip one: --gt: a and b differ in more than a number" in err


def test_a_metric_that_is_not_there_is_refused_before_anything_is_read(folders, run, monkeypatch):
    monkeypatch.setattr(utils_metric.lpips_metric.importlib.util, "find_spec", lambda name: None)
    code, _, err = run("--metrics", "lpips", restored="nowhere")
    assert code == 2
    assert "pip install lpips" in err


def test_a_damaged_frame_is_named(folders, run):
    path = folders / "out/two/000004.png"
    path.write_bytes(path.read_bytes()[:-20])
    code, _, err = run()
    assert code == 2
    assert "clip two frame 000004" in err
