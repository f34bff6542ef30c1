"""What `predict` leaves: the predictions of the test split."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import BasePredictionWriter


class Predictions(BasePredictionWriter):
    """Write what ``predict_step`` returned for each batch, in order, to ``predictions_RANK.pt`` in the run's folder."""

    def __init__(self) -> None:
        super().__init__(write_interval="epoch")

    def write_on_epoch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, predictions: Any, batch_indices: Any
    ) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        run = Path(trainer.strategy.broadcast(trainer.default_root_dir))
        path = run / f"predictions_{trainer.global_rank}.pt"
        torch.save(predictions, path)
        print(f"predictions of {len(predictions)} batches: {path}")
