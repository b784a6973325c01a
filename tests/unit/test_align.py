"""Geometry and time between two cameras: what is measured, refused and written."""

import importlib.util
import json
from pathlib import Path

import pytest
import two_cameras
from two_cameras import corner_distance, make_pair, matrix_of

from data.layout import SPIKES
from data.spike.align.camera_pair import Settings, align_set, blocks_in
from data.spike.align.warning import warn_at_start
from data.spike.manifest import Manifest
from utils.utils_error import UserError

FAR = matrix_of(right=3.3, down=-2.6, turn=1.5, scale=1.02)


@pytest.fixture(scope="module")
def far(tmp_path_factory):
    return make_pair(tmp_path_factory.mktemp("far"), ("a", "b"), matrix=FAR, late=5, pattern=0.08)


def clips_of(root):
    return Manifest.read(root / SPIKES / "manifest.json").clips


def measured(root, **changes):
    return align_set(blocks_in(root), Settings(**changes), write=False)


def test_turned_scaled_shifted_and_late_spikes_are_measured_and_written_once(far):
    before = (far / SPIKES / "manifest.json").read_text()
    found = align_set(blocks_in(far), write=False)
    assert (far / SPIKES / "manifest.json").read_text() == before
    align_set(blocks_in(far))
    written = clips_of(far)
    for row in found.rows:
        assert corner_distance(row.alignment.matrix, FAR) < 0.1
        assert (row.alignment.model, row.alignment.steps, row.alignment.longer) == ("similarity", 5, 0)
        assert row.alignment.error < 0.1
        assert row.off[0] > 3
        assert row.off[1] == 5
        assert row.correlation[0] < row.correlation[1]
        assert written[row.clip].alignment == row.alignment
        assert written[row.clip].exposure == (2, 20)
    again = align_set(blocks_in(far))
    assert clips_of(far) == written
    assert all(row.off[0] < 1e-6 and row.off[1] == 0 for row in again.rows)


def test_the_simplest_model_that_agrees_is_taken(tmp_path):
    matrix = matrix_of(right=-2.4, down=1.7)
    (row,) = measured(make_pair(tmp_path, matrix=matrix, late=-3)).rows
    assert (row.alignment.model, row.alignment.steps) == ("shift", -3)
    assert corner_distance(row.alignment.matrix, matrix) < 0.1
    (row,) = measured(tmp_path, model="homography").rows
    assert row.alignment.model == "homography"
    assert corner_distance(row.alignment.matrix, matrix) < 0.3


def test_cameras_that_agree_are_left_as_they_are(tmp_path):
    align_set(blocks_in(make_pair(tmp_path)))
    assert [clip.alignment.matrix for clip in clips_of(tmp_path).values()] == [((1, 0, 0), (0, 1, 0), (0, 0, 1))]


def test_two_frames_show_geometry_but_no_time_if_the_stream_ends_with_them(tmp_path, monkeypatch):
    monkeypatch.setattr(two_cameras, "FRAMES", 2)
    monkeypatch.setattr(two_cameras, "EXPOSURE", (1, 20))
    matrix = matrix_of(right=-1.4, down=-1.4)
    (row,) = measured(make_pair(tmp_path, matrix=matrix)).rows
    assert corner_distance(row.alignment.matrix, matrix) < 0.1
    assert (row.alignment.steps, row.alignment.steps_error) == (0, None)
    assert "too few steps before or after" in row.note


def test_without_motion_the_time_is_left(tmp_path):
    matrix = matrix_of(right=1.4, turn=-1)
    (row,) = measured(make_pair(tmp_path, matrix=matrix, late=5, moves=False)).rows
    assert corner_distance(row.alignment.matrix, matrix) < 0.1
    assert (row.alignment.steps, row.alignment.steps_error) == (0, None)
    assert "no motion" in row.note


@pytest.mark.parametrize(
    ("changes", "reason"), [({"level": 0.4}, "flat picture"), ({"scene": 99}, "same scene|too little texture")]
)
def test_what_cannot_be_aligned_is_refused_with_the_reason(tmp_path, changes, reason):
    make_pair(tmp_path, **changes)
    before = (tmp_path / SPIKES / "manifest.json").read_text()
    with pytest.raises(UserError, match=reason):
        align_set(blocks_in(tmp_path))
    assert (tmp_path / SPIKES / "manifest.json").read_text() == before


def test_a_clip_that_shows_nothing_takes_what_the_others_say(tmp_path):
    matrix = matrix_of(right=2, down=1)
    make_pair(tmp_path, ("a", "b"), matrix=matrix, late=2)
    make_pair(tmp_path, ("flat",), level=0.4)
    rows = {row.clip: row for row in align_set(blocks_in(tmp_path)).rows}
    assert rows["flat"].alignment == rows["a"].alignment == rows["b"].alignment
    assert "flat picture" in rows["flat"].note
    alone = {row.clip: row for row in measured(tmp_path, per_clip=True).rows}
    assert alone["flat"].alignment is None
    assert alone["a"].alignment.matrix != alone["b"].alignment.matrix


def test_clips_of_other_cameras_keep_their_own(tmp_path):
    make_pair(tmp_path, ("a", "b", "c"), matrix=matrix_of(right=2))
    make_pair(tmp_path, ("moved",), matrix=matrix_of(right=-3))
    found = measured(tmp_path)
    rows = {row.clip: row for row in found.rows}
    assert rows["a"].alignment == rows["b"].alignment == rows["c"].alignment
    assert rows["moved"].alignment.matrix[0][2] == pytest.approx(-3, abs=0.1)
    assert any("moved" in line for line in found.lines)


def test_the_length_of_the_exposure_is_measured_on_request(tmp_path):
    make_pair(tmp_path)
    path = tmp_path / SPIKES / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["clips"]["clip"]["exposure"] = [2, 16]  # the frames integrate 18 steps
    path.write_text(json.dumps(manifest))
    (row,) = measured(tmp_path, length=True).rows
    assert abs(row.alignment.steps) <= 1
    assert abs(row.alignment.longer - 4) <= 1
    assert measured(tmp_path).rows[0].alignment.longer == 0


@pytest.mark.parametrize(
    ("changes", "warns"),
    [
        ({}, False),
        ({"matrix": matrix_of(right=1.2)}, True),
        ({"late": 8}, True),
        ({"matrix": matrix_of(right=0.2), "late": 1}, False),
        ({"moves": False}, False),
        ({"level": 0.4}, False),
    ],
)
def test_the_start_of_a_test_warns_only_of_what_shows_and_not_after_align(tmp_path, caplog, changes, warns):
    make_pair(tmp_path, **changes)
    (block,) = blocks_in(tmp_path)
    warn_at_start(block)
    assert len(caplog.records) == warns
    if warns:
        assert "clip clip" in caplog.text
        assert f"spike.py align {tmp_path}" in caplog.text
        align_set([block])
        caplog.clear()
        warn_at_start(block)
        assert not caplog.records


@pytest.fixture(scope="module")
def program():
    spec = importlib.util.spec_from_file_location("spike_program", Path(__file__).parents[2] / "scripts/spike.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_reports_and_writes(tmp_path, program, monkeypatch, capsys):
    make_pair(tmp_path, matrix=matrix_of(right=2))
    monkeypatch.setattr("sys.argv", ["spike.py", "align", str(tmp_path), "--json"])
    assert program.main() == 0
    said = json.loads(capsys.readouterr().out)
    assert said["written"]
    assert said["clips"][0]["shift"][0] == pytest.approx(2, abs=0.1)
    monkeypatch.setattr("sys.argv", ["spike.py", "align", str(tmp_path), "--dry-run"])
    assert program.main() == 0
    table = capsys.readouterr().out
    assert "not changed" in table
    assert "shift" in table


def test_a_set_without_manifest_or_of_another_layout_is_refused(tmp_path, program, monkeypatch, capsys):
    with pytest.raises(UserError, match="--opt"):
        blocks_in(tmp_path)
    make_pair(tmp_path)
    (tmp_path / SPIKES / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"manifest\.json"):
        align_set(blocks_in(tmp_path))
