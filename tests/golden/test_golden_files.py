"""The golden files of the repository: explained, small, as they were drawn, and those of ../shared to the last bit."""

import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from golden_files import GOLDEN, SHARED, needs_shared, official_entries

FILES = sorted(path.name for path in GOLDEN.iterdir() if path.name != "README.md")
LARGEST = 500_000  # bytes


def test_the_readme_names_every_file():
    assert sorted(re.findall(r"^\| `(.+?)`", (GOLDEN / "README.md").read_text(encoding="utf-8"), re.M)) == FILES


@pytest.mark.parametrize("name", FILES)
def test_files_are_small(name):
    assert 0 < (GOLDEN / name).stat().st_size <= LARGEST


def test_the_drawn_stream_is_what_its_program_draws(tmp_path):
    runpy.run_path(str(Path(__file__).with_name("draw_drifting.py")))["main"](tmp_path)
    assert (tmp_path / "drifting.dat").read_bytes() == (GOLDEN / "drifting.dat").read_bytes()


@needs_shared("golden/vrt_seeded_tiny.npz")
@pytest.mark.parametrize(
    ("source", "key", "name"),
    [
        ("vrt_seeded_tiny", "output", "vrt_seeded_tiny_output"),
        ("vrt_seeded_tiny", "flow0", "vrt_seeded_tiny_flow"),
        ("vrt_seeded_full", "output", "vrt_seeded_full_output"),
    ],
)
def test_seeded_outputs_are_the_recorded_ones(source, key, name):
    recorded, (kept,) = np.load(SHARED / f"golden/{source}.npz")[key], np.load(GOLDEN / f"{name}.npz").values()
    assert kept.dtype == recorded.dtype == np.float32
    assert np.array_equal(kept, recorded)


@needs_shared("golden/vrt_006_official.keys.json")
def test_official_names_are_the_recorded_ones_in_their_order():
    recorded = json.loads((SHARED / "golden/vrt_006_official.keys.json").read_text())
    assert [(name, tuple(shape)) for name, shape in recorded.items()] == list(official_entries().items())
