"""How the steps of a network are divided into pipeline stages, what each process keeps, and how gradients come back."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from math import inf
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.pipelining import PipelineStage

from src.models.network import Network, Step

Batch = dict[str, Tensor]
State = tuple[Tensor, ...]
IGNORED = -100  # the label of a row that only fills up a micro-batch


def steps_of(model: Network) -> list[Step]:
    """List a network's steps for what they are made of, on a row of one token."""
    token = torch.zeros(1, 1, dtype=torch.long)
    parameters = inspect.signature(model.steps).parameters.values()
    return model.steps(*(token for parameter in parameters if parameter.default is inspect.Parameter.empty))


def cost(step: Step) -> float:
    """Count the parameters that multiply a token. To look up an embedding costs nothing."""
    linear = [m for module in _held([step]) for m in module.modules() if isinstance(m, nn.Linear)]
    return step.fraction * sum(p.numel() for m in linear for p in m.parameters())


def n_parameters(step: Step) -> int:
    """Count the parameters that a process must hold for a step; a tied embedding counts wherever it is used."""
    return sum(p.numel() for p in {id(p): p for module in _held([step]) for p in module.parameters()}.values())


def partition(costs: Sequence[float], n: int, sizes: Sequence[float] = ()) -> list[range]:
    """Cut a row of steps into ``n`` runs, none empty, so that the most expensive run is as cheap as can be.

    Of the ways to do so, take one whose largest run, by ``sizes``, is as small as can be: else the embeddings, which
    cost nothing to look up, would be held with as many blocks as any stage has.
    """
    cost, held = (list(accumulate(row, initial=0)) for row in (costs, sizes or costs))
    most, _ = _least_most(len(costs), n, lambda i, j: cost[j] - cost[i])
    limit = most * (1 + 1e-9)  # sums of the same numbers in another order differ in their last digit
    _, cuts = _least_most(len(costs), n, lambda i, j: held[j] - held[i] if cost[j] - cost[i] <= limit else inf)
    return [range(start, end) for start, end in pairwise(cuts)]


def cut(model: Network, n: int) -> list[range]:
    """Choose the steps of each of ``n`` stages by what they cost, and by what a process must hold for them."""
    steps = steps_of(model)
    return partition([cost(step) for step in steps], n, [n_parameters(step) for step in steps])


def _least_most(length: int, n: int, weight: Callable[[int, int], float]) -> tuple[float, list[int]]:
    """Find where to cut a row into ``n`` runs so that the heaviest is as light as can be; gives its weight too."""
    # best[k][j]: the heaviest run, and where the last one starts, of the first j steps in k + 1 runs
    best = [[(weight(0, j), 0) for j in range(length + 1)]]
    for k in range(1, n):
        row = [(inf, 0)] * (length + 1)
        for j in range(k + 1, length + 1):
            row[j] = min((max(best[-1][i][0], weight(i, j)), i) for i in range(k, j))
        best.append(row)
    cuts = [length]
    for row in reversed(best):
        cuts.append(row[cuts[-1]][1])
    return best[-1][length][0], cuts[::-1]


def split(batch: Batch, n: int) -> list[Batch]:
    """Cut a batch into ``n`` equal parts by rows, filled up with rows that have no labels."""
    rows = len(batch["input_ids"])
    size = -(-rows // n)
    missing = size * n - rows
    parts: list[Batch] = [{} for _ in range(n)]
    for name, tensor in batch.items():
        if tensor.dim() and missing:
            more = tensor[-1:].expand(missing, *tensor.shape[1:])
            tensor = torch.cat([tensor, torch.full_like(more, IGNORED) if "label" in name else more])
        for i, part in enumerate(parts):
            part[name] = tensor[i * size : (i + 1) * size] if tensor.dim() else tensor
    return parts


def keep(model: Network, kept: Sequence[Step]) -> None:
    """Take out of a network the modules that some of its steps do not call, leaving all names as they are.

    A module whose parameters are all shared with one that stays, as a tied embedding, costs nothing and stays.
    """
    modules = _held(kept)
    parameters = {id(p) for module in modules for p in module.parameters()}
    names = list(model.named_modules(remove_duplicate=False))
    for module in _held(steps_of(model)):
        if module in modules or {id(p) for p in module.parameters()} <= parameters:
            continue
        for name in [name for name, other in names if other is module]:
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, nn.Identity())


def _held(steps: Sequence[Step]) -> list[nn.Module]:
    return [module for step in steps for module in step.modules if module is not None]


class Stage(nn.Module):
    """Consecutive steps, as a schedule calls them: with the number of a micro-batch, and the state before them.

    Args:
        run: given the number of the stage, that of the micro-batch, and the state.
        k: the number of the stage.
    """

    def __init__(self, run: Callable[[int, int, State], State | Tensor], k: int) -> None:
        super().__init__()
        self.run, self.k = run, k

    def forward(self, *state: Tensor, number: Tensor) -> State | Tensor:
        return self.run(self.k, int(number), () if self.k == 0 else state)


@contextmanager
def reduced_once(model: nn.Module, reshard: bool) -> Iterator[None]:
    """Let the gradients of micro-batches accumulate before FSDP reduces them: to the mean over its processes.

    Args:
        model: what this process holds of the network; nothing is done if it is not sharded.
        reshard: free the parameters that a backward pass has gathered; else they stay for the next micro-batch.
    """
    if not isinstance(model, FSDPModule):
        yield
        return
    model.set_requires_gradient_sync(False)
    model.set_is_last_backward(False)
    model.set_reshard_after_backward(reshard)
    yield
    # torch's own end of a stage that is an FSDP module; here several stages of a process may be parts of one
    PipelineStage.perform_reduce_grad(SimpleNamespace(submod=model), 1)  # type: ignore[arg-type]


class ScheduledLoss(torch.autograd.Function):
    """A loss whose backward pass hands out gradients that a schedule has computed already.

    A schedule runs the forward and backward passes of the micro-batches in turns, where Lightning does one step after
    the other. To Lightning this is a loss as any other, so that zeroing, accumulating and scaling stay its own.
    """

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: list[Tensor | None], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *scales: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(None if g is None else g * scales[0] for g in ctx.gradients)
