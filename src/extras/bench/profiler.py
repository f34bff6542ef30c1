"""Where the time of a training step goes, and the peak memory of it."""

import resource
import time
from collections import defaultdict
from contextlib import suppress
from functools import cache
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.profilers import Profiler

PARTS = ("data", "forward", "backward", "optimizer", "logging", "lightning")
# how the names end that Lightning gives to what it does
ENDS = {
    "train_dataloader_next": "data",
    "batch_to_device": "data",
    "batch_transfer": "data",
    "transfer_batch_to_device": "data",
    "training_step": "forward",
    "backward": "backward",
    "optimizer_step": "optimizer",
    "optimizer_zero_grad": "optimizer",
    "configure_gradient_clipping": "optimizer",
    "lr_scheduler_step": "optimizer",
}
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@cache
def part_of(action: str) -> str:
    """Return the part of a step that one of Lightning's actions belongs to; ``lightning`` itself if to none."""
    if action.startswith(("[Callback]", "[Logger]")):
        return "logging"
    return next((part for end, part in ENDS.items() if action.endswith(end)), "lightning")


class StepProfiler(Profiler):
    """Charge every moment to the part of the innermost action, so that the parts sum to the whole.

    What is no action of another part, Lightning's own loops and bookkeeping, is ``lightning``. On a GPU each boundary
    waits for the device: the parts are right, and their sum is a little more than an unprofiled step takes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.device = torch.device("cpu")
        self.running = False
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._last = 0.0

    def _charge(self) -> None:
        if self.running:
            now = clock(self.device)
            self.seconds[part_of(self._open[-1]) if self._open else "lightning"] += now - self._last
            self._last = now

    def start(self, action_name: str) -> None:
        self._charge()
        self._open.append(action_name)

    def stop(self, action_name: str) -> None:
        self._charge()
        if action_name in self._open:  # an action that ends by an exception may leave others open
            while self._open.pop() != action_name:
                pass

    def begin(self, device: torch.device) -> float:
        """Profile from now on; return the time."""
        self.device, self.seconds = device, dict.fromkeys(PARTS, 0.0)
        self.running, self._last = True, clock(device)
        return self._last

    def end(self) -> float:
        """Profile no more; return the time."""
        self._charge()
        self.running = False
        return self._last


def clock(device: torch.device) -> float:
    """Return the time in seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def profile_loggers(trainer: L.Trainer, profiler: StepProfiler) -> None:
    """Make actions of what the loggers do, which are none of Lightning's."""
    for logger in trainer.loggers:
        for name in ("log_metrics", "save"):
            # a context manager made by a generator is a decorator too
            setattr(logger, name, profiler.profile(f"[Logger]{name}")(getattr(logger, name)))


class PeakMemory:
    """The peak from the making of this on: of a GPU what torch has allocated, else what of the process is resident."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif RESET.exists():
            with suppress(OSError):  # it is then that of the whole process
                RESET.write_text("5")  # Linux: start the high-water mark anew

    def bytes(self) -> int:
        """Return the peak so far."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        if STATUS.exists():
            line = next((line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM")), None)
            if line is not None:
                return int(line.split()[1]) * 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
