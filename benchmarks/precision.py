"""Errors of bf16, fp16 and TF32 against float32 after each stage, on moving photographs.

python benchmarks/precision.py [--quick] [--weights F.pth | --opt CONFIG.json]

Weights: a file for the official geometry, or random ones that exercise every part: flows of several pixels, offsets,
attention, and a residual as large as for blurred frames. --quick uses a small geometry. --opt uses a run's network and
best weights, and the first frames of its first test clip.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench import print_result
from lively import enliven
from skimage import data as photographs
from tiny_network import NARROW_GOPRO
from torch import Tensor, nn

from data.select_dataset import define_Dataset
from models.network_vrt import VRT
from models.precision import AMP_DTYPES, autocast, set_tf32
from models.select_model import define_restorer
from options.schema import Opt
from utils import utils_option
from utils.utils_checkpoint import load_weights
from utils.utils_cli import Parser
from utils.utils_dist import Dist
from utils.utils_error import UserError
from utils.utils_rgbspike import tensors_of
from utils.utils_run_folder import find_weights

FRAMES, SPEED = 6, 3  # frames, pixels per frame


def moving_photograph(size: int) -> Tensor:
    """(1, FRAMES, 3, size, size): a window that moves across a photograph."""
    image = np.float32(photographs.astronaut()) / 255
    frames = [image[40 + 2 * t : 40 + 2 * t + size, 120 + SPEED * t : 120 + SPEED * t + size] for t in range(FRAMES)]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)[None].contiguous()


@torch.no_grad()
def outputs(net: VRT, x: tuple[Tensor, ...], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """The outputs of all stages, and the restored frames."""
    found: dict[str, Tensor] = {}
    parts = {name: net.get_submodule(name) for name in ["conv_first", *(f"stage{i}" for i in range(1, 8))]}
    parts |= {f"stage8.{i}": group for i, group in enumerate(net.stage8)} | {"conv_last": net.conv_last}
    handles = [
        part.register_forward_hook(lambda _net, _args, out, name=name: found.update({name: out.float()}))
        for name, part in parts.items()
    ]
    with autocast(x[0].device, dtype):
        found["output"] = net(*x).float()
    for handle in handles:
        handle.remove()
    return found


def compare(net: VRT, x: tuple[Tensor, ...]) -> dict[str, dict[str, float]]:
    """By format: the relative RMS error of each stage, and the PSNR of the output."""
    set_tf32(False)
    exact = outputs(net, x, None)
    formats: dict[str, Any] = dict(AMP_DTYPES)
    if x[0].is_cuda:
        formats["tf32"] = None
    table: dict[str, dict[str, float]] = {}
    for name, dtype in formats.items():
        set_tf32(name == "tf32")
        found = outputs(net, x, dtype)
        table[name] = {part: ((found[part] - exact[part]).norm() / exact[part].norm()).item() for part in exact}
        error = (found["output"] - exact["output"]).square().mean().item()
        table[name]["psnr"] = -10 * math.log10(max(error, 1e-20))
    set_tf32(False)
    return table


def trained(config: Path, device: torch.device) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The network of a finished run, and the first FRAMES frames of its first test clip."""
    opt = utils_option.load(config, Opt)
    if opt.datasets.test is None:
        raise UserError(f"{config} has no datasets.test")
    weights, why = find_weights(opt.run_dir, None, None)
    net = define_restorer(opt, weights, why, Dist(device=device)).netG.eval()
    clip = define_Dataset(opt.datasets.test)[0]
    print(f"{weights} ({why}); clip {clip.name}")
    return net, tensors_of(clip.network_input(0, min(FRAMES, len(clip.frames)))[None], device)


def main() -> None:
    """Print a table, then one JSON line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small geometry on 64x64 pixels")
    parser.add_argument("--weights", type=Path, help="3-channel weights of the official geometry")
    parser.add_argument("--opt", type=Path, help="option file of a run with weights")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if args.opt:
        net, x = trained(args.opt, device)
    else:
        net = VRT(in_chans=3, **(NARROW_GOPRO if args.quick else {})).to(device).eval()
        x = (moving_photograph(64 if args.quick else 128).to(device),)
        if args.weights:
            load_weights(net, args.weights)
        else:
            enliven(net, *x)
    table = compare(net, x)
    print(f"{'relative error after':<22}" + "".join(f"{name:>10}" for name in table))
    for part in table["bf16"]:
        form = "{:>10.1f}" if part == "psnr" else "{:>10.2e}"
        print(f"{part:<22}" + "".join(form.format(column[part]) for column in table.values()))
    print_result("precision", input=list(x[0].shape), errors=table)


if __name__ == "__main__":
    main()
