"""Write a trained network as a file that other programs can run without this project: .pt2 (torch.export) or ONNX.

export_network.py --opt options/vrt/gopro_rgbspike_local.json --tile 6 256 256 --out svrt.pt2
export_network.py --opt options/vrt/tasks/006_VRT_videodeblurring_GoPro.json --tile 6 256 256 \
    --weights model_zoo/vrt/006_VRT_videodeblurring_GoPro.pth
export_network.py --opt options/vrt/guide.json --format onnx --out guide.onnx

With the first two the other program only needs torch and torchvision:

    import torch, torchvision
    net = torch.export.load("svrt.pt2").module()
    restored = net(tile)  # (1, 6, C, 256, 256) -> (1, 6, 3, 256, 256)

The input channels are RGB in [0, 1], the spike planes (white is 1) and, for a denoising network, the noise map. The
output is not clamped. Size and device are fixed by the export; split longer and larger clips into such tiles. A network
with a guide has two inputs: net(rgb, spike), frames (1, T, 3, H, W) and planes on the sensor's grid.

The guide alone (netG.net_type "guide") can also be an ONNX file, for one size (--tile) or any. Its inputs are rgb
(T, 3, H, W) and spike (T, K + 2, h, w); the file's metadata says how to make the planes.
"""

import argparse
import logging
import sys
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from options.schema import NetOpt, Opt
from utils import utils_option, utils_run_folder
from utils.utils_cli import Parser, positive, program
from utils.utils_error import UserError
from utils.utils_file import whole_file


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--weights", type=Path, help="weights file (default: as for main_test_vrt.py --opt)")
    parser.add_argument("--format", choices=("torch", "onnx"), default="torch", help="format of the new file")
    text = "input size, in frames and pixels; optional with --format onnx"
    parser.add_argument("--tile", type=positive, nargs=3, metavar=("T", "H", "W"), help=text)
    parser.add_argument("--out", type=Path, help="the new file (default: <task>.pt2 or <task>.onnx)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="device that the file is for")
    text = "keep the project's alignment operator: faster, but needs models.op"
    parser.add_argument("--own_operator", action="store_true", help=text)
    parser.add_argument("--force", action="store_true", help="replace an existing --out")
    parser.add_common(opt="option file of the network")
    args = parser.parse_args(argv)
    if args.format == "torch" and not args.tile:
        parser.error("--tile T H W is missing; only --format onnx can leave the size open")
    if args.format == "onnx" and (args.own_operator or args.device != "cpu"):
        parser.error("--own_operator and --device have no effect on --format onnx; leave them out")
    return args


if __name__ == "__main__":
    parse()  # answers --help and mistakes before the imports, which take seconds

import torch
import torchvision
from torch import nn

from models.exported import check_onnx, example_shapes, export_network, export_onnx, torchvisions_alignment
from models.fusion.guide import Guide
from models.select_model import define_restorer
from utils import __version__
from utils.utils_dist import Dist

LOG = logging.getLogger("spikevrt")
SUFFIXES = {"torch": ".pt2", "onnx": ".onnx"}
MEAN_ERROR = 5e-5  # most mean absolute difference of the outputs of a torch file
LARGEST_ERROR = 1e-4  # most absolute difference of the outputs of an ONNX file
ONNX_INPUTS = {
    "rgb": "blurred frames (T, 3, H, W), RGB in [0, 1]",
    "spike": (
        "(T, K + 2, H / ratio, W / ratio), K = planes, in units of intensity (white is 1): spike counts of K groups of "
        "steps_per_plane consecutive steps, the target step in the middle, each times gain / steps_per_plane; then two "
        "planes that add up to the spike count of the exposure times gain / steps of the exposure"
    ),
    "steps_per_plane_auto": "the smallest odd number with which the K planes cover at least half of the exposure",
    "gain_picture": (
        "mean luma (BT.601) of the whole blurred frame over the mean number of spikes per pixel and step of its "
        "exposure"
    ),
    "gain_manifest": "1 / rate_at_white, the spikes per step of a white pixel",
    "sharp": "restored frames (T, 3, H, W), not clamped",
}
SPIKE_NOTES = ("spike", "steps_per_plane_auto", "gain_picture", "gain_manifest")


def export(args: argparse.Namespace) -> None:
    """Check the arguments, export the network, write it, and compare the file's output with the network's."""
    opt = utils_option.load(args.opt, Opt, overrides=args.set)
    if args.format == "onnx":
        if opt.netG.net_type != "guide":
            raise UserError(
                f'netG.net_type is "{opt.netG.net_type}": only the guide can be written as ONNX; use --format torch'
            )
        check_onnx()
    path, weights, reason = opt.path, args.weights, "given by --weights"
    if weights is None:
        given = path.pretrained_netE, path.pretrained_netG, path.shipped_netG
        weights, reason = utils_run_folder.find_weights(opt.run_dir, *given)
    out, device = output_file(args, opt.task), torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {device}: no usable GPU; leave it out to export for the CPU")
    net = define_restorer(opt, weights, reason, Dist(device=device)).netG.eval()
    with whole_file(out) as temporary:
        torch.manual_seed(0)
        LOG.info("tracing the network and running the new file for comparison; a large network takes minutes")
        written = write_onnx if args.format == "onnx" else write_torch
        inputs, differences, problem = written(net, opt, args, temporary)
        if problem:
            raise RuntimeError(f"the exported network differs from the original by {problem}; {out} is not written")
    size = out.stat().st_size / 1e6
    print(f"{out}: {size:.1f} MB for inputs of {inputs}, largest difference {differences.max():.1e}")
    if args.format == "onnx":
        print("runs with onnxruntime; its metadata says how to make the inputs")
        return
    needs = "this project (import models.op)" if args.own_operator else f"torchvision {torchvision.__version__}"
    print(f"needs torch {torch.__version__} and {needs}, or later")


def output_file(args: argparse.Namespace, task: str) -> Path:
    """Return the file to write; UserError if its suffix is not the format's, or it exists."""
    suffix = SUFFIXES[args.format]
    out: Path = args.out or Path(f"{task}{suffix}")
    if out.suffix != suffix:
        other = next((f"; or use --format {name}" for name, its in SUFFIXES.items() if its == out.suffix), "")
        raise UserError(f"--out {out}: its suffix is {out.suffix!r}, expected {suffix!r}{other}")
    if out.exists() and not args.force:
        raise UserError(f"--out {out} exists; give another name, or --force to replace it")
    return out


Written = tuple[str, torch.Tensor, str]  # inputs in words, differences, what is wrong with these


def write_torch(net: nn.Module, opt: Opt, args: argparse.Namespace, path: Path) -> Written:
    """Write a .pt2 file and compare it."""
    shape = input_shape(opt.netG, args.tile)
    with path.open("wb") as file:  # given a path, torch would store its name in the file
        torch.export.save(export_network(net, shape, portable=not args.own_operator), file)
    shapes = example_shapes(net, shape)
    with nullcontext() if args.own_operator else torchvisions_alignment():
        differences = compare(net, path, *(torch.rand(each, device=args.device) for each in shapes))
    mean = differences.mean()
    problem = "" if mean <= MEAN_ERROR else f"{mean:.1e} on average, expected at most {MEAN_ERROR}"
    return f"{' and '.join(map(str, shapes))} on {args.device}", differences, problem


def write_onnx(net: nn.Module, opt: Opt, args: argparse.Namespace, path: Path) -> Written:
    """Write an ONNX file and compare it: at its size, or at two that differ from the one it was traced with."""
    assert isinstance(net, Guide)
    path.write_bytes(export_onnx(net, args.tile, onnx_notes(opt)).SerializeToString())
    grid, ratio = net.grid, net.ratio
    sizes = [args.tile] if args.tile else [(1, 2 * grid, 3 * grid + ratio), (3, 3 * grid - ratio, 2 * grid + ratio)]
    differences = []
    for frames, height, width in sizes:
        shapes = example_shapes(net, (1, frames, 3, height, width))
        differences.append(compare_onnx(net, path, *map(torch.rand, shapes)).flatten())
    found = torch.cat(differences)
    problem = "" if found.max() <= LARGEST_ERROR else f"{found.max():.1e} at most, expected at most {LARGEST_ERROR}"
    sides = f"H and W that are multiples of {ratio}" if net.planes else "H and W"
    words = f"T, H, W = {', '.join(map(str, args.tile))}" if args.tile else f"any T, and any {sides}"
    return words, found, problem


def onnx_notes(opt: Opt) -> dict[str, str]:
    """Return the metadata of an ONNX file: what it is, and how to make its inputs."""
    guide, data = opt.netG.guide, opt.datasets.with_spikes
    keys = [key for key in ONNX_INPUTS if guide.planes or key not in SPIKE_NOTES]
    notes = {"network": "guide", "task": opt.task, "spikevrt": __version__, "planes": str(guide.planes)}
    if guide.planes:
        notes["ratio"] = str(guide.ratio)
        if data is not None:
            notes |= {"steps_per_plane": str(data.spike.steps_per_plane), "gain": data.spike.gain}
    return notes | {key: ONNX_INPUTS[key] for key in keys}


def input_shape(opt: NetOpt, tile: tuple[int, int, int]) -> tuple[int, int, int, int, int]:
    """Return (1, T, C, H, W) of a network's input."""
    frames, height, width = tile
    if not opt.pa_frames and frames < opt.img_size[0]:
        raise UserError(f"--tile {frames} {height} {width}: T must be at least {opt.img_size[0]} for this network")
    return 1, frames, opt.in_chans + opt.nonblind_denoising, height, width


@torch.no_grad()
def compare(net: nn.Module, path: Path, *inputs: torch.Tensor) -> torch.Tensor:
    """Return the absolute differences between the outputs of a network and a .pt2 file for the inputs."""
    return (torch.export.load(path).module()(*inputs) - net(*inputs)).abs()


@torch.no_grad()
def compare_onnx(net: nn.Module, path: Path, *inputs: torch.Tensor) -> torch.Tensor:
    """The same for an ONNX file and inputs (1, T, ...)."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feed = {given.name: x[0].numpy() for given, x in zip(session.get_inputs(), inputs, strict=True)}
    (found,) = session.run(None, feed)
    return (torch.from_numpy(found) - net(*inputs)[0]).abs()


def main(argv: list[str] | None = None) -> None:
    """Read the command line and export."""
    args = parse(argv)
    with program(args.debug, args.quiet):
        export(args)


if __name__ == "__main__":
    main()
