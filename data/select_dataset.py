"""Build a data set from its options."""

from typing import Any

from data.dataset_video_test import SingleVideoTestDataset, VideoTestDataset
from data.dataset_video_train_rgbspike import VideoTrainDatasetRGBSpike
from options.kair_keys import OTHER_DATASET_TYPES, only_tested
from options.schema import DatasetOpt
from utils.utils_error import UserError

DATASETS: dict[str, type[VideoTrainDatasetRGBSpike] | type[VideoTestDataset]] = {
    "VideoRecurrentTrainDatasetRGBSpike": VideoTrainDatasetRGBSpike,
    "VideoRecurrentTrainDataset": VideoTrainDatasetRGBSpike,
    "VideoRecurrentTestDatasetRGBSpike": VideoTestDataset,
    "VideoRecurrentTestDataset": VideoTestDataset,
    "SingleVideoRecurrentTestDataset": SingleVideoTestDataset,
}


def define_Dataset(opt: DatasetOpt, upscale: int = 1) -> Any:
    """Build the data set that `opt.dataset_type` names, checking names, counts and sizes of its files.

    Args:
        opt: one block of `datasets`.
        upscale: the network's upscaling factor, which must be sharp size over blurred size.

    Returns:
        VideoTrainDatasetRGBSpike or VideoTestDataset, see DATASETS.

    Raises:
        UserError: the type is not available, or the files do not match; see the classes.
    """
    if opt.dataset_type not in DATASETS:
        raise UserError(f"dataset_type is {opt.dataset_type!r}: {only_tested(OTHER_DATASET_TYPES[opt.dataset_type])}")
    dataset = DATASETS[opt.dataset_type](opt)
    if dataset.scale not in (None, upscale):
        raise UserError(
            f"dataroot_gt: frames of {opt.dataroot_gt} are {dataset.scale} times as large as those of dataroot_lq, "
            f"but netG.upscale is {upscale}; correct one of them"
        )
    return dataset
