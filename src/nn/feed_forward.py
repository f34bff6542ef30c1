"""The position-wise feed-forward network (Vaswani et al. 2017, section 3.3), plain or gated (Shazeer 2020)."""

from torch import Tensor, nn

from src.nn.activations import GATED, activation
from src.nn.linear import Linear


class FeedForward(nn.Module):
    """``down(activation(up(x)))``: (..., d_model) to (..., d_ff) and back.

    With a gated activation ``down(activation(gate(x)) * up(x))``. Its third matrix makes it half as large again: with
    two thirds of the ``d_ff`` of a plain one it has as many parameters and as much work (Shazeer 2020, section 2).
    """

    def __init__(self, d_model: int, d_ff: int, activation_name: str, bias: bool = True) -> None:
        super().__init__()
        self.up = Linear(d_model, d_ff, bias=bias)
        self.activation = activation(activation_name)
        if activation_name in GATED:
            self.gate = Linear(d_model, d_ff, bias=bias)
        self.down = Linear(d_ff, d_model, bias=bias)
        self.gated = activation_name in GATED

    def forward(self, x: Tensor) -> Tensor:
        if self.gated:
            return self.down(self.activation(self.gate(x)) * self.up(x))
        return self.down(self.activation(self.up(x)))
