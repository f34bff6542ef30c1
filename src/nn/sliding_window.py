"""Attention within a window, in time and memory linear in the length (Beltagy et al. 2020, section 3.1).

The tokens are cut into blocks. The queries of a block attend to its own keys and to those of the blocks beside it that
the window reaches, by one call of the fastest dense kernel for all blocks; a mask hides what is outside of the window.

To a head with a dilation of d, which sees every d-th token, the text is d texts of every d-th token each, with a window
of no dilation in each. So the tokens are put in that order first.

Shape letters: B batch, H heads, T tokens, D width of a head, d dilation, n blocks, b tokens a block, G global tokens.
"""

from dataclasses import replace
from itertools import groupby

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from src.nn.cpu import capped_attention, repeat_heads
from src.nn.masks import AttentionSpan, Mask, alibi_bias
from src.nn.packed import takes_varlen, varlen


def sliding_window(q: Tensor, k: Tensor, v: Tensor, mask: Mask, span: AttentionSpan, dropout: float) -> Tensor:
    """Attend from each token to the window around it, and to the global tokens: see :mod:`src.nn.kernels`."""
    if mask.packing is not None and takes_varlen(q, span, dropout):
        return varlen(q, k, v, mask, span)
    if not span.dilation:
        return _same_dilation(q, k, v, mask, span, 1, dropout)
    k, v = repeat_heads(k, q.shape[1]), repeat_heads(v, q.shape[1])
    outputs, first = [], 0
    for dilation, group in groupby(span.dilation):  # neighbouring heads with the same one in one call
        heads = slice(first, first + len(list(group)))
        first = heads.stop
        of_heads = replace(span, dilation=(), alibi_slopes=span.alibi_slopes[heads])
        outputs.append(_same_dilation(q[:, heads], k[:, heads], v[:, heads], mask, of_heads, dilation, dropout))
    return torch.cat(outputs, 1)


def _same_dilation(
    q: Tensor, k: Tensor, v: Tensor, mask: Mask, span: AttentionSpan, dilation: int, dropout: float
) -> Tensor:
    window = span.window
    assert window is not None
    b = (
        128 if window > 64 else 64
    )  # in larger blocks more keys are hidden, with smaller ones keys are copied more often
    n = -(-q.shape[2] // (b * dilation))
    before = min(-(-window // b), n - 1)
    after = 0 if mask.causal else before
    visible = mask.cached(_visible, span, dilation, (n, b, before, after), q.shape[0], q.dtype, q.device)
    queries, keys, values = (_blocks(x, n, b, dilation) for x in (q, k, v))
    shape = queries.shape[:3]
    keys = _with_neighbours(keys, before, after, _global(k, mask, shape))
    values = _with_neighbours(values, before, after, _global(v, mask, shape))
    queries, keys, values = (x.flatten(0, 2) for x in (queries, keys, values))
    if span.softcap is not None:
        y = capped_attention(queries, keys, values, visible, dropout, False, span.softcap)
    else:
        grouped = keys.shape[1] != queries.shape[1]
        y = scaled_dot_product_attention(queries, keys, values, visible, dropout, enable_gqa=grouped)
    y = y.unflatten(0, shape).permute(0, 3, 2, 4, 1, 5)
    return y.flatten(2, 4)[:, :, : q.shape[2]]


def _blocks(x: Tensor, n: int, b: int, dilation: int) -> Tensor:
    """(B, H, T, D) to (B, d, n, H, b, D), padded with zeros at the end."""
    missing = n * b * dilation - x.shape[2]
    if missing:
        x = pad(x, (0, 0, 0, missing))
    return x.unflatten(2, (n, b, dilation)).permute(0, 4, 2, 1, 3, 5)


def _with_neighbours(x: Tensor, before: int, after: int, more: list[Tensor]) -> Tensor:
    """Each block with those beside it, and more: (B, d, n, H, b, D) to (B, d, n, H, (before + 1 + after)·b + G, D)."""
    n = x.shape[2]
    x = pad(x, (0, 0, 0, 0, 0, 0, before, after))
    return torch.cat([*(x[:, :, i : i + n] for i in range(before + 1 + after)), *more], 4)


def _global(x: Tensor, mask: Mask, shape: tuple[int, ...]) -> list[Tensor]:
    """The global tokens' keys or values for every block, (B, d, n, H, G, D); an empty list without any."""
    if mask.global_tokens is None:
        return []
    index = mask.global_tokens.index[:, None, :, None]
    of_global = x.gather(2, index.expand(-1, x.shape[1], -1, x.shape[3]))
    return [of_global[:, None, None].expand(-1, *shape[1:3], -1, -1, -1)]


def _visible(
    mask: Mask,
    span: AttentionSpan,
    dilation: int,
    shape: tuple[int, int, int, int],
    batch: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """The mask of each block's pairs: boolean (B·d·n, 1, b, keys), or with ALiBi slopes a bias (B·d·n, H, b, keys)."""
    n, b, before, after = shape
    block = torch.arange(n, device=device)[:, None] * b
    query = block + torch.arange(b, device=device)
    key = block + torch.arange(-before * b, (1 + after) * b, device=device)
    offset = torch.arange(dilation, device=device)[:, None, None]  # which of the d texts
    query, key = (query * dilation + offset)[..., :, None], (key * dilation + offset)[..., None, :]
    visible = mask.visible(query, key, span.window, dilation)
    if visible.dim() == query.dim():
        visible = visible[None]
    if mask.global_tokens is not None:
        flags = mask.global_tokens.flags[:, key.clamp(0, mask.length - 1)]
        visible = visible & ~(flags & (query != key))  # they are visible beside the block, and count once
        valid = mask.global_tokens.valid[:, None, None, None, :].expand(-1, *visible.shape[1:4], -1)
        visible = torch.cat([visible, valid], 4)
    visible = visible.expand(batch, -1, -1, -1, -1).flatten(0, 2)[:, None]
    if not span.alibi_slopes:
        return visible
    distance = (query - key)[0, :1]  # the same in every block
    return alibi_bias(span.alibi_slopes, distance, dtype).masked_fill(~visible, -torch.inf)
