"""The network equals its plain form: outputs and every gradient, at sizes that no window divides."""

import torch
from plain_vrt import PlainVRT

from models.network_vrt import VRT

TINY = {
    "window_size": [4, 4, 4],
    "depths": [4] * 7 + [2] * 2,
    "indep_reconsts": [8],
    "embed_dims": [8] * 7 + [12] * 2,
    "num_heads": [2] * 9,
    "deformable_groups": 2,
}


def both():
    """The network and its plain form under the same weights, far enough from zero to matter."""
    torch.manual_seed(0)
    net = VRT(**TINY, in_chans=3, drop_path_rate=0.0)
    torch.manual_seed(0)  # again: how many numbers trunc_normal_ has drawn depends on PyTorch's version
    for module in net.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("relative_position_bias_table"):
                parameter.normal_(std=0.5)
            elif "conv_offset.6" in name or "conv_last" in name:
                parameter.normal_(std=0.02)
    plain = PlainVRT(**TINY)
    own = {key: value for key, value in net.state_dict().items() if key not in ("spynet.mean", "spynet.std")}
    plain.load_state_dict(own)
    return net, plain


def test_output_of_the_plain_network():
    net, plain = both()
    x = torch.rand(2, 6, 3, 40, 56)
    with torch.no_grad():
        assert (net.eval()(x) - plain.eval()(x)).abs().max() < 1e-5


def test_output_and_gradients_of_the_plain_network_with_and_without_recomputing():
    net, plain = both()
    saving = VRT(**TINY, in_chans=3, drop_path_rate=0.0, use_checkpoint_attn=True, use_checkpoint_ffn=True)
    saving.load_state_dict(net.state_dict())
    x, weight = torch.rand(1, 5, 3, 40, 48), torch.randn(1, 5, 3, 40, 48)
    outs = [each.train()(x) for each in (plain, net, saving)]
    for out in outs:
        assert (out - outs[0]).abs().max() < 1e-5
        (out * weight).mean().backward()
    expected = dict(plain.named_parameters())
    for name, parameter in (*net.named_parameters(), *saving.named_parameters()):
        want = expected[name].grad
        assert (parameter.grad - want).abs().max() <= 1e-4 * max(want.abs().max(), 1e-2), name
