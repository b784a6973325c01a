"""Saves the batch on which a run failed, and finds the sample, module and parameters at fault."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from models import precision
from models.loss import total_loss
from options.schema import TrainOpt
from utils import utils_checkpoint
from utils.utils_error import UserError
from utils.utils_rgbspike import Window, restored_of, tensors_of

KEYS = ("step", "rank", "batches", "keys", "netG")


@dataclass
class Findings:
    """Result of one forward and backward pass."""

    losses: list[float] = field(default_factory=list)  # of each sample, in the order of the batches
    module: str | None = None  # the first whose output is not finite, "name (class)"; None: all outputs are finite
    gradients: list[str] = field(default_factory=list)  # parameters whose gradient is not finite


def write_replay(run_dir: Path, step: int, rank: int, batches: Sequence[Mapping[str, Any]], net: nn.Module) -> str:
    """Write what `scripts/replay.py` needs to <run_dir>/replay: a step's batches, and netG before that step.

    Never raises, so as not to mask the reported error. Returns a clause for its message: how to replay the batch, or
    why it could not be saved.
    """
    path = run_dir / "replay" / f"{step}_rank{rank}.pth"
    content = {
        "step": step,
        "rank": rank,
        "batches": [
            {name: value.cpu() if isinstance(value, Tensor) else value for name, value in batch.items()}
            for batch in batches
        ],
        "keys": [key for batch in batches for key in batch.get("key", ())],
        "netG": net.state_dict(),
    }
    try:
        utils_checkpoint.write_file(content, path)
    except (OSError, RuntimeError, UserError) as error:
        return f"the batch could not be saved in {path}: {str(error).splitlines()[0] if str(error) else error!r}"
    return f"inspect the batch with: python scripts/replay.py --opt {run_dir / 'options.json'} --batch {path}"


def read_replay(path: Path) -> dict[str, Any]:
    """Read a file of `write_replay`; UserError if it is missing, damaged or of another kind."""
    content = utils_checkpoint.read_file(path)
    if not isinstance(content, dict) or any(key not in content for key in KEYS):
        raise UserError(f"{path} holds no batch of a run; expected a file from a run's replay/ folder")
    return content


def broken_inputs(batches: Sequence[Mapping[str, Any]]) -> list[str]:
    """Non-finite tensors of the samples, as "<name> of <key>"."""
    broken = []
    for batch in batches:
        for name, value in batch.items():
            if isinstance(value, Tensor):
                keys = batch.get("key") or [f"sample {i}" for i in range(len(value))]
                broken += [f"{name} of {key}" for key, one in zip(keys, value, strict=True) if not _finite(one)]
    return broken


def examine(
    net: nn.Module,
    batches: Sequence[tuple[Window, Tensor]],
    opt: TrainOpt,
    device: torch.device,
    dtype: torch.dtype | None,
) -> Findings:
    """Run batches once in training mode, without loss scaling, and check every output and gradient.

    Batches are input frames, with spikes as an RGBSpike, and sharp frames, (B, T, 3, h, w). The network, on `device`,
    gets new gradients and keeps its weights; `dtype` is that of autocast.
    """
    found = Findings()
    net.train()
    net.zero_grad(set_to_none=True)
    for x, gt in batches:
        with _watched(net, found), precision.autocast(device, dtype):
            out = net(*tensors_of(x, device))
        out = restored_of(x, out)
        gt = gt.to(device)
        losses = torch.stack([total_loss(out[i : i + 1], gt[i : i + 1], opt)[0] for i in range(len(out))])
        (losses.mean() / len(batches)).backward()
        found.losses += losses.tolist()
    named = net.named_parameters()
    found.gradients = [name for name, each in named if each.grad is not None and not _finite(each.grad)]
    return found


@contextmanager
def _watched(net: nn.Module, found: Findings) -> Iterator[None]:
    """Store the first module with a non-finite output in `found.module`; inner modules come before outer ones."""

    names = {module: name for name, module in net.named_modules()}

    def watch(module: nn.Module, _inputs: Any, output: Any) -> None:
        if found.module is None and module in names and not _finite(output):
            found.module = f"{names[module] or 'the network'} ({type(module).__name__})"

    handle = register_module_forward_hook(watch)
    try:
        yield
    finally:
        handle.remove()


def _finite(value: Any) -> bool:
    if isinstance(value, Tensor):
        return bool(value.isfinite().all())
    if isinstance(value, Mapping):
        return all(_finite(one) for one in value.values())
    return not isinstance(value, list | tuple) or all(_finite(one) for one in value)
