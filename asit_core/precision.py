"""Which number type a step computes in."""

from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]


def autocast_dtype(precision: Precision, device: torch.device) -> torch.dtype | None:
    """The autocast type, or None for fp32 throughout.

    `auto` takes bf16 where the device multiplies it natively: GPUs from Ampere on, CPUs with
    AVX512-BF16. Elsewhere bf16 is emulated and slower.
    """
    if precision == "fp32":
        return None
    if precision == "bf16":
        return torch.bfloat16
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else None


def autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """Autocast to `dtype`; None switches autocast off."""
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)
