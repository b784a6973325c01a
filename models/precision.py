"""Number formats: autocast, the loss scale of fp16, and TF32."""

import torch

from options.schema_train import AmpOpt

AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
LOWEST_SCALE = 1.0  # gradients that overflow without any scaling are not the scale's fault


def amp_dtype(amp: AmpOpt) -> torch.dtype | None:
    """The number format that the options ask for, None for float32 throughout."""
    return AMP_DTYPES[amp.dtype] if amp.enable else None


def autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """Context in which matrix products and convolutions compute in `dtype`; None: as the tensors are."""
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def loss_scaler(device: torch.device, dtype: torch.dtype | None) -> torch.amp.GradScaler:
    """Scale that keeps small gradients out of float16's zero; does nothing for the other formats."""
    return torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)


def lower_scale(scaler: torch.amp.GradScaler) -> bool:
    """Lower the loss scale after an overflow; whether a lower scale can help and training may go on.

    False: no float16, or the overflow did not come from the gradients, or the scale has fallen below 1. An overflow
    that stays therefore ends a run within 17 steps of a fresh scale.
    """
    before = scaler.get_scale()
    scaler.update()
    return LOWEST_SCALE <= scaler.get_scale() < before


def set_tf32(enabled: bool) -> None:
    """Let float32 matrix products and convolutions on CUDA round their factors to TF32, or not; for the process.

    These two calls leave the settings readable through both of PyTorch's interfaces. `fp32_precision` alone does not,
    and the compiler, which reads the other one, then refuses to work.
    """
    torch.set_float32_matmul_precision("high" if enabled else "highest")
    torch.backends.cudnn.allow_tf32 = enabled
