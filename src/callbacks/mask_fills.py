"""Which words a BERT puts behind its masks while it learns."""

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from src.callbacks.recording import check_writes, record_samples
from src.distributed import unsharded_model
from src.tasks import Task
from src.tasks.base import Batch


class MaskFills(L.Callback):
    """After each validation, some masked rows with the likeliest words, to the run's folder and TensorBoard.

    Args:
        examples: how many rows, the first of the validation split.
        top_k: words for each mask.
    """

    def __init__(self, examples: int = 3, top_k: int = 3) -> None:
        self.examples, self.top_k = examples, top_k
        self._rows: dict[str, Tensor] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        assert isinstance(pl_module, Task)
        check_writes(self, pl_module, "fill-mask")

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int, *_: Any
    ) -> None:
        if batch_idx == 0 and trainer.is_global_zero and not self._rows:
            names = ("input_ids", "token_type_ids", "attention_mask", "labels")
            self._rows = {name: batch[name][: self.examples].clone() for name in names}

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Task)
        model = unsharded_model(pl_module)  # on every rank; what follows is for the first alone
        if trainer.is_global_zero and self._rows:
            with trainer.precision_plugin.val_step_context():
                record_samples(trainer, self._texts(pl_module, model))

    @torch.no_grad()
    def _texts(self, task: Task, model: nn.Module) -> list[str]:
        """Each row as text, and below it a line a mask: the word that was there, and the guesses."""
        training = model.training
        rows = {name: tensor for name, tensor in self._rows.items() if name != "labels"}
        logits = model.eval()(**rows).masked_words
        model.train(training)
        guesses = logits.float().softmax(-1).topk(min(self.top_k, logits.shape[-1]))
        word, texts = task.data.tokenizer.id_to_token, []
        for row, labels in enumerate(self._rows["labels"]):
            real = self._rows["input_ids"][row][self._rows["attention_mask"][row].bool()]
            lines = [task.data.tokenizer.decode(real.tolist(), skip_special_tokens=False)]
            for place in (labels != -100).nonzero()[:, 0].tolist():
                pairs = zip(guesses.indices[row, place].tolist(), guesses.values[row, place].tolist(), strict=True)
                found = ", ".join(f"{word(i)!r} {share:.0%}" for i, share in pairs)
                read = word(int(self._rows["input_ids"][row, place]))
                lines.append(f"  {read!r} at {place} was {word(int(labels[place]))!r}: {found}")
            texts.append("\n".join(lines))
        return texts
