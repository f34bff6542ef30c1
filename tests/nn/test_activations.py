"""Activations against formulas of their own: value, derivative (by autograd, in float64) and range over a grid."""

import math
from typing import NamedTuple

import pytest
import torch

from src.nn import ACTIVATIONS, GATED, FeedForward, activation

C = math.sqrt(2 / math.pi)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def cdf(x):
    return (1 + math.erf(x / math.sqrt(2))) / 2


def pdf(x):
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def inner(x):
    return math.tanh(C * (x + 0.044715 * x**3))


class Formula(NamedTuple):
    value: object
    derivative: object
    lowest: float
    highest: float


def leaky(slope):
    return Formula(lambda x: x if x > 0 else slope * x, lambda x: 1 if x > 0 else slope, -math.inf, math.inf)


SWISH = Formula(
    lambda x: x * sigmoid(x), lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x))), -0.2784645427610738, math.inf
)
GELU = Formula(lambda x: x * cdf(x), lambda x: cdf(x) + x * pdf(x), -0.16997120747, math.inf)
FORMULAS = {
    "relu": Formula(lambda x: max(x, 0.0), lambda x: float(x > 0), 0, math.inf),
    "leaky_relu": leaky(0.01),
    "prelu": leaky(0.25),  # the initial slope of He et al. 2015
    "elu": Formula(lambda x: x if x > 0 else math.expm1(x), lambda x: 1 if x > 0 else math.exp(x), -1, math.inf),
    "sigmoid": Formula(sigmoid, lambda x: sigmoid(x) * (1 - sigmoid(x)), 0, 1),
    "tanh": Formula(math.tanh, lambda x: 1 - math.tanh(x) ** 2, -1, 1),
    "swish": SWISH,
    "gelu": GELU,
    "gelu_tanh": Formula(
        lambda x: 0.5 * x * (1 + inner(x)),
        lambda x: 0.5 * (1 + inner(x)) + 0.5 * x * (1 - inner(x) ** 2) * C * (1 + 3 * 0.044715 * x * x),
        -0.17004075057,
        math.inf,
    ),
    "relu2": Formula(lambda x: max(x, 0.0) ** 2, lambda x: 2 * max(x, 0.0), 0, math.inf),
    "swiglu": SWISH,  # of the gate
    "geglu": GELU,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_value_and_derivative(name):
    # from an eighth on, by halves: no point lies on a kink
    x = torch.arange(-12, 12, 0.5, dtype=torch.float64).add(0.125).requires_grad_()
    y = activation(name).double()(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    for xi, yi, di in zip(x.tolist(), y.tolist(), slope.tolist(), strict=True):
        assert yi == pytest.approx(FORMULAS[name].value(xi), abs=1e-12)
        assert di == pytest.approx(FORMULAS[name].derivative(xi), abs=1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_range(name):
    y = activation(name).double()(torch.linspace(-40, 40, 80_001, dtype=torch.float64))
    lowest, highest = FORMULAS[name].lowest, FORMULAS[name].highest
    assert y.min() >= lowest - 1e-9
    assert y.max() <= highest
    # and comes as near to either end as one may ask
    assert y.min() < -0.3 if lowest == -math.inf else y.min() == pytest.approx(lowest, abs=1e-6)
    assert y.max() >= 40 if highest == math.inf else y.max() == pytest.approx(highest, abs=1e-9)


def test_derivatives_that_are_often_given_wrong():
    x = torch.tensor([1.0, 1.0], requires_grad=True)
    (slope,) = torch.autograd.grad(activation("swish")(x[0]) + activation("gelu")(x[1]), x)
    assert slope.tolist() == pytest.approx([0.928, 1.083], abs=1e-3)


@pytest.mark.parametrize(("name", "gated"), [*((name, False) for name in GATED), ("relu", True), ("relu2", True)])
def test_a_gated_network_multiplies_two_projections(name, gated):
    network = FeedForward(4, 6, name, gated=gated).double()
    x = torch.randn(3, 4, dtype=torch.float64)
    gate = torch.tensor([[FORMULAS[name].value(v) for v in row] for row in network.gate(x).tolist()])
    expected = (gate * (x @ network.up.weight.T + network.up.bias)) @ network.down.weight.T + network.down.bias
    torch.testing.assert_close(network(x), expected)


def test_two_thirds_of_the_width_make_a_gated_network_as_large_as_a_plain_one():
    sizes = [
        sum(p.numel() for p in FeedForward(12, d_ff, name, bias=False).parameters())
        for d_ff, name in ((48, "swish"), (32, "swiglu"))
    ]
    assert sizes[0] == sizes[1]


def test_each_feed_forward_has_an_activation_of_its_own():
    first, second = FeedForward(4, 8, "prelu"), FeedForward(4, 8, "prelu")
    assert first.activation.weight is not second.activation.weight


def test_unknown_name():
    with pytest.raises(ValueError, match="unknown activation 'geluu': choose one of relu"):
        activation("geluu")
