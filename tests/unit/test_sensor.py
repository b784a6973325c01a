"""What options, manifest.json and config.yaml say of the camera: agreed, or an error that names all of them."""

import pytest
from tiny_set import SPIKE_SIZE, STEPS, make_set, options

from data.dataset_video_test import VideoTestDataset
from data.layout import write_description
from data.spike.config_yaml import SpikeConfig
from data.spike.manifest import ClipTiming, Manifest
from utils.spike_loader import read_spikes, write_spikes
from utils.utils_error import UserError


def spikes_of(root, **changes):
    return VideoTestDataset(options(root, "Test", **changes)).clips[0].spike(0, 2)


def test_the_size_comes_from_config_yaml_where_nothing_else_says_it(tmp_path):
    timing = ClipTiming(steps=24, exposure=(0, 17), sharp_step=8)
    make_set(tmp_path, clips=("GOPR0001_03_00",), manifest=False, timing=timing)
    SpikeConfig(spike_h=16, spike_w=24).save(tmp_path / "spikes")
    assert spikes_of(tmp_path).shape == (2, 1, *SPIKE_SIZE)


def test_a_config_yaml_that_contradicts_the_manifest_is_an_error_naming_both_and_the_file(tmp_path):
    make_set(tmp_path)
    (tmp_path / "spikes/config.yaml").write_text("spike_h: 10\nspike_w: 40\nfilename: mine\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        spikes_of(tmp_path)
    for part in ("manifest.json says 16x24", "config.yaml says 10x40", "000047.dat has 1152 bytes", "no whole number"):
        assert part in str(caught.value)


def test_spikecv_config_keeps_the_keys_it_does_not_know(tmp_path):
    (tmp_path / "config.yaml").write_text("spike_h: 250\nspike_w: 400\ntransform: none\n", encoding="utf-8")
    config = SpikeConfig.load(tmp_path)
    config.save(tmp_path)
    assert SpikeConfig.load(tmp_path / "train") == config
    assert config.model_extra == {"transform": "none"}


@pytest.mark.parametrize(
    ("text", "message"),
    [("spike_h: 0\nspike_w: 3", "spike_h: .*found 0"), ("spike_w: 3", "spike_h: Field required"),
     ("a: [", "is not valid YAML"), ("", "config.yaml: the file")],
)  # fmt: skip
def test_a_damaged_config_yaml_is_named(tmp_path, text, message):
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        SpikeConfig.load(tmp_path)


def test_bits_stored_highest_first_are_read_as_the_manifest_says(tmp_path):
    make_set(tmp_path)
    before = spikes_of(tmp_path)
    for path in (tmp_path / "spikes/train").rglob("*.dat"):
        write_spikes(path, read_spikes(path, *SPIKE_SIZE), bit_order="big", flipud=False)
    manifest = Manifest.load(tmp_path / "spikes").model_copy(update={"bit_order": "big", "flipud": False})
    manifest.save(tmp_path / "spikes")
    assert spikes_of(tmp_path).equal(before)
    with pytest.raises(UserError, match="spike.bit_order: the options say little, .* says big"):
        spikes_of(tmp_path, spike={"window": 9, "bit_order": "little"})


def test_what_the_layout_describes_is_read_back(tmp_path):
    manifest = Manifest(
        spike_h=16, spike_w=24, rgb_h=32, rgb_w=48, flipud=True, clock_hz=1920, rate_at_white=0.5, transfer="srgb",
        noise="none", continuous=True, blur="blur_gamma",
        clips={"a": ClipTiming(steps=STEPS, exposure=(0, 9), sharp_step=4, steps_of={"000003": 17})},
    )  # fmt: skip
    write_description(tmp_path, manifest, {})
    folder = tmp_path / "GOPRO_Large_spike_seq"
    assert Manifest.load(folder / "train") == manifest
    assert (SpikeConfig.load(folder).spike_h, SpikeConfig.load(folder).spike_w) == SPIKE_SIZE
