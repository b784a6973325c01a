"""Images: files to arrays, arrays to tensors, and back. RGB everywhere. torch is imported where tensors are."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from utils.utils_error import UserError
from utils.utils_file import whole_file
from utils.utils_image_header import Header, header_of, turned

if TYPE_CHECKING:
    from torch import Tensor

MOST_DARK = 14  # bits: a 16-bit picture that needs no more than these is darker than a quarter of white everywhere

# What cannot be decoded is told in one line, by those who asked for it.
_CV2_LOGGING: Any = getattr(cv2.utils, "logging", cv2)  # OpenCV before 4.13 has it in cv2 itself
_CV2_LOGGING.setLogLevel(0)  # silent


def read_rgb(path: Path | str) -> np.ndarray:
    """Read an image file.

    Args:
        path: a png, jpg or any other format of OpenCV; gray becomes three equal channels, alpha is dropped, 16 bits
            are cut to 8, and a picture that its EXIF tag says to turn is turned.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        UserError: the file is missing, empty, cut off or no such image; names the file.
    """
    path = Path(path)
    try:
        encoded = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}), expected an image; restore the file") from None
    _checked_header(path, encoded)
    image = decode_rgb(encoded)
    if image is None:
        raise UserError(f"{path}: no whole image could be decoded from its {encoded.size} bytes; restore the file")
    return image


def image_size(path: Path | str) -> tuple[int, int]:
    """Return (H, W) of the picture that `read_rgb` gives, from the head of its file.

    Raises:
        UserError: it is no such image; names the file.
    """
    encoded = mapped(path)
    if not encoded.size and not Path(path).is_file():
        raise UserError(f"{path}: is a link to a file that is not there, expected an image; mend or remove the link")
    return _checked_header(path, encoded).size


def mapped(path: Path | str) -> np.ndarray:
    """Return the bytes of a file, (n,) uint8, read when they are touched; none of a file that cannot be read."""
    try:
        return np.memmap(path, np.uint8, "r")
    except (OSError, ValueError):  # an empty file cannot be mapped
        return np.zeros(0, np.uint8)


def decode_rgb(encoded: np.ndarray) -> np.ndarray | None:
    """Decode the bytes of an image file, (n,) uint8, into (H, W, 3) uint8, RGB; None if they are no whole image."""
    header = header_of(encoded)
    if header is None or header.refused or not header.is_whole:
        return None
    image = _decoded(encoded, cv2.IMREAD_COLOR)
    return None if image is None else turned(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), header.turn)


def remark(files: Mapping[str, np.ndarray]) -> str:
    """Say what of the images of a clip is lost in reading, beginning with a file's name; nothing where nothing is.

    That is all pictures of a file but the first, and of 16 bits the lower ones, which some cameras use alone.

    Args:
        files: name -> the bytes of some of its images, each (n,) uint8; those of 8 bits are not decoded.
    """
    headers = {name: header for name, encoded in files.items() if (header := header_of(encoded)) and not header.refused}
    for name, header in headers.items():
        if header.pictures > 1:
            return (
                f"{name} holds {header.pictures} pictures, of which the first alone is read; write each to a file of "
                "its own"
            )
    deep = [name for name, header in headers.items() if header.bits > 8]
    images = [_decoded(files[name], cv2.IMREAD_UNCHANGED) for name in deep]
    colours = [image[..., :3] if image.ndim == 3 else image for image in images if image is not None]
    largest = max((int(image.max()) for image in colours if image.dtype == np.uint16), default=0)
    used = next((bits for bits in (8, 10, 12, MOST_DARK) if largest < 2**bits), 16)
    if not largest or used == 16:
        return ""
    return (
        f"{deep[0]} has 16 bits, of which it seems to use {used} (the largest value is {largest}), and is read "
        f"{2 ** (16 - used)} times too dark then; multiply the values by {2 ** (16 - used)}, or write 8 bits"
    )


def _checked_header(path: Path | str, encoded: np.ndarray) -> Header:
    header = header_of(encoded)
    if header is None:
        raise UserError(f"{path}: is no readable image ({encoded.size} bytes), expected a png or jpg; restore the file")
    if header.refused:
        raise UserError(f"{path}: is {header.refused}, expected 8 or 16 bits a channel in sRGB; convert it to png")
    return header


def _decoded(encoded: np.ndarray, mode: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(encoded, mode | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None


def write_rgb(path: Path | str, image: np.ndarray) -> None:
    """Write an image file so that it is either whole or absent: a temporary file, then a rename.

    Args:
        path: the target; its folder is made where missing, its suffix chooses the format.
        image: (H, W, 3) uint8, RGB.

    Raises:
        UserError: the suffix is no image format.
    """
    path = Path(path)
    if not cv2.haveImageWriter(path.name):
        raise UserError(f"{path}: '{path.suffix}' is no image format that can be written; use .png")
    encoded = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
    with whole_file(path) as temporary:
        temporary.write_bytes(encoded.tobytes())


def to_uint8(tensor: "Tensor") -> np.ndarray:
    """Turn a tensor (..., 3, H, W) in [0, 1] into uint8 (..., H, W, 3): clamp, times 255, round."""
    scaled = tensor.detach().float().clamp(0, 1).mul(255).round().byte()
    return scaled.movedim(-3, -1).contiguous().cpu().numpy()


def to_float(image: np.ndarray) -> "Tensor":
    """Turn uint8 (..., H, W, 3) into a float32 tensor (..., 3, H, W) in [0, 1]."""
    import torch

    return torch.from_numpy(np.require(image, requirements="W")).movedim(-1, -3).contiguous().float().div(255)
