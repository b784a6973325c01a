"""Options of training, validation and logging."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from options.schema_base import Block, Count, Counts, Decay, Names, NotNegative, Positive, Whole, raise_all

OF_TWO_FRAMES = {"tof"}  # metrics that compare two frames that follow each other


def _as_list(value: object) -> object:
    return (value,) if isinstance(value, int) else value


def _or_none(value: object) -> object:
    return () if value is None else value


class AmpOpt(Block):
    """Computing in 16 bits where that is safe, in training and in testing."""

    enable: bool = False
    """Switch."""
    dtype: Literal["bf16", "fp16"] = "bf16"
    """Number format. fp16 trains with a loss scale: a step whose gradients overflow is left out and the scale halved; a
    scale below 1 ends the run."""


class ParamGroupOpt(Block):
    """Parameters that learn at a rate or with a weight decay of their own."""

    keys: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False, min_length=1)]
    """A parameter belongs to the group if its name contains one of these; the first group that it fits counts."""
    lr_mul: Positive = 1.0
    """Factor of the learning rate; fix_lr_mul, where it applies, comes on top."""
    weight_decay: NotNegative | None = None
    """Weight decay; null: G_optimizer_wd."""


class TrainOpt(Block):
    """One training run."""

    G_lossfn_type: Literal["charbonnier", "l1", "l2"] = "charbonnier"
    """Loss between output and sharp frames."""
    G_lossfn_weight: Positive = 1.0
    """Factor of the loss."""
    G_charbonnier_eps: Positive = 1e-9
    """eps of sqrt(d^2 + eps), not squared; also of the edge term."""
    G_fft_weight: NotNegative = 0.0
    """Factor of the frequency term, the mean distance of the frames' Fourier coefficients; 0: not computed."""
    G_edge_weight: NotNegative = 0.0
    """Factor of the edge term, the Charbonnier distance of the frames' Laplacians; 0: not computed."""
    E_decay: Decay = 0.0
    """Decay a step of the moving average of the weights (netE), less at its start; 0: none is kept."""
    G_optimizer_type: Literal["adam", "adamw"] = "adam"
    """Optimizer."""
    G_optimizer_lr: Positive = 4e-4
    """Highest learning rate."""
    G_optimizer_betas: Annotated[tuple[Decay, Decay], Field(strict=False)] = (0.9, 0.999)
    """Adam's decays of the gradient's mean and square."""
    G_optimizer_wd: NotNegative = 0.0
    """Weight decay."""
    G_optimizer_clipgrad: Positive | None = None
    """Largest norm of the gradient, longer ones are scaled down; null: no limit."""
    G_param_groups: Annotated[tuple[ParamGroupOpt, ...], Field(strict=False)] = ()
    """Parameters with a learning rate or weight decay of their own."""
    freeze: Names = ()
    """Parameters that are never trained: patterns of their whole names, e.g. "spynet.*"."""
    fix_iter: Annotated[int, Field(ge=-1)] = 0
    """Step from which the parameters of fix_keys learn, as in KAIR: they stay as they are for fix_iter - 1 steps; 0 or
    -1: they learn from the start."""
    fix_lr_mul: NotNegative = 1.0
    """Factor of the learning rate of the parameters of fix_keys; 0: they never learn."""
    fix_keys: Annotated[Names, BeforeValidator(_or_none)] = ()
    """A parameter belongs to fix_keys if its name contains one of these."""
    total_iter: Count = 300000
    """Steps of the whole run."""
    G_scheduler_type: Literal["CosineAnnealingWarmRestarts", "CosineAnnealingLR", "MultiStepLR"] = (
        "CosineAnnealingWarmRestarts"
    )
    """How the learning rate falls; CosineAnnealingLR: along one half cosine over total_iter."""
    G_scheduler_periods: Annotated[Counts, BeforeValidator(_as_list)] | None = None
    """Warm restarts: steps of each cycle (one number: of the first); null: one cycle over total_iter."""
    G_scheduler_eta_min: NotNegative = 1e-7
    """Cosine: lowest learning rate."""
    G_scheduler_restart_weights: Count = 1
    """Warm restarts: every cycle after the given ones is this many times longer than the one before."""
    G_scheduler_milestones: Annotated[tuple[Count, ...], Field(strict=False)] = ()
    """MultiStepLR: steps at which the learning rate falls, increasing."""
    G_scheduler_gamma: Annotated[float, Field(gt=0, le=1)] = 0.5
    """MultiStepLR: factor at each milestone."""
    warmup_iter: Annotated[int, Field(ge=-1)] = 0
    """Steps over which the learning rate rises in equal parts; 0 or -1: none."""
    G_param_strict: bool = True
    """path.pretrained_netG must fit the network exactly."""
    E_param_strict: bool = True
    """path.pretrained_netE must fit the network exactly."""
    checkpoint_test: Count = 5000
    """Steps between two measurements on datasets.test."""
    checkpoint_save: Count = 5000
    """Steps between two checkpoints."""
    checkpoint_minutes: Positive | None = None
    """Minutes after which a checkpoint is written even if checkpoint_save is not reached; null: by steps alone."""
    checkpoint_print: Count = 200
    """Steps between two lines of the log."""
    keep_checkpoints: Whole = 0
    """Newest checkpoints that are kept beside the best one; 0: all."""
    manual_seed: Whole = 0
    """Seed of weights, sample order and augmentation."""
    amp: AmpOpt = AmpOpt()
    """Computing in 16 bits."""
    tf32: bool = False
    """Let float32 products and convolutions on CUDA round their factors to TF32, in training and in testing."""
    compile: bool = False
    """Run the network through torch.compile, in training and in testing; every size of crop or tile takes its time."""
    memory: Literal["auto", "none", "ffn", "attn", "most", "all"] = "none"
    """What the backward pass computes again to save memory: nothing, the feed-forward parts, attention, both except the
    kernel of self attention, both; auto: as little as the free memory of the card allows. netG.use_checkpoint_attn or
    use_checkpoint_ffn, where true, decide instead."""
    accumulate: Count = 1
    """Batches whose gradients are summed up for one step."""
    nonfinite_limit: Count = 10
    """A step whose loss or gradient is not finite is left out; so many of them in a row stop the run."""
    spike_limit: Annotated[float, Field(gt=1)] | None = None
    """A step whose loss is more than this many times the running mean is left out, too; nonfinite_limit of these in a
    row make the new level. null: none is."""

    @property
    def scheduler_periods(self) -> tuple[int, ...]:
        """Steps of the given cosine cycles."""
        return self.G_scheduler_periods or (self.total_iter,)

    @model_validator(mode="after")
    def _consistent(self) -> "TrainOpt":
        problems = []
        steps = self.G_scheduler_milestones
        if any(later <= earlier for earlier, later in zip(steps, steps[1:], strict=False)):
            problems.append(f"G_scheduler_milestones is {list(steps)}, must increase")
        if self.G_scheduler_type == "MultiStepLR" and not steps:
            problems.append(
                "G_scheduler_milestones is empty, must name a step or more for G_scheduler_type 'MultiStepLR'"
            )
        if self.fix_iter > 0 and not self.fix_keys:
            problems.append(f"fix_iter is {self.fix_iter} but fix_keys is empty; name parameters or use fix_iter 0")
        raise_all(problems)
        return self


Sides = Annotated[Whole | Annotated[tuple[Whole, Whole], Field(strict=False)], Field(union_mode="left_to_right")]


class ValOpt(Block):
    """How clips are restored and measured, in training and in testing."""

    save_img: bool = False
    """Write the restored frames of validations in training; a test writes them anyway."""
    output: Annotated[tuple[Literal["png", "h264", "lossless"], ...], Field(strict=False, min_length=1)] = ("png",)
    """What a test writes of each clip: a folder of png files, an mp4 (H.264), a lossless mkv (FFV1), or several."""
    pad_seq: bool = False
    """Mirror the ends of a clip for the restoration, so that its first and last frames have neighbours too."""
    flip_seq: bool = False
    """Restore every piece forwards and played backwards, and average."""
    self_ensemble: Literal["none", "flips", "flips_transposed"] = "none"
    """Restore every piece mirrored as well, and average: flips: along either axis and both, 4 times the work;
    flips_transposed: these with rows and columns exchanged too, 8 times."""
    temporal_ensemble: Count = 1
    """Pieces in time that restore each frame, averaged: more than 1 sets the overlap of num_frame_testing."""
    center_frame_only: bool = False
    """Restore and measure the middle frame of a clip only."""
    tile: Literal["auto"] | None = None
    """auto: the largest tile that the free memory allows, measured, in a training once; num_frame_testing and
    size_patch_testing are its upper bounds where they are not 0. null: exactly those two."""
    num_frame_testing: Whole = 0
    """Frames restored at once; 0: the whole clip."""
    num_frame_overlapping: Whole = 2
    """Frames that two such pieces share, about: a quarter less where that saves a piece."""
    size_patch_testing: Sides = 0
    """Side in pixels of the tiles restored at once, or [height, width]; 0: whole frames."""
    size_patch_overlapping: Sides = 20
    """Pixels that two tiles share, about, or [along the height, along the width]."""
    blend: Literal["smooth", "kair"] = "smooth"
    """smooth: evenly spread tiles, joined by ramps. kair: KAIR's places and its hard cut in the middle of an overlap,
    for numbers to compare with published ones."""
    tile_batch: Count = 1
    """Tiles restored in one call."""
    task_name: str | None = None
    """Name of the results' folder; null: the task's."""
    metrics: Annotated[
        tuple[Literal["psnr", "ssim", "psnr_y", "ssim_y", "ssim_matlab_rgb", "tof", "lpips"], ...], Field(strict=False)
    ] = (
        "psnr",
        "ssim",
        "psnr_y",
        "ssim_y",
        "ssim_matlab_rgb",
    )
    """What is measured; the default serves all protocols. tof: flicker, from optical flow; lpips: needs its library.
    The best weights of a training are those of the best psnr or, where it is not measured, of the first of these."""

    @property
    def best_metric(self) -> str | None:
        """The metric by which the best weights are chosen."""
        return "psnr" if "psnr" in self.metrics else next(iter(self.metrics), None)

    @property
    def frames_shared(self) -> int:
        """Frames that two pieces in time share."""
        if self.temporal_ensemble == 1:
            return self.num_frame_overlapping
        return self.num_frame_testing - self.num_frame_testing // self.temporal_ensemble

    @model_validator(mode="after")
    def _consistent(self) -> "ValOpt":
        problems = []
        if 0 < self.num_frame_testing <= self.num_frame_overlapping:
            problems.append(
                f"num_frame_overlapping is {self.num_frame_overlapping}, must be below num_frame_testing, "
                f"{self.num_frame_testing}"
            )
        sides, overlaps = (
            (given, given) if isinstance(given, int) else given
            for given in (self.size_patch_testing, self.size_patch_overlapping)
        )
        if any(0 < side <= overlap for side, overlap in zip(sides, overlaps, strict=True)):
            problems.append(
                f"size_patch_overlapping is {self.size_patch_overlapping}, must be below size_patch_testing, "
                f"{self.size_patch_testing}"
            )
        if self.temporal_ensemble > 1 and self.tile:
            problems.append(
                f"temporal_ensemble is {self.temporal_ensemble}, but tile {self.tile!r} chooses the frames of a "
                "piece by itself; set tile to null and give num_frame_testing"
            )
        if self.center_frame_only and (of_two := OF_TWO_FRAMES & set(self.metrics)):
            problems.append(
                f"metrics has {min(of_two)}, which compares two frames, but center_frame_only is true; drop one of them"
            )
        if self.temporal_ensemble > max(self.num_frame_testing, 1):
            problems.append(
                f"temporal_ensemble is {self.temporal_ensemble}, must be at most num_frame_testing, "
                f"{self.num_frame_testing}: the pieces whose results are averaged"
            )
        raise_all(problems)
        return self


class LoggingOpt(Block):
    """Where a run's numbers and pictures go besides its folder."""

    use_tensorboard: bool = True
    """Write TensorBoard files into the run's folder."""
    use_wandb: bool = False
    """Send to Weights & Biases."""
    wandb_project: str = "spike-vrt"
    """Project there."""
    wandb_entity: str | None = None
    """User or team there; null: the account's own."""
    wandb_name: str | None = None
    """Name of the run there; null: the task's."""
    wandb_mode: Literal["online", "offline", "disabled"] = "online"
    """Send at once, keep for later, or nothing."""
    wandb_api_key: Annotated[SecretStr | None, Field(exclude=True)] = None
    """Key of the account; better in the environment as WANDB_API_KEY. Never written anywhere."""
    profile_start: Count | None = None
    """First of the steps that torch.profiler records; null: none is."""
    profile_steps: Count = 3
    """Steps that it records, after one to warm up."""
