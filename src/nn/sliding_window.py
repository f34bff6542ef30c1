"""Attention within a window, in time and memory that grow as the length (Beltagy et al. 2020, section 3.1).

The tokens are cut into blocks. The queries of a block look at its own keys and at those of the blocks next to it that
the window reaches, by one call of the fastest dense kernel for all blocks; a mask hides what is outside of the window.

A head with a dilation of d sees every d-th token: to it the text is d texts, of every d-th token each, with a window
of no dilation in each. So the tokens are put in that order first.

Shape letters: B batch, H heads, T tokens, D width of a head, d dilation, n blocks, b tokens a block, G global tokens,
m how many blocks the window reaches to one side.
"""

from itertools import groupby

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from src.nn.masks import AttentionSpan, Mask, alibi_bias


def sliding_window(q: Tensor, k: Tensor, v: Tensor, mask: Mask, span: AttentionSpan, dropout: float) -> Tensor:
    """Attend from each token to the window around it, and to the global tokens: (B, H, T, D) of each to the same."""
    if not span.dilation:
        return _same_dilation(q, k, v, mask, span, 1, dropout)
    parts, first = [], 0
    for dilation, heads in groupby(span.dilation):  # neighbours with the same one go together
        some = slice(first, first + len(list(heads)))
        first = some.stop
        of_these = AttentionSpan(span.window, slopes=span.slopes[some])
        parts.append(_same_dilation(q[:, some], k[:, some], v[:, some], mask, of_these, dilation, dropout))
    return torch.cat(parts, 1)


def block_size(window: int) -> int:
    """Tokens a block: with larger ones more keys are hidden in vain, with smaller ones keys are copied more often."""
    return 128 if window > 64 else 64


def _same_dilation(
    q: Tensor, k: Tensor, v: Tensor, mask: Mask, span: AttentionSpan, dilation: int, dropout: float
) -> Tensor:
    window = span.window
    assert window is not None
    b = block_size(window)
    before = -(-window // b)
    after = 0 if mask.causal else before
    n = -(-q.shape[2] // (b * dilation))
    visible = mask.cached(_visible, span, dilation, (n, b, before, after), q.shape[0], q.dtype, q.device)
    queries, keys, values = (_blocks(x, n, b, dilation) for x in (q, k, v))
    shape, places = queries.shape[:3], None if mask.global_tokens is None else mask.global_tokens.index
    keys = _with_neighbours(keys, before, after, _everywhere(k, places, shape))
    values = _with_neighbours(values, before, after, _everywhere(v, places, shape))
    queries, keys, values = (x.flatten(0, 2) for x in (queries, keys, values))
    y = scaled_dot_product_attention(queries, keys, values, attn_mask=visible, dropout_p=dropout)
    y = y.unflatten(0, shape).permute(0, 3, 2, 4, 1, 5)
    return y.flatten(2, 4)[:, :, : q.shape[2]]


def _blocks(x: Tensor, n: int, b: int, dilation: int) -> Tensor:
    """(B, H, T, D) to (B, d, n, H, b, D), filled up with zeros behind the end."""
    missing = n * b * dilation - x.shape[2]
    if missing:
        x = pad(x, (0, 0, 0, missing))
    return x.unflatten(2, (n, b, dilation)).permute(0, 4, 2, 1, 3, 5)


def _with_neighbours(x: Tensor, before: int, after: int, more: list[Tensor]) -> Tensor:
    """Each block with those around it, and more: (B, d, n, H, b, D) to (B, d, n, H, (before + 1 + after)·b + G, D)."""
    n = x.shape[2]
    x = pad(x, (0, 0, 0, 0, 0, 0, before, after))
    return torch.cat([*(x[:, :, i : i + n] for i in range(before + 1 + after)), *more], 4)


def _everywhere(x: Tensor, index: Tensor | None, shape: tuple[int, ...]) -> list[Tensor]:
    """The global tokens' keys or values beside every block, (B, d, n, H, G, D); nothing without any."""
    if index is None:
        return []
    held = x.gather(2, index[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3]))
    return [held[:, None, None].expand(-1, *shape[1:3], -1, -1, -1)]


def _visible(
    mask: Mask,
    span: AttentionSpan,
    dilation: int,
    shape: tuple[int, int, int, int],
    batch: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """What the queries of each block see, (B·d·n, 1, b, keys) boolean, or with slopes (B·d·n, H, b, keys) to add."""
    n, b, before, after = shape
    block = torch.arange(n, device=device)[:, None] * b
    query = block + torch.arange(b, device=device)
    key = block + torch.arange(-before * b, (1 + after) * b, device=device)
    turn = torch.arange(dilation, device=device)[:, None, None]  # which of the d texts
    query, key = (query * dilation + turn)[..., :, None], (key * dilation + turn)[..., None, :]
    seen = mask.visible(query, key, span.window, dilation)
    if seen.dim() == query.dim():
        seen = seen[None]
    if mask.global_tokens is not None:
        flags = mask.global_tokens.flags[:, key.clamp(0, mask.length - 1)]
        seen = seen & ~(flags & (query != key))  # they are seen once, beside the block
        valid = mask.global_tokens.valid[:, None, None, None, :].expand(-1, *seen.shape[1:4], -1)
        seen = torch.cat([seen, valid], 4)
    seen = seen.expand(batch, -1, -1, -1, -1).flatten(0, 2)[:, None]
    if not span.slopes:
        return seen
    distance = (query - key)[0, :1]  # the same in every block
    return alibi_bias(span.slopes, distance, dtype).masked_fill(~seen, -torch.inf)
