"""manifest.json: size, timing and physics of a spike data set; and the rules for GoPro+Spike, which has no manifest."""

import difflib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_serializer, model_validator

from data.spike.alignment import Alignment
from data.spike.description import find_description
from utils.spike_loader import BitOrder, Size
from utils.utils_error import UserError
from utils.utils_file import own_name, read_text, write_text

FILE_NAME = "manifest.json"
_GOPRO_CLIP = re.compile(r"GOPR\d+_(\d+)_\d+")
_Positive = Annotated[int, Field(gt=0)]
_CONFIG = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ClipTiming(BaseModel):
    """The timing of one clip's `.dat` files, in steps from the start of each file, and the clip's own sizes."""

    model_config = _CONFIG

    steps: _Positive  # sensor steps per .dat file
    exposure: tuple[int, int]  # [first, last): the steps that the blurred frame integrates
    sharp_step: int  # the step at which the sharp frame was taken
    steps_of: dict[str, _Positive] = {}  # frames whose .dat has another number of steps
    spike_h: _Positive | None = None  # sizes of this clip, if they differ from the manifest's
    spike_w: _Positive | None = None
    rgb_h: _Positive | None = None
    rgb_w: _Positive | None = None
    alignment: Alignment | None = None  # of the two cameras, as scripts/spike.py align measures it

    @model_validator(mode="after")
    def _consistent(self) -> "ClipTiming":
        first, last = self.exposure
        shortest = min([self.steps, *self.steps_of.values()])
        if not 0 <= first < last <= shortest:
            raise ValueError(
                f"exposure [{first}, {last}) must be a non-empty part of [0, {shortest}), the shortest .dat"
            )
        if not first <= self.sharp_step < last:
            raise ValueError(f"sharp_step {self.sharp_step} must lie in the exposure [{first}, {last})")
        for kind in ("spike", "rgb"):
            height, width = getattr(self, f"{kind}_h"), getattr(self, f"{kind}_w")
            if (height is None) != (width is None):
                raise ValueError(f"{kind}_h is {height} and {kind}_w {width}; give both or neither")
        if self.alignment and last - first + self.alignment.longer < 1:
            raise ValueError(
                f"alignment.longer {self.alignment.longer} leaves no step of the exposure [{first}, {last})"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_absent_sizes(self, write: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {key: value for key, value in write(self).items() if value is not None}

    @property
    def spike_size(self) -> Size | None:
        """(H, W) of the clip's spikes; None: the manifest's."""
        return None if self.spike_h is None or self.spike_w is None else (self.spike_h, self.spike_w)

    def num_steps(self, frame: str) -> int:
        return self.steps_of.get(frame, self.steps)

    def in_spikes(self) -> "ClipTiming":
        """Return the timing with exposure and sharp step where the spikes have them; both may leave the file."""
        if self.alignment is None:
            return self
        (first, last), late = self.exposure, self.alignment.steps
        moved = {"exposure": (first + late, last + late + self.alignment.longer), "sharp_step": self.sharp_step + late}
        return self.model_copy(update=moved)


class Manifest(BaseModel):
    """Everything that a spike data set's files do not say themselves; both splits share one manifest."""

    model_config = _CONFIG

    version: Literal[1] = 1
    spike_h: _Positive
    spike_w: _Positive
    rgb_h: _Positive
    rgb_w: _Positive
    flipud: bool  # the files store their rows bottom-up
    bit_order: BitOrder = "little"  # the leftmost pixel is a byte's lowest ("little") or highest ("big") bit
    clock_hz: Annotated[float, Field(gt=0)]  # sensor steps per second
    rate_at_white: Annotated[float, Field(gt=0, le=1)]  # spikes per step of a white pixel
    theta: Annotated[float, Field(gt=0)] | None = None  # firing threshold, in white pixels x steps
    transfer: Literal["srgb", "linear"]  # what the sensor integrates
    noise: Literal["none", "sensor"]
    continuous: bool = False  # the .dat files of consecutive frames are one stream without gaps
    blur: Literal["blur", "blur_gamma"] | None = None  # GoPro folder of the blurred frames
    clips: dict[str, ClipTiming]

    @classmethod
    def load(cls, dataroot_spike: str | Path) -> "Manifest | None":
        """Read the manifest that `find_description` finds for these spikes, else None; errors as `read`."""
        path = find_description(dataroot_spike, FILE_NAME)
        return None if path is None else cls.read(path)

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Read a manifest file.

        Raises:
            UserError: the file is not valid JSON, or a key is missing, unknown or contradicts another.
        """
        try:
            return cls.model_validate_json(read_text(path), strict=True)
        except ValidationError as error:
            raise UserError(f"{path}: {_first_problem(error)}; correct it or write the data set again") from None

    def save(self, folder: str | Path) -> None:
        write_text(Path(folder) / FILE_NAME, self.model_dump_json(indent=1) + "\n")

    def timing(self, clip: str) -> ClipTiming:
        """Return the timing of one clip.

        Raises:
            UserError: the clip is unknown; the message has the nearest names.
        """
        clip = own_name(clip, self.clips)
        if clip not in self.clips:
            nearest = ", ".join(difflib.get_close_matches(clip, self.clips, n=3)) or "none"
            raise UserError(
                f"{FILE_NAME}: unknown clip {clip!r} among {len(self.clips)}, nearest: {nearest}; "
                "rename the clip's folder or add it to the manifest"
            )
        return self.clips[clip]

    def spike_size(self, clip: str) -> Size:
        """Return (H, W) of a clip's spikes: its own, else the manifest's, as for an unknown clip."""
        timing = self.clips.get(own_name(clip, self.clips))
        return (timing and timing.spike_size) or (self.spike_h, self.spike_w)


def simulated_manifest(
    rgb: Size,
    spike_scale: int,
    theta: float,
    clock_hz: float,
    transfer: Literal["srgb", "linear"] = "srgb",
    noise: Literal["none", "sensor"] = "none",
) -> Manifest:
    """Return the manifest of simulated cameras, without clips; consecutive frames are one stream.

    `spike_scale` are the RGB pixels of frames of size `rgb` per spike pixel, along each axis.
    """
    return Manifest(
        spike_h=rgb[0] // spike_scale,
        spike_w=rgb[1] // spike_scale,
        rgb_h=rgb[0],
        rgb_w=rgb[1],
        flipud=True,
        clock_hz=clock_hz,
        rate_at_white=1 / theta,
        theta=theta,
        transfer=transfer,
        noise=noise,
        continuous=True,
        clips={},
    )


GOPRO_RATE_AT_WHITE = 0.5  # spikes per step: threshold 2 in units of white
GOPRO_SHORT_BY = 7  # steps missing in the last .dat of a GoPro clip, because no source frame follows


def gopro_timing(clip: str) -> ClipTiming:
    """Return the timing of a GoPro+Spike clip, from its name: N averaged frames of 8 steps each.

    The sharp frame is the middle one, at step 4(N-1), not T/2. The last `.dat` of a clip has only 8N-7 steps, which
    still contain the whole exposure. `GOPR0372_07_00` has N = 7; UserError for a name of another form.
    """
    match = _GOPRO_CLIP.fullmatch(clip)
    frames = int(match[1]) if match else 0
    if frames < 1:
        raise UserError(
            f"clip {clip!r}: without a {FILE_NAME} the timing is taken from names such as GOPR0372_07_00; "
            f"put a {FILE_NAME} beside the spikes or use the GoPro set's own clip names"
        )
    return ClipTiming(steps=8 * frames, exposure=(0, 8 * (frames - 1) + 1), sharp_step=4 * (frames - 1))


def _first_problem(error: ValidationError) -> str:
    """Return one line with place, message and found value of the first problem, and the number of others."""
    problems = error.errors(include_url=False)
    first = problems[0]
    place = ".".join(map(str, first["loc"]))
    value = repr(first["input"])
    found = f", found {value}" if len(value) <= 60 else ""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{place + ': ' if place else ''}{first['msg'].removeprefix('Value error, ')}{found}{more}"
