"""Keys of KAIR's option files that this project accepts and does not use."""

# Dotted patterns; "*" stands for any characters. A key that matches is dropped and named in one log line.
IGNORED_KEYS = (
    # Processes and devices: the launcher decides.
    "gpu_ids",
    "dist",
    "find_unused_parameters",
    "use_static_graph",
    # The network's own options decide.
    "scale",
    "n_channels",
    "merge_bn",
    "merge_bn_startpoint",
    # What KAIR adds to the resolved copies that it saves.
    "is_train",
    "num_gpu",
    "opt_path",
    "rank",
    "world_size",
    "path.task",
    "path.log",
    "path.options",
    "path.models",
    "path.images",
    "path.test_images",
    "path.pretrained_optimizerG",
    "path.pretrained_netD",
    "datasets.*.phase",
    "datasets.*.scale",
    "datasets.*.n_channels",
    # Other tasks than deblurring with spikes.
    "datasets.*.mode",
    "datasets.*.test_mode",
    "datasets.*.val_partition",
    "datasets.*.color_jitter",
    "datasets.*.mirror_sequence",
    "datasets.*.sigma_min",
    "datasets.*.sigma_max",
    "datasets.*.padding",
    "datasets.*.pad_sequence",
    "datasets.*.temporal_scale",
    # One iterator reads through all epochs: its workers live as long as the run.
    "datasets.*.dataloader_persistent_workers",
    "netG.init_bn_type",
    "netG.init_gain",
    "netG.recal_all_flows",
    "train.F_*",
    # A resumed run takes the optimizer's state along in any case.
    "train.G_optimizer_reuse",
    "train.G_regularizer_orthstep",
    "train.G_regularizer_clipstep",
)

# KAIR's training sets of other tasks -> the official task that is tested here. Their files load, for a test.
OTHER_DATASET_TYPES = {
    "VideoRecurrentTrainNonblindDenoisingDataset": "008_VRT_videodenoising_DAVIS",
    "VideoRecurrentTrainVimeoDataset": "003_VRT_videosr_bi_Vimeo_7frames",
    "VideoRecurrentTrainVimeoVFIDataset": "009_VRT_videofi_Vimeo_4frames",
}
# KAIR's test sets for Vimeo and frame interpolation: folders of clips.
FOLDERS_OF_CLIPS = ("VideoTestVimeo90KDataset", "VFI_DAVIS", "VFI_UCF101", "VFI_Vid4")
_FLAGS = {"008": "--folder_gt CLEAN --sigma 20", "009": "--folder_lq EVERY_SECOND_FRAME --folder_gt ALL_FRAMES"}


def only_tested(task: str) -> str:
    """Say that one of OTHER_DATASET_TYPES' tasks is tested here and not trained, and how."""
    flags = _FLAGS.get(task[:3], "--folder_lq SMALL --folder_gt D")
    return (
        f"training for this task is not available here, testing is: python main_test_vrt.py --task {task} {flags} "
        "--weights FILE, or --opt with this file"
    )
