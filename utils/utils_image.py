"""Images: files to arrays, arrays to tensors, and back. RGB everywhere."""

from pathlib import Path

import cv2
import numpy as np
import torch

from utils.utils_error import UserError
from utils.utils_file import whole_file

ENDS = {".png": b"IEND", ".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9"}


def read_rgb(path: Path | str) -> np.ndarray:
    """Read an image file.

    Args:
        path: a png, jpg or any other format of OpenCV; gray becomes three equal channels, alpha is dropped.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        UserError: the file is missing, empty or no image; names the file.
    """
    path = Path(path)
    try:
        encoded = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}), expected an image; restore the file") from None
    # A decoder may fill what a cut-off file lacks with gray, so its end is looked for.
    end = ENDS.get(path.suffix.lower(), b"")
    image = decode_rgb(encoded) if end in encoded[-64:].tobytes() else None
    if image is None:
        raise UserError(f"{path}: no whole image could be decoded from its {encoded.size} bytes; restore the file")
    return image


def decode_rgb(encoded: np.ndarray) -> np.ndarray | None:
    """Decode the bytes of an image file, (n,) uint8, into (H, W, 3) uint8, RGB; None if they are none."""
    image = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if encoded.size else None
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


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


def to_uint8(tensor: torch.Tensor) -> np.ndarray:
    """Turn a tensor (..., 3, H, W) in [0, 1] into uint8 (..., H, W, 3): clamp, times 255, round."""
    scaled = tensor.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8)
    return scaled.movedim(-3, -1).contiguous().cpu().numpy()


def to_float(image: np.ndarray) -> torch.Tensor:
    """Turn uint8 (..., H, W, 3) into a float32 tensor (..., 3, H, W) in [0, 1]."""
    return torch.from_numpy(image).movedim(-1, -3).contiguous().float().div(255)
