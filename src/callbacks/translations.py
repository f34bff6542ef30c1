"""What a translation model writes while it learns, and where it looks."""

from pathlib import Path
from typing import cast

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from src.data import TranslationDataModule
from src.distributed import whole_model
from src.models import Transformer
from src.nn import Block
from src.tasks import TransformerModule

CELL = 18  # pixels of a token


class TranslationSamples(L.Callback):
    """After each validation, some of its translations and one map of attention.

    The translations go to ``samples/step_N.txt`` in the run and to TensorBoard as text; to TensorBoard as an image goes
    what each token of the first one's reference attends to in its source, in the last block, averaged over heads.

    Args:
        examples: how many sentences, spread evenly over the split.
    """

    def __init__(self, examples: int = 5) -> None:
        self.examples = examples

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, TransformerModule)
        if trainer.fast_dev_run or trainer.sanity_checking or not pl_module.examples:  # type: ignore[attr-defined]
            return
        model = whole_model(pl_module)  # on every rank; what follows is for the first alone
        if trainer.is_global_zero:
            self._write(trainer, pl_module, model)

    def _write(self, trainer: L.Trainer, pl_module: TransformerModule, model: nn.Module) -> None:
        assert isinstance(model, Transformer)
        step, found = trainer.global_step, pl_module.examples
        chosen = [found[i * len(found) // self.examples] for i in range(min(self.examples, len(found)))]
        lines = ["\n".join(f"{name}: {text}" for name, text in example._asdict().items()) for example in chosen]
        path = Path(trainer.default_root_dir) / "samples" / f"step_{step:06d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                for i, text in enumerate(lines):
                    logger.experiment.add_text(f"samples/{i}", text.replace("\n", "  \n"), step)
                picture = attention_picture(model, pl_module.data, chosen[0].source, chosen[0].reference)
                logger.experiment.add_image("cross_attention", picture, step, dataformats="HWC")


@torch.no_grad()
def cross_attention(model: Transformer, source: list[int], target: list[int]) -> Tensor:
    """What the last block's cross-attention weighs, averaged over heads: (target, source), rows that sum to 1.

    Computed anew from the layer's inputs, since the fast kernels do not give it out.
    """
    layer = cast(Block, model.decoder[-1]).cross_attention
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[:2]))
    training = model.training
    try:
        ids, decoder_ids = (torch.tensor([side], device=model.head.weight.device) for side in (source, target))
        model.eval()(ids, decoder_ids)
    finally:
        hook.remove()
        model.train(training)
    x, memory = seen
    return layer.weights(x, memory).mean(1)[0].float().cpu()


def attention_picture(model: Transformer, data: TranslationDataModule, source: str, target: str) -> np.ndarray:
    """A map of cross-attention with its tokens beside it, (height, width, 3) as bytes; darker is more."""
    sides = ((data.source_tokenizer, source), (data.tokenizer, target))
    ids = [tokenizer.encode(f"{text}{data.end_token}").ids[: data.filter.max_length] for tokenizer, text in sides]
    weights = cross_attention(model, ids[0], [data.start_id, *ids[1][:-1]])
    columns, rows = (
        [tokenizer.decode([i], skip_special_tokens=False) for i in side]
        for (tokenizer, _), side in zip(sides, ids, strict=True)
    )
    return draw(weights.numpy(), columns, rows)


def draw(weights: np.ndarray, columns: list[str], rows: list[str]) -> np.ndarray:
    """A heat map with labels, (height, width, 3) as bytes."""
    font = ImageFont.load_default(CELL - 5)
    margin = 4 + max(int(font.getlength(label)) for label in [*columns, *rows])
    height, width = margin + CELL * len(rows), margin + CELL * len(columns)
    cells = np.kron(255 - (255 * weights).astype(np.uint8), np.ones((CELL, CELL), np.uint8))
    picture = Image.new("RGB", (width, height), "white")
    picture.paste(Image.fromarray(cells), (margin, margin))
    pen = ImageDraw.Draw(picture)
    for i, label in enumerate(rows):
        pen.text((2, margin + CELL * i), label, "black", font)
    upright = Image.new("RGB", (margin, CELL * len(columns)), "white")  # drawn lying and then turned
    for i, label in enumerate(columns):
        ImageDraw.Draw(upright).text((2, CELL * (len(columns) - 1 - i)), label, "black", font)
    picture.paste(upright.transpose(Image.Transpose.ROTATE_270).transpose(Image.Transpose.FLIP_LEFT_RIGHT), (margin, 0))
    return np.asarray(picture)
