"""What TensorBoard shows of a network's inside: where each head attends, and where the token embeddings lie."""

from collections import Counter
from typing import Any

import lightning as L
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from src.callbacks.heat_map import heat_map
from src.callbacks.tensorboard import tensorboards
from src.distributed import unsharded_model
from src.nn import CrossAttention, SelfAttention
from src.tasks import Task
from src.tasks.base import Batch

# the last name of an embedding's module -> the ids that are looked up in it, and the data's tokenizer of these
EMBEDDINGS = {
    "token_embedding": ("input_ids", "tokenizer"),
    "source_embedding": ("input_ids", "source_tokenizer"),
    "target_embedding": ("decoder_input_ids", "tokenizer"),
}


def token_labels(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    """Spell each token as a person reads it, on one line: a space within it is a dot."""
    texts = (tokenizer.decode([i], skip_special_tokens=False) for i in ids)
    return [text.replace(" ", "·").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r") for text in texts]


@torch.no_grad()
def attention_maps(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Compute the weights of every attention as a network reads one row: (heads, queries, keys) by module name.

    Computed anew from each layer's inputs, since the fast kernels do not return them.
    """
    inputs_of: dict[str, tuple[Any, ...]] = {}

    def keep(name: str) -> Any:
        return lambda _, arguments: inputs_of.__setitem__(name, arguments)

    layers = {n: m for n, m in model.named_modules() if isinstance(m, SelfAttention | CrossAttention)}
    hooks = [layer.register_forward_pre_hook(keep(name)) for name, layer in layers.items()]
    training = model.training
    try:
        with torch.compiler.set_stance("force_eager"):  # a compiled block would be compiled again, with the hooks in it
            model.eval()(**inputs)
    finally:
        for hook in hooks:
            hook.remove()
        model.train(training)
    # the last argument is the cache: none here
    return {name: layers[name].weights(*read[:-1])[0].float().cpu() for name, read in inputs_of.items()}


class AttentionMaps(L.Callback):
    """After each validation, a heat map of what each head of each layer attends to, to TensorBoard.

    For one row of the validation split, the same each time: the longest of its first batch with at most
    ``max_tokens`` tokens, or the beginning of the shortest.

    Args:
        max_tokens: how much of a row is shown.
    """

    def __init__(self, max_tokens: int = 20) -> None:
        self.max_tokens = max_tokens
        self._inputs: dict[str, Tensor] = {}

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int, *_: Any
    ) -> None:
        if batch_idx == 0 and trainer.is_global_zero and not self._inputs:
            assert isinstance(pl_module, Task)
            self._inputs = self._row(pl_module, batch)

    def _row(self, task: Task, batch: Batch) -> dict[str, Tensor]:
        inputs = {
            name: t for name, t in task.inputs(batch).items() if name not in ("attention_mask", "masked_positions")
        }
        real = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).sum(1)
        row = int(torch.where(real <= self.max_tokens, real, -real).argmax())
        lengths = dict.fromkeys(inputs, min(self.max_tokens, int(real[row])))
        if "decoder_input_ids" in inputs:
            lengths["decoder_input_ids"] = min(self.max_tokens, int((batch["labels"][row] != -100).sum()))
        return {name: tensor[row : row + 1, : lengths[name]].clone() for name, tensor in inputs.items()}

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Task)
        if trainer.sanity_checking:
            return
        model = unsharded_model(pl_module)  # by every rank
        writers = tensorboards(trainer) if trainer.is_global_zero else []
        if not writers or not self._inputs or model is None:
            return
        with trainer.precision_plugin.val_step_context():
            maps = attention_maps(model, self._inputs)
        source, target = self._labels(pl_module)
        for name, weights in maps.items():
            rows = target if "decoder" in name else source
            columns = source if "cross_attention" in name else rows
            for head, of_head in enumerate(weights.numpy()):
                image = heat_map(of_head, columns, rows)
                for writer in writers:
                    # TensorBoard sorts by name: behind the charts of training and validation
                    tag = f"val_maps_{name}/head_{head}"
                    writer.add_image(tag, image, trainer.global_step, dataformats="HWC")

    def _labels(self, task: Task) -> tuple[list[str], list[str]]:
        """Spell the tokens of the row, and those of its target where there is one."""
        tokenizer = task.data.tokenizer
        source_tokenizer = getattr(task.data, "source_tokenizer", tokenizer)
        source = token_labels(source_tokenizer, self._inputs["input_ids"][0].tolist())
        target = self._inputs.get("decoder_input_ids")
        return source, [] if target is None else token_labels(tokenizer, target[0].tolist())


class TokenEmbeddings(L.Callback):
    """At the end of training, the embeddings of the most frequent tokens, for TensorBoard's projector.

    Each with its token and its count. Tokens are counted in the first batches of the validation split, once, so that
    training does nothing more.

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
        model = unsharded_model(pl_module)  # by every rank
        if model is None:
            return
        for writer in tensorboards(trainer) if trainer.is_global_zero else []:
            for name, module in model.named_modules():
                ids, tokenizer = EMBEDDINGS.get(name.rpartition(".")[2], ("", ""))
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
