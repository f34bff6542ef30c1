"""What TensorBoard shows of a run from its start: the layout of its charts, and a table of the network."""

import lightning as L
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import nn

from src.callbacks.summary import baselines_of
from src.callbacks.tensorboard import tensorboards
from src.data import Baselines
from src.tasks.base import Charts, Task

TRAINING: Charts = {
    "Optimisation": {
        "Learning rate": ["train/learning_rate"],
        "Gradient norm before clipping": ["train/gradient_norm"],
        "Epoch": ["epoch"],
    },
    "Speed": {
        "Tokens a second": ["throughput/tokens_per_second"],
        "Utilisation of the hardware": ["throughput/hardware_utilisation", "throughput/mfu"],
    },
}


def network_table(model: nn.Module) -> str:
    """List the parts of a network with their parameters, as Markdown; of a stack of blocks the first in detail."""
    total = sum(p.numel() for p in model.parameters())
    lines = ["| module | kind | parameters | fraction |", "| :--- | :--- | ---: | ---: |"]

    def add(name: str, module: nn.Module) -> None:
        n = sum(p.numel() for p in module.parameters())
        if not n:
            return
        kind = type(module).__name__
        if isinstance(module, nn.Linear | nn.Embedding):
            kind += " " + " × ".join(map(str, module.weight.shape))
        lines.append(f"| {name} | {kind} | {n:,} | {n / total:.1%} |")
        if isinstance(module, nn.Linear | nn.Embedding | nn.LayerNorm | nn.RMSNorm):
            return
        in_detail = not isinstance(module, nn.ModuleList)
        for i, (child, part) in enumerate(module.named_children()):
            if in_detail or i == 0:
                add(f"{name}.{child}", part)
        if not in_detail and len(module) > 1:  # type: ignore[arg-type]
            lines.append(f"| {name}.1 … {len(module) - 1} | as {name}.0 | | |")  # type: ignore[arg-type]

    for name, module in model.named_children():
        add(name, module)
    lines.append(f"| **{type(model).__name__}** | shared matrices counted once | **{total:,}** | |")
    return "\n".join(lines)


def baseline_tags(tags: list[str], baselines: Baselines) -> dict[str, float]:
    """Map the tags of the lines to draw into a chart to the values of its validation metrics for each baseline.

    Not for perplexity: TensorBoard scales a chart to the median of all its points, which would be the line alone. The
    chart of the loss, its logarithm, has them.
    """
    metrics = [tag.removeprefix("val/") for tag in tags if tag.startswith("val/") and "perplexity" not in tag]
    models = baselines.figures.items()
    return {f"val_baseline/{name}/{model}": found[name] for name in metrics for model, found in models if name in found}


class Dashboard(L.Callback):
    """Lay out TensorBoard's custom scalars for the task, draw the baselines into them, write the network as text."""

    def __init__(self) -> None:
        self.lines: dict[str, float] = {}  # constant curves by their tags

    @rank_zero_only
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Task)
        layout = {**pl_module.charts, **TRAINING}
        charts: dict[str, dict[str, list[str | list[str]]]] = {}
        for section, found in layout.items():
            charts[section] = {}
            for chart, tags in found.items():
                lines = baseline_tags(tags, baselines_of(trainer))
                self.lines |= lines
                charts[section][chart] = ["Multiline", [f"^{tag}$" for tag in (*tags, *lines)]]
        network = network_table(pl_module.meta_model())
        for writer in tensorboards(trainer):
            writer.add_custom_scalars(charts)
            writer.add_text("network", network, 0)
        self._draw(trainer)

    @rank_zero_only
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._draw(trainer)  # so that the lines are as long as the curves

    def _draw(self, trainer: L.Trainer) -> None:
        for writer in tensorboards(trainer):
            for tag, value in self.lines.items():
                writer.add_scalar(tag, value, trainer.global_step)
