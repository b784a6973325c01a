import math
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tiny_network import tiny

from models.memory import choose_tile, machine
from models.memory.choose_tile import bytes_of, choose, estimate, first_fitting
from models.memory.machine import CostPerPixel, MemoryBudget
from options.schema import ValOpt
from utils.processes import host_memory
from utils.tiles.choice import Workload, candidates, smaller, work_of
from utils.utils_dist import Dist
from utils.utils_rgbspike import RGBSpike
from utils.utils_tile_opt import TileOpt

GIB = 2**30
CPU = torch.device("cpu")
GOPRO = Workload(Counter({(100, (720, 1280)): 11}), 4, 0)
COST = CostPerPixel(1e-6, 5000.0)
DEBLUR = SimpleNamespace(in_chans=4, nonblind_denoising=False, extra_frames=0, upscale=1)


def room(gib):
    return MemoryBudget(gib * GIB, gib * GIB, shared=True)


def test_the_tile_with_the_least_work_that_fits_is_chosen():
    tile = TileOpt(0, 2, (0, 0), (20, 20))
    chosen = [choose(GOPRO, tile, COST, room(gib)) for gib in (4, 16, 64, 10_000)]
    work = [work_of(GOPRO, one) for one in chosen]
    assert work == sorted(work, reverse=True), "more memory, less repeated work"
    for one, budget in zip(chosen, (4 * GIB, 16 * GIB, 64 * GIB), strict=False):
        assert sum(bytes_of(GOPRO, one, COST)) <= budget
    assert chosen[-1].size == (720, 1280), "with enough memory frames are whole"


def test_one_order_of_candidates_serves_the_choice_the_proposal_and_the_retry():
    asked = TileOpt(0, 2, (0, 0), (20, 20))
    order = candidates(GOPRO, asked)
    work = [work_of(GOPRO, one) for one in order]
    assert work == sorted(work), "the least work first"
    for gib in (4, 16, 64):
        fitting = [one for one in order if room(gib).holds(*bytes_of(GOPRO, one, COST))]
        assert choose(GOPRO, asked, COST, room(gib)) == first_fitting(GOPRO, asked, COST, room(gib)) == fitting[0]
    tile, tried = replace(asked, batch=4), []
    while tile is not None:
        tried.append(bytes_of(GOPRO, tile, COST)[0])
        before, tile = tile, smaller(GOPRO, tile)
        assert tile is None or tile.batch < before.batch or tile in candidates(GOPRO, before)
    assert tried == sorted(set(tried), reverse=True), "each needs less memory"
    assert (before.frames, before.size, before.batch) == (6, (64, 64), 1), "down to the smallest"


def test_a_wide_overlap_does_not_keep_tiles_from_shrinking():
    tiles = candidates(GOPRO, TileOpt(0, 2, (256, 256), (200, 30)))
    assert {one.size: one.overlap for one in tiles}[64, 64] == (32, 30)
    assert {one.size: one.overlap for one in tiles}[256, 256] == (200, 30), "of the asked size it stays"


def test_given_lengths_are_upper_bounds():
    chosen = choose(GOPRO, TileOpt(12, 2, (256, 128), (20, 20)), COST, room(1000))
    assert (chosen.frames, chosen.size) == (12, (256, 128))
    assert choose(GOPRO, TileOpt(12, 2, (256, 128), (20, 20)), COST, room(1.5)).frames <= 12


def test_small_clips_get_no_larger_tiles_than_they_are():
    load = Workload(Counter({(3, (48, 100)): 2, (5, (60, 80)): 1}), 4, 0)
    chosen = choose(load, TileOpt(), COST, room(1000))
    assert (chosen.frames, chosen.size) == (5, (60, 100))


def test_where_nothing_fits_the_smallest_tile_is_tried(caplog):
    chosen = choose(GOPRO, TileOpt(), COST, room(0.01))
    assert (chosen.frames, chosen.size) == (6, (64, 64))
    assert "memory is short" in caplog.text


def test_a_card_and_the_host_are_two_memories():
    tile = TileOpt(100, 2, (720, 1280))
    network, around = bytes_of(GOPRO, tile, COST)
    assert MemoryBudget(network, around, shared=False).holds(network, around)
    assert not MemoryBudget(network, around / 2, shared=False).holds(network, around)
    assert not MemoryBudget(network, network, shared=True).holds(network, around)


def test_super_resolution_holds_larger_frames():
    load = Workload(Counter({(100, (180, 320)): 1}), 3, 0, 4)
    assert bytes_of(load, TileOpt(), COST)[1] == 4 * 180 * 320 * (100 * 3 + 2 * 100 * 3 * 16)


def test_frames_between_others_are_made_of_more():
    load = Workload(Counter({(39, (64, 64)): 1}), 3, 3)
    assert work_of(load, TileOpt(6, 0)) == 7 * (6 + 3) * 64 * 64
    assert work_of(load, TileOpt(6, 0)) > work_of(load, TileOpt(24, 0))


def test_estimate_counts_calls_time_and_memory():
    tile = TileOpt(18, 2, (192, 192), (20, 20))
    lines = estimate(GOPRO, tile, COST, [11 * 192], room(10), CPU)
    assert lines[0] == (
        "11 clips, 1,100 frames of 720x1280; tiles of 18 frames, 192 rows, 192 columns; 2,112 network evaluations"
    )
    seconds = 2112 * 18 * 192 * 192 * 1e-6
    assert f"estimate: {seconds / 60:.0f} min on cpu; {18 * 192 * 192 * 5000 / GIB:.2f} GiB in the network" in lines[1]
    assert len(lines) == 2
    assert "--tile auto" in estimate(GOPRO, TileOpt(), COST, [11], room(10), CPU)[2]


@pytest.mark.skipif(not machine.STATUS.exists(), reason="memory of a process is read from /proc")
def test_memory_and_time_are_measured():
    held = []

    def restore(x):
        held.append(torch.ones(64 * 2**20))  # 256 MiB
        out = held.pop() if len(held) > 1 else held[0]
        return out[:1]

    cost = machine.measure(restore, (1, 2, 4, 64, 64), CPU)
    assert 0.8 * 256 * 2**20 < cost.bytes * 2 * 64 * 64 < 1.6 * 256 * 2**20
    assert cost.seconds > 0


def test_prepare_chooses_for_all_and_says_what_comes(caplog, monkeypatch):
    shapes = []

    def restore(x):
        shapes.append((tuple(x.shape), tuple(x.spike.shape)))
        return x.rgb

    x = RGBSpike(torch.zeros(1, 3, 180, 320), torch.zeros(1, 1, 90, 160))
    clips = [SimpleNamespace(name="a", frames=["0"] * 40, size=(180, 320), network_input=lambda start, stop: x)]
    monkeypatch.setattr(choose_tile, "memory_budget", lambda device: MemoryBudget(3e8, 3e8, shared=True))
    monkeypatch.setattr(
        choose_tile, "measure", lambda restore, shape, device: restore(torch.zeros(*shape)) is None or COST
    )
    with caplog.at_level("INFO", "spikevrt"):
        tile = choose_tile.prepare(restore, Dist(), DEBLUR, clips, ValOpt(), TileOpt(), auto=True)
    assert shapes == [((1, 6, 3, 96, 96), (1, 6, 1, 48, 48))], "a small probe, with spikes on a grid of their own"
    assert sum(bytes_of(Workload(Counter({(40, (180, 320)): 1}), 4), tile, COST)) <= 3e8
    assert math.prod(tile.size) < 180 * 320
    assert f"tiles of {tile}" in caplog.text
    assert choose_tile.prepare(restore, Dist(), DEBLUR, clips, ValOpt(), TileOpt(6), auto=False) == TileOpt(6)


def test_a_probe_that_does_not_fit_a_card_is_a_smaller_one_and_never_an_error(monkeypatch):
    shapes, failing = [], []

    def measure(restore, shape, device):
        shapes.append(shape)
        if shape[1] in failing:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return COST

    monkeypatch.setattr(choose_tile, "measure", measure)
    card = torch.device("cuda")
    for frames, expected in ((), COST), ((12,), COST), ((12, 6), CostPerPixel(0, 0)):
        failing[:] = frames
        shapes.clear()
        assert choose_tile.probed(None, GOPRO, TileOpt(), card) == expected
    assert shapes == [(1, 12, 4, 256, 256), (1, 6, 4, 96, 96)]


def test_files_that_a_container_has_read_do_not_count_as_used(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text(f"{8 * GIB}\n")
    (tmp_path / "memory.current").write_text(f"{7 * GIB}\n")
    (tmp_path / "memory.stat").write_text(f"anon {GIB}\nactive_file {2 * GIB}\ninactive_file {4 * GIB}\n")
    monkeypatch.setattr(host_memory, "GROUPS", [(tmp_path / "memory.max", tmp_path / "memory.current")])
    monkeypatch.setattr(host_memory, "MEMINFO", tmp_path / "none")
    assert machine.memory_budget(CPU).host == pytest.approx(machine.CPU_SHARE * 7 * GIB)


def test_a_system_that_tells_little_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "status").write_text("Name:\tpython\n")
    monkeypatch.setattr(machine, "STATUS", tmp_path / "status")
    monkeypatch.setattr(machine, "CLEAR_REFS", tmp_path / "none" / "clear_refs")
    assert machine.measure(lambda x: x, (1, 2, 4, 8, 8), CPU).bytes == 16, "at least the input"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
def test_a_card_that_is_too_small_gets_smaller_tiles():
    from models.model_vrt import ModelVRT
    from models.network_vrt import VRT
    from options.schema import TrainOpt
    from utils.tiles.choice import ShrinkingTile
    from utils.utils_tile import restore_tiled

    net = VRT(**tiny(width=16, heads=2, in_chans=4, window_size=[6, 8, 8], mlp_ratio=2.0, deformable_groups=2))
    model = ModelVRT(net, TrainOpt(), Dist(device=torch.device("cuda")))
    clip = torch.rand(6, 4, 512, 512)
    cost = machine.measure(model.restore, (1, 6, 4, 128, 128), torch.device("cuda"))
    room = cost.bytes * 6 * 256 * 256
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(room / total, 1.0))
    try:
        fitting = ShrinkingTile(TileOpt())
        frames = list(restore_tiled(model.restore, lambda a, b: clip[a:b], 6, (512, 512), fitting))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert len(frames) == 6
    assert max(fitting.tile.size) < 512
