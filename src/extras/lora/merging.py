"""The weights of a checkpoint whose network has adapters: merged for whoever reads it, apart for a run that goes on."""

from typing import Any

from torch import Tensor

from src.errors import InputError
from src.extras.lora.layers import PARTS, delta


def adapted_layers(weights: dict[str, Any]) -> list[str]:
    """List the names of the layers that have an adapter."""
    a = f".{PARTS[0]}"
    return [name.removesuffix(a) for name in weights if name.endswith(a)]


def merge(checkpoint: dict[str, Any]) -> None:
    """Add the adapters to the weights that they are beside, in place; ``unmerged`` is what was there before."""
    weights: dict[str, Tensor] = checkpoint["state_dict"]
    layers = adapted_layers(weights)
    if not layers:
        return
    names = [f"{layer}.{part}" for layer in layers for part in ("weight", *PARTS)]
    if missing := [name for name in names if name not in weights]:
        raise InputError(f"the checkpoint has an adapter without {missing[0]}: use another one")
    unmerged = {name: weights[name] for name in names}
    state = {name: weight for name, weight in weights.items() if not name.endswith(tuple(f".{p}" for p in PARTS))}
    for layer in layers:
        weight, a, b, scaling = (unmerged[f"{layer}.{part}"] for part in ("weight", *PARTS))
        fitting = (weight.shape[0], *a.shape[:1], *a.shape[:1], weight.shape[1])
        if (*b.shape, *a.shape) != fitting or scaling.numel() != 1:
            raise InputError(
                f"an adapter of {tuple(a.shape)} and {tuple(b.shape)} does not fit {layer}: use another one"
            )
        state[f"{layer}.weight"] = (weight.float() + delta(a, b, scaling)).to(weight.dtype)
    checkpoint["state_dict"], checkpoint["unmerged"] = state, unmerged


def unmerge(checkpoint: dict[str, Any]) -> None:
    """Take :func:`merge` back, bit for bit."""
    if "unmerged" in checkpoint:
        checkpoint["state_dict"].update(checkpoint.pop("unmerged"))
