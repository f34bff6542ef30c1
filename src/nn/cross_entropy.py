"""Cross-entropy straight from what the output layer sees, a few rows of logits at a time.

Shape letters: N positions, C = d_model, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

IGNORED = -100  # a label that is no target, as in `torch.nn.functional.cross_entropy`
LOGITS = {"cpu": 1 << 21}  # at once, by device: 8 MiB, what a processor's cache holds
LOGITS_ELSEWHERE = 1 << 26  # 256 MiB, which keep a GPU at work
FEWEST_ROWS = 256  # fewer make bad matrix products


def summed_cross_entropy(hidden: Tensor, weight: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """``cross_entropy(hidden @ weight.T, labels, reduction="sum")``, whose logits are never there all at once.

    The softmax of a few rows gives both their loss and its gradient, which is computed with them: the same products in
    all, none of them twice, and no float copy of all logits. Under autocast the products are of its type, and all else
    is float32.

    Args:
        hidden: (..., C).
        weight: (V, C) of an output layer without a bias.
        labels: (...), -100 where there is no target.
        label_smoothing: share of each target's probability that is spread over the vocabulary.

    Returns:
        Nats, 0-dim.
    """
    hidden, labels = hidden.flatten(0, -2), labels.flatten()
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        hidden = hidden.to(torch.get_autocast_dtype(device))
    if device == "cpu":  # to count them elsewhere would wait for the device
        targets = labels != IGNORED
        if not bool(targets.all()):
            hidden, labels = hidden[targets], labels[targets]
    return _SummedCrossEntropy.apply(hidden, weight, labels, label_smoothing)


class _SummedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
        exact = torch.promote_types(hidden.dtype, torch.float32)
        needs = ctx.needs_input_grad[:2]
        used, ctx.dtype = weight.to(hidden.dtype), weight.dtype
        loss = torch.zeros((), dtype=exact, device=hidden.device)
        ctx.for_hidden = torch.empty_like(hidden) if any(needs) else None
        ctx.for_weight = torch.zeros(weight.shape, dtype=exact, device=weight.device) if any(needs) else None
        rows = max(FEWEST_ROWS, LOGITS.get(hidden.device.type, LOGITS_ELSEWHERE) // len(weight))
        for start in range(0, len(labels), rows):
            some = slice(start, start + rows)
            logits = (hidden[some] @ used.T).to(exact)
            found, gradient = _rows(logits, labels[some], label_smoothing)
            loss += found
            if any(needs):
                gradient = gradient.to(hidden.dtype)
                torch.mm(gradient, used, out=ctx.for_hidden[some])
                ctx.for_weight += gradient.T @ hidden[some]
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        needs = ctx.needs_input_grad
        hidden = (ctx.for_hidden * scale).to(ctx.for_hidden.dtype) if needs[0] else None
        weight = (ctx.for_weight * scale).to(ctx.dtype) if needs[1] else None
        return hidden, weight, None, None


def _rows(logits: Tensor, labels: Tensor, label_smoothing: float) -> tuple[Tensor, Tensor]:
    """The summed loss of some rows, and its gradient to their logits."""
    target = labels.clamp(min=0)[:, None]
    log_probabilities = logits.log_softmax(1)
    losses = (label_smoothing - 1) * log_probabilities.gather(1, target)
    if label_smoothing:
        losses -= label_smoothing * log_probabilities.mean(1, keepdim=True)
    gradient = log_probabilities.exp_()
    if label_smoothing:
        gradient -= label_smoothing / logits.shape[1]
    gradient.scatter_add_(1, target, losses.new_full(target.shape, label_smoothing - 1))
    if labels.device.type != "cpu":  # there, what is ignored has been left out
        counted = (labels != IGNORED)[:, None]
        losses, gradient = losses * counted, gradient.mul_(counted)
    return losses.sum(), gradient
