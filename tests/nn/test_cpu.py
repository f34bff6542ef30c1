"""The fast paths of a CPU: dropout drops its fraction, independently; attention by matrix products is attention."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from src.nn import Dropout, cpu
from src.nn.cpu import attend, dropout, matmul_attention


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.9])
def test_dropout_drops_its_fraction_and_scales_the_others(p, dtype):
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
def test_dropout_of_any_shape_has_the_gradient_of_what_was_kept(shape, p, seed):
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


def test_dropout_of_a_view_that_is_not_contiguous():
    torch.manual_seed(0)
    x = torch.ones(64, 32, 16).transpose(0, 2)
    assert 0.4 < (dropout(x, 0.5) == 0).double().mean() < 0.6


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_all_or_nothing_is_torchs(p):
    x = torch.randn(7)
    torch.testing.assert_close(dropout(x, p), x * (1 - p))


def test_dropout_does_nothing_in_evaluation():
    layer, x = Dropout(0.5), torch.randn(100)
    assert not torch.equal(layer(x), x)
    assert layer.eval()(x) is x


def inputs(dtype, queries=9, keys=9, grad=True):
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 3, queries, 8), (2, 3, keys, 8), (2, 3, keys, 8))
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_(grad) for shape in shapes]


def masks(queries, keys):
    generator = torch.Generator().manual_seed(1)
    visible = torch.rand(2, 1, queries, keys, generator=generator) < 0.7
    visible[..., 0] = True
    return {
        "none": {},
        "causal": {"is_causal": True},
        "padding": {"attn_mask": (torch.arange(keys) < torch.tensor([keys, 2])[:, None])[:, None, None]},
        "pairs": {"attn_mask": visible},
        "numbers": {"attn_mask": torch.randn(1, 3, queries, keys, generator=generator, dtype=torch.float64)},
    }


@pytest.mark.parametrize("block", [128, 4])
@pytest.mark.parametrize("keys", [9, 5])
@pytest.mark.parametrize("mask", masks(1, 1))
def test_matmul_attention_is_torchs(mask, keys, block, monkeypatch):
    monkeypatch.setattr(cpu, "BLOCK", block)
    arguments = masks(9, keys)[mask]
    tensors = inputs(torch.float64, keys=keys)
    found, expected = matmul_attention(*tensors, **arguments), scaled_dot_product_attention(*tensors, **arguments)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(found)
    for a, b in zip(
        torch.autograd.grad(found, tensors, weights), torch.autograd.grad(expected, tensors, weights), strict=True
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(9, 9), (9,), (3, 9, 9), (1, 3, 1, 9), (2, 1, 9, 9), (2, 3, 9, 9)])
def test_a_mask_of_numbers_has_its_gradient(dtype, shape):
    """A learned bias of positions, whatever the type and however it is broadcast."""
    exact = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_()
    bias = exact.detach().to(dtype).requires_grad_()
    weights = torch.randn(2, 3, 9, 8, generator=torch.Generator().manual_seed(3))
    for function, mask, kind in ((attend, bias, dtype), (scaled_dot_product_attention, exact, torch.float64)):
        (function(*inputs(kind), attn_mask=mask) * weights).sum().backward()
    assert bias.grad.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 0.03
    assert (bias.grad - exact.grad).norm() < tolerance * exact.grad.norm()


def test_a_mask_and_a_causal_one_are_refused_as_by_torch():
    bias = torch.zeros(9, 9, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="attn_mask or is_causal, not both"):
        attend(*inputs(torch.bfloat16), attn_mask=bias, is_causal=True)


@pytest.mark.parametrize("mask", ["none", "causal", "padding"])
def test_in_bfloat16_matmul_attention_is_about_as_near_to_the_truth_as_torchs_kernel(mask):
    shape, arguments = (4, 4, 96, 32), masks(96, 96)[mask]
    if mask == "padding":
        arguments["attn_mask"] = arguments["attn_mask"].repeat(2, 1, 1, 1)
    generator = torch.Generator().manual_seed(0)
    exact = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3)]
    weights = torch.randn(shape, generator=generator, dtype=torch.float64)

    def errors(function, dtype, against=None):
        tensors = [tensor.detach().to(dtype).requires_grad_() for tensor in exact]
        y = function(*tensors, **arguments)
        found = [y, *torch.autograd.grad(y, tensors, weights.to(dtype))]
        assert all(tensor.dtype == dtype for tensor in found)
        return found if against is None else [(a - b).norm() / b.norm() for a, b in zip(found, against, strict=True)]

    truth = errors(scaled_dot_product_attention, torch.float64)
    ours = errors(matmul_attention, torch.bfloat16, truth)
    theirs = errors(scaled_dot_product_attention, torch.bfloat16, truth)
    assert all(a < 2 * b + 1e-3 for a, b in zip(ours, theirs, strict=True))
    assert max(ours) < 0.01


def test_dropout_of_attention_drops_weights_and_scales_the_others():
    torch.manual_seed(0)
    q, k, _ = inputs(torch.float64, 64, 64)
    weights = matmul_attention(q, k, torch.eye(64, dtype=torch.float64).expand(2, 3, 64, 64), dropout_p=0.25)
    plain = matmul_attention(q, k, torch.eye(64, dtype=torch.float64).expand(2, 3, 64, 64))
    kept = weights > 0
    assert 0.7 < kept.double().mean() < 0.8
    torch.testing.assert_close(weights[kept], plain[kept] / 0.75)


@pytest.mark.parametrize(
    ("dtype", "grad", "most", "by_matmul"),
    [
        (torch.bfloat16, True, 1 << 25, True),
        (torch.bfloat16, False, 1 << 25, False),
        (torch.float32, True, 1 << 25, False),
        (torch.bfloat16, True, 2 * 3 * 9 * 9 - 1, False),  # more pairs than are kept
        (torch.bfloat16, True, 2 * 3 * 9 * 9, True),
    ],
)
def test_where_matmul_attention_is_used(dtype, grad, most, by_matmul, monkeypatch):
    monkeypatch.setattr(cpu, "MOST_PAIRS", most)
    tensors = inputs(dtype, grad=grad)
    chosen = matmul_attention if by_matmul else scaled_dot_product_attention
    assert torch.equal(attend(*tensors, is_causal=True), chosen(*tensors, is_causal=True))
