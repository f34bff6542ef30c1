"""Dropout drops its fraction, independently, scales the others, and gives what it kept its gradient."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.nn import Dropout
from src.nn.cpu import dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.9])
def test_it_drops_its_fraction_and_scales_the_others(p, dtype):
    torch.manual_seed(0)
    n = 400_000
    found = dropout(torch.ones(n, dtype=dtype), p)
    dropped = (found == 0).double().mean().item()
    assert abs(dropped - p) < 5 * math.sqrt(p * (1 - p) / n) + 1e-5  # five standard errors
    kept = found[found != 0]
    torch.testing.assert_close(
        kept, torch.full_like(kept, 1 / (1 - p)), rtol=1e-2 if dtype == torch.bfloat16 else 1e-4, atol=0
    )


def test_elements_of_one_random_number_are_independent():
    torch.manual_seed(0)
    n, p = 1 << 20, 0.3
    dropped = (dropout(torch.ones(n // 4, 4, dtype=torch.float64), p) == 0).double()
    correlations = torch.corrcoef(torch.cat([dropped[1:], dropped[:-1]], 1).T) - torch.eye(8, dtype=torch.float64)
    assert correlations.abs().max() < 5.5 / math.sqrt(n // 4)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=3), st.floats(0.01, 0.99), st.integers(0, 2**31))
@settings(deadline=None)
def test_any_shape_and_the_gradient_is_that_of_what_was_kept(shape, p, seed):
    torch.manual_seed(seed)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    y = dropout(x, p)
    assert y.shape == x.shape
    y.sum().backward()
    torch.testing.assert_close(x.grad * x, y)
    torch.manual_seed(seed)
    torch.testing.assert_close(dropout(torch.randn(shape, dtype=torch.float64), p), y, rtol=0, atol=0)  # the same run


def test_a_fraction_beyond_the_levels_is_neither_none_nor_all():
    torch.manual_seed(0)
    assert (dropout(torch.ones(1_000_000), 1e-7) == 0).any()
    assert dropout(torch.ones(1_000_000), 1 - 1e-9).isfinite().all()


def test_a_view_that_is_not_contiguous():
    torch.manual_seed(0)
    x = torch.ones(64, 32, 16).transpose(0, 2)
    assert 0.4 < (dropout(x, 0.5) == 0).double().mean() < 0.6


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_all_or_nothing_is_torchs(p):
    x = torch.randn(7)
    torch.testing.assert_close(dropout(x, p), x * (1 - p))


def test_the_layer_does_nothing_in_evaluation():
    layer, x = Dropout(0.5), torch.randn(100)
    assert not torch.equal(layer(x), x)
    assert layer.eval()(x) is x
