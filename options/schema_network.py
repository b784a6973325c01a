"""Options of the network."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from options.schema_base import (
    Block,
    Count,
    Counts,
    Decay,
    FilePath,
    Fraction,
    Names,
    Positive,
    Sizes,
    Whole,
    Wholes,
    raise_all,
)

STAGES = 7  # stages with alignment; later entries are reconstruction groups
PA_FRAMES = (0, 2, 4, 6)


def variant_problems(
    upscale: int,
    pa_frames: int,
    nonblind_denoising: bool,
    frames: int,
    dim: int,
    deformable_groups: int,
    spynet_path: str | None,
) -> list[str]:
    """Find values, or pairs of values, that no VRT can be built with; one text per problem.

    Options of `netG`; `frames` is img_size[0], `dim` embed_dims[0].
    """
    if pa_frames not in PA_FRAMES:
        return [f"pa_frames is {pa_frames}, must be one of {', '.join(map(str, PA_FRAMES))}"]
    problems = []
    if upscale != 3 and (upscale < 1 or upscale & (upscale - 1)):
        problems.append(f"upscale is {upscale}, must be 3 or a power of 2")
    if nonblind_denoising and upscale != 1:
        problems.append(f"nonblind_denoising is true and upscale is {upscale}; a noise map needs upscale 1")
    if pa_frames:
        return problems + _alignment_problems(pa_frames // 2, dim, deformable_groups)
    only = "with pa_frames 0 (frame interpolation)"
    if nonblind_denoising:
        problems.append(f"nonblind_denoising is true, must be false {only}")
    if upscale != 1:
        problems.append(f"upscale is {upscale}, must be 1 {only}")
    if frames < 2 or frames % 2:
        problems.append(f"img_size[0] is {frames}, must be an even number of frames {only}")
    if spynet_path is not None:
        problems.append(f"spynet_path is {spynet_path!r}, must be null {only}: there is no optical flow")
    return problems


def _alignment_problems(reach: int, dim: int, groups: int) -> list[str]:
    if groups < 1:
        return [f"deformable_groups is {groups}, must be 1 or more with pa_frames {2 * reach}"]
    if groups % reach or dim % reach:
        return [
            f"pa_frames is {2 * reach}; deformable_groups {groups} and embed_dims {dim} must be multiples of {reach}, "
            "half of it"
        ]
    if dim * reach % groups:
        many = f" times {reach}, half of pa_frames" * (reach > 1)
        return [f"deformable_groups {groups} does not divide embed_dims {dim}{many}"]
    return []


GUIDE_SIZES: dict[str, dict[str, Any]] = {
    "guide": {"width": 32, "blocks": (1, 2, 4), "stride": 1},
    "guide_tiny": {"width": 32, "blocks": (2, 4), "stride": 2},
    "guide_large": {"width": 64, "blocks": (2, 2, 4, 4), "stride": 1},
}
"""Sizes of the guide by name; see models.fusion.guide.Guide."""


class GuideOpt(Block):
    """The guide: estimates sharp frames from RGB and the spikes around their moment. Used by net_type "guide" and by
    fusion "guide"."""

    size: Literal[tuple(GUIDE_SIZES)] = "guide"  # type: ignore[valid-type]
    """guide: 0.63 M parameters. guide_tiny: 0.24 M, about a third of the time. guide_large: for a GPU."""
    planes: Whole = 41
    """Planes around the target step, as datasets.*.spike.planes; derived from it when omitted. 0: RGB only."""
    width: Count | None = None
    """Channels at the finest level. null: those of `size`."""
    blocks: Counts | None = None
    """Gated blocks per level, finest first. null: those of `size`."""
    ratio: Count = 2
    """RGB pixels per spike pixel along each axis that the weights are made for; spikes of another ratio are brought to
    this grid."""
    weights: FilePath | None = None
    """fusion "guide": weights file of a trained guide to start from. null: VRT starts from the blurred frames."""

    def guide_kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments of Guide."""
        given = {key: value for key, value in (("width", self.width), ("blocks", self.blocks)) if value is not None}
        return {**GUIDE_SIZES[self.size], **given, "planes": self.planes, "ratio": self.ratio}

    @property
    def grid(self) -> int:
        """RGB pixels per pixel of the coarsest level."""
        made = self.guide_kwargs()
        return int(self.ratio * made["stride"] * 2 ** (len(made["blocks"]) - 1))


class LoraOpt(Block):
    """Low-rank adaptation (LoRA): each layer in `targets` trains only a product of two thin matrices."""

    rank: Count = 16
    """Width of the thin matrices. Larger values adapt more and cost more memory."""
    alpha: Positive | None = None
    """The product is scaled by alpha / rank. null: not scaled."""
    targets: Annotated[Names, Field(min_length=1)] = ("qkv_self", "qkv_mut", "proj")
    """Adapted layers: whole trailing parts of their names; * matches any text. Examples: "mlp.fc2", "stage8.*"."""
    also: Names = ("conv_first", "conv_last")
    """Layers or parameters that are trained in full, named like targets. All others keep their loaded values."""


class NetOpt(Block):
    """The network. All but `net_type`, `init_type`, `guide` and `lora` are the arguments of VRT."""

    net_type: Literal["vrt", "guide"] = "vrt"
    """vrt: the 4-channel VRT. guide: the guide alone, which needs no other key than `guide`."""
    init_type: Literal["default", "identity"] = "default"
    """Weight initialisation: each layer's default, or "identity", which passes the input through and trains faster
    from scratch."""
    upscale: Count = 1
    """Output size over input size: 3 or a power of 2."""
    in_chans: Count = 3
    """Channels per input frame: 3 (RGB) plus datasets.*.spike_channels, without a noise map. Derived from the data set
    when omitted."""
    out_chans: Literal[3] = 3
    """Channels per output frame: RGB."""
    img_size: Sizes = (6, 192, 192)
    """Frames, rows and columns of a training sample."""
    window_size: Sizes = (6, 8, 8)
    """Frames, rows and columns of an attention window."""
    depths: Counts = (8,) * STAGES + (4,) * 4
    """Blocks per stage (seven entries), then blocks per reconstruction group."""
    indep_reconsts: Wholes = (9, 10)
    """Indices into depths of the reconstruction groups that process each frame on its own."""
    embed_dims: Counts = (96,) * STAGES + (120,) * 4
    """Channels, one entry per entry of depths. All stages share one value, all groups another."""
    num_heads: Counts = (6,) * (STAGES + 4)
    """Attention heads, one entry per entry of depths. Each must divide its entry of embed_dims."""
    mul_attn_ratio: Fraction = 0.75
    """Share of a stage's blocks that use mutual attention."""
    mlp_ratio: Positive = 2.0
    """Hidden width of the feed-forward layers, as a multiple of their channels."""
    qkv_bias: bool = True
    """Use a bias in the attention projections."""
    drop_path_rate: Decay = 0.2
    """Probability of skipping the last block in training; it falls linearly to 0 at the first block."""
    spynet_path: FilePath | None = None
    """Pretrained weights file of the optical flow. null: random weights."""
    pa_frames: Literal[0, 2, 4, 6] = 2
    """Neighbours used by the alignment, half on each side. 0: frame interpolation, without flow and alignment; the
    output is the middle frame of every img_size[0] frames."""
    deformable_groups: Whole = 16
    """Channel groups that the alignment moves independently, over all neighbours of one side. Unused with pa_frames
    0."""
    nonblind_denoising: bool = False
    """The input carries a noise map, sigma / 255, after its in_chans channels."""
    use_checkpoint_attn: bool = False
    """Recompute attention in the backward pass: less memory, more time."""
    use_checkpoint_ffn: bool = False
    """Recompute the feed-forward layers in the backward pass: less memory, more time."""
    no_checkpoint_attn_blocks: Wholes = ()
    """Indices into depths that use_checkpoint_attn skips."""
    no_checkpoint_ffn_blocks: Wholes = ()
    """Indices into depths that use_checkpoint_ffn skips."""
    optical_flow: Literal["spynet", "spynet_quarter"] = "spynet"
    """Optical flow operator. "spynet_quarter" works at a quarter of the resolution, for small machines."""
    fusion: Literal["concat", "difference", "guide"] = "concat"
    """How RGB and spikes are combined. "difference" feeds spikes minus gray and learns faster. "guide" first estimates
    sharp frames from the spikes around each moment; flow, alignment and body then see these."""
    spike_enlarge: Literal["bilinear", "nearest"] = "bilinear"
    """How concat and difference bring spike planes to the RGB grid. Derived from spike.representation when omitted:
    "nearest" for bits."""
    guide: GuideOpt = GuideOpt()
    """The guide."""
    lora: LoraOpt | None = None
    """Fine-tune loaded weights with low-rank adaptation. null: train all weights."""

    @property
    def extra_frames(self) -> int:
        """Frames read beyond those restored from them: 0, or img_size[0] - 1 with pa_frames 0."""
        return 0 if self.pa_frames else self.img_size[0] - 1

    @property
    def uses_guide(self) -> bool:
        """Whether the network is or has a guide."""
        return "guide" in (self.net_type, self.fusion)

    @property
    def grid(self) -> int:
        """Pixels to whose multiples tiles must begin so that they equal the whole frame; 1 where none do."""
        return self.guide.grid if self.uses_guide else 1

    def without_files(self) -> "NetOpt":
        """Return the same network that loads no file when it is built: all its weights come from elsewhere."""
        return self.model_copy(update={"spynet_path": None, "guide": self.guide.model_copy(update={"weights": None})})

    def network_kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments of the network."""
        if self.net_type == "guide":
            return self.guide.guide_kwargs()
        guide = {**self.guide.guide_kwargs(), "weights": self.guide.weights} if self.fusion == "guide" else None
        return {**self.model_dump(exclude={"net_type", "init_type", "lora", "guide"}), "guide": guide}

    @model_validator(mode="after")
    def _consistent(self) -> "NetOpt":
        if self.net_type == "guide":
            raise_all(self._guide_problems())
        else:
            raise_all(self._length_problems() or [*self._division_problems(), *self._variant_problems()])
        return self

    def _guide_problems(self) -> list[str]:
        problems = []
        if self.upscale != 1:
            problems.append(f"upscale is {self.upscale}, must be 1 with net_type 'guide'")
        if self.nonblind_denoising or not self.pa_frames:
            problems.append("net_type is 'guide', which neither denoises nor interpolates; use net_type 'vrt'")
        return problems

    def _variant_problems(self) -> list[str]:
        flow = self.spynet_path if self.pa_frames else None
        sizes = self.img_size[0], self.embed_dims[0], self.deformable_groups
        return variant_problems(self.upscale, self.pa_frames, self.nonblind_denoising, *sizes, flow)

    def _length_problems(self) -> list[str]:
        groups = len(self.depths)
        problems = []
        if groups <= STAGES:
            problems.append(f"depths has {groups} entries, must have {STAGES} stages and 1 or more groups")
        for key in ("embed_dims", "num_heads"):
            if len(getattr(self, key)) != groups:
                problems.append(f"depths has {groups} entries and {key} has {len(getattr(self, key))}; must be equal")
        for key in ("indep_reconsts", "no_checkpoint_attn_blocks", "no_checkpoint_ffn_blocks"):
            first = STAGES if key == "indep_reconsts" else 0
            wrong = [index for index in getattr(self, key) if not first <= index < groups]
            if wrong:
                problems.append(f"{key} has {wrong[0]}, must be an index into depths, {first} to {groups - 1}")
        return problems

    def _division_problems(self) -> list[str]:
        problems = []
        for part, dims in (("seven stages", self.embed_dims[:STAGES]), ("groups after them", self.embed_dims[STAGES:])):
            if len(set(dims)) > 1:
                problems.append(f"embed_dims is {list(dims)} for the {part}, must be one value")
        wrong = [(d, h) for d, h in zip(self.embed_dims, self.num_heads, strict=True) if d % h]
        if wrong:
            problems.append("num_heads {1} does not divide embed_dims {0}".format(*wrong[0]))
        return problems
