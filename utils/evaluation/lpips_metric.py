"""LPIPS, the learned perceptual distance: the library `lpips` with weights already on this machine."""

import functools
import hashlib
import importlib.util
import warnings
from pathlib import Path

import numpy as np
import torch

from utils.utils_error import UserError

ALEXNET = "alexnet-owt-7be5be79.pth"  # the name ends with the start of the file's SHA-256
ORIGIN = f"https://download.pytorch.org/models/{ALEXNET} (torchvision's AlexNet)"


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """LPIPS 0.1 (AlexNet) of two (H, W, 3) uint8 RGB images, on the CPU; 0 for equal images. UserError as `check`."""
    tensors = [torch.from_numpy(image.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None] for image in (a, b)]
    with torch.inference_mode():
        return float(_network()(*tensors))


def check() -> None:
    """Raise UserError if the library is not installed, or AlexNet's weights are missing or damaged."""
    if importlib.util.find_spec("lpips") is None:
        raise UserError("metric lpips: the library lpips is not installed; run `pip install lpips`")
    weights = Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET
    if not weights.is_file():
        raise UserError(f"metric lpips: {weights} is missing and nothing is downloaded; put {ORIGIN} there")
    found = hashlib.sha256(weights.read_bytes()).hexdigest()[:8]
    if not ALEXNET.endswith(f"-{found}.pth"):
        raise UserError(f"metric lpips: {weights} is damaged (SHA-256 starts with {found}); replace it with {ORIGIN}")


@functools.cache
def _network() -> torch.nn.Module:
    check()
    from lpips import LPIPS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it uses a deprecated torchvision call
        network: torch.nn.Module = LPIPS(net="alex", verbose=False)
    return network
