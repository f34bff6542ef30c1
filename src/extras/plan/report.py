"""What a plan prints: the network, a table of memory, one of time and cost, and what is poor about a choice."""

import sys
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from src.callbacks.summary import print_rows
from src.extras.plan.devices import Device, device_named
from src.extras.plan.run import Run
from src.extras.plan.strategies import USABLE, Estimate, estimate, layouts

GB = 1e9
WIDTH = 160  # columns, where there is no terminal that has a width
CHINCHILLA = 20  # tokens for each parameter (Hoffmann et al. 2022, table 3)


@dataclass(frozen=True)
class Outcome:
    """A strategy's run.

    Args:
        estimate: of memory and communication.
        rows: of the micro-batch that the figures are of; 0 if none fits.
        checkpointing: whether that takes activation checkpointing.
        days: of training.
        compute: seconds of a step, without what is sent.
        sent: bytes that a device sends in a step.
        communication: seconds that this takes at the data sheet's rate, some of which computing hides.
    """

    estimate: Estimate
    rows: int
    checkpointing: bool
    days: float
    compute: float
    sent: float
    communication: float


def outcome(run: Run, found: Estimate, device: Device, machine: int, tokens: float, mfu: float) -> Outcome:
    """Compute the time that a strategy's run takes with the largest micro-batch that fits, up to the configured one."""
    layout, facts = found.layout, run.facts
    checkpointing = run.checkpointing or not found.rows()
    fits = found.rows(checkpointing)
    parts = layout.micro_batches if layout.stages > 1 else 1  # of a batch, one of which is computed at once
    rows = min(fits, -(-run.rows // parts)) if run.rows else fits
    peak = device.bf16 if facts.compute_itemsize < 4 else device.fp32
    rate = layout.devices * peak * mfu * (3 / 4 if checkpointing else 1)
    rate *= parts / (parts + layout.stages - 1)
    days = tokens * facts.flops / rate / 86400
    batch = rows * parts
    compute = batch * layout.data * facts.seq_len * facts.flops / rate
    shared = device.link if layout.devices <= machine else device.network
    # rows are sent within a tensor- or context-parallel group, or from stage to stage
    group = layout.tensor * layout.context if layout.stages == 1 else layout.devices
    between = device.link if group <= machine else device.network
    sent = found.sent + batch * found.sent_row
    communication = found.sent / shared + batch * found.sent_row / between
    return Outcome(found, rows, checkpointing, days, compute, sent, communication)


def warnings(run: Run, made: Outcome, machine: int) -> list[str]:
    """Say what is poor about a strategy, a line each."""
    found, layout = made.estimate, made.estimate.layout
    if not made.rows:
        fixed = (found.memory * USABLE - found.free) / GB
        row = (found.checkpointed_row if made.checkpointing else found.row) / GB
        return [f"does not fit: {fixed:,.1f} GB before the first row, {row:,.1f} GB a row, {found.memory / GB:,.0f} GB"]
    lines = []
    if made.rows == 1 and run.facts.seq_len < 8192:
        lines.append("a micro-batch of 1 row: the matrix products are small, and utilisation falls below that assumed")
    if made.checkpointing and not run.checkpointing:
        lines.append(
            "fits with activation checkpointing alone: a third more work (--model.activation_checkpointing true)"
        )
    if found.logits > made.rows * found.row:
        lines.append("the loss takes more memory than all activations: the vocabulary is large for the network")
    if layout.tensor > machine:
        lines.append(
            f"tensor parallelism over machines: it communicates four times a block; at most {machine} is better"
        )
    if made.communication > made.compute:
        lines.append("sending takes longer than computing: a larger batch, or accumulation, sends less for each token")
    if layout.stages > 1 and layout.micro_batches < 4 * (layout.stages - 1):
        waits = (layout.stages - 1) / (layout.micro_batches + layout.stages - 1)
        lines.append(f"{waits:.0%} of the time is the pipeline's bubble: take more micro_batches")
    return lines


def show(
    run: Run, devices: int, name: str, machine: int, tokens: float | None, price: float | None, mfu: float | None
) -> None:
    """Print a plan."""
    facts = run.facts
    device = device_named(name, facts.n_parameters)
    memory = device.gigabytes * GB / (devices if name == "cpu" else 1)
    tokens, assumed = tokens or CHINCHILLA * facts.n_parameters, mfu or device.mfu
    chosen = run.layout(devices)
    found = [estimate(facts, layout, memory) for layout in layouts(facts, devices, machine, chosen)]
    made = [outcome(run, one, device, machine, tokens, assumed) for one in found]
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    peak = device.bf16 if facts.compute_itemsize < 4 else device.fp32
    of_these = f", {facts.trained:.2%} of them trained" if facts.trained < 1 else ""
    about = {
        "network": f"{type(facts.model).__name__}, {facts.n_parameters:,} parameters{of_these}, "
        f"{facts.vocabulary:,} tokens",
        "work": f"{facts.flops / 1e9:,.3f} GFLOP a token, forward and backward, at {facts.seq_len:,} tokens a row",
        "activations": f"{facts.activations / GB:,.3f} GB a row, {facts.checkpointed / GB:,.3f} GB with checkpointing",
        "devices": f"{devices:,} x {name}: {memory / GB:,.0f} GB, {peak / 1e12:,.1f} TFLOP/s ({device.source})",
        "utilisation": f"{assumed:.0%} MFU, {'as given' if mfu else 'assumed: ' + device.measured}",
        "tokens": f"{tokens:,.0f}, {tokens / facts.n_parameters:,.1f} for each parameter",
        "precision": run.precision,
    }
    print_rows(about.items())
    columns: tuple[str, ...] = (
        "GB a device",
        "parameters",
        "gradients",
        "optimizer",
        "gathered",
        "loss",
        "largest micro-batch",
        "with checkpointing",
    )
    rows = [
        (
            str(one.layout),
            *(f"{part / GB:,.2f}" for part in (one.parameters, one.gradients, one.optimizer, one.gathered, one.logits)),
            *(f"{one.rows(checkpointed):,}" for checkpointed in (False, True)),
        )
        for one in found
    ]
    console.print(_table(columns, rows), markup=False, highlight=False)
    columns = ("a run", "micro-batch", "GB sent a step", "sending / computing", "days", "device hours", "cost")
    rows = [
        (
            f"{one.estimate.layout}{' *' if one.estimate.layout == chosen else ''}",
            f"{one.rows:,}{' checkpointed' if one.checkpointing else ''}" if one.rows else "none",
            f"{one.sent / GB:,.2f}",
            f"{one.communication:,.3f} / {one.compute:,.3f} s",
            *((f"{one.days:,.2f}", f"{one.days * 24 * devices:,.0f}") if one.rows else ("", "")),
            f"{one.days * 24 * devices * price:,.0f}" if price is not None and one.rows else "",
        )
        for one in made
    ]
    console.print(_table(columns, rows), markup=False, highlight=False)
    if chosen is not None:
        console.print("* as configured", highlight=False)
    for one in made:
        for line in warnings(run, one, machine):
            console.print(
                f"{one.estimate.layout}: {line}", style="yellow", markup=False, highlight=False, soft_wrap=True
            )


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    table = Table(box=None, padding=(0, 0, 0, 2))
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", style=None if i else "cyan", no_wrap=not i)
    for row in rows:
        table.add_row(*row)
    return table
