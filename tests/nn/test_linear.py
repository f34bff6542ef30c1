"""A linear layer gives what torch's gives, from whichever side it computes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from src.nn import Linear


def same_layers(wide: int, out: int, bias: bool, dtype: torch.dtype) -> tuple[Linear, nn.Linear]:
    ours, theirs = Linear(wide, out, bias, dtype=dtype), nn.Linear(wide, out, bias, dtype=dtype)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@given(
    st.lists(st.integers(0, 9), max_size=3), st.integers(1, 40), st.integers(1, 40), st.booleans(), st.integers(0, 99)
)
@settings(deadline=None)
def test_any_shape_without_gradients(shape, wide, out, bias, seed):
    torch.manual_seed(seed)
    ours, theirs = same_layers(wide, out, bias, torch.float32)
    x = torch.randn(*shape, wide)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_with_gradients_and_in_any_precision_it_is_the_very_same(dtype):
    torch.manual_seed(0)
    ours, theirs = same_layers(16, 24, True, dtype)
    x = torch.randn(2, 16, dtype=dtype)
    assert torch.equal(ours(x), theirs(x))
    ours(x).sum().backward()
    theirs(x).sum().backward()
    assert torch.equal(ours.weight.grad, theirs.weight.grad)
    if dtype != torch.float32:
        with torch.no_grad():
            assert torch.equal(ours(x), theirs(x))


def test_under_autocast_it_is_the_very_same():
    torch.manual_seed(0)
    ours, theirs = same_layers(16, 24, True, torch.float32)
    x = torch.randn(2, 16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert ours(x).dtype == torch.bfloat16
        assert torch.equal(ours(x), theirs(x))
