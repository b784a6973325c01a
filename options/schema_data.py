"""Options of the data sets."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from options.kair_keys import FOLDERS_OF_CLIPS, OTHER_DATASET_TYPES
from options.schema_base import Block, Count, Counts, FilePath, NotNegative, OddCount, Whole, in_words, raise_all


@dataclass(frozen=True)
class DatasetType:
    """What the options know of a kind of data set; data.select_dataset has its class.

    block: the block of `datasets` that it stands in.
    uses_spikes: whether its frames come with spikes.
    short: other names of it in a file.
    """

    block: Literal["train", "test"]
    uses_spikes: bool = False
    short: tuple[str, ...] = ()


DATASET_TYPES = {
    "VideoRecurrentTrainDatasetRGBSpike": DatasetType("train", True, ("TrainDatasetRGBSpike",)),
    "VideoRecurrentTrainDataset": DatasetType("train", False, ("TrainDataset",)),
    "VideoRecurrentTestDatasetRGBSpike": DatasetType("test", True, ("TrainDatasetRGBSpike", "TestDatasetRGBSpike")),
    "VideoRecurrentTestDataset": DatasetType("test", False, ("TrainDataset", "TestDataset")),
    "SingleVideoRecurrentTestDataset": DatasetType("test", False, ("SingleTestDataset",)),
}
# representation -> possible numbers of planes per frame, given spike.window; empty: 1 or more
SPIKE_CHANNELS: dict[str, Callable[[int], tuple[int, ...]]] = {
    "tfp": lambda window: (1,),
    "tfi": lambda window: (1,),
    "bins": lambda window: (),
    "raw_window": lambda window: (window,),
    "isi": lambda window: (),
    "sdm": lambda window: (1, 3),
}


def names_in(block: str) -> dict[str, str]:
    """Return the names that a file may give in a block of `datasets` -> the key of DATASET_TYPES that is meant."""
    kinds = {name: kind for name, kind in DATASET_TYPES.items() if kind.block == block}
    names = {name: name for name in kinds} | {short: name for name, kind in kinds.items() for short in kind.short}
    return names | (dict.fromkeys(FOLDERS_OF_CLIPS, "VideoRecurrentTestDataset") if block == "test" else {})


def _uses_spikes(name: str) -> bool:
    return any(kind.uses_spikes and name in (long, *kind.short) for long, kind in DATASET_TYPES.items())


class SpikeOpt(Block):
    """How spikes become planes for the network. Matters only to data sets with spikes."""

    representation: Literal[tuple(SPIKE_CHANNELS)] = "tfp"  # type: ignore[valid-type]
    """tfp: mean rate in a window; tfi: inverse interval at one step; bins: mean rates of equal parts of the exposure;
    raw_window: the bits of a window; isi: inverse intervals at equal distances in the exposure; sdm: the blurred
    frame times short over long mean rate, 1 plane (gray) or 3 (RGB). All in units of intensity: white is 1."""
    window: OddCount = 21
    """Spike steps, odd: averaged (tfp, sdm), handed on (raw_window), searched besides the exposure (tfi, isi)."""
    center: Whole | None = None
    """Spike step at the window's middle, counted from the file's first; null: the manifest's sharp step."""
    edge: Literal["error", "mirror"] = "error"
    """Steps before the first or after the last of a clip's stream: refused, or the stream mirrored about its end."""
    rate_at_white: Annotated[float, Field(gt=0, le=1)] | None = None
    """Spikes per step of a white pixel, by which rates are divided; null: from the manifest."""
    flipud: bool | None = None
    """Rows are stored bottom-up; null: from the manifest."""
    bit_order: Literal["little", "big"] | None = None
    """Bit of a byte that is its leftmost pixel: the lowest or the highest; null: from the manifest."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Return the possible numbers of planes per frame; empty: 1 or more."""
        return SPIKE_CHANNELS[self.representation](self.window)


class IoBackendOpt(Block):
    """Where RGB frames are read from."""

    type: Literal["disk", "lmdb"] = "disk"
    """Image files, or a database of them."""


class DatasetOpt(Block):
    """One data set, of training or of testing."""

    name: str = "dataset"
    """A label for the reader."""
    dataset_type: str
    """Kind of data set: with or without spikes, long (KAIR's) or short name; see DATASET_TYPES."""
    dataroot_gt: FilePath | None = None
    """Folder of the sharp clips; in testing null = restore without measuring."""
    dataroot_lq: FilePath | None = None
    """Folder of the blurred clips."""
    dataroot_spike: FilePath | None = None
    """Folder of the clips' spike files."""
    spike_h: Count | None = None
    """Rows of the spike sensor; null: from the manifest."""
    spike_w: Count | None = None
    """Columns of the spike sensor; null: from the manifest."""
    spike: SpikeOpt = SpikeOpt()
    """How spikes become planes."""
    spike_channels: Whole = 0
    """Planes a frame made of spikes; not given: 1 with spikes (raw_window: its window), else 0."""
    meta_info_file: FilePath | None = None
    """Text file with a line `clip nframes (h,w,c) startframe` a clip; null: every clip that is found."""
    filename_tmpl: Annotated[
        str,
        Field(pattern=r"^(0?\d*d|[^{}]*\{(:0?\d*d)?\}[^{}]*)$"),
        in_words('the format of a number, such as "06d", or text around it, such as "im{}"'),
    ] = "06d"
    """Frame names that meta_info_file means: the format of the number, or text around it, as "im{}", "f_{:04d}"."""
    filename_ext: (
        Annotated[str, Field(pattern=r"^\w+$"), in_words('an extension without its dot, such as "png"')] | None
    ) = None
    """The only extension of image files that is taken, no dot, in any case; null: that of any image."""
    io_backend: IoBackendOpt = IoBackendOpt()
    """Where RGB frames are read from."""
    sigma: NotNegative | None = None
    """Denoising, in testing: level of the noise that is added to clean frames, white is 255; --sigma counts instead."""
    num_frame: Annotated[int, Field(ge=-1)] = 6
    """Frames of a training sample; testing takes whole clips, whatever stands here (KAIR: -1)."""
    gt_size: Count = 192
    """Side of the square training crop in pixels of the sharp frame."""
    interval_list: Counts = (1,)
    """Distances between the frames of a sample, one drawn each time; 1 = consecutive."""
    random_reverse: bool = False
    """Play half of the training samples backwards."""
    use_hflip: bool = True
    """Mirror half of the training samples left to right."""
    use_rot: bool = True
    """Mirror top to bottom, and transpose, half of the training samples each."""
    cache_data: bool = False
    """Keep decoded frames in memory."""
    dataloader_shuffle: bool = True
    """Draw training samples in random order."""
    dataloader_num_workers: Whole = 4
    """Reading processes of each training process; 0 = read in the training process itself."""
    dataloader_batch_size: Count = 1
    """Samples of a training step, of all processes together."""
    dataloader_prefetch_factor: Count = 2
    """Batches that each reading process prepares in advance."""

    @property
    def uses_spikes(self) -> bool:
        """Whether the frames come with spikes."""
        return _uses_spikes(self.dataset_type)

    @field_validator("dataset_type")
    @classmethod
    def _known_type(cls, value: str) -> str:
        known = names_in("train") | names_in("test")
        if value not in known and value not in OTHER_DATASET_TYPES:
            raise ValueError("must be one of " + ", ".join(known))
        return value

    @model_validator(mode="before")
    @classmethod
    def _channels_of_type(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        if isinstance(data.get("dataset_type"), str):
            names = (*names_in("train"), *names_in("test"), *OTHER_DATASET_TYPES)  # like KAIR, in any case
            known = {name.lower(): name for name in names}
            data = data | {"dataset_type": known.get(data["dataset_type"].lower(), data["dataset_type"])}
        if "spike_channels" in data:
            return data
        if not _uses_spikes(str(data.get("dataset_type"))):
            return data | {"spike_channels": 0}
        spike = SpikeOpt().model_dump() | (data["spike"] if isinstance(data.get("spike"), dict) else {})
        planes = SPIKE_CHANNELS.get(str(spike["representation"]), SPIKE_CHANNELS["tfp"])(spike["window"])
        return data | {"spike_channels": planes[0] if planes else 1}

    @model_validator(mode="after")
    def _consistent(self) -> "DatasetOpt":
        problems = []
        planes = self.spike.channels if self.uses_spikes else (0,)
        if self.spike_channels not in (planes or (max(self.spike_channels, 1),)):
            cause = f"spike.representation {self.spike.representation!r} of " if self.uses_spikes else ""
            gives = " or ".join(map(str, planes or ("1 or more",)))
            problems.append(
                f"spike_channels is {self.spike_channels}, but {cause}dataset_type {self.dataset_type!r} "
                f"gives {gives}; change one of them"
            )
        if (self.spike_h is None) != (self.spike_w is None):
            problems.append(f"spike_h is {self.spike_h} and spike_w is {self.spike_w}; give both or neither")
        if self.num_frame == 0:
            problems.append("num_frame is 0, must be 1 or more (or -1 in testing)")
        raise_all(problems)
        return self


class DatasetsOpt(Block):
    """The data sets of a run."""

    train: DatasetOpt | None = None
    """What is trained on; null where the file is only for testing."""
    test: DatasetOpt | None = None
    """What is measured during and after training; null: nothing is."""

    @field_validator("train", "test")
    @classmethod
    def _fits_block(cls, value: DatasetOpt | None, info: ValidationInfo) -> DatasetOpt | None:
        if value is None:
            return None
        block = str(info.field_name)
        names = names_in(block)
        kind = names.get(value.dataset_type, value.dataset_type)
        problems = []
        if kind not in names and kind not in OTHER_DATASET_TYPES:
            problems.append(
                f"dataset_type is {kind!r}, which cannot stand in the {block} block; use one of " + ", ".join(names)
            )
        is_trained = block == "train" and kind not in OTHER_DATASET_TYPES
        if block == "test" and value.sigma is not None and value.dataroot_lq is None:
            value = value.model_copy(update={"dataroot_lq": value.dataroot_gt})  # clean frames, both
        needed = ["dataroot_lq"] * (is_trained or block == "test") + ["dataroot_gt"] * is_trained
        needed += ["dataroot_spike"] * value.uses_spikes
        missing = [key for key in needed if getattr(value, key) is None]
        if missing:
            problems.append(f"{' and '.join(missing)} missing; give the folder of the data set")
        if is_trained and value.num_frame < 1:
            problems.append(f"num_frame is {value.num_frame}, must be 1 or more in training")
        raise_all(problems)
        return value.model_copy(update={"dataset_type": kind})
