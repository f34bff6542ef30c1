"""The weights of a checkpoint whose network has adapters: merged for whoever reads it, apart for a run that goes on."""

from typing import Any

from torch import Tensor

from src.errors import InputError
from src.extras.lora.layers import PARTS, delta


def adapted_layers(weights: dict[str, Any]) -> list[str]:
    """List the names of the layers that have an adapter, or one of its matrices."""
    matrices = [(name, f".{part}") for name in weights for part in PARTS[:2]]
    return list(dict.fromkeys(name.removesuffix(part) for name, part in matrices if name.endswith(part)))


def merge(checkpoint: dict[str, Any], source: str = "the checkpoint") -> None:
    """Add the adapters to the weights that they are beside, in place; ``unmerged`` is what was there before.

    Args:
        checkpoint: with the adapters among its weights.
        source: of the adapters, which the errors name.
    """
    weights: dict[str, Tensor] = checkpoint["state_dict"]
    layers = adapted_layers(weights)
    if not layers:
        return
    names = [f"{layer}.{part}" for layer in layers for part in ("weight", *PARTS)]
    if missing := [name for name in names if name not in weights]:
        raise InputError(f"{source} has an adapter without {missing[0]}: use another one")
    unmerged = {name: weights[name] for name in names}
    state = {name: weight for name, weight in weights.items() if not name.endswith(tuple(f".{p}" for p in PARTS))}
    for layer in layers:
        weight, a, b, scaling = (unmerged[f"{layer}.{part}"] for part in ("weight", *PARTS))
        shapes = [tuple(tensor.shape) for tensor in (a, b, weight)]
        fits = all(len(shape) == 2 for shape in shapes) and weight.shape == (len(b), a.shape[1])
        if not fits or len(a) != b.shape[1] or scaling.numel() != 1:
            raise InputError(
                f"{source} has an adapter of {shapes[0]} and {shapes[1]} for {layer}, whose weight is {shapes[2]}: "
                "use another one"
            )
        state[f"{layer}.weight"] = (weight.float() + delta(a, b, scaling)).to(weight.dtype)
    checkpoint["state_dict"], checkpoint["unmerged"] = state, unmerged


def unmerge(checkpoint: dict[str, Any]) -> None:
    """Take :func:`merge` back, bit for bit."""
    if "unmerged" in checkpoint:
        checkpoint["state_dict"].update(checkpoint.pop("unmerged"))
