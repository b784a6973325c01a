"""train.compile: the same numbers, plain names, and a way back."""

import logging
from functools import partial

import pytest
import torch
from test_training_parts import TinyNet, batch

from models import model_vrt
from models.compiled import Compiled
from models.model_vrt import ModelVRT
from options.schema import TrainOpt
from utils.utils_dist import Dist
from utils.utils_rgbspike import RGBSpike

OPT = TrainOpt(compile=True, E_decay=0.5, total_iter=10, fix_iter=2, fix_keys=("spynet",), G_optimizer_lr=1e-2)


def broken(_graph, _inputs):
    raise OSError("no C++ compiler here")


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()


@pytest.fixture
def backend(monkeypatch, request):
    monkeypatch.setattr(model_vrt, "Compiled", partial(Compiled, backend=request.param))


@pytest.fixture
def lines(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("spikevrt"), "propagate", True)
    with caplog.at_level(logging.INFO, "spikevrt"):
        yield lambda word: [record.getMessage() for record in caplog.records if word in record.getMessage()]


@pytest.mark.parametrize("backend", ["aot_eager"], indirect=True)
def test_compiled_training_and_restoring_equal_the_plain_ones(backend, lines):
    plain = ModelVRT(TinyNet(), OPT.model_copy(update={"compile": False}), Dist())
    fast = ModelVRT(TinyNet(), OPT, Dist())
    for step in range(3):  # the first with frozen parts
        values = [model.train_step([batch()], step) for model in (plain, fast)]
        assert values[0] == pytest.approx(values[1], rel=1e-5)
        x = RGBSpike(torch.rand(1, 2, 3, 4, 4), torch.rand(1, 2, 1, 4, 4))
        assert torch.allclose(plain.restore(x), fast.restore(x), atol=1e-6)
    for kind in ("G", "E"):
        states = [model.state_dicts()[kind] for model in (plain, fast)]
        assert states[0].keys() == states[1].keys()
        assert all(torch.allclose(states[0][key], states[1][key], atol=1e-6) for key in states[0])
    assert len(lines("compiled for 1x2x3x4x4, testing")) == 1
    assert len(lines("compiled for 1x2x3x4x4, training")) == 2  # once more when the frozen parts start to learn


@pytest.mark.parametrize("backend", [broken], indirect=True)
def test_without_a_compiler_training_goes_on_with_one_message(backend, lines):
    plain = ModelVRT(TinyNet(), OPT.model_copy(update={"compile": False, "fix_iter": 0}), Dist())
    model = ModelVRT(TinyNet(), OPT.model_copy(update={"fix_iter": 0}), Dist())
    for step in range(2):
        assert model.train_step([batch()], step) == plain.train_step([batch()], step)
    (line,) = lines("compiling failed")
    assert "no C++ compiler here" in line
    assert not lines("compiled for")


def test_an_error_of_the_network_itself_is_no_failed_compilation():
    net = Compiled(TinyNet(), backend="eager")
    with pytest.raises(RuntimeError, match="shape|size|mat"):
        net(torch.rand(1, 2, 7, 4, 4))


@pytest.mark.parametrize("backend", ["aot_eager"], indirect=True)
def test_several_processes_train_the_compiled_network(backend):
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        alone, among = ModelVRT(TinyNet(), OPT, Dist()), ModelVRT(TinyNet(), OPT, Dist(world_size=2))
        for step in range(3):
            norms = [model.train_step([batch(), batch(2.0)], step)["grad_norm"] for model in (alone, among)]
            assert norms[0] == pytest.approx(norms[1], rel=1e-5)
        assert among.state_dicts()["G"].keys() == TinyNet().state_dict().keys()
    finally:
        torch.distributed.destroy_process_group()
