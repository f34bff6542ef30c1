"""The token embeddings, to walk around in with TensorBoard's projector."""

from collections import Counter
from typing import Any

import lightning as L
import torch
from torch import nn

from src.callbacks.recording import tensorboards, token_labels
from src.distributed import unsharded_model
from src.tasks import Task
from src.tasks.base import Batch

# the last name of a table's module -> the ids that are looked up in it, and the data's tokenizer of these
TABLES = {
    "token_embedding": ("input_ids", "tokenizer"),
    "source_embedding": ("input_ids", "source_tokenizer"),
    "target_embedding": ("decoder_input_ids", "tokenizer"),
}


class TokenEmbeddings(L.Callback):
    """At the end of training, the embeddings of the most frequent tokens with these tokens and their counts.

    Tokens are counted in the first batches of the validation split, once, so that training does nothing more.

    Args:
        n_tokens: how many tokens.
        counted_batches: batches of the validation split in which they are counted.
    """

    def __init__(self, n_tokens: int = 1000, counted_batches: int = 100) -> None:
        self.n_tokens, self.counted_batches = n_tokens, counted_batches
        self._counts: dict[str, Counter[int]] = {"input_ids": Counter(), "decoder_input_ids": Counter()}
        self._counted = 0

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int, *_: Any
    ) -> None:
        if trainer.is_global_zero and self._counted <= batch_idx < self.counted_batches:
            self._counted = batch_idx + 1
            ids = batch["input_ids"]
            self._counts["input_ids"].update(ids[batch.get("attention_mask", torch.ones_like(ids)).bool()].tolist())
            if "decoder_input_ids" in batch:
                self._counts["decoder_input_ids"].update(batch["decoder_input_ids"][batch["labels"] != -100].tolist())

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Task)
        model = unsharded_model(pl_module)  # on every rank; what follows is for the first alone
        for writer in tensorboards(trainer) if trainer.is_global_zero else []:
            for name, module in model.named_modules():
                ids, tokenizer = TABLES.get(name.rpartition(".")[2], ("", ""))
                if isinstance(module, nn.Embedding) and ids and self._counts[ids]:
                    tokens, counts = zip(*self._counts[ids].most_common(self.n_tokens), strict=True)
                    labels = token_labels(getattr(pl_module.data, tokenizer), list(tokens))
                    writer.add_embedding(
                        module.weight.detach()[list(tokens)].float().cpu(),
                        metadata=[[label or "·", str(count)] for label, count in zip(labels, counts, strict=True)],
                        metadata_header=["token", "count"],
                        tag=name,
                        global_step=trainer.global_step,
                    )
