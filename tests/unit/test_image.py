import numpy as np
import pytest
import torch

from utils import utils_image
from utils.utils_error import UserError


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (7, 11, 3), dtype=np.uint8)


def test_png_round_trip_keeps_every_pixel_and_the_channel_order(tmp_path, image):
    path = tmp_path / "clip" / "000001.png"
    utils_image.write_rgb(path, image)
    assert np.array_equal(utils_image.read_rgb(path), image)
    assert [p.name for p in path.parent.iterdir()] == ["000001.png"], "no temporary file may stay"


def test_channel_order_is_rgb(tmp_path):
    from PIL import Image

    Image.new("RGB", (4, 4), (200, 10, 20)).save(tmp_path / "red.png")
    assert utils_image.read_rgb(tmp_path / "red.png")[0, 0].tolist() == [200, 10, 20]


@pytest.mark.parametrize("content", [None, b"", b"not an image"])
def test_bad_files_are_named(tmp_path, content):
    path = tmp_path / "frame.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="frame.png"):
        utils_image.read_rgb(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_file_that_was_cut_off_is_refused_not_filled_up(tmp_path, suffix):
    path = tmp_path / f"frame{suffix}"
    smooth = np.tile(np.arange(64, dtype=np.uint8)[:, None, None] * 3, (1, 64, 3))
    utils_image.write_rgb(path, smooth)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match="not a complete image"):
        utils_image.read_rgb(path)


def test_unknown_format_is_a_users_mistake(tmp_path, image):
    with pytest.raises(UserError, match="use .png"):
        utils_image.write_rgb(tmp_path / "frame.abc", image)


def test_tensor_round_trip_is_exact(image):
    clip = np.stack([image, image[::-1]])
    tensor = utils_image.to_float(clip)
    assert tensor.shape == (2, 3, 7, 11)
    assert tensor.dtype == torch.float32
    assert np.array_equal(utils_image.to_uint8(tensor), clip)


def test_to_uint8_clamps_and_rounds():
    tensor = torch.tensor([-0.5, 0.49 / 255, 1.6 / 255, 2.0]).reshape(1, 1, 4).expand(3, 1, 4)
    assert utils_image.to_uint8(tensor)[0, :, 0].tolist() == [0, 0, 2, 255]
