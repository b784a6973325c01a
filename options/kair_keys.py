"""Keys of KAIR's option files that this project accepts but ignores."""

# Dotted patterns; "*" matches any characters. Matching keys are dropped and listed in one log line.
IGNORED_KEYS = (
    # Processes and devices: the launcher decides.
    *("gpu_ids", "dist", "find_unused_parameters", "use_static_graph"),
    # The network's own options decide.
    *("scale", "n_channels", "merge_bn", "merge_bn_startpoint"),
    # Keys that KAIR adds to the resolved copies it saves.
    *("is_train", "num_gpu", "opt_path", "rank", "world_size"),
    *("path.task", "path.log", "path.options", "path.models", "path.images", "path.test_images"),
    *("path.pretrained_optimizerG", "path.pretrained_netD"),
    *("datasets.*.phase", "datasets.*.scale", "datasets.*.n_channels"),
    # Tasks other than deblurring with spikes.
    *("datasets.*.mode", "datasets.*.test_mode", "datasets.*.val_partition", "datasets.*.color_jitter"),
    *("datasets.*.mirror_sequence", "datasets.*.sigma_min", "datasets.*.sigma_max", "datasets.*.padding"),
    *("datasets.*.pad_sequence", "datasets.*.temporal_scale"),
    # One iterator reads all epochs, so its workers always live as long as the run.
    "datasets.*.dataloader_persistent_workers",
    *("netG.init_bn_type", "netG.init_gain", "netG.recal_all_flows", "train.F_*"),
    # A resumed run always restores the optimizer state.
    "train.G_optimizer_reuse",
    *("train.G_regularizer_orthstep", "train.G_regularizer_clipstep"),
)

# KAIR training sets of other tasks -> the official task that can be tested here. Their option files load for testing.
OTHER_DATASET_TYPES = {
    "VideoRecurrentTrainNonblindDenoisingDataset": "008_VRT_videodenoising_DAVIS",
    "VideoRecurrentTrainVimeoDataset": "003_VRT_videosr_bi_Vimeo_7frames",
    "VideoRecurrentTrainVimeoVFIDataset": "009_VRT_videofi_Vimeo_4frames",
}
# KAIR's test sets for Vimeo and frame interpolation: folders of clips.
FOLDERS_OF_CLIPS = ("VideoTestVimeo90KDataset", "VFI_DAVIS", "VFI_UCF101", "VFI_Vid4")
_FLAGS = {"008": "--folder_gt CLEAN --sigma 20", "009": "--folder_lq EVERY_SECOND_FRAME --folder_gt ALL_FRAMES"}


def only_tested(task: str) -> str:
    """Explain that a task of OTHER_DATASET_TYPES can only be tested here, and how to test it."""
    flags = _FLAGS.get(task[:3], "--folder_lq SMALL --folder_gt D")
    return (
        f"this task can be tested here but not trained: python main_test_vrt.py --task {task} {flags} "
        "--weights FILE, or --opt with this file"
    )
