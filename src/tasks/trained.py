"""Which parameters of a network are trained: all, unless some are frozen by name, or a callback adds an adapter."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import lightning as L
from torch import nn

from src.errors import InputError


class NetworkCallback(L.Callback, ABC):
    """A callback that changes the network of a task, each time it is built."""

    @abstractmethod
    def adapt(self, network: nn.Module) -> None:
        """Change it in place. It has its initial weights, not those of a checkpoint, and may be on the meta device."""

    def check(self, trainer: L.Trainer) -> None:
        """Refuse what cannot work, before any process is started."""

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Change the weights that were read of a checkpoint, in place, to those that a run goes on with."""


def freeze(network: nn.Module, patterns: Sequence[str]) -> None:
    """Take the parameters whose names match a shell pattern out of the training; a tied one by any of its names."""
    parameters = dict(network.named_parameters(remove_duplicate=False))
    for pattern in patterns:
        found = [name for name in parameters if fnmatchcase(name, pattern)]
        if not found:
            parts = ", ".join(f"{part}.*" for part in dict.fromkeys(name.partition(".")[0] for name in parameters))
            raise InputError(f"model.freeze {pattern!r} matches no parameter: those of this network are {parts}")
        for name in found:
            parameters[name].requires_grad_(False)
    if patterns and not trained_sizes(network):
        raise InputError(f"model.freeze {', '.join(patterns)} leaves no parameter to train: freeze fewer")


def trained_sizes(network: nn.Module) -> dict[str, int]:
    """Count the elements of each parameter that is trained, by its name."""
    return {name: parameter.numel() for name, parameter in network.named_parameters() if parameter.requires_grad}


def check_trained(was: Mapping[str, int], now: Mapping[str, int]) -> None:
    """Refuse to go on with other parameters than those of which a checkpoint has the optimizer's state."""
    if was == now:
        return
    name = next(name for name in (*was, *now) if was.get(name) != now.get(name))
    sizes = [f"{found[name]:,} numbers of {name}" if name in found else f"not {name}" for found in (was, now)]
    raise InputError(
        f"the checkpoint's run trained {sizes[0]}, this configuration trains {sizes[1]}: set model.freeze and "
        "trainer.callbacks as they were, or start a run from its weights by --model.pretrained"
    )
