"""Progress in optimizer steps: a bar on a terminal, a few lines elsewhere."""

import time
from datetime import timedelta
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar as LightningProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from src.tasks import Task

# metric -> how it is shown, after the loss of the training
SHOWN = {
    "val/loss": "val {:.3f}",
    "throughput/tokens_per_second": "{:,.0f} tok/s",
}
LINES = 20  # in a whole run, where there is no terminal


class ProgressBar(LightningProgressBar):
    """Show optimizer steps, loss, last validation loss, tokens per second and the time left, on rank 0."""

    def __init__(self) -> None:
        super().__init__()
        self._console = Console()
        self._enabled = True
        self._bar: Progress | None = None

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Task)
        self._total = pl_module.total_steps()  # -1 where only the time is limited
        self._first, self._shown = trainer.global_step, trainer.global_step
        self._start = time.monotonic()
        if self._enabled and self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(
                    bar_width=None
                ),  # what the others leave of the line, which is 80 characters on most terminals
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
                console=self._console,
                expand=True,
            )
            self._bar.start()
            total = self._total if self._total >= 0 else None
            self._training = self._bar.add_task("train", total=total, completed=self._first, text="")
            self._evaluation: TaskID | None = None

    def _text(self, trainer: L.Trainer) -> str:
        metrics = trainer.progress_bar_metrics
        shown = {str(trainer.lightning_module.comparable_loss): "loss {:.3f}", **SHOWN}
        parts = [form.format(metrics[name]) for name, form in shown.items() if name in metrics]
        done = trainer.global_step - self._first
        left = (time.monotonic() - self._start) / max(1, done) * (self._total - trainer.global_step)
        return "  ".join([*parts, f"{timedelta(seconds=round(left))} left"] if left >= 0 else parts)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if not self._enabled or step == self._shown:
            return
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if self._bar is not None:
            self._shown = step
            # the figures are as old as the last log, and to read them waits for a GPU
            is_new = step % every == 0 or step in (self._first + 1, self._total)
            fields = {"text": self._text(trainer)} if is_new else {}
            self._bar.update(self._training, completed=step, **fields)  # type: ignore[arg-type]
        elif step - self._shown >= (max(1, self._total // LINES) if self._total >= 0 else every) or step == self._total:
            self._shown = step
            of = f"/{self._total}" if self._total >= 0 else ""
            self._console.print(f"step {step}{of}  {self._text(trainer)}", highlight=False)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._bar is not None and self._evaluation is None:
            total = self.total_val_batches
            self._evaluation = self._bar.add_task("validate", total=total, text="")

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any, **__: Any) -> None:
        if self._bar is not None and self._evaluation is not None:
            self._bar.advance(self._evaluation)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._bar is not None and self._evaluation is not None:
            self._bar.remove_task(self._evaluation)
            self._evaluation = None
            self._bar.update(self._training, text=self._text(trainer))

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._stop()  # before the line that says why the run ends
