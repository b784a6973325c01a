"""The script that prepares GoPro and its spikes: on a tiny download of the real shape, whole and damaged."""

import os
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_set import options, rng

from data import layout
from data.lmdb_store import LmdbStore, lmdb_path
from data.meta_info import MetaLine
from data.prepare import gopro_check as check
from data.prepare import gopro_scan
from data.select_dataset import define_Dataset
from data.spike.manifest import Manifest
from scripts.data_preparation import prepare_gopro_spike_dataset as gopro
from utils.spike_loader import read_spikes
from utils.utils_cli import ALL, Shard
from utils.utils_error import UserError
from utils.utils_image import read_rgb

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts" / "data_preparation"
GOLDEN = ROOT / "tests" / "golden" / "prepare_report.txt"

RGB, STEP_BYTES = (32, 48), 48  # spikes of 16x24
CLIPS = {"train": {"GOPR0372_07_00": 47, "GOPR0374_11_00": 150}, "test": {"GOPR0384_11_00": 1}}
FRAMES = 4
KINDS = ("sharp", "blur", "blur_gamma")


def write_png(path, seed, size=RGB):
    """A PNG whose file size depends on the picture's size alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(picture).save(path, compress_level=0)


def make_clip(root, split, clip, first, frames=FRAMES):
    steps = 8 * int(clip.split("_")[1])
    for index in range(frames):
        for seed, kind in enumerate(KINDS):
            path = root / "GOPRO_Large" / split / clip / kind / f"{first + index:06d}.png"
            write_png(path, [seed, first, index])
        dat = root / "GOPRO_Large_spike_seq" / split / clip / "spike" / f"{first + index:06d}.dat"
        dat.parent.mkdir(parents=True, exist_ok=True)
        count = STEP_BYTES * (steps - 7 * (index == frames - 1))
        dat.write_bytes(np.random.default_rng([first, index]).bytes(count))


@pytest.fixture(scope="module")
def download(tmp_path_factory):
    root = tmp_path_factory.mktemp("download")
    for split, clips in CLIPS.items():
        for clip, first in clips.items():
            make_clip(root, split, clip, first)
    return root


@pytest.fixture
def tree(download, tmp_path):
    shutil.copytree(download, tmp_path, dirs_exist_ok=True)
    return tmp_path


def prepare(root, splits=("train", "test"), **changes):
    frames, spikes = root / "GOPRO_Large", root / "GOPRO_Large_spike_seq"
    scans = check.check(frames, spikes, splits, changes.get("blur", "blur"), 8, changes.get("shard", ALL))
    return gopro.prepare(scans, root / "out", splits, **changes)


def run(monkeypatch, root, *arguments):
    """The program itself; returns its exit code."""
    roots = ["--gopro_root", "GOPRO_Large", "--spike_root", "GOPRO_Large_spike_seq", "--dataset_root", "out"]
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "argv", ["prepare", *roots, *arguments])
    try:
        gopro.main()
    except SystemExit as end:
        return end.code
    return 0


def state(root):
    """Every file, folder and link below a folder with what would tell a change."""
    return {
        str(path.relative_to(root)): (path.lstat().st_ino, path.lstat().st_mtime_ns, path.lstat().st_size)
        for path in root.rglob("*")
    }


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


# ---- the report


def damage(root):
    """One of each kind of damage."""
    frames, spikes = root / "GOPRO_Large", root / "GOPRO_Large_spike_seq"
    for split, clip, first in (
        ("train", "GOPR0378_13_00", 93),
        ("train", "GOPR0380_11_00", 175),
        ("train", "GOPR0384_11_01", 47),
        ("train", "GOPR0477_11_00", 1),
        ("train", "my_holiday", 1),
        ("test", "GOPR0396_11_00", 5),
        ("test", "GOPR0410_11_00", 9),
        ("test", "GOPR0854_11_00", 30),
        ("test", "GOPR0372_07_00", 47),
    ):
        make_clip(root, split, clip if "_" in clip and clip[0] == "G" else "GOPR0001_07_00", first)
    (frames / "train/GOPR0001_07_00").rename(frames / "train/my_holiday")
    (spikes / "train/GOPR0001_07_00").rename(spikes / "train/my_holiday")
    (frames / "train/GOPR0374_11_00/blur/000151.png").unlink()
    dat = spikes / "train/GOPR0378_13_00/spike/000094.dat"
    dat.write_bytes(dat.read_bytes()[:2000])
    with (spikes / "train/GOPR0380_11_00/spike/000176.dat").open("wb") as file:
        file.truncate(88 * 180 * 320 // 8)
    for frame in ("000176", "000177"):
        write_png(frames / f"train/GOPR0380_11_00/sharp/{frame}.png", 0, (24, 32))
    png = frames / "train/GOPR0384_11_01/sharp/000048.png"
    png.write_bytes(png.read_bytes()[:-12])
    (frames / "train/GOPR0384_11_01/blur/000050.png").write_bytes(b"")
    shutil.copy(png, png.with_name("000048 (copy).png"))
    shutil.rmtree(frames / "train/GOPR0477_11_00/blur")
    shutil.copy(spikes / "test/GOPR0384_11_00/spike/000004.dat", spikes / "test/GOPR0384_11_00/spike/000005.dat")
    shutil.rmtree(spikes / "test/GOPR0396_11_00")
    shutil.rmtree(frames / "test/GOPR0410_11_00")
    for folder in (frames / "test/GOPR0854_11_00", spikes / "test/GOPR0854_11_00"):
        for path in folder.glob("*/000031.*"):
            path.unlink()
    (spikes / "test/GOPR0854_11_00/spike/000030.dat").write_bytes(bytes(81 * STEP_BYTES))


def test_all_problems_are_reported_at_once(tree, monkeypatch, capsys):
    damage(tree)
    before = state(tree)
    assert run(monkeypatch, tree) == 2
    found = capsys.readouterr().err
    assert found == GOLDEN.read_text(encoding="utf-8")
    assert state(tree) == before


def healthy_scans():
    return [
        gopro_scan.Scan(
            split,
            clip,
            Path(__file__).parent,
            Path(__file__).parent,
            {kind: {f"{first + i:06d}": RGB for i in range(FRAMES)} for kind in ("sharp", "blur")},
            {f"{first + i:06d}": STEP_BYTES * (8 * int(clip[9:11]) - 7 * (i == 3)) for i in range(FRAMES)},
            {"sharp": [], "blur": [], "spike": []},
        )
        for split, clips in CLIPS.items()
        for clip, first in clips.items()
    ]


@settings(max_examples=60, derandomize=True, deadline=None)
@given(which=st.integers(0, 2), index=st.integers(0, FRAMES - 1), kind=st.sampled_from(["sharp", "blur", "spike"]),
       bytes_more=st.integers(-600, 600).filter(bool) | st.just(-7 * STEP_BYTES) | st.none())  # fmt: skip
def test_any_single_damage_is_found_where_it_is(which, index, kind, bytes_more):
    scans = healthy_scans()
    frame = scans[which].frames[index]
    if bytes_more is None:
        scans[which].present()[kind].pop(frame)
    elif kind == "spike":
        scans[which].dats[frame] += bytes_more
    else:
        scans[which].images[kind][frame] = (RGB[0] + bytes_more, RGB[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "_missing_parts", lambda scan: [])
        found = check.find_problems(scans)
    expected = [(scans[which].name, frame)]
    if kind == "spike" and index == FRAMES - 1 and bytes_more is not None and bytes_more == 7 * STEP_BYTES:
        expected = []  # the last .dat may be long or short
    assert [(problem.clip, problem.first) for problem in found] == expected


def test_the_same_fault_of_many_frames_takes_one_line():
    scans = healthy_scans()
    for index in (0, 2, 3):
        scans[0].images["blur"][scans[0].frames[index]] = (1, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "_missing_parts", lambda scan: [])
        lines = [str(problem).split(" pixels")[0] for problem in check.find_problems(scans)]
    assert lines == ["train/GOPR0372_07_00/000047 blur: 1x2", "train/GOPR0372_07_00/000049..000050 blur: 1x2"]


def test_a_png_cut_off_anywhere_is_no_image(tmp_path):
    write_png(tmp_path / "whole.png", 0, (2, 3))
    data = (tmp_path / "whole.png").read_bytes()
    assert gopro_scan.image_fact(tmp_path / "whole.png") == (2, 3)
    for length in range(len(data) - 8):
        (tmp_path / "cut.png").write_bytes(data[:length])
        assert isinstance(gopro_scan.image_fact(tmp_path / "cut.png"), str), length
    Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(tmp_path / "cut.png", "BMP")
    assert "not a readable PNG" in gopro_scan.image_fact(tmp_path / "cut.png")


def test_frames_that_have_no_half_are_named(tree, monkeypatch, capsys):
    for path in (tree / "GOPRO_Large").rglob("*.png"):
        write_png(path, 0, (33, 48))
    assert run(monkeypatch, tree) == 2
    assert "frames are 33x48, expected twice the spikes' size" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("moves", "lines"),
    [
        (
            [("GOPRO_Large", "a/b/GOPRO_Large")],
            ["--gopro-root: GOPRO_Large is not a folder (. holds the folders GOPRO_Large_spike_seq, a); correct --"],
        ),
        (
            [("GOPRO_Large", "x"), ("x", "GOPRO_Large/GOPRO_Large"), ("GOPRO_Large_spike_seq/train", "elsewhere")],
            [
                "--gopro-root: GOPRO_Large has no folder train (GOPRO_Large holds the folders GOPRO_Large); set",
                "--gopro-root: GOPRO_Large has no folder test (GOPRO_Large holds the folders GOPRO_Large); set",
                "--spike-root: GOPRO_Large_spike_seq has no folder train (GOPRO_Large_spike_seq holds the folders",
            ],
        ),
    ],
)
def test_missing_folders_are_named_with_their_flag(tree, monkeypatch, capsys, moves, lines):
    for source, target in moves:
        (tree / target).parent.mkdir(parents=True, exist_ok=True)
        (tree / source).rename(tree / target)
    assert run(monkeypatch, tree) == 2
    found = capsys.readouterr().err.splitlines()
    assert len(found) == len(lines) + 1
    assert all(line.startswith(start) for line, start in zip(found, lines, strict=False))
    assert not (tree / "out").exists()


def test_mistyped_arguments_end_with_2(tree, monkeypatch, capsys):
    for arguments in (["--blurr"], ["--workers", "0"], ["--blur", "gamma"]):
        assert run(monkeypatch, tree, *arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1


# ---- the set


@pytest.mark.parametrize("copy", [False, True])
def test_prepared_set_has_the_layout(tree, copy):
    lines = prepare(tree, copy=copy)
    out = tree / "out"
    for split, clips in CLIPS.items():
        for clip, first in clips.items():
            names = [f"{first + index:06d}" for index in range(FRAMES)]
            source = tree / "GOPRO_Large" / split / clip
            spikes = tree / "GOPRO_Large_spike_seq" / split / clip
            for place, origin in zip(layout.clip_dirs(out, split, clip), ("sharp", "blur", spikes), strict=True):
                assert place.is_symlink() == (not copy)
                assert contents(place) == contents(source / origin)
            assert all(layout.dat_path(out, split, clip, name).is_file() for name in names)
            assert str(layout.described_clips(out, split)[clip]) == f"{clip} {FRAMES} (32,48,3) {names[0]}"
    assert {split: [line.clip for line in found] for split, found in lines.items()} == {
        split: list(clips) for split, clips in CLIPS.items()
    }
    manifest = Manifest.load(layout.spike_dir(out, "test"))
    timing = manifest.timing("GOPR0372_07_00")
    assert (timing.steps, timing.exposure, timing.sharp_step) == (56, (0, 49), 24)
    assert timing.steps_of == {"000050": 49}
    sizes = manifest.spike_h, manifest.spike_w, manifest.rgb_h, manifest.rgb_w
    assert (sizes, manifest.continuous, manifest.blur) == ((16, 24, *RGB), True, "blur")
    assert {path.name for path in out.iterdir()} <= layout.TOP_LEVEL


@pytest.mark.parametrize("changes", [{}, {"copy": True}, {"force": True}, {"copy": True, "force": True}])
def test_second_run_changes_nothing(tree, changes):
    prepare(tree, **changes)
    before = state(tree)
    prepare(tree, **changes)
    assert state(tree) == before


def test_splits_add_up(tree):
    prepare(tree)
    whole = contents(tree / "out")
    shutil.rmtree(tree / "out")
    for split in ("train", "test"):
        prepare(tree, [split])
    assert contents(tree / "out") == whole


def tree_of(root):
    """Every file of a set with its content, every link with its target."""
    links = {str(path.relative_to(root)): path.readlink() for path in root.rglob("*") if path.is_symlink()}
    return contents(root) | links


@pytest.mark.parametrize("copy", [False, True])
def test_shards_at_the_same_time_prepare_the_same_set_as_one_run(tree, copy):
    prepare(tree, copy=copy)
    whole = tree_of((tree / "out").rename(tree / "whole"))
    shards = [Shard(index, 4) for index in (3, 1, 0, 2)]  # of three clips
    with ThreadPoolExecutor(4) as pool:
        lines = list(pool.map(lambda shard: prepare(tree, copy=copy, shard=shard), shards))
    assert tree_of(tree / "out") == whole
    assert [sum(map(len, clips.values())) for clips in lines] == [0, 1, 1, 1]
    before = state(tree / "out")
    assert prepare(tree, copy=copy) == {"train": [*lines[2]["train"], *lines[1]["train"]], "test": lines[3]["test"]}
    assert state(tree / "out") == before


def test_a_clip_in_both_splits_is_found_by_shards_too(tree):
    make_clip(tree, "test", "GOPR0372_07_00", 47)
    with pytest.raises(UserError, match="problem"):
        prepare(tree, shard=Shard(0, 2))


def test_a_shard_tells_its_own_clips_and_writes_no_lmdb(tree, monkeypatch, capsys):
    assert run(monkeypatch, tree, "--shard", "1/2") == 0
    said = capsys.readouterr().out
    assert "train: 1 clip, 4 frames" in said
    assert "note: the official set" not in said
    assert "out: shard 1/2 of train and test are ready" in said
    assert run(monkeypatch, tree, "--shard", "1/2", "--generate-lmdb") == 2
    assert "an LMDB holds all clips" in capsys.readouterr().err


def test_spikes_may_lie_in_the_set_already(tree, monkeypatch):
    (tree / "out").mkdir()
    (tree / "GOPRO_Large_spike_seq").rename(tree / "out/GOPRO_Large_spike_seq")
    spikes = contents(tree / "out/GOPRO_Large_spike_seq")
    for copy in ([], ["--copy", "--force"]):
        assert run(monkeypatch, tree, "--spike-root", "out/GOPRO_Large_spike_seq", *copy) == 0
        assert spikes.items() <= contents(tree / "out/GOPRO_Large_spike_seq").items()


@pytest.mark.parametrize("copy", [False, True])
def test_prepared_set_is_read(tree, copy):
    prepare(tree, copy=copy)
    out = tree / "out"
    roots = {"gt": layout.gt_dir, "lq": layout.lq_dir, "spike": layout.spike_dir}
    dataroots = {f"dataroot_{key}": str(folder(out, "train")) for key, folder in roots.items()}
    fixed = {"use_hflip": False, "use_rot": False, "random_reverse": False, "gt_size": 32}
    meta = str(layout.meta_info_path(out, "train"))
    dataset = define_Dataset(options(out, meta_info_file=meta, **dataroots, **fixed))
    assert len(dataset) == 2 * (FRAMES - 2)
    sample = dataset.sample(1, rng())
    assert sample["key"] == "GOPR0372_07_00/000048"
    sharp = read_rgb(tree / "GOPRO_Large/train/GOPR0372_07_00/sharp/000049.png")
    cut = np.round(sample["gt"][1].permute(1, 2, 0).numpy() * 255)
    (left,) = (x for x in range(0, 17, 2) if np.array_equal(cut, sharp[:, x : x + 32]))
    spikes = read_spikes(tree / "GOPRO_Large_spike_seq/train/GOPR0372_07_00/spike/000049.dat", 16, 24)
    rate = spikes[20:29].mean(0) / 0.5  # the window of 9 steps around the sharp one, 4 (7 - 1)
    assert np.allclose(sample["spike"][1, 0], rate[:, left // 2 : left // 2 + 16])


def test_totals_are_said_and_compared_with_the_official_ones(tree, monkeypatch, capsys):
    assert run(monkeypatch, tree) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["train: 2 clips, 8 frames", "test: 1 clip, 4 frames"]
    assert said[2].startswith(
        "note: the official set has 22 train clips with 2,103 frames and 11 test clips with 1,111"
    )
    frames = {"train": [1] * 21 + [2082], "test": [101] * 11}
    gopro.print_totals({s: [MetaLine("x", n, "720,1280,3", "000001") for n in frames[s]] for s in frames})
    assert capsys.readouterr().out == "train: 22 clips, 2,103 frames\ntest: 11 clips, 1,111 frames\n"


def test_links_that_lead_nowhere_are_named(tree, monkeypatch, capsys):
    frame, stream = "GOPR0372_07_00/sharp/000048.png", "GOPR0374_11_00/spike/000151.dat"
    for path in (tree / "GOPRO_Large/train" / frame, tree / "GOPRO_Large_spike_seq/train" / stream):
        path.unlink()
        path.symlink_to("gone")
    assert run(monkeypatch, tree) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.count("a broken link; restore") for line in said] == [1, 1, 0]
    assert "2 problems in 2 clips" in said[2]


# ---- what is there already


def test_links_elsewhere_are_replaced_with_force_alone(tree):
    place = layout.gt_dir(tree / "out", "train") / "GOPR0372_07_00"
    place.parent.mkdir(parents=True)
    place.symlink_to(tree / "GOPRO_Large_spike_seq")
    with pytest.raises(UserError, match="1 problem in 1 clip"):
        prepare(tree)
    prepare(tree, force=True)
    assert place.resolve() == tree / "GOPRO_Large/train/GOPR0372_07_00/sharp"
    place.unlink()
    place.symlink_to(tree / "gone")
    prepare(tree, force=True)
    assert place.resolve() == tree / "GOPRO_Large/train/GOPR0372_07_00/sharp"


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("name", ["999999.png", ""])
def test_foreign_files_are_never_touched(tree, capsys, copy, name):
    place = layout.gt_dir(tree / "out", "train") / "GOPR0372_07_00" / name
    place.parent.mkdir(parents=True)
    place.write_text("mine")
    before = state(tree)
    with pytest.raises(UserError, match="1 problem in 1 clip"):
        prepare(tree, copy=copy, force=True)
    assert "move it away" in capsys.readouterr().err
    assert state(tree) == before


def test_links_become_copies_with_force_and_the_source_stays(tree, capsys):
    source = state(tree / "GOPRO_Large") | state(tree / "GOPRO_Large_spike_seq")
    prepare(tree)
    linked = contents(tree / "out")
    with pytest.raises(UserError, match="9 problems in 3 clips"):
        prepare(tree, copy=True)
    assert "is a link, expected copies; --force replaces it" in capsys.readouterr().err
    prepare(tree, copy=True, force=True)
    assert not any(path.is_symlink() for path in (tree / "out").rglob("*"))
    assert linked.items() <= contents(tree / "out").items()
    assert state(tree / "GOPRO_Large") | state(tree / "GOPRO_Large_spike_seq") == source


def test_whole_copies_serve_as_links_do(tree, capsys):
    prepare(tree, copy=True)
    before = state(tree)
    for force in (False, True):
        prepare(tree, force=force)
    assert state(tree) == before
    lost = layout.lq_dir(tree / "out", "train") / "GOPR0372_07_00" / "000048.png"
    lost.unlink()
    with pytest.raises(UserError):
        prepare(tree)
    assert "a folder with 3 of 4 files, expected a link; add --copy" in capsys.readouterr().err
    prepare(tree, copy=True)
    after = state(tree)
    assert {name for name in after if after[name] != before.get(name)} == {
        str(path.relative_to(tree)) for path in (lost, lost.parent)
    }


def test_copies_of_another_size_are_replaced_with_force_alone(tree, capsys):
    prepare(tree, copy=True)
    place = layout.lq_dir(tree / "out", "train") / "GOPR0372_07_00" / "000048.png"
    whole = place.read_bytes()
    place.write_bytes(b"short")
    for copy, force in ((False, True), (True, False)):
        with pytest.raises(UserError):
            prepare(tree, copy=copy, force=force)
        assert "000048.png differs in size from the source" in capsys.readouterr().err
    prepare(tree, copy=True, force=True)
    assert place.read_bytes() == whole


@pytest.mark.parametrize("copy", [False, True])
def test_other_blurred_frames_are_a_contradiction_unless_forced(tree, monkeypatch, capsys, copy):
    prepare(tree, copy=copy)
    before, source = state(tree), state(tree / "GOPRO_Large")
    flags = ["--blur", "blur_gamma"] + ["--copy"] * copy
    assert run(monkeypatch, tree, *flags) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "blur is blur, the new clips have blur_gamma" in error
    assert "--force" in error
    assert run(monkeypatch, tree, *flags, "--force", "--splits", "train") == 2
    assert "prepare all clips together" in capsys.readouterr().err
    assert state(tree) == before
    assert run(monkeypatch, tree, *flags, "--force") == 0
    assert Manifest.load(tree / "out/GOPRO_Large_spike_seq").blur == "blur_gamma"
    for split, clips in CLIPS.items():
        for clip in clips:
            lq = layout.lq_dir(tree / "out", split) / clip
            assert contents(lq) == contents(tree / "GOPRO_Large" / split / clip / "blur_gamma")
    assert state(tree / "GOPRO_Large") == source
    switched = state(tree)
    assert run(monkeypatch, tree, *flags) == 0
    assert state(tree) == switched
    if copy:  # links would have to be put in the place of copied files
        assert run(monkeypatch, tree, "--blur", "blur", "--force") == 2
        assert "copies of other frames" in capsys.readouterr().err


def test_one_name_in_both_splits_of_the_set_is_refused(tree, capsys):
    prepare(tree)
    for root in ("GOPRO_Large", "GOPRO_Large_spike_seq"):
        (tree / root / "train/GOPR0372_07_00").rename(tree / root / "test/GOPR0372_07_00")
    with pytest.raises(UserError, match="1 problem in 1 clip"):
        prepare(tree, ["test"])
    assert "test/GOPR0372_07_00" in capsys.readouterr().err


def test_lmdb_files_hold_the_set_and_follow_a_switch(tree, monkeypatch, capsys):
    assert run(monkeypatch, tree, "--generate-lmdb") == 0
    clip, out = "GOPR0372_07_00", tree / "out"
    dat = layout.dat_path(out, "train", clip, "000050")
    stored = LmdbStore(lmdb_path(layout.spike_dir(out, "train"))).get(clip, "000050")
    assert stored.tobytes() == dat.read_bytes()
    before = state(tree)
    assert run(monkeypatch, tree, "--generate_lmdb") == 0
    assert state(tree) == before
    blurred = lmdb_path(layout.lq_dir(out, "train"))
    assert run(monkeypatch, tree, "--blur", "blur_gamma", "--force") == 0
    assert "train_GT_blurred.lmdb: removed, because it held other blurred frames" in capsys.readouterr().out
    assert not blurred.exists()
    assert lmdb_path(layout.gt_dir(out, "train")).is_dir()
    assert run(monkeypatch, tree, "--blur", "blur_gamma", "--generate_lmdb") == 0
    png = tree / f"GOPRO_Large/train/{clip}/blur_gamma/000048.png"
    image = cv2.imdecode(LmdbStore(blurred).get(clip, "000048"), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(image[..., ::-1], read_rgb(png))


# ---- interruptions


def assert_nothing_is_half_copied(root):
    """Every file of the set that has its final name is whole."""
    for split, clips in CLIPS.items():
        for clip in clips:
            source = root / "GOPRO_Large" / split / clip
            origins = (source / "sharp", source / "blur", root / "GOPRO_Large_spike_seq" / split / clip)
            for place, origin in zip(layout.clip_dirs(root / "out", split, clip), origins, strict=True):
                found = {name: data for name, data in contents(place).items() if ".tmp" not in name}
                assert found.items() <= contents(origin).items()
    assert not (root / "out/meta_info").exists()


KILLED = """
import os, shutil, signal, sys
sys.path[:0] = [{scripts!r}, {root!r}]
import prepare_gopro_spike_dataset as gopro
whole = iter(range(5))
copyfile = shutil.copyfile
def some(source, target):
    if next(whole, None) is None:
        target.write_bytes(source.read_bytes()[:100])
        os.kill(os.getpid(), signal.SIGKILL)
    return copyfile(source, target)
shutil.copyfile = some
sys.argv = ["prepare", "--copy", "--workers", "1", "--dataset_root", "out", *{flags!r}]
gopro.main()
"""


def test_a_killed_run_goes_on(tree):
    flags = ["--gopro_root", "GOPRO_Large", "--spike_root", "GOPRO_Large_spike_seq"]
    code = KILLED.format(scripts=str(SCRIPTS), root=str(ROOT), flags=flags)
    ended = subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert len(list((tree / "out").rglob(".*.tmp.png"))) == 1
    assert_nothing_is_half_copied(tree)
    before = {path: path.stat().st_mtime_ns for path in (tree / "out").rglob("[!.]*.png")}
    assert len(before) == 5
    prepare(tree, copy=True)
    assert not list((tree / "out").rglob(".*.tmp*"))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    prepared = contents(tree / "out")
    shutil.rmtree(tree / "out")
    prepare(tree, copy=True)
    assert contents(tree / "out") == prepared


def test_ctrl_c_leaves_no_half_state(tree, monkeypatch, capsys):
    copied = []
    copyfile = shutil.copyfile

    def some(source, target):
        copied.append(source)
        if len(copied) == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return copyfile(source, target)

    monkeypatch.setattr(shutil, "copyfile", some)
    assert run(monkeypatch, tree, "--copy", "--workers", "2") == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert len(copied) < 36
    assert not list((tree / "out").rglob(".*.tmp*"))
    assert_nothing_is_half_copied(tree)
    assert run(monkeypatch, tree, "--copy") == 0
    assert len(copied) == 36  # 3 clips, 3 folders, 4 frames: none was copied twice


def test_a_switch_that_was_interrupted_mixes_nothing(tree, monkeypatch):
    prepare(tree, copy=True)

    def stop(source, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(tree, copy=True, blur="blur_gamma", force=True)
    assert not list(layout.lq_dir(tree / "out", "train").rglob("*.png"))
    assert Manifest.load(tree / "out/GOPRO_Large_spike_seq") is None
    prepare(tree, copy=True, blur="blur_gamma")
    for clip in CLIPS["train"]:
        lq = layout.lq_dir(tree / "out", "train") / clip
        assert contents(lq) == contents(tree / "GOPRO_Large/train" / clip / "blur_gamma")


def test_scans_are_what_lies_on_disk(tree):
    clip = "GOPR0372_07_00"
    found = gopro_scan.scan_clip(
        tree / "GOPRO_Large/train" / clip, tree / "GOPRO_Large_spike_seq/train" / clip, "train", clip, "blur"
    )
    wanted = healthy_scans()[0]
    assert found == replace(wanted, source=found.source, spikes=found.spikes)


def test_a_split_that_another_call_prepares_is_refused(tree, monkeypatch, capsys):
    with gopro.claim_split(tree / "out", "train"):
        assert run(monkeypatch, tree, "--splits", "train") == 2
        assert re.fullmatch(
            r"error: out: split train is in use by process \d+ on .* since .*; wait .*\n", capsys.readouterr().err
        )
        assert not layout.gt_dir(tree / "out", "train").exists()
        assert run(monkeypatch, tree, "--splits", "test") == 0
    assert run(monkeypatch, tree) == 0
    assert not (tree / "out" / layout.STAGING).exists()
    with gopro.claim_split(tree / "out", "train"):
        assert run(monkeypatch, tree) == 0  # nothing is to be done
