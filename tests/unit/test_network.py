"""The network as users build it: any size, spikes beside RGB, gradients everywhere, official weights without loss."""

import numpy as np
import pytest
import torch
from dense_windows import region_labels, unpartition
from tiny_network import TRAINED

from data.spike.representations import repeat, upsample
from models.memory.estimate import set_checkpointing
from models.network_vrt import VRT
from models.select_network import init_identity
from models.vrt.warp import flow_warp
from models.vrt.window import effective_window, pad_to_windows, partition
from utils.utils_checkpoint import load_weights
from utils.utils_error import UserError

SMALL = TRAINED | {"depths": [2] * 8, "drop_path_rate": 0.2}


def small_net(**changes):
    torch.manual_seed(0)
    net = VRT(**{**SMALL, **changes})
    torch.nn.init.normal_(net.conv_last.weight, std=0.1)
    return net


def test_partition_has_an_exact_inverse_and_runs_depth_first():
    x = torch.arange(2 * 4 * 4 * 6 * 3).view(2, 4, 4, 6, 3)
    windows = partition(x, (2, 2, 3))
    assert windows.shape == (2 * 2 * 2 * 2, 12, 3)
    assert torch.equal(windows[0, 3:6], x[0, 0, 1, :3])  # second row of the first frame
    assert torch.equal(windows[0, 6:9], x[0, 1, 0, :3])  # then the second frame
    assert torch.equal(unpartition(windows, (2, 2, 3), (4, 4, 6)), x)


def test_short_axes_are_one_unshifted_window():
    assert effective_window((5, 16, 8), (6, 8, 8), (3, 4, 4)) == ((5, 8, 8), (0, 4, 0))


def test_padding_is_at_the_end_and_zero():
    x = pad_to_windows(torch.ones(1, 3, 5, 4, 1), (2, 4, 4))
    assert x.shape == (1, 4, 8, 4, 1)
    assert x[:, :3, :5].min() == 1
    assert x.sum() == 60


def test_shifted_windows_keep_wrapped_regions_apart():
    labels = region_labels((2, 8, 8), (2, 4, 4), (0, 2, 2), torch.device("cpu"))
    assert labels.shape == (4, 32)
    assert labels[0].unique().numel() == 1  # the first window holds neighbours only
    assert labels[3].unique().numel() == 4  # the last one holds four corners of the image


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 33, 40), (2, 30, 47), (5, 64, 36), (7, 32, 32)])
def test_any_size_is_restored_at_its_own_size(size):
    depth, height, width = size
    x = torch.rand(1, depth, 4, height, width)
    with torch.no_grad():
        out = small_net().eval()(x)
    assert out.shape == (1, depth, 3, height, width)
    assert torch.isfinite(out).all()


def test_training_starts_at_the_blurred_input():
    torch.manual_seed(0)
    x = torch.rand(1, 2, 4, 32, 32)
    with torch.no_grad():
        assert torch.equal(VRT(**SMALL)(x), x[:, :, :3])


def test_difference_fusion_ignores_a_brightness_that_frame_and_spikes_share():
    net = small_net(fusion="difference").eval()
    rgb, spike = torch.rand(1, 2, 3, 32, 32), torch.rand(1, 2, 1, 32, 32)
    fused = net.fusion(rgb, spike)
    brighter = net.fusion(rgb + 0.1, spike + 0.1)
    assert fused.shape == (1, 2, 4, 32, 32)
    assert torch.allclose(fused[:, :, 3:], brighter[:, :, 3:], atol=1e-6)
    assert torch.allclose(fused[:, :, :3] + 0.1, brighter[:, :, :3], atol=1e-6)


def test_identity_start_hands_the_input_planes_to_the_last_convolution():
    net = small_net()
    init_identity(net)
    centre = net.conv_first.weight[:4, :4, 0, 1, 1]
    assert (centre.diagonal() > 0.9).all()
    assert (centre - torch.diag(centre.diagonal())).abs().max() < 0.1
    assert net.conv_after_body.weight.abs().max() == 0


def test_every_parameter_gets_a_gradient():
    net = small_net(drop_path_rate=0.0).train()
    net(torch.rand(1, 3, 4, 32, 32)).square().sum().backward()
    without = [name for name, parameter in net.named_parameters() if parameter.grad is None]
    assert not without


@pytest.mark.parametrize("fusion", ["concat", "difference"])
@pytest.mark.parametrize("enlarge", ["bilinear", "nearest"])
@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_spikes_of_the_sensors_grid_equal_planes_enlarged_before(fusion, enlarge, ratio):
    """One tensor of RGB and planes, enlarged by OpenCV or repeated, is what networks were trained with."""
    net = small_net(in_chans=5, fusion=fusion, spike_enlarge=enlarge).eval()
    rgb, spike = torch.rand(1, 2, 3, 9 * ratio, 12 * ratio), torch.rand(1, 2, 2, 9, 12)
    size = rgb.shape[-2:]
    big = repeat(spike.numpy(), ratio)
    if enlarge == "bilinear":
        big = np.stack([[upsample(plane, size) for plane in frame] for frame in spike[0].numpy()])[None]
    with torch.no_grad():
        wanted = net(torch.cat((rgb, torch.from_numpy(big)), dim=2))
        assert (net(rgb, spike) - wanted).abs().max() < 1e-5
        assert (net(rgb, spike.flip(-1)) - wanted).abs().max() > 1e-3


@pytest.mark.parametrize("size", [(9, 8), (8, 12), (24, 16)])
def test_spikes_that_do_not_lie_under_the_frames_are_refused(size):
    net = small_net().eval()
    with pytest.raises(UserError, match="frames of 24x24 over spikes of .* expected the same whole ratio"):
        net(torch.rand(1, 2, 3, 24, 24), torch.rand(1, 2, 1, *size))


@pytest.mark.parametrize("spike_channels", [1, 3])
def test_rgb_weights_start_a_network_with_spikes_exactly(spike_channels):
    rgb_net = small_net(in_chans=3).eval()
    net = small_net(in_chans=3 + spike_channels, drop_path_rate=0.0).eval()
    report = load_weights(net, rgb_net.state_dict())
    assert report.widened
    x = torch.rand(1, 3, 3 + spike_channels, 32, 40)
    with torch.no_grad():
        assert (net(x) - rgb_net(x[:, :, :3])).abs().max() < 1e-5


def test_flow_does_not_see_the_spikes():
    net = small_net().eval()
    x = torch.rand(1, 2, 4, 32, 32)
    backward, _ = net.flows(x[:, :, :3])
    assert backward[0].shape == (1, 1, 2, 32, 32)
    with torch.no_grad():
        net.conv_first.weight.unflatten(1, (9, 4))[:, :, 3] = 0
        changed = x.clone()
        changed[:, :, 3] = 0
        assert torch.equal(net(x), net(changed))


@pytest.mark.parametrize("policy", ["ffn", "attn", "most", "all"])
def test_checkpointing_changes_neither_output_nor_gradient(policy):
    plain, saving = small_net(drop_path_rate=0.0).train(), small_net(drop_path_rate=0.0).train()
    set_checkpointing(saving, policy)
    x = torch.rand(1, 2, 4, 32, 32)
    for net in (plain, saving):
        net(x).square().sum().backward()
    for (name, one), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-4, atol=1e-5), name


def test_missing_spynet_file_is_named_with_its_origin():
    with pytest.raises(UserError, match=r"absent/spynet_sintel_final-3d2a1287\.pth not found.*official VRT release"):
        VRT(**SMALL, spynet_path="absent/spynet_sintel_final-3d2a1287.pth")


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_a_flow_that_is_no_number_does_not_end_the_process(padding):
    image, flow = torch.rand(1, 3, 8, 8, requires_grad=True), torch.zeros(1, 2, 8, 8)
    flow[0, :, 0, 0] = float("nan")
    flow.requires_grad_()
    flow_warp(image, flow, padding).nansum().backward()
    assert flow.grad[..., 1:, 1:].isfinite().all()
