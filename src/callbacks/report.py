"""What a run is going to do, printed at its start, and what came out, printed at its end."""

import math

import lightning as L
from lightning.fabric.utilities.rank_zero import rank_zero_only
from rich.console import Console
from rich.table import Table

from src.callbacks.samples import TextSamples
from src.tasks import Task


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 2))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    return table


class Report(L.Callback):
    """Print network, data and the length of the run in optimizer steps, tokens and epochs before the first step."""

    @rank_zero_only
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Task)
        data = pl_module.data
        accumulate = trainer.accumulate_grad_batches
        table = _table("Plan")
        table.add_row("network", f"{type(pl_module.model).__name__}, {pl_module.n_parameters():,} parameters")
        for split, counts in data.summary().items():
            table.add_row(split, ", ".join(f"{count:,} {what}" for what, count in counts.items()))
        steps = pl_module.total_steps()
        plan = f"{steps:,} optimizer steps" if steps >= 0 else "as many optimizer steps as the time allows"
        if "train" in data.summary() and steps >= 0:  # a stream does not know how much there is
            per_epoch = math.ceil(len(data.train_dataloader()) / accumulate)
            tokens = data.summary()["train"]["tokens"] / per_epoch
            plan += f" of {tokens:,.0f} tokens: {steps / per_epoch:.2f} epochs"
        table.add_row("steps", plan)
        if accumulate > 1:
            table.add_row("", f"each of {accumulate} accumulated batches")
        table.add_row("precision", f"{trainer.precision} on {trainer.world_size} x {trainer.strategy.root_device.type}")
        if trainer.world_size > 1:
            table.add_row("strategy", type(trainer.strategy).__name__)
        every = trainer.val_check_interval
        table.add_row("validation", f"every {every:,} batches" if isinstance(every, int) else f"{1 / every:g} an epoch")
        table.add_row("run", trainer.default_root_dir)
        Console().print(table)


@rank_zero_only
def print_results(trainer: L.Trainer) -> None:
    """Print the last validation's figures, a sample, where the run lies, and how to look at it."""
    console = Console()
    table = _table("Result")
    for name, value in trainer.callback_metrics.items():
        if name.startswith("val/"):
            table.add_row(name, f"{value:.4f}")
    # not trainer.log_dir: that is a broadcast, and the other ranks are not here
    run = trainer.default_root_dir
    table.add_row("run", run)
    table.add_row("checkpoint", f"{run}/checkpoints/last.ckpt")
    table.add_row("look at it", f"./run.sh tensorboard --logdir {run}")
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, TextSamples) and callback.latest:
            table.add_row("sample", callback.latest[-1])
    console.print(table, markup=False)
