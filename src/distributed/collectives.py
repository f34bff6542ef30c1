"""What all processes of a run do together: gather objects, clip by one norm, and gather a sharded network."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import Strategy
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm


def gather_objects(mine: Any, group: Any = None) -> list[Any]:
    """Gather an object of each process of a group, by default of all, by rank; each of them must call this."""
    if not (dist.is_available() and dist.is_initialized()):
        return [mine]
    found = [None] * dist.get_world_size(group)
    dist.all_gather_object(found, mine, group=group)
    return found


def gather_to_first(mine: Any, group: Any) -> list[Any]:
    """Gather an object of each process of a group on its first one, by rank; the others get none."""
    found = [None] * dist.get_world_size(group) if dist.get_rank(group) == 0 else None
    dist.gather_object(mine, found, dst=dist.get_global_rank(group, 0), group=group)
    return found or []


def mean_over_ranks(tensor: Tensor) -> Tensor:
    """Average a tensor over all processes, in place, on its device; each of them must call this.

    By one collective: `Strategy.reduce` has them wait at a barrier before it.
    """
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(tensor)
        tensor /= dist.get_world_size()
    return tensor


def data_parallel_group(strategy: Strategy) -> Any:
    """Look up the processes with rows of their own; those of one pipeline, or tensor-parallel group, are one of them.

    A strategy with such groups has them as ``replicas``.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return None
    return getattr(strategy, "replicas", dist.group.WORLD)


def data_parallel_size(strategy: Strategy) -> int:
    """Count the processes that have rows of their own."""
    group = data_parallel_group(strategy)
    return 1 if group is None else dist.get_world_size(group)


def clip_by_global_norm(parameters: Iterable[nn.Parameter], max_norm: float | None) -> Tensor:
    """Scale the gradients so that their norm, over all parameters and all their shards, is at most ``max_norm``.

    Gradients may be plain tensors, alike on every rank, and DTensors of several meshes. A norm that is no finite number
    leaves them as they are, so that its source can still be found.

    Args:
        parameters: of the network, as this rank has them.
        max_norm: None leaves the gradients as they are.

    Returns:
        The norm before clipping, a 0-dim tensor, the same on every rank.
    """
    parameters = list(parameters)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    total = global_norm(gradients, parameters[0].device)
    scale_gradients(gradients, total, max_norm)
    return total


def global_norm(gradients: Sequence[Tensor], device: torch.device) -> Tensor:
    """Compute the norm over all gradients and all their shards: 0-dim, on the device."""
    by_mesh: dict[object, list[Tensor]] = defaultdict(list)
    for gradient in gradients:
        by_mesh[gradient.device_mesh if isinstance(gradient, DTensor) else None].append(gradient)
    norms = [get_total_norm(of_mesh) for of_mesh in by_mesh.values()]
    norms = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros((), device=device)


def scale_gradients(gradients: Sequence[Tensor], norm: Tensor, max_norm: float | None) -> None:
    """Scale gradients of this norm down to ``max_norm``; what is no finite number, or clipped by None, stays."""
    if not max_norm or not gradients:
        return
    # ones of the device: a number would be copied to it, which waits
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0).where(norm.isfinite(), torch.ones_like(norm))
    if scale.device.type == "cpu" and scale == 1:  # elsewhere, to look would wait for the device
        return
    torch._foreach_mul_([local_part(gradient) for gradient in gradients], scale)


def local_part(tensor: Tensor) -> Tensor:
    """Take what this process holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def unsharded_model(task: L.LightningModule, on: Literal["first", "replicas", "all"] = "first") -> nn.Module | None:
    """Make the network with all its weights on one process, in evaluation mode: to decode with, not to train.

    Decoding takes another number of steps on each rank, so it must not wait for the others at every layer. Every rank
    must call this, and each then goes on by itself. Where a rank holds the whole network anyway, that is what it gets;
    else a copy is made of it, for as long as the caller keeps it.

    Args:
        task: whose network it is.
        on: the ranks that get it: the first one, the first of each group that reads the same rows, or all. The others
            get None, and hold no more of the weights meanwhile than one tensor.
    """
    strategy: Any = task.trainer.strategy
    model: nn.Module = task.model  # type: ignore[assignment]
    if not getattr(strategy, "is_sharded", False):
        return model
    # of the groups across those that read the same rows, rank 0 is in that of their first ranks
    leads = 0 in dist.get_process_group_ranks(data_parallel_group(strategy))
    wanted = {"first": strategy.global_rank == 0, "replicas": leads, "all": True}[on]
    weights: dict[str, Tensor] = {}
    if wanted:
        devices = [task.device] if task.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.device(task.device):  # initial weights draw random numbers
            model = task.build_model()  # type: ignore[operator]
        weights = model.state_dict()
    for name, weight in strategy.full_weights():
        if wanted:
            weights[name].copy_(weight)
    return model.eval() if wanted else None
