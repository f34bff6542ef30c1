"""Where each head of each layer looks."""

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from src.callbacks.pictures import heat_map
from src.callbacks.recording import tensorboards, token_labels
from src.distributed import unsharded_model
from src.nn import CrossAttention, SelfAttention
from src.tasks import Task
from src.tasks.base import Batch


@torch.no_grad()
def attention_maps(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """What every attention of a network weighs while it reads one row: (heads, queries, keys) by module name.

    Computed anew from each layer's inputs, since the fast kernels do not give the weights out.
    """
    seen: dict[str, tuple[Any, ...]] = {}

    def keep(name: str) -> Any:
        return lambda _, arguments: seen.__setitem__(name, arguments)

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
    return {name: layers[name].weights(*seen[name][:-1])[0].float().cpu() for name in layers}


class AttentionMaps(L.Callback):
    """After each validation, a picture of what each head of each layer attends to, to TensorBoard.

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
        fits = real <= self.max_tokens
        row = int(torch.where(fits, real, -real).argmax())
        lengths = dict.fromkeys(inputs, min(self.max_tokens, int(real[row])))
        if "decoder_input_ids" in inputs:
            lengths["decoder_input_ids"] = min(self.max_tokens, int((batch["labels"][row] != -100).sum()))
        return {name: tensor[row : row + 1, : lengths[name]].clone() for name, tensor in inputs.items()}

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Task)
        if trainer.sanity_checking:
            return
        model = unsharded_model(pl_module)  # on every rank; what follows is for the first alone
        writers = tensorboards(trainer) if trainer.is_global_zero else []
        if writers and self._inputs:
            with trainer.precision_plugin.val_step_context():
                maps = attention_maps(model, self._inputs)
            source, target = self._labels(pl_module)
            for name, weights in maps.items():
                rows = target if "decoder" in name else source
                columns = source if "cross_attention" in name else rows
                for head, of_head in enumerate(weights.numpy()):
                    picture = heat_map(of_head, columns, rows)
                    for writer in writers:
                        writer.add_image(f"{name}/head_{head}", picture, trainer.global_step, dataformats="HWC")

    def _labels(self, task: Task) -> tuple[list[str], list[str]]:
        """The tokens of the row, and those of its target where there is one."""
        target = self._inputs.get("decoder_input_ids")
        tokenizers = task.data.tokenizer, getattr(task.data, "source_tokenizer", task.data.tokenizer)
        source = token_labels(tokenizers[1], self._inputs["input_ids"][0].tolist())
        return source, [] if target is None else token_labels(tokenizers[0], target[0].tolist())
