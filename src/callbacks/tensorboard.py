"""TensorBoard's writers, and a run's row in the HParams tab: the few settings that matter, and what came out."""

from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from src.errors import InputError

# shown where nothing else is asked for; with the seed five, which is how many columns TensorBoard opens with
KEYS = ("model.config.activation", "model.optimizer", "model.optimizer.lr", "model.schedule")
METRICS = ("val/loss",)


def tensorboards(trainer: L.Trainer) -> list[SummaryWriter]:
    """List the TensorBoard writers of a run; none in a trial run of a few batches, or with other loggers."""
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def log_hparams(writer: SummaryWriter, settings: Mapping[str, str | float | None], metrics: Sequence[str]) -> None:
    """Make a run a row of the HParams tab.

    Args:
        writer: of the run's own folder; one row a folder.
        settings: the columns and their values; those that are None are not shown.
        metrics: tags of scalars, of which the newest value in the folder is shown: they may be logged before or after.
    """
    assert writer.file_writer is not None
    for summary in hparams(dict(settings), dict.fromkeys(metrics, 0.0)):
        writer.file_writer.add_summary(summary)


def setting(config: Mapping[str, Any], key: str) -> str | float | None:
    """Look up a dotted key as on the command line, without ``init_args``; a class is its short name.

    Raises:
        KeyError: there is no such key.
    """
    value: Any = config
    for name in key.split("."):
        if isinstance(value, Mapping) and name not in value:
            value = value["init_args"]
        if not isinstance(value, Mapping):
            raise KeyError(key)
        value = value[name]
    if isinstance(value, Mapping):
        value = value["class_path"].rpartition(".")[2] if "class_path" in value else str(dict(value))
    return value if value is None or isinstance(value, str | int | float) else str(value)


class HParams(L.Callback):
    """Log a run's settings for TensorBoard's HParams tab, with the seed.

    Args:
        keys: dotted keys of the configuration, as ``model.optimizer.lr``; by default a few of the model and optimizer.
        metrics: what came out, by its tags among the scalars: the last value of each.
    """

    def __init__(self, keys: list[str] | None = None, metrics: Sequence[str] = METRICS) -> None:
        self.keys, self.metrics = keys, metrics
        self.settings: dict[str, str | float | None] = {}

    def read(self, config: Mapping[str, Any]) -> None:
        """Take the values from a run's complete configuration; refuse a key that it does not have."""
        for key in KEYS if self.keys is None else self.keys:
            try:
                self.settings[key] = setting(config, key)
            except KeyError:
                if self.keys is not None:
                    raise InputError(f"hparams.keys: the configuration has no {key!r}") from None
        self.settings["seed"] = config.get("seed_everything")

    @rank_zero_only
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for writer in tensorboards(trainer):
            log_hparams(writer, self.settings, self.metrics)
