"""Activation functions by name. A new one is one line here; `docs/activations.md` shows them all."""

from collections.abc import Callable

from torch import nn

from src.nn.gelu import GELUTanh

# Classes and not functions, since some have parameters (PReLU); each block makes its own.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "elu": nn.ELU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "swish": nn.SiLU,
    "gelu": nn.GELU,
    "gelu_tanh": GELUTanh,
    "swiglu": nn.SiLU,
    "geglu": nn.GELU,
}
# Those whose value multiplies a second projection of the feed-forward network: gated linear units (Shazeer 2020).
GATED = ("swiglu", "geglu")


def activation(name: str) -> nn.Module:
    """A new activation module; of a gated one, that of its gate.

    Raises:
        ValueError: ``name`` is no key of :data:`ACTIVATIONS`.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}: choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()
