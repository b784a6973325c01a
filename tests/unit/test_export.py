"""The exported network is the network, bit for bit, for any input of the shape, in programs without this project."""

import json
import subprocess
import sys
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from tiny_network import tiny
from torch import nn

from models import exported
from models.exported import export_network, export_onnx
from models.fusion.guide import Guide
from models.network_vrt import VRT
from models.vrt.linear import without_onednn
from scripts import export_network as script
from utils import utils_checkpoint
from utils.utils_error import UserError

TINY_GUIDE = {"planes": 3, "width": 8, "blocks": [1, 1]}
TINY = tiny(depths=[2] + [1] * 7, indep_reconsts=[7], in_chans=4)
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
def file(net, tmp_path_factory):
    """The network's .pt2 file, written by the script."""
    folder = tmp_path_factory.mktemp("torch")
    utils_checkpoint.write_file(net.state_dict(), folder / "w.pth")
    (folder / "tiny.json").write_text(json.dumps({"task": "tiny", "netG": TINY | {"mlp_ratio": 2.0}}))
    words = ["--opt", folder / "tiny.json", "--weights", folder / "w.pth", "--tile", SHAPE[1], *SHAPE[3:]]
    words += ["--out", folder / "tiny.pt2", "--set", "netG.mlp_ratio=1.0"]
    script.main([str(word) for word in words])
    return folder / "tiny.pt2"


@pytest.fixture(scope="module")
def portable(file):
    return torch.export.load(file)


@pytest.fixture
def torchvisions(monkeypatch):
    monkeypatch.setenv("SPIKEVRT_DEFORM", "torchvision")


def output(net, *inputs):
    with torch.no_grad(), without_onednn():  # oneDNN's sums round otherwise, by 2e-6
        return net(*inputs)


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


def test_the_projects_operator_stays_on_request_and_the_network_with_two_inputs_as_it_is(monkeypatch):
    net = lively(**tiny(in_chans=4), fusion="guide", guide=TINY_GUIDE)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    net.train()
    own = export_network(net, (1, 2, 4, 10, 12), portable=False)
    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert "spikevrt.deform_conv2d.default" in operators(own)
    inputs = [x[None] for x in guide_inputs(net.fusion.guide, 2, 5, 6)]
    wanted = output(net.eval(), *inputs)
    assert (wanted - inputs[0]).abs().max() > 0.1
    assert torch.equal(own.module()(*inputs), wanted)
    monkeypatch.setenv("SPIKEVRT_DEFORM", "torchvision")
    assert torch.allclose(own.module()(*inputs), wanted, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in own.module().parameters())


def test_nothing_of_the_machine_goes_along(file, portable):
    content = file.read_bytes()
    assert str(Path(__file__).resolve().parents[2]).encode() not in content
    assert str(file.parent).encode() not in content
    assert portable.example_inputs is None


@pytest.mark.parametrize("shape", [(1, 3, 4, 16), (1, 0, 4, 16, 16), (1, 3, 5, 16, 16)])
def test_shapes_that_are_none_are_refused(net, shape):
    with pytest.raises(UserError, match="shape of the exported network|has 5 channels"):
        export_network(net, shape)


@pytest.mark.slow
def test_the_file_is_a_program_for_others(file, tmp_path, torchvisions, net):
    x = torch.rand(SHAPE)
    torch.save({"x": x}, tmp_path / "x.pt")
    files = [file, tmp_path / "x.pt", tmp_path / "out.pt"]
    subprocess.run([sys.executable, "-I", "-c", ALONE, *files], cwd=tmp_path, check=True)
    result = torch.load(tmp_path / "out.pt")
    assert not {"models", "utils", "options"} & set(result["modules"])
    assert torch.equal(result["out"], output(net, x))


def test_the_script_replaces_no_file(file, capsys):
    with pytest.raises(SystemExit) as stop:
        script.main([*write_guide(file.parent), "--tile", "2", "8", "8", "--out", str(file)])
    assert stop.value.code == 2
    assert "exists" in capsys.readouterr().err


def test_a_wrong_program_is_not_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    utils_checkpoint.write_file(lively().state_dict(), Path("w.pth"))
    Path("tiny.json").write_text(json.dumps({"task": "tiny", "netG": TINY}))
    monkeypatch.setattr(script, "compare", lambda *_: torch.ones(1))
    monkeypatch.setattr(script, "export_network", lambda *_, **__: torch.export.export(nn.Identity(), (torch.ones(1),)))
    with pytest.raises(SystemExit) as stop:
        script.main(["--opt", "tiny.json", "--weights", "w.pth", "--tile", "2", "8", "8"])
    assert stop.value.code == 1
    assert "is not written" in capsys.readouterr().err
    assert not Path("tiny.pt2").exists()


def lively_guide(**changes):
    torch.manual_seed(0)
    guide = Guide(**TINY_GUIDE | changes).eval()
    for parameter in guide.parameters():
        nn.init.normal_(parameter, std=0.1)
    return guide


def guide_inputs(guide, frames, rows, columns):
    rgb = torch.rand(frames, 3, guide.ratio * rows, guide.ratio * columns)
    return (rgb, torch.rand(frames, guide.planes + 2, rows, columns)) if guide.planes else (rgb,)


@torch.no_grad()
def assert_onnx_equals(model, guide, *inputs):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    found = session.run(None, dict(zip(("rgb", "spike"), (x.numpy() for x in inputs), strict=False)))[0]
    wanted = guide(*(x[None] for x in inputs))[0]
    assert (wanted - inputs[0]).abs().max() > 0.1
    torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=0, atol=1e-4)


def write_guide(folder, **options):
    """An option file of the tiny guide and its weights; returns the script's words."""
    utils_checkpoint.write_file(lively_guide().state_dict(), folder / "w.pth")
    net = {"net_type": "guide", "guide": TINY_GUIDE}
    (folder / "tiny.json").write_text(json.dumps({"task": "tiny", "netG": net} | options))
    return ["--opt", str(folder / "tiny.json"), "--weights", str(folder / "w.pth")]


writes_onnx = pytest.mark.skipif(torch.__version__ < exported.ONNX_TORCH, reason="this PyTorch cannot write ONNX")


@pytest.fixture(scope="module")
def any_size(tmp_path_factory):
    """An ONNX file of the tiny guide for any size, written by the script."""
    folder = tmp_path_factory.mktemp("onnx")
    out = folder / "any.onnx"
    spikes = {"dataset_type": "VideoRecurrentTestDatasetRGBSpike", "dataroot_lq": "l", "dataroot_spike": "s"}
    data = {"test": spikes | {"spike": {"representation": "moment", "planes": 3, "steps_per_plane": 5}}}
    script.main([*write_guide(folder, datasets=data), "--format", "onnx", "--out", str(out)])
    return out


@writes_onnx
@pytest.mark.parametrize("size", [(1, 16, 24), (5, 12, 12), (2, 13, 7), (1, 3, 4), (2, 1, 1)])
def test_the_guides_onnx_file_takes_any_size(any_size, size):
    guide = lively_guide()
    assert_onnx_equals(any_size.read_bytes(), guide, *guide_inputs(guide, *size))


@writes_onnx
def test_an_onnx_file_says_how_to_make_its_inputs_and_nothing_of_the_machine(any_size):
    notes = {entry.key: entry.value for entry in onnx.load(any_size).metadata_props}
    assert notes.items() >= {"ratio": "2", "planes": "3", "steps_per_plane": "5", "gain": "picture"}.items()
    assert "K groups" in notes["spike"]
    content = any_size.read_bytes()
    assert str(Path(__file__).resolve().parents[2]).encode() not in content
    assert b".py" not in content
    assert str(any_size.parent).encode() not in content


@writes_onnx
def test_an_onnx_file_of_one_size_takes_that_size_only():
    guide = lively_guide()
    model = export_onnx(guide, (3, 18, 26)).SerializeToString()
    assert_onnx_equals(model, guide, *guide_inputs(guide, 3, 9, 13))
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument, match="dimensions"):
        assert_onnx_equals(model, guide, *guide_inputs(guide, 3, 9, 12))


@writes_onnx
def test_the_onnx_file_of_an_rgb_guide_takes_odd_sizes():
    guide = lively_guide(planes=0)
    model = export_onnx(guide).SerializeToString()
    for size in ((1, 3, 15, 17), (3, 3, 9, 30)):
        assert_onnx_equals(model, guide, torch.rand(size))


@writes_onnx
def test_an_onnx_file_that_differs_is_not_written(any_size, tmp_path, monkeypatch, capsys):
    other = lively_guide()
    other.conv_last.bias.data += 2e-4
    words = write_guide(tmp_path)
    utils_checkpoint.write_file(other.state_dict(), tmp_path / "w.pth")
    monkeypatch.setattr(script, "export_onnx", lambda *_: onnx.load(any_size))
    with pytest.raises(SystemExit) as stop:
        script.main([*words, "--format", "onnx", "--out", str(tmp_path / "o.onnx")])
    assert stop.value.code == 1
    assert "expected at most 0.0001" in capsys.readouterr().err
    assert not [path for path in tmp_path.iterdir() if "onnx" in path.name]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--format", "onnx", "--set", "netG.net_type=vrt"],
            "only the guide can be written as ONNX; use --format torch",
        ),
        (["--format", "onnx", "--tile", "1", "9", "16"], "found 9x16, expected multiples of netG.guide.ratio"),
        (["--tile", "1", "16", "9"], "found 16x9, expected multiples of netG.guide.ratio"),
        (["--format", "onnx", "--own_operator"], "no effect on --format onnx"),
        (["--format", "onnx", "--device", "cuda"], "no effect on --format onnx"),
        (["--format", "onnx", "--out", "a.pt2"], "expected '.onnx'; or use --format torch"),
        (["--tile", "1", "8", "8", "--out", "a.onnx"], "expected '.pt2'; or use --format onnx"),
        ([], "--tile T H W is missing"),
    ],
)
def test_calls_that_cannot_export_are_refused_in_one_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        script.main([*write_guide(tmp_path), *words])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_pytorch_that_cannot_write_onnx_is_named(monkeypatch):
    monkeypatch.setattr(exported, "ONNX_TORCH", "99")
    with pytest.raises(
        UserError, match=r"ONNX: PyTorch 2\..* found, expected 99 or newer; run `pip install -U torch`$"
    ):
        export_onnx(lively_guide())


@writes_onnx
def test_missing_onnx_libraries_are_named(monkeypatch):
    for name in ("onnx", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match="run `pip install onnx onnxscript`$"):
        export_onnx(lively_guide())


def test_a_torch_file_of_the_guide_has_two_inputs(tmp_path, capsys):
    out = tmp_path / "guide.pt2"
    script.main([*write_guide(tmp_path), "--tile", "2", "18", "28", "--out", str(out)])
    assert "(1, 2, 3, 18, 28) and (1, 2, 5, 9, 14)" in capsys.readouterr().out
    guide = lively_guide()
    inputs = [x[None] for x in guide_inputs(guide, 2, 9, 14)]
    wanted = output(guide, *inputs)
    assert torch.equal(torch.export.load(out).module()(*inputs), wanted)
