"""Where golden files lie: in the repository, and beside it those that the repository does not hold."""

import hashlib
import json
from pathlib import Path

import pytest

GOLDEN = Path(__file__).resolve().parent / "golden" / "data"  # of the repository: a test that reads it never skips
SHARED = Path(__file__).resolve().parents[2] / "shared"
CONSTANTS = ("relative_position_index", "position_bias", "spynet.mean", "spynet.std")


def needs_shared(name):
    """Mark: the test is skipped where ../shared has no such file or folder."""
    return pytest.mark.skipif(not (SHARED / name).exists(), reason=absence(name))


def shared_file(name):
    """The path of a file in ../shared; where it is absent, the running test is skipped."""
    if not (SHARED / name).exists():
        pytest.skip(absence(name))
    return SHARED / name


def digests(root):
    """Path below a folder -> SHA-256 of every file in it."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def absence(name):
    return f"../shared/{name} is not here"


def official_entries():
    """Name -> shape of every entry of the official file of the GoPro network, in its order."""
    found = json.loads((GOLDEN / "vrt_006_official.keys.json").read_text(encoding="utf-8"))
    return {name: tuple(shape) for name, shape in found.items()}


def official_parameters():
    """The same without the file's constants."""
    return {name: shape for name, shape in official_entries().items() if not name.endswith(CONSTANTS)}
