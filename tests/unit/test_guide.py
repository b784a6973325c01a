"""The guide: it starts from the blurred frame, sees no farther than it says, and asks for what it can read."""

import json

import pytest
import torch
from tiny_network import tiny
from tiny_set import options
from trainee import same_weights

from data.dataset_video_test import VideoTestDataset
from models.fusion.guide import Guide
from models.memory.estimate import flops_of, input_shapes, memory_of
from models.network_vrt import VRT
from models.select_model import define_restorer
from models.select_network import define_G
from options.schema import Opt
from options.schema_network import GUIDE_SIZES, NetOpt
from utils import utils_option
from utils.checkpoint.option_changes import changes
from utils.utils_checkpoint import load_weights, write_weights
from utils.utils_dist import Dist
from utils.utils_error import UserError
from utils.utils_rgbspike import RGBSpike
from utils.utils_tile import restore_tiled
from utils.utils_tile_opt import TileOpt

SMALL = {"planes": 3, "width": 4, "blocks": (1, 1)}
DATASET = {
    "dataset_type": "VideoRecurrentTrainDatasetRGBSpike",
    "dataroot_gt": "a",
    "dataroot_lq": "b",
    "dataroot_spike": "c",
    "spike": {"representation": "moment", "planes": 5},
}


def awake(guide):
    """With random values in place of the zeros that training starts from."""
    torch.manual_seed(1)
    for parameter in guide.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.5)
    return guide


def seen(ratio, planes, rows=7, cols=9, frames=2):
    """Frames and spikes of any ratio; without planes of spikes there are none."""
    torch.manual_seed(ratio)
    rgb = torch.rand(1, frames, 3, ratio * rows, ratio * cols)
    return (rgb, torch.rand(1, frames, planes + 2, rows, cols)) if planes else (rgb,)


@pytest.mark.parametrize("planes", [0, 1, 5, 11])
@pytest.mark.parametrize("ratio", [1, 2, 3, 4])
def test_a_new_guide_returns_the_frames(planes, ratio):
    for rows, cols in ((1, 1), (7, 9), (8, 5)):
        x = seen(ratio, planes, rows, cols)
        out = Guide(planes=planes, width=4, blocks=(1, 1))(*x)
        assert torch.equal(out, x[0])
        assert awake(Guide(planes=planes, width=4, blocks=(1, 1)))(*x).shape == x[0].shape


@pytest.mark.parametrize("own", [{}, {"ratio": 1}, {"ratio": 3}, {"stride": 2}, {"blocks": (1,)}])
def test_a_new_guide_of_any_grid_returns_the_frames(own):
    for ratio in (1, 2, 3):
        x = seen(ratio, 3)
        guide = Guide(**SMALL | own)
        assert torch.equal(guide(*x), x[0])
        assert not torch.equal(awake(guide)(*x), x[0])


@pytest.mark.parametrize("planes", [0, 3])
def test_training_moves_every_parameter_within_two_steps(planes):
    """First the last layer, which starts from zero, then all that lies before it."""
    guide, x = Guide(**SMALL | {"planes": planes}), seen(2, planes)
    optimizer, moved = torch.optim.SGD(guide.parameters(), lr=0.1), []
    for _ in range(2):
        optimizer.zero_grad()
        (guide(*x) - 0.5).square().mean().backward()
        moved.append({name for name, parameter in guide.named_parameters() if parameter.grad.any()})
        optimizer.step()
    assert moved[0] == {"conv_last.weight", "conv_last.bias"}
    assert moved[1] == {name for name, _ in guide.named_parameters()}


# Tiles


@pytest.mark.parametrize("own", [{}, {"ratio": 1}, {"stride": 2}, {"blocks": (1, 1, 1)}, {"planes": 0}])
@pytest.mark.parametrize("ratio", [1, 2, 3, 4])
def test_a_pixel_depends_on_nothing_beyond_the_reach(own, ratio):
    guide = awake(Guide(**SMALL | own)).double()
    side = 12 * (2 * (guide.reach + guide.grid) // 12 + 1)
    x = [part.double().requires_grad_() for part in seen(ratio, guide.planes, side // ratio, side // ratio, 1)]
    at, out = side // 2 - 1, guide(*x)
    out[0, 0, :, at, at].sum().backward()
    for part in x:
        step, found = side // part.shape[-1], part.grad[0, 0].abs().sum(0).nonzero()
        assert ((at - (found + 1) * step + 1).clamp(min=0) <= guide.reach).all()
        assert ((found * step - at).clamp(min=0) <= guide.reach).all()
        assert (at - found * step).abs().max() > guide.reach / 3, "or tiles would overlap for nothing"


@pytest.mark.parametrize("own", [{}, {"stride": 2}, {"blocks": (1, 1, 1)}, {"planes": 0}])
@pytest.mark.parametrize("ratio", [1, 2, 3, 4])
def test_the_inside_of_a_tile_is_that_of_the_frame(own, ratio):
    guide = awake(Guide(**SMALL | own)).eval().double()
    length = 12 * (-(-(3 * guide.reach + 4 * guide.grid) // 12))
    x = RGBSpike(*(part[0].double() for part in seen(ratio, 3, length // ratio, length // ratio, 1)))
    if not guide.planes:
        x = x.rgb
    tile = TileOpt(0, 0, (2 * guide.reach + 4 * guide.grid,) * 2, (0, 0), grid=guide.grid)
    places, parts = [], []

    @torch.no_grad()
    def restore(window):
        rgb, *spike = (window.rgb, window.spike) if isinstance(window, RGBSpike) else (window,)
        places.append(rgb)
        parts.append(guide(rgb, *spike))
        return parts[-1]

    list(restore_tiled(restore, lambda start, stop: x[start:stop], 1, (length, length), tile))
    frame = x.rgb if isinstance(x, RGBSpike) else x
    whole = restore(x[None])
    assert len(parts) > 4
    for place, part in zip(places[:-1], parts[:-1], strict=True):
        top, left = corner(frame, place[0])
        assert (top % guide.grid, left % guide.grid) == (0, 0)
        height, width = part.shape[-2:]
        rows, cols = (
            slice(first and first + guide.reach, first + side - (guide.reach if first + side < length else 0))
            for first, side in ((top, height), (left, width))
        )
        inside = part[..., rows.start - top : rows.stop - top, cols.start - left : cols.stop - left]
        assert inside.numel()
        torch.testing.assert_close(inside, whole[..., rows, cols], atol=1e-9, rtol=0)


def corner(frame, tile):
    """Where a tile begins."""
    height, width = tile.shape[-2:]
    return next(
        (top, left)
        for top in range(frame.shape[-2] - height + 1)
        for left in range(frame.shape[-1] - width + 1)
        if torch.equal(frame[..., top, left], tile[..., 0, 0])
    )


def test_frames_in_shares_are_those_at_once(monkeypatch):
    guide, x = awake(Guide(**SMALL)).eval().double(), [part.double() for part in seen(2, 3, frames=5)]
    whole = guide(*x)
    monkeypatch.setattr("models.fusion.guide.PIXELS_AT_ONCE", 200)
    shares, on_grid = [], guide.on_grid
    monkeypatch.setattr(guide, "on_grid", lambda rgb, planes: shares.append(len(rgb)) or on_grid(rgb, planes))
    with torch.no_grad():
        torch.testing.assert_close(guide(*x), whole, atol=1e-12, rtol=0)
    assert len(shares) > 1
    assert sum(shares) == len(x[0].flatten(0, 1))


@pytest.mark.parametrize("size", GUIDE_SIZES)
def test_options_and_network_agree_on_the_grid(size):
    opt = NetOpt(net_type="guide", guide={"size": size, "planes": 5})
    assert define_G(opt).grid == opt.grid > 1
    assert NetOpt().grid == 1


@pytest.mark.parametrize(
    ("net", "planes"),
    [
        (Guide(**SMALL), [3, 5]),
        (Guide(**SMALL | {"planes": 0, "ratio": 3}), [3]),
        (VRT(**tiny(in_chans=4, fusion="guide", guide=SMALL | {"ratio": 3})), [3, 5]),
        (VRT(**tiny(in_chans=4, fusion="guide", guide=SMALL, nonblind_denoising=True)), [4, 5]),
        (VRT(**tiny(in_chans=5)), [5]),
    ],
)
def test_estimates_of_cost_use_inputs_that_the_network_takes(net, planes):
    shapes = input_shapes(net, (1, 2, 99, 17, 20))
    assert [shape[2] for shape in shapes] == planes
    with torch.no_grad():
        assert net(*map(torch.zeros, shapes)).shape == (1, 2, 3, *shapes[0][3:])
    if isinstance(net, Guide):  # as of VRT, which takes seconds
        assert memory_of(net, (1, 2, 99, 17, 20), training=True).peak > 0
        assert flops_of(net, (1, 2, 99, 17, 20)).total() > 0


# VRT behind a guide


@pytest.mark.parametrize("planes", [0, 3])
def test_rgb_weights_behind_a_new_guide_restore_as_before(planes):
    torch.manual_seed(0)
    plain = VRT(**tiny()).eval()
    torch.nn.init.normal_(plain.conv_last.weight, std=0.1)
    net = VRT(**tiny(in_chans=3 + bool(planes), fusion="guide", guide=SMALL | {"planes": planes})).eval()
    report = load_weights(net, plain.state_dict(), strict=False)
    assert [line.partition(":")[0] for line in report.widened] == ["conv_first.weight"] * bool(planes)
    assert all(name.startswith("fusion.guide.") for name in report.missing)
    assert not report.unexpected + report.mismatched
    x = seen(2, planes, 8, 12)
    with torch.no_grad():
        wanted = plain(x[0])
        assert (net(*x) - wanted).abs().max() < 1e-6
        assert (wanted - x[0]).abs().max() > 1e-3
        awake(net.fusion)
        assert (net(*x) - wanted).abs().max() > 1e-3


def test_a_guides_file_is_needed_at_the_start_of_training_alone(tmp_path):
    """A run's own weights contain the guide: it is tested, and goes on, where the file is not."""
    path, trained = tmp_path / "guide.pth", awake(Guide(**SMALL))
    write_weights(trained.state_dict(), path)
    guide = {"planes": 3, "width": 4, "blocks": (1, 1), "weights": str(path)}
    opt = Opt(task="t", netG=NetOpt(**tiny(in_chans=4, fusion="guide", guide=guide)))
    started = define_G(opt.netG)
    assert same_weights(started.fusion.guide, trained)
    write_weights(started.state_dict(), tmp_path / "run.pth")
    path.unlink()
    with pytest.raises(UserError, match="guide.pth"):
        define_G(opt.netG)
    restorer = define_restorer(opt, tmp_path / "run.pth", "given", Dist())
    assert same_weights(restorer.netG, started)
    (change,) = changes({"netG": {"guide": {"weights": "a"}}}, {"netG": {"guide": {"weights": None}}})
    assert not change.is_refused
    assert "no effect" in str(change)


def test_vrt_sees_the_estimate_and_the_middle_rate_alone():
    """A body that adds nothing returns the estimate; of the spikes VRT sees one plane."""
    torch.manual_seed(0)
    net = VRT(**tiny(in_chans=4, fusion="guide", guide=SMALL)).eval()
    awake(net.fusion)
    x = seen(2, 3, 8, 12)
    with torch.no_grad():
        assert torch.allclose(net(*x), net.fusion.guide(*x), atol=1e-6)
        assert torch.allclose(net.fusion.select(x[1]), x[1][:, :, :3].mean(2, keepdim=True))


# Mistakes


@pytest.mark.parametrize(
    ("planes", "x", "message"),
    [
        (3, seen(2, 5), "got 7 spike planes, expected 3 of the moment and 2 of the exposure"),
        (3, seen(2, 0), "got no spikes, expected planes for 3 around each moment"),
        (0, seen(2, 3), r"got spikes, expected RGB only \(guide.planes is 0\)"),
        (3, (torch.rand(1, 1, 3, 8, 8), torch.rand(1, 1, 5, 3, 4)), "frames of 8x8 and spikes of 3x4, .* whole ratio"),
        (3, (torch.rand(1, 1, 3, 8, 8), torch.rand(1, 1, 5, 16, 16)), "frames of 8x8 and spikes of 16x16"),
    ],
)
def test_what_a_guide_cannot_read_is_named_in_one_line(planes, x, message):
    with pytest.raises(UserError, match=message) as caught:
        Guide(**SMALL | {"planes": planes})(*x)
    assert "\n" not in str(caught.value)


def load(folder, net, **changes):
    path = folder / "opt.json"
    path.write_text(json.dumps({"task": "t", "datasets": {"train": DATASET | changes}, "netG": net}), encoding="utf-8")
    return utils_option.load(path, Opt)


@pytest.mark.parametrize(
    ("net", "changes", "message"),
    [
        ({"fusion": "concat"}, {}, "representation is 'moment', which only the guide reads; set .*'guide'"),
        ({"fusion": "difference"}, {}, "representation is 'moment', which only the guide reads"),
        ({"fusion": "guide"}, {"spike": {"representation": "tfp"}}, "is 'tfp', finished planes, .* set it to 'moment'"),
        ({"net_type": "guide"}, {"spike": {"representation": "raw_window"}}, "is 'raw_window', finished planes"),
        ({"net_type": "guide", "guide": {"planes": 7}}, {}, "netG.guide.planes is 7, but must be 5, as datasets.train"),
        (
            {"fusion": "guide", "in_chans": 10},
            {},
            "netG.in_chans is 10, but VRT behind a guide sees 3 .RGB. . 1 .spikes. = 4",
        ),
        ({"fusion": "guide"}, {"spike_channels": 5}, "spike_channels is 5, .*'moment' .* gives 7"),
        ({"fusion": "guide"}, {"spike": {"representation": "moment", "steps_per_plane": 2}}, "found 2, must be .*odd"),
        ({"fusion": "guide"}, {"spike": {"representation": "moment", "steps_per_plane": 257}}, "257, must .* 1 to 255"),
        ({"fusion": "guide"}, {"spike": {"representation": "moment", "planes": 4}}, "planes: found 4, must be odd"),
        ({"net_type": "guide", "upscale": 2}, {}, "upscale is 2, must be 1 with net_type 'guide'"),
    ],
)
def test_options_that_a_guide_cannot_use_are_named_in_one_line(tmp_path, net, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path, net, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("net", [{"net_type": "guide"}, {"fusion": "guide"}])
def test_what_is_not_given_follows_from_the_data_set(tmp_path, net):
    opt = load(tmp_path, net)
    assert (opt.netG.guide.planes, opt.netG.in_chans, opt.datasets.train.spike_channels) == (5, 4, 7)
    utils_option.save(opt, tmp_path / "options.json")
    assert utils_option.load(tmp_path / "options.json", Opt) == opt


@pytest.mark.parametrize(("planes", "each"), [(9, 3), (5, 5), (23, 1)])
def test_more_steps_than_the_stream_has_are_refused_in_one_line(shared_set, planes, each):
    spike = {"representation": "moment", "planes": planes, "steps_per_plane": each}
    with pytest.raises(UserError, match=r"steps -\d+\.\.\d+ are needed, .*lower spike.planes, ") as caught:
        VideoTestDataset(options(shared_set, "Test", spike=spike, spike_channels=planes + 2))
    assert "\n" not in str(caught.value)
