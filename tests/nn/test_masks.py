"""What layers share in one forward pass is shared by those alone that would make the same of it."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from src.nn import KERNELS, AttentionSpan, KVCache, Mask, alibi_slopes
from tests.nn.layers import attention

REAL = (torch.arange(12) < torch.tensor([12, 7])[:, None]).long()
REACHES = [
    AttentionSpan(),
    AttentionSpan(5),
    AttentionSpan(3),
    AttentionSpan(3, (1, 2)),
    AttentionSpan(3, alibi_slopes=alibi_slopes(2)),
    AttentionSpan(alibi_slopes=(0.5, 0.1)),
]


def layers():
    """Layers of two heads, with what they read: each differs from another in one thing."""
    positions = ("learned", "rotary")
    shapes = product(REACHES, ("dense", "sliding_window"), positions, (4, 8), (torch.float32, torch.float64))
    for span, kernel, position, head_dim, dtype in shapes:
        if kernel == "dense" or span.window is not None:
            torch.manual_seed(0)
            layer = attention(2 * head_dim, 2, kernel, span, positions=position).to(dtype)
            yield layer, torch.randn(2, 12, 2 * head_dim, dtype=dtype)


@torch.no_grad()
@pytest.mark.parametrize("real", [None, REAL], ids=["whole", "padded"])
def test_layers_of_every_kind_share_a_mask(real):
    """Rotary angles of another head width had the same key."""
    shared = Mask(12, True, attention_mask=real)
    for layer, x in layers():
        torch.testing.assert_close(layer(x, shared), layer(x, replace(shared)), atol=0, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("kernel", ["dense", "sliding_window"])
def test_batches_of_other_sizes_share_a_mask(kernel):
    mask, layer = Mask(70, True), attention(8, 2, kernel, AttentionSpan(3))  # more than one block
    for batch in (1, 3, 2):
        x = torch.randn(batch, 70, 8)
        torch.testing.assert_close(layer(x, mask), layer(x, Mask(70, True)))


@torch.no_grad()
def test_caches_of_other_sizes_share_a_mask():
    """One has rolled over what has left the window, and the other holds all tokens in order."""
    layer, x, caches = (
        attention(8, 2, span=AttentionSpan(3)),
        torch.randn(2, 12, 8),
        (KVCache(None, 3), KVCache(12)),
    )
    expected = layer(x, Mask(12, True))
    for position in range(12):
        mask = Mask(position + 1, True, past=position)
        for cache in caches:
            y = layer(x[:, position : position + 1], mask, cache)
            torch.testing.assert_close(y, expected[:, position : position + 1], atol=1e-6, rtol=1e-5)


def test_a_mask_with_another_field_makes_its_own():
    q, k, v = torch.randn(3, 2, 2, 12, 4)
    mask = Mask(12, attention_mask=REAL)
    KERNELS["dense"](q, k, v, mask, AttentionSpan(3), 0.0)
    other = replace(mask, attention_mask=REAL.flip(0))
    found = KERNELS["dense"](q, k, v, other, AttentionSpan(3), 0.0)
    torch.testing.assert_close(
        found, KERNELS["dense"](q, k, v, Mask(12, attention_mask=REAL.flip(0)), AttentionSpan(3), 0.0)
    )


def test_what_is_shared_comes_of_its_arguments_alone():
    mask = Mask(12)
    assert mask.cached(lambda of, more: of.length + more, 1) == 13
    unseen = 5
    with pytest.raises(AssertionError, match="depend on the arguments alone"):
        mask.cached(lambda of: of.length + unseen)
