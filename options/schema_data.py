"""Options of the data sets."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from options.kair_keys import FOLDERS_OF_CLIPS, OTHER_DATASET_TYPES
from options.schema_augment import AugmentOpt
from options.schema_base import (
    Block,
    Count,
    Counts,
    FilePath,
    NotNegative,
    OddCount,
    Positive,
    Whole,
    in_words,
    raise_all,
)


@dataclass(frozen=True)
class DatasetType:
    """What the options need to know about a kind of data set; data.select_dataset has its class."""

    block: Literal["train", "test"]  # of `datasets`
    uses_spikes: bool = False
    short: tuple[str, ...] = ()  # other names that an option file may use


DATASET_TYPES = {
    "VideoRecurrentTrainDatasetRGBSpike": DatasetType("train", True, ("TrainDatasetRGBSpike",)),
    "VideoRecurrentTrainDataset": DatasetType("train", False, ("TrainDataset",)),
    "VideoRecurrentTestDatasetRGBSpike": DatasetType("test", True, ("TrainDatasetRGBSpike", "TestDatasetRGBSpike")),
    "VideoRecurrentTestDataset": DatasetType("test", False, ("TrainDataset", "TestDataset")),
    "SingleVideoRecurrentTestDataset": DatasetType("test", False, ("SingleTestDataset",)),
}
MOST_STEPS = 255  # per plane of `moment`: counts are bytes
EXPOSURE_PLANES = 2  # of `moment`: low and high byte of the exposure's spike count
ROUND = 1000  # batches in which each of several training sets comes as often as its weight says
LOADER = tuple(f"dataloader_{key}" for key in ("shuffle", "num_workers", "batch_size", "prefetch_factor"))
SHARED = ("num_frame", "gt_size", *LOADER)
"""Options that all sets of a training share."""
# representation -> possible numbers of planes per frame, given spike.window and spike.planes; empty: 1 or more
SPIKE_CHANNELS: dict[str, Callable[[int, int], tuple[int, ...]]] = {
    "tfp": lambda window, planes: (1,),
    "tfi": lambda window, planes: (1,),
    "bins": lambda window, planes: (),
    "raw_window": lambda window, planes: (window,),
    "isi": lambda window, planes: (),
    "moment": lambda window, planes: (planes + EXPOSURE_PLANES,),
    "sdm": lambda window, planes: (1, 3),
}


def names_in(block: str) -> dict[str, str]:
    """Return the names that a file may give in a block of `datasets` -> the key of DATASET_TYPES that is meant."""
    kinds = {name: kind for name, kind in DATASET_TYPES.items() if kind.block == block}
    names = {name: name for name in kinds} | {short: name for name, kind in kinds.items() for short in kind.short}
    return names | (dict.fromkeys(FOLDERS_OF_CLIPS, "VideoRecurrentTestDataset") if block == "test" else {})


def _uses_spikes(name: str) -> bool:
    return any(kind.uses_spikes and name in (long, *kind.short) for long, kind in DATASET_TYPES.items())


def _auto_or_odd(value: object) -> object:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_STEPS and value % 2 == 1
    if value != "auto" and not is_count:
        raise ValueError(f'must be "auto" or an odd number from 1 to {MOST_STEPS}')
    return value


class SpikeOpt(Block):
    """How spikes are turned into input planes. Ignored by data sets without spikes."""

    representation: Literal[tuple(SPIKE_CHANNELS)] = "tfp"  # type: ignore[valid-type]
    """tfp: mean rate over a window. tfi: inverse interval at one step. bins: mean rates of equal parts of the exposure.
    raw_window: the bits of a window. isi: inverse intervals at equally spaced steps of the exposure. sdm: blurred frame
    times short-term over long-term mean rate, as 1 plane (gray) or 3 (RGB). moment: `planes` mean rates of a few steps
    each around the target step and the mean rate of the exposure; what the guide takes. All are intensities: white is
    1."""
    window: OddCount = 21
    """Spike steps, odd: averaged (tfp, sdm), used as planes (raw_window), or searched along with the exposure (tfi,
    isi)."""
    planes: OddCount = 41
    """moment: planes around the target step, odd."""
    steps_per_plane: Annotated[int | Literal["auto"], BeforeValidator(_auto_or_odd)] = "auto"
    """moment: spike steps per plane, odd. auto: the fewest with which all planes cover half of the exposure."""
    gain: Literal["picture", "manifest"] = "picture"
    """moment: what turns rates into intensities. picture: one number per frame, mean gray of the blurred frame over the
    mean rate of its exposure, so the sensor's threshold need not be known. manifest: 1 / rate_at_white."""
    center: Whole | None = None
    """Spike step at the centre of the window; the first step of the file is 0. null: the manifest's sharp step."""
    edge: Literal["error", "mirror"] = "error"
    """Steps beyond either end of a clip's stream. error: refuse them. mirror: mirror the stream at its end."""
    rate_at_white: Annotated[float, Field(gt=0, le=1)] | None = None
    """Spikes per step of a white pixel; rates are divided by it. null: from the manifest."""
    flipud: bool | None = None
    """Whether rows are stored bottom-up. null: from the manifest."""
    bit_order: Literal["little", "big"] | None = None
    """Which bit of a byte is its leftmost pixel: the lowest (little) or the highest (big). null: from the manifest."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Return the possible numbers of planes per frame; empty: 1 or more."""
        return SPIKE_CHANNELS[self.representation](self.window, self.planes)


class IoBackendOpt(Block):
    """Where RGB frames are read from."""

    type: Literal["disk", "lmdb"] = "disk"
    """disk: image files. lmdb: a database of them."""


class DatasetOpt(Block):
    """One training or test data set."""

    name: str = "dataset"
    """A label, for the reader only."""
    dataset_type: str
    """Kind of data set, with or without spikes, by KAIR's name or its short form; see DATASET_TYPES."""
    weight: Positive = 1.0
    """Of several training sets: this one's share of the batches is its weight over the sum of all weights."""
    dataroot_gt: FilePath | None = None
    """Folder of the sharp clips. null (testing only): restore without measuring."""
    dataroot_lq: FilePath | None = None
    """Folder of the blurred clips."""
    dataroot_spike: FilePath | None = None
    """Folder of the spike files."""
    dataroot_subframes: FilePath | None = None
    """Folder of stored light, <clip>/<frame>.npy, or its LMDB, from which `augment` fires spikes anew. null: from the
    recorded ones."""
    dataroot_instants: FilePath | None = None
    """Folder of sharp frames at other instants, <clip>/<frame>_t0.25.png for a quarter of the exposure, or its LMDB."""
    augment: AugmentOpt = AugmentOpt()
    """Changes of the spikes of training samples."""
    spike_h: Count | None = None
    """Rows of the spike sensor. null: from the manifest."""
    spike_w: Count | None = None
    """Columns of the spike sensor. null: from the manifest."""
    spike: SpikeOpt = SpikeOpt()
    """How spikes are turned into input planes."""
    spike_channels: Whole = 0
    """Spike planes per frame. Default: 1 with spikes (raw_window: `window`; moment: `planes` + 2), else 0."""
    meta_info_file: FilePath | None = None
    """Text file with one line `clip nframes (h,w,c) startframe` per clip. null: use every clip found."""
    filename_tmpl: Annotated[
        str,
        Field(pattern=r"^(0?\d*d|[^{}]*\{(:0?\d*d)?\}[^{}]*)$"),
        in_words('a number format such as "06d", or a name with one such as "im{}"'),
    ] = "06d"
    """Frame names listed by meta_info_file: a number format such as "06d", or a name with one: "im{}", "f_{:04d}"."""
    filename_ext: (
        Annotated[str, Field(pattern=r"^\w+$"), in_words('an extension without its dot, such as "png"')] | None
    ) = None
    """Read only image files with this extension (no dot, case ignored). null: any image file."""
    io_backend: IoBackendOpt = IoBackendOpt()
    """Where RGB frames are read from."""
    sigma: NotNegative | None = None
    """Denoising tests: noise level added to the clean frames; white is 255. --sigma overrides it."""
    num_frame: Annotated[int, Field(ge=-1)] = 6
    """Frames per training sample. Testing reads whole clips and ignores it (KAIR writes -1)."""
    gt_size: Count = 192
    """Side of the square training crop, in pixels of the sharp frame."""
    interval_list: Counts = (1,)
    """Distances between neighbouring frames of a sample; one is drawn per sample. 1: consecutive frames."""
    random_reverse: bool = False
    """Reverse half of the training samples in time."""
    use_hflip: bool = True
    """Mirror half of the training samples left to right."""
    use_rot: bool = True
    """Mirror half of the training samples top to bottom and, independently, transpose half of them."""
    cache_data: bool = False
    """Keep decoded frames in memory."""
    dataloader_shuffle: bool = True
    """Draw training samples in random order."""
    dataloader_num_workers: Whole = 4
    """Reader processes per training process. 0: the training process reads by itself."""
    dataloader_batch_size: Count = 1
    """Samples per training step, over all processes together."""
    dataloader_prefetch_factor: Count = 2
    """Batches that each reader process prepares in advance."""

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
        planes = SPIKE_CHANNELS.get(str(spike["representation"]), SPIKE_CHANNELS["tfp"])(
            spike["window"], spike["planes"]
        )
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
        problems += self._augment_problems()
        if self.num_frame == 0:
            problems.append("num_frame is 0, must be 1 or more (or -1 in testing)")
        raise_all(problems)
        return self

    def _augment_problems(self) -> list[str]:
        augment = self.augment
        if (augment.refires or augment.instant) and not self.uses_spikes:
            return [f"augment is given, but dataset_type {self.dataset_type!r} has no spikes; leave it out"]
        problems = []
        if augment.instant and self.dataroot_instants is None:
            problems.append(f"augment.instant is {augment.instant:g}, which needs dataroot_instants; name the folder")
        if augment.shift[1] and self.dataroot_subframes is None:
            problems.append(f"augment.shift is {list(augment.shift)}, which needs dataroot_subframes; name the folder")
        if augment.aligned and self.dataroot_subframes is None:
            problems.append(f"augment.aligned is {augment.aligned:g}, which needs dataroot_subframes; name the folder")
        if augment.theta[1] and not augment.theta[0]:
            problems.append(f"augment.theta is {list(augment.theta)}, its low end must be above 0")
        if self.augment.refires and self.spike.representation == "sdm":
            problems.append("augment cannot be used with spike.representation 'sdm'; choose another")
        return problems


def _fitted(block: str, value: DatasetOpt) -> DatasetOpt:
    """Check a data set for its block of `datasets`, "train" or "test"; return it with its type's long name."""
    names = names_in(block)
    kind = names.get(value.dataset_type, value.dataset_type)
    problems = []
    if kind not in names and kind not in OTHER_DATASET_TYPES:
        problems.append(
            f"dataset_type is {kind!r}, which cannot be used in the {block} block; use one of " + ", ".join(names)
        )
    is_trained = block == "train" and kind not in OTHER_DATASET_TYPES
    if block == "test" and value.sigma is not None and value.dataroot_lq is None:
        value = value.model_copy(update={"dataroot_lq": value.dataroot_gt})  # both are the clean frames
    needed = ["dataroot_lq"] * (is_trained or block == "test") + ["dataroot_gt"] * is_trained
    needed += ["dataroot_spike"] * value.uses_spikes
    missing = [key for key in needed if getattr(value, key) is None]
    if missing:
        problems.append(f"{' and '.join(missing)} missing; give the folder of the data set")
    if is_trained and value.num_frame < 1:
        problems.append(f"num_frame is {value.num_frame}, must be 1 or more in training")
    raise_all(problems)
    return value.model_copy(update={"dataset_type": kind})


def _sharing(blocks: tuple[DatasetOpt, ...]) -> tuple[DatasetOpt, ...]:
    """Give all training sets the first one's SHARED options; check these and the weights."""
    first, problems = blocks[0], []
    for number, block in enumerate(blocks):
        problems += [
            f"{key} is {getattr(block, key)} in block {number} and {getattr(first, key)} in block 0, but all sets of a "
            f"training share it; give it in block 0 alone, or for all: --set datasets.train.{key}=VALUE"
            for key in SHARED
            if key in block.model_fields_set and getattr(block, key) != getattr(first, key)
        ]
        share = block.weight / sum(each.weight for each in blocks)
        if share * ROUND < 1:
            problems.append(
                f"weight is {block.weight:g} in block {number}, {share:.2g} of all weights, expected {1 / ROUND:g} or "
                "more; raise it or remove the block"
            )
    raise_all(problems)
    shared = {key: getattr(first, key) for key in SHARED}
    return tuple(block.model_copy(update=shared) for block in blocks)


TrainBlock = Annotated[DatasetOpt, AfterValidator(partial(_fitted, "train"))]
TrainBlocks = Annotated[tuple[TrainBlock, ...], Field(strict=False, min_length=1), AfterValidator(_sharing)]
OneOrSeveral = Annotated[
    Annotated[TrainBlock, Tag("{}")] | Annotated[TrainBlocks, Tag("[]")],
    Discriminator(lambda value: "[]" if isinstance(value, list | tuple) else "{}"),
]


class DatasetsOpt(Block):
    """The data sets of a run."""

    train: OneOrSeveral | None = None
    """Training set, or a list of several: each batch comes from one of them, drawn by their weights. null: the options
    are for testing only."""
    test: Annotated[DatasetOpt, AfterValidator(partial(_fitted, "test"))] | None = None
    """Test set, measured during and after training. null: measure nothing."""

    @property
    def train_sets(self) -> dict[str, DatasetOpt]:
        """The training sets by name: "train" or, in a list, "train.0", "train.1" and so on; empty without training."""
        if isinstance(self.train, tuple):
            return {f"train.{number}": block for number, block in enumerate(self.train)}
        return {"train": self.train} if self.train else {}

    @property
    def sets(self) -> dict[str, DatasetOpt]:
        """All data sets by name: `train_sets` and "test"."""
        return self.train_sets | ({"test": self.test} if self.test else {})

    @property
    def loaded(self) -> DatasetOpt | None:
        """The training set whose SHARED options are those of all; None without training."""
        return next(iter(self.train_sets.values()), None)

    @property
    def dropping(self) -> list[str]:
        """Names of the sets without spikes that show dropped ones: training sets beside others with spikes, and the
        test set if training shows dropped ones, too."""
        train = self.train_sets
        names = [name for name, block in train.items() if not block.uses_spikes]
        if len(names) == len(train):
            return []
        in_training = bool(names) or any(block.augment.drop_spikes for block in train.values())
        return names + ["test"] * (in_training and self.test is not None and not self.test.uses_spikes)

    @property
    def with_spikes(self) -> DatasetOpt | None:
        """The first data set with spikes, test before train; None if there is none."""
        blocks = [*([self.test] if self.test else []), *self.train_sets.values()]
        return next((block for block in blocks if block.uses_spikes), None)
