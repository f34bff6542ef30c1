"""Where the time of a training step goes."""

import time
from collections import defaultdict
from functools import cache
from typing import Any

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


@cache
def part_of(action: str) -> str:
    """The part of a step that one of Lightning's actions belongs to; ``lightning`` itself if to none."""
    if action.startswith(("[Callback]", "[Logger]")):
        return "logging"
    return next((part for end, part in ENDS.items() if action.endswith(end)), "lightning")


class StepProfiler(Profiler):
    """Give every moment to one part: that of the innermost action, so that the parts sum to the whole.

    What is no action of another part, Lightning's own loops and bookkeeping, is ``lightning``. On a GPU each boundary
    waits for the device: the parts are right, and their sum is a little more than an unobserved step takes.
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
        """Observe from now on; gives the time."""
        self.device, self.seconds = device, dict.fromkeys(PARTS, 0.0)
        self.running, self._last = True, clock(device)
        return self._last

    def end(self) -> float:
        """Observe no more; gives the time."""
        self._charge()
        self.running = False
        return self._last

    def summary(self) -> str:
        """Nothing: :class:`src.extras.bench.record.Steps` has it."""
        return ""


def clock(device: torch.device) -> float:
    """The time in seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def profile_loggers(trainer: L.Trainer, profiler: StepProfiler) -> None:
    """Make actions of what the loggers do, of which Lightning makes none."""
    for logger in trainer.loggers:
        for name in ("log_metrics", "save"):
            setattr(logger, name, _profiled(getattr(logger, name), f"[Logger]{name}", profiler))


def _profiled(function: Any, action: str, profiler: StepProfiler) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        with profiler.profile(action):
            return function(*args, **kwargs)

    return call
