"""One benchmark: what was measured, as plain values, and on the screen, as JSON and as Markdown."""

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch

from src.atomic import write_text
from src.callbacks.summary import print_rows
from src.errors import InputError
from src.hardware import cpu_name, matmul_rates

Rows = list[tuple[str, str]]


@dataclass(frozen=True)
class Machine:
    """Where the figures hold.

    Args:
        name: of the GPU, or of the CPU.
        threads: that torch computes with.
        peaks: FLOP/s of large matrix products by type.
        versions: of what computes.
    """

    name: str
    threads: int
    peaks: dict[str, float]
    versions: dict[str, str]

    @classmethod
    def measured(cls, device: torch.device, more: tuple[str, ...] = ()) -> "Machine":
        """Measure this machine; its peaks are the best of many products, the types in turns."""
        types = (torch.float32, torch.bfloat16)
        rates = matmul_rates(types, device)
        peaks = {str(dtype).removeprefix("torch."): rate for dtype, rate in zip(types, rates, strict=True)}
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
        versions = {"python": platform.python_version(), **{p: version(p) for p in ("torch", "lightning", *more)}}
        return cls(f"{name}, {os.cpu_count()} CPUs", torch.get_num_threads(), peaks, versions)


@dataclass(frozen=True)
class Steps:
    """Optimizer steps, and where their time went.

    Args:
        steps: optimizer steps.
        tokens: that were trained on.
        seconds: from the end of the warm-up to the end.
        parts: seconds by part; their sum is ``seconds``.
        flops: of the matrix products and attention of all steps, by the counter.
        peak: FLOP/s of the matrix products in the type of the run.
        data_sheet: the same by the data sheet; None for a device whose data sheet is not known.
        peak_memory: of the process or the GPU in bytes, the highest of all steps.
    """

    steps: int
    tokens: int
    seconds: float
    parts: dict[str, float]
    flops: int
    peak: float
    data_sheet: float | None
    peak_memory: int

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def milliseconds(self) -> float:
        """Of a step."""
        return 1000 * self.seconds / self.steps

    @property
    def flops_per_second(self) -> float:
        return self.flops / self.seconds

    @property
    def utilisation(self) -> float:
        """The fraction of the measured peak."""
        return self.flops_per_second / self.peak

    def rows(self) -> Rows:
        parts = [
            (f"  {name}", f"{1000 * seconds / self.steps:,.2f} ({seconds / self.seconds:.1%})")
            for name, seconds in self.parts.items()
        ]
        return [
            ("tokens/s", f"{self.tokens_per_second:,.1f} ({self.tokens:,} tokens in {self.seconds:.3f} s)"),
            ("milliseconds a step", f"{self.milliseconds:,.2f}"),
            *parts,
            ("GFLOP/s", f"{self.flops_per_second / 1e9:,.1f} ({self.flops / self.steps / 1e9:,.2f} GFLOP a step)"),
            ("hardware utilisation", f"{self.utilisation:.1%} of {self.peak / 1e9:,.1f} GFLOP/s"),
            ("peak memory", f"{self.peak_memory / 2**20:,.0f} MiB"),
        ]


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
        unit: of the rates.
        settings: what was run, by name, for people.
        parameters: of the network.
        own: the rate of each round here.
        theirs: the rate of the other program right after each, if there is one.
        steps: the profiled steps of training.
        decoded: of decoding.
        against: the other program, and what is known of it.
    """

    command: str
    machine: Machine
    unit: str
    settings: dict[str, Any] = field(default_factory=dict)
    parameters: int = 0
    own: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    steps: Steps | None = None
    decoded: Decoded | None = None
    against: dict[str, Any] = field(default_factory=dict)

    @property
    def utilisations(self) -> dict[str, float]:
        """The fraction of each peak that the rounds reach, which no profiler slows: MFU is that of the data sheet's."""
        if self.steps is None or not self.own:
            return {}
        flops_per_second = median(self.own) * self.steps.flops / self.steps.tokens
        peaks = {"hardware utilisation": self.steps.peak, "MFU": self.steps.data_sheet}
        return {name: flops_per_second / peak for name, peak in peaks.items() if peak}

    @property
    def ratios(self) -> list[float]:
        return [ours / theirs for ours, theirs in zip(self.own, self.theirs, strict=False)]

    def as_dict(self) -> dict[str, Any]:
        """Return everything, with what follows from it, for JSON."""
        found = asdict(self)
        if self.steps is not None:
            names = ("tokens_per_second", "milliseconds", "flops_per_second", "utilisation")
            found["steps"] |= {name: getattr(self.steps, name) for name in names}
        found["utilisations"] = self.utilisations
        rounds = zip(self.own, found.pop("theirs"), self.ratios, strict=False)
        found["rounds"] = [{"ours": ours, "theirs": theirs, "ratio": ratio} for ours, theirs, ratio in rounds]
        if self.ratios:
            found["ratio"] = dict(zip(("min", "median", "max"), _spread(self.ratios), strict=True))
        return found

    def rows(self) -> Rows:
        """Return all that is shown."""
        machine = self.machine
        peaks = ", ".join(f"{rate / 1e9:,.1f} GFLOP/s in {dtype}" for dtype, rate in machine.peaks.items())
        rows = [
            ("machine", f"{machine.name}, {machine.threads} threads"),
            ("versions", ", ".join(f"{name} {version}" for name, version in machine.versions.items())),
            ("largest matrix products", peaks),
            *((name, str(value)) for name, value in self.settings.items()),
            *(self.steps.rows() if self.steps else []),
        ]
        n = len(self.own)
        if n:
            rows.append((f"{self.unit} here, {n} rounds: median (min to max)", _median(self.own, ",.1f")))
            rows += [(f"{name} of the rounds", f"{share:.1%}") for name, share in self.utilisations.items()]
        if self.theirs:
            rows += self._against_rows()
            rows.append((f"{self.unit} there, {n} rounds", _median(self.theirs, ",.1f")))
            rows.append(("ratio of each round", ", ".join(f"{ratio:.3f}" for ratio in self.ratios)))
            rows.append(("ratio: median (min to max)", _median(self.ratios, ".3f")))
        if self.decoded is not None:
            rows.append(("sentences a round", f"{self.decoded.sentences:,}"))
            if self.decoded.equal >= 0:
                rows.append(("of them equal token for token", f"{self.decoded.equal:,}"))
        return rows

    def _against_rows(self) -> Rows:
        about = self.against
        rows = [("against", about["program"])]
        if "network" in about:
            rows.append(("its network", f"{about['network']}, {about['parameters']:,} parameters"))
        if "loss_there" in about:
            losses = f"here {about['loss_here']:.6f}, there {about['loss_there']:.6f}"
            rows.append(("loss of one batch on the same weights", losses))
        return rows


def _spread(values: list[float]) -> tuple[float, float, float]:
    return min(values), median(values), max(values)


def _median(values: list[float], form: str) -> str:
    low, middle, high = _spread(values)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def show(record: Record) -> None:
    """Print a benchmark as one table."""
    print_rows(record.rows())


def check_output(folder: Path) -> None:
    """Make the folder, before anything is measured; refuse one that holds a benchmark already."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {folder} cannot be made: {error}") from error
    for name in ("bench.json", "bench.md"):
        if (folder / name).exists():
            raise InputError(f"--output {folder} holds a {name} already: name another folder")


def write(record: Record, folder: Path) -> None:
    """Write ``bench.json``, and ``bench.md`` with the table under the command; say where."""
    cells = [(name.strip(), value.replace("|", "\\|").replace("\n", " ")) for name, value in record.rows()]
    lines = [f"| {name} | {value} |" for name, value in cells]
    markdown = "\n".join(["```bash", record.command, "```", "", "| | |", "| --- | --- |", *lines, ""])
    write_text(folder / "bench.json", json.dumps(record.as_dict(), indent=2) + "\n")
    write_text(folder / "bench.md", markdown)
    print(f"wrote {folder}/bench.json and {folder}/bench.md")
