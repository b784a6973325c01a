"""Spikes fired anew: the rule, the sensors that are drawn, and what a training set makes of them."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from light_set import CLIPS, EVERYTHING, FRAMES, PLANES, add_gray, add_instants, add_light, moments
from tiny_set import RATE, SPIKE_SIZE, STEPS, make_set, rng

from data.augment import draw_box, draw_flips
from data.dataset_video_train_rgbspike import VideoTrainDatasetRGBSpike
from data.geometry import Box
from data.loader import train_batches
from data.spike import refire
from data.spike.manifest import Manifest
from data.spike.refire import Draw, charge_of_light, charge_of_spikes, draw_pixels, fire, mean_rate, shifted
from data.spike.simulator import integrate_and_fire
from options.schema_augment import AugmentOpt
from utils.utils_error import UserError
from utils.utils_image import read_rgb

WHOLE = Box(0, 0, *SPIKE_SIZE)
IDEAL = draw_pixels(rng(), Draw(), (8, 8))


def started(phase):
    """A random generator whose first charge is `phase`."""
    return SimpleNamespace(random=lambda shape, dtype: phase.astype(dtype))


def random_light(theta, count=90):
    """Light in 1/64 of white, so that sums are exact, and a first charge for the threshold that is no whole one."""
    light = (rng(1).integers(0, 65, (count, 8, 8)) / 64).astype(np.float32)
    charge = (rng(2).integers(0, int(theta * 64) // 2, (8, 8)) * 2 + 1) / 64
    return light, charge.astype(np.float32)


@pytest.mark.parametrize("theta", [1, 2, 4])
def test_light_fires_as_in_the_simulator(theta):
    light, charge = random_light(theta)
    spikes, _ = integrate_and_fire(light, theta, charge=charge)
    again = fire(charge_of_light(light / np.float32(theta), IDEAL), 0, started(charge / theta))
    np.testing.assert_array_equal(again, spikes)


@pytest.mark.parametrize("every", [1, 2, 3, 4])
def test_every_mth_spike_is_a_threshold_m_times_as_high(every):
    light, charge = random_light(every)
    recorded, _ = integrate_and_fire(light, 1, charge=charge % 1)
    wanted, _ = integrate_and_fire(light, every, charge=charge)
    found = fire(charge_of_spikes(recorded, every, IDEAL), 0, started(charge / every))
    np.testing.assert_array_equal(found, wanted)


def test_what_exceeds_the_threshold_is_lost():
    light = np.full((30, 8, 8), 3, np.float32)
    light[10:] = 0
    spikes = fire(charge_of_light(light, IDEAL), 0, rng())
    assert spikes[:10].all()
    assert not spikes[10:].any()


@pytest.mark.parametrize("jitter", [0.0, 0.04, 0.1])
@pytest.mark.parametrize("theta", [1.0, 1.5, 2.0, 4.0])
@pytest.mark.parametrize("draw", [Draw(), Draw(pattern=0.16, dark=0.01), Draw(hot=0.1, dead=0.1)], ids=str)
def test_expected_rate_is_the_simulated_one(theta, jitter, draw):
    values = np.tile(np.arange(16, 256, 16), 1024).reshape(96, 160) / 255
    sensor = draw_pixels(rng(3), draw, values.shape)
    light = np.broadcast_to((values / theta).astype(np.float32), (49, *values.shape))
    spikes = fire(charge_of_light(light, sensor), jitter, rng(4))
    assert spikes.max() == 1
    expected = mean_rate(np.unique(values) / theta, np.ones(15), draw)
    assert spikes.mean() == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("jitter", [0.0, 0.04])
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("draw", [Draw(), Draw(pattern=0.16, dark=0.005), Draw(hot=0.1, dead=0.1)], ids=str)
def test_expected_rate_of_thinned_spikes_is_theirs(every, jitter, draw):
    light = np.broadcast_to(np.linspace(0, 1, 96 * 160, dtype=np.float32).reshape(96, 160), (49, 96, 160))
    recorded, _ = integrate_and_fire(light, 2, rng(5))
    sensor = draw_pixels(rng(3), draw, light.shape[1:])
    spikes = fire(charge_of_spikes(recorded, every, sensor), jitter, rng(4))
    assert spikes.max() == 1
    expected = mean_rate(np.array([recorded.mean() / every]), np.ones(1), draw)
    assert spikes.mean() == pytest.approx(expected, rel=0.015)


def test_jitter_fires_no_more_at_the_start_of_a_stream():
    light = np.full((57, 96, 128), 0.05, np.float32)
    spikes = fire(charge_of_light(light, draw_pixels(rng(), Draw(), (96, 128))), 0.1, rng(1))
    assert spikes.mean() == pytest.approx(0.05, rel=0.01)


def test_shift_looks_down_and_right():
    rows, columns = np.mgrid[:6, :8]
    light = np.broadcast_to((10 * rows + columns).astype(np.float32), (2, 6, 8))
    np.testing.assert_allclose(shifted(light, (0.5, -0.25)), light[:, 1:-1, 1:-1] + 5 - 0.25, rtol=1e-6)
    np.testing.assert_array_equal(shifted(light, (0.0, 0.0)), light)
    np.testing.assert_array_equal(shifted(light, (1.0, 0.0)), light[:, 2:, 1:-1])
    np.testing.assert_allclose(shifted(light, (-1.5, 0.25)), light[:, 2:-2, 2:-2] - 1.5 * 10 + 0.25, rtol=1e-6)


def test_draws_stay_in_their_ranges():
    opt = AugmentOpt.model_validate(EVERYTHING)
    draws = [refire.draw_sensor(rng(seed), opt) for seed in range(300)]
    assert min(draw.theta for draw in draws) < 1.2 < 3.5 < max(draw.theta for draw in draws) <= 4
    assert np.median([draw.theta for draw in draws]) == pytest.approx(2, abs=0.3), "log-uniform"
    assert max(np.hypot(*draw.shift) for draw in draws) <= 0.5
    assert {draw.steps_late for draw in draws} == {-2, -1, 0, 1, 2}
    assert 0.1 < np.mean([draw.is_dropped for draw in draws]) < 0.3
    assert refire.draw_sensor(rng(5), opt) == draws[5]


# A training set


@pytest.fixture(scope="module")
def light_root(tmp_path_factory):
    return add_instants(add_light(make_set(tmp_path_factory.mktemp("light"))))


def opened(root, augment, light=True, **changes):
    roots = {"dataroot_subframes": str(root / "light")} if light else {}
    return VideoTrainDatasetRGBSpike(moments(root, augment=augment, **roots, **changes))


@pytest.fixture(scope="module")
def gray_root(tmp_path_factory):
    root = add_light(make_set(tmp_path_factory.mktemp("gray")), np.full((STEPS, *SPIKE_SIZE), 120, np.uint8))
    add_gray(root, 120)
    return root


@pytest.mark.parametrize("gain", ["picture", "manifest"])
@pytest.mark.parametrize("draw", [Draw(pattern=0.1), Draw(jitter=0.04, shift=(0.3, -0.2)), Draw(hot=0.05, dead=0.05)])
@pytest.mark.parametrize("theta", [1.0, 2.0, 4.0])
def test_rates_in_units_of_intensity_are_the_gray_of_the_picture(gray_root, theta, draw, gain):
    spike = {"representation": "moment", "planes": PLANES, "gain": gain}
    refired, draw = opened(gray_root, {"theta": 2}, spike=spike).refired, replace(draw, theta=theta)
    made = [refired.planes("clip_a", frame, WHOLE, draw) for frame in FRAMES]
    exposure = np.mean([(each.planes * each.scale[:, None, None])[-2:].sum(axis=0).mean() for each in made])
    assert exposure == pytest.approx(
        120 / 255, rel=0.03 if gain == "picture" else 0.05
    )  # bright pixels of a pattern clip


def test_dark_current_does_not_change_the_mean(gray_root):
    made = opened(gray_root, {"dark": 0.02}).refired.planes("clip_a", FRAMES[0], WHOLE, Draw(theta=4, dark=0.02))
    mean = (made.planes * made.scale[:, None, None])[-2:].sum(axis=0).mean()
    assert mean == pytest.approx(120 / 255, rel=0.03)


@pytest.mark.parametrize("transfer", ["srgb", "linear"])
def test_a_plane_of_rates_knows_the_drawn_threshold(gray_root, tmp_path, transfer):
    spike = {"representation": "tfp", "window": 17}
    dataset = opened(gray_root, {"theta": 2}, spike=spike, spike_channels=1)
    if transfer == "linear":
        reader = dataset.spikes.reader
        reader.manifest = reader.manifest.model_copy(update={"transfer": transfer})
        dataset.refired = refire.Refired(dataset.spikes, dataset.refired.light)
    for theta in (1.0, 4.0) if transfer == "srgb" else (1.0,):
        planes = [dataset.refired.planes("clip_a", frame, WHOLE, Draw(theta=theta)).planes for frame in FRAMES]
        assert planes[0].shape == (1, *SPIKE_SIZE)
        assert np.mean(planes) == pytest.approx(120 / 255, rel=0.05)


def test_a_box_sees_what_the_whole_frame_sees(light_root):
    refired = opened(light_root, EVERYTHING).refired
    for shift in ((0.0, 0.0), (0.3, -0.4), (-0.5, 0.1)):
        draw = Draw(theta=2, shift=shift)
        whole = refired._charges("clip_a", FRAMES[1], (3, 9), WHOLE, draw)
        for box in (Box(0, 0, 4, 4), Box(12, 20, 4, 4), Box(5, 7, 6, 8), Box(0, 20, 16, 4)):
            part = refired._charges("clip_a", FRAMES[1], (3, 9), box, draw)
            np.testing.assert_allclose(part, whole[:, box.rows, box.cols], rtol=1e-6)


@pytest.mark.parametrize("apart", [(1.3, -0.6), (-2.0, 1.5)])
def test_spikes_of_aligned_cameras_lie_where_the_frame_has_them(tmp_path, apart):
    down, right = np.mgrid[: SPIKE_SIZE[0], : SPIKE_SIZE[1]]
    light = np.broadcast_to((60 + 4 * down + 3 * right).astype(np.uint8), (STEPS, *SPIKE_SIZE))
    spike = {"representation": "moment", "planes": PLANES, "gain": "manifest"}
    refired = opened(add_light(make_set(tmp_path), light), {"aligned": 1}, spike=spike).refired
    made, inner = [], Box(4, 4, 8, 12)
    for seed in range(40):
        planes = refired.planes("clip_a", FRAMES[0], inner, Draw(theta=1, apart=apart, seed=seed))
        made.append((planes.planes * planes.scale[:, None, None])[PLANES:].sum(axis=0))
    np.testing.assert_allclose(np.mean(made, axis=0) * 255, light[0, 4:12, 4:16], atol=3)


def test_a_batch_has_interpolated_spikes_and_others_of_one_type(light_root):
    dataset = opened(light_root, {"aligned": 0.5})
    draws = [refire.draw_sensor(rng(seed), dataset.opt.augment) for seed in range(40)]
    assert 8 < sum(draw.apart is not None for draw in draws) < 32
    planes = [dataset.refired.planes("clip_a", FRAMES[0], WHOLE, draw) for draw in draws[:8]]
    assert {made.planes.dtype for made in planes} == {np.dtype(np.int8)}


def test_a_late_stream_shows_later_what_happened(tmp_path):
    light = np.zeros((STEPS, *SPIKE_SIZE), np.uint8)
    light[10:] = 255
    refired = opened(add_light(make_set(tmp_path), light), {"time_shift": 2}).refired
    for late in (-2, -1, 0, 1, 2):
        made = refired.planes("clip_a", FRAMES[0], WHOLE, Draw(theta=1, steps_late=late))
        assert made.planes[:PLANES, 0, 0].tolist() == [int(step >= 10 + late) for step in range(6, 15)]
    far = refired.planes("clip_a", FRAMES[0], WHOLE, Draw(theta=1, steps_late=9))
    assert far.planes[:PLANES, 0, 0].tolist() == [int(step >= 10) for step in range(6, 15)], "the stream ends before"


def test_reversal_reverses_the_same_spikes(light_root):
    refired, draw = opened(light_root, EVERYTHING).refired, Draw(theta=1.5, jitter=0.04, seed=3)
    for center in (None, 8):
        made = [refired.planes("clip_b", FRAMES[2], WHOLE, draw, center=center, reverse=each) for each in (False, True)]
        ahead, back = made
        np.testing.assert_array_equal(ahead.planes[:PLANES], back.planes[:PLANES][::-1])
        np.testing.assert_array_equal(ahead.planes[PLANES:], back.planes[PLANES:])


def test_mirrored_ends(light_root):
    spike = {"representation": "moment", "planes": PLANES, "edge": "mirror"}
    refired = opened(light_root, EVERYTHING, spike=spike).refired
    charges = refired._charges("clip_a", FRAMES[0], (-3, 4), WHOLE, Draw(theta=2))
    np.testing.assert_array_equal(charges[:3], charges[3:6][::-1])
    made = refired.planes("clip_a", FRAMES[0], WHOLE, Draw(theta=2), center=2)
    assert made.planes.shape == (PLANES + 2, *SPIKE_SIZE)


def test_frames_share_the_pixels_but_not_the_noise(gray_root):
    refired = opened(gray_root, {"dead": 0.3}).refired
    draw = Draw(theta=2, dead=0.3, seed=1)
    first, second = (refired.planes("clip_a", frame, WHOLE, draw).planes for frame in FRAMES[:2])
    np.testing.assert_array_equal(first[-2] == 0, second[-2] == 0)
    assert (first[:PLANES] != second[:PLANES]).mean() > 0.1


@pytest.mark.parametrize("light", [True, False])
def test_dropped_and_dead_sensors_show_nothing(light_root, light):
    refired = opened(light_root, {"drop_spikes": 1}, light).refired
    for draw in (Draw(is_dropped=True), Draw(dead=1.0, jitter=0.1, dark=0.01)):
        made = refired.planes("clip_a", FRAMES[0], WHOLE, draw)
        assert not made.planes.any()
        assert np.isfinite(made.scale).all()
    sample = opened(light_root, {"drop_spikes": 1}, light).sample(0, rng())
    assert not sample["spike"].any()
    assert not sample["spike_scale"].any(), "without spikes there is no gain"


def test_thinning_takes_the_nearest_multiple(light_root):
    dataset = opened(light_root, {"theta": 6}, light=False)
    box = Box(2, 3, 8, 8)
    made = dataset.refired.planes("clip_a", FRAMES[0], box, Draw(theta=6))
    recorded = dataset.spikes.planes("clip_a", FRAMES[0], box, 2)
    counts = [planes[-2].astype(int) for planes in (made.planes, recorded.planes)]
    assert np.abs(3 * counts[0] - counts[1]).max() < 3
    with pytest.raises(UserError, match=r"augment.theta: found \[1.0, 4.0\].* their own, 2; raise") as caught:
        opened(light_root, {"theta": [1, 4]}, light=False)
    assert "\n" not in str(caught.value)
    assert 1 / RATE == 2


def test_without_augmentation_nothing_more_is_drawn(light_root):
    plain = VideoTrainDatasetRGBSpike(moments(light_root))
    roots = {"dataroot_subframes": str(light_root / "light"), "dataroot_instants": str(light_root / "instants")}
    named = VideoTrainDatasetRGBSpike(moments(light_root, **roots))
    for seed in range(4):
        generators = [rng(seed) for _ in range(3)]
        first, second = plain.sample(3, generators[0]), named.sample(3, generators[1])
        assert first.keys() == second.keys()
        for name, value in first.items():
            assert value == second[name] if name == "key" else torch.equal(value, second[name])
        generators[2].choice([1])
        draw_box(generators[2], (32, 48), 16, step=2)
        draw_flips(generators[2], use_hflip=True, use_rot=True, random_reverse=True)
        assert len({generator.random() for generator in generators}) == 1


def test_batches_depend_on_seed_and_step_alone(light_root):
    augment = EVERYTHING | {"instant": 0.5}
    spike = {"representation": "moment", "planes": PLANES, "edge": "mirror"}
    dataset = opened(light_root, augment, dataroot_instants=str(light_root / "instants"), spike=spike)

    def batches(start, rank=0, world_size=1):
        return list(
            train_batches(
                dataset, seed=5, start_step=start, total_steps=4, batch_size=3, rank=rank, world_size=world_size
            )
        )

    alone, resumed, three = batches(0), batches(2), [batches(0, rank, 3) for rank in range(3)]
    for step, batch in enumerate(alone):
        for name in ("lq", "gt", "spike", "spike_scale"):
            assert torch.equal(batch[name], torch.cat([three[rank][step][name] for rank in range(3)]))
            assert step < 2 or torch.equal(batch[name], resumed[step - 2][name])
    assert any(not torch.equal(alone[0]["spike"], batch["spike"]) for batch in alone[1:])


@pytest.mark.parametrize("refires", [False, True])
def test_every_frame_of_a_sample_shows_the_drawn_instant(light_root, refires):
    changes = {"use_hflip": False, "use_rot": False, "random_reverse": False}
    augment = {"instant": 1.0} | ({"theta": 2} if refires else {})
    spike = {"representation": "moment", "planes": 1, "steps_per_plane": 1}
    dataset = opened(
        light_root, augment, dataroot_instants=str(light_root / "instants"), spike=spike, spike_channels=3, **changes
    )
    seen = set()
    for seed in range(8):
        sample, again = dataset.sample(1, rng(seed)), rng(seed)
        clip, frames = dataset._frames(1, again)
        box = draw_box(again, (32, 48), 16, step=2)
        draw_flips(again, use_hflip=False, use_rot=False, random_reverse=False)
        time = float(again.choice([0.0, 0.24, 0.76])) if again.random() < 1 else None
        seen.add(time)
        for frame, target in zip(frames, sample["gt"], strict=True):
            wanted = read_rgb(light_root / "instants" / clip / f"{frame}_t{time:.2f}.png")[box.rows, box.cols]
            np.testing.assert_array_equal(target.movedim(0, -1).mul(255).round().numpy(), wanted)
        step = {0.0: 2, 0.24: 6, 0.76: 15}[time]
        part = Box(box.top // 2, box.left // 2, 8, 8)
        if not refires:
            for frame, planes in zip(frames, sample["spike"].numpy(), strict=True):
                bits = dataset.spikes.reader.read(clip, frame, (step, step + 1), rows=part.row_span, cols=part.col_span)
                np.testing.assert_array_equal(planes[0], bits[0])
    assert len(seen) > 1


def test_linear_light_is_stored_encoded(light_root):
    manifest = Manifest.load(light_root / "spikes/train")
    assert manifest.transfer == "srgb"
    dataset = opened(light_root, {"theta": 2})
    ideal = dataset.refired._charges(CLIPS[0], FRAMES[0], (0, 1), WHOLE, Draw(theta=2))
    stored = np.load(light_root / "light" / CLIPS[0] / f"{FRAMES[0]}.npy")[:1]
    np.testing.assert_allclose(ideal, stored / 510, rtol=1e-6)
    dataset.spikes.reader.manifest = manifest.model_copy(update={"transfer": "linear"})
    linear = refire.Refired(dataset.spikes, dataset.refired.light)
    found = linear._charges(CLIPS[0], FRAMES[0], (0, 1), WHOLE, Draw(theta=2))
    np.testing.assert_allclose(found, ((stored / 255 + 0.055) / 1.055) ** 2.4 / 2, atol=2e-3)
