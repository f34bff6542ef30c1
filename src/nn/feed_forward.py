"""The position-wise feed-forward network (Vaswani et al. 2017, section 3.3), and its activation functions."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn.functional import relu


class SquaredReLU(nn.Module):
    """``max(x, 0)²`` (So et al. 2021, Primer)."""

    def forward(self, x: Tensor) -> Tensor:
        return relu(x).square()


# By name; a new one is one line here, and docs/activations.md shows them all. Classes and not functions, since some
# have parameters (PReLU); each block makes its own.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "elu": nn.ELU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "swish": nn.SiLU,
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),  # as in GPT-2
    "relu2": SquaredReLU,
    "swiglu": nn.SiLU,
    "geglu": nn.GELU,
}
# Names of gated linear units, whose value multiplies a second projection (Shazeer 2020); `gated` makes one of any.
GATED = ("swiglu", "geglu")


def activation(name: str) -> nn.Module:
    """A new activation module; of a gated one, that of its gate."""
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}: choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


class FeedForward(nn.Module):
    """``down(activation(up(x)))``: (..., d_model) to (..., d_ff) and back.

    Gated, ``down(activation(gate(x)) * up(x))``. Its third matrix makes it half as large again: with
    two thirds of the ``d_ff`` of a plain one it has as many parameters and as much work (Shazeer 2020, section 2).
    """

    def __init__(self, d_model: int, d_ff: int, activation_name: str, bias: bool = True, gated: bool = False) -> None:
        super().__init__()
        self.gated = gated or activation_name in GATED
        self.up = nn.Linear(d_model, d_ff, bias=bias)
        self.activation = activation(activation_name)
        if self.gated:
            self.gate = nn.Linear(d_model, d_ff, bias=bias)
        self.down = nn.Linear(d_ff, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.gated:
            return self.down(self.activation(self.gate(x)) * self.up(x))
        return self.down(self.activation(self.up(x)))
