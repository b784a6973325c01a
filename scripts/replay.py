"""Examine the batch at which a run gave up: loss per sample, and the first module and parameters that fail.

python scripts/replay.py --opt experiments/RUN/options.json --batch experiments/RUN/replay/STEP_rankR.pth

A run writes the file after train.nonfinite_limit consecutive steps without a finite loss and gradient. The batch is run
once with the weights and random numbers of that step, in float32 and, with train.amp, in the run's precision.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from options.schema import Opt
from utils import utils_option
from utils.utils_cli import Parser, program


def make_parser() -> Parser:
    """Return the command line's parser."""
    parser = Parser(description=__doc__)
    parser.add_argument("--batch", type=Path, required=True, metavar="FILE", help="a file in the run's replay/ folder")
    parser.add_common(opt="the run's options.json")
    return parser


if __name__ == "__main__":
    make_parser().parse_args()  # answers --help and mistakes before the imports, which take seconds

from models import precision
from models.memory.estimate import apply_policy
from models.model_vrt import network_input
from models.replay import Findings, broken_inputs, examine, read_replay
from models.select_network import define_G
from utils import utils_checkpoint, utils_dist, utils_seed

SHOWN = 8  # most names in a list


def replay(opt: Opt, content: dict[str, Any]) -> dict[str, Findings]:
    """Run the batches of a replay file; return the findings by precision."""
    device = utils_dist.init().device
    batches = [(network_input(batch), batch["gt"]) for batch in content["batches"]]
    net = define_G(opt.netG.without_files(), opt.train.manual_seed).to(device)
    utils_checkpoint.load_weights(net, content["netG"])
    amp = opt.train.amp
    precision.set_tf32(opt.train.tf32)
    apply_policy(net, opt.train.memory, batches[0][0].shape, device, precision.amp_dtype(amp))
    findings = {}
    for name in ("float32", amp.dtype) if amp.enable else ("float32",):
        utils_seed.seed_all(opt.train.manual_seed, content["rank"], content["step"])
        findings[name] = examine(net, batches, opt.train, device, precision.AMP_DTYPES.get(name))
    return findings


def report(content: dict[str, Any], findings: dict[str, Findings]) -> str:
    """Format all findings for the terminal."""
    frames = content["batches"][0]["lq"].shape[1]
    keys = (key.rpartition("/") for key in content["keys"])
    names = [f"{clip}: {frames} frames from {first}" for clip, _, first in keys]
    width = max(map(len, names)) + 2
    lines = [f"step {content['step']}, process {content['rank']}", ""]
    lines.append("loss".ljust(width) + "".join(f"{precision:>12}" for precision in findings))
    for i, name in enumerate(names):
        lines.append(name.ljust(width) + "".join(f"{found.losses[i]:>12.4e}" for found in findings.values()))
    lines += ["", f"non-finite values in the data: {_few(broken_inputs(content['batches']))}"]
    for precision_name, found in findings.items():
        lines += [
            "",
            f"{precision_name}: first module with a non-finite output: {found.module or 'none'}",
            f"{precision_name}: parameters with a non-finite gradient: {_few(found.gradients)}",
        ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Read the command line, replay, print."""
    args = make_parser().parse_args(argv)
    with program(args.debug, args.quiet):
        opt = utils_option.load(args.opt, Opt, args.set)
        content = read_replay(args.batch)
        print(report(content, replay(opt, content)))


def _few(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{len(names)}: {', '.join(names[:SHOWN])}{more}" if names else "none"


if __name__ == "__main__":
    main()
