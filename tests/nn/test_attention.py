"""Attention against a loop over heads in float64, and the faults that teaching code is known for."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.nn import (
    AttentionSpan,
    Block,
    BlockConfig,
    CrossAttention,
    GlobalSelfAttention,
    GlobalTokens,
    KVCache,
    Mask,
    padding_mask,
)
from src.nn.cpu import repeat_heads
from tests.nn.layers import attention

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 4), st.integers(1, 5))  # batch, seq, heads, dim


def brute_force(q, k, v, visible):
    """softmax(q k^T / sqrt(d)) v, one head and one query at a time; zeros where nothing is visible."""
    out = torch.zeros_like(q)
    for b, h, t in torch.cartesian_prod(*map(torch.arange, q.shape[:3])).reshape(-1, 3).tolist():
        keys = [s for s in range(k.shape[2]) if visible[b, t, s]]
        if keys:
            weights = torch.tensor([(q[b, h, t] @ k[b, h, s]).item() / math.sqrt(q.shape[3]) for s in keys]).exp()
            out[b, h, t] = sum(w * v[b, h, s] for w, s in zip(weights / weights.sum(), keys, strict=True))
    return out


def split_rows(linear, heads, n):
    """The projection's weight and bias for each of its ``n`` parts, heads in order: the documented layout."""
    dim = linear.out_features // heads // n
    weight = linear.weight.view(heads, n, dim, -1)
    bias = linear.bias.view(heads, n, dim)
    return [(weight[:, i].reshape(heads * dim, -1), bias[:, i].reshape(-1)) for i in range(n)]


def project(x, weight_bias, heads):
    y = x @ weight_bias[0].T + weight_bias[1]
    return y.view(*x.shape[:2], heads, -1).transpose(1, 2)


@settings(max_examples=30, deadline=None)
@given(SHAPES, st.booleans(), st.randoms(use_true_random=False))
def test_self_attention_is_softmax_of_scaled_products(shape, causal, random):
    batch, seq, heads, dim = shape
    torch.manual_seed(random.randrange(1000))
    layer = attention(heads * dim, heads).double()
    x = torch.randn(batch, seq, heads * dim, dtype=torch.float64)
    q, k, v = (project(x, part, heads) for part in split_rows(layer.qkv, heads, 3))
    visible = torch.ones(batch, seq, seq).tril() if causal else torch.ones(batch, seq, seq)
    merged = brute_force(q, k, v, visible).transpose(1, 2).reshape(batch, seq, -1)
    expected = merged @ layer.out.weight.T + layer.out.bias
    torch.testing.assert_close(layer(x, Mask(seq, causal)), expected)


@settings(max_examples=30, deadline=None)
@given(SHAPES, st.integers(1, 6), st.randoms(use_true_random=False))
def test_cross_attention_sees_the_memory_and_not_its_padding(shape, source, random):
    batch, seq, heads, dim = shape
    torch.manual_seed(random.randrange(1000))
    layer = attention(heads * dim, heads, kind=CrossAttention).double()
    x = torch.randn(batch, seq, heads * dim, dtype=torch.float64)
    memory = torch.randn(batch, source, heads * dim, dtype=torch.float64)
    lengths = torch.randint(1, source + 1, (batch,))
    attention_mask = (torch.arange(source) < lengths[:, None]).long()
    q = project(x, (layer.q.weight, layer.q.bias), heads)
    k, v = (project(memory, part, heads) for part in split_rows(layer.kv, heads, 2))
    merged = brute_force(q, k, v, attention_mask[:, None].expand(-1, seq, -1)).transpose(1, 2).reshape(batch, seq, -1)
    expected = merged @ layer.out.weight.T + layer.out.bias
    torch.testing.assert_close(layer(x, memory, padding_mask(attention_mask)), expected)


def test_no_future_token_reaches_a_past_output():
    """Heads merged without transposing back let it: changing the last of 6 tokens changed positions 2 and 5."""
    torch.manual_seed(0)
    layer = attention(16, 4)
    x = torch.randn(1, 6, 16)
    changed = x.clone()
    changed[:, -1] += 1
    before, after = layer(x, Mask(6, True)), layer(changed, Mask(6, True))
    assert torch.equal(before[:, :-1], after[:, :-1])
    assert not torch.allclose(before[:, -1], after[:, -1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_without_any_key_is_finite_and_has_finite_gradients(dtype):
    layer = attention(16, 4).to(dtype)
    x = torch.randn(2, 5, 16, dtype=dtype, requires_grad=True)
    y = layer(x, Mask(5, attention_mask=torch.tensor([[0] * 5, [1] * 5])))
    y.float().pow(2).sum().backward()
    assert y.isfinite().all()
    assert x.grad.isfinite().all()


def test_self_attention_in_steps_with_a_cache_is_the_whole_at_once():
    torch.manual_seed(0)
    layer = attention(16, 4)
    x = torch.randn(2, 7, 16)
    cache = KVCache(7)
    steps = [layer(x[:, :3], Mask(3, True), cache)]
    steps += [layer(x[:, i : i + 1], Mask(i + 1, True, past=i), cache) for i in range(3, 7)]
    torch.testing.assert_close(torch.cat(steps, 1), layer(x, Mask(7, True)))
    with pytest.raises(ValueError, match="8 tokens do not fit into a cache of 7"):
        layer(x[:, :1], Mask(8, True, past=7), cache)


def test_cross_attention_reads_a_cached_memory():
    torch.manual_seed(0)
    layer, cache = attention(16, 4, kind=CrossAttention), KVCache(5)
    x, memory = torch.randn(2, 3, 16), torch.randn(2, 5, 16)
    first = layer(x, memory, cache=cache)
    assert torch.equal(first, layer(x, torch.full_like(memory, torch.nan), cache=cache))


def test_attention_dropout_is_of_training_alone():
    torch.manual_seed(0)
    layer, x, mask = attention(16, 4, attention_dropout=0.5), torch.randn(2, 5, 16), Mask(5)
    assert not torch.equal(layer(x, mask), layer(x, mask))
    layer.eval()
    assert torch.equal(layer(x, mask), layer(x, mask))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="d_model 10 is not divisible by n_heads 3"):
        attention(10, 3)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_block_is_its_formula(norm):
    torch.manual_seed(0)
    block = Block(BlockConfig(d_model=16, n_heads=4, d_ff=32, norm=norm), cross_attention=True).eval()
    x, memory = torch.randn(2, 5, 16), torch.randn(2, 3, 16)
    sublayers = [
        (block.attention_norm, lambda y: block.attention(y, Mask(5))),
        (block.cross_attention_norm, lambda y: block.cross_attention(y, memory)),
        (block.feed_forward_norm, block.feed_forward),
    ]
    expected = x
    for layer_norm, sublayer in sublayers:
        expected = (
            expected + sublayer(layer_norm(expected)) if norm == "pre" else layer_norm(expected + sublayer(expected))
        )
    torch.testing.assert_close(block(x, Mask(5), memory=memory), expected)


def test_dropout_is_on_the_sublayers_output_and_not_on_the_residual_stream():
    """With everything dropped, a pre-norm block passes its input on."""
    block = Block(BlockConfig(d_model=16, n_heads=4, d_ff=32)).train()
    block.dropout.p = 1.0
    x = torch.randn(2, 5, 16)
    torch.testing.assert_close(block(x, Mask(5)), x)


def attended(layer, weights, values):
    return layer.out((weights @ values).transpose(1, 2).flatten(2))


PADDED = torch.tensor([[1] * 7, [1, 1, 1, 0, 0, 0, 0]])
MASKS = {
    "all": (Mask(7), AttentionSpan()),
    "no padding": (Mask(7, attention_mask=PADDED), AttentionSpan()),
    "not the future": (Mask(7, causal=True), AttentionSpan()),
    "not other documents": (Mask(7, causal=True, documents=torch.tensor([[0, 0, 1, 1, 1, 2, 2]] * 2)), AttentionSpan()),
    "a window": (Mask(7, causal=True), AttentionSpan(window=2, dilation=(1, 2, 1))),
    "the near more": (Mask(7, causal=True), AttentionSpan(alibi_slopes=(0.5, 0.25, 0.125))),
}


CHOICES = [{}, {"positions": "rotary", "qk_norm": True}, {"positions": "rotary", "n_kv_heads": 1}]


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_the_weights_to_look_at_are_those_that_the_values_get(kind, choices):
    torch.manual_seed(0)
    mask, span = MASKS[kind]
    layer = attention(12, 3, span=span, **choices).double()
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    weights = layer.weights(x, mask)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 7, dtype=torch.float64))
    values = repeat_heads(layer._queries_keys_values(x, mask)[2], 3)
    torch.testing.assert_close(attended(layer, weights, values), layer(x, mask))


def test_the_weights_of_global_tokens_are_by_their_own_projections():
    torch.manual_seed(0)
    layer = attention(12, 3, span=AttentionSpan(window=1), kind=GlobalSelfAttention).double()
    x, ids = torch.randn(2, 7, 12, dtype=torch.float64), torch.zeros(2, 7, dtype=torch.long)
    mask = Mask(7, attention_mask=PADDED, global_tokens=GlobalTokens.at([0, 5], ids, PADDED))
    weights = layer.weights(x, mask)
    own, of_global = layer._heads(layer.qkv(x), 3)[2], layer._heads(layer.global_kv(x), 2)[1]
    flags = mask.global_tokens.flags[:, None, :, None]
    y = (weights @ of_global).where(flags, weights @ own)
    expected = layer.out(y.transpose(1, 2).flatten(2))
    torch.testing.assert_close(expected, layer(x, mask))


@torch.no_grad()
def test_the_scores_of_cross_attention_are_capped():
    torch.manual_seed(0)
    layer = attention(12, 3, kind=CrossAttention, attention_softcap=0.5).double()
    x, memory = (5 * torch.randn(2, length, 12, dtype=torch.float64) for length in (4, 6))
    mask = padding_mask(torch.tensor([[1] * 6, [1] * 2 + [0] * 4]))
    q, (k, v) = layer._queries(x), layer._keys_values(memory)
    scores = 0.5 * torch.tanh(q @ k.transpose(2, 3) / 2 / 0.5)
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    torch.testing.assert_close(layer.weights(x, memory, mask), weights)
    torch.testing.assert_close(layer(x, memory, mask), layer.out((weights @ v).transpose(1, 2).flatten(2)))


def test_the_weights_of_cross_attention():
    torch.manual_seed(0)
    layer, x = attention(12, 3, kind=CrossAttention).double(), torch.randn(2, 4, 12, dtype=torch.float64)
    memory, mask = torch.randn(2, 6, 12, dtype=torch.float64), padding_mask(torch.tensor([[1] * 6, [1] * 2 + [0] * 4]))
    weights = layer.weights(x, memory, mask)
    assert weights.shape == (2, 3, 4, 6)
    assert (weights[1, :, :, 2:] == 0).all()
    values = layer._heads(layer.kv(memory), 2)[1]
    torch.testing.assert_close(attended(layer, weights, values), layer(x, memory, mask))
