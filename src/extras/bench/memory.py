"""The most memory that was held at once."""

import resource
from contextlib import suppress
from pathlib import Path

import torch

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Of a GPU what torch has allocated, else of the process what is resident, from the making of this on."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif RESET.exists():
            with suppress(OSError):  # it is then that of the whole process
                RESET.write_text("5")  # Linux: start the high-water mark anew

    def bytes(self) -> int:
        """The most so far."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        if STATUS.exists():
            line = next((line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM")), None)
            if line is not None:
                return int(line.split()[1]) * 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
