"""Write a trained network as a .pt2 file (torch.export), which other programs can run without this project.

export_network.py --opt options/vrt/gopro_rgbspike_local.json --tile 6 256 256 --out svrt.pt2
export_network.py --opt options/vrt/tasks/006_VRT_videodeblurring_GoPro.json --tile 6 256 256 \
    --weights model_zoo/vrt/006_VRT_videodeblurring_GoPro.pth

The other program only needs torch and torchvision:

    import torch, torchvision
    net = torch.export.load("svrt.pt2").module()
    restored = net(tile)  # (1, 6, C, 256, 256) -> (1, 6, 3, 256, 256)

The input channels are RGB in [0, 1], the spike planes (white is 1) and, for a denoising network, the noise map. The
output is not clamped. Size and device are fixed by the export; split longer and larger clips into such tiles.
"""

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from options.schema import NetOpt, Opt
from utils import utils_option, utils_run_folder
from utils.utils_cli import Parser, positive, program
from utils.utils_error import UserError
from utils.utils_file import whole_file


def make_parser() -> Parser:
    """Return the command line's parser."""
    parser = Parser(description=__doc__)
    parser.add_argument("--weights", type=Path, help="default: as for main_test_vrt.py --opt")
    parser.add_argument("--tile", type=positive, nargs=3, required=True, metavar=("T", "H", "W"), help="input size")
    parser.add_argument("--out", type=Path, help="the new file; default <task>.pt2")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where it will run; default: cpu")
    parser.add_argument(
        "--own_operator",
        action="store_true",
        help="keep the project's alignment operator: faster, but needs models.op",
    )
    parser.add_argument("--force", action="store_true", help="replace an existing --out")
    parser.add_common(opt="option file of the network")
    return parser


if __name__ == "__main__":
    make_parser().parse_args()  # answers --help and mistakes before the imports, which take seconds

import torch
import torchvision
from torch import nn

from models.exported import export_network, torchvisions_alignment
from models.select_model import define_restorer
from utils.utils_dist import Dist

SUFFIX = ".pt2"
MEAN_ERROR = 5e-5  # most mean absolute difference of the outputs


def export(args: argparse.Namespace) -> None:
    """Check the arguments, export the network, write it, and compare the file's output with the network's."""
    opt = utils_option.load(args.opt, Opt, overrides=args.set)
    path = opt.path
    weights, reason = (
        (args.weights, "given by --weights")
        if args.weights
        else utils_run_folder.find_weights(opt.run_dir, path.pretrained_netE, path.pretrained_netG)
    )
    out = args.out or Path(f"{opt.task}{SUFFIX}")
    if out.suffix != SUFFIX:
        raise UserError(f"--out {out}: its suffix is {out.suffix!r}, expected {SUFFIX!r}")
    if out.exists() and not args.force:
        raise UserError(f"--out {out} exists; give another name, or --force to replace it")
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {device}: no usable GPU; leave it out to export for the CPU")
    net = define_restorer(opt, weights, reason, Dist(device=device)).netG.eval()
    shape = input_shape(opt.netG, args.tile)
    with whole_file(out) as temporary:
        with temporary.open("wb") as file:  # given a path, torch would store its name in the file
            torch.export.save(export_network(net, shape, portable=not args.own_operator), file)
        torch.manual_seed(0)
        with nullcontext() if args.own_operator else torchvisions_alignment():
            differences = compare(net, temporary, torch.rand(shape, device=device))
        if not differences.mean() <= MEAN_ERROR:
            raise RuntimeError(
                f"the exported network differs from the original by {differences.mean():.1e} on average, expected at "
                f"most {MEAN_ERROR}; {out} is not written"
            )
    needs = "this project (import models.op)" if args.own_operator else f"torchvision {torchvision.__version__}"
    size = out.stat().st_size / 1e6
    print(f"{out}: {size:.0f} MB for inputs of {shape} on {device}, largest difference {differences.max():.1e}")
    print(f"needs torch {torch.__version__} and {needs}, or later")


def input_shape(opt: NetOpt, tile: tuple[int, int, int]) -> tuple[int, int, int, int, int]:
    """Return (1, T, C, H, W) of a network's input."""
    frames, height, width = tile
    if not opt.pa_frames and frames < opt.img_size[0]:
        raise UserError(f"--tile {frames} {height} {width}: T must be at least {opt.img_size[0]} for this network")
    return 1, frames, opt.in_chans + opt.nonblind_denoising, height, width


@torch.no_grad()
def compare(net: nn.Module, path: Path, x: torch.Tensor) -> torch.Tensor:
    """Return the absolute differences between the outputs of a network and an exported file for x."""
    return (torch.export.load(path).module()(x) - net(x)).abs()


def main(argv: list[str] | None = None) -> None:
    """Read the command line and export."""
    args = make_parser().parse_args(argv)
    with program(args.debug):
        export(args)


if __name__ == "__main__":
    main()
