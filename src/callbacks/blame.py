"""Find where a number that is not finite comes from, and the cause of a loss spike."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import Any, NamedTuple

import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.utils._pytree import tree_leaves

from src.data.batch_samplers import ResumableBatchSampler
from src.data.loader import target_counts
from src.distributed import gather_objects
from src.tasks import Task
from src.tasks.base import Batch

Batches = Sequence[tuple[int, Batch, Tensor]]  # of one optimizer step: index, batch and loss, as `Task.batches`


class Fault(NamedTuple):
    """Something that is not finite."""

    order: int  # of computation: the smallest is the first
    what: str  # for people
    location: str  # the batch and rows of the process that found it


def first_fault(task: Task) -> Fault | None:
    """Find what is not finite first, in the order of computation: a weight, the output of a module, or a gradient.

    The batches of the step are computed once more for it, with other random draws in dropout: a fault of one draw
    alone is then found by its gradients, which are kept.

    Each process has its own rows and its own shards, so that what one of them finds the others may not. All must call
    this, and they agree after each search: the next one may be a forward pass, for which they need each other.
    """
    for search in (
        lambda: _first_parameter(task, of_gradients=False),
        lambda: _first_output(task),
        lambda: _first_parameter(task, of_gradients=True),
    ):
        found = gather_objects(search())
        if first := min((fault for fault in found if fault), key=lambda fault: fault.order, default=None):
            return first
    return None


def _first_parameter(task: Task, of_gradients: bool) -> Fault | None:
    parameters = task.model.named_parameters()
    bad = [name for name, parameter in parameters if not _is_finite(parameter.grad if of_gradients else parameter)]
    if not bad:
        return None
    names = [name for name, _ in task.meta_model().named_parameters(remove_duplicate=False)]
    if of_gradients:  # a backward pass goes from the last module to the first, and spoils all gradients from there on
        order = max(map(names.index, bad))
        what = f"the outputs are finite: the first gradient that is not is that of {names[order]}"
        return Fault(-order, what, location(task))
    order = min(map(names.index, bad))
    return Fault(order, f"the weights of {names[order]} are not finite", location(task))


def _first_output(task: Task) -> Fault | None:
    if task.pipeline is not None:  # where no process has all modules
        return None
    names = {module: name for name, module in task.model.named_modules() if name}
    found: list[Fault] = []
    calls = 0

    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal calls
        calls += 1
        if not all(_is_finite(leaf) for leaf in tree_leaves(output)):
            what = f"the first module whose output is not finite is {names[module]} ({type(module).__name__})"
            found.append(Fault(calls, what, location(task)))

    hooks = [module.register_forward_hook(look) for module in names]
    try:
        with _aside(task):
            for _, batch, _ in task.batches:
                if not _is_finite(_loss(task, batch)) and not found:
                    what = "the first module whose output is not finite is the loss itself, out of finite outputs"
                    found.append(Fault(calls, what, location(task)))
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def _loss(task: Task, batch: Batch) -> Tensor:
    return torch.stack(list(task.losses(batch, target_counts(batch)).values())).sum()


@contextmanager
def _aside(task: Task) -> Iterator[None]:
    """Compute without side effects: gradients, random states and shards stay as they are."""
    devices = [task.device] if task.device.type == "cuda" else []
    try:
        with torch.no_grad(), torch.random.fork_rng(devices), task.trainer.precision_plugin.forward_context():
            yield
    finally:
        for module in task.model.modules():
            if isinstance(module, FSDPModule):  # else its parameters are the gathered ones, without the gradients
                module.reshard()


def _is_finite(tensor: Any) -> bool:
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        return True
    local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return bool(local.detach().isfinite().all())


def location(task: Task) -> str:
    """Say which batches the optimizer step at hand has: their numbers in the epoch, and their rows."""
    trainer, numbers = task.trainer, [number for number, _, _ in task.batches]
    text = f"epoch {trainer.current_epoch}, batch {', '.join(map(str, numbers))}"
    sampler = getattr(trainer.train_dataloader, "sampler", None)
    if not isinstance(sampler, ResumableBatchSampler):
        return text
    batches = (sampler.batch(sampler.data_epoch, number + sampler.first) for number in numbers)
    rows = [int(row) for batch in batches for row in batch if row >= 0]
    shown = ", ".join(map(str, rows[:16])) + (", ..." if len(rows) > 16 else "")
    rank = f" on rank {trainer.global_rank}" if trainer.world_size > 1 else ""
    return f"{text} (rows {shown} of the training split{rank})"


def cause_of_spike(task: Task, before: Sequence[Batches], limit: float, margin: float) -> str:
    """Say whether the rows of the step or the weights make its loss high; name the rows in the first case.

    Both are evaluated on the current weights, without dropout: the rows of the step, and those of earlier steps whose
    losses were usual. Where these are high as well, the weights have changed, and the rows are like any others.

    All processes must call it. It takes as many forward passes as these steps have batches.

    Args:
        task: before the optimizer makes the step.
        before: the batches of those steps.
        limit: the loss above which a step is a spike.
        margin: how far that is above the mean.
    """
    if type(task.trainer.strategy) not in (SingleDeviceStrategy, DDPStrategy):
        return "its cause is looked for on one device and under DDP alone"
    if not before:
        return "there are no rows of steps before it to compare with"
    own, *others = _losses_without_dropout(task, [task.batches, *before])
    found = gather_objects((own, others, location(task)))
    own = fmean(one for one, _, _ in found)
    worst = max(map(fmean, zip(*(many for _, many, _ in found), strict=True)))
    losses = f"without dropout these have {own:.4f}, and the rows of the {len(before)} steps before at most {worst:.4f}"
    if worst > limit:
        return f"the weights are the cause, not the rows of the step: {losses}"
    if own > worst + margin:
        where = max(found, key=lambda one: one[0])[2]
        return f"the weights are not the cause, but the rows of the step: {losses}; {where}"
    return f"neither the weights are the cause, nor the rows of the step: {losses}"


def _losses_without_dropout(task: Task, steps: Sequence[Batches]) -> list[float]:
    """Compute the loss of each of some steps in this process, on the current weights."""
    training = [module for module in task.model.modules() if module.training]
    task.model.eval()
    try:
        with _aside(task):
            losses = [[_loss(task, batch) for _, batch, _ in batches] for batches in steps]
    finally:
        for module in training:
            module.training = True
    return [float(torch.stack(parts).mean()) for parts in losses]
