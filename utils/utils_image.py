"""Convert images between files, arrays and tensors, always RGB. torch is imported only for tensors."""

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

MOST_DARK = 14  # a 16-bit picture that uses at most this many bits is everywhere darker than a quarter of white

# The callers report images that cannot be decoded.
_CV2_LOGGING: Any = getattr(cv2.utils, "logging", cv2)  # OpenCV before 4.13 has it in cv2 itself
_CV2_LOGGING.setLogLevel(0)  # silent


def read_rgb(path: Path | str) -> np.ndarray:
    """Read an image file as (H, W, 3) uint8, RGB: png, jpg or any other OpenCV format.

    Gray becomes three equal channels, alpha is dropped, 16 bits are cut to 8, and the EXIF orientation is applied.
    Raises UserError, which names the file, if it is missing, empty, truncated or not such an image.
    """
    path = Path(path)
    try:
        encoded = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}), expected an image; restore the file") from None
    _checked_header(path, encoded)
    image = decode_rgb(encoded)
    if image is None:
        raise UserError(f"{path}: its {encoded.size} bytes are not a complete image; restore the file")
    return image


def image_size(path: Path | str) -> tuple[int, int]:
    """Return (H, W) of the picture that `read_rgb` gives, from the file header; UserError as there."""
    encoded = mapped(path)
    if not encoded.size and not Path(path).is_file():
        raise UserError(f"{path}: is a link to a missing file, expected an image; fix or remove the link")
    return _checked_header(path, encoded).size


def mapped(path: Path | str) -> np.ndarray:
    """Memory-map the bytes of a file, (n,) uint8; empty if it cannot be read."""
    try:
        return np.memmap(path, np.uint8, "r")
    except (OSError, ValueError):  # an empty file cannot be mapped
        return np.zeros(0, np.uint8)


def decode_rgb(encoded: np.ndarray) -> np.ndarray | None:
    """Decode the bytes of an image file, (n,) uint8, into (H, W, 3) uint8, RGB; None if not a complete image."""
    header = header_of(encoded)
    if header is None or header.refused or not header.is_whole:
        return None
    image = _decoded(encoded, cv2.IMREAD_COLOR)
    return None if image is None else turned(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), header.turn)


def remark(files: Mapping[str, np.ndarray]) -> str:
    """Describe what reading loses of a clip's images, beginning with a file name; empty if nothing.

    Reading drops all pictures of a file but the first, and the lower 8 of 16 bits, the only ones some cameras use.
    `files`: file name -> bytes, (n,) uint8, of some of the clip's images; 8-bit images are not decoded.
    """
    headers = {name: header for name, encoded in files.items() if (header := header_of(encoded)) and not header.refused}
    for name, header in headers.items():
        if header.pictures > 1:
            return f"{name} contains {header.pictures} pictures, but only the first is read; write each to its own file"
    deep = [name for name, header in headers.items() if header.bits > 8]
    images = [_decoded(files[name], cv2.IMREAD_UNCHANGED) for name in deep]
    colours = [image[..., :3] if image.ndim == 3 else image for image in images if image is not None]
    largest = max((int(image.max()) for image in colours if image.dtype == np.uint16), default=0)
    used = next((bits for bits in (8, 10, 12, MOST_DARK) if largest < 2**bits), 16)
    if not largest or used == 16:
        return ""
    return (
        f"{deep[0]} has 16 bits but seems to use only {used} (largest value {largest}), so it is read "
        f"{2 ** (16 - used)} times too dark; multiply its values by {2 ** (16 - used)}, or write 8 bits"
    )


def _checked_header(path: Path | str, encoded: np.ndarray) -> Header:
    header = header_of(encoded)
    if header is None:
        raise UserError(f"{path}: not a readable image ({encoded.size} bytes), expected png or jpg; restore the file")
    if header.refused:
        raise UserError(f"{path}: is {header.refused}, expected 8 or 16 bits per channel in sRGB; convert it to png")
    return header


def _decoded(encoded: np.ndarray, mode: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(encoded, mode | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None


def write_rgb(path: Path | str, image: np.ndarray) -> None:
    """Write (H, W, 3) uint8, RGB, to a file atomically, in the format of its suffix; UserError for an unknown one."""
    path = Path(path)
    if not cv2.haveImageWriter(path.name):
        raise UserError(f"{path}: images cannot be written as '{path.suffix}'; use .png")
    encoded = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
    with whole_file(path) as temporary:
        temporary.write_bytes(encoded.tobytes())


def to_uint8(tensor: "Tensor") -> np.ndarray:
    """Turn a tensor (..., 3, H, W) in [0, 1] into uint8 (..., H, W, 3): clamp, times 255, round."""
    scaled = tensor.detach().float().clamp(0, 1).mul(255).round().byte()
    return scaled.movedim(-3, -1).contiguous().cpu().numpy()


def to_float(image: np.ndarray) -> "Tensor":
    """Turn uint8 or float32 (..., H, W, 3) into a float32 tensor (..., 3, H, W) in [0, 1]."""
    import torch

    tensor = torch.from_numpy(np.require(image, requirements="W")).movedim(-1, -3).contiguous()
    return tensor.float().div(255) if image.dtype == np.uint8 else tensor
