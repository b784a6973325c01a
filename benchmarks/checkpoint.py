"""Time that a checkpoint of the official GoPro network stops the training for, and its size on disk.

python benchmarks/checkpoint.py [--repeats 5] [--folder DIR] [--quick]

Weights, their moving average and Adam's moments, 18 million parameters, in float32. Rows: a set written as in a run
(hashed, and on disk before it is renamed), the same files by torch.save alone, and finding and loading the set. Times
are medians and depend on the folder; /dev/shm shows the part not due to the disk.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "unit"))
from tiny_network import NARROW_GOPRO

from models.model_vrt import ModelVRT
from models.network_vrt import VRT
from options.schema import TrainOpt
from utils import utils_dist
from utils.checkpoint import run_checkpoints
from utils.utils_run_folder import RunFolder


def trained(quick: bool) -> ModelVRT:
    """A model whose optimizer has taken a step with every parameter."""
    torch.manual_seed(0)
    model = ModelVRT(VRT(in_chans=3, **(NARROW_GOPRO if quick else {})), TrainOpt(E_decay=0.999), utils_dist.init())
    for parameter in model.netG.parameters():
        parameter.grad = torch.rand_like(parameter)
    model.optimizer.step()
    return model


def plainly(folder: Path, model: ModelVRT) -> None:
    """Only torch.save the three files."""
    for kind, content in model.state_dicts().items():
        torch.save(content, folder / f"plain_{kind}.pth")


def measured(action: Callable[[int], object], repeats: int) -> list[float]:
    """Seconds of each of several calls, after a warm-up call."""
    seconds = []
    for i in range(repeats + 1):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        start = time.perf_counter()
        action(i)
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def main() -> None:
    """Measure and print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="folder to write to; default: the system's temporary folder")
    parser.add_argument("--quick", action="store_true", help="a small network")
    args = parser.parse_args()
    model = trained(args.quick)
    count = sum(parameter.numel() for parameter in model.netG.parameters())
    with tempfile.TemporaryDirectory(dir=args.folder) as place:
        run = Path(place)
        record = {"options": {}}
        rows = {
            "set, as in a run": measured(lambda i: run_checkpoints.save(run, i + 1, model, record, 2), args.repeats),
            "torch.save alone": measured(lambda _: plainly(run, model), args.repeats),
            "resume": measured(lambda _: run_checkpoints.resume(run, model, {}), args.repeats),
        }
        last = args.repeats + 1
        sizes = {kind: RunFolder(run).checkpoint(last, kind).stat().st_size for kind in run_checkpoints.KINDS}
    print(f"{count:,} parameters, {model.dist.device}, torch {torch.__version__}, {platform.machine()}, {args.folder}")
    print(f"\n{'':18} {'median s':>9} {'lowest':>8} {'highest':>8}")
    for name, seconds in rows.items():
        print(f"{name:18} {statistics.median(seconds):9.2f} {min(seconds):8.2f} {max(seconds):8.2f}")
    print("\n" + ", ".join(f"{kind} {size / 1e6:.1f} MB" for kind, size in sizes.items()), end="; ")
    print(f"together {sum(sizes.values()) / 1e6:.1f} MB\n")
    medians = {name: round(statistics.median(seconds), 3) for name, seconds in rows.items()}
    print(json.dumps({"benchmark": "checkpoint", "parameters": count, "bytes": sizes, "seconds": medians}))


if __name__ == "__main__":
    main()
