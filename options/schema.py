"""All options of a run: the root of the tree, and what must agree between its blocks."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from options.kair_keys import IGNORED_KEYS, OTHER_DATASET_TYPES, only_tested
from options.schema_base import Block, FilePath, in_words, raise_all
from options.schema_data import DatasetOpt, DatasetsOpt, SpikeOpt
from options.schema_network import NetOpt
from options.schema_train import AmpOpt, LoggingOpt, TrainOpt, ValOpt

__all__ = [
    "AmpOpt",
    "DatasetOpt",
    "DatasetsOpt",
    "LoggingOpt",
    "NetOpt",
    "Opt",
    "PathOpt",
    "SpikeOpt",
    "TrainOpt",
    "ValOpt",
]

RGB = 3
ONLY_IN_TRAINING = (
    "gt_size",
    "interval_list",
    "random_reverse",
    "use_hflip",
    "use_rot",
    "dataloader_shuffle",
    "dataloader_num_workers",
    "dataloader_batch_size",
    "dataloader_prefetch_factor",
)
"""Options of a data set that testing does not look at."""


class PathOpt(Block):
    """Where a run lives and what it starts from."""

    root: FilePath = "experiments"
    """Folder of all runs; a run lies in <root>/<task>."""
    pretrained_netG: FilePath | None = None  # noqa: N815 - the name that KAIR users know
    """File of weights to start from; null: none; "auto": go on with this run."""
    pretrained_netE: FilePath | None = None  # noqa: N815
    """The same for the moving average of the weights."""


class Opt(Block):
    """All options of a run."""

    IGNORED_KEYS: ClassVar[tuple[str, ...]] = IGNORED_KEYS
    """Dotted patterns of keys that are accepted and not used."""
    MOVED_KEYS: ClassVar[dict[str, str]] = {"wandb_api_key": "logging.wandb_api_key"}
    """Keys that may also stand elsewhere -> their place."""

    task: Annotated[
        str, Field(pattern=r"^\w[\w.+-]*$"), in_words("letters, digits and . _ + - without blanks, a folder's name")
    ]
    """Name of the run, its folder below path.root."""
    model: Literal["vrt"] = "vrt"
    """Kind of model."""
    path: PathOpt = PathOpt()
    """Where the run lives and what it starts from."""
    datasets: DatasetsOpt = DatasetsOpt()
    """Data sets."""
    netG: Annotated[NetOpt, Field(validate_default=True)] = NetOpt()
    """Network."""
    train: TrainOpt = TrainOpt()
    """Training."""
    val: ValOpt = ValOpt()
    """Restoring and measuring clips."""
    logging: LoggingOpt = LoggingOpt()
    """Numbers and pictures besides the run's folder."""

    @property
    def run_dir(self) -> Path:
        """Folder of the run."""
        return Path(self.path.root) / self.task

    @property
    def notes(self) -> list[str]:
        """Options that are given and have no effect beside the others, one line each."""
        found = []
        if self.netG.spynet_path is not None and not self.netG.pa_frames:
            found.append("netG.spynet_path has no effect with netG.pa_frames 0: there is no optical flow")
        if (test := self.datasets.test) is not None:
            fields = type(test).model_fields
            given = [key for key in ONLY_IN_TRAINING if getattr(test, key) != fields[key].default]
            found += [f"datasets.test.{key} has no effect: it is for training" for key in given]
            if test.sigma and not self.netG.nonblind_denoising:
                found.append("datasets.test.sigma has no effect: netG.nonblind_denoising is false, no noise is added")
        return found

    @property
    def untrained(self) -> str | None:
        """Why these options can be tested but not trained, and how they are tested; None: they can be trained."""
        train = self.datasets.train
        if train is None:
            return None
        denoising, _, interpolation = OTHER_DATASET_TYPES.values()
        if self.netG.nonblind_denoising:
            return f"netG.nonblind_denoising is true: {only_tested(denoising)}"
        if not self.netG.pa_frames:
            return f"netG.pa_frames is 0: {only_tested(interpolation)}"
        if train.dataset_type in OTHER_DATASET_TYPES:
            task = OTHER_DATASET_TYPES[train.dataset_type]
            return f"datasets.train.dataset_type is {train.dataset_type!r}: {only_tested(task)}"
        return None

    @field_validator("netG")
    @classmethod
    def _channels_of_data(cls, value: NetOpt, info: ValidationInfo) -> NetOpt:
        """in_chans that is not given follows the data."""
        datasets = info.data.get("datasets")
        given = datasets and (datasets.train or datasets.test)
        if not given or "in_chans" in value.model_fields_set:
            return value
        return value.model_copy(update={"in_chans": RGB + given.spike_channels})

    @model_validator(mode="after")
    def _channels_agree(self) -> "Opt":
        problems = []
        for block, dataset in (("train", self.datasets.train), ("test", self.datasets.test)):
            if dataset is not None and self.netG.in_chans != RGB + dataset.spike_channels:
                noise = "; a noise map (netG.nonblind_denoising) is not counted" * self.netG.nonblind_denoising
                problems.append(
                    f"netG.in_chans is {self.netG.in_chans}, but must be 3 + datasets.{block}.spike_channels "
                    f"({dataset.spike_channels}) = {RGB + dataset.spike_channels}{noise}; change one of them"
                )
        if self.val.pad_seq and self.netG.extra_frames:
            problems.append(
                "val.pad_seq is true, but frames between others are not made of mirrored ones; set it to false"
            )
        if self.val.temporal_ensemble > 1 and self.netG.extra_frames:
            problems.append(
                f"val.temporal_ensemble is {self.val.temporal_ensemble}, but frames between others are made once; set "
                "it to 1"
            )
        train, test = self.datasets.train, self.datasets.test
        if train is not None and test is not None and train.uses_spikes and test.uses_spikes:
            problems += [
                f"datasets.train.spike.{key} is {getattr(train.spike, key)}, but datasets.test.spike.{key} is "
                f"{getattr(test.spike, key)}; a network needs the same planes in both"
                for key in ("representation", "window", "center")
                if getattr(train.spike, key) != getattr(test.spike, key)
            ]
        raise_all(problems)
        return self
