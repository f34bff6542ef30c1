"""Activations against their formulas, by value and by derivative."""

import math

import pytest
import torch

from src.nn import ACTIVATIONS, FeedForward, activation


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def cdf(x):
    return (1 + math.erf(x / math.sqrt(2))) / 2


FORMULAS = {
    "relu": lambda x: max(x, 0.0),
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
    "prelu": lambda x: x if x > 0 else 0.25 * x,  # 0.25: the initial slope of He et al. 2015
    "elu": lambda x: x if x > 0 else math.expm1(x),
    "sigmoid": sigmoid,
    "tanh": math.tanh,
    "swish": lambda x: x * sigmoid(x),
    "gelu": lambda x: x * cdf(x),
    "gelu_tanh": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_value_and_derivative(name):
    # half steps from 0.25 on: no point lies on a kink
    x = torch.arange(-6, 6.5, 0.5, dtype=torch.float64).add(0.25).requires_grad_()
    y = activation(name).double()(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    h = 1e-6
    for xi, yi, di in zip(x.tolist(), y.tolist(), slope.tolist(), strict=True):
        assert yi == pytest.approx(FORMULAS[name](xi), abs=1e-7)
        assert di == pytest.approx((FORMULAS[name](xi + h) - FORMULAS[name](xi - h)) / (2 * h), abs=1e-6)


def test_derivatives_that_are_often_given_wrong():
    x = torch.tensor([1.0, 1.0], requires_grad=True)
    (slope,) = torch.autograd.grad(activation("swish")(x[0]) + activation("gelu")(x[1]), x)
    assert slope.tolist() == pytest.approx([0.928, 1.083], abs=1e-3)


def test_each_feed_forward_has_an_activation_of_its_own():
    first, second = FeedForward(4, 8, "prelu"), FeedForward(4, 8, "prelu")
    assert first.activation.weight is not second.activation.weight


def test_unknown_name():
    with pytest.raises(ValueError, match="unknown activation 'geluu': choose one of relu"):
        activation("geluu")
