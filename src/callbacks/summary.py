"""What a run prints: its plan before the first step, and its result at the end."""

import math
from collections.abc import Iterable
from pathlib import Path

import lightning as L
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from rich.console import Console
from rich.table import Table
from rich.text import Text

from src.callbacks.text_examples import TextSamples
from src.data import Baselines
from src.discovery import parts
from src.errors import run_sh
from src.files import counted
from src.tasks import Task
from src.tasks.trained import trained_sizes

# the metrics in which a network that has learnt anything beats the baselines -> whether lower is better
DECISIVE = {"perplexity": True, "mlm_perplexity": True, "nsp_accuracy": False, "accuracy": False, "bleu": False}


def print_rows(rows: Iterable[tuple[str, str]], title: str = "") -> None:
    """Print names and what they are, a line each, which is not broken: a path or a command in it is copied whole."""
    console, rows = Console(), list(rows)
    if title:
        console.print(title, style="bold")
    width = max((len(name) for name, _ in rows), default=0)
    for name, text in rows:
        text = text.replace("\n", "\n" + " " * (width + 6))
        console.print(Text.assemble("  ", (f"{name:<{width}}", "cyan"), "    ", text), soft_wrap=True)


class RunSummary(L.Callback):
    """Print the network, the data and the length of the run in optimizer steps, tokens and epochs.

    Its ``baselines`` are printed beside the run's metrics at the end.
    """

    def __init__(self) -> None:
        self.baselines = Baselines({})

    @rank_zero_only
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Task)
        data = pl_module.data
        accumulate = trainer.accumulate_grad_batches
        rows = []
        network = pl_module.meta_model()
        n, trained = sum(p.numel() for p in network.parameters()), sum(trained_sizes(network).values())
        of_them = f", {trained:,} of them trained ({trained / n:.2%})" if trained < n else ""
        rows.append(("network", f"{type(pl_module.model).__name__}, {n:,} parameters{of_them}"))
        for part in parts("plan"):
            rows.extend(part.rows(pl_module.architecture, pl_module.config).items())
        for split, counts in data.summary().items():
            rows.append((split, ", ".join(counted(count, what) for what, count in counts.items())))
        steps = pl_module.total_steps()
        plan = f"{steps:,} optimizer steps" if steps >= 0 else "as many optimizer steps as the time allows"
        if "train" in data.summary() and steps >= 0:  # a stream does not know how much there is
            per_epoch = math.ceil(len(data.train_dataloader()) / accumulate)
            tokens = data.summary()["train"]["tokens"] / per_epoch
            plan += f" of {tokens:,.0f} tokens: {steps / per_epoch:.2f} epochs"
        rows.append(("steps", plan))
        if accumulate > 1:
            rows.append(("", f"each of {accumulate} accumulated batches"))
        rows.append(("precision", f"{trainer.precision} on {trainer.world_size} x {trainer.strategy.root_device.type}"))
        if trainer.world_size > 1:
            rows.append(("strategy", type(trainer.strategy).__name__))
        every = trainer.val_check_interval
        rows.append(("validation", f"every {every:,} batches" if isinstance(every, int) else f"{1 / every:g} an epoch"))
        trial = trainer.fast_dev_run  # type: ignore[attr-defined]
        rows.append(("run", "a trial, of which nothing is kept" if trial else trainer.default_root_dir))
        print_rows(rows, "Plan")
        self.baselines = pl_module.baselines()


def baselines_of(trainer: L.Trainer) -> Baselines:
    """Return those of the trainer's :class:`RunSummary`, once a fit has started; none without one."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback.baselines for callback in callbacks if isinstance(callback, RunSummary)), Baselines({}))


def metrics_table(metrics: dict[str, float], baselines: Baselines) -> Table:
    """Tabulate the metrics of the last validation, and beside each its value for the baselines."""
    table = Table(title="Result", title_justify="left", title_style="bold", box=None, padding=(0, 0, 0, 2))
    table.show_header = bool(metrics and baselines.figures)
    table.add_column(style="cyan", no_wrap=True)
    for model in ("this run", *baselines.figures):
        table.add_column(model, justify="right", no_wrap=True)
    for metric, value in metrics.items():
        cells = [value, *(found.get(metric) for found in baselines.figures.values())]
        table.add_row(f"val/{metric}", *("" if cell is None else f"{cell:.4f}" for cell in cells))
    return table


def shortfalls(metrics: dict[str, float], baselines: Baselines) -> list[str]:
    """Write a line for each decisive metric in which a run is no better than the best baseline."""
    lines = []
    for metric, lower_is_better in DECISIVE.items():
        reached = {model: found[metric] for model, found in baselines.figures.items() if metric in found}
        if not reached or metric not in metrics:
            continue
        best = (min if lower_is_better else max)(reached, key=lambda model: reached[model])
        mine, other = metrics[metric], reached[best]
        if not (mine < other if lower_is_better else mine > other):  # true of NaN as well
            line = f"val/{metric} {mine:.4f} is no better than the {best} baseline's {other:.4f}"
            lines.append(f"{line}: the network has not learnt more than that")
    return lines


def _done_before(trainer: L.Trainer, first_step: int) -> str:
    """Say of a run that had no step left to be done what would give it more."""
    step = trainer.global_step
    if not 0 < step == first_step:
        return ""
    has_epochs = (trainer.max_epochs or 0) > 0
    limit = "max_steps" if step == trainer.max_steps else "max_epochs" if has_epochs else "max_time"
    return f"already at step {step:,} of {step:,}: raise --trainer.{limit} to train on"


def _checkpoints(trainer: L.Trainer) -> list[tuple[str, str]]:
    """Name the last checkpoint of a run and its best one, as rows to print; or say that none is kept."""
    rows = []
    last, kept = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt", trainer.checkpoint_callback
    if last.exists():  # not where no step was left to be done
        rows.append(("checkpoint", str(last)))
    elif isinstance(kept, ModelCheckpoint) and not kept.save_last and not kept.save_top_k:
        rows.append(("checkpoint", "none: checkpoint.save_last is false, and save_top_k 0"))
    if isinstance(kept, ModelCheckpoint) and kept.best_model_score is not None:
        rows.append(("best checkpoint", f"{kept.best_model_path} ({kept.monitor} {kept.best_model_score:.4f})"))
    return rows


@rank_zero_only
def print_results(trainer: L.Trainer, first_step: int = 0) -> None:
    """Print the metrics of the last validation, a sample, the run's folder, and how to look at it.

    Args:
        first_step: of the checkpoint that the run went on from.
    """
    console, baselines = Console(), baselines_of(trainer)
    logged = trainer.callback_metrics.items()
    metrics = {name.removeprefix("val/"): float(value) for name, value in logged if name.startswith("val/")}
    if metrics:
        console.print(metrics_table(metrics, baselines))
    notes = [_done_before(trainer, first_step), baselines.note, *shortfalls(metrics, baselines)]
    if metrics and baselines.figures and sum(trainer.num_val_batches) < len(trainer.val_dataloaders):  # type: ignore[arg-type,operator]
        notes.append("the baselines are of the whole validation split, this run's metrics of its first batches")
    for line in filter(None, notes):
        console.print(f"  {line}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    rows = []
    if not trainer.fast_dev_run:  # type: ignore[attr-defined]
        run = trainer.default_root_dir  # not trainer.log_dir: that is a broadcast, and the other ranks are not here
        # one folder up: there the run has a name, and others beside it
        look = run_sh("tensorboard", "--logdir", Path(run).parent)
        rows += [("run", run), *_checkpoints(trainer), ("look at it", look)]
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, EarlyStopping) and callback.stopping_reason_message:
            rows.append(("stopped", callback.stopping_reason_message.removesuffix(" Signaling Trainer to stop.")))
        if isinstance(callback, TextSamples) and callback.latest:
            rows.append(("sample", callback.latest[-1]))
    print_rows(rows)
