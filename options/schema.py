"""Root of the options, and the checks across its blocks."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from options.kair_keys import IGNORED_KEYS, OTHER_DATASET_TYPES, only_tested
from options.schema_base import Block, FilePath, in_words, raise_all
from options.schema_data import LOADER, DatasetOpt, DatasetsOpt, SpikeOpt
from options.schema_network import NetOpt
from options.schema_train import AmpOpt, LoggingOpt, TrainOpt, ValOpt

# Other packages import these from here too.
__all__ = ["AmpOpt", "DatasetOpt", "DatasetsOpt", "LoggingOpt", "NetOpt", "Opt", "SpikeOpt", "TrainOpt", "ValOpt"]

RGB = 3
ONLY_IN_TRAINING = ("weight", "gt_size", "interval_list", "random_reverse", "use_hflip", "use_rot", *LOADER)
"""Data set options that testing ignores."""


class PathOpt(Block):
    """Where a run is stored and which weights it starts from."""

    root: FilePath = "experiments"
    """Folder of all runs; a run is stored in <root>/<task>."""
    pretrained_netG: FilePath | None = None  # noqa: N815 - the name that KAIR users know
    """Weights file to start from. null: none. "auto": resume this run."""
    pretrained_netE: FilePath | None = None  # noqa: N815
    """Weights file to start the moving average (netE) from. null: none."""
    shipped_netG: FilePath | None = None  # noqa: N815
    """Weights file to test while the run has none of its own; training never starts from it. null: none."""


class Opt(Block):
    """All options of a run."""

    IGNORED_KEYS: ClassVar[tuple[str, ...]] = IGNORED_KEYS
    """Dotted patterns of keys that are accepted but ignored."""
    MOVED_KEYS: ClassVar[dict[str, str]] = {"wandb_api_key": "logging.wandb_api_key"}
    """Root keys that are also accepted -> where they belong."""

    task: Annotated[
        str, Field(pattern=r"^\w[\w.+-]*$"), in_words("a folder name of letters, digits and . _ + -, without blanks")
    ]
    """Name of the run and of its folder below path.root. Letters, digits and . _ + -."""
    model: Literal["vrt"] = "vrt"
    """Kind of model."""
    path: PathOpt = PathOpt()
    """Where the run is stored and which weights it starts from."""
    datasets: DatasetsOpt = DatasetsOpt()
    """Data sets."""
    netG: Annotated[NetOpt, Field(validate_default=True)] = NetOpt()
    """Network."""
    train: TrainOpt = TrainOpt()
    """Training."""
    val: ValOpt = ValOpt()
    """Restoration and measurement of clips."""
    logging: LoggingOpt = LoggingOpt()
    """TensorBoard, W&B and profiling."""

    @property
    def run_dir(self) -> Path:
        """Folder of the run."""
        return Path(self.path.root) / self.task

    @property
    def results_dir(self) -> Path:
        """Folder of the results of a test."""
        return Path("results") / (self.val.task_name or self.task)

    @property
    def notes(self) -> list[str]:
        """Options that are set but have no effect, one line each."""
        found = []
        if self.netG.spynet_path is not None and not self.netG.pa_frames:
            found.append("netG.spynet_path has no effect: netG.pa_frames is 0, so there is no optical flow")
        if (test := self.datasets.test) is not None:
            fields = type(test).model_fields
            given = [key for key in ONLY_IN_TRAINING if getattr(test, key) != fields[key].default]
            found += [f"datasets.test.{key} has no effect: it is only used in training" for key in given]
            if test.sigma and not self.netG.nonblind_denoising:
                found.append("datasets.test.sigma has no effect: netG.nonblind_denoising is false, no noise is added")
        return found

    @property
    def untrained(self) -> str | None:
        """Why these options cannot be trained, and what can be done; None if they can."""
        train_sets = self.datasets.train_sets
        if not train_sets:
            return "datasets.train is null, expected a training set; there is nothing to train on"
        denoising, _, interpolation = OTHER_DATASET_TYPES.values()
        if self.netG.nonblind_denoising:
            return f"netG.nonblind_denoising is true: {only_tested(denoising)}"
        if not self.netG.pa_frames:
            return f"netG.pa_frames is 0: {only_tested(interpolation)}"
        for name, train in train_sets.items():
            if train.dataset_type in OTHER_DATASET_TYPES:
                task = OTHER_DATASET_TYPES[train.dataset_type]
                return f"datasets.{name}.dataset_type is {train.dataset_type!r}: {only_tested(task)}"
        return None

    @property
    def untested(self) -> str | None:
        """Why these options cannot be tested, and what can be done; None if they can."""
        if self.datasets.test is None:
            return "datasets.test is null, expected a test set; there is nothing to restore"
        return None

    @field_validator("netG")
    @classmethod
    def _channels_of_data(cls, value: NetOpt, info: ValidationInfo) -> NetOpt:
        """Derive from the data set what is not given: in_chans, spike_enlarge, guide.planes."""
        datasets = info.data.get("datasets")
        if not datasets or not datasets.sets:
            return value
        blocks = list((datasets.train_sets or datasets.sets).values())
        data = next((block for block in blocks if block.uses_spikes), blocks[0])
        given, changes = value.model_fields_set, dict[str, Any]()
        if "spike_enlarge" not in given and data.uses_spikes and data.spike.representation == "raw_window":
            changes["spike_enlarge"] = "nearest"
        if value.uses_guide and "planes" not in value.guide.model_fields_set:
            planes = data.spike.planes if data.uses_spikes else 0
            changes["guide"] = value.guide.model_copy(update={"planes": planes})
        if "in_chans" not in given:
            changes["in_chans"] = RGB + (min(data.spike_channels, 1) if value.uses_guide else data.spike_channels)
        return value.model_copy(update=changes)

    @model_validator(mode="after")
    def _channels_agree(self) -> "Opt":
        problems = []
        for block, dataset in self.datasets.sets.items():
            if block not in self.datasets.dropping:  # planes of zeros fit any network
                problems += self._channel_problems(block, dataset)
        if self.val.pad_seq and self.netG.extra_frames:
            problems.append("val.pad_seq is true, but frame interpolation cannot use mirrored frames; set it to false")
        if self.val.temporal_ensemble > 1 and self.netG.extra_frames:
            problems.append(
                f"val.temporal_ensemble is {self.val.temporal_ensemble}, but frame interpolation restores each frame "
                "once; set it to 1"
            )
        raise_all(problems + self._spike_problems())
        return self

    def _channel_problems(self, block: str, dataset: DatasetOpt) -> list[str]:
        """What keeps the network from reading a data set."""
        spiky = next((name for name, each in self.datasets.train_sets.items() if each.uses_spikes), None)
        if block == "test" and not dataset.uses_spikes and spiky is not None:
            return [
                f"datasets.test.dataset_type is {dataset.dataset_type!r}, without spikes, but datasets.{spiky} has "
                "spikes and training never drops them, so the network needs them; name a type with spikes, or train "
                "with augment.drop_spikes or a further set without spikes"
            ]
        if self.netG.uses_guide:
            return self._guide_problems(block, dataset)
        if dataset.uses_spikes and dataset.spike.representation == "moment":
            return [
                f"datasets.{block}.spike.representation is 'moment', which only the guide reads; set "
                "netG.net_type or netG.fusion to 'guide', or choose another representation"
            ]
        if self.netG.in_chans != RGB + dataset.spike_channels:
            noise = "; a noise map (netG.nonblind_denoising) is not counted" * self.netG.nonblind_denoising
            return [
                f"netG.in_chans is {self.netG.in_chans}, but must be 3 + datasets.{block}.spike_channels "
                f"({dataset.spike_channels}) = {RGB + dataset.spike_channels}{noise}; change one of them"
            ]
        return []

    def _spike_problems(self) -> list[str]:
        """Where the data sets' spike planes differ in kind, or cannot be dropped."""
        spikes = [
            (f"datasets.{name}.spike", block.spike) for name, block in self.datasets.sets.items() if block.uses_spikes
        ]
        problems = [
            f"{spikes[0][0]}.{key} is {getattr(spikes[0][1], key)}, but {name}.{key} is {getattr(spike, key)}; a "
            f"network needs the same planes in {'both' if len(spikes) == 2 else 'all'}"
            for name, spike in spikes[1:]
            for key in ("representation", "window", "planes", "steps_per_plane", "gain", "center")
            if getattr(spikes[0][1], key) != getattr(spike, key)
        ]
        if self.datasets.dropping and spikes[0][1].representation == "sdm":
            problems.append(
                f"datasets.{self.datasets.dropping[0]} has no spikes, but {spikes[0][0]}.representation 'sdm' makes "
                "pictures of them; choose another representation or remove the block"
            )
        return problems

    def _guide_problems(self, block: str, dataset: DatasetOpt) -> list[str]:
        """What keeps the guide from reading a data set."""
        net, spike = self.netG, dataset.spike
        if dataset.uses_spikes and spike.representation != "moment":
            return [
                f"datasets.{block}.spike.representation is {spike.representation!r}, finished planes, but the guide "
                "reads the steps themselves; set it to 'moment'"
            ]
        planes, seen = (spike.planes, 1) if dataset.uses_spikes else (0, 0)
        problems = []
        if net.guide.planes != planes:
            problems.append(
                f"netG.guide.planes is {net.guide.planes}, but must be {planes}, as datasets.{block}.spike.planes; "
                "change one of them"
            )
        if net.net_type == "vrt" and net.in_chans != RGB + seen:
            problems.append(
                f"netG.in_chans is {net.in_chans}, but VRT behind a guide sees 3 (RGB) + {seen} (spikes) = "
                f"{RGB + seen}; leave it out"
            )
        return problems
