"""What the machine's matrix products reach, and the precision to choose for it."""

import platform
import time
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from src.errors import InputError

Precision = Literal["bf16-mixed", "32-true"]

# bfloat16 must be this much faster than float32 to pay for the casts of mixed precision
WORTHWHILE = 1.3
ENOUGH = 0.2  # seconds: a type whose product takes longer (bfloat16 without its instructions: 2) is measured once


def cpu_name() -> str:
    """Return what the CPU calls itself."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@cache
def matmul_peak(dtype: torch.dtype, device: torch.device) -> float:
    """Measure the rate of a large square matrix product, in FLOP/s: the best of several, measured once a process.

    Takes about 0.1 seconds on a CPU.
    """
    return matmul_rates((dtype,), device)[0]


def matmul_rates(dtypes: tuple[torch.dtype, ...], device: torch.device, rounds: int = 10) -> list[float]:
    """Measure the best rate of each type, in turns: what else the machine is doing then slows all of them alike."""
    size = 8192 if device.type == "cuda" else 1024
    best = [float("inf")] * len(dtypes)
    # the run's own random numbers stay as they are; equal numbers a GPU multiplies faster, with less power
    numbers = torch.randn(size, size, device=device, generator=torch.Generator(device).manual_seed(0))
    for _ in range(rounds):
        for i, dtype in enumerate(dtypes):
            if ENOUGH < best[i] < float("inf"):
                continue
            a = numbers.to(dtype)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            start = time.perf_counter()
            a @ a
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best[i] = min(best[i], time.perf_counter() - start)
    return [2 * size**3 / seconds for seconds in best]


def native_precision(accelerator: str = "auto") -> Precision:
    """Choose ``bf16-mixed`` where the hardware multiplies bfloat16 matrices natively and faster, else ``32-true``.

    A GPU that has bfloat16 has it for speed. A CPU may list the instruction and still be slower with it (an
    AVX512-BF16 Xeon without AMX: 167 GFLOP/s against 326 in float32), so there the two are measured.

    Args:
        accelerator: Lightning's name of what the run is on; ``auto`` takes a GPU where there is one.
    """
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    if accelerator not in ("auto", "cpu") or torch.backends.mps.is_available():
        return "32-true"
    capabilities = torch.cpu.get_capabilities()
    if not any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16")):
        return "32-true"
    bf16, fp32 = matmul_rates((torch.bfloat16, torch.float32), torch.device("cpu"))
    return "bf16-mixed" if bf16 > WORTHWHILE * fp32 else "32-true"


def to_device(model: nn.Module, name: str) -> torch.device:
    """Move a network to a device by its name, and give the device."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    there = ["cpu", accelerator.type] if accelerator else ["cpu"]
    if name.partition(":")[0] not in there:
        raise InputError(f"--device {name}: there is no such device here, take {' or '.join(there)}")
    try:
        device = torch.device(name)
        model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: {str(error).splitlines()[0]}") from error
    return device


def compute_dtype(precision: str) -> torch.dtype:
    """Give the type in which a run of Lightning's ``precision`` multiplies its matrices."""
    if precision.startswith("bf16"):
        return torch.bfloat16
    return torch.float16 if precision.startswith("16") else torch.float32
