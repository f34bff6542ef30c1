"""A benchmark on the screen, as JSON and as Markdown."""

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from src.errors import InputError
from src.extras.bench.record import Record, spread

Rows = list[tuple[str, str]]


def machine_rows(record: Record) -> Rows:
    """Where, and what."""
    machine = record.machine
    peaks = ", ".join(f"{rate / 1e9:,.1f} GFLOP/s in {dtype}" for dtype, rate in machine.peaks.items())
    return [
        ("machine", f"{machine.processor}, {machine.threads} threads"),
        ("versions", ", ".join(f"{name} {version}" for name, version in machine.versions.items())),
        ("largest matrix products", peaks),
        *((name, str(value)) for name, value in record.settings.items()),
    ]


def steps_rows(record: Record) -> Rows:
    """The profiled steps."""
    steps = record.steps
    if steps is None:
        return []
    parts = [
        (f"  {name}", f"{1000 * seconds / steps.steps:,.2f} ({seconds / steps.seconds:.1%})")
        for name, seconds in steps.parts.items()
    ]
    return [
        ("tokens/s", f"{steps.tokens_per_second:,.1f} ({steps.tokens:,} tokens in {steps.seconds:.3f} s)"),
        ("milliseconds a step", f"{steps.milliseconds:,.2f}"),
        *parts,
        ("GFLOP/s", f"{steps.flops_per_second / 1e9:,.1f} ({steps.flops / steps.steps / 1e9:,.2f} GFLOP a step)"),
        ("share of the peak", f"{steps.peak_share:.1%} of {steps.peak / 1e9:,.1f} GFLOP/s"),
        ("peak memory", f"{steps.peak_memory / 2**20:,.0f} MiB"),
    ]


def _middle(values: list[float], form: str) -> str:
    low, middle, high = spread(values)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def against_rows(record: Record) -> Rows:
    """What is known of the other program."""
    about = record.against
    rows = [("against", about["program"])]
    if "network" in about:
        rows.append(("its network", f"{about['network']}, {about['parameters']:,} parameters"))
    if "loss_there" in about:
        rows.append(
            ("loss of one batch on the same weights", f"here {about['loss_here']:.6f}, there {about['loss_there']:.6f}")
        )
    return rows


def rounds_rows(record: Record) -> Rows:
    """Medians and extremes of the rounds."""
    rows: Rows = []
    if record.own:
        rows.append((f"{record.unit} here, {len(record.own)} rounds: median (min to max)", _middle(record.own, ",.1f")))
    if record.rounds:
        n = len(record.rounds)
        rows += against_rows(record)
        rows.append((f"{record.unit} there, {n} rounds", _middle([r.theirs for r in record.rounds], ",.1f")))
        rows.append(("ratio of each round", ", ".join(f"{r.ratio:.3f}" for r in record.rounds)))
        rows.append(("ratio: median (min to max)", _middle([r.ratio for r in record.rounds], ".3f")))
    if record.decoded is not None:
        rows.append(("sentences a round", f"{record.decoded.sentences:,}"))
        if record.decoded.equal >= 0:
            rows.append(("of them equal token for token", f"{record.decoded.equal:,}"))
    return rows


def rows_of(record: Record) -> Rows:
    """All that is shown."""
    return [*machine_rows(record), *steps_rows(record), *rounds_rows(record)]


def show(record: Record) -> None:
    """Print it as one table."""
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_column(style="cyan")
    table.add_column(overflow="fold")
    for name, value in rows_of(record):
        table.add_row(name, value)
    Console().print(table, markup=False, highlight=False)


def markdown(record: Record) -> str:
    """The same table, under the command."""
    cells = [(name.strip(), value.replace("|", "\\|").replace("\n", " ")) for name, value in rows_of(record)]
    lines = [f"| {name} | {value} |" for name, value in cells]
    return "\n".join(["```bash", record.command, "```", "", "| | |", "| --- | --- |", *lines, ""])


def check_output(folder: Path) -> None:
    """Make the folder, before anything is measured.

    Raises:
        InputError: it cannot be made, or holds a benchmark already.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {folder} cannot be made: {error}") from error
    if (folder / "bench.json").exists():
        raise InputError(f"--output {folder} holds a bench.json already: name another folder")


def write(record: Record, folder: Path) -> None:
    """``bench.json`` and ``bench.md``; says where."""
    (folder / "bench.json").write_text(json.dumps(record.as_dict(), indent=2) + "\n", encoding="utf-8")
    (folder / "bench.md").write_text(markdown(record), encoding="utf-8")
    print(f"wrote {folder}/bench.json and {folder}/bench.md")
