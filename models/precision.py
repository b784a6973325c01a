"""Number formats: autocast, the loss scale of fp16, and TF32."""

import torch

from options.schema_train import AmpOpt

AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
LOWEST_SCALE = 1.0  # a lower scale cannot help gradients that overflow without scaling


def amp_dtype(amp: AmpOpt) -> torch.dtype | None:
    """The number format given by the options; None: float32 throughout."""
    return AMP_DTYPES[amp.dtype] if amp.enable else None


def autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """Context in which matrix products and convolutions compute in `dtype`; None: in the tensors' own dtype."""
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def lower_scale(scaler: torch.amp.GradScaler) -> bool:
    """Lower the loss scale after an overflow.

    Returns:
        Whether training can continue with the lower scale. False: not float16, the gradients did not overflow, or the
        scale fell below 1. A persistent overflow therefore ends a run within 17 steps of a fresh scale.
    """
    before = scaler.get_scale()
    scaler.update()
    return LOWEST_SCALE <= scaler.get_scale() < before


def set_tf32(enabled: bool) -> None:
    """Switch TF32 for float32 matrix products and convolutions on CUDA, for the whole process.

    These two calls keep both of PyTorch's interfaces consistent. `fp32_precision` alone does not, and the compiler,
    which reads the other interface, then fails.
    """
    torch.set_float32_matmul_precision("high" if enabled else "highest")
    torch.backends.cudnn.allow_tf32 = enabled
