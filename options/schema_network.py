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
    Wholes,
    raise_all,
)

STAGES = 7  # stages with alignment; the entries after them are the groups of the reconstruction


class NetOpt(Block):
    """The network. All but `net_type` and `init_type` are the arguments of VRT."""

    net_type: Literal["vrt"] = "vrt"
    """Which network."""
    init_type: Literal["default", "identity"] = "default"
    """How weights start: as each layer has it, or passing the input on ("identity": quicker from scratch)."""
    upscale: Literal[1, 2, 3, 4] = 1
    """Output size over input size."""
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
    """Neighbours used by the alignment; 0: no alignment."""
    deformable_groups: Count = 16
    """Groups of channels that the alignment moves on their own; divides the channels of the stages."""
    nonblind_denoising: bool = False
    """The input carries a noise map after its in_chans channels."""
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

    def network_kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments of VRT."""
        return self.model_dump(exclude={"net_type", "init_type"})

    @model_validator(mode="after")
    def _consistent(self) -> "NetOpt":
        raise_all(self._length_problems() or self._division_problems())
        return self

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
        if self.embed_dims[0] % self.deformable_groups and self.pa_frames:
            problems.append(
                f"deformable_groups {self.deformable_groups} does not divide embed_dims {self.embed_dims[0]}"
            )
        return problems
