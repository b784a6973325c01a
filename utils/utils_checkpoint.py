"""Weights and checkpoints: the only module that calls torch.save and torch.load."""

import hashlib
import json
import logging
import pickle
import struct
import zipfile
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypedDict, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from utils.utils_error import UserError
from utils.utils_file import digest, whole_file
from utils.utils_lora import adapted_to
from utils.utils_run_folder import check_exists
from utils.utils_zoo import located

LOG = logging.getLogger("spikevrt")
CONTAINERS = ("params", "params_ema")
# Last name parts of constant buffers, and the counter of torch.optim.swa_utils.AveragedModel.
BUFFERS = ("relative_position_index", "position_bias", "attn_mask", "mean", "std", "n_averaged")
FIRST, FUSE = "conv_first.weight", "linear_fuse.weight"
RGB = 3
LATER_PARTS = ("fusion.guide.",)  # what published weights lack, without effect until it is trained
READ_ERRORS = (  # possible errors when reading a damaged file
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError,
    ValueError, SafetensorError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
SAFE, NOTES = ".safetensors", "spikevrt"  # suffix; key of our notes in such a file's metadata


class Written(TypedDict):
    """Size and SHA-256 of a written file."""

    bytes: int
    sha256: str


@dataclass
class LoadReport:
    """How a weights file fits a network."""

    loaded: int = 0  # number of parameters loaded
    missing: list[str] = field(default_factory=list)  # parameters that the file lacks
    unexpected: list[str] = field(default_factory=list)  # entries of the file that the network lacks
    mismatched: list[str] = field(default_factory=list)  # "name: shape in the file -> shape in the network"
    widened: list[str] = field(default_factory=list)  # parameters copied into wider ones (3 into 3 + S channels)
    prefix: str = ""  # removed from every name, such as "module."

    def __str__(self) -> str:
        parts = [f"{self.loaded} parameters loaded" + f" with {self.prefix!r} removed from names" * bool(self.prefix)]
        for name in ("missing", "unexpected", "mismatched", "widened"):
            keys = getattr(self, name)
            if keys:
                more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
                parts.append(f"{len(keys)} {name} ({', '.join(keys[:5])}{more})")
        return "; ".join(parts)


def load_weights(net: nn.Module, source: str | Path | Mapping[str, Tensor], strict: bool = True) -> LoadReport:
    """Load weights by name, from this project or from an official release, into a network; returns how they fit.

    Low-rank changes (utils_lora) are merged if the network has none, and start without effect if only the network has
    them. Buffers in the source are ignored: the network computes its own. A 3-channel `conv_first` widens to 3 + S
    input channels, where the spike channels start without effect, see `widened`. A guide that only the network has
    keeps its weights. A common prefix of all names that the network lacks, such as DataParallel's "module.", is
    removed.

    Args:
        net: any module; official files load into `VRT` by name.
        source: a .pth or .safetensors file (a state_dict, bare or under "params" or "params_ema"), or a state_dict.
        strict: raise UserError for missing or unexpected keys or shape mismatches, not only if nothing fits.
    """
    name = "state_dict" if isinstance(source, Mapping) else str(source)
    given = source if isinstance(source, Mapping) else read_state_dict(Path(source))
    given, prefix = _without_prefix(given, net.state_dict())
    state = adapted_to(given, net.state_dict())
    own = dict(net.named_parameters())
    buffers = {key for key, _ in net.named_buffers()}
    report = LoadReport(prefix=prefix)
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
    for part in LATER_PARTS:
        if not any(key.startswith(part) for key in state):
            report.missing = [key for key in report.missing if not key.startswith(part)]
    if strict and (report.missing or report.unexpected or report.mismatched):
        raise UserError(f"{name} does not fit the network: {report}; check netG in the options")
    if not fitting:
        raise UserError(f"{name} has nothing in common with the network: {report}; check netG in the options")
    with torch.no_grad():
        for key, value in fitting.items():
            own[key].copy_(value)
    return report


def _without_prefix(state: Mapping[str, Tensor], own: Collection[str]) -> tuple[Mapping[str, Tensor], str]:
    """Remove the prefix that wrappers (DataParallel, torch.compile) put before every name; returns it as well."""
    stripped, prefix = state, ""
    while not any(key in own for key in stripped):
        heads = {key.partition(".")[0] for key in stripped if "." in key}
        if len(heads) != 1:
            return state, ""
        head = f"{heads.pop()}."
        stripped, prefix = {key.removeprefix(head): value for key, value in stripped.items()}, prefix + head
    return stripped, prefix


def is_buffer(key: str) -> bool:
    """Whether an entry of an official file is a constant that the network computes itself."""
    return key.rpartition(".")[2] in BUFFERS


def frame_copies(names: Collection[str]) -> int:
    """How often each frame channel enters the first convolution.

    Once for frame interpolation, otherwise 1 + 2 * 4 times: with the four nearest pixels of both warped neighbours.
    """
    return 1 if FUSE in names else 9


def widened(weight: Tensor, copies: int, channels: int) -> Tensor:
    """Give the first convolution `channels` (3 or more) per frame; the new ones start without effect.

    (c_out, copies * 3 + rest, ...), the planes of each copy side by side, the rest a noise map, becomes (c_out, copies
    * channels + rest, ...). `copies` as from `frame_copies`.
    """
    frame, rest = weight[:, : copies * RGB], weight[:, copies * RGB :]
    wide = frame.new_zeros(weight.shape[0], copies, channels, *weight.shape[2:])
    wide[:, :, :RGB] = frame.reshape(frame.shape[0], copies, RGB, *frame.shape[2:])
    return torch.cat((wide.flatten(1, 2), rest), dim=1)


def read_state_dict(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """Read the tensors of a .pth or .safetensors file onto the CPU, without running any code in it.

    `sha256` is that of the file, if known. Raises UserError if the file is absent, damaged, needs code to be unpickled,
    or holds no tensors. Of several containers the first of CONTAINERS is read, and a log line says so.
    """
    content = read_file(path, sha256)
    if isinstance(content, Mapping):
        held = [key for key in CONTAINERS if isinstance(content.get(key), Mapping)]
        if len(held) > 1:
            LOG.warning("%s has %s: %s is taken, as KAIR does for netG", path, " and ".join(held), held[0])
        content = content[held[0]] if held else content
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(
            f"{path}: has no weights, expected a dict of tensors, bare or under one of {CONTAINERS}; give another file"
        )
    return dict(content)


def read_file(path: Path, sha256: str | None = None) -> Any:
    """Verify a file, then load it onto the CPU with torch.load(weights_only=True) or safetensors.

    Without `sha256`, the checksums inside the file are verified, which torch.load does not. Raises UserError if the
    file is absent, damaged, or needs code to be unpickled.
    """
    path = located(path)
    check_exists(path)
    try:
        _check(path, sha256)
        if path.suffix == SAFE:
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: refused, as it is damaged or loading it would run code; copy it again or give another file"
        ) from error
    except READ_ERRORS as error:
        raise _unreadable(path, error) from error


def write_file(content: Any, path: Path) -> Written:
    """torch.save, atomically: `path` holds either the old or the complete new content."""
    with whole_file(path) as temporary:
        return dump(content, temporary)


def dump(content: Any, path: Path) -> Written:
    """torch.save; size and SHA-256 are those of the data written. OSError with the system's reason if that fails."""
    with path.open("wb") as file:
        tally = _HashingWriter(file)
        try:
            torch.save(content, cast(BinaryIO, tally))
        except RuntimeError:
            if tally.error is not None:
                raise tally.error from None
            raise
    return {"bytes": tally.bytes, "sha256": tally.sha.hexdigest()}


class _HashingWriter:
    """A file for torch.save that hashes what is written and keeps the write error that torch.save hides."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.bytes, self.sha = file, 0, hashlib.sha256()
        self.error: BaseException | None = None

    def write(self, data: memoryview) -> int:
        try:
            self.file.write(data)
        except BaseException as error:
            self.error = error
            raise
        self.bytes += len(data)
        self.sha.update(data)
        return len(data)

    def flush(self) -> None:
        self.file.flush()


def write_weights(
    state: Mapping[str, Tensor], path: Path, container: str | None = None, notes: Mapping[str, Any] | None = None
) -> None:
    """Write tensors by name, atomically; a .safetensors file or, with any other suffix, torch.save's.

    `container` is the key to put the tensors under, except in .safetensors files, which are flat. These keep the
    SHA-256 of their tensors and `notes`, JSON values that `read_notes` returns.
    """
    if path.suffix != SAFE:
        write_file({container: dict(state)} if container else dict(state), path)
        return
    tensors = {key: value.contiguous() for key, value in state.items()}
    with whole_file(path) as temporary:
        temporary.write_bytes(save(tensors))  # save_file would keep others from reading it
        told = {**(notes or {}), "sha256": digest(temporary, _first_tensor(temporary))}
        temporary.write_bytes(save(tensors, {NOTES: json.dumps(told, sort_keys=True)}))


def read_notes(path: Path) -> dict[str, Any]:
    """Read what `write_weights` noted in a .safetensors file; empty for another file, UserError for a damaged one."""
    path = located(path)
    check_exists(path)
    if path.suffix != SAFE:
        return {}
    try:
        return _notes(path)
    except READ_ERRORS as error:
        raise _unreadable(path, error) from error


def _notes(path: Path) -> dict[str, Any]:
    """The notes in a .safetensors file; raises one of READ_ERRORS."""
    with safe_open(path, framework="pt") as file:
        return dict(json.loads((file.metadata() or {}).get(NOTES, "{}")))


def _first_tensor(path: Path) -> int:
    """Where the tensors of a .safetensors file begin: behind the header and its length, a 64-bit number."""
    with path.open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")


def _widen_for(own: Mapping[str, nn.Parameter], state: dict[str, Tensor], report: LoadReport) -> None:
    """Widen the first convolution of `state` to the network's if they differ only in the channels per frame."""
    if FIRST not in state or FIRST not in own or state[FIRST].shape == own[FIRST].shape:
        return
    old, new, copies = state[FIRST], own[FIRST], frame_copies(own)
    channels = new.shape[1] // copies
    alike = old.dim() == new.dim() and old.shape[0] == new.shape[0] and old.shape[2:] == new.shape[2:]
    spare = old.shape[1] - RGB * copies, new.shape[1] - channels * copies
    if alike and channels > RGB and spare[0] == spare[1]:
        state[FIRST] = widened(old, copies, channels)
        report.widened.append(f"{FIRST}: {RGB} -> {channels} channels per frame")


def _check(path: Path, sha256: str | None) -> None:
    """Raise one of READ_ERRORS if the bytes of a file changed since it was written."""
    if sha256 is not None:
        found = digest(path)
        if found != sha256:
            raise ValueError(f"its SHA-256 is {found[:12]}..., expected {sha256[:12]}...")
    elif path.suffix == SAFE:
        noted = _notes(path).get("sha256")
        if noted not in (None, digest(path, _first_tensor(path))):
            raise ValueError("the checksum of its tensors is wrong")
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
        if wrong is not None:
            raise ValueError(f"the checksum of {wrong} in it is wrong")


def _unreadable(path: Path, error: BaseException) -> UserError:
    reason = str(error).strip().split("\n")[0][:200]
    return UserError(f"{path}: cannot be read, as it is damaged or no checkpoint ({reason}); copy it again")
