"""What is measured, as plain values: every figure that is shown follows from what stands here."""

import os
import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from statistics import median
from typing import Any

import torch

from src.hardware import matmul_rates

PACKAGES = ("torch", "lightning")


@dataclass(frozen=True)
class Machine:
    """Where the figures hold.

    Args:
        processor: name of the GPU, or of the processor.
        threads: that torch computes with.
        peaks: FLOP/s of large matrix products by type.
        versions: of what computes.
    """

    processor: str
    threads: int
    peaks: dict[str, float]
    versions: dict[str, str]

    @classmethod
    def measured(cls, device: torch.device, more: tuple[str, ...] = ()) -> "Machine":
        """This machine; its peaks are the best of many products, the types in turns."""
        types = (torch.float32, torch.bfloat16)
        rates = matmul_rates(types, device)
        peaks = {str(dtype).removeprefix("torch."): rate for dtype, rate in zip(types, rates, strict=True)}
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
        versions = {"python": platform.python_version(), **{p: version(p) for p in (*PACKAGES, *more)}}
        return cls(f"{name}, {os.cpu_count()} processors", torch.get_num_threads(), peaks, versions)


def cpu_name() -> str:
    """What the processor calls itself."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@dataclass(frozen=True)
class Measured:
    """Some work and the time it took.

    Args:
        tokens: that were trained on, or written.
        seconds: from the end of the warm-up to the end.
        sentences: that were decoded.
    """

    tokens: int
    seconds: float
    sentences: int = 0

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def sentences_per_second(self) -> float:
        return self.sentences / self.seconds


@dataclass(frozen=True)
class Steps(Measured):
    """Optimizer steps, and where their time went.

    Args:
        steps: optimizer steps.
        parts: seconds by part; their sum is ``seconds``.
        flops: of the matrix products and attention of all steps, by the counter.
        peak: FLOP/s of the matrix products in the type of the run.
        peak_memory: of the process or the GPU in bytes, the highest of all steps.
    """

    steps: int = 0
    parts: dict[str, float] = field(default_factory=dict)
    flops: int = 0
    peak: float = 0.0
    peak_memory: int = 0

    @property
    def milliseconds(self) -> float:
        """A step."""
        return 1000 * self.seconds / self.steps

    @property
    def flops_per_second(self) -> float:
        return self.flops / self.seconds

    @property
    def peak_share(self) -> float:
        return self.flops_per_second / self.peak


@dataclass(frozen=True)
class Round:
    """Tokens or sentences a second here and of the other program, one right after the other."""

    ours: float
    theirs: float

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs


@dataclass(frozen=True)
class Decoded:
    """Sentences decoded here and there.

    Args:
        sentences: in each round.
        equal: how many of them are token for token the same; -1 where there is no other program.
    """

    sentences: int
    equal: int


@dataclass
class Record:
    """One benchmark.

    Args:
        command: what it was started by.
        machine: where.
        settings: what was run, by name, for people.
        parameters: of the network.
        unit: what the rounds count a second of.
        rounds: in turns, if there is another program.
        steps: the profiled steps of training.
        decoded: of decoding.
        against: the other program, and what is known of it.
        own: rates here of each round, where there is no other program.
    """

    command: str
    machine: Machine
    settings: dict[str, Any]
    parameters: int = 0
    unit: str = "tokens/s"
    rounds: list[Round] = field(default_factory=list)
    steps: Steps | None = None
    decoded: Decoded | None = None
    against: dict[str, Any] = field(default_factory=dict)
    own: list[float] = field(default_factory=list)

    def ratios(self) -> tuple[float, float, float]:
        """The lowest, median and highest ratio of the rounds."""
        return spread([each.ratio for each in self.rounds])

    def as_dict(self) -> dict[str, Any]:
        """Everything, with what follows from it, for JSON."""
        found = asdict(self)
        if self.steps is not None:
            names = ("tokens_per_second", "milliseconds", "flops_per_second", "peak_share")
            found["steps"] |= {name: getattr(self.steps, name) for name in names}
        if self.rounds:
            found["rounds"] = [{**asdict(each), "ratio": each.ratio} for each in self.rounds]
            found["ratio"] = dict(zip(("min", "median", "max"), self.ratios(), strict=True))
        return found


def spread(values: list[float]) -> tuple[float, float, float]:
    """The lowest, median and highest."""
    return min(values), median(values), max(values)
