"""Weights and checkpoints: the only place that calls torch.save and torch.load."""

import hashlib
import pickle
import struct
import zipfile
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypedDict, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from utils.utils_error import UserError
from utils.utils_file import whole_file
from utils.utils_lora import adapted_to
from utils.utils_run_folder import RELEASE

CONTAINERS = ("params", "params_ema")
# Last parts of the names of constants, and what torch.optim.swa_utils.AveragedModel counts.
BUFFERS = ("relative_position_index", "position_bias", "attn_mask", "mean", "std", "n_averaged")
FIRST, FUSE = "conv_first.weight", "linear_fuse.weight"
RGB = 3
READ_ERRORS = (  # what reading a file with wrong bytes may end in
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
BLOCK = 2**20  # bytes read at once


class Written(TypedDict):
    """What a file must be if it is still the one that was written."""

    bytes: int
    sha256: str


@dataclass
class LoadReport:
    """What a file gave a network.

    Attributes:
        loaded: number of parameters taken as they are.
        missing: parameters that the file lacks.
        unexpected: entries of the file that the network has no place for.
        mismatched: "name: shape in the file -> shape in the network".
        widened: parameters copied into a wider one (3-channel weights into 3 + S channels).
        prefix: what was left out at the front of every name, such as "module.".
    """

    loaded: int = 0
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    widened: list[str] = field(default_factory=list)
    prefix: str = ""

    def __str__(self) -> str:
        parts = [f"{self.loaded} parameters loaded" + f" by their names without {self.prefix!r}" * bool(self.prefix)]
        for name in ("missing", "unexpected", "mismatched", "widened"):
            keys = getattr(self, name)
            if keys:
                more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
                parts.append(f"{len(keys)} {name} ({', '.join(keys[:5])}{more})")
        return "; ".join(parts)


def load_weights(net: nn.Module, source: str | Path | Mapping[str, Tensor], strict: bool = True) -> LoadReport:
    """Load weights by name, from this project or from an official release.

    Low-rank changes (utils_lora) go into the weights where the network has none, and start without effect where the
    source has none. Buffers in the source are ignored: the network computes its own. A 3-channel `conv_first` widens
    to 3 + S input channels such that the spike channels start without effect, see `widened`. What all names begin with
    and the network's do not, such as "module." of DataParallel, is left out.

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
    if strict and (report.missing or report.unexpected or report.mismatched):
        raise UserError(f"{name} does not fit the network: {report}; check netG in the options")
    if not fitting:
        raise UserError(f"{name} has nothing in common with the network: {report}; check netG in the options")
    with torch.no_grad():
        for key, value in fitting.items():
            own[key].copy_(value)
    return report


def _without_prefix(state: Mapping[str, Tensor], own: Collection[str]) -> tuple[Mapping[str, Tensor], str]:
    """Leave out what wrappers (DataParallel, torch.compile) put before every name, and return it."""
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
    wide[:, :, :RGB] = frame.reshape(frame.shape[0], copies, RGB, *frame.shape[2:])
    return torch.cat((wide.flatten(1, 2), rest), dim=1)


def read_state_dict(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """Read the tensors of a .pth or .safetensors file, on the CPU, without running any code in it.

    Args:
        path: the file.
        sha256: of its bytes, where known.

    Raises:
        UserError: the file is absent, damaged, needs code to be unpickled, or holds no tensors.
    """
    content = read_file(path, sha256)
    for container in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(container), Mapping):
            content = content[container]
            break
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path} holds no weights: expected a dict of tensors, bare or under one of {CONTAINERS}")
    return dict(content)


def read_file(path: Path, sha256: str | None = None) -> Any:
    """torch.load on the CPU with weights_only, or safetensors, of a file whose bytes are what was written.

    Args:
        path: the file.
        sha256: of its bytes; None: the checksums that the format has are looked at, which torch.load does not.

    Raises:
        UserError: the file is absent, damaged, or needs code to be unpickled.
    """
    if not path.is_file():
        raise UserError(
            f"{path} not found: weights are never downloaded; get {path.name} from {RELEASE} or your own training, "
            "or set the option to null"
        )
    try:
        _check(path, sha256)
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} refused: it is damaged or needs code to be run on loading") from error
    except READ_ERRORS as error:
        raise UserError(f"{path} cannot be read, it is damaged or no checkpoint ({_first_line(error)})") from error


def write_file(content: Any, path: Path) -> Written:
    """torch.save so that `path` holds the old content or the whole new one, whatever happens meanwhile."""
    with whole_file(path) as temporary:
        return dump(content, temporary)


def dump(content: Any, path: Path) -> Written:
    """torch.save; size and SHA-256 are those of what was written, not of what a disk gives back.

    Raises:
        OSError: the file cannot be written, with the system's reason.
    """
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
    """A file for torch.save that adds up what is written; of a failure it keeps the reason, which torch.save hides."""

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


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            sha.update(block)
    return sha.hexdigest()


def _check(path: Path, sha256: str | None) -> None:
    """Raise one of READ_ERRORS where bytes of a file have changed since it was written."""
    if sha256 is not None:
        found = digest(path)
        if found != sha256:
            raise ValueError(f"its SHA-256 is {found[:12]}..., expected {sha256[:12]}...")
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
        if wrong is not None:
            raise ValueError(f"the checksum of {wrong} in it is wrong")


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200]
