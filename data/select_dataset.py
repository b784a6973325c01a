"""From options to a data set."""

from typing import Any

from data.dataset_video_test import SingleVideoTestDataset, VideoTestDataset
from data.dataset_video_train_rgbspike import VideoTrainDatasetRGBSpike
from options.schema import DatasetOpt
from utils.utils_error import UserError

DATASETS: dict[str, type[VideoTrainDatasetRGBSpike] | type[VideoTestDataset]] = {
    "VideoRecurrentTrainDatasetRGBSpike": VideoTrainDatasetRGBSpike,
    "VideoRecurrentTrainDataset": VideoTrainDatasetRGBSpike,
    "VideoRecurrentTestDatasetRGBSpike": VideoTestDataset,
    "VideoRecurrentTestDataset": VideoTestDataset,
    "SingleVideoRecurrentTestDataset": SingleVideoTestDataset,
}


def define_Dataset(opt: DatasetOpt) -> Any:
    """Build the data set that `opt.dataset_type` names; all of its files are checked on the way.

    Returns:
        VideoTrainDatasetRGBSpike or VideoTestDataset, as DATASETS says.

    Raises:
        UserError: the type is not available, or the files do not fit; see the classes.
    """
    if opt.dataset_type not in DATASETS:
        raise UserError(f"dataset_type: {opt.dataset_type!r} is not available; use one of {', '.join(DATASETS)}")
    return DATASETS[opt.dataset_type](opt)
