"""A whole copy of a network that the strategy has spread over processes."""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:  # a task is above this layer, and only handed in
    import lightning as L


def unsharded_model(task: "L.LightningModule") -> nn.Module:
    """The network with all its weights on this process, in evaluation mode: to decode with, not to train.

    Decoding takes another number of steps on each rank, so it must not wait for the others at every layer. Every rank
    must call this, and each then goes on by itself. Where a rank holds the whole network anyway, that is what it gets;
    else a copy is made of it, for as long as the caller keeps it.
    """
    strategy: Any = task.trainer.strategy
    if not getattr(strategy, "is_sharded", False):
        model: nn.Module = task.model  # type: ignore[assignment]
        return model
    weights = strategy.full_state_dict()
    devices = [task.device] if task.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.device(task.device):  # initial weights draw random numbers
        model = task.build_model()  # type: ignore[operator]
    model.load_state_dict(weights)
    return model.eval()
