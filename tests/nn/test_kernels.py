"""Every implementation of attention against a softmax over the visible pairs: outputs and gradients."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.errors import InputError
from src.nn import KERNELS, AttentionSpan, GlobalSelfAttention, GlobalTokens, Mask, Packing, alibi_slopes
from src.nn.packed import padded
from tests.nn.layers import attention


@st.composite
def cases(draw):
    """A batch and what is hidden in it: some of window, dilation by head, slopes, padding on either side, documents."""
    batch, heads, length = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 300))
    seed = draw(st.integers(0, 1000))
    generator = torch.Generator().manual_seed(seed)
    dilation = tuple(draw(st.lists(st.integers(1, 5), min_size=heads, max_size=heads))) if draw(st.booleans()) else ()
    slopes = alibi_slopes(heads) if draw(st.booleans()) else ()
    window = draw(st.integers(0, 260) | st.just(10**9))
    span = AttentionSpan(window, dilation, slopes, draw(st.sampled_from([None, 1.5])))
    attention_mask = documents = None
    if draw(st.booleans()):
        real = torch.randint(0, length + 1, (batch, 1), generator=generator)
        position = torch.arange(length)
        attention_mask = ((position < real) if draw(st.booleans()) else (position >= length - real)).long()
    if draw(st.booleans()):
        documents = (torch.rand(batch, length, generator=generator) < 0.05).long().cumsum(1)
    mask = Mask(length, draw(st.booleans()), attention_mask=attention_mask, documents=documents)
    q, k, v = torch.randn(3, batch, heads, length, 4, generator=generator)
    return q, k, v, mask, span


def visible_pairs(mask: Mask, span: AttentionSpan, batch: int, heads: int) -> torch.Tensor:
    """What `Mask` and `AttentionSpan` promise of each pair, (batch, heads, T, T)."""
    position = torch.arange(mask.length)
    distance = (position[:, None] - position)[None, None].expand(batch, heads, -1, -1)
    dilation = torch.tensor(span.dilation or (1,) * heads)[:, None, None]
    found = torch.ones_like(distance, dtype=torch.bool)
    if mask.causal:
        found &= distance >= 0
    if span.window is not None:
        found &= (distance.abs() <= span.window * dilation) & (distance % dilation == 0)
    if mask.attention_mask is not None:
        found &= mask.attention_mask.bool()[:, None, None, :]
    if mask.documents is not None:
        found &= mask.documents[:, None, :, None] == mask.documents[:, None, None, :]
    return found | (distance == 0)


def expected(q, k, v, mask, span):
    """softmax(q k^T / sqrt(d) - slope * distance) v in float64 over the visible pairs."""
    batch, heads, length, dim = q.shape
    visible = visible_pairs(mask, span, batch, heads)
    position = torch.arange(length)
    slopes = torch.tensor(span.alibi_slopes or (0.0,) * heads, dtype=torch.float64)[:, None, None]
    scores = q.double() @ k.double().transpose(2, 3) / math.sqrt(dim)
    if span.softcap is not None:
        scores = span.softcap * torch.tanh(scores / span.softcap)
    scores = scores - slopes * (position[:, None] - position).abs()
    return scores.masked_fill(~visible, -torch.inf).softmax(-1) @ v.double()


def compare(found, wanted, inputs):
    """Outputs, and the gradients of some function of them."""
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(found.double(), wanted, atol=1e-5, rtol=1e-5)
    both = [torch.autograd.grad((y * weight).sum(), inputs, materialize_grads=True) for y in (found, wanted)]
    for gradient, other in zip(*both, strict=True):
        torch.testing.assert_close(gradient, other, atol=1e-5, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(cases(), st.sampled_from(["dense", "sliding_window"]))
def test_a_window_is_the_masked_softmax(case, kernel):
    q, k, v, mask, span = case
    inputs = [x.requires_grad_() for x in (q, k, v)]
    compare(KERNELS[kernel](*inputs, mask, span, 0.0), expected(*inputs, mask, span), inputs)


@settings(max_examples=40, deadline=None)
@given(cases(), st.integers(0, 6), st.sampled_from(["dense", "sliding_window", "padded"]))
def test_documents_end_to_end_are_the_masked_softmax(case, most, kernel):
    """Each by itself, whichever way: those of equal length together, by windows over the row, or padded for it."""
    q, k, v, mask, span = case
    if kernel == "dense":
        span = replace(span, window=None, dilation=())
    generator = torch.Generator().manual_seed(most)
    starts = torch.randint(0, mask.length + 1, (len(q), most + 1), generator=generator).sort(1).values
    starts[:, 0] = 0  # some begin where others do, or at the end: these are none
    packing = Packing(starts, int(Packing(starts, 0).lengths(mask.length).max()))
    mask = Mask(mask.length, mask.causal, documents=packing.documents(mask.length), packing=packing)
    inputs = [x.requires_grad_() for x in (q, k, v)]
    attend = partial(padded, KERNELS["dense"]) if kernel == "padded" else KERNELS[kernel]
    compare(attend(*inputs, mask, span, 0.0), expected(*inputs, mask, span), inputs)


@settings(max_examples=30, deadline=None)
@given(cases(), st.data())
def test_global_tokens_see_all_by_other_projections_and_are_seen_by_all(case, data):
    """Both implementations of the window, against a softmax over everything in float64."""
    q, _, _, mask, span = case
    batch, heads, length, dim = q.shape
    torch.manual_seed(0)
    x = torch.randn(batch, length, heads * dim, requires_grad=True)
    flags = torch.tensor(data.draw(st.lists(st.booleans(), min_size=length, max_size=length))) & (
        torch.rand(length) < 0.2
    )
    flags = flags.expand(batch, -1).clone()
    flags[0] = False  # rows of unequal numbers
    if data.draw(st.booleans()):
        flags[0, 0] = True
    tokens = GlobalTokens.where(flags.long(), mask.attention_mask)
    mask = Mask(length, attention_mask=mask.attention_mask, global_tokens=tokens)
    span = AttentionSpan(span.window, span.dilation)
    for kernel in ("dense", "sliding_window"):
        torch.manual_seed(0)
        layer = attention(heads * dim, heads, kernel, span, GlobalSelfAttention)
        compare(layer(x, mask), expected_globally(layer, x, mask, span), [x, *layer.parameters()])


def expected_globally(layer, x, mask, span):
    def heads(linear, n):
        return layer._heads(x @ linear.weight.T + linear.bias, n)

    real = torch.ones(x.shape[:2]) if mask.attention_mask is None else mask.attention_mask
    flags, heads_ = mask.global_tokens.flags, layer.out.in_features // layer.head_dim
    q, k, v = heads(layer.qkv, 3)
    (global_q,), (global_k, global_v) = heads(layer.global_q, 1), heads(layer.global_kv, 2)
    visible = visible_pairs(mask, span, len(x), heads_) | flags[:, None, None, :]

    def attend(q, k, v, visible):
        scores = q.double() @ k.double().transpose(2, 3) / math.sqrt(layer.head_dim)
        return scores.masked_fill(~visible, -torch.inf).softmax(-1).nan_to_num() @ v.double()

    local = attend(q, k, v, visible)
    everywhere = attend(global_q, global_k, global_v, real.bool()[:, None, None, :])
    y = torch.where(flags[:, None, :, None], everywhere, local).transpose(1, 2).flatten(2)
    return y @ layer.out.weight.double().T + layer.out.bias.double()


@settings(max_examples=5, deadline=None)
@given(cases())
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_is_the_masked_softmax(case):
    """Its outputs: it has no backward pass on a CPU, and says so."""
    q, k, v, mask, span = case
    with torch.no_grad():
        found = KERNELS["flex"](q, k, v, mask, span, 0.0)
        torch.testing.assert_close(found.double(), expected(q, k, v, mask, span), atol=1e-5, rtol=1e-5)
    with pytest.raises(InputError, match="attention 'flex' trains on CUDA, not on cpu: choose 'sliding_window'"):
        KERNELS["flex"](q.requires_grad_(), k, v, mask, span, 0.0)


@settings(max_examples=20, deadline=None)
@given(cases())
def test_flash_is_the_masked_softmax(case):
    q, k, v, mask, _ = case
    inputs = [x.requires_grad_() for x in (q, k, v)]
    if mask.attention_mask is not None and not mask.causal and mask.documents is None:
        mask = Mask(mask.length)  # all of a row may be padding, which has no softmax
    compare(KERNELS["flash"](*inputs, mask, AttentionSpan(), 0.0), expected(*inputs, mask, AttentionSpan()), inputs)


def test_flash_with_dropout_has_no_kernel_on_a_cpu():
    q, k, v = torch.randn(3, 1, 2, 8, 4)
    with pytest.raises(InputError, match=r"no flash kernel for float32 on cpu, attention_dropout 0\.1, no padding"):
        KERNELS["flash"](q, k, v, Mask(8, True), AttentionSpan(), 0.1)


def test_flash_attn_is_refused_where_it_cannot_be():
    q, k, v = torch.randn(3, 1, 2, 8, 4)
    with pytest.raises(InputError, match="'flash_attn' runs on CUDA, not on cpu"):
        KERNELS["flash_attn"](q, k, v, Mask(8, True), AttentionSpan(), 0.0)


@pytest.mark.parametrize("kernel", ["dense", "sliding_window"])
def test_dropout_drops_weights_and_keeps_their_mean(kernel):
    q, k = torch.zeros(2, 1, 2, 300, 4)
    v, mask, span = torch.ones(1, 2, 300, 4), Mask(300, True), AttentionSpan(20)
    torch.manual_seed(0)
    y = torch.stack([KERNELS[kernel](q, k, v, mask, span, 0.5) for _ in range(20)])
    assert y[:, :, :, 100:].mean().item() == pytest.approx(1, abs=0.01)
    # 21 equal weights, each kept or not: a variance of (1 - p) / p / 21
    assert y[:, 0, 0, 100:, 0].var().item() == pytest.approx(1 / 21, rel=0.1)


@pytest.mark.parametrize("window", [0, 1, 7, 8, 500])
def test_a_token_far_away_changes_nothing(window):
    torch.manual_seed(0)
    layer = attention(16, 4, "sliding_window", AttentionSpan(window))
    x, mask = torch.randn(1, 300, 16), Mask(300)
    changed = x.clone()
    changed[0, 150] += 1
    moved = (layer(x, mask) != layer(changed, mask)).any(2)[0].nonzero()[:, 0]
    assert moved.min() == max(150 - window, 0)
    assert moved.max() == min(150 + window, 299)


def test_the_heads_of_a_rank_have_their_dilation_and_slopes():
    span = AttentionSpan(3, (1, 2, 3, 4), alibi_slopes(4))
    layer = attention(16, 4, "sliding_window", span)
    layer.shard_heads(1, 2)
    assert layer.span == AttentionSpan(3, (3, 4), alibi_slopes(4)[2:])
    layer.shard_heads(0, 2)  # of those, where the tokens are divided as well
    assert layer.span == AttentionSpan(3, (3,), alibi_slopes(4)[2:3])
