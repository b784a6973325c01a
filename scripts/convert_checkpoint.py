"""Convert weights: to the official layout, from 3 to 3 + S channels, to and from safetensors, merging LoRA.

convert_checkpoint.py experiments/guide --out guide.safetensors --note license=MIT data="what it was trained on"
convert_checkpoint.py model_zoo/vrt/006_VRT_videodeblurring_GoPro.pth --out gopro_spike.pth --spike_channels 1
convert_checkpoint.py experiments/x/models/best_G.pth --out best.safetensors --layout plain
convert_checkpoint.py experiments/x/models/best_G.pth --out part.safetensors --lora_only BASE.pth
convert_checkpoint.py BASE.pth --add part.safetensors --out whole.pth

The official layout also holds the constants of the network and, in a .pth file, is stored under the key "params"; a
.safetensors file is flat. Both layouts can be loaded with main_test_vrt.py --weights or path.pretrained_netG.
Spike channels start without effect: the initial outputs equal those of the converted weights.
Low-rank changes (netG.lora) are merged into the weights. --lora_only instead writes a small file with only what such a
training changed in BASE, the weights it started from: the low-rank changes and the fully trained parameters. It notes
a digest of BASE, which --add checks.

IN may be a run's folder: its best weights, else its last, averaged ones if there are any. Made from a run, a
.safetensors file also notes the network's options, step, score, seconds, seed, version and commit of the program;
Restorer.from_checkpoint then needs no option file. --note adds to these notes or replaces them.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.utils_cli import Parser, program
from utils.utils_error import UserError

BASE = "base"  # key in a part of the digest of the weights that it was made from
SUFFIXES = {"pth": ".pth", "safetensors": ".safetensors"}


def make_parser() -> Parser:
    """Return the command line's parser."""
    parser = Parser(description=__doc__)
    parser.add_argument("weights", type=Path, metavar="IN", help=".pth or .safetensors file, or a run's folder")
    parser.add_argument("--out", type=Path, required=True, help="the new file, .pth or .safetensors")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--spike_channels", type=int, default=0, metavar="S", help="widen 3 channels per frame to 3 + S")
    form.add_argument("--lora_only", type=Path, metavar="BASE", help="write only what LoRA training changed in BASE")
    form.add_argument("--add", type=Path, metavar="PART", help="merge a file of --lora_only into its BASE, here IN")
    parser.add_argument("--format", choices=SUFFIXES, help="format of --out (default: by its suffix)")
    text = "layout of the weights (default: plain for the guide, else official)"
    parser.add_argument("--layout", choices=("official", "plain"), help=text)
    text = "notes to write into a .safetensors file"
    parser.add_argument("--note", nargs="+", action="extend", default=[], metavar="KEY=TEXT", help=text)
    parser.add_argument("--force", action="store_true", help="replace an existing --out")
    parser.add_common()
    return parser


if __name__ == "__main__":
    make_parser().parse_args()  # answers --help and mistakes before the imports, which take seconds

import torch
from torch import Tensor

from models.official import official_buffers
from utils import utils_checkpoint, utils_lora, utils_run_folder
from utils.checkpoint.weight_notes import notes_of


def converted(state: dict[str, Tensor], spike_channels: int, layout: str) -> dict[str, Tensor]:
    """Convert parameters by their official names, with or without constants and low-rank changes, to another width and
    layout.

    `spike_channels` are added to RGB per frame. `layout` is "official", with the constants of the published network, or
    "plain", without. Raises UserError if the weights do not have 3 channels per frame.
    """
    state = utils_lora.merge({key: value for key, value in state.items() if not utils_checkpoint.is_buffer(key)})
    if spike_channels:
        state[utils_checkpoint.FIRST] = with_spikes(state, spike_channels)
    return state | official_buffers(state) if layout == "official" else state


def with_spikes(state: dict[str, Tensor], spike_channels: int) -> Tensor:
    """Return the first convolution for 3 + S channels per frame; UserError if it is not one for 3."""
    weight = state.get(utils_checkpoint.FIRST)
    if weight is None:
        raise UserError(f"--spike_channels {spike_channels}: the weights have no {utils_checkpoint.FIRST} to widen")
    copies = utils_checkpoint.frame_copies(state)
    channels = weight.shape[1] // copies
    if channels != utils_checkpoint.RGB:
        raise UserError(
            f"--spike_channels {spike_channels}: {utils_checkpoint.FIRST} takes {channels} channels per frame, "
            f"expected {utils_checkpoint.RGB}; start from weights without spikes"
        )
    return utils_checkpoint.widened(weight, copies, utils_checkpoint.RGB + spike_channels)


def check_lora(state: dict[str, Tensor], given: str) -> None:
    """Raise UserError if weights, `given` by an option, have no low-rank changes."""
    if not any(map(utils_lora.is_lora, state)):
        raise UserError(f"{given}: the weights have no low-rank changes; give those of a training with netG.lora")


def trained_part(state: dict[str, Tensor], base: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the low-rank changes in `state` and what else differs from `base`."""
    return {
        key: value
        for key, value in state.items()
        if utils_lora.is_lora(key) or key not in base or not torch.equal(value, base[key])
    }


def digest_of(state: dict[str, Tensor]) -> str:
    """SHA-256 of parameters by name, whatever the file's format and layout."""
    sha = hashlib.sha256()
    for key in sorted(key for key in state if not utils_checkpoint.is_buffer(key)):
        value = state[key]
        sha.update(f"{key} {tuple(value.shape)} {value.dtype}".encode())
        sha.update(value.flatten().contiguous().view(torch.uint8).numpy().data)
    return sha.hexdigest()


def read_part(path: Path, base: dict[str, Tensor], weights: Path) -> dict[str, Tensor]:
    """Read a file of --lora_only; UserError if it is none, or tells that it was made from other weights than `base`."""
    part = utils_checkpoint.read_state_dict(path)
    check_lora(part, f"--add {path}")
    is_safe = path.suffix == utils_checkpoint.SAFE
    told = (utils_checkpoint.read_notes(path) if is_safe else utils_checkpoint.read_file(path)).get(BASE)
    if told not in (None, digest_of(base)):
        raise UserError(f"--add {path}: was made from other weights than {weights}; give the BASE of its --lora_only")
    return part


def convert(args: argparse.Namespace) -> None:
    """Check the arguments, read, convert and write."""
    out: Path = args.out
    suffix = SUFFIXES[args.format] if args.format else out.suffix
    if out.suffix != suffix or suffix not in SUFFIXES.values():
        wanted = [suffix] if args.format else SUFFIXES.values()
        raise UserError(f"--out {out}: its suffix is {out.suffix!r}, expected {' or '.join(wanted)}")
    if args.spike_channels < 0:
        raise UserError(f"--spike_channels {args.spike_channels}: expected 0 or more; correct it")
    if out.exists() and not args.force:
        raise UserError(f"--out {out} exists; give another name, or --force to replace it")
    weights = args.weights
    if weights.is_dir():
        weights, _ = utils_run_folder.find_weights(weights, None, None)
    state, notes = utils_checkpoint.read_state_dict(weights), checked_notes(args, weights)
    is_guide = notes.get("options", {}).get("netG", {}).get("net_type") == "guide"
    layout = args.layout or ("plain" if is_guide else "official")
    if args.lora_only:
        check_lora(state, f"--lora_only {args.lora_only}: IN {weights}")
        base, layout = utils_checkpoint.read_state_dict(args.lora_only), "plain"
        state, notes = trained_part(state, base), notes | {BASE: digest_of(base)}
    else:
        added = read_part(args.add, state, weights) if args.add else {}
        state = converted(state | added, args.spike_channels, layout)
    if args.lora_only and out.suffix != utils_checkpoint.SAFE:
        utils_checkpoint.write_file({"params": state, BASE: notes[BASE]}, out)
    else:
        utils_checkpoint.write_weights(state, out, "params" if layout == "official" else None, notes)
    first = state.get(utils_checkpoint.FIRST)
    planes = f", {first.shape[1]} input planes" if first is not None else ""
    print(f"{out}: {len(state)} entries, {layout} layout{planes}, from {weights}")
    if out.suffix == SUFFIXES["safetensors"] and notes:
        print(f"notes: {json.dumps(notes)}")


def checked_notes(args: argparse.Namespace, weights: Path) -> dict[str, Any]:
    """Return what to note: what the weights' file or run tells, then --note; UserError if that is wrong."""
    given = dict[str, str]()
    for text in args.note:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise UserError(f"--note {text}: expected KEY=TEXT, e.g. license=MIT")
        given[key] = value
    if given and args.out.suffix != SUFFIXES["safetensors"]:
        raise UserError(f"--note {args.note[0]}: --out {args.out} cannot have notes, only a .safetensors file can")
    if args.spike_channels or args.lora_only or args.add:  # another network than the run's, or a part
        return dict(given)
    return {**(utils_checkpoint.read_notes(weights) or notes_of(weights)), **given}


def main(argv: list[str] | None = None) -> None:
    """Read the command line and convert."""
    args = make_parser().parse_args(argv)
    with program(args.debug, args.quiet):
        convert(args)


if __name__ == "__main__":
    main()
