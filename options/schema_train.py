"""Options of training, validation and logging."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from options.schema_base import Block, Count, Counts, Decay, Fraction, Names, NotNegative, Positive, Whole, raise_all

OF_TWO_FRAMES = {"tof"}  # metrics that compare two frames that follow each other


def _as_list(value: object) -> object:
    return (value,) if isinstance(value, int) else value


def _ascending(times: tuple[float, ...]) -> tuple[float, ...]:
    rounded = tuple(round(time, 2) for time in times)
    if any(first >= second for first, second in pairwise(rounded)):
        raise ValueError(f"must ascend by a hundredth or more, found {list(times)}")
    return rounded


def _or_none(value: object) -> object:
    return () if value is None else value


class AmpOpt(Block):
    """Mixed precision: compute in 16 bits where that is safe, in training and testing."""

    enable: bool = False
    """Turn mixed precision on."""
    dtype: Literal["bf16", "fp16"] = "bf16"
    """Number format. fp16 needs a loss scale: a step whose gradients overflow is skipped and halves the scale; a scale
    below 1 ends the run."""


class ParamGroupOpt(Block):
    """Parameters with their own learning rate or weight decay."""

    keys: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False, min_length=1)]
    """Fragments of parameter names. A parameter joins the first group with a fragment that its name contains."""
    lr_mul: Positive = 1.0
    """Learning rate factor; multiplies with fix_lr_mul."""
    weight_decay: NotNegative | None = None
    """Weight decay. null: G_optimizer_wd."""


class TrainOpt(Block):
    """One training run."""

    G_lossfn_type: Literal["charbonnier", "l1", "l2"] = "charbonnier"
    """Loss between output and sharp frames."""
    G_lossfn_weight: Positive = 1.0
    """Weight of the loss."""
    G_charbonnier_eps: Positive = 1e-9
    """eps in sqrt(d^2 + eps), not squared; also used by the edge term."""
    G_fft_weight: NotNegative = 0.0
    """Weight of the frequency term, the mean distance of the frames' Fourier coefficients. 0: off."""
    G_edge_weight: NotNegative = 0.0
    """Weight of the edge term, the Charbonnier distance of the frames' Laplacians. 0: off."""
    E_decay: Decay = 0.0
    """Decay per step of the moving average of the weights (netE), lower during its warm-up. 0: no average."""
    G_optimizer_type: Literal["adam", "adamw"] = "adam"
    """Optimizer."""
    G_optimizer_lr: Positive = 4e-4
    """Peak learning rate."""
    G_optimizer_betas: Annotated[tuple[Decay, Decay], Field(strict=False)] = (0.9, 0.999)
    """Adam's decay rates for the mean and the mean square of the gradient."""
    G_optimizer_wd: NotNegative = 0.0
    """Weight decay."""
    G_optimizer_clipgrad: Positive | None = None
    """Maximum gradient norm; larger gradients are scaled down. null: no limit."""
    G_param_groups: Annotated[tuple[ParamGroupOpt, ...], Field(strict=False)] = ()
    """Parameters with their own learning rate or weight decay."""
    freeze: Names = ()
    """Parameters that are never trained: patterns of their full names, e.g. "spynet.*"."""
    fix_iter: Annotated[int, Field(ge=-1)] = 0
    """First step that trains the parameters of fix_keys, as in KAIR; they are frozen for fix_iter - 1 steps. 0 or -1:
    train them from the start."""
    fix_lr_mul: NotNegative = 1.0
    """Learning rate factor of the parameters of fix_keys. 0: never train them."""
    fix_keys: Annotated[Names, BeforeValidator(_or_none)] = ()
    """Fragments of parameter names; a parameter belongs to fix_keys if its name contains one of them. A fragment in no
    name is an error, except KAIR's own "spynet" and "deform"."""
    total_iter: Count = 300000
    """Total training steps."""
    G_scheduler_type: Literal["CosineAnnealingWarmRestarts", "CosineAnnealingLR", "MultiStepLR"] = (
        "CosineAnnealingWarmRestarts"
    )
    """Learning rate schedule. CosineAnnealingLR: one half cosine over total_iter."""
    G_scheduler_periods: Annotated[Counts, BeforeValidator(_as_list)] | None = None
    """Warm restarts: steps per cycle (one number: the first cycle). null: one cycle over total_iter."""
    G_scheduler_eta_min: NotNegative = 1e-7
    """Cosine: lowest learning rate."""
    G_scheduler_restart_weights: Count = 1
    """Warm restarts: each cycle after the given ones is this many times longer than the previous one."""
    G_scheduler_milestones: Annotated[tuple[Count, ...], Field(strict=False)] = ()
    """MultiStepLR: steps at which the learning rate drops, increasing."""
    G_scheduler_gamma: Annotated[float, Field(gt=0, le=1)] = 0.5
    """MultiStepLR: learning rate factor at each milestone."""
    warmup_iter: Annotated[int, Field(ge=-1)] = 0
    """Steps over which the learning rate rises linearly at the start. 0 or -1: no warm-up."""
    G_param_strict: bool = True
    """Require path.pretrained_netG to fit the network exactly."""
    E_param_strict: bool = True
    """Require path.pretrained_netE to fit the network exactly."""
    checkpoint_test: Count = 5000
    """Steps between measurements on datasets.test."""
    test_start: bool = False
    """Also measure before the first step: best_G.pth is then never worse than the weights that the run starts from."""
    checkpoint_save: Count = 5000
    """Steps between checkpoints."""
    checkpoint_minutes: Positive | None = None
    """Longest time between checkpoints, in minutes, whatever checkpoint_save says. null: no limit."""
    checkpoint_print: Count = 200
    """Steps between log lines."""
    keep_checkpoints: Whole = 0
    """Number of newest checkpoints to keep, besides the best weights. 0: all."""
    manual_seed: Whole = 0
    """Seed of weights, sample order and augmentation."""
    amp: AmpOpt = AmpOpt()
    """Mixed precision."""
    tf32: bool = False
    """Allow TF32 in float32 matrix products and convolutions on CUDA, in training and testing: faster, less precise."""
    compile: bool = False
    """Run the network through torch.compile, in training and testing. Each new crop or tile size compiles anew."""
    memory: Literal["auto", "none", "ffn", "attn", "most", "all"] = "none"
    """What the backward pass recomputes to save memory: nothing, the feed-forward layers, attention, both except the
    self-attention kernel, or both. auto: as little as the card's free memory allows. netG.use_checkpoint_attn or
    use_checkpoint_ffn override it when true."""
    accumulate: Count = 1
    """Batches whose gradients are summed per step."""
    nonfinite_limit: Count = 10
    """A step with a non-finite loss or gradient is skipped; this many in a row end the run."""
    spike_limit: Annotated[float, Field(gt=1)] | None = None
    """Also skip a step whose loss exceeds this multiple of the running mean. After nonfinite_limit such steps in a row
    the higher loss is accepted as the new level. null: off."""

    @property
    def scheduler_periods(self) -> tuple[int, ...]:
        """Steps of each given cosine cycle."""
        return self.G_scheduler_periods or (self.total_iter,)

    def is_due(self, step: int, every: int) -> bool:
        """Whether this step is the last one or a multiple of `every`."""
        return step % every == 0 or step == self.total_iter

    @model_validator(mode="after")
    def _consistent(self) -> "TrainOpt":
        problems = []
        steps = self.G_scheduler_milestones
        if any(later <= earlier for earlier, later in zip(steps, steps[1:], strict=False)):
            problems.append(f"G_scheduler_milestones is {list(steps)}, must increase")
        if self.G_scheduler_type == "MultiStepLR" and not steps:
            problems.append(
                "G_scheduler_milestones is empty, must have one or more steps for G_scheduler_type 'MultiStepLR'"
            )
        if self.fix_iter > 0 and not self.fix_keys:
            problems.append(f"fix_iter is {self.fix_iter} but fix_keys is empty; name parameters or use fix_iter 0")
        raise_all(problems)
        return self


Sides = Annotated[Whole | Annotated[tuple[Whole, Whole], Field(strict=False)], Field(union_mode="left_to_right")]


class ValOpt(Block):
    """How clips are restored and measured, in training and testing."""

    save_img: bool = False
    """Write the restored frames of validations during training. A test always writes them."""
    output: Annotated[tuple[Literal["png", "h264", "lossless"], ...], Field(strict=False, min_length=1)] = ("png",)
    """Output of a test, per clip: png (a folder of images), h264 (.mp4), lossless (FFV1 .mkv), or several."""
    pad_seq: bool = False
    """Mirror the ends of a clip while restoring it, so that its first and last frames have neighbours."""
    flip_seq: bool = False
    """Average the restoration of each window with that of the window reversed in time: twice the work."""
    self_ensemble: Literal["none", "flips", "flips_transposed"] = "none"
    """Average each window with its mirror images. flips: mirrored along either axis and both, 4 times the work.
    flips_transposed: these with rows and columns exchanged too, 8 times the work."""
    temporal_ensemble: Count = 1
    """Time windows averaged per frame. Above 1 it replaces num_frame_overlapping."""
    times: Annotated[tuple[Fraction, ...], Field(strict=False), AfterValidator(_ascending)] = ()
    """Instants to restore in a test, as ascending fractions of each frame's exposure: 0 is its beginning, 1 its end.
    Needs spikes. Empty: the sharp step of each frame."""
    center_frame_only: bool = False
    """Restore and measure only the middle frame of each clip."""
    tile: Literal["auto"] | None = None
    """auto: use the largest tile that fits into free memory, measured once per run; num_frame_testing and
    size_patch_testing are its upper bounds (0: none). null: use exactly those two."""
    num_frame_testing: Whole = 0
    """Frames restored at once. 0: the whole clip."""
    num_frame_overlapping: Whole = 2
    """Frames shared by neighbouring time windows; up to a quarter fewer where that saves a window."""
    size_patch_testing: Sides = 0
    """Side of the tiles restored at once, in pixels, or [height, width]. 0: whole frames."""
    size_patch_overlapping: Sides = 20
    """Pixels shared by neighbouring tiles, or [vertically, horizontally]; up to a quarter fewer where that saves a
    tile."""
    blend: Literal["smooth", "kair"] = "smooth"
    """smooth: evenly spaced tiles, blended by linear ramps. kair: KAIR's tile positions with a hard cut in the middle
    of each overlap, for comparison with published numbers."""
    tile_batch: Count = 1
    """Tiles restored per network call."""
    task_name: str | None = None
    """Name of the results folder. null: the task's name."""
    metrics: Annotated[
        tuple[Literal["psnr", "ssim", "psnr_y", "ssim_y", "ssim_matlab_rgb", "tof", "lpips"], ...], Field(strict=False)
    ] = ("psnr", "ssim", "psnr_y", "ssim_y", "ssim_matlab_rgb")
    """Metrics to compute; the default covers all protocols. tof: flicker, from optical flow. lpips: needs its library.
    The best weights of a run are chosen by psnr or, without it, by the first metric."""

    @property
    def best_metric(self) -> str | None:
        """The metric that chooses the best weights."""
        return "psnr" if "psnr" in self.metrics else next(iter(self.metrics), None)

    @property
    def frames_shared(self) -> int:
        """Frames shared by neighbouring time windows."""
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
                f"temporal_ensemble is {self.temporal_ensemble}, but tile {self.tile!r} chooses the frames per window "
                "by itself; set tile to null and give num_frame_testing"
            )
        if self.center_frame_only and self.times:
            problems.append("times cannot be used with center_frame_only; leave one of them out")
        if self.center_frame_only and (of_two := OF_TWO_FRAMES & set(self.metrics)):
            problems.append(
                f"metrics has {min(of_two)}, which compares two frames, but center_frame_only is true; drop one of them"
            )
        if self.temporal_ensemble > max(self.num_frame_testing, 1):
            problems.append(
                f"temporal_ensemble is {self.temporal_ensemble}, must be at most num_frame_testing, "
                f"{self.num_frame_testing}"
            )
        raise_all(problems)
        return self


class LoggingOpt(Block):
    """TensorBoard, W&B and profiling."""

    use_tensorboard: bool = True
    """Write TensorBoard files into the run's folder."""
    use_wandb: bool = False
    """Send curves and pictures to Weights & Biases (W&B)."""
    wandb_project: str = "spike-vrt"
    """W&B project."""
    wandb_entity: str | None = None
    """W&B user or team. null: the account's default."""
    wandb_name: str | None = None
    """Name of the run on W&B. null: the task's name."""
    wandb_mode: Literal["online", "offline", "disabled"] = "online"
    """online: send at once. offline: keep for `wandb sync`. disabled: send nothing."""
    wandb_api_key: Annotated[SecretStr | None, Field(exclude=True)] = None
    """W&B account key, never written to a file. Prefer the environment variable WANDB_API_KEY."""
    profile_start: Count | None = None
    """First step that torch.profiler records. null: no profile."""
    profile_steps: Count = 3
    """Number of steps to profile, after one warm-up step."""
