import math
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from models import tiling
from models.tiling import Cost, Load, bytes_of, choose, estimate, work_of
from options.schema import ValOpt
from utils.utils_dist import Dist
from utils.utils_error import UserError
from utils.utils_tile import TileOpt

GIB = 2**30
CPU = torch.device("cpu")
GOPRO = Load(Counter({(100, (720, 1280)): 11}), 4, 0)
COST = Cost(1e-6, 5000.0)


def test_the_tile_with_the_least_work_that_fits_is_chosen():
    tile = TileOpt(0, 2, (0, 0), (20, 20))
    chosen = [choose(GOPRO, tile, COST, budget) for budget in (4 * GIB, 16 * GIB, 64 * GIB, 10_000 * GIB)]
    work = [work_of(GOPRO.clips, one) for one in chosen]
    assert work == sorted(work, reverse=True), "more memory, less repeated work"
    for one, budget in zip(chosen, (4 * GIB, 16 * GIB, 64 * GIB), strict=False):
        assert sum(bytes_of(GOPRO, one, COST)) <= budget
    assert chosen[-1].size == (720, 1280), "with enough memory frames are whole"


def test_given_lengths_are_upper_bounds():
    chosen = choose(GOPRO, TileOpt(12, 2, (256, 128), (20, 20)), COST, 1000 * GIB)
    assert (chosen.frames, chosen.size) == (12, (256, 128))
    assert choose(GOPRO, TileOpt(12, 2, (256, 128), (20, 20)), COST, 1.5 * GIB).frames <= 12


def test_small_clips_get_no_larger_tiles_than_they_are():
    load = Load(Counter({(3, (48, 100)): 2, (5, (60, 80)): 1}), 4, 0)
    chosen = choose(load, TileOpt(), COST, 1000 * GIB)
    assert (chosen.frames, chosen.size) == (5, (60, 100))


def test_no_memory_is_the_users_to_mend():
    with pytest.raises(UserError, match=r'val.tile: "auto": not even 6 frames of 64 pixels fit into the 0.1 GiB'):
        choose(GOPRO, TileOpt(), COST, 0.1 * GIB)


def test_estimate_counts_calls_time_and_memory():
    tile = TileOpt(18, 2, (192, 192), (20, 20))
    lines = estimate(GOPRO, tile, COST, [11 * 192], 10 * GIB, CPU)
    assert lines[0] == (
        "11 clip(s), 1100 frames of 720x1280; tiles of 18 frames, 192 rows, 192 columns; 2,112 network evaluations"
    )
    seconds = 2112 * 18 * 192 * 192 * 1e-6
    assert f"estimate: {seconds / 60:.0f} min on cpu; {18 * 192 * 192 * 5000 / GIB:.2f} GiB in the network" in lines[1]
    assert len(lines) == 2
    assert "--tile auto" in estimate(GOPRO, TileOpt(), COST, [11], 10 * GIB, CPU)[2]


@pytest.mark.skipif(not tiling.STATUS.exists(), reason="memory of a process is read from /proc")
def test_memory_and_time_are_measured():
    held = []

    def restore(x):
        held.append(torch.ones(64 * 2**20))  # 256 MiB
        out = held.pop() if len(held) > 1 else held[0]
        return out[:1]

    cost = tiling.measure(restore, (1, 2, 4, 64, 64), CPU)
    assert 0.8 * 256 * 2**20 < cost.bytes * 2 * 64 * 64 < 1.6 * 256 * 2**20
    assert cost.seconds > 0


def test_prepare_chooses_for_all_and_says_what_comes(caplog, monkeypatch):
    shapes = []

    def restore(x):
        shapes.append(tuple(x.shape))
        return x[:, :, :3]

    clips = [SimpleNamespace(name="a", frames=["0"] * 40, size=(180, 320))]
    monkeypatch.setattr(tiling, "free_memory", lambda device: 3e8)
    monkeypatch.setattr(tiling, "measure", lambda restore, shape, device: restore(torch.zeros(*shape)) is None or COST)
    job = SimpleNamespace(dist=Dist(), restore=restore)
    with caplog.at_level("INFO", "spikevrt"):
        tile = tiling.prepare(job, 4, 0, clips, ValOpt(), TileOpt(), auto=True)
    assert shapes == [(1, 6, 4, 96, 96)], "a small probe"
    assert sum(bytes_of(Load(Counter({(40, (180, 320)): 1}), 4, 0), tile, COST)) <= 3e8
    assert math.prod(tile.size) < 180 * 320
    assert f"tiles of {tile}" in caplog.text
    assert tiling.prepare(job, 4, 0, clips, ValOpt(), TileOpt(6), auto=False) == TileOpt(6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
def test_a_card_that_is_too_small_gets_smaller_tiles():
    from models.model_vrt import ModelVRT
    from models.network_vrt import VRT
    from options.schema import TrainOpt
    from utils.utils_tile import Fitting, restore_tiled

    net = VRT(depths=[1] * 8, embed_dims=[16] * 8, num_heads=[2] * 8, indep_reconsts=[], deformable_groups=2)
    model = ModelVRT(net, TrainOpt(), Dist(device=torch.device("cuda")))
    clip = torch.rand(6, 4, 512, 512)
    cost = tiling.measure(model.restore, (1, 6, 4, 128, 128), torch.device("cuda"))
    room = cost.bytes * 6 * 256 * 256
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(room / total, 1.0))
    try:
        fitting = Fitting(TileOpt())
        frames = list(restore_tiled(model.restore, lambda a, b: clip[a:b], 6, (512, 512), fitting))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert len(frames) == 6
    assert max(fitting.tile.size) < 512
