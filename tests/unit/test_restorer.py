"""The network on arrays: the same frames as the test program writes, and one line for every mistake."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_network import TINY
from tiny_set import FIRST, RATE, SHARP, SPIKE_SIZE, STEPS, WINDOW, make_set, options
from torch import nn
from two_cameras import make_pair, matrix_of

import main_test_vrt
from data.geometry import Box
from data.select_dataset import define_Dataset
from data.spike.arrays import Recording, planes_of
from data.spike.manifest import ClipTiming
from data.spike.source import SpikeSource
from models.select_network import define_G
from options.schema import Opt, SpikeOpt
from restorer import Restorer
from utils import utils_checkpoint, utils_option
from utils.spike_loader import SpikeStreamSimple, write_spikes
from utils.utils_error import UserError
from utils.utils_image import read_rgb, to_uint8, write_rgb
from utils.utils_tile_opt import TileOpt

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs" / "python.md"
EXPOSURE = (2, 20)
NAMES = [f"{FIRST + index:06d}" for index in range(5)]


def lively(opt):
    """A network whose output is not its input."""
    net = define_G(opt.netG)
    torch.manual_seed(0)
    for parameter in net.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.2)
    nn.init.normal_(net.conv_last.weight, std=0.01)
    return net


def run_folder(opt, root="experiments"):
    """A finished run's folder in the current one."""
    folder = Path(root) / opt.task
    utils_option.save(opt, folder / "options.json")
    utils_checkpoint.write_file(lively(opt).state_dict(), folder / "models" / "best_G.pth")
    return folder


def tiny_opt(**blocks):
    return Opt.model_validate({"task": "tiny", **blocks, "netG": TINY | blocks.get("netG", {})})


def spike_opt(root, val=None, **spike):
    dataset = options(root, "Test", spike={"representation": "tfp", "window": WINDOW, **spike})
    return Opt.model_validate(
        {
            "task": "tiny",
            "datasets": {"test": dataset.model_dump(exclude_unset=True)},
            "netG": {"in_chans": 4, **TINY},
            "val": val or {},
        }
    )


def read_clip(root, clip="clip_a"):
    frames = np.stack([read_rgb(root / "lq" / clip / f"{name}.png") for name in NAMES])
    files = [root / "spikes/train" / clip / "spike" / f"{name}.dat" for name in NAMES]
    return frames, np.stack([SpikeStreamSimple(file, *SPIKE_SIZE).get_spike_matrix() for file in files])


@pytest.fixture(scope="module")
def deblur(tmp_path_factory):
    return Restorer.from_checkpoint(run_folder(tiny_opt(), tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def with_spikes(tmp_path_factory, shared_set):
    return Restorer.from_checkpoint(run_folder(spike_opt(shared_set), tmp_path_factory.mktemp("run")))


def noise(*shape):
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def test_frames_are_those_of_the_test_program(shared_set, place):
    val = {
        "num_frame_testing": 3,
        "num_frame_overlapping": 1,
        "size_patch_testing": 32,
        "size_patch_overlapping": 8,
        "flip_seq": True,
    }
    opt = spike_opt(shared_set, val)
    folder = run_folder(opt)
    main_test_vrt.main(main_test_vrt.read_job(main_test_vrt.parse_args(["--opt", str(folder / "options.json")])))
    written = np.stack([read_rgb(f"results/tiny/clip_a/{name}.png") for name in NAMES])

    frames, spikes = read_clip(shared_set)
    restorer = Restorer.from_checkpoint(folder)
    restored = restorer.restore(frames, spikes, rate_at_white=RATE, sharp_step=SHARP)
    assert np.array_equal(restored, written)
    assert not np.array_equal(restored, frames)
    whole = Restorer.from_checkpoint(folder, tile=TileOpt()).restore(frames, spikes, rate_at_white=RATE, sharp_step=10)
    assert not np.array_equal(whole, written)


def test_spikes_of_another_camera_are_aligned(shared_set, with_spikes):
    frames, spikes = read_clip(shared_set)
    plain = with_spikes.restore(frames, spikes, rate_at_white=RATE, sharp_step=SHARP)
    same = with_spikes.restore(frames, spikes, rate_at_white=RATE, sharp_step=SHARP, alignment=np.eye(3))
    moved = with_spikes.restore(
        frames, spikes, rate_at_white=RATE, sharp_step=SHARP, alignment=np.array([[1, 0, 2], [0, 1, 0], [0, 0, 1]])
    )
    assert np.array_equal(same, plain)
    assert not np.array_equal(moved, plain)
    for wrong in (np.eye(2), np.zeros((3, 3)), np.full((3, 3), np.nan)):
        with pytest.raises(UserError, match="alignment: found"):
            with_spikes.restore(frames, spikes, rate_at_white=RATE, sharp_step=SHARP, alignment=wrong)


@pytest.mark.parametrize(
    ("representation", "channels", "changes"),
    [
        ("tfp", 1, {}),
        ("tfi", 1, {}),
        ("bins", 3, {}),
        ("isi", 2, {}),
        ("raw_window", WINDOW, {}),
        ("moment", 5, {}),
        ("moment", 5, {"gain": "manifest"}),
        ("sdm", 3, {}),
        ("sdm", 1, {}),
        ("tfp", 1, {"transfer": "linear"}),
        ("sdm", 3, {"transfer": "linear"}),
        ("tfp", 1, {"continuous": True, "sharp": 2, "edge": "mirror"}),
        ("tfp", 1, {"sharp": 2, "edge": "mirror"}),
    ],
)
def test_planes_of_arrays_are_those_of_files(representation, channels, changes, tmp_path):
    sharp = changes.get("sharp", SHARP)
    root = make_set(tmp_path, clips=("clip_a",), timing=ClipTiming(steps=STEPS, exposure=EXPOSURE, sharp_step=sharp))
    path = root / "spikes" / "manifest.json"
    recorded = json.loads(path.read_text())
    recorded |= {key: value for key, value in changes.items() if key in recorded}
    path.write_text(json.dumps(recorded))
    spike = {"representation": representation, "window": WINDOW, "planes": 3}
    spike |= {key: changes[key] for key in ("edge", "gain") if key in changes}
    frames, spikes = read_clip(root)
    shown = dict(zip(NAMES, frames, strict=True))
    opt = options(root, "Test", spike=spike, spike_channels=channels)
    source = SpikeSource(opt, {"clip_a": tuple(NAMES)}, lambda clip, name: shown[name])
    whole = Box(0, 0, *SPIKE_SIZE)
    wanted = [source.planes("clip_a", name, whole, 2, frame) for name, frame in shown.items()]

    recording = Recording(RATE, sharp, EXPOSURE, "transfer" in changes, "continuous" in changes)
    found = planes_of(frames, spikes, SpikeOpt(**spike), channels, recording)
    assert found.planes.dtype == wanted[0].planes.dtype
    assert np.array_equal(found.planes, np.stack([one.planes for one in wanted]))
    counted = representation in ("raw_window", "moment")
    assert (found.scale is not None) == counted
    assert not counted or np.array_equal(found.scale, np.stack([one.scale for one in wanted]))


@pytest.mark.parametrize("net", [{"net_type": "guide"}, {"fusion": "guide", **TINY}])
def test_a_guide_gets_the_same_spikes_of_arrays_as_of_files(net, shared_set, tmp_path):
    """Counts, what they mean, and tiles that begin on its grid."""
    dataset = options(shared_set, "Test", spike={"representation": "moment", "planes": 3}, spike_channels=5)
    guide = {"guide": {"width": 4, "blocks": [1, 1]}}
    val = {"size_patch_testing": 30, "size_patch_overlapping": 8, "flip_seq": True}
    tree = {"task": "tiny", "datasets": {"test": dataset.model_dump(exclude_unset=True)}, "netG": net | guide}
    restorer = Restorer.from_checkpoint(run_folder(Opt.model_validate(tree | {"val": val}), tmp_path))
    assert restorer.tile.grid == 4
    frames, spikes = read_clip(shared_set)
    restored = restorer.restore(frames, spikes, rate_at_white=RATE, sharp_step=SHARP, exposure=EXPOSURE)
    of_files = list(restorer._tiled(define_Dataset(dataset)[0].network_input(0, 5)))
    assert np.array_equal(restored, np.stack([to_uint8(frame) for frame in of_files]))
    other = restorer.restore(frames, spikes[:, ::-1], rate_at_white=RATE, sharp_step=SHARP, exposure=EXPOSURE)
    assert not np.array_equal(restored, other)


def test_ready_planes_give_the_same_as_their_spikes(with_spikes, shared_set):
    frames, spikes = read_clip(shared_set)
    spike = with_spikes.opt.datasets.test.spike
    planes = planes_of(frames, spikes, spike, 1, Recording(RATE, SHARP)).planes
    wanted = with_spikes.restore(frames, spikes.astype(bool), rate_at_white=RATE, sharp_step=SHARP)
    assert np.array_equal(with_spikes.restore(frames, planes=planes.astype(np.float64)), wanted)
    assert not np.array_equal(with_spikes.restore(frames, planes=planes / 2), wanted)


def test_floats_give_floats_of_the_same_pictures(deblur):
    frames = np.random.default_rng(0).integers(0, 256, (3, 20, 28, 3), dtype=np.uint8)
    whole, parts = deblur.restore(frames), deblur.restore(frames.astype(np.float64) / 255)
    assert whole.dtype == np.uint8
    assert parts.dtype == np.float32
    assert parts.min() >= 0
    assert parts.max() <= 1
    assert np.array_equal(np.round(parts * 255), whole)
    assert np.array_equal(deblur.restore(frames[:, :, ::-1]), deblur.restore(frames[:, :, ::-1].copy()))


def test_other_tasks_have_their_sizes(place):
    frames = noise(5, 16, 16, 3)
    larger = Restorer.from_checkpoint(run_folder(tiny_opt(netG={"upscale": 2})))
    assert larger.restore(frames).shape == (5, 32, 32, 3)
    between = Restorer.from_checkpoint(run_folder(tiny_opt(netG={"pa_frames": 0, "img_size": [4, 16, 16]})))
    assert between.restore(frames).shape == (2, 16, 16, 3)
    with pytest.raises(UserError, match="frames: found 3, expected 4 or more"):
        between.restore(frames[:3])


def test_interpolated_frames_do_not_depend_on_the_pieces(place):
    opt = tiny_opt(netG={"pa_frames": 0, "img_size": [4, 16, 16]}, val={"num_frame_testing": 5})
    folder, frames = run_folder(opt), noise(7, 16, 16, 3)
    pieces = Restorer.from_checkpoint(folder)
    assert pieces.tile.frames == 2
    whole = Restorer.from_checkpoint(folder, tile=TileOpt()).restore(frames)
    assert np.allclose(pieces.restore(frames), whole, atol=1e-5)


def test_denoising_takes_the_level_of_the_noise(place):
    restorer = Restorer.from_checkpoint(run_folder(tiny_opt(netG={"nonblind_denoising": True})))
    frames = noise(2, 16, 16, 3) * 1.2 - 0.1
    seen = []
    restorer.model.restore = lambda x: seen.append(x) or x[:, :, :3]
    restorer.restore(frames, sigma=51.0)
    assert torch.equal(seen[0][0, :, 3], torch.full((2, 16, 16), 0.2))
    for sigma in (None, -1, np.nan):
        with pytest.raises(UserError, match="sigma: found"):
            restorer.restore(noise(2, 16, 16, 3), sigma=sigma)


def test_files_find_their_options(place):
    opt = tiny_opt()
    folder, frames = run_folder(opt), noise(2, 16, 16, 3)
    wanted = Restorer.from_checkpoint(folder).restore(frames)
    file = folder / "models" / "best_G.pth"
    assert np.array_equal(Restorer.from_checkpoint(file).restore(frames), wanted)
    lone = Path("elsewhere.safetensors")
    utils_checkpoint.write_weights(lively(opt).state_dict(), lone)
    for given in (opt, folder / "options.json", str(folder / "options.json")):
        assert np.array_equal(Restorer.from_checkpoint(lone, options=given).restore(frames), wanted)
    with pytest.raises(UserError, match="elsewhere.safetensors: no options found: .* pass options="):
        Restorer.from_checkpoint(lone)
    with pytest.raises(UserError, match="nowhere.pth: not found"):
        Restorer.from_checkpoint("nowhere.pth")


def test_an_official_name_tells_the_options(place):
    file = Path("model_zoo/vrt/006_VRT_videodeblurring_GoPro.pth")
    utils_checkpoint.write_file(lively(tiny_opt()).state_dict(), file)
    with pytest.raises(UserError, match="does not fit the network"):  # the task's network is the full one
        Restorer.from_checkpoint(file)


def test_the_callers_random_numbers_stay(place):
    folder = run_folder(tiny_opt())
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    Restorer.from_checkpoint(folder)
    assert torch.equal(torch.rand(1), wanted)


PICTURES = noise(2, 16, 24, 3)
BITS = np.random.default_rng(1).integers(0, 2, (2, 24, 8, 12), dtype=np.uint8)
ENDLESS = np.full((2, 1, 16, 24), np.inf)
TOLD = {"rate_at_white": 0.5, "sharp_step": 10}


@pytest.mark.parametrize(
    ("frames", "changes", "message"),
    [
        (PICTURES[0], {}, r"frames: found an array of \(16, 24, 3\), expected \(T, H, W, 3\)"),
        (PICTURES.transpose(0, 3, 1, 2), {}, "frames: found an array"),
        ([1, 2], {}, "frames: found a list, expected a NumPy array"),
        ((PICTURES * 255).astype(np.int64), {}, "frames: found int64, expected uint8"),
        (PICTURES * 255, {}, "frames: found values from .* scale or clip"),
        (PICTURES * np.nan, {}, "frames: found values from nan"),
        (PICTURES, {"spikes": None}, "spikes: not given"),
        (PICTURES, {"planes": noise(2, 1, 16, 24)}, "spikes and planes: found, but one of them is enough"),
        (PICTURES, {"spikes": None, "planes": noise(2, 2, 16, 24)}, r"planes: .* expected floats of \(2, 1, 16, 24\)"),
        (
            PICTURES,
            {"spikes": None, "planes": ENDLESS},
            "planes: found NaN or infinite values",
        ),
        (PICTURES, {"spikes": BITS[0]}, r"spikes: found an array of \(24, 8, 12\), expected \(2, steps, h, w\)"),
        (PICTURES, {"spikes": BITS[:1]}, "spikes: found an array"),
        (PICTURES, {"spikes": BITS * 2}, "spikes: found uint8 up to 2"),
        (PICTURES, {"spikes": BITS[:, :, :7]}, "spikes: found 7x12 pixels under frames of 16x24"),
        (PICTURES, {"rate_at_white": None}, "rate_at_white: is missing"),
        (PICTURES, {"rate_at_white": 50}, "rate_at_white: found 50"),
        (PICTURES, {"sharp_step": None}, "sharp_step: is missing"),
        (PICTURES, {"sharp_step": 24}, "sharp_step: found 24, expected one of the 24 steps"),
        (PICTURES, {"sharp_step": 2}, r"spikes of frame 0: steps -2..6 are needed, the stream has 0..6"),
        (PICTURES, {"exposure": (3, 30)}, r"exposure: found \(3, 30\)"),
        (PICTURES, {"transfer": "gamma"}, "transfer: found 'gamma'"),
        (PICTURES, {"exposure": (10, 43, 2)}, r"exposure: found \(10, 43, 2\), expected \(first, last\)"),
        (PICTURES, {"exposure": 33}, "exposure: found 33, expected"),
        (PICTURES, {"exposure": "10:43"}, "exposure: found '10:43', expected"),
        (PICTURES, {"exposure": {10, 43}}, "exposure: found {.*}, expected"),
        (PICTURES, {"exposure": (2.5, 20)}, r"exposure: found 2.5, expected .* whole numbers"),
        (PICTURES, {"sharp_step": 10.5}, "sharp_step: found 10.5, expected a step"),
        (PICTURES, {"sharp_step": True}, "sharp_step: found True, expected a step"),
        (PICTURES, {"sharp_step": np.nan}, "sharp_step: found nan, expected a step"),
        (PICTURES, {"rate_at_white": "0.5"}, "rate_at_white: found '0.5', expected spikes per step"),
        (PICTURES, {"continuous": "no"}, "continuous: found 'no', expected True or False"),
        (PICTURES, {"transfer": 1}, "transfer: found 1, expected 'srgb' or 'linear'"),
        (PICTURES, {"alignment": [[1, 2], [3]]}, r"alignment: found \[\[1, 2\], \[3\]\], expected a 3x3 matrix"),
        (PICTURES, {"alignment": {"matrix": 1}}, "alignment: found {'matrix': 1}, expected a 3x3 matrix"),
        (PICTURES, {"times": 0.5}, "times: found 0.5, expected ascending fractions"),
        (PICTURES, {"times": np.array(0.5)}, "times: found array.0.5., expected ascending fractions"),
        (PICTURES, {"times": "0.5"}, "times: found '0.5', expected ascending fractions"),
        (PICTURES, {"times": None}, "times: found None, expected ascending fractions"),
        (PICTURES, {"times": ["0.5"]}, "times: found '0.5', expected ascending fractions"),
        (
            PICTURES,
            {"times": [0.49, 0.5], "exposure": (2, 20)},
            "times: 0.49 and 0.5 are both step 10 of a frame, whose exposure is steps 2 to 19; leave one out",
        ),
        (PICTURES, {"sigma": "20"}, "sigma: found '20', expected the noise level"),
        (PICTURES, {"spikes": 0 * BITS}, "spikes: 2 of 2 frames, the first 0: no pixel fires in any step of the exp"),
        (PICTURES, {"spikes": BITS | 1}, "spikes: 2 of 2 frames, the first 0: every pixel fires in each step of the"),
        (PICTURES, {"sigma": 20.0}, "sigma: found 20, but the network takes no noise level"),
    ],
)
def test_mistakes_get_one_line(frames, changes, message, with_spikes):
    arguments = {"spikes": BITS, **TOLD} | changes
    with pytest.raises(UserError, match=message) as error:
        with_spikes.restore(frames, **arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Restorer.from_checkpoint(None), "path: found None, expected a run's folder"),
        (lambda: Restorer.from_checkpoint("x", tile=(1, 2)), r"tile: found \(1, 2\), expected a TileOpt"),
        (lambda: Restorer.from_checkpoint(".", device="gpu"), "device: found 'gpu', expected 'cpu', 'cuda'"),
        (lambda: Restorer.from_checkpoint(".", options=5), "options: found 5, expected an Opt or an option file"),
        (lambda: Restorer.from_pretrained(["guide"]), r"name: found \['guide'\], expected 'guide' or 'guide_tiny'"),
    ],
)
def test_mistakes_in_loading_get_one_line(call, message, place):
    utils_checkpoint.write_file({}, Path("models/best_G.pth"))
    utils_option.save(tiny_opt(), Path("options.json"))
    with pytest.raises(UserError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_whole_floats_are_steps(with_spikes):
    wanted = with_spikes.restore(PICTURES, BITS, rate_at_white=0.5, sharp_step=10, exposure=(2, 20))
    given = {"rate_at_white": np.float32(0.5), "sharp_step": 10.0, "exposure": np.array([2.0, 20.0])}
    assert np.array_equal(with_spikes.restore(PICTURES, BITS, **given), wanted)


def test_spikes_that_show_nothing_in_some_frames_get_a_warning(with_spikes, heard):
    dead = BITS.copy()
    dead[1, 2:20] = 1
    with_spikes.restore(PICTURES, dead, **TOLD, exposure=(2, 20))
    assert heard.text.count("spikes: 1 of 2 frames, the first 1: every pixel fires in each step of the exposure") == 1
    heard.clear()
    with_spikes.restore(0 * PICTURES, 0 * BITS, **TOLD)
    with_spikes.restore(0 * PICTURES + 1, BITS | 1, **TOLD)
    assert not heard.text, "spikes of black and white frames"


def test_floats_cast_to_bytes_get_a_warning(deblur, heard):
    deblur.restore(PICTURES.round().astype(np.uint8))
    assert heard.text.count("frames: found uint8 values of 0 and 1 alone") == 1


def test_spikes_need_a_network_and_options_for_them(deblur, place):
    with pytest.raises(UserError, match="spikes: found, but the network takes none"):
        deblur.restore(PICTURES, BITS, **TOLD)
    blind = Restorer.from_checkpoint(run_folder(tiny_opt(netG={"in_chans": 4})))
    with pytest.raises(UserError, match="the options have no data set"):
        blind.restore(PICTURES, BITS, **TOLD)
    blind.restore(PICTURES, planes=noise(2, 1, 16, 24))


def test_exposure_is_asked_for_where_planes_show_it(shared_set):
    frames, spikes = read_clip(shared_set)
    with pytest.raises(UserError, match="exposure: is missing"):
        planes_of(frames, spikes, SpikeOpt(representation="sdm"), 3, Recording(RATE, SHARP))


def test_the_guides_example_runs(shared_set, place):
    code = re.search(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)[1]
    assert len(code.strip().splitlines()) <= 10
    opt = spike_opt(shared_set).model_copy(update={"task": "svrt"})
    run_folder(opt)
    rng = np.random.default_rng(0)
    for index in range(6):
        write_rgb(f"clip/{index:06d}.png", rng.integers(0, 256, (16, 24, 3), dtype=np.uint8))
        Path("spike").mkdir(exist_ok=True)
        write_spikes(f"spike/{index:06d}.dat", rng.integers(0, 2, (30, 8, 12), dtype=np.uint8))
    exec(code.replace("360, 640", "8, 12"), {})  # noqa: S102 - the guide's own lines
    assert read_rgb("restored.png").shape == (16, 24, 3)


# Prepared sets


def samples(page):
    """The lines of a page's Python examples that restore a clip of a set."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    return [block for block in blocks if "restore_clip" in block]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A folder with datasets/mine: a sensor of linear light, turned and late."""
    place = tmp_path_factory.mktemp("recorded")
    root = make_pair(place / "datasets/mine", clips=("other", "walk"), matrix=matrix_of(right=2, turn=1), late=5)
    path = root / "GOPRO_Large_spike_seq/manifest.json"
    manifest = json.loads(path.read_text())
    seen = {"matrix": matrix_of(right=2, turn=1).tolist(), "steps": 5, "longer": 1}
    manifest["transfer"] = "linear"
    manifest["clips"]["walk"]["alignment"] = seen
    path.write_text(json.dumps(manifest))
    return place


@pytest.mark.parametrize("page", ["README.md", "docs/my_camera.md"])
def test_a_clip_of_a_set_is_restored_as_the_command_does(page, recorded, monkeypatch):
    monkeypatch.chdir(recorded)
    (code,) = samples(page)
    names = {}
    exec(code, names)  # noqa: S102 - the page's own lines
    restored = names["restored"]
    words = ["--task", "spike_guide", "--folder_lq", "datasets/mine/test_GT_blurred"]
    words += ["--folder_spike", "datasets/mine/GOPRO_Large_spike_seq/test", "--times", "0.1", "0.5", "0.9"]
    main_test_vrt.main(main_test_vrt.read_job(main_test_vrt.parse_args(words)))
    written = [[read_rgb(f"results/spike_guide/walk/{index:06d}_t{time}.png") for time in ("0.10", "0.50", "0.90")]
               for index in range(6)]  # fmt: skip
    assert np.array_equal(restored, written)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"clip": "wlak"}, "clip: found 'wlak', expected one of other, walk"),
        ({"root": "nowhere"}, "root: .*nowhere/test_GT_blurred"),
        ({"root": None}, "root: found None, expected the folder of a prepared set"),
        ({"split": "val"}, "split: found 'val', expected 'test' or 'train'"),
        ({"times": 0.5}, "times: found 0.5, expected ascending fractions"),
    ],
)
def test_clips_that_are_not_there_are_refused_in_one_line(given, message, recorded, monkeypatch):
    monkeypatch.chdir(recorded)
    with pytest.raises(UserError, match=message) as error:
        Restorer.from_pretrained("guide_tiny").restore_clip(**{"root": "datasets/mine", "clip": "walk"} | given)
    assert "\n" not in str(error.value)


def test_a_clip_without_spikes_is_restored_too(recorded, deblur):
    found = deblur.restore_clip(recorded / "datasets/mine", "walk")
    frames = [read_rgb(recorded / f"datasets/mine/test_GT_blurred/walk/{index:06d}.png") for index in range(6)]
    assert np.array_equal(found, deblur.restore(np.stack(frames)))
