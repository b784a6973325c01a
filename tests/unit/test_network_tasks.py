"""The network of every task: sizes, gradients, names of parameters, flows to frames further away."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from golden_files import official_parameters
from hypothesis import given, settings
from hypothesis import strategies as st
from published_shapes import published_shapes
from tiny_network import tiny

from models.network_vrt import VRT
from models.vrt.alignment import AlignArgs, FlowGuidedDeformConv, align_pairs
from models.vrt.reconstruct import enlarge
from models.vrt.warp import far_flows, flow_warp
from options.schema import NetOpt
from utils.utils_checkpoint import load_weights, write_weights
from utils.utils_error import UserError

ROOT = Path(__file__).resolve().parents[2]
TASKS = ROOT / "options" / "vrt" / "tasks"
DISTINCT = ("001", "002", "003", "006", "008", "009")  # the geometry of the others is one of these
TINY = tiny(depth=2, width=12, window_size=[2, 2, 2], mul_attn_ratio=0.5, drop_path_rate=0.0, deformable_groups=6)
VARIANTS = {
    "restoration": {},
    "super-resolution 2": {"upscale": 2},
    "super-resolution 3": {"upscale": 3, "pa_frames": 4},
    "super-resolution 4": {"upscale": 4, "pa_frames": 6},
    "denoising": {"nonblind_denoising": True},
    "interpolation": {"pa_frames": 0, "img_size": [4, 16, 16], "window_size": [4, 2, 2]},
}


def net_of(variant, **changes):
    torch.manual_seed(0)
    net = VRT(**{**TINY, **VARIANTS[variant], **changes})
    for name, parameter in net.named_parameters():
        if name.endswith(("conv_last.weight", "conv_offset.6.weight")):  # they start at zero
            torch.nn.init.normal_(parameter, std=0.1)
    return net.eval()


def clip_for(net, *size):
    depth, height, width = size
    return torch.rand(1, depth, net.in_chans + net.noise_chans, height, width, generator=torch.manual_seed(1))


NETS = {variant: net_of(variant) for variant in VARIANTS}


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.sampled_from(list(VARIANTS)), st.tuples(st.integers(1, 7), st.integers(1, 20), st.integers(1, 20)))
def test_any_size_gives_the_size_that_the_task_has(variant, size):
    net = NETS[variant]
    depth, height, width = size
    with torch.no_grad():
        out = net(clip_for(net, depth, height, width))
    frames = max(depth - 4, 0) + 1 if variant == "interpolation" else depth
    assert out.shape == (1, frames, 3, height * net.upscale, width * net.upscale)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_gets_a_gradient(variant):
    net = net_of(variant).train()
    net(clip_for(net, 4, 16, 16)).square().sum().backward()
    assert not [name for name, value in net.named_parameters() if value.grad is None or not value.grad.any()]


@pytest.mark.parametrize("variant", VARIANTS)
def test_rgb_weights_start_a_network_with_spikes_exactly(variant):
    plain, wide = net_of(variant), net_of(variant, in_chans=5)
    assert load_weights(wide, plain.state_dict()).widened
    x = clip_for(wide, 4, 16, 24)
    with torch.no_grad():
        rgb = torch.cat((x[:, :, :3], x[:, :, 5:]), dim=2)
        assert (wide(x) - plain(rgb)).abs().max() < 1e-5


def test_the_noise_map_is_one_plane_more_and_every_channel_matters():
    net = net_of("denoising", in_chans=4)
    x = clip_for(net, 3, 16, 16).requires_grad_()
    assert net.conv_first.in_channels == 9 * 4 + 1
    net(x).square().sum().backward()
    assert (x.grad.abs().sum((0, 1, 3, 4)) > 0).all()


def test_a_wrong_number_of_channels_is_named():
    with pytest.raises(UserError, match=r"has 3 channels, but netG.in_chans is 3 plus a noise map"):
        NETS["denoising"](torch.rand(1, 2, 3, 16, 16))


@pytest.mark.parametrize("variant", ["super-resolution 2", "super-resolution 3"])
def test_super_resolution_starts_at_the_enlarged_input(variant):
    net = VRT(**{**TINY, **VARIANTS[variant]}).eval()
    x = torch.rand(1, 3, 3, 16, 24)
    with torch.no_grad():
        size = (3, 16 * net.upscale, 24 * net.upscale)
        trilinear = F.interpolate(x.transpose(1, 2), size=size, mode="trilinear", align_corners=False).transpose(1, 2)
        assert torch.allclose(net(x), trilinear, atol=1e-6)
    assert enlarge(x, 1) is x


def test_interpolation_follows_the_brightness_and_takes_each_window_on_its_own():
    net = NETS["interpolation"]
    x = clip_for(net, 6, 16, 16)
    with torch.no_grad():
        out = net(x)
        colour = torch.tensor([0.3, -0.2, 0.1]).view(3, 1, 1)
        assert torch.allclose(net(x + colour), out + colour, atol=1e-5)
        for start in range(3):
            assert torch.allclose(net(x[:, start : start + 4]), out[:, start : start + 1], atol=1e-6)
    assert not hasattr(net, "spynet")
    assert not any("pa_" in name for name, _ in net.named_parameters())


@pytest.mark.parametrize("reach", [1, 2, 3, 4])
@pytest.mark.parametrize("frames", [2, 3, 5])
def test_far_flows_are_composed_step_by_step(reach, frames):
    flow = torch.randn(2, frames - 1, 2, 6, 7, generator=torch.manual_seed(reach)) * 2
    far = far_flows(flow, reach).view(2, frames - 1, reach, 2, 6, 7)

    def f(b, t, k):
        """f(t, t+k) as the recursion has it, one frame at a time."""
        if t + k > frames - 1:
            return torch.zeros(1, 2, 6, 7)
        step = flow[b, t][None]
        return step if k == 1 else step + flow_warp(f(b, t + 1, k - 1), step)

    for b in range(2):
        for t in range(frames - 1):
            for k in range(1, reach + 1):
                assert torch.allclose(far[b, t, k - 1], f(b, t, k)[0], atol=1e-5), (b, t, k)


def test_composed_flows_of_a_steady_motion_grow_with_the_distance():
    flow = torch.zeros(1, 4, 2, 16, 16)
    flow[:, :, 0] = 1.0
    far = far_flows(flow, 3).view(4, 3, 2, 16, 16)
    assert torch.equal(far[0, :, 0, :, :12], torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1).expand(3, 16, 12))
    assert not far[3, 1:].any(), "there is no frame behind the last"


@pytest.mark.parametrize("variant", ["restoration", "super-resolution 3", "super-resolution 4"])
def test_flows_of_reversed_time_are_the_reversed_flows(variant):
    net = NETS[variant]
    x = clip_for(net, 5, 16, 24)
    with torch.no_grad():
        far, reversed_far = net._far(*net.flows(x)), net._far(*net.flows(x.flip(1)))
    assert len(far) == 4
    for (backward, forward), (reversed_backward, reversed_forward) in zip(far, reversed_far, strict=True):
        assert backward.shape[1:3] == (4, 2 * net.reach)
        assert torch.allclose(reversed_backward, forward.flip(1), atol=1e-5)
        assert torch.allclose(reversed_forward, backward.flip(1), atol=1e-5)


def aligned_by_definition(deform, x, flows, t, step):
    """Frame t aligned from its neighbours at t + step, t + 2 * step, ...: torchvision's grouped convolution of all."""
    depth, reach = x.shape[1], deform.args.reach
    inside = [0 <= t + k * step < depth for k in range(1, reach + 1)]
    zero = torch.zeros_like(x[:, 0])
    neighbours = [x[:, t + k * step] if ok else zero for k, ok in enumerate(inside, start=1)]
    flows = [flow if ok else torch.zeros_like(flow) for flow, ok in zip(flows, inside, strict=True)]
    warped = [flow_warp(one, flow) for one, flow in zip(neighbours, flows, strict=True)]
    guide = deform.conv_offset(torch.cat([*warped, x[:, t], *flows], dim=1))
    first, second, mask = guide.chunk(3, dim=1)
    residue = deform.args.max_residue * torch.tanh(torch.cat((first, second), dim=1))
    times = residue.shape[1] // (2 * reach)
    offset = residue + torch.cat([flow.flip(1).repeat(1, times, 1, 1) for flow in flows], dim=1)
    return torchvision.ops.deform_conv2d(
        torch.cat(neighbours, dim=1), offset, deform.weight, deform.bias, padding=1, mask=mask.sigmoid()
    )


def some_alignment(reach):
    torch.manual_seed(reach)
    deform = FlowGuidedDeformConv(12, AlignArgs(groups=6, reach=reach, max_residue=2.0))
    torch.nn.init.normal_(deform.conv_offset[6].weight, std=0.2)
    torch.nn.init.normal_(deform.bias)
    return deform, torch.randn(2, 4, 12, 6, 7), torch.randn(2, 3, 2 * reach, 6, 7), torch.randn(2, 3, 2 * reach, 6, 7)


@pytest.mark.parametrize("reach", [1, 2, 3])
def test_alignment_of_all_pairs_at_once_equals_one_after_another(reach):
    deform, x, backward, forward = some_alignment(reach)
    for k in range(1, reach):  # as far_flows has it: nothing from beyond the ends
        backward[:, 3 - k :, 2 * k : 2 * k + 2] = 0
        forward[:, :k, 2 * k : 2 * k + 2] = 0
    with torch.no_grad():
        following, previous = align_pairs(deform, x, backward, forward)
        for t in range(4):
            if t < 3:
                expected = aligned_by_definition(deform, x, backward[:, t].chunk(reach, dim=1), t, 1)
                assert torch.allclose(following[:, t], expected, atol=1e-4)
            if t > 0:
                expected = aligned_by_definition(deform, x, forward[:, t - 1].chunk(reach, dim=1), t, -1)
                assert torch.allclose(previous[:, t], expected, atol=1e-4)
    assert not following[:, 3].any()
    assert not previous[:, 0].any()


@pytest.mark.parametrize("reach", [1, 2, 3])
def test_alignment_of_reversed_time_is_the_reversed_alignment(reach):
    deform, x, backward, forward = some_alignment(reach)
    with torch.no_grad():
        following, previous = align_pairs(deform, x, backward, forward)
        reversed_following, reversed_previous = align_pairs(deform, x.flip(1), forward.flip(1), backward.flip(1))
    assert torch.allclose(reversed_following, previous.flip(1), atol=1e-5)
    assert torch.allclose(reversed_previous, following.flip(1), atol=1e-5)


def test_the_published_patterns_give_the_official_list_of_the_gopro_network():
    assert published_shapes(NetOpt()) == official_parameters()


@pytest.mark.parametrize(
    "task", [next(TASKS.glob(f"{number}_VRT*.json")) for number in DISTINCT], ids=lambda path: path.stem
)
def test_parameters_of_each_task_have_the_published_names_and_shapes(task, monkeypatch):
    from options.schema import Opt
    from utils import utils_option

    monkeypatch.setattr(torch.nn.init, "trunc_normal_", lambda tensor, **_: tensor)  # slow on the meta device
    o = utils_option.load(task, Opt).netG
    with torch.device("meta"):
        net = VRT(**o.network_kwargs())
    own = {name: tuple(value.shape) for name, value in net.named_parameters()}
    assert own == published_shapes(o)
    if o.upscale == 1 and o.pa_frames:
        count = sum(value.numel() for value in net.parameters())
        assert count == 18_320_007 + o.nonblind_denoising * 96 * 9  # one plane more in the first convolution


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("container", ["params", "params_ema", None])
def test_official_files_load_by_name_and_their_constants_are_ignored(variant, container, tmp_path):
    weights = net_of(variant).state_dict()
    constants = {
        "spynet.mean": torch.zeros(1, 3, 1, 1),
        "stage1.residual_group1.blocks.0.attn.relative_position_index": torch.zeros(8, 8, dtype=torch.int64),
        "stage1.residual_group1.blocks.0.attn.position_bias": torch.zeros(1, 4, 12),
        "stage1.residual_group1.blocks.1.attn_mask": torch.zeros(4, 8, 8),
    }
    write_weights({**weights, **constants}, tmp_path / "official.pth", container)
    net = VRT(**{**TINY, **VARIANTS[variant]})
    report = load_weights(net, tmp_path / "official.pth")
    assert report.loaded == len(list(net.parameters()))
    assert all(torch.equal(value, weights[name]) for name, value in net.named_parameters())
    with pytest.raises(UserError, match="1 unexpected .stage1.other"):
        load_weights(net, {**weights, "stage1.other": torch.zeros(1)})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"upscale": 5}, "upscale is 5, must be 3 or a power of 2"),
        ({"upscale": 6}, "upscale is 6"),
        ({"upscale": 0}, "upscale is 0"),
        ({"pa_frames": 3}, "pa_frames is 3, must be one of 0, 2, 4, 6"),
        ({"upscale": 2, "nonblind_denoising": True}, "nonblind_denoising is true and upscale is 2"),
        ({"pa_frames": 0, "upscale": 2}, "upscale is 2, must be 1 with pa_frames 0"),
        ({"pa_frames": 0, "nonblind_denoising": True}, "nonblind_denoising is true, must be false with pa_frames 0"),
        ({"pa_frames": 0, "img_size": [5, 16, 16]}, "img_size.0. is 5, must be an even"),
        ({"pa_frames": 0, "spynet_path": "a.pth"}, "spynet_path is 'a.pth', must be null"),
        ({"pa_frames": 4, "deformable_groups": 3}, "must be multiples of 2, half of it"),
        ({"pa_frames": 4, "deformable_groups": 16}, "deformable_groups 16 does not divide embed_dims 12 times 2"),
        ({"deformable_groups": 5}, "deformable_groups 5 does not divide embed_dims 12"),
        ({"in_chans": 2}, "in_chans is 2"),
        ({"out_chans": 1}, "out_chans 1"),
    ],
)
def test_what_is_not_defined_is_refused_by_name(changes, words):
    with pytest.raises(UserError, match=f"^netG\\.(?s:.*){words}"):
        VRT(**{**TINY, **changes})


def test_option_files_are_refused_alike():
    with pytest.raises(ValueError, match="upscale is 6, must be 3 or a power of 2"):
        NetOpt(upscale=6)
    with pytest.raises(ValueError, match="nonblind_denoising is true, must be false with pa_frames 0"):
        NetOpt(pa_frames=0, nonblind_denoising=True)
    assert NetOpt(upscale=8, pa_frames=4, embed_dims=(120,) * 7 + (180,) * 4).upscale == 8
