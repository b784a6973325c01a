"""The exported network is the network, bit for bit, for any input of the shape, in programs without this project."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_network import tiny
from torch import nn

from models.exported import export_network
from models.network_vrt import VRT
from models.vrt.linear import without_onednn
from scripts import export_network as script
from utils import utils_checkpoint
from utils.utils_error import UserError

TINY = tiny(stages=9, depths=[2] + [1] * 8, indep_reconsts=[8], in_chans=4)
SHAPE = (1, 3, 4, 18, 28)  # neither side is a whole number of windows, and windows shift
ALONE = """
import sys, torch, torchvision
net = torch.export.load(sys.argv[1]).module()
given = torch.load(sys.argv[2])
found = net(given["x"])
assert not found.requires_grad
torch.save({"out": found, "modules": sorted(sys.modules)}, sys.argv[3])
"""


def lively(**changes):
    torch.manual_seed(0)
    net = VRT(**TINY | changes).eval()
    for parameter in net.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.2)
    return net


@pytest.fixture(scope="module")
def net():
    return lively()


@pytest.fixture(scope="module")
def portable(net):
    return export_network(net, SHAPE)


@pytest.fixture
def torchvisions(monkeypatch):
    monkeypatch.setenv("SPIKEVRT_DEFORM", "torchvision")


def output(net, x):
    with torch.no_grad(), without_onednn():  # oneDNN's sums round otherwise, by 2e-6
        return net(x)


def operators(program):
    graphs = [module for module in program.graph_module.modules() if isinstance(module, torch.fx.GraphModule)]
    return {str(node.target) for module in graphs for node in module.graph.nodes if node.op == "call_function"}


def test_exported_network_gives_the_networks_output(net, portable, torchvisions):
    exported = portable.module()
    for seed in (1, 2):
        x = torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed))
        wanted = output(net, x)
        assert (wanted - x[:, :, :3]).abs().max() > 0.1
        assert torch.equal(exported(x), wanted)


def test_portable_graphs_hold_pytorchs_operators_alone(portable):
    assert not [name for name in operators(portable) if "spikevrt" in name or "mkldnn" in name]
    assert "torchvision.deform_conv2d.default" in operators(portable)


def test_the_projects_operator_stays_on_request_and_the_network_as_it_is(net, monkeypatch):
    before = {key: value.clone() for key, value in net.state_dict().items()}
    net.train()
    own = export_network(net, (1, 2, 4, 8, 8), portable=False)
    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert "spikevrt.deform_conv2d.default" in operators(own)
    x = torch.rand(1, 2, 4, 8, 8)
    wanted = output(net.eval(), x)
    assert torch.equal(own.module()(x), wanted)
    monkeypatch.setenv("SPIKEVRT_DEFORM", "torchvision")
    assert torch.allclose(own.module()(x), wanted, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in own.module().parameters())


def test_nothing_of_the_machine_goes_along(portable):
    here = str(Path(__file__).resolve().parents[2])
    assert all(here not in str(node.meta.get("stack_trace")) for node in portable.graph.nodes)
    assert portable.example_inputs is None


@pytest.mark.parametrize("shape", [(1, 3, 4, 16), (1, 0, 4, 16, 16), (1, 3, 5, 16, 16)])
def test_shapes_that_are_none_are_refused(net, shape):
    with pytest.raises(UserError, match="shape of the exported network|has 5 channels"):
        export_network(net, shape)


@pytest.mark.slow
def test_the_script_writes_a_program_for_others(tmp_path, monkeypatch, torchvisions, capsys):
    monkeypatch.chdir(tmp_path)
    net = lively(depths=[1] * 9)
    utils_checkpoint.write_file(net.state_dict(), Path("w.pth"))
    Path("tiny.json").write_text(json.dumps({"task": "tiny", "netG": TINY | {"depths": [2] * 9}}))
    words = ["--opt", "tiny.json", "--weights", "w.pth", "--tile", "2", "9", "16", "--set", f"netG.depths={[1] * 9}"]
    script.main(words)
    assert "tiny.pt2: " in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        script.main(words)
    assert stop.value.code == 2  # it does not replace a file

    x = torch.rand(1, 2, 4, 9, 16)
    torch.save({"x": x}, "x.pt")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    files = [str(tmp_path / name) for name in ("tiny.pt2", "x.pt", "out.pt")]
    subprocess.run([sys.executable, "-I", "-c", ALONE, *files], cwd=elsewhere, check=True)
    result = torch.load("out.pt")
    assert not {"models", "utils", "options"} & set(result["modules"])
    assert torch.equal(result["out"], output(net, x))


def test_a_wrong_program_is_not_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    utils_checkpoint.write_file(lively(depths=[1] * 9).state_dict(), Path("w.pth"))
    Path("tiny.json").write_text(json.dumps({"task": "tiny", "netG": TINY | {"depths": [1] * 9}}))
    monkeypatch.setattr(script, "compare", lambda *_: torch.ones(1))
    monkeypatch.setattr(script, "export_network", lambda *_, **__: torch.export.export(nn.Identity(), (torch.ones(1),)))
    with pytest.raises(SystemExit) as stop:
        script.main(["--opt", "tiny.json", "--weights", "w.pth", "--tile", "2", "8", "8"])
    assert stop.value.code == 1
    assert "is not written" in capsys.readouterr().err
    assert not Path("tiny.pt2").exists()
