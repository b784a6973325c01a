"""Options of the network."""

from typing import Any, Literal

from pydantic import model_validator

from options.schema_base import (
    Block,
    Count,
    Counts,
    Decay,
    FilePath,
    Fraction,
    Positive,
    Sizes,
    Whole,
    Wholes,
    raise_all,
)
from options.schema_lora import LoraOpt

STAGES = 7  # stages with alignment; the entries after them are the groups of the reconstruction
PA_FRAMES = (0, 2, 4, 6)


def variant_problems(
    *,
    upscale: int,
    pa_frames: int,
    nonblind_denoising: bool,
    frames: int,
    dim: int,
    deformable_groups: int,
    spynet_path: str | None,
) -> list[str]:
    """What no VRT is built of: one text per value, or pair of values, that does not go together.

    Args:
        upscale: output size over input size.
        pa_frames: neighbours of the alignment.
        nonblind_denoising: whether the input carries a noise map.
        frames: of a training sample, img_size[0].
        dim: channels of the stages, embed_dims[0].
        deformable_groups: offset groups of the alignment.
        spynet_path: file of the optical flow's weights.
    """
    if pa_frames not in PA_FRAMES:
        return [f"pa_frames is {pa_frames}, must be one of {', '.join(map(str, PA_FRAMES))}"]
    problems = []
    if upscale != 3 and (upscale < 1 or upscale & (upscale - 1)):
        problems.append(f"upscale is {upscale}, must be 3 or a power of 2")
    if nonblind_denoising and upscale != 1:
        problems.append(f"nonblind_denoising is true and upscale {upscale}; a noise map goes with upscale 1 only")
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
            f"pa_frames is {2 * reach}; deformable_groups {groups} and embed_dims {dim} must be multiples of its half"
        ]
    if dim * reach % groups:
        many = f" times {reach}, half of pa_frames" * (reach > 1)
        return [f"deformable_groups {groups} does not divide embed_dims {dim}{many}"]
    return []


class NetOpt(Block):
    """The network. All but `net_type`, `init_type` and `lora` are the arguments of VRT."""

    net_type: Literal["vrt"] = "vrt"
    """Which network."""
    init_type: Literal["default", "identity"] = "default"
    """How weights start: as each layer has it, or passing the input on ("identity": quicker from scratch)."""
    upscale: Count = 1
    """Output size over input size: 3 or a power of 2."""
    in_chans: Count = 3
    """Channels of an input frame: 3 for RGB plus datasets.*.spike_channels; not given: as many as the data have. A
    noise map is not counted."""
    out_chans: Literal[3] = 3
    """Channels of an output frame: RGB."""
    img_size: Sizes = (6, 192, 192)
    """Frames, rows and columns of a training sample."""
    window_size: Sizes = (6, 8, 8)
    """Frames, rows and columns of an attention window."""
    depths: Counts = (8,) * STAGES + (4,) * 4
    """Blocks of each of the seven stages, then of each group of the reconstruction."""
    indep_reconsts: Wholes = (9, 10)
    """Indices into depths of the groups that look at one frame at a time."""
    embed_dims: Counts = (96,) * STAGES + (120,) * 4
    """Channels, one entry per entry of depths: one value for the seven stages, one for the groups."""
    num_heads: Counts = (6,) * (STAGES + 4)
    """Attention heads, one entry per entry of depths; each divides its channels."""
    mul_attn_ratio: Fraction = 0.75
    """Share of a stage's blocks that use mutual attention."""
    mlp_ratio: Positive = 2.0
    """Width of the feed-forward parts over their channels."""
    qkv_bias: bool = True
    """Bias in the projections of the attention."""
    drop_path_rate: Decay = 0.2
    """Chance of leaving out the last block in training; earlier blocks have less, in proportion."""
    spynet_path: FilePath | None = None
    """File of the optical flow's pretrained weights; null: random ones."""
    pa_frames: Literal[0, 2, 4, 6] = 2
    """Neighbours used by the alignment, half of them from each side; 0: no flow, no alignment, and the output is the
    frame in the middle of every img_size[0] frames (frame interpolation)."""
    deformable_groups: Whole = 16
    """Groups of channels that the alignment moves on their own, of the neighbours of one side together; no matter with
    pa_frames 0."""
    nonblind_denoising: bool = False
    """The input carries a noise map, sigma / 255, after its in_chans channels."""
    use_checkpoint_attn: bool = False
    """Compute attention again in the backward pass: less memory, more time."""
    use_checkpoint_ffn: bool = False
    """The same for the feed-forward parts."""
    no_checkpoint_attn_blocks: Wholes = ()
    """Indices into depths that use_checkpoint_attn leaves alone."""
    no_checkpoint_ffn_blocks: Wholes = ()
    """Indices into depths that use_checkpoint_ffn leaves alone."""
    optical_flow: Literal["spynet", "spynet_quarter"] = "spynet"
    """Optical flow operator; "spynet_quarter" works at a quarter of the size, for small machines."""
    fusion: Literal["concat", "difference"] = "concat"
    """How RGB and spikes come together; "difference" hands over spikes minus gray and learns sooner."""
    lora: LoraOpt | None = None
    """Fine-tune by low-rank changes of loaded weights; null: train the weights themselves."""

    @property
    def extra_frames(self) -> int:
        """Frames that are read beyond those that are made of them: none, or with pa_frames 0 all but one."""
        return 0 if self.pa_frames else self.img_size[0] - 1

    def network_kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments of VRT."""
        return self.model_dump(exclude={"net_type", "init_type", "lora"})

    @model_validator(mode="after")
    def _consistent(self) -> "NetOpt":
        raise_all(self._length_problems() or [*self._division_problems(), *self._variant_problems()])
        return self

    def _variant_problems(self) -> list[str]:
        return variant_problems(
            upscale=self.upscale,
            pa_frames=self.pa_frames,
            nonblind_denoising=self.nonblind_denoising,
            frames=self.img_size[0],
            dim=self.embed_dims[0],
            deformable_groups=self.deformable_groups,
            spynet_path=self.spynet_path if self.pa_frames else None,
        )

    def _length_problems(self) -> list[str]:
        groups = len(self.depths)
        problems = (
            [] if groups > STAGES else [f"depths has {groups} entries, needs {STAGES} stages and 1 group or more"]
        )
        for key in ("embed_dims", "num_heads"):
            if len(getattr(self, key)) != groups:
                problems.append(f"depths has {groups} entries and {key} {len(getattr(self, key))}; must be as many")
        for key in ("indep_reconsts", "no_checkpoint_attn_blocks", "no_checkpoint_ffn_blocks"):
            first = STAGES if key == "indep_reconsts" else 0
            wrong = [index for index in getattr(self, key) if not first <= index < groups]
            if wrong:
                problems.append(f"{key} has {wrong[0]}, must be an index into depths, {first} to {groups - 1}")
        return problems

    def _division_problems(self) -> list[str]:
        problems = []
        for part, dims in (
            ("seven stages", self.embed_dims[:STAGES]),
            ("groups after them", self.embed_dims[STAGES:]),
        ):
            if len(set(dims)) > 1:
                problems.append(f"embed_dims is {list(dims)} for the {part}, must be one value")
        wrong = [(d, h) for d, h in zip(self.embed_dims, self.num_heads, strict=True) if d % h]
        if wrong:
            problems.append("num_heads {1} does not divide embed_dims {0}".format(*wrong[0]))
        return problems
