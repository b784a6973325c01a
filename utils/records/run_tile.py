"""The tile for all tests of a run, kept in its folder."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from utils import utils_dist
from utils.utils_dist import Dist
from utils.utils_file import write_text
from utils.utils_json import read_json
from utils.utils_run_folder import RunFolder
from utils.utils_tile_opt import TileOpt


def kept_tile(run_dir: Path, asked: TileOpt, choose: Callable[[], TileOpt], dist: Dist) -> TileOpt:
    """Choose a tile once per run: scores that select the best weights must not depend on the memory free at the time.

    Args:
        run_dir: the run's folder.
        asked: the bounds; a tile kept under other bounds is chosen anew.
        choose: chooses a tile; called in every process.
        dist: this process; all must call this.
    """
    path, bounds = RunFolder(run_dir).tile, json.loads(json.dumps(asdict(asked)))
    kept = read_json(path) if dist.is_main and path.is_file() else {}
    kept = utils_dist.gather_objects(dist, kept)[0]  # the main process decides: others may not see a new file yet
    if kept.get("asked") == bounds:
        return TileOpt.from_json(kept["tile"])
    tile = choose()
    if dist.is_main:
        write_text(path, json.dumps({"asked": bounds, "tile": asdict(tile)}, indent=2) + "\n")
    return tile
