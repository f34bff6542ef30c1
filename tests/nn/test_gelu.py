"""GELU by chunks gives the value and the derivative of its formula."""

import pytest
import torch
from torch.nn.functional import gelu

from src.nn.gelu import CHUNK, FEWEST, GELUTanh


def reference(x, grad):
    """In float64, rounded at the end."""
    exact = x.detach().double().requires_grad_()
    y = gelu(exact, approximate="tanh")
    y.backward(grad.double())
    return y.detach().to(x.dtype), exact.grad.to(x.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(3,), (FEWEST,), (7, 9, 1001), (CHUNK + 5,)])
def test_value_and_derivative_of_any_shape(shape, dtype):
    torch.manual_seed(0)
    x = (4 * torch.randn(shape)).to(dtype).requires_grad_()
    grad = torch.randn(shape).to(dtype)
    y = GELUTanh()(x)
    y.backward(grad)
    value, derivative = reference(x, grad)
    tolerance = {"rtol": 2e-2, "atol": 1e-3} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 2e-6}
    torch.testing.assert_close(y.detach(), value, **tolerance)
    torch.testing.assert_close(x.grad, derivative, **tolerance)
    with torch.no_grad():
        torch.testing.assert_close(GELUTanh()(x), value, **tolerance)


def test_a_network_in_bfloat16_computes_in_float32():
    x = torch.linspace(-4, 4, FEWEST).bfloat16()
    expected = GELUTanh()(x)
    try:
        torch.set_default_dtype(torch.bfloat16)
        found = GELUTanh()(x)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, expected)


def test_what_is_large_stays_finite():
    x = torch.tensor([-1e12, -1e4, -30.0, 30.0, 1e4, 1e12]).repeat(FEWEST).requires_grad_()
    y = GELUTanh()(x)
    y.sum().backward()
    torch.testing.assert_close(y[:6].detach(), torch.tensor([0, 0, 0, 30, 1e4, 1e12]))
    assert torch.equal(x.grad[:6], torch.tensor([0.0, 0, 0, 1, 1, 1]))


def test_an_input_that_is_no_one_piece_stays_as_it_is():
    x = torch.randn(150, 300).T
    before = x.clone()
    torch.testing.assert_close(GELUTanh()(x), gelu(x, approximate="tanh"))
    assert torch.equal(x, before)
