"""The Triton kernels without a GPU: equal to torchvision's in Triton's interpreter, and compiled for a card."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from deform_interpreted import CASES

triton = pytest.importorskip("triton", reason="triton is not installed")
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def interpreted():
    # Triton reads TRITON_INTERPRET when it is imported, hence a process of its own.
    env = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", HERE / "deform_interpreted.py"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", CASES)
def test_interpreted_kernels_equal_torchvision(interpreted, case):
    tolerance = 1e-4 if CASES[case][1] == torch.float32 else 2e-3
    assert len(interpreted[case]) == 6
    assert max(interpreted[case]) < tolerance


def test_nan_in_an_offset_is_not_hidden(interpreted):
    assert interpreted["NaN"]


@pytest.mark.parametrize("name", ["forward", "input", "weight"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_compile_for_a_card(monkeypatch, tmp_path, name, dtype):
    """The interpreter takes programs that the compiler refuses; no GPU is needed to compile for one."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from models.op import deform_kernels, deform_triton

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    x, mask = torch.empty(2, 24, 32, 32, dtype=dtype, device="meta"), torch.empty(2, 36, 32, 32, device="meta")
    sizes = deform_triton.plan(name, x, mask, torch.empty(24, 24, 3, 3, device="meta"))
    kernel, constants = getattr(deform_kernels, f"{name}_kernel"), sizes.constants()
    options = {key: constants.pop(key) for key in ("num_warps", "num_stages")}
    constants = {key: value for key, value in constants.items() if key not in ("TILES", "H", "W")}
    signature = dict.fromkeys(kernel.arg_names, "i32") | dict.fromkeys(constants, "constexpr")
    element = "bf16" if dtype == torch.bfloat16 else "fp32"
    for argument in signature:
        if argument.endswith("_ptr"):
            signature[argument] = f"*{element if argument in ('image_ptr', 'weight_ptr') else 'fp32'}"
    places = {(kernel.arg_names.index(key),): value for key, value in constants.items()}
    compiled = triton.compile(ASTSource(kernel, signature, places), GPUTarget("cuda", 90, 32), options)
    assert compiled.metadata.shared <= 99 * 2**10, "more shared memory than the smallest supported card has"
