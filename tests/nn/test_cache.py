"""The rolling cache of a window holds what the window sees, whatever comes in whatever pieces."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.nn import AttentionSpan, KVCache, Mask, alibi_slopes
from tests.nn.layers import attention


def pieces(total, cuts):
    return [b - a for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), total], strict=True) if b > a]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(0, 20), st.lists(st.integers(1, 59), max_size=40), st.booleans())
def test_each_query_finds_the_keys_of_its_window(total, window, cuts, reordered):
    """Keys are the numbers of their tokens."""
    cache, start = KVCache(None, window), 0
    for new in pieces(total, [cut for cut in cuts if cut < total]):
        numbers = torch.arange(start, start + new).float().expand(2, 3, -1)[..., None]
        keys, values, positions = cache.append(numbers, -numbers)
        numbers_kept = positions.tensor("cpu")
        start += new
        assert torch.equal(keys, -values)
        assert torch.equal(keys, numbers_kept.float()[:, None].expand(2, 3, -1, 1))
        needed = set(range(max(0, start - new - window), start))
        assert needed <= set(numbers_kept.tolist())
        assert len(numbers_kept) == len(set(numbers_kept.tolist()))
        assert cache.bytes == 2 * 2 * 3 * (window + 1) * 4
        if reordered:
            cache.reorder(torch.tensor([1, 0]))


def test_rows_follow_their_order():
    cache = KVCache(None, 2)
    rows = torch.tensor([1.0, 2.0])[:, None, None, None]
    for position in range(5):
        cache.append(rows * 10**position, rows)
    cache.reorder(torch.tensor([1, 1]))
    keys, _ = cache.keys_values()
    assert torch.equal(keys[0], keys[1])
    assert sorted(keys[0].flatten().tolist()) == [200, 2000, 20000]


def test_the_last_token_is_kept_alone():
    cache, prompt = KVCache(100), torch.randn(2, 90, 8)
    assert torch.equal(cache.last_before("attention", prompt), torch.zeros(2, 1, 8))
    last = cache.last_before("attention", prompt[:, :1])
    assert torch.equal(last, prompt[:, -1:])
    assert last.untyped_storage().nbytes() == cache.bytes == 2 * 8 * 4


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_attention_in_steps_is_the_whole_at_once(data):
    """With dilation by head, slopes, rotation and padding on the left, in pieces of any size."""
    torch.manual_seed(0)
    total, heads = data.draw(st.integers(1, 50)), 3
    dilation = tuple(data.draw(st.lists(st.integers(1, 3), min_size=heads, max_size=heads)))
    span = AttentionSpan(data.draw(st.integers(0, 12)), dilation, data.draw(st.sampled_from([(), alibi_slopes(heads)])))
    positions = data.draw(st.sampled_from(["learned", "rotary"]))
    n_kv_heads, qk_norm = data.draw(st.sampled_from([None, 1])), data.draw(st.booleans())
    choices = {"positions": positions, "n_kv_heads": n_kv_heads, "qk_norm": qk_norm}
    layer = attention(24, heads, "sliding_window", span, **choices)
    x = torch.randn(2, total, 24)
    real = None
    if data.draw(st.booleans()):
        real = (torch.arange(total) >= torch.tensor([[0], [data.draw(st.integers(0, total - 1))]])).long()
    expected = layer(x, Mask(total, True, attention_mask=real))
    cache, start, found = KVCache(None, span.tokens), 0, []
    for new in pieces(total, data.draw(st.lists(st.integers(1, max(total - 1, 1)), max_size=20))):
        if start + new > total:
            break
        attention_mask = None if real is None else real[:, : start + new]
        found.append(layer(x[:, start : start + new], Mask(start + new, True, start, attention_mask), cache))
        start += new
    torch.testing.assert_close(torch.cat(found, 1), expected[:, :start], atol=1e-5, rtol=1e-5)


def test_a_cache_without_bounds_is_refused():
    with pytest.raises(ValueError, match="a cache needs a max_len or a window"):
        KVCache(None)
