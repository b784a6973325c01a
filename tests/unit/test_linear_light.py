"""Sensors that integrate linear light: spikes and frames are compared in it, frames stay sRGB."""

import numpy as np
import pytest
import torch
from tiny_set import options

from data.dataset_video_test import VideoTestDataset
from data.dataset_video_train_rgbspike import VideoTrainDatasetRGBSpike
from data.loader import train_batches
from models.model_vrt import ModelVRT, network_input
from options.schema import TrainOpt
from utils.utils_colour import srgb_to_linear
from utils.utils_dist import Dist
from utils.utils_rgbspike import light_to_srgb, restored_of, srgb_to_light

CPU = torch.device("cpu")
SPIKE = {"representation": "moment", "window": 9, "planes": 5, "edge": "mirror"}
MOMENT = {"spike": SPIKE, "spike_channels": 7}


def make_linear(root):
    path = root / "spikes/manifest.json"
    path.write_text(path.read_text().replace('"srgb"', '"linear"'))


def test_light_and_srgb_are_inverse_and_those_of_arrays():
    values = torch.linspace(0, 1, 256)
    np.testing.assert_allclose(srgb_to_light(values), srgb_to_linear(values.double().numpy()), atol=1e-6)
    np.testing.assert_allclose(light_to_srgb(srgb_to_light(values)), values, atol=1e-6)
    outside = torch.tensor([-0.5, 0.0, 1.5], requires_grad=True)
    light_to_srgb(outside).sum().backward()
    assert torch.isfinite(outside.grad).all()


def test_linear_sensors_are_compared_with_linear_light(own_set):
    make_linear(own_set)
    window = VideoTestDataset(options(own_set, "Test", **MOMENT)).clips[0].network_input(0, 1)
    rgb, spike = window.tensors(CPU)
    light = srgb_to_linear(window.rgb.double().numpy())
    np.testing.assert_allclose(rgb, light, atol=1e-6)
    gray = (light[0] * np.array([0.299, 0.587, 0.114])[:, None, None]).sum(0).mean()
    assert spike[0, 5:].sum(0).mean().item() == pytest.approx(gray, rel=1e-5)
    np.testing.assert_allclose(restored_of(window, rgb), window.rgb, atol=1e-5)


def test_a_network_works_in_linear_light_for_linear_sensors(own_set):
    """The loss and the restored frame are sRGB, like the frames; what the network sees is light."""
    make_linear(own_set)
    dataset = VideoTrainDatasetRGBSpike(options(own_set, **MOMENT))
    (batch,) = train_batches(dataset, seed=0, start_step=0, total_steps=1, batch_size=2, num_workers=0)
    seen = []

    class Identity(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, rgb, spike):
            seen.append(rgb)
            return rgb * self.weight

    model = ModelVRT(Identity(), TrainOpt(total_iter=1, E_decay=0), Dist())
    values = model.train_step([{**batch, "gt": batch["lq"]}], 0)
    np.testing.assert_allclose(seen[0].detach(), srgb_to_linear(batch["lq"].numpy()), atol=1e-6)
    assert values["G_loss"] < 1e-4
    window = network_input(batch)[:1]
    np.testing.assert_allclose(Identity()(*window.tensors(CPU)).detach(), srgb_to_linear(window.rgb.numpy()), atol=1e-6)
    np.testing.assert_allclose(model.restore(window), window.rgb, atol=5e-3)
