"""The position-wise feed-forward network (Vaswani et al. 2017, section 3.3)."""

from torch import Tensor, nn

from src.nn.activations import activation


class FeedForward(nn.Module):
    """``down(activation(up(x)))``: (..., d_model) to (..., d_ff) and back."""

    def __init__(self, d_model: int, d_ff: int, activation_name: str, bias: bool = True) -> None:
        super().__init__()
        self.up = nn.Linear(d_model, d_ff, bias=bias)
        self.activation = activation(activation_name)
        self.down = nn.Linear(d_ff, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x)))
