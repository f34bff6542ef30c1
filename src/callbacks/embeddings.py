"""The token embeddings, to walk around in with TensorBoard's projector."""

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from src.callbacks.recording import tensorboards, token_labels
from src.distributed import whole_model
from src.nn import LearnedPositions
from src.tasks import Task
from src.tasks.base import Batch


class TokenEmbeddings(L.Callback):
    """At the end of training, the embeddings of the most frequent tokens with these tokens and their counts.

    Tokens are counted in the first batches of a validation, so that training does nothing more than before.

    Args:
        n_tokens: how many tokens.
        counted_batches: batches of the validation split in which they are counted.
    """

    def __init__(self, n_tokens: int = 1000, counted_batches: int = 100) -> None:
        self.n_tokens, self.counted_batches = n_tokens, counted_batches
        self._counts: dict[str, Tensor] = {}
        self._counted = 0

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int, *_: Any
    ) -> None:
        if not trainer.is_global_zero or batch_idx < self._counted or batch_idx >= self.counted_batches:
            return
        assert isinstance(pl_module, Task)
        self._counted = batch_idx + 1
        for name in {"input_ids", "decoder_input_ids"} & batch.keys():
            counts = torch.bincount(batch[name].flatten().cpu())
            before = self._counts.get(name, counts.new_zeros(0))
            size = max(len(before), len(counts))
            self._counts[name] = sum(nn.functional.pad(c, (0, size - len(c))) for c in (before, counts))  # type: ignore[assignment]

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Task)
        model = whole_model(pl_module)  # on every rank; what follows is for the first alone
        for writer in tensorboards(trainer) if trainer.is_global_zero else []:
            for name, module in model.named_modules():
                if isinstance(module, nn.Embedding) and not isinstance(module, LearnedPositions):
                    self._write(writer, name, module.weight, pl_module, trainer.global_step)

    def _write(self, writer: Any, name: str, weight: Tensor, task: Task, step: int) -> None:
        ids = "decoder_input_ids" if name == "target_embedding" else "input_ids"
        if ids not in self._counts or "segment" in name:
            return
        tokenizer = task.data.source_tokenizer if name == "source_embedding" else task.data.tokenizer  # type: ignore[attr-defined]
        counts = self._counts[ids]
        chosen = counts.argsort(descending=True, stable=True)[: self.n_tokens]
        chosen = chosen[counts[chosen] > 0]
        rows = zip(token_labels(tokenizer, chosen.tolist()), counts[chosen].tolist(), strict=True)
        writer.add_embedding(
            weight.detach().float().cpu()[chosen],
            metadata=[[label or "·", str(count)] for label, count in rows],
            metadata_header=["token", "count"],
            tag=name,
            global_step=step,
        )
