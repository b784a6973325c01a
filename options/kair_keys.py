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
    "datasets.*.sigma",
    "datasets.*.sigma_min",
    "datasets.*.sigma_max",
    "datasets.*.padding",
    "datasets.*.pad_sequence",
    "datasets.*.temporal_scale",
    "netG.init_bn_type",
    "netG.init_gain",
    "netG.recal_all_flows",
    "train.F_*",
    "train.G_regularizer_orthstep",
    "train.G_regularizer_clipstep",
)

# KAIR's data sets of other tasks: their files load, but `define_Dataset` has no class for them.
OTHER_DATASET_TYPES = (
    "VideoRecurrentTrainNonblindDenoisingDataset",
    "VideoRecurrentTrainVimeoDataset",
    "VideoRecurrentTrainVimeoVFIDataset",
    "VideoTestVimeo90KDataset",
)
