"""Text of other systems: byte order marks, UTF-16, line ends, names that are no UTF-8 or in another Unicode form."""

import ast
import csv
import json
import os
import subprocess
import sys
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
from test_manifest import CONTENT
from tiny_set import SPIKE_SIZE, make_set, options, rng

from data.clip_index import existing_folder, find_clips
from data.dataset_video_test import VideoTestDataset
from data.lmdb_store import LmdbStore, lmdb_path
from data.prepare import lmdb_writer
from data.prepare.lmdb_sources import DatFiles, PngFiles
from data.select_dataset import define_Dataset
from data.spike.config_yaml import SpikeConfig
from data.spike.manifest import Manifest
from options.schema import Opt
from scripts.evaluate import paired
from utils import utils_option
from utils.records import boards
from utils.report import metric_files, results_folder, test_page
from utils.utils_error import UserError
from utils.utils_file import own_name, printable, read_text, write_text
from utils.utils_image import to_float
from utils.utils_json import read_json

ROOT = Path(__file__).resolve().parents[2]
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]
NFC = unicodedata.normalize("NFC", "caf\u00e9")
NFD = unicodedata.normalize("NFD", NFC)
GBK = os.fsdecode("\u8f66\u8f86".encode("gbk"))
READERS = {"setup.py"}  # runs where nothing of the project can be imported


def encode(path, encoding):
    """Write a UTF-8 file again as other programs would."""
    text = path.read_text(encoding="utf-8").replace("\n", "\r\n")
    path.write_bytes(text.encode(encoding))


def evaluated(clip, frame="000000"):
    """What `evaluate` gives of one frame."""
    row = {"psnr": 30.0, "ssim": 0.9}
    frames = [{"clip": clip, "frame": frame, **row}]
    return {"mean": row, "clips": {clip: row}, "frames": frames, "protocol": "p", "protocols": {}, "equal_frames": {}}


# Marks and line ends


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_all_text_is_read_as_other_programs_write_it(tmp_path, encoding):
    text = "a \u00e9 \u8f66\nb\n"
    path = tmp_path / "t.txt"
    path.write_text(text, encoding="utf-8")
    encode(path, encoding)
    assert read_text(path) == text

    root = make_set(tmp_path / "set", clips=("a",), frames=3)
    meta = root / "meta_info.txt"
    meta.write_text("a 3 (32,48,3) 000047\n", encoding="utf-8")
    lmdb_writer.write_lmdbs([(PngFiles(root / "lq", 0), lmdb_path(root / "lq"))], workers=1)
    SpikeConfig(spike_h=16, spike_w=24).save(root / "spikes")
    (root / "o.json").write_text(json.dumps({"task": "t"}), encoding="utf-8")
    results_folder.write_text(root / "run.json", json.dumps({"clips": {}}))
    manifest = Manifest.load(root / "spikes")
    for place in ("meta_info.txt", "lq.lmdb/meta_info.txt", "spikes/manifest.json", "spikes/config.yaml"):
        encode(root / place, encoding)
    encode(root / "o.json", encoding)
    encode(root / "run.json", encoding)
    assert list(find_clips(root / "lq", None, str(meta), "06d")) == ["a"]
    assert list(LmdbStore(root / "lq.lmdb").clips()) == ["a"]
    assert Manifest.load(root / "spikes") == manifest
    assert SpikeConfig.load(root / "spikes").spike_w == 24
    assert read_json(root / "o.json") == {"task": "t"}
    assert results_folder.read_record(root) == {"clips": {}}


@pytest.mark.parametrize("data", [b"caf\xe9", "ab".encode("utf-16-le"), b"\xff\xfea"])
def test_what_is_no_text_is_said_in_one_line(tmp_path, data):
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(UserError, match="t: .*UTF-8") as caught:
        read_text(tmp_path / "t")
    assert "\n" not in str(caught.value)


def test_nothing_reads_text_by_itself():
    for folder in ("data", "models", "utils", "options", "scripts", "."):
        for path in (ROOT / folder).glob("*.py" if folder == "." else "**/*.py"):
            name = str(path.relative_to(ROOT))
            calls = [node for node in ast.walk(ast.parse(read_text(path))) if isinstance(node, ast.Call)]
            own = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "read_text"]
            own = [call for call in own if "encoding='ascii'" not in ast.unparse(call)]  # files of the system
            assert not own or name in READERS, f"{name} line {own[0].lineno}: use utils_file.read_text"


# Names that are no UTF-8


def test_results_of_a_clip_whose_name_is_no_text_are_whole(tmp_path):
    result = evaluated(GBK)
    metric_files.write_metrics(result, tmp_path)
    facts = {"title": GBK, "options": {}, "environment": {"weights": GBK}}
    write_text(tmp_path / "report.html", test_page.report_page(result, {}, facts))
    shown = printable(GBK)
    assert shown.isascii()
    with (tmp_path / "metrics.csv").open(encoding="utf-8", newline="") as file:
        assert [row["clip"] for row in csv.DictReader(file)] == [shown]
    assert shown in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert list(json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))["clips"]) == [GBK]
    assert metric_files.side_by_side(GBK, {"a": np.zeros((8, 8, 3), np.uint8)}).any()


def test_boards_take_such_names(tmp_path):
    opt = Opt(task="t").logging
    shown = boards.open_boards(tmp_path, opt, {}, 0, -1)
    shown.scalars(1, {f"test_psnr_by_clip/{GBK}": 30.0})
    shown.image(1, GBK, np.zeros((4, 4, 3), np.uint8))
    assert len(shown.where) == 1
    shown.close()


def test_such_names_are_kept_in_an_lmdb_and_in_lists_of_clips(tmp_path):
    root = make_set(tmp_path, clips=(GBK,), frames=3, manifest=False)
    lmdb_writer.write_lmdbs([(PngFiles(root / "lq", 0), lmdb_path(root / "lq"))], workers=1)
    store = LmdbStore(root / "lq.lmdb")
    assert list(store.clips()) == [GBK]
    assert store.get(GBK, "000047").size
    write_text(root / "meta.txt", f"{GBK} 3 (32,48,3) 000047\n", names=True)
    assert list(find_clips(root / "lq", "png", str(root / "meta.txt"), "06d")) == [GBK]


def test_a_list_of_clips_in_another_encoding_is_said(tmp_path):
    root = make_set(tmp_path, clips=(os.fsencode(GBK).decode("gbk"),), frames=3, manifest=False)
    (root / "meta.txt").write_bytes(os.fsencode(GBK) + b" 3 (32,48,3) 000047\n")
    with pytest.raises(UserError, match=r"meta.txt: clip \\xb3\\xb5.* is not UTF-8.* save the file as UTF-8"):
        find_clips(root / "lq", "png", str(root / "meta.txt"), "06d")


def test_names_are_the_same_whatever_the_encoding_of_file_names():
    as_ascii = os.fsencode(NFC).decode("ascii", "surrogateescape")
    assert own_name(NFC, [as_ascii]) == as_ascii
    assert printable(as_ascii) == NFC
    assert printable("\ud800") == "\\ud800"


# Names in another Unicode form


def test_clips_are_found_in_either_unicode_form(tmp_path):
    root = make_set(tmp_path, clips=(NFD,), frames=3)
    (root / "gt" / NFD).rename(root / "gt" / NFC)
    (root / "spikes/train" / NFD).rename(root / "spikes/train" / NFC)
    expected = define_Dataset(options(root)).sample(0, rng())
    assert expected["key"] == f"{NFD}/000047"
    sources = [PngFiles(root / "lq", 0), PngFiles(root / "gt", 0), DatFiles(root / "spikes/train", SPIKE_SIZE)]
    lmdb_writer.write_lmdbs([(source, lmdb_path(source.root)) for source in sources], workers=1)
    roots = {
        "dataroot_lq": root / "lq.lmdb",
        "dataroot_gt": root / "gt.lmdb",
        "dataroot_spike": root / "spikes/train.lmdb",
    }
    for name in (NFC, NFD):
        (root / "meta.txt").write_text(f"{name} 3 (32,48,3) 000047\n", encoding="utf-8")
        for places in ({}, {key: str(path) for key, path in roots.items()} | {"io_backend": {"type": "lmdb"}}):
            found = define_Dataset(options(root, meta_info_file=str(root / "meta.txt"), **places)).sample(0, rng())
            assert found["key"] == expected["key"]
            assert all((found[key] == expected[key]).all() for key in ("lq", "gt", "spike"))
    assert VideoTestDataset(options(root, "Test")).clips[0].gt(0, 3).any()


def test_a_manifest_knows_a_clip_in_either_unicode_form():
    manifest = Manifest.model_validate_json(json.dumps({**CONTENT, "clips": {NFC: CONTENT["clips"]["GOPR0384_11_00"]}}))
    assert manifest.timing(NFD).steps == 88


def test_frames_in_another_unicode_form_are_said_once(tmp_path):
    root = make_set(tmp_path, clips=("a",), frames=3, manifest=False)
    for kind, form in (("lq", NFC), ("gt", NFD)):
        for path in (root / kind / "a").iterdir():
            path.rename(path.with_name(f"{form}_{path.name}"))
    with pytest.raises(UserError, match="names 3 frames, such as .* in another Unicode form") as caught:
        define_Dataset(options(root, spikes=False))
    assert "more)" not in str(caught.value)


def test_a_root_in_another_unicode_form_is_named(tmp_path):
    (tmp_path / NFD / "lq").mkdir(parents=True)
    with pytest.raises(UserError, match="Unicode form") as caught:
        existing_folder(tmp_path / NFC / "lq", "dataroot_lq")
    assert NFD in str(caught.value)


def test_results_are_measured_in_either_unicode_form():
    assert paired([NFC, "b"], ["b", NFD], "w", by_order=False) == [NFD, "b"]


# Backslashes


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (r"D:\data\GoPro", r"\d is not an escape"),
        (r"D:\users\me", r"\u is not an escape"),
        (r"datasets\tiny", r'datasets.test.dataroot_lq: found "datasets\tiny", must not contain tabs'),
        (r"data\new", r'found "data\new", must not contain tabs or line breaks'),
        ("datasets\\", "the string has no end"),
    ],
)
def test_a_single_backslash_in_json_is_said(tmp_path, path, words):
    text = '{"task": "t", "datasets": {"test": {\n"dataset_type": "TestDataset", "dataroot_lq": "' + path + '",\n}}}'
    (tmp_path / "o.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        utils_option.load(tmp_path / "o.json", Opt)
    assert words in str(caught.value)
    assert r"write / or \\" in str(caught.value)
    assert "o.json" in str(caught.value)


def test_escapes_that_json_knows_are_read(tmp_path):
    (tmp_path / "o.json").write_text(
        r'{"a": "\"\\\/\b\f\n\r\t\u00e9", "b": "D:\\data", "c": "it\'s"}', encoding="utf-8"
    )
    assert read_json(tmp_path / "o.json") == {"a": '"\\/\b\f\n\r\t\u00e9', "b": "D:\\data", "c": "it's"}


# Terminals

SPEAK = """
import logging, sys
from utils import utils_cli
with utils_cli.program():
    for line in range(20000):
        print("line", line)
    logging.getLogger("spikevrt").info("log")
    print("name \\udcb3 \\u221e", file=sys.stderr)
    open(sys.argv[1], "w").write("went on")
"""


@pytest.mark.parametrize("redirected", [False, True])
def test_a_reader_that_leaves_ends_nothing(tmp_path, redirected):
    """As in `scripts/summary.py | head -1`, and with 2>&1."""
    reading, writing = os.pipe()
    with open(writing, "wb") as gone:
        process = subprocess.Popen(
            [sys.executable, "-c", SPEAK, str(tmp_path / "done")],
            cwd=ROOT,
            stdout=gone,
            stderr=gone if redirected else subprocess.PIPE,
        )
    os.read(reading, 10)
    os.close(reading)
    error = process.communicate()[1]
    assert process.returncode == 0
    assert redirected or error == b"name \\udcb3 \xe2\x88\x9e\n"
    assert (tmp_path / "done").read_text() == "went on"


@pytest.mark.parametrize("streams", [">&-", "2>&-", ">&- 2>&-", ">/dev/full", ">/dev/full 2>&1"])
def test_a_stream_that_takes_nothing_ends_nothing(tmp_path, streams):
    """As of a service without streams, and a log on a full disk."""
    if "full" in streams and not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    wrong = SPEAK + "    raise utils_cli.UserError('wrong')\n"
    for program, code, said in ((SPEAK, 0, ""), (wrong, 2, "error: wrong\n")):
        words = ["sh", "-c", f'exec "$@" {streams}', "sh", sys.executable, "-c", program, str(tmp_path / "done")]
        ran = subprocess.run(words, cwd=ROOT, capture_output=True, check=False)
        assert (ran.returncode, (tmp_path / "done").read_text()) == (code, "went on"), ran.stderr
        (tmp_path / "done").unlink()
        full = "warning: stdout: No space left on device: its output is incomplete\n" * ("full" in streams)
        assert "2>" in streams or ran.stderr == f"{full}name \\udcb3 \u221e\n{said}".encode()


def test_any_name_can_be_printed_in_any_locale(tmp_path):
    words = [sys.executable, "-c", SPEAK.replace(", file=sys.stderr", ""), str(tmp_path / "done")]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": ""}
    ran = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert ran.stdout.splitlines()[-1] == b"name \\udcb3 \\u221e"


# Arrays


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_a_read_only_array_is_read_without_a_warning(kind):
    frames = np.zeros((2, 4, 4, 3), kind)
    frames.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert to_float(frames).shape == (2, 3, 4, 4)
        assert to_float(np.zeros((4, 4, 3), np.uint8)).shape == (3, 4, 4)
