"""Estimates before a run: the network's FLOPs and memory by part, and the checkpointing that fits."""

import logging
import math
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from models.fusion.guide import GuideFusion, guide_of
from models.memory.machine import memory_budget
from models.network_vrt import VRT
from models.precision import autocast
from models.vrt.blocks import TMSABlock
from models.vrt.linear import without_onednn
from options.schema_data import EXPOSURE_PLANES

LOG = logging.getLogger("spikevrt")
POLICIES = {
    "none": {"checkpoint_attn": False, "checkpoint_ffn": False, "keep_attended": False},
    "ffn": {"checkpoint_attn": False, "checkpoint_ffn": True, "keep_attended": False},
    "attn": {"checkpoint_attn": True, "checkpoint_ffn": False, "keep_attended": False},
    "most": {"checkpoint_attn": True, "checkpoint_ffn": True, "keep_attended": True},
    "all": {"checkpoint_attn": True, "checkpoint_ffn": True, "keep_attended": False},
}
"""Name -> fields of the blocks' arguments, in `auto`'s order of trial."""
CPU_BUDGET = 8 * 2**30  # bytes of activations below which a CPU recomputes nothing
CPU = torch.device("cpu")


@dataclass
class Memory:
    """Bytes that one pass needs in addition to the weights, including its gradients.

    kept: by part, what remains after its forward pass: its output and, in training, what its backward pass reads.
    peaks: by part, maximum during its forward pass, including what earlier parts hold.
    """

    peak: int = 0  # maximum at any time
    kept: Counter[str] = field(default_factory=Counter)
    peaks: dict[str, int] = field(default_factory=dict)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all live tensors returned by operators, without scratch memory inside operators."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._note(leaf.untyped_storage())
        return out

    def _note(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


class _Pass(nn.Module):
    """A forward and, in training, a backward pass in one call, so that both see the same stand-in weights."""

    def __init__(self, net: nn.Module, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.net, self.dtype = net, dtype

    def forward(self, *inputs: Tensor) -> None:
        with autocast(inputs[0].device, self.dtype):
            out = self.net(*inputs)
        if self.net.training:
            out.float().square().mean().backward()


def memory_of(
    net: nn.Module, shape: Sequence[int], training: bool, dtype: torch.dtype | None = None, on_cpu: bool = False
) -> Memory:
    """Run the network on a (B, D, C, H, W) input without values and measure the memory it holds.

    `training` is a forward and backward pass, with the checkpointing of the blocks, otherwise a forward pass; `dtype`
    that of autocast. `on_cpu` uses the CPU's memory-saving kernels; otherwise it computes as on a GPU.
    """
    memory, live = Memory(), LiveBytes()
    entered: list[tuple[int, int]] = []  # bytes at the start of a part, the peak until then

    def enter() -> None:
        entered.append((live.now, live.peak))
        live.peak = live.now

    def leave(name: str) -> None:
        before, peak = entered.pop()
        memory.kept[name] += live.now - before
        memory.peaks[name] = max(memory.peaks.get(name, 0), live.peak)
        live.peak = max(peak, live.peak)

    with nullcontext() if on_cpu else without_onednn():
        _run(net, shape, training, dtype, live, enter, leave)
    memory.peak = live.peak
    return memory


def flops_of(net: nn.Module, shape: Sequence[int]) -> Counter[str]:
    """FLOPs of matrix products and convolutions for a (B, D, C, H, W) input, by part; a multiply-add counts as two."""
    flops: Counter[str] = Counter()
    entered: list[int] = []
    ours = {
        torch.ops.spikevrt.deform_conv2d: _deform_flops,
        # Not all versions of PyTorch count the CPU's fused attention.
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    }
    counter = FlopCounterMode(display=False, custom_mapping=ours)

    def leave(name: str) -> None:
        flops[name] += counter.get_total_flops() - entered.pop()

    # Under autocast every product is a PyTorch operator that the counter knows.
    _run(net, shape, False, torch.bfloat16, counter, lambda: entered.append(counter.get_total_flops()), leave)
    flops["rest"] = counter.get_total_flops() - flops.total()
    return flops


def input_shapes(net: nn.Module, shape: Sequence[int]) -> list[tuple[int, ...]]:
    """Shapes of the arguments of a network for (B, D, C, H, W); a VRT or guide determines C by itself."""
    batch, frames, channels, height, width = shape
    guide = guide_of(net)
    if guide is None:
        return [(batch, frames, net.in_chans + net.noise_chans if isinstance(net, VRT) else channels, height, width)]
    ratio = guide.ratio
    rows, columns = -(-height // ratio), -(-width // ratio)
    frames_shape = (batch, frames, 3 + (net.noise_chans if isinstance(net, VRT) else 0), rows * ratio, columns * ratio)
    spikes = [(batch, frames, guide.planes + EXPOSURE_PLANES, rows, columns)] if guide.planes else []
    return [frames_shape, *spikes]


def set_checkpointing(net: nn.Module, policy: str) -> None:
    """Set what all blocks recompute in the backward pass."""
    for block in net.modules():
        if isinstance(block, TMSABlock):
            block.args = replace(block.args, **POLICIES[policy])


def has_checkpointing(net: nn.Module) -> bool:
    """Whether a block already recomputes, due to netG.use_checkpoint_attn or use_checkpoint_ffn."""
    blocks = (block for block in net.modules() if isinstance(block, TMSABlock))
    return any(block.args.checkpoint_attn or block.args.checkpoint_ffn for block in blocks)


def choose_checkpointing(
    net: nn.Module, shape: Sequence[int], budget: float, dtype: torch.dtype | None = None, on_cpu: bool = False
) -> tuple[str, Memory]:
    """Set the first policy of POLICIES with which a training step's activations and gradients fit, else the last.

    Returns:
        The policy's name and the memory of a step with it; arguments as of `memory_of`, `budget` in bytes.
    """
    for policy in POLICIES:
        set_checkpointing(net, policy)
        memory = memory_of(net, shape, training=True, dtype=dtype, on_cpu=on_cpu)
        if memory.peak <= budget:
            break
    return policy, memory


def apply_policy(
    net: nn.Module, policy: str, shape: Sequence[int], device: torch.device, dtype: torch.dtype | None
) -> None:
    """Apply and log `train.memory`, unless netG's own keys switch checkpointing on; the weights are on `device`.

    `policy` is a key of POLICIES, or "auto": the first that fits into the free memory of `device`.
    """
    if has_checkpointing(net):
        if policy != "none":
            LOG.info(
                "checkpointing: set by netG.use_checkpoint_attn and use_checkpoint_ffn; train.memory %r is ignored",
                policy,
            )
    elif policy != "auto":
        set_checkpointing(net, policy)
        LOG.info("checkpointing: %s (train.memory)", policy)
    else:
        on_cuda = device.type == "cuda"  # where the optimizer's two moments come on top
        budget = memory_budget(device).device - 2 * weight_bytes(net, trained=True) if on_cuda else CPU_BUDGET
        policy, memory = choose_checkpointing(net, shape, budget, dtype, device.type == "cpu")
        LOG.info(
            "checkpointing: %s (train.memory auto): a step needs about %.1f GiB of %.1f GiB%s",
            policy,
            memory.peak / 2**30,
            budget / 2**30,
            "" if memory.peak <= budget else ", which does not fit: lower gt_size, num_frame or dataloader_batch_size",
        )


def weight_bytes(net: nn.Module, trained: bool = False) -> int:
    """Bytes of all parameters, or only of the trained ones."""
    parameters = (parameter for parameter in net.parameters() if parameter.requires_grad or not trained)
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)


def parts_of(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The network's parts in order of definition; a list of modules shares one name."""
    for name, child in net.named_children():
        if isinstance(child, nn.ModuleList):
            yield from ((name, entry) for entry in child)
        else:
            yield name, child.guide if isinstance(child, GuideFusion) else child  # which is never called itself


def _run(
    net: nn.Module,
    shape: Sequence[int],
    training: bool,
    dtype: torch.dtype | None,
    counting: AbstractContextManager,
    enter: Callable[[], None],
    leave: Callable[[str], None],
) -> None:
    """Run one pass on tensors without values; calls `enter()` before each part runs and `leave(name)` after it.

    Nothing is logged on backends meanwhile: the lines would name those of a CPU, whatever the run's device.
    """
    whole, was_training, level, handles = _Pass(net, dtype), net.training, LOG.level, []
    for name, part in parts_of(net):
        handles.append(part.register_forward_pre_hook(lambda *_: enter()))
        handles.append(part.register_forward_hook(lambda *_, name=name: leave(name)))
    LOG.setLevel(logging.WARNING)
    net.train(training)
    try:
        with FakeTensorMode():
            named = (*whole.named_parameters(), *whole.named_buffers())
            weights = {
                name: torch.empty(value.shape, dtype=value.dtype).requires_grad_(value.requires_grad)
                for name, value in named
            }
            inputs = tuple(map(torch.empty, input_shapes(net, shape)))
            with counting, torch.set_grad_enabled(training):
                functional_call(whole, weights, inputs)
    finally:
        net.train(was_training)
        LOG.setLevel(level)
        for handle in handles:
            handle.remove()


def _deform_flops(x: Sequence[int], _offset: Any, _mask: Any, weight: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * x[0] * x[2] * x[3] * math.prod(weight)


def _attention_flops(q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: Any, **__: Any) -> int:
    """FLOPs of q k^T and of its product with v; shapes (batch, heads, tokens, head_dim)."""
    return 2 * math.prod(q[:3]) * k[2] * (q[3] + v[3])
