"""Every implementation of attention against a softmax over what a loop says is seen: outputs and gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.errors import InputError
from src.nn import KERNELS, GlobalSelfAttention, GlobalTokens, Mask, Reach, SelfAttention, alibi_slopes

# what each implementation takes beside the causal mask
WINDOWED = ("dense", "sliding_window", "flex")


@st.composite
def cases(draw):
    """A batch and what is hidden in it: some of window, dilation by head, slopes, padding on either side, documents."""
    batch, heads, length = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 200))
    seed = draw(st.integers(0, 1000))
    generator = torch.Generator().manual_seed(seed)
    dilation = tuple(draw(st.lists(st.integers(1, 5), min_size=heads, max_size=heads))) if draw(st.booleans()) else ()
    slopes = alibi_slopes(heads) if draw(st.booleans()) else ()
    reach = Reach(draw(st.integers(0, 260)), dilation, slopes)
    attention_mask = documents = None
    if draw(st.booleans()):
        real = torch.randint(0, length + 1, (batch, 1), generator=generator)
        place = torch.arange(length)
        attention_mask = ((place < real) if draw(st.booleans()) else (place >= length - real)).long()
    if draw(st.booleans()):
        documents = (torch.rand(batch, length, generator=generator) < 0.05).long().cumsum(1)
    mask = Mask(length, draw(st.booleans()), attention_mask=attention_mask, documents=documents)
    q, k, v = torch.randn(3, batch, heads, length, 4, generator=generator)
    return q, k, v, mask, reach


def seen(mask: Mask, reach: Reach, row: int, head: int, query: int, key: int) -> bool:
    """What `Mask` and `Reach` promise, one pair at a time."""
    if query == key:
        return True
    distance = query - key
    dilation = reach.dilation[head] if reach.dilation else 1
    if mask.causal and distance < 0:
        return False
    if mask.attention_mask is not None and not mask.attention_mask[row, key]:
        return False
    if mask.documents is not None and mask.documents[row, query] != mask.documents[row, key]:
        return False
    return reach.window is None or (abs(distance) <= reach.window * dilation and distance % dilation == 0)


def expected(q, k, v, mask, reach):
    """softmax(q k^T / sqrt(d) - slope * distance) v in float64 over the pairs that are seen."""
    batch, heads, length, dim = q.shape
    visible = torch.tensor(
        [
            [[[seen(mask, reach, b, h, i, j) for j in range(length)] for i in range(length)] for h in range(heads)]
            for b in range(batch)
        ]
    )
    place = torch.arange(length)
    slopes = torch.tensor(reach.slopes or (0.0,) * heads, dtype=torch.float64)[:, None, None]
    scores = q.double() @ k.double().transpose(2, 3) / math.sqrt(dim) - slopes * (place[:, None] - place).abs()
    return scores.masked_fill(~visible, -torch.inf).softmax(-1) @ v.double()


def compare(found, wanted, inputs):
    """Outputs, and the gradients of some function of them."""
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(found.double(), wanted, atol=1e-5, rtol=1e-5)
    gradients = torch.autograd.grad((found * weight).sum(), inputs)
    for gradient, other in zip(gradients, torch.autograd.grad((wanted * weight).sum(), inputs), strict=True):
        torch.testing.assert_close(gradient, other, atol=1e-5, rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(cases(), st.sampled_from(["dense", "sliding_window"]))
def test_a_window_is_the_masked_softmax(case, kernel):
    q, k, v, mask, reach = case
    inputs = [x.requires_grad_() for x in (q, k, v)]
    compare(KERNELS[kernel](*inputs, mask, reach, 0.0), expected(*inputs, mask, reach), inputs)
