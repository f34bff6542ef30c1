"""The precision that the hardware does natively."""

from typing import Literal

import torch

Precision = Literal["bf16-mixed", "32-true"]


def native_precision(accelerator: str = "auto") -> Precision:
    """``bf16-mixed`` where the processor or GPU multiplies bfloat16 matrices natively, else ``32-true``.

    On a processor that only emulates bfloat16 it is slower than float32.

    Args:
        accelerator: Lightning's name of what the run is on; ``auto`` takes a GPU where there is one.
    """
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif accelerator in ("auto", "cpu") and not torch.backends.mps.is_available():
        capabilities = torch.cpu.get_capabilities()
        native = any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16"))  # x86, x86, ARM
    else:
        native = False
    return "bf16-mixed" if native else "32-true"


def compute_dtype(precision: str) -> torch.dtype:
    """The type in which a run of Lightning's ``precision`` multiplies its matrices."""
    if precision.startswith("bf16"):
        return torch.bfloat16
    return torch.float16 if precision.startswith("16") else torch.float32
