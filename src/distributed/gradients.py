"""The gradient norm of the whole network, wherever its parts lie."""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm


def clip_by_global_norm(parameters: Iterable[nn.Parameter], max_norm: float | None) -> Tensor:
    """Scale the gradients so that their norm, over all parameters and all their shards, is at most ``max_norm``.

    Gradients may be plain tensors, alike on every rank, and DTensors of several meshes. A norm that is no finite number
    leaves them as they are, so that it can still be seen where it came from.

    Args:
        max_norm: null leaves the gradients as they are.

    Returns:
        The norm before clipping, a 0-dim tensor, the same on every rank.
    """
    by_mesh: dict[object, list[Tensor]] = defaultdict(list)
    for parameter in parameters:
        if parameter.grad is not None:
            gradient = parameter.grad
            by_mesh[gradient.device_mesh if isinstance(gradient, DTensor) else None].append(gradient)
    norms = [get_total_norm(gradients) for gradients in by_mesh.values()]
    norms = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]
    total = torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())
    if max_norm:
        scale = (max_norm / (total + 1e-6)).clamp(max=1.0).where(total.isfinite(), 1.0)
        if scale.device.type == "cpu" and scale == 1:  # elsewhere, to look would wait for the device
            return total
        for gradients in by_mesh.values():
            local = [g.to_local() if isinstance(g, DTensor) else g for g in gradients]
            torch._foreach_mul_(local, scale)
    return total
