"""Build a data set from its options."""

from collections.abc import Callable
from typing import Any, Protocol

from data.dataset_video_test import SingleVideoTestDataset, VideoTestDataset
from data.dataset_video_train_rgbspike import VideoTrainDatasetRGBSpike
from data.lmdb_age import warn_of_old_lmdbs
from data.mixture import SampleSource
from options.kair_keys import OTHER_DATASET_TYPES, only_tested
from options.schema import DatasetOpt
from utils.evaluation.clip import TestSet
from utils.utils_error import UserError


class TrainSet(SampleSource, Protocol):
    """What can stand in datasets.train: samples of T = num_frame frames, cut to gt_size.

    `sample` gives lq (T, 3, h, w) and gt (T, 3, h * scale, w * scale), float32 in [0, 1]; where the type uses spikes
    spike (T, S, h, w), float32, white is 1; and `key`, a text that names the sample.
    """

    scale: int


class ClipSet(TestSet, Protocol):
    """What can stand in datasets.test: a sequence of clips, whose members utils.evaluation.clip.Clip describes."""

    scale: int | None  # None: there are no sharp frames


DATASETS: dict[str, Callable[[DatasetOpt], TrainSet | ClipSet]] = {
    "VideoRecurrentTrainDatasetRGBSpike": VideoTrainDatasetRGBSpike,
    "VideoRecurrentTrainDataset": VideoTrainDatasetRGBSpike,
    "VideoRecurrentTestDatasetRGBSpike": VideoTestDataset,
    "VideoRecurrentTestDataset": VideoTestDataset,
    "SingleVideoRecurrentTestDataset": SingleVideoTestDataset,
}


def define_Dataset(opt: DatasetOpt, upscale: int = 1) -> Any:
    """Build the data set that `opt.dataset_type` names, checking names, counts and sizes of its files.

    Returns:
        A TrainSet for the train block, a ClipSet for the test block.

    Raises:
        UserError: the type is not available, sharp frames are not `upscale` times as large as blurred ones, or the
            files do not match; see the classes.
    """
    if opt.dataset_type not in DATASETS:
        raise UserError(f"dataset_type is {opt.dataset_type!r}: {only_tested(OTHER_DATASET_TYPES[opt.dataset_type])}")
    dataset = DATASETS[opt.dataset_type](opt)
    warn_of_old_lmdbs(opt)
    if dataset.scale not in (None, upscale):
        raise UserError(
            f"dataroot_gt: frames of {opt.dataroot_gt} are {dataset.scale} times as large as those of dataroot_lq, "
            f"but netG.upscale is {upscale}; correct one of them"
        )
    return dataset
