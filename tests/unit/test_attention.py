"""Window attention: every backend equals the plain formula, none holds all windows' logits, none breaks a graph."""

import math
from unittest import mock

import pytest
import torch
from dense_windows import region_labels
from torch.profiler import ProfilerActivity, profile

from models.vrt import attend_window, linear
from models.vrt.attend_window import BACKENDS, DEFAULTS, HEAD_MULTIPLE, attend, fused, padded_fused, window_labels
from models.vrt.blocks import BlockArgs, TMSABlock
from models.vrt.window import Run, from_windows, to_windows, window_plan

CPU = torch.device("cpu")
PLANS = [
    ((4, 8, 12), (2, 4, 4), (1, 2, 2)),
    ((2, 8, 8), (2, 4, 4), (0, 2, 2)),
    ((4, 4, 12), (2, 4, 3), (1, 0, 1)),
    ((2, 4, 8), (2, 4, 4), (0, 0, 0)),
]


def use_backend(name):
    """One backend for every device."""
    return mock.patch.dict(DEFAULTS, dict.fromkeys(DEFAULTS, name))


def plain(q, k, v, bias, runs):
    """The formula, with dense logits and masks."""
    labels = window_labels(runs, q.shape[1], q.device)
    logits = torch.einsum("nihd,njhd->nhij", q, k) / math.sqrt(q.shape[3])
    logits = logits + (labels[:, None, :, None] != labels[:, None, None]) * -100.0
    logits = logits if bias is None else logits + bias
    return torch.einsum("nhij,njhd->nihd", logits.softmax(-1), v)


def arguments(windows=6, tokens=12, heads=3, dim=5, dtype=torch.float64):
    torch.manual_seed(0)
    q, k, v = (torch.randn(windows, tokens, heads, dim, dtype=dtype, requires_grad=True) for _ in range(3))
    bias = torch.randn(heads, tokens, tokens, dtype=dtype, requires_grad=True)
    runs = (Run(windows - 3, None), Run(2, torch.arange(tokens) % 2), Run(1, torch.arange(tokens) % 8))
    return q, k, v, bias, runs


def largest_allocation(call):
    """Bytes of the largest tensor that any operator inside `call` allocates."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        call()
    return max(event.self_cpu_memory_usage for event in record.events())


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("with_bias", [True, False])
def test_every_backend_equals_the_plain_formula(name, with_bias):
    q, k, v, bias, runs = arguments(dtype=torch.float32)
    bias = bias if with_bias else None
    inputs = [t for t in (q, k, v, bias) if t is not None]
    with use_backend(name):
        out = attend(q, k, v, bias, runs)
    want = plain(q, k, v, bias, runs)
    assert (out - want).abs().max() < 1e-5
    weight = torch.randn_like(out)
    for own, ref in zip(
        torch.autograd.grad(out, inputs, weight), torch.autograd.grad(want, inputs, weight), strict=True
    ):
        assert (own - ref).abs().max() < 2e-5


@pytest.mark.parametrize("chunk", [1, 1 << 13, 1 << 30])
def test_gradients_of_the_chunked_attention(chunk, monkeypatch):
    monkeypatch.setitem(attend_window.CHUNK_BYTES, "cpu", chunk)
    q, k, v, bias, runs = arguments(windows=5, tokens=4, heads=2, dim=3)
    with use_backend("chunked"):
        assert torch.autograd.gradcheck(lambda *args: attend(*args, runs), (q, k, v, bias))


def test_chunked_attention_is_a_sound_operator():
    q, k, v, bias, _ = arguments(windows=2, tokens=4, heads=2, dim=3, dtype=torch.float32)
    torch.library.opcheck(attend_window.window_attention, (q, k, v, bias))


def test_padded_heads_change_nothing():
    for dim in (5, 16, 20):
        q, k, v, bias, _ = arguments(dim=dim, dtype=torch.float32)
        out = padded_fused(q, k, v, bias)
        assert out.shape == q.shape
        assert (out - fused(q, k, v, bias)).abs().max() < 2e-6
    assert HEAD_MULTIPLE % 8 == 0


@pytest.mark.parametrize("learns", [False, True])
def test_memory_does_not_hold_all_logits(learns, monkeypatch):
    monkeypatch.setitem(attend_window.CHUNK_BYTES, "cpu", 4 * 6 * 64 * 64)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    windows, tokens, heads, dim = 40, 64, 6, 8
    q, k, v = (torch.randn(windows, tokens, heads, dim, requires_grad=learns) for _ in range(3))
    bias = torch.randn(heads, tokens, tokens, requires_grad=learns)
    runs = (Run(30, None), Run(10, torch.arange(tokens) % 4))

    def call():
        out = attend(q, k, v, bias, runs)
        if learns:
            out.sum().backward()

    io, matrix = 4 * q.numel(), 4 * bias.numel()
    assert io <= largest_allocation(call) <= max(io, 2 * matrix) < windows * matrix / 4
    with use_backend("runs"):  # what this measures when a bias that learns turns the fused kernel away
        assert not learns or largest_allocation(call) > windows * matrix / 2


def test_defaults_know_their_backends():
    assert set(attend_window.DEFAULTS.values()) <= BACKENDS.keys()
    assert {device for device, _ in attend_window.DEFAULTS} == {"cpu", "cuda"}


@pytest.mark.parametrize(("size", "window", "shift"), PLANS)
def test_windows_and_their_labels(size, window, shift):
    plan = window_plan(2, size, window, shift, CPU)
    x = torch.randn(2, *size, 3, requires_grad=True)
    windows = to_windows(x, plan)
    assert torch.equal(from_windows(windows, plan, size), x)
    assert torch.equal(torch.autograd.grad(windows.square().sum(), x)[0], 2 * x)
    # Each window sees what the labels of the whole volume say, wherever it stands.
    tokens = math.prod(window)
    volume = torch.arange(math.prod(size)).view(1, *size, 1).float()
    order = to_windows(volume, window_plan(1, size, window, shift, CPU)).squeeze(2)[:, 0].long()
    dense = region_labels(size, window, shift, CPU)
    first = torch.roll(torch.arange(math.prod(size)).view(size), [-s for s in shift], (0, 1, 2))
    at = {
        int(first[d, h, w]): i
        for i, (d, h, w) in enumerate(
            (d, h, w)
            for d in range(0, size[0], window[0])
            for h in range(0, size[1], window[1])
            for w in range(0, size[2], window[2])
        )
    }
    labels = window_labels(window_plan(1, size, window, shift, CPU).runs, tokens, CPU)
    for row, pixel in zip(labels, order.tolist(), strict=True):
        want = dense[at[pixel]]
        assert torch.equal(row[:, None] == row, want[:, None] == want)
    assert labels.max() < 8


def block(mutual, shift, **changes):
    torch.manual_seed(0)
    args = BlockArgs(8, 2, **changes)
    return TMSABlock(args, (2, 4, 4), shift, mutual, 0.0)


@pytest.mark.parametrize("train", [False, True])
def test_a_block_compiles_into_one_graph(train):
    """Mutual attention: such a block has self-attention as well."""
    net = block(True, (1, 2, 2)).train(train)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    x = torch.randn(1, 4, 8, 8, 8, requires_grad=train)
    with torch.set_grad_enabled(train):
        own, want = compiled(x), net(x)
    assert (own - want).abs().max() < 1e-5
    if train:
        grads = [torch.autograd.grad(out.square().sum(), [x, *net.parameters()]) for out in (own, want)]
        for one, other in zip(*grads, strict=True):
            assert (one - other).abs().max() <= 1e-4 * max(1.0, other.abs().max())
    torch._dynamo.reset()


@pytest.mark.parametrize("shift", [(0, 0, 0), (1, 2, 2)])
@pytest.mark.parametrize("mutual", [False, True])
def test_backends_agree_within_a_block(shift, mutual):
    net = block(mutual, shift).eval()
    x = torch.randn(2, 3, 7, 9, 8)
    outs = []
    with torch.no_grad():
        for name in ("runs", "chunked", "folded"):
            with use_backend(name):
                outs.append(net(x))
    assert max((out - outs[0]).abs().max() for out in outs) < 1e-5


def test_recomputing_happens_in_training_only(monkeypatch):
    from models.vrt import blocks

    calls = []
    real = blocks.checkpoint

    def checkpoint(part, x, use_reentrant, **others):
        calls.append(use_reentrant)
        return real(part, x, use_reentrant=use_reentrant, **others)

    monkeypatch.setattr(blocks, "checkpoint", checkpoint)
    net = block(False, (1, 2, 2), checkpoint_attn=True, checkpoint_ffn=True)
    x = torch.randn(1, 2, 4, 4, 8)
    net.eval()(x)
    with torch.no_grad():
        net.train()(x)
    assert not calls
    net(x).sum().backward()
    assert calls in ([False], [False, False])  # one where the feed-forward part keeps its input alone anyway
    monkeypatch.setattr(linear, "ONEDNN", False)
    calls.clear()
    net(x).sum().backward()
    assert calls == [False, False]


@pytest.mark.parametrize(("keep", "expected"), [(True, 1), (False, 2)])
def test_a_kept_self_attention_is_computed_once(monkeypatch, keep, expected):
    calls = []
    real = attend_window.fused
    monkeypatch.setattr(attend_window, "fused", lambda *args: calls.append(1) or real(*args))
    net = block(False, (0, 0, 0), checkpoint_attn=True, keep_attended=keep).train()
    net(torch.randn(1, 2, 4, 4, 8)).sum().backward()
    assert len(calls) == expected


def test_half_precision_stays_near_single():
    q, k, v, bias, runs = arguments(dtype=torch.float32, dim=16)
    want = plain(q, k, v, bias, runs)
    half = [t.detach().bfloat16().requires_grad_() for t in (q, k, v)]
    own_bias = bias.detach().clone().requires_grad_()
    for name in ("runs", "chunked", "folded"):
        with use_backend(name):
            out = attend(*half, own_bias, runs)
        assert out.dtype == torch.bfloat16
        assert (out.float() - want).abs().mean() < 0.02
        assert torch.autograd.grad(out.sum(), own_bias)[0].dtype == torch.float32
