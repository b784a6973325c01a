"""Weights and checkpoints: the only place that calls torch.save and torch.load."""

import json
import logging
import math
import pickle
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from utils.utils_error import UserError
from utils.utils_file import whole_file, write_text

LOG = logging.getLogger("spikevrt")
RELEASE = "the official VRT release (github.com/JingyunLiang/VRT, release v0.0)"
CONTAINERS = ("params", "params_ema")
BUFFERS = ("relative_position_index", "position_bias", "attn_mask", "mean", "std")  # last parts of their names
FIRST, FUSE = "conv_first.weight", "linear_fuse.weight"
RGB = 3
STATE_FILE = re.compile(r"(\d+)_state\.pth")


class Resumable(Protocol):
    """What a run can be resumed from: state_dicts by kind, "G", "state" and, with a moving average, "E"."""

    def state_dicts(self) -> dict[str, dict[str, Any]]:
        """Everything that the next step depends on."""

    def load_state_dicts(self, states: Mapping[str, Any]) -> None:
        """Exact inverse of state_dicts."""


@dataclass
class LoadReport:
    """What a file gave a network.

    Attributes:
        loaded: number of parameters taken as they are.
        missing: parameters that the file lacks.
        unexpected: entries of the file that the network has no place for.
        mismatched: "name: shape in the file -> shape in the network".
        widened: parameters copied into a wider one (3-channel weights into 3 + S channels).
    """

    loaded: int = 0
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    widened: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"{self.loaded} parameters loaded"]
        for name in ("missing", "unexpected", "mismatched", "widened"):
            keys = getattr(self, name)
            if keys:
                more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
                parts.append(f"{len(keys)} {name} ({', '.join(keys[:5])}{more})")
        return "; ".join(parts)


def load_weights(net: nn.Module, source: str | Path | Mapping[str, Tensor], strict: bool = True) -> LoadReport:
    """Load weights by name, from this project or from an official release.

    Buffers in the source are ignored: the network computes its own. A 3-channel `conv_first` widens to 3 + S input
    channels such that the spike channels start without effect, see `widened`.

    Args:
        net: any module; for `VRT` official files load by name.
        source: a .pth or .safetensors file (a state_dict, bare or under "params" or "params_ema"), or a state_dict.
        strict: refuse a source that does not fill every parameter exactly.

    Returns:
        What was loaded and what was not.

    Raises:
        UserError: no such file, no weights in it, or (strict) keys missing, unexpected or of another shape.
    """
    name = "state_dict" if isinstance(source, Mapping) else str(source)
    state = dict(source) if isinstance(source, Mapping) else read_state_dict(Path(source))
    own = dict(net.named_parameters())
    buffers = {key for key, _ in net.named_buffers()}
    report = LoadReport()
    _widen_for(own, state, report)
    fitting: dict[str, Tensor] = {}
    for key, value in state.items():
        if key in buffers or (key not in own and is_buffer(key)):
            continue
        if key not in own:
            report.unexpected.append(key)
        elif value.shape != own[key].shape:
            report.mismatched.append(f"{key}: {tuple(value.shape)} -> {tuple(own[key].shape)}")
        else:
            fitting[key] = value
    report.loaded = len(fitting)
    report.missing = [key for key in own if key not in state]
    if strict and (report.missing or report.unexpected or report.mismatched):
        raise UserError(f"{name} does not fit the network: {report}; check netG in the options")
    if not fitting:
        raise UserError(f"{name} has nothing in common with the network: {report}; check netG in the options")
    with torch.no_grad():
        for key, value in fitting.items():
            own[key].copy_(value)
    return report


def is_buffer(key: str) -> bool:
    """Whether an entry of an official file is a constant that the network computes itself."""
    return key.rpartition(".")[2] in BUFFERS


def frame_copies(names: Collection[str]) -> int:
    """How often each channel of a frame enters the first convolution: once where frames are interpolated.

    Else it enters with the four nearest pixels of both warped neighbours: 1 + 2 * 4 times.
    """
    return 1 if FUSE in names else 9


def widened(weight: Tensor, copies: int, channels: int) -> Tensor:
    """Give the first convolution more channels a frame, which start without effect.

    Args:
        weight: (c_out, copies * 3 + rest, ...), planes of a copy side by side; the rest is a noise map.
        copies: of `frame_copies`.
        channels: wanted channels a frame, 3 or more.

    Returns:
        (c_out, copies * channels + rest, ...), zero where there was nothing.
    """
    frame, rest = weight[:, : copies * RGB], weight[:, copies * RGB :]
    wide = frame.new_zeros(weight.shape[0], copies, channels, *weight.shape[2:])
    wide[:, :, :RGB] = frame.unflatten(1, (copies, RGB))
    return torch.cat((wide.flatten(1, 2), rest), dim=1)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a .pth or .safetensors file, on the CPU, without running any code in it.

    Raises:
        UserError: the file is absent, damaged, needs code to be unpickled, or holds no tensors.
    """
    content = read_file(path)
    for container in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(container), Mapping):
            content = content[container]
            break
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path} holds no weights: expected a dict of tensors, bare or under one of {CONTAINERS}")
    return dict(content)


def read_file(path: Path) -> Any:
    """torch.load on the CPU with weights_only, or safetensors; UserError where that is refused."""
    if not path.is_file():
        raise UserError(
            f"{path} not found: weights are never downloaded; get {path.name} from {RELEASE} or your own training, "
            "or set the option to null"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} refused: it is damaged or needs code to be run on loading ({_first_line(error)})"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read, it is damaged or no checkpoint ({_first_line(error)})") from error


def write_file(content: Any, path: Path) -> None:
    """torch.save so that `path` holds the old content or the whole new one, whatever happens meanwhile."""
    with whole_file(path) as temporary:
        torch.save(content, temporary)


def write_weights(state: Mapping[str, Tensor], path: Path, container: str | None = None) -> None:
    """Write tensors by name, whole or not at all; the suffix chooses the format.

    Args:
        state: the tensors.
        path: .safetensors, or anything else for torch.save.
        container: key that the tensors are put under; a .safetensors file is flat and has none.
    """
    if path.suffix != ".safetensors":
        write_file({container: dict(state)} if container else dict(state), path)
        return
    with whole_file(path) as temporary:
        save_file({key: value.contiguous() for key, value in state.items()}, temporary)


def save(run_dir: Path, step: int, model: Resumable, keep: int = 0) -> None:
    """Write <step>_G.pth, <step>_E.pth and, last, <step>_state.pth; keep the newest `keep` sets (0 = all)."""
    folder = run_dir / "models"
    states = model.state_dicts()
    for kind in sorted(states, key="GE".find, reverse=True):  # the state file, whose presence says "whole", comes last
        if kind != "state":
            write_file(states[kind], folder / f"{step}_{kind}.pth")
    write_file({"step": step, "kinds": sorted(states), **states["state"]}, folder / f"{step}_state.pth")
    if keep:
        for old in [saved for saved in saved_steps(run_dir) if saved != step][: -keep + 1 or None]:
            for kind in ("state", "G", "E"):
                (folder / f"{old}_{kind}.pth").unlink(missing_ok=True)


def save_best(run_dir: Path, model: Resumable, step: int, score: float) -> None:
    """Write best_G.pth, averaged weights where the model has them, then best.json with their step and score."""
    states = model.state_dicts()
    write_file(states.get("E", states["G"]), run_dir / "models" / "best_G.pth")
    write_text(run_dir / "models" / "best.json", json.dumps({"step": step, "psnr": score}) + "\n")


def best_score(run_dir: Path) -> float:
    """PSNR of the run's best weights so far; minus infinity where there are none."""
    path = run_dir / "models" / "best.json"
    return json.loads(path.read_text())["psnr"] if path.is_file() else -math.inf


def saved_steps(run_dir: Path) -> list[int]:
    """Steps of which a state file exists, ascending."""
    matches = (STATE_FILE.fullmatch(path.name) for path in (run_dir / "models").glob("*_state.pth"))
    return sorted(int(match[1]) for match in matches if match)


def resume(run_dir: Path, model: Resumable) -> int:
    """Load the newest whole checkpoint of a run into the model; a damaged one is named and the one before it is used.

    Returns:
        The step it was saved at; 0 where there is none.

    Raises:
        UserError: the checkpoint is of another network or optimizer than the options'.
    """
    for step in reversed(saved_steps(run_dir)):
        try:
            state = read_file(run_dir / "models" / f"{step}_state.pth")
            if not isinstance(state, dict) or "kinds" not in state:
                raise UserError(f"{step}_state.pth is no state of a run")
            kinds = [kind for kind in state["kinds"] if kind != "state"]
            weights = {kind: read_state_dict(run_dir / "models" / f"{step}_{kind}.pth") for kind in kinds}
        except UserError as error:
            LOG.warning("checkpoint %d is not whole, trying the one before: %s", step, error)
            continue
        try:
            model.load_state_dicts({**weights, "state": state})
        except ValueError as error:  # a UserError, or the optimizer's refusal
            raise UserError(
                f"{run_dir / 'models'}/{step}_*.pth cannot be resumed with these options: {error}; "
                "take back what was changed in netG or train, or give the run another task name"
            ) from error
        LOG.info("resumed from step %d in %s", step, run_dir / "models")
        return step
    return 0


def find_weights(run_dir: Path, pretrained_netE: str | None, pretrained_netG: str | None) -> tuple[Path, str]:
    """Which weights to test: those given in the options, else the run's best, else its last.

    Returns:
        The file and, in words, why it was chosen.

    Raises:
        UserError: there are none.
    """
    for key, given in (("path.pretrained_netE", pretrained_netE), ("path.pretrained_netG", pretrained_netG)):
        if given is not None and given != "auto":
            return Path(given), f"given by {key}"
    best = run_dir / "models" / "best_G.pth"
    if best.is_file():
        return best, "the run's best"
    for step in reversed(saved_steps(run_dir)):
        for kind in ("E", "G"):
            path = run_dir / "models" / f"{step}_{kind}.pth"
            if path.is_file():
                return path, f"the run's last, step {step}"
    raise UserError(f"no weights to test in {run_dir / 'models'}: train first, or set path.pretrained_netG to a file")


def _widen_for(own: Mapping[str, nn.Parameter], state: dict[str, Tensor], report: LoadReport) -> None:
    """Widen the first convolution of `state` to that of the network where this is all that keeps them apart."""
    if FIRST not in state or FIRST not in own or state[FIRST].shape == own[FIRST].shape:
        return
    old, new, copies = state[FIRST], own[FIRST], frame_copies(own)
    channels = new.shape[1] // copies
    alike = old.dim() == new.dim() and old.shape[0] == new.shape[0] and old.shape[2:] == new.shape[2:]
    spare = old.shape[1] - RGB * copies, new.shape[1] - channels * copies
    if alike and channels > RGB and spare[0] == spare[1]:
        state[FIRST] = widened(old, copies, channels)
        report.widened.append(f"{FIRST}: {RGB} -> {channels} channels a frame")


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200]
