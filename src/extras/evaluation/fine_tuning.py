"""Fine-tuning an encoder on labelled texts, as BERT's paper does for GLUE (Devlin et al. 2019, 4.1 and A.3)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss
from torch.nn.utils import clip_grad_norm_

from src.classifier import Row
from src.data.progress import with_progress
from src.hardware import native_precision
from src.models import BERTClassifier
from src.optim import Linear, parameter_groups
from src.tokenization import pad_pairs


@dataclass(frozen=True)
class Recipe:
    """How a network is fine-tuned: the paper's epochs and batch; warm-up, decay and clipping are its code's.

    Args:
        lr: peak learning rate of AdamW.
        seed: of the classifier's first weights, of the order of the rows and of dropout.
        epochs: over the training rows.
        batch_size: rows a step.
        warmup: fraction of the steps in which the learning rate rises; then it falls to 0, both along lines.
        weight_decay: of the matrices.
        clip: the largest global norm of a gradient.
    """

    lr: float
    seed: int
    epochs: int = 3
    batch_size: int = 32
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0


def fine_tune(
    model: BERTClassifier, rows: Sequence[Row], labels: NDArray[np.float64], pad_id: int, recipe: Recipe
) -> None:
    """Train a network on labelled rows, where it is: by cross-entropy; with one label, a score, by the squared error.

    Args:
        model: its encoder is pretrained.
        rows: of :func:`src.tokenization.bert_row`.
        labels: (rows,), classes or scores.
        pad_id: of the padding.
        recipe: how.
    """
    device = model.classifier.weight.device
    order = np.random.default_rng(recipe.seed)
    batches = [
        shuffled[start : start + recipe.batch_size]
        for shuffled in (order.permutation(len(rows)) for _ in range(recipe.epochs))
        for start in range(0, len(rows), recipe.batch_size)
    ]
    schedule = Linear(warmup_steps=int(recipe.warmup * len(batches)))
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=recipe.lr, weight_decay=recipe.weight_decay)
    is_bf16 = device.type == "cuda" and native_precision("cuda") == "bf16-mixed"
    model.train()
    for step, batch in enumerate(with_progress(batches, "fine-tune")):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * schedule.factor(step, len(batches))
        expected = torch.from_numpy(labels[batch]).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=is_bf16):
            logits = model(**_tensors([rows[i] for i in batch], pad_id, model)).float()
        if logits.shape[1] == 1:
            loss = mse_loss(logits[:, 0], expected.float())
        else:
            loss = cross_entropy(logits, expected.long())
        loss.backward()
        clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


@torch.inference_mode()
def predict(model: BERTClassifier, rows: Sequence[Row], pad_id: int, batch_size: int = 64) -> NDArray[np.float64]:
    """Predict the class of each row or, with one label, its score: (rows,)."""
    found = np.empty(len(rows))
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i][0]))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        logits = model(**_tensors([rows[i] for i in batch], pad_id, model))
        found[batch] = (logits[:, 0] if logits.shape[1] == 1 else logits.argmax(-1)).double().cpu().numpy()
    return found


def _tensors(rows: Sequence[Row], pad_id: int, model: BERTClassifier) -> dict[str, Tensor]:
    """Make a batch."""
    arrays = pad_pairs(rows, pad_id, model.config.max_seq_len)
    return {name: torch.from_numpy(array).to(model.classifier.weight.device) for name, array in arrays.items()}
