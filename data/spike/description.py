"""Find the file that describes a set of spikes: manifest.json or config.yaml."""

from collections.abc import Iterator
from pathlib import Path

SPIKE_SUFFIXES = (".dat", ".npy", ".npz")


def find_description(folder: str | Path, name: str) -> Path | None:
    """Find the nearest description of the spikes in a folder.

    It is in the folder of the spike files, of their clip, of all clips, or one above (ROOT/train/<clip>/spike). Any of
    these folders may be given; an LMDB counts as the folder of all clips. The path as given is searched first, then the
    one that its links lead to.
    """
    folder = Path(folder).expanduser()
    places = (place for start in (folder.absolute(), folder.resolve()) for place in _places(start))
    return next((place / name for place in places if (place / name).is_file()), None)


def _places(folder: Path) -> Iterator[Path]:
    """Yield a folder and those above it that may hold its description."""
    is_clip = any(path.suffix in SPIKE_SUFFIXES or path.name == "spike" for path in folder.glob("*"))
    above = 3 if folder.name == "spike" else 2 if is_clip else 1
    yield from (folder, *folder.parents[:above])
