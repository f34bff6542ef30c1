"""Where a number that is not finite comes from."""

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from src.tasks import Task


def first_fault(task: Task) -> str | None:
    """What is not finite first, in the order of computing: a weight, the output of a module, or a gradient.

    The batches of the step are computed once more for it, without dropout's luck of the first time: a fault of one draw
    alone is then found by its gradients, which are as they were.
    """
    for name, parameter in task.model.named_parameters():
        if not _is_finite(parameter):
            return f"the weights of {name} are not finite"
    if task.pipeline is None:
        module = _first_module(task)
        if module is not None:
            return f"the first module whose output is not finite is {module}"
    bad = [name for name, parameter in task.model.named_parameters() if not _is_finite(parameter.grad)]
    # a backward pass goes from the last module to the first, and spoils all that it comes to afterwards
    return f"the outputs are finite: the first gradient that is not is that of {bad[-1]}" if bad else None


def _first_module(task: Task) -> str | None:
    names = {module: name for name, module in task.model.named_modules() if name}
    found: list[str] = []

    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        if not found and not all(_is_finite(leaf) for leaf in tree_leaves(output)):
            found.append(f"{names[module]} ({type(module).__name__})")

    hooks = [module.register_forward_hook(look) for module in names]
    devices = [task.device] if task.device.type == "cuda" else []
    try:
        with torch.no_grad(), torch.random.fork_rng(devices), task.trainer.precision_plugin.forward_context():
            for _, batch, _ in task.batches:
                loss = torch.stack(list(task.losses(batch).values()))
                if not found and not _is_finite(loss):
                    found.append("the loss itself, out of finite outputs")
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def _is_finite(tensor: Any) -> bool:
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        return True
    local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return bool(local.detach().isfinite().all())


def place_of(trainer: L.Trainer, task: Task) -> str:
    """Which batches the step at hand is of, for people: their numbers in the epoch, and their rows."""
    numbers = [number for number, _, _ in task.batches]
    text = f"epoch {trainer.current_epoch}, batch {', '.join(map(str, numbers))}"
    sampler = getattr(trainer.train_dataloader, "sampler", None)
    if not hasattr(sampler, "batches"):
        return text
    batches = sampler.batches(sampler.data_epoch)  # type: ignore[union-attr]
    rows = [int(row) for number in numbers for row in batches[number] if row >= 0]
    shown = ", ".join(map(str, rows[:16])) + (", ..." if len(rows) > 16 else "")
    return f"{text} (rows {shown} of the training split{' on rank 0' if trainer.world_size > 1 else ''})"
