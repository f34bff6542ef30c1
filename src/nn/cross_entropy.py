"""The output layer over a vocabulary, and its cross-entropy a few rows of logits at a time.

Shape letters: N positions, C = d_model, V vocabulary.
"""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

IGNORED = -100  # a label that is no target, as in `torch.nn.functional.cross_entropy`
LOGITS = {"cpu": 1 << 21}  # at once, by device: 8 MiB, what a CPU's cache holds
LOGITS_ELSEWHERE = 1 << 26  # 256 MiB, which keep a GPU at work
FEWEST_ROWS = 256  # fewer make bad matrix products
ALIGNMENT = {"cpu": 1}  # the vocabulary's in matrix products, by device
ALIGNMENT_ELSEWHERE = 64  # with an odd number of columns, as GPT-2's 50,257, tensor cores have no fast kernel


class Head(nn.Linear):
    """The output layer: vectors (..., C) to logits (..., V), or, given labels, to their summed loss.

    Called as a module either way, so that FSDP and ZeRO gather its weight for the loss as they do for the logits, and
    tensor parallelism cuts both by the vocabulary.
    """

    def __init__(
        self, d_model: int, vocab_size: int, bias: bool = True, softcap: float | None = None, scale: float = 1.0
    ) -> None:
        super().__init__(d_model, vocab_size, bias)
        self.softcap = softcap  # each logit is ``c · tanh(logit / c)``
        self.scale = scale  # of the vectors, before they are multiplied

    def forward(self, x: Tensor, labels: Tensor | None = None, label_smoothing: float = 0.0) -> Tensor:
        """Return logits, or the cross-entropy in nats, summed over the labels (...) that are not -100."""
        if self.scale != 1:
            x = x * self.scale
        if labels is not None:
            return summed_cross_entropy(x, self.weight, labels, label_smoothing, self.bias, self.softcap)
        logits = super().forward(x)
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


class Shard(NamedTuple):
    """The rows of a weight that this rank holds, where the vocabulary is cut over several."""

    first: int
    vocabulary: int  # of all ranks together
    group: Any


def summed_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    label_smoothing: float = 0.0,
    bias: Tensor | None = None,
    softcap: float | None = None,
) -> Tensor:
    """``cross_entropy(hidden @ weight.T + bias, labels, reduction="sum")``, without ever holding all logits.

    The softmax of a few rows gives both their loss and its gradient, which is computed with them: the same products in
    all, none of them twice, and no float copy of all logits. Under autocast the products are of its type, and all else
    is float32.

    With tensor parallelism the weight is a DTensor cut by the vocabulary. Each rank then has the logits of its own
    tokens, and the ranks exchange one number a row, its normaliser (Shoeybi et al. 2019, section 3): gathering the
    logits would send V numbers a row, and gathering the weight would take its memory on every rank.

    Args:
        hidden: (..., C).
        weight: (V, C) of the output layer.
        labels: (...), -100 where there is no target.
        label_smoothing: fraction of each target's probability that is spread over the vocabulary.
        bias: (V,).
        softcap: see :class:`Head`.

    Returns:
        Nats, 0-dim.
    """
    if hasattr(weight, "device_mesh"):
        return _of_shards(hidden, weight, labels, label_smoothing, bias, softcap)
    return _summed(hidden, weight, labels, label_smoothing, bias, softcap, Shard(0, len(weight), None))


def _of_shards(
    hidden: Any, weight: Any, labels: Tensor, label_smoothing: float, bias: Any, softcap: float | None
) -> Tensor:
    from torch.distributed.tensor import DTensor, Partial, Replicate

    mesh, vocabulary = weight.device_mesh, len(weight)
    first = mesh.get_local_rank() * -(-vocabulary // mesh.size())
    loss = _summed(
        hidden.to_local(grad_placements=[Partial()]),  # each rank has the part of the gradient that its tokens give
        weight.to_local(),
        labels,
        label_smoothing,
        None if bias is None else bias.to_local(),
        softcap,
        Shard(first, vocabulary, mesh.get_group()),
    )
    return DTensor.from_local(loss, mesh, [Replicate()], run_check=False)


def _summed(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    label_smoothing: float,
    bias: Tensor | None,
    softcap: float | None,
    shard: Shard,
) -> Tensor:
    hidden, labels = hidden.flatten(0, -2), labels.flatten()
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        hidden = hidden.to(torch.get_autocast_dtype(device))
    if device == "cpu":  # to count them elsewhere would wait for the device
        targets = labels != IGNORED
        if not bool(targets.all()):
            hidden, labels = hidden[targets], labels[targets]
    return _SummedCrossEntropy.apply(hidden, weight, bias, labels, label_smoothing, softcap, shard)


class _SummedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        label_smoothing: float,
        softcap: float | None,
        shard: Shard,
    ) -> Tensor:
        exact = torch.promote_types(hidden.dtype, torch.float32)
        needs = ctx.needs_input_grad[:3]
        used, ctx.dtype, vocabulary = weight.to(hidden.dtype), weight.dtype, len(weight)
        if extra := -vocabulary % ALIGNMENT.get(hidden.device.type, ALIGNMENT_ELSEWHERE):
            used = functional.pad(used, (0, 0, 0, extra))
        added = None if bias is None else functional.pad(bias.to(hidden.dtype), (0, len(used) - vocabulary))
        loss = torch.zeros((), dtype=exact, device=hidden.device)
        ctx.for_hidden = torch.empty_like(hidden) if any(needs) else None
        ctx.for_weight = torch.zeros(weight.shape, dtype=exact, device=weight.device) if any(needs) else None
        ctx.for_bias = torch.zeros(bias.shape, dtype=exact, device=bias.device) if bias is not None else None
        rows = max(FEWEST_ROWS, LOGITS.get(hidden.device.type, LOGITS_ELSEWHERE) // shard.vocabulary)
        for start in range(0, len(labels), rows):
            some = slice(start, start + rows)
            logits = functional.linear(hidden[some], used, added)[:, :vocabulary]
            if softcap is not None:
                logits = softcap * torch.tanh(logits.to(exact) / softcap)
            found, gradient = _rows(logits, labels[some], label_smoothing, shard)
            loss += found
            if softcap is not None:
                gradient *= 1 - (logits / softcap).square()
            if any(needs):
                gradient = _aligned(gradient, len(used), hidden.dtype)
                if ctx.for_bias is not None:
                    ctx.for_bias += gradient[:, :vocabulary].sum(0)
                torch.mm(gradient, used, out=ctx.for_hidden[some])
                ctx.for_weight += (gradient.T @ hidden[some])[:vocabulary]
        if shard.group is not None:
            dist.all_reduce(loss, group=shard.group)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        needs = ctx.needs_input_grad
        hidden = (ctx.for_hidden * scale).to(ctx.for_hidden.dtype) if needs[0] else None
        weight = (ctx.for_weight * scale).to(ctx.dtype) if needs[1] else None
        bias = (ctx.for_bias * scale).to(ctx.dtype) if needs[2] else None
        return hidden, weight, bias, None, None, None, None


def _aligned(gradient: Tensor, columns: int, dtype: torch.dtype) -> Tensor:
    """Cast a gradient, (rows, V), with zeros in the columns behind the vocabulary."""
    if columns == gradient.shape[1]:
        return gradient.to(dtype)
    aligned = gradient.new_zeros((len(gradient), columns), dtype=dtype)
    aligned[:, : gradient.shape[1]] = gradient
    return aligned


def _rows(logits: Tensor, labels: Tensor, label_smoothing: float, shard: Shard) -> tuple[Tensor, Tensor]:
    """The part of the summed loss of some rows that the tokens of a shard make up, and its gradient to their logits."""
    target = labels[:, None] - shard.first
    log_probabilities = logits.log_softmax(1, dtype=torch.promote_types(logits.dtype, torch.float32))
    if shard.group is not None:
        log_probabilities += _excess(logits[:, 0] - log_probabilities[:, 0], shard.group)[:, None]
    here = (target >= 0) & (target < logits.shape[1])  # else another rank has the target, or there is none
    target = target.clamp(0, logits.shape[1] - 1)
    weight = here.to(log_probabilities.dtype) * (label_smoothing - 1)
    losses = weight * log_probabilities.gather(1, target)
    if label_smoothing:
        losses -= label_smoothing / shard.vocabulary * log_probabilities.sum(1, keepdim=True)
    gradient = log_probabilities.exp_()
    if label_smoothing:
        gradient -= label_smoothing / shard.vocabulary
    gradient.scatter_add_(1, target, weight)
    if labels.device.type != "cpu":  # there, what is ignored has been left out
        counted = (labels != IGNORED)[:, None]
        losses, gradient = losses * counted, gradient.mul_(counted)
    return losses.sum(), gradient


def _excess(normaliser: Tensor, group: Any) -> Tensor:
    """How much the normaliser of each row over one rank's tokens, (N,), differs from that over all ranks'."""
    everyones = [torch.empty_like(normaliser) for _ in range(dist.get_world_size(group))]
    dist.all_gather(everyones, normaliser.contiguous(), group=group)
    return normaliser - torch.stack(everyones).logsumexp(0)
