"""The devices that a run is planned for, by their data sheets, and how much of their peak training reaches."""

import os
from typing import NamedTuple

from src.errors import InputError


class Device(NamedTuple):
    """One device.

    Args:
        gigabytes: of memory, 10^9 bytes.
        bf16: peak of its matrix products in bfloat16, dense, in FLOP/s.
        fp32: the same for float32, which on GPUs is multiplied in TF32 (``--float32_matmul_precision high``).
        link: bytes/s in one direction to a device of the same machine.
        network: bytes/s in one direction to another machine, for each device.
        source: of all that.
        mfu: the fraction of the peak that training reaches (model FLOPs utilisation).
        measured: of which run ``mfu`` is.
    """

    gigabytes: float
    bf16: float
    fp32: float
    link: float
    network: float
    source: str
    mfu: float
    measured: str


LLAMA = "LLaMA 65B, 380 tokens/s a GPU on 2,048 (Touvron et al. 2023, section 2.4)"
MPT_40 = "MPT 7B, 2,048 tokens, 128 GPUs (llm-foundry, scripts/train/benchmarking)"
MPT_H100 = "MPT 1B to 70B, 2,048 tokens, 64 GPUs: 41 to 43% (llm-foundry, scripts/train/benchmarking)"
NONE = "the H100's: none was found for this device"
# the second half of "link" and "network" is the card's bus and, where a DGX has none, Ethernet of 100 Gb/s
DEVICES = {
    "a100-40": Device(40, 312e12, 156e12, 300e9, 25e9, "NVIDIA A100 SXM and DGX A100 data sheets", 0.50, MPT_40),
    "a100-80": Device(80, 312e12, 156e12, 300e9, 25e9, "NVIDIA A100 SXM and DGX A100 data sheets", 0.50, LLAMA),
    "h100": Device(80, 989e12, 494e12, 450e9, 50e9, "NVIDIA H100 SXM and DGX H100 data sheets", 0.42, MPT_H100),
    "h200": Device(141, 989e12, 494e12, 450e9, 50e9, "NVIDIA H200 SXM and DGX H200 data sheets", 0.42, NONE),
    "b200": Device(180, 2250e12, 1125e12, 900e9, 50e9, "NVIDIA DGX B200 data sheet", 0.42, NONE),
    "l40s": Device(48, 362e12, 183e12, 32e9, 12.5e9, "NVIDIA L40S data sheet", 0.42, NONE),
    "4090": Device(24, 165e12, 82.6e12, 32e9, 12.5e9, "NVIDIA Ada architecture white paper", 0.42, NONE),
}
# this project's own figure, which a network of this size has: the matrix products of larger ones fill the device better
SMALL = 300_000_000
SMALL_MFU = 0.27
SMALL_MEASURED = "GPT-2 124M here, on one H100, compiled (docs/extras/bench/speed.md)"
MACHINE = 8  # devices of one machine


def device_named(name: str, n_parameters: int) -> Device:
    """Look up a device; of the CPU at hand the peak is measured."""
    if name == "cpu":
        return _this_machine()
    if name not in DEVICES:
        raise InputError(f"--device {name}: choose one of {', '.join([*DEVICES, 'cpu'])}")
    device = DEVICES[name]
    return device._replace(mfu=SMALL_MFU, measured=SMALL_MEASURED) if n_parameters < SMALL else device


def _this_machine() -> Device:
    import torch

    from src.hardware import cpu_name, matmul_rates

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    bf16, fp32 = matmul_rates((torch.bfloat16, torch.float32), torch.device("cpu"))
    source = f"{cpu_name()}, its largest products measured now"
    # what processes of one machine share goes through its memory
    return Device(memory, bf16, fp32, 5e9, 1e9, source, 0.5, "none: an assumption; `bench` measures it")
